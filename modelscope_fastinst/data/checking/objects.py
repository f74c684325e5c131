"""What is wrong with the outlines of one image: too small, drawn twice, at odds with their boxes."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modelscope_fastinst.data.checking.part import Part
from modelscope_fastinst.data.geometry import resized_size
from modelscope_fastinst.data.segmentation import to_rle

# An object smaller than one cell of the network's mask logits (stride 8) cannot be told from its surroundings by them.
CELL = 8 * 8
SAME = 0.95      # from this IoU on two outlines are the same
MUCH = 0.5       # from this IoU on two objects of a class cover much of each other
WITHIN = 0.9     # from this share of its pixels on an object lies within another
_BOX_IOU = 0.5   # below, a box belongs to another outline; COCO's own boxes are a few pixels off at most
_BOX_SLACK = 2.0
_AREA_FACTOR = 2.0
_AREA_SLACK = 16.0


@dataclass
class ImageObjects:
    """The figures of one image.

    Attributes:
        areas: float64 ``[N]``, pixels of its objects (no crowds) at the network's input size.
        coverage: share of the image that belongs to objects, 0..1.
    """
    areas: np.ndarray
    coverage: float


def check_objects(part: Part, image: int, min_size: int, max_size: int | None) -> ImageObjects:
    """Notes what is wrong with the objects of an image in ``part``, and counts them.

    Args:
        min_size, max_size: of the network's input, see ``data.augment.InferenceTransform``.
    """
    from pycocotools import mask as coco_mask
    records = part.records
    height, width = map(int, records.sizes[image])
    every = range(int(records.starts[image]), int(records.starts[image + 1]))
    if not len(every):
        return ImageObjects(np.zeros(0), 0.0)
    rles = [to_rle(records.segmentation(index), height, width) for index in every]
    areas = coco_mask.area(rles).astype(np.float64)
    boxes = coco_mask.toBbox(rles)
    for index, area, box in zip(every, areas, boxes, strict=True):
        _check_pixels(part, image, index, float(area), box)
    objects = [number for number, index in enumerate(every) if not records.crowds[index]]
    scaled_height, scaled_width = resized_size(height, width, min_size, max_size)
    scaled = areas[objects] * (scaled_height * scaled_width / (height * width))
    for number, area in zip(objects, scaled, strict=True):
        if 0 < area < CELL:
            part.at_object('tiny-object', image, every[number],
                           f'{areas[number]:.0f} pixels, {int(area)} at the input size of {scaled_width} x '
                           f'{scaled_height} (width x height); a cell has {CELL}')
    _check_pairs(part, image, [every[number] for number in objects], [rles[number] for number in objects])
    _check_nesting(part, image, [every[number] for number in objects], [rles[number] for number in objects])
    covered = coco_mask.area(coco_mask.merge([rles[number] for number in objects])) if objects else 0
    return ImageObjects(scaled, float(covered) / (height * width))


def _check_pixels(part: Part, image: int, index: int, area: float, box: np.ndarray) -> None:
    if area == 0:
        part.at_object('no-pixels', image, index, 'its outline is so thin or small that no pixel lies in it')
        return
    records = part.records
    given = float(records.areas[index])
    if abs(given - area) > _AREA_SLACK and not 1 / _AREA_FACTOR <= given / area <= _AREA_FACTOR:
        part.at_object('area-mismatch', image, index, f'area is {given:g}, its outline has {area:.0f} pixels')
    stated = records.boxes[index]
    if not np.isnan(stated[0]):
        ends, stated_ends = box[:2] + box[2:], stated[:2] + stated[2:]
        apart = max(np.abs(box[:2] - stated[:2]).max(), np.abs(ends - stated_ends).max())
        sides = np.clip(np.minimum(ends, stated_ends) - np.maximum(box[:2], stated[:2]), 0, None)
        common = sides.prod()
        if apart > _BOX_SLACK and common < _BOX_IOU * (box[2:].prod() + stated[2:].prod() - common):
            part.at_object('box-mismatch', image, index,
                           f'bbox is {_numbers(stated)}, the outline lies in {_numbers(box)} (x, y, width, height)')


def _check_pairs(part: Part, image: int, indices: list[int], rles: list[dict]) -> None:
    """Notes objects that are the same as, or cover much of, an earlier one; each once, with the one most alike."""
    from pycocotools import mask as coco_mask
    if len(rles) < 2:
        return
    ious = np.tril(np.asarray(coco_mask.iou(rles, rles, [0] * len(rles))), -1)
    labels = part.records.labels[indices]
    same_class = labels[:, None] == labels[None]
    for number in np.flatnonzero((ious >= MUCH).any(1)):
        alike = np.where(same_class[number], ious[number], 0)
        other = int(alike.argmax())
        if alike[other] >= MUCH:
            name = part.object_name(indices[other])
            code = 'duplicate-object' if alike[other] >= SAME else 'overlapping-objects'
            share = f'IoU {alike[other]:.2f}'
            message = (f'the same outline as {name} ({share})' if code == 'duplicate-object' else
                       f'covers much of {name} ({share})')
            part.at_object(code, image, indices[number], f'{part.records.classes[labels[number]]}: {message}')
        alike = np.where(same_class[number], 0, ious[number])
        other = int(alike.argmax())
        if alike[other] >= SAME:
            classes = part.records.classes
            part.at_object('two-classes', image, indices[number],
                           f'{classes[labels[number]]}, but {part.object_name(indices[other])} has the same outline '
                           f'and is {classes[labels[other]]} (IoU {alike[other]:.2f})')


def _check_nesting(part: Part, image: int, indices: list[int], rles: list[dict]) -> None:
    """Notes objects that lie within a larger one of their class, as the parts of an outlined group do."""
    from pycocotools import mask as coco_mask
    if len(rles) < 2:
        return
    ious = np.asarray(coco_mask.iou(rles, rles, [0] * len(rles)))
    shares = np.asarray(coco_mask.iou(rles, rles, [1] * len(rles)))   # [i, j]: share of object i that lies in j
    labels = part.records.labels[indices]
    shares[(labels[:, None] != labels[None]) | (ious >= MUCH)] = 0   # the object itself has an IoU of 1
    for number in np.flatnonzero((shares >= WITHIN).any(1)):
        other = int(shares[number].argmax())
        part.at_object('nested-object', image, indices[number],
                       f'{part.records.classes[labels[number]]}: {shares[number, other]:.0%} of it lie within '
                       f'{part.object_name(indices[other])}')


def _numbers(values: np.ndarray) -> str:
    return '[' + ', '.join(f'{value:g}' for value in values.tolist()) + ']'
