"""What the pixels of an annotated map mean: for each of them, which entry of a small table it belongs to.

Panoptic and semantic ground truth are the same here: pixels have numbers, and a table says what the numbers mean. They
differ in what is made of it: a mask a segment, or a mask a class.
"""
from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from modelscope_fastinst.data.formats.instance_maps import encode_map
from modelscope_fastinst.data.geometry import Plan
from modelscope_fastinst.structures import VOID, PanopticMap, Segment, SemanticMap, Target


@dataclass
class LabelMap:
    """An image's ground truth as pixels and a table of S entries.

    Attributes:
        places: int32 ``[H, W]``, the entry of the table that a pixel belongs to; -1 for none (void).
        numbers: int64 ``[S]``, ascending, at least 0: what stands for the entries in the file; unique.
        labels: int64 ``[S]``, class indices.
        crowds: bool ``[S]``, regions of several objects, from which nothing is learned and which are not evaluated.
    """
    places: np.ndarray
    numbers: np.ndarray
    labels: np.ndarray
    crowds: np.ndarray

    @classmethod
    def of_target(cls, target: Target) -> LabelMap:
        """The map of which these are the masks, which are numbered from 1; of masks that overlap the later lies above.
        """
        places = np.full(target.masks.shape[1:], -1, np.int32)
        for place, mask in enumerate(target.masks.numpy()):
            places[mask] = place
        count = len(target)
        return cls(places, np.arange(1, count + 1), target.labels.numpy(), np.zeros(count, bool))

    @classmethod
    def of_panoptic(cls, truth: PanopticMap) -> LabelMap:
        """The map with the segments of a panoptic one."""
        segments = sorted(truth.segments, key=lambda one: one.id)
        numbers = np.array([one.id for one in segments], np.int64)
        return cls(locate(truth.ids, numbers), numbers, np.array([one.label for one in segments], np.int64),
                   np.array([one.iscrowd for one in segments], bool))

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.places.shape

    def relabelled(self, label_of: np.ndarray) -> LabelMap:
        """The same with other class indices.

        Args:
            label_of: int64, by old class index the new one; -1 for classes that become void.
        """
        labels = label_of[self.labels] if len(self.labels) else self.labels
        kept = labels >= 0
        if kept.all():
            return replace(self, labels=labels)
        place_of = np.append(np.where(kept, np.cumsum(kept) - 1, -1), -1).astype(np.int32)   # the last is that of -1
        return LabelMap(place_of[self.places], self.numbers[kept], labels[kept], self.crowds[kept])

    def present(self) -> LabelMap:
        """The same without the entries that no pixel belongs to."""
        kept = np.bincount((self.places + 1).ravel(), minlength=len(self.numbers) + 1)[1:] > 0
        place_of = np.append(np.where(kept, np.cumsum(kept) - 1, -1), -1).astype(np.int32)
        return LabelMap(place_of[self.places], self.numbers[kept], self.labels[kept], self.crowds[kept])

    def segments_target(self, plan: Plan) -> Target:
        """One mask a segment, crowds left out, at the plan's size; a segment of which a crop left nothing stays, empty.
        """
        kept = np.flatnonzero(~self.crowds)
        return _target(plan.masks(self.places[None])[0], kept, self.labels[kept])

    def classes_target(self, plan: Plan) -> Target:
        """One mask a class that the plan leaves in the image."""
        labels = plan.masks(self.semantic().labels[None])[0]
        present = np.unique(labels)
        present = present[present != VOID].astype(np.int64)
        return _target(labels, present, present)

    def semantic(self) -> SemanticMap:
        """The class of each pixel. Regions of several objects are of their class as well."""
        table = np.append(self.labels, VOID).astype(np.int16)   # place -1 is the last
        return SemanticMap(table[self.places])

    def panoptic(self, things: frozenset[int]) -> PanopticMap:
        """Every segment; ``things``: the class indices that count objects. Entries without a pixel are no segments."""
        from scipy import ndimage
        areas = np.bincount((self.places + 1).ravel(), minlength=len(self.numbers) + 1)[1:]
        boxes = ndimage.find_objects(self.places + 1, len(self.numbers))
        segments = []
        for place in np.flatnonzero(areas):
            rows, columns = boxes[place]
            label = int(self.labels[place])
            segments.append(Segment(int(self.numbers[place]), label, 1.0, label in things, int(areas[place]),
                                    (columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start),
                                    bool(self.crowds[place])))
        return PanopticMap(np.append(self.numbers, 0).astype(np.int32)[self.places], segments)

    def annotations(self, things: frozenset[int]) -> list[dict]:
        """The objects of the thing classes as ``Sample.annotations`` has them, crowds included."""
        from pycocotools import mask as coco_mask
        is_thing = np.append(np.isin(self.labels, list(things)), False)
        records = []
        for place, rle in encode_map(np.where(is_thing[self.places], self.places, -1), background=-1).items():
            records.append({'id': int(self.numbers[place]), 'category_id': int(self.labels[place]),
                            'segmentation': rle, 'area': float(coco_mask.area(rle)),
                            'bbox': coco_mask.toBbox(rle).tolist(), 'iscrowd': int(self.crowds[place])})
        return records


def locate(values: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The place of each value in a sorted table.

    Args:
        values: whole numbers of at least 0, any shape.
        numbers: int64 ``[S]``, ascending.

    Returns:
        int32 of the same shape; -1 where the table does not have the value.
    """
    largest = int(values.max(initial=0))
    if largest < 1 << 16:   # a table of all values is faster than a search, and small
        place_of = np.full(largest + 1, -1, np.int32)
        inside = numbers <= largest
        place_of[numbers[inside]] = np.flatnonzero(inside)
        return place_of[values]
    if not len(numbers):
        return np.full(values.shape, -1, np.int32)
    places = np.searchsorted(numbers, values).astype(np.int32)
    places[places == len(numbers)] = 0
    places[numbers[places] != values] = -1
    return places


def _target(pixels: np.ndarray, values: np.ndarray, labels: np.ndarray) -> Target:
    """Masks of the pixels that have these values."""
    masks = np.empty((len(values), *pixels.shape), bool)
    for mask, value in zip(masks, values):
        np.equal(pixels, value, out=mask)
    return Target(torch.from_numpy(np.asarray(labels, np.int64)), torch.from_numpy(masks))
