"""When a training evaluates, and when it has seen enough."""
from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from modelscope.trainers.hooks.hook import Hook

from .evaluation_report import check_report_folder


def ends_within_epoch(trainer: Any) -> bool:
    """Whether this iteration is the training's last and not its epoch's (``train.max_iters``)."""
    return Hook.is_last_iter(trainer) and not Hook.end_of_epoch(trainer)


class EvaluationHook(Hook):
    """Evaluates every so often, and at the end of the training.

    Args:
        interval: in epochs, or iterations without ``by_epoch``.
        by_epoch: what ``interval`` and ``start_idx`` count.
        start_idx: no evaluation before this epoch or iteration.
    """

    PRIORITY = 50

    def __init__(self, interval: int = 1, by_epoch: bool = True, start_idx: int | None = None):
        self.interval = interval
        self.by_epoch = by_epoch
        self.start = start_idx or 0
        self.evaluated_at: int | None = None   # iteration of the last evaluation; None: not known

    def before_run(self, trainer: Any) -> None:
        if trainer.report_folder is not None:
            check_report_folder(trainer.report_folder)   # now, and not after the first hours

    def after_train_iter(self, trainer: Any) -> None:
        done = trainer.iter + 1
        due = not self.by_epoch and done >= self.start and done % self.interval == 0
        if due or ends_within_epoch(trainer):
            self._evaluate(trainer, done)

    def after_train_epoch(self, trainer: Any) -> None:
        done = trainer.epoch + 1
        if (self.by_epoch and done >= self.start and done % self.interval == 0) or done == trainer.max_epochs:
            # The epoch's last iteration has been counted already.
            self._evaluate(trainer, trainer.iter)

    def _evaluate(self, trainer: Any, iteration: int) -> None:
        if self.evaluated_at != iteration:
            self.evaluated_at = iteration
            trainer.evaluate_while_training(iteration)

    def state_dict(self) -> dict[str, int]:
        return {'evaluated_at': -1 if self.evaluated_at is None else self.evaluated_at}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.evaluated_at = state_dict['evaluated_at']


class EarlyStoppingHook(Hook):
    """Ends the training when its evaluations have stopped getting better.

    The end is as that of a training of this length: the state is saved, and the output is the best model seen where
    ``train.checkpoint.best`` is configured. Resumed, the training stays ended unless ``patience`` has grown.

    Args:
        patience: so many evaluations in a row without a better value end the training.
        metric_key: the value of the evaluation that counts, for instance 'segm_mAP', 'segm_AP/cat' or 'raw/segm_mAP'.
        min_delta: a value is better if it is so by more than this.
        rule: 'max' or 'min', what is better.
    """

    PRIORITY = 55   # after the evaluation, before the progress and the checkpoint that holds this state

    def __init__(self, patience: int, metric_key: str = 'segm_mAP', min_delta: float = 0.0, rule: str = 'max'):
        self.patience = int(patience)
        self.metric_key = metric_key
        self.min_delta = float(min_delta)
        self.sign = -1.0 if rule == 'min' else 1.0
        self.best: float | None = None
        self.best_iter = 0
        self.waited = 0   # evaluations since the best one

    def before_run(self, trainer: Any) -> None:
        if self.waited >= self.patience:
            self._end(trainer, trainer.iter)

    def after_train_iter(self, trainer: Any) -> None:
        self._look(trainer, trainer.iter + 1)

    def after_train_epoch(self, trainer: Any) -> None:
        self._look(trainer, trainer.iter)

    def _look(self, trainer: Any, iteration: int) -> None:
        metrics = trainer.fresh_metrics
        if metrics is None:
            return
        value = metric_value(metrics, self.metric_key, 'train.early_stopping.metric_key')
        if not math.isnan(value) and (self.best is None or self.sign * (value - self.best) > self.min_delta):
            self.best, self.best_iter, self.waited = value, iteration, 0
            return
        self.waited += 1
        if self.waited >= self.patience:
            self._end(trainer, iteration)

    def _end(self, trainer: Any, iteration: int) -> None:
        direction = 'risen above' if self.sign > 0 else 'fallen below'
        reached = (f'has not {direction} {self.best:.4f}, the value of iteration {self.best_iter}, by more than '
                   f'{self.min_delta:g}' if self.best is not None else 'was no number')
        trainer.logger.info(
            f'stopped early at iteration {iteration}: {self.metric_key} {reached} in {self.waited} evaluations '
            f'(train.early_stopping.patience is {self.patience})')
        trainer.end_at(iteration)

    def state_dict(self) -> dict[str, Any]:
        return {'best': self.best, 'best_iter': self.best_iter, 'waited': self.waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.best_iter, self.waited = (state_dict[key] for key in ('best', 'best_iter', 'waited'))


def metric_value(metrics: Mapping[str, Any], key: str, setting: str) -> float:
    """The value that a setting asks for.

    Raises:
        ValueError: the evaluation does not give it.
    """
    if key not in metrics:
        raise ValueError(f'{setting} is {key!r}, which the evaluation does not give; it gives '
                         f'{sorted(name for name, value in metrics.items() if isinstance(value, float))}')
    return float(metrics[key])
