"""The worst images of a report on panoptic or on label maps, drawn: ground truth beside the result."""
from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from modelscope_fastinst.evaluation.panoptic_matching import match
from modelscope_fastinst.evaluation.worst_maps import WorstMap
from modelscope_fastinst.structures import VOID, PanopticMap
from modelscope_fastinst.visualize import draw_instances, side_by_side
from modelscope_fastinst.visualize import draw_semantic as draw_label_map

SIDE = 640   # pixels that a drawn image's long side has at least
RIGHT, MISSED, FALSE, CROWD = (60, 190, 140), (255, 150, 0), (235, 50, 75), (150, 150, 150)


def draw_panoptic(image: WorstMap, classes: Sequence[str]) -> np.ndarray:
    """Ground truth beside the panoptic map, uint8 ``[H, W, 3]``: what is missed and what is false is marked."""
    matched = match(image.truth, image.found)
    truth, found = ([segment for segment in one.segments if segment.area] for one in (image.truth, image.found))
    truth_marks = {**dict.fromkeys(matched.missed, ('missed ', MISSED)),
                   **{segment.id: ('crowd ', CROWD) for segment in truth if segment.iscrowd}}
    found_marks = {**dict.fromkeys(matched.false, ('false ', FALSE)),
                   **dict.fromkeys(matched.ignored, ('not counted ', CROWD))}
    panels = [_segments(image, image.truth, truth_marks, classes, scores=False),
              _segments(image, image.found, found_marks, classes, scores=True)]
    objects = sum(not segment.iscrowd for segment in truth)
    return side_by_side(panels, [f'truth: {len(matched.missed)} of {objects} missed',
                                 f'found: {len(matched.false)} of {len(found)} false, PQ {image.quality:.2f}'])


def draw_semantic(image: WorstMap, classes: Sequence[str]) -> np.ndarray:
    """Ground truth, the label map, and the pixels that are wrong, uint8 ``[H, W, 3]``; a colour a class."""
    picture = _picture(image)
    truth, found = (_resized(one.labels, picture.shape[:2]) for one in (image.truth, image.found))
    scale = max(1.0, SIDE / max(picture.shape[:2]))
    panels = [draw_label_map(picture, labels, classes, scale=scale) for labels in (truth, found)]
    wrong = (truth != found) & (truth != VOID)
    panels.append(draw_instances(picture, None, [''], [wrong], scale=scale, tags=False, colors=[FALSE]))
    right, counted = image.truth.labels == image.found.labels, image.truth.labels != VOID
    share = float(1 - right[counted].mean()) if counted.any() else 0.0
    return side_by_side(panels, ['truth', f'found, mIoU {image.quality:.2f}', f'{share:.0%} of the pixels are wrong'])


def _segments(image: WorstMap, one: PanopticMap, marks: dict[int, tuple[str, tuple[int, int, int]]],
              classes: Sequence[str], scores: bool) -> np.ndarray:
    picture = _picture(image)
    ids = _resized(one.ids, picture.shape[:2])
    segments = [segment for segment in one.segments if (ids == segment.id).any()]   # a small one may be lost
    shown = [marks.get(segment.id, ('', RIGHT)) for segment in segments]
    return draw_instances(picture, [segment.score for segment in segments] if scores else None,
                          [f'{mark}{classes[segment.label]}' for (mark, _), segment in
                           zip(shown, segments, strict=True)],
                          [ids == segment.id for segment in segments],
                          scale=max(1.0, SIDE / max(picture.shape[:2])), colors=[color for _, color in shown])


def _picture(image: WorstMap) -> np.ndarray:
    from PIL import Image
    return np.array(Image.open(io.BytesIO(image.picture)).convert('RGB'))


def _resized(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map at another (height, width), each pixel the nearest."""
    if values.shape == size:
        return values
    rows, columns = ((np.arange(new) * old // new).astype(np.intp) for new, old in zip(size, values.shape, strict=True))
    return values[rows[:, None], columns]
