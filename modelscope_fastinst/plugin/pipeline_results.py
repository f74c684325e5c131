"""What ``pipeline('image-segmentation')`` answers: results of any task in ModelScope's form.

For every task these are the keys that ModelScope documents for image segmentation, ``scores``, ``labels`` and
``masks``, and ``boxes`` as well: four lists with one entry for each instance, segment or class that is present.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from modelscope.outputs import OutputKeys

from modelscope_fastinst.results.rle import encode_region
from modelscope_fastinst.structures import Instances, PanopticMap, SemanticMap


def as_result(found: Instances | PanopticMap | SemanticMap, classes: Sequence[str],
              mask_format: str = 'array') -> dict[str, Any]:
    """One image's result.

    Args:
        found: by a postprocessor.
        classes: names of the model's classes.
        mask_format: of segments and classes: 'array' or 'rle'. Instances have masks already.
    """
    if isinstance(found, PanopticMap):
        return _panoptic(found, classes, mask_format)
    if isinstance(found, SemanticMap):
        return _semantic(found, classes, mask_format)
    return _lists(_listed(found.scores), [classes[label] for label in _listed(found.labels)], list(found.masks),
                  _listed(found.boxes))


def _panoptic(found: PanopticMap, classes: Sequence[str], mask_format: str) -> dict[str, Any]:
    """The lists, one entry a segment, and beside them the segments themselves and the map of their ids."""
    segments = [{'id': segment.id, 'label': classes[segment.label], 'score': segment.score, 'isthing': segment.isthing,
                 'area': segment.area, 'bbox': list(segment.bbox)} for segment in found.segments]
    boxes = [_corners(segment.bbox) for segment in found.segments]
    masks = [_mask(found.ids, segment.id, box, mask_format)
             for segment, box in zip(found.segments, boxes, strict=True)]
    return {**_lists([segment['score'] for segment in segments], [segment['label'] for segment in segments], masks,
                     [[float(side) for side in box] for box in boxes]),
            'segments': segments, 'id_map': found.ids}


def _semantic(found: SemanticMap, classes: Sequence[str], mask_format: str) -> dict[str, Any]:
    """The lists, one entry for each class that is present, in their order; and beside them the map."""
    from scipy.ndimage import find_objects
    # Pixels of no class are -1, and what is 0 is no object to scipy.
    places = enumerate(find_objects(found.labels.astype(np.int32) + 1))
    present = [(label, (place[1].start, place[0].start, place[1].stop, place[0].stop))
               for label, place in places if place is not None]
    return {**_lists([float(found.scores[label]) for label, _ in present], [classes[label] for label, _ in present],
                     [_mask(found.labels, label, box, mask_format) for label, box in present],
                     [[float(side) for side in box] for _, box in present]),
            'label_map': found.labels}


def _lists(scores: list, labels: list, masks: list, boxes: list) -> dict[str, Any]:
    return {OutputKeys.SCORES: scores, OutputKeys.LABELS: labels, OutputKeys.MASKS: masks, OutputKeys.BOXES: boxes}


def _mask(values: np.ndarray, value: int, box: tuple[int, int, int, int], mask_format: str) -> np.ndarray | dict:
    """Where a map has a value, which is within the box (xyxy) only: uint8 ``[H, W]`` or COCO RLE."""
    left, top, right, bottom = box
    inside = values[top:bottom, left:right] == value
    if mask_format == 'rle':
        return encode_region(inside.T, values.shape, top, left)
    mask = np.zeros(values.shape, np.uint8)
    mask[top:bottom, left:right] = inside
    return mask


def _corners(bbox: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """xywh to xyxy."""
    return bbox[0], bbox[1], bbox[0] + bbox[2], bbox[1] + bbox[3]


def _listed(values: Any) -> list:
    return values.tolist() if hasattr(values, 'tolist') else list(values)
