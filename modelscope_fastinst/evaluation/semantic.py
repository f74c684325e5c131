"""Mean intersection over union and its kin, over the pixels that the ground truth gives a class.

Images are compared as they come, under the data set's own image ids, so that order, several processes and images that
come twice do not matter. What is kept of an image are its pairs of classes with their pixels, not its maps.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modelscope_fastinst.evaluation.class_names import checked_label
from modelscope_fastinst.evaluation.gathering import Gathering
from modelscope_fastinst.evaluation.joint_areas import joint_areas
from modelscope_fastinst.evaluation.semantic_report import SemanticReport
from modelscope_fastinst.evaluation.worst_maps import WorstMaps
from modelscope_fastinst.structures import VOID, PanopticMap, SemanticMap

__all__ = ['SemanticEvaluator', 'semantic_metric_names', 'semantic_truth']

# Pixels of one class that were found as one class; VOID where the result has none.
PIXELS = np.dtype([('truth', '<i4'), ('found', '<i4'), ('pixels', '<i8')])
_AVERAGES = ('mIoU', 'fwIoU', 'mACC', 'pACC')


class SemanticEvaluator(Gathering):
    """Gathers how label maps fare against the ground truth, and computes mIoU, accuracies and the confusion matrix.

    Args:
        classes: class names in the order of the class indices.
        worst: so many of the images of least mIoU are kept as a whole.

    Raises:
        ValueError: no classes, or a name that comes twice.
    """

    def __init__(self, classes: Sequence[str], worst: int = 0) -> None:
        super().__init__(classes, WorstMaps(worst))

    def add(self, image_id: Any, truth: SemanticMap, found: SemanticMap, image: Any = None, name: str = '') -> None:
        """Take in one image. An id that is already known is ignored: padded samplers repeat images.

        Args:
            image_id: the data set's id of the image.
            truth: ground truth at the original size; where it is ``VOID`` nothing is evaluated.
            found: what was found, at the same size; a pixel without a class counts as found wrong.
            image: uint8 ``[3, H, W]``, RGB, of any size; kept where the image is one of the worst.
            name: of the image, for people.

        Raises:
            ValueError: maps of different size, or a class index without a name; names the image.
        """
        if image_id in self._images:
            return
        try:
            one, other, pixels = joint_areas(truth.labels, found.labels)
        except ValueError as error:
            raise ValueError(f'image {image_id}: ground truth and result: {error}') from error
        for kind, labels in (('ground truth', one), ('result', other)):
            for label in np.unique(labels):
                if label != VOID:
                    checked_label(label, self.classes, f'image {image_id}: {kind}')
        counted = one != VOID
        evidence = np.zeros(int(counted.sum()), PIXELS)
        evidence['truth'], evidence['found'], evidence['pixels'] = one[counted], other[counted], pixels[counted]
        self._images[image_id] = evidence
        self.worst.offer(image_id, _image_quality(evidence), truth, found, image, name)

    def confusion(self) -> np.ndarray:
        """Pixels by true and by found class, int64 ``[K, K + 1]``; the last column holds pixels without a class.

        Raises:
            ValueError: no image was added.
        """
        number = len(self.classes)
        matrix = np.zeros((number, number + 1), np.int64)
        for image in self.images():
            columns = np.where(image['found'] == VOID, number, image['found'])
            np.add.at(matrix, (image['truth'], columns), image['pixels'])
        return matrix

    def evaluate(self) -> dict[str, float]:
        """The averages over all pixels gathered that the ground truth gives a class.

        Returns:
            ``mIoU`` and ``mACC``, the means of ``IoU/<class>`` (intersection over union) and ``ACC/<class>`` (the share
            of the class's pixels that were found as it) over the classes that the ground truth has; ``fwIoU``, the IoU
            weighted by the classes' shares of the ground truth; ``pACC``, the share of right pixels. In [0, 1]. A class
            that the ground truth does not have is in no average, as in detectron2's evaluation, where its pixels count
            against the classes they lie on only; it gets -1, and so does an average over no class.

        Raises:
            ValueError: no image was added.
        """
        return averages(self.confusion(), self.classes)

    def report(self, metrics: Mapping[str, float] | None = None) -> SemanticReport:
        """Numbers by class, which class is taken for which, and the worst images of everything gathered.

        Args:
            metrics: what ``evaluate`` gave; None to compute it again.
        """
        return SemanticReport(self.classes, dict(self.evaluate() if metrics is None else metrics), self.confusion(),
                              len(self), self.worst.images())


def semantic_metric_names(classes: Sequence[str]) -> list[str]:
    """The names of all values that evaluation gives for these classes: averages first."""
    return [*_AVERAGES, *(f'{value}/{name}' for value in ('IoU', 'ACC') for name in classes)]


def averages(confusion: np.ndarray, classes: Sequence[str]) -> dict[str, float]:
    """See ``SemanticEvaluator.evaluate``."""
    right = np.diagonal(confusion).astype(np.float64)
    there, found = confusion.sum(1), confusion[:, :-1].sum(0)
    present = there > 0
    iou, accuracy = right / np.maximum(there + found - right, 1), right / np.maximum(there, 1)
    values = {name: -1.0 for name in semantic_metric_names(classes)}
    if present.any():
        share = there / there.sum()
        values |= {'mIoU': float(iou[present].mean()), 'fwIoU': float((iou * share).sum()),
                   'mACC': float(accuracy[present].mean()), 'pACC': float(right.sum() / there.sum())}
    for index in np.flatnonzero(present):
        values |= {f'IoU/{classes[index]}': float(iou[index]), f'ACC/{classes[index]}': float(accuracy[index])}
    return values


def semantic_truth(truth: PanopticMap) -> SemanticMap:
    """The classes of a panoptic map's pixels, those of crowds included: of a crowd the class is known."""
    ids, places = np.unique(truth.ids, return_inverse=True)
    labels = {segment.id: segment.label for segment in truth.segments}
    values = np.array([labels.get(int(number), VOID) for number in ids], np.int16)
    return SemanticMap(values[places].reshape(np.shape(truth.ids)))


def _image_quality(evidence: np.ndarray) -> float:
    """Mean IoU of one image over the classes that its ground truth has; 1 where it has none."""
    ious = []
    for label in np.unique(evidence['truth']):
        own, claimed = evidence['truth'] == label, evidence['found'] == label
        ious.append(evidence['pixels'][own & claimed].sum() / evidence['pixels'][own | claimed].sum())
    return float(np.mean(ious)) if ious else 1.0
