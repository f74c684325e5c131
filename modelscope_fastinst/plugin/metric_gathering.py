"""A ModelScope metric whose evaluator gathers images: what the metrics of all tasks have in common."""
from __future__ import annotations

from typing import Any

from modelscope.metrics.base import Metric


class GatheringMetric(Metric):
    """Subclasses have ``evaluator``, which takes what it needs of the trainer when it is first asked for."""

    trainer: Any = None
    evaluator: Any

    def evaluate(self) -> dict[str, Any]:
        """The averages over everything added; see the evaluator's ``evaluate``."""
        return self.evaluator.evaluate()

    def merge(self, other: GatheringMetric) -> None:
        """Takes in what another process's metric has gathered; an image that both have counts once."""
        self.evaluator.merge(other.evaluator)

    def __getstate__(self) -> dict[str, Any]:
        # The trainer stays where it is when a metric travels to another process; the evaluator takes what it needs of
        # it first, also where no image was added.
        if self.trainer is not None:
            _ = self.evaluator
        return {**self.__dict__, 'trainer': None}
