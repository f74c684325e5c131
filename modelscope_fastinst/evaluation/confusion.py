"""Which class is taken for which: results against the objects they lie on, whatever the classes of both."""
from __future__ import annotations

import numpy as np

from modelscope_fastinst.evaluation.evidence import BACKGROUND, IGNORED, Evidence

IOU = 0.5


def lies_on(overlaps: np.ndarray, scores: np.ndarray, labels: np.ndarray, objects: np.ndarray,
            crowds: np.ndarray) -> np.ndarray:
    """The class of the object that each result lies on.

    Results choose by falling score, each among the objects that are left with an IoU of at least 0.5: one of its own
    class first, then the one of largest IoU. What a result gets thus depends on better results only, so that one
    matching serves every score threshold.

    Args:
        overlaps: float ``[D, G]``, see ``masks.overlaps``.
        scores, labels: ``[D]``.
        objects: ``[G]``, the objects' classes.
        crowds: bool ``[G]``; a result that got no object and lies in a crowd of its class counts in nothing.

    Returns:
        int ``[D]``: a class index, ``BACKGROUND`` or ``IGNORED``.
    """
    chosen = np.full(len(scores), BACKGROUND, np.int64)
    if not overlaps.size:
        return chosen
    free = ~crowds
    for row in np.argsort(-scores, kind='stable'):
        same = objects == labels[row]
        candidates = np.flatnonzero(free & (overlaps[row] >= IOU))
        if len(candidates):
            best = max(candidates, key=lambda column: (same[column], overlaps[row, column]))
            chosen[row], free[best] = objects[best], False
        elif (crowds & same & (overlaps[row] >= IOU)).any():
            chosen[row] = IGNORED
    return chosen


def confusion_matrix(images: list[Evidence], num_classes: int, threshold: float) -> np.ndarray:
    """How many objects of a class were found as which.

    Args:
        images: what evaluation kept of them.
        num_classes: K.
        threshold: results below this score do not count.

    Returns:
        int64 ``[K + 1, K + 1]``: row by true class, column by predicted class; the last column holds objects that were
        missed, the last row results that lie on nothing.
    """
    matrix = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    for image in images:
        np.add.at(matrix[:, num_classes], image.truth['label'], image.truth['counts'][:, 0])
        results = image.results[(image.results['score'] >= threshold) & (image.results['lies_on'] != IGNORED)]
        found = results['lies_on'] != BACKGROUND
        rows = np.where(found, results['lies_on'], num_classes)
        np.add.at(matrix, (rows, results['label']), 1)
        np.subtract.at(matrix[:, num_classes], rows[found], 1)
    return matrix
