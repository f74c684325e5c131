"""Panoptic quality, equal to the COCO panoptic API's (Kirillov et al., CVPR 2019, arXiv 1801.00868).

Images are compared as they come, under the data set's own image ids, so that order, several processes and images that
come twice do not matter. What is kept of an image are a few numbers for each of its classes, not its maps.
"""
from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from modelscope_fastinst.evaluation.class_names import checked_label
from modelscope_fastinst.evaluation.gathering import Gathering
from modelscope_fastinst.evaluation.panoptic_matching import PanopticEvidence, compare
from modelscope_fastinst.evaluation.panoptic_report import PanopticReport
from modelscope_fastinst.evaluation.worst_maps import WorstMaps
from modelscope_fastinst.structures import PanopticMap

__all__ = ['PanopticEvaluator', 'panoptic_metric_names']

_VALUES = ('PQ', 'SQ', 'RQ')
_GROUPS = ('', '_th', '_st')   # all classes, things, stuff


class PanopticEvaluator(Gathering):
    """Gathers how panoptic maps fare against the ground truth, and computes PQ, SQ and RQ.

    Args:
        classes: class names in the order of the class indices.
        things: indices of the classes that are things.
        worst: so many of the images of least PQ are kept as a whole.

    Raises:
        ValueError: no classes, a name that comes twice, or a thing that is no class.
    """

    _alike = ('classes', 'things')

    def __init__(self, classes: Sequence[str], things: Collection[int], worst: int = 0) -> None:
        super().__init__(classes, WorstMaps(worst))
        self.things = frozenset(int(label) for label in things)
        for label in self.things:
            checked_label(label, self.classes, 'things')

    def add(self, image_id: Any, truth: PanopticMap, found: PanopticMap, image: Any = None, name: str = '') -> None:
        """Take in one image. An id that is already known is ignored: padded samplers repeat images.

        Args:
            image_id: the data set's id of the image.
            truth: ground truth at the original size; where its ids are 0 nothing is evaluated.
            found: what was found, at the same size; a pixel without a segment (0) is in none.
            image: uint8 ``[3, H, W]``, RGB, of any size; kept where the image is one of the worst.
            name: of the image, for people.

        Raises:
            ValueError: maps of different size, a class index without a name, or a found map whose ids and segments are
                not the same; names the image and the segment.
        """
        if image_id in self._images:
            return
        where = f'image {image_id}'
        for kind, one in (('ground truth', truth), ('result', found)):
            for segment in one.segments:
                checked_label(segment.label, self.classes, f'{where}: {kind}, segment {segment.id}')
        self._images[image_id] = evidence = compare(truth, found, where)
        self.worst.offer(image_id, evidence.quality, truth, found, image, name)

    def evaluate(self) -> dict[str, float]:
        """Panoptic, segmentation and recognition quality over everything gathered.

        Returns:
            ``PQ``, ``SQ``, ``RQ``, the means over the classes; ``PQ_th`` and so on over the things, ``PQ_st`` over the
            stuff; and ``PQ/<class>``, ``SQ/<class>``, ``RQ/<class>``. In [0, 1]. A class without any segment, neither
            in the ground truth nor counted in the results, is in no mean; it gets -1, and so does a mean over no class.
            (Where the API divides by zero, or prints 0.)

        Raises:
            ValueError: no image was added.
        """
        return averages(class_sums(self.images(), len(self.classes)), self.classes, self.things)

    def report(self, metrics: Mapping[str, float] | None = None) -> PanopticReport:
        """Numbers by class, which class is taken for which, and the worst images of everything gathered.

        Args:
            metrics: what ``evaluate`` gave; None to compute it again.
        """
        images = self.images()
        return PanopticReport(self.classes, self.things, dict(self.evaluate() if metrics is None else metrics),
                              class_sums(images, len(self.classes)), _confusion(images, len(self.classes)), len(images),
                              self.worst.images())


def panoptic_metric_names(classes: Sequence[str]) -> list[str]:
    """The names of all values that evaluation gives for these classes: averages first."""
    return [*(f'{value}{group}' for group in _GROUPS for value in _VALUES),
            *(f'{value}/{name}' for value in _VALUES for name in classes)]


def class_sums(images: Sequence[PanopticEvidence], num_classes: int) -> dict[str, np.ndarray]:
    """By class, over all images: ``iou`` (float64 ``[K]``, of the pairs), ``tp``, ``fp``, ``fn`` (int64 ``[K]``)."""
    every = np.concatenate([image.classes for image in images])
    sums = {part: np.zeros(num_classes, np.float64 if part == 'iou' else np.int64)
            for part in ('iou', 'tp', 'fp', 'fn')}
    for part, values in sums.items():
        np.add.at(values, every['label'], every[part])
    return sums


def averages(sums: Mapping[str, np.ndarray], classes: Sequence[str], things: Collection[int]) -> dict[str, float]:
    """See ``PanopticEvaluator.evaluate``."""
    counted = sums['tp'] + sums['fp'] / 2 + sums['fn'] / 2
    there = counted > 0
    divided = {'PQ': (sums['iou'], counted), 'SQ': (sums['iou'], sums['tp']), 'RQ': (sums['tp'], counted)}
    quality = {name: part / np.maximum(whole, 0.5) for name, (part, whole) in divided.items()}
    is_thing = np.isin(np.arange(len(classes)), sorted(things))
    values: dict[str, float] = {}
    for group, members in zip(_GROUPS, (there, there & is_thing, there & ~is_thing), strict=True):
        values |= {f'{name}{group}': float(one[members].mean()) if members.any() else -1.0
                   for name, one in quality.items()}
    return values | {f'{name}/{label}': float(one[index]) if there[index] else -1.0
                     for name, one in quality.items() for index, label in enumerate(classes)}


def _confusion(images: Sequence[PanopticEvidence], num_classes: int) -> np.ndarray:
    """int64 ``[K + 1, K + 1]``: segments by true and by found class; last row and column: nothing there, missed."""
    matrix = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    for image in images:
        rows, columns = (np.where(image.pairs[part] < 0, num_classes, image.pairs[part])
                         for part in ('truth', 'found'))
        np.add.at(matrix, (rows, columns), 1)
    return matrix
