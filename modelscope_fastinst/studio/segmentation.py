"""One result of the studio: a picture's instances, kept so that they take next to no memory."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from modelscope_fastinst.studio.messages import Refused

PICTURE_FILE = 'picture.npy'


@dataclass(frozen=True)
class Segmentation:
    """What was found in one picture, with what it was asked for.

    A browser's session may hold any number of them: the masks are run lengths and the picture is on the disk, where it
    is removed after a time.

    Attributes:
        folder: the visit's folder, which holds the picture and what is downloaded.
        size: (height, width) in pixels of the picture.
        result: of ``pipeline()`` with ``mask_format='rle'``, without the maps ``id_map`` and ``label_map``, which
            ``id_map()`` and ``label_map()`` make anew.
        model: name of the model.
        classes: names of the model's classes, by label.
        task: 'instance', 'semantic' or 'panoptic'.
        options: of the call, as ``pipeline()`` takes them; what the visitor left open is not there.
        seconds: of each stage: 'wait' (in the queue), 'read', 'preprocess', 'network', 'postprocess' (or 'whole', the
            three in one, where the picture was done in tiles), and 'draw' once it was drawn.
        input_size: (height, width) in pixels at which the network saw the picture; None where that is not known.
        file_name: the upload's own name without folders, for the JSON file; never a path on this machine.
    """
    folder: Path
    size: tuple[int, int]
    result: Mapping[str, Any]
    model: str
    classes: tuple[str, ...]
    task: str
    options: Mapping[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    input_size: tuple[int, int] | None = None
    file_name: str = ''

    def __len__(self) -> int:
        return len(self.result['labels'])

    @property
    def image(self) -> np.ndarray:
        """The picture, uint8 ``[H, W, 3]`` RGB, read from the disk.

        Raises:
            Refused: 'expired'.
        """
        try:
            return np.load(self.folder / PICTURE_FILE, allow_pickle=False)
        except FileNotFoundError:
            raise Refused('expired') from None

    def areas(self) -> list[int]:
        """The number of pixels of each instance, segment or class."""
        from pycocotools import mask as coco_mask
        masks = list(self.result['masks'])
        return [int(area) for area in coco_mask.area(masks)] if masks else []

    def id_map(self) -> np.ndarray:
        """int32 ``[H, W]``, the ids of the segments of a panoptic result, 0 for void; as ``pipeline()`` gives it."""
        values = [segment['id'] for segment in self.result['segments']]
        return self._map(values, np.int32, 0)

    def label_map(self) -> np.ndarray:
        """int16 ``[H, W]``, the classes of a semantic result, -1 for void; as ``pipeline()`` gives it."""
        return self._map(self.result['indices'], np.int16, -1)

    def _map(self, values: list[int], dtype: Any, void: int) -> np.ndarray:
        from pycocotools import mask as coco_mask
        found = np.full(self.size, void, dtype)
        for value, mask in zip(values, self.result['masks'], strict=True):
            found[coco_mask.decode(mask) != 0] = value
        return found


def compact(result: Mapping[str, Any]) -> dict[str, Any]:
    """A pipeline's result without its maps; of a semantic one, with the classes' ``indices``, for names may repeat."""
    kept = {name: value for name, value in result.items() if name not in ('id_map', 'label_map')}
    if 'label_map' in result:
        present = np.unique(result['label_map'])
        kept['indices'] = [int(label) for label in present if label >= 0]
    return kept


def rows(segmentation: Segmentation) -> list[list]:
    """The table: number from 1, label, score (three decimals), area in pixels, box as 'x1, y1, x2, y2' in pixels.

    Labels are plain text of the model's: to be escaped where they are shown.
    """
    result = segmentation.result
    columns = zip(result['labels'], result['scores'], segmentation.areas(), result['boxes'], strict=True)
    return [[number, label, round(float(score), 3), area, ', '.join(str(round(side)) for side in box)]
            for number, (label, score, area, box) in enumerate(columns, start=1)]


def instance_at(segmentation: Segmentation, x: float, y: float) -> int | None:
    """Index of the instance at a pixel, from 0; of several the smallest, which is drawn on top; None for none.

    Args:
        x, y: in pixels of the picture.
    """
    from pycocotools import mask as coco_mask
    height, width = segmentation.size
    try:
        column, row = int(x), int(y)
    except (TypeError, ValueError, OverflowError):   # NaN, infinity, or what is no number
        return None
    if not (0 <= column < width and 0 <= row < height):
        return None
    before = column * height + row   # run lengths go down the columns
    point = coco_mask.frPyObjects({'size': [height, width], 'counts': [before, 1, height * width - before - 1]},
                                  height, width)
    areas = segmentation.areas()
    hit = [index for index, (mask, box) in enumerate(zip(segmentation.result['masks'], segmentation.result['boxes'],
                                                         strict=True))
           if box[0] <= column < box[2] and box[1] <= row < box[3]
           and coco_mask.area(coco_mask.merge([mask, point], intersect=True))]
    return min(hit, key=lambda index: (areas[index], index), default=None)
