"""The score threshold that serves each class best."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modelscope_fastinst.evaluation.evidence import ClassEvidence

_DECIMALS = 4


@dataclass
class ScoreCurve:
    """How right one would be with each threshold; masks matched at an IoU of 0.5.

    Attributes:
        scores: float64 ``[S]``, the different scores, falling; each is a threshold that keeps the results down to it.
        right: int64 ``[S]``, results kept that match an object.
        kept: int64 ``[S]``, results kept, but for those that lie in crowds.
        objects: how many there are, without crowds.
    """
    scores: np.ndarray
    right: np.ndarray
    kept: np.ndarray
    objects: int

    @property
    def f1(self) -> np.ndarray:
        """Harmonic mean of precision and recall, float64 ``[S]``."""
        return 2 * self.right / np.maximum(self.kept + self.objects, 1)

    def at(self, threshold: float) -> tuple[int, int]:
        """Results right and results kept at a threshold."""
        number = int(np.count_nonzero(self.scores >= threshold))
        return (int(self.right[number - 1]), int(self.kept[number - 1])) if number else (0, 0)

    def values_at(self, threshold: float) -> dict[str, float]:
        """``precision``, ``recall`` and ``f1`` at a threshold; -1 where there is nothing to divide by."""
        right, kept = self.at(threshold)
        return {'precision': right / kept if kept else -1.0, 'recall': right / self.objects if self.objects else -1.0,
                'f1': 2 * right / (kept + self.objects) if kept + self.objects else -1.0}

    def best(self) -> float | None:
        """The threshold of the largest F1, of several the highest; None where no result matches an object.

        It is a result's score, rounded down to four decimals where that keeps no further result.
        """
        if not len(self.scores) or not self.right[-1]:
            return None
        index = int(np.argmax(self.f1))   # the first of several, which is the highest score
        score = float(self.scores[index])
        short = float(np.floor(score * 10 ** _DECIMALS) / 10 ** _DECIMALS)
        below = self.scores[index + 1] if index + 1 < len(self.scores) else -1.0
        return short if below < short <= score else score


def score_curve(classes: list[ClassEvidence]) -> ScoreCurve:
    """The curve of one class, or of several with one threshold for all."""
    scores = np.concatenate([one.scores for one in classes] or [np.empty(0)])
    # all object sizes, IoU 0.5
    match = np.concatenate([one.match['segm'][0, 0] for one in classes] or [np.empty(0, bool)])
    counted = ~np.concatenate([one.ignore['segm'][0, 0] for one in classes] or [np.empty(0, bool)])
    order = np.argsort(-scores, kind='stable')
    scores, right, kept = scores[order], np.cumsum((match & counted)[order]), np.cumsum(counted[order])
    last = np.ones(len(scores), bool)   # of equal scores, all are kept or none
    last[:-1] = scores[1:] != scores[:-1]
    return ScoreCurve(scores[last], right[last], kept[last], int(sum(one.counts[0] for one in classes)))
