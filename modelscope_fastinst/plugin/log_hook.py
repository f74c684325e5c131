"""What is made of the log while a training runs: table, curves, TensorBoard's events."""
from __future__ import annotations

import time
from typing import Any

from modelscope.trainers.hooks.hook import Hook

from .curves import write_curves
from .processes import is_first

_SECONDS = 30


class LogHook(Hook):
    """Writes ``log.csv`` and ``curves.png`` after each evaluation and at the training's end; the first process only.

    A training that does not evaluate has them after an epoch, if the last time is half a minute ago. A picture or a
    table that cannot be made is a warning: the training goes on, and ``log.jsonl`` has everything.

    Args:
        curves: whether to draw.
    """

    PRIORITY = 95   # after the progress hook's record

    def __init__(self, curves: bool = True) -> None:
        self.curves = curves
        self._written = 0.0
        self._written_records = self._seen_evaluations = 0

    def before_run(self, trainer: Any) -> None:
        evaluation = trainer.stateful.get('evaluation')
        trainer.training_log.begin(trainer.iter, evaluation.evaluated_at if evaluation else None)
        self._written_records, self._seen_evaluations = -1, trainer.training_log.evaluations
        self._written = time.monotonic()

    def after_train_iter(self, trainer: Any) -> None:
        if trainer.training_log.evaluations != self._seen_evaluations:
            self.write(trainer)

    def after_train_epoch(self, trainer: Any) -> None:
        if trainer.training_log.evaluations != self._seen_evaluations or time.monotonic() - self._written > _SECONDS:
            self.write(trainer)

    def after_run(self, trainer: Any) -> None:
        self.write(trainer)

    def write(self, trainer: Any) -> None:
        """Makes both files anew where the log has grown."""
        log = trainer.training_log
        self._written, self._seen_evaluations = time.monotonic(), log.evaluations
        if not is_first() or log.records == self._written_records:
            return
        self._written_records = log.records
        for make in (log.write_table, *((lambda: write_curves(trainer.work_dir),) if self.curves else ())):
            try:
                make()
            except Exception as error:   # whatever a drawing library thinks of, it is not worth a training
                trainer.logger.warning(f'{trainer.work_dir}: the log\'s table or curves are not written: {error!r}')
