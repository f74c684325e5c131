"""Trainings that end when they have stopped getting better."""
from __future__ import annotations

import pytest
from modelscope.metrics.base import Metric
from modelscope.metrics.builder import METRICS
from modelscope.trainers.hooks.hook import Hook

from modelscope_fastinst.plugin.checkpoint_files import saved_states

from .trainer_runs import log_lines, shapes, trainer_for


@METRICS.register_module(group_key='default', module_name='test-scripted-metric', force=True)
class ScriptedMetric(Metric):
    """Gives the value that a test has written down for each evaluation, by finished iterations."""

    values: dict[int, float] = {}

    def add(self, outputs, inputs):
        self.images = len(outputs)

    def merge(self, other):
        raise NotImplementedError

    def evaluate(self):
        done = self.trainer.iter + (self.trainer.iter not in self.values)   # an epoch's last one is counted already
        return {'score': self.values[done], 'score/cat': -self.values[done]}


# Two iterations an epoch, evaluated after each epoch.
BY_EPOCH = {'train.max_epochs': 7, 'train.ema': None, 'evaluation': {'metrics': ['test-scripted-metric'],
                                                                     'period': {'interval': 1}}}
BY_ITERATION = {**BY_EPOCH, 'evaluation.period': {'interval': 1, 'by_epoch': False}}


def stopping(folder, values, changes, callbacks=(), **settings):
    ScriptedMetric.values = values
    trainer = trainer_for(folder, {**changes, 'train.early_stopping': {'metric_key': 'score', **settings}},
                          eval_dataset=shapes(1), callbacks=list(callbacks), resume_from='latest')
    trainer.train()
    return trainer


def every_two(*values):
    return {2 * number: value for number, value in enumerate(values, 1)}


@pytest.mark.parametrize(('values', 'settings', 'last'), [
    pytest.param(every_two(0.1, 0.3, 0.2, 0.3, 0.9), {'patience': 2}, 8, id='an equal value is no better one'),
    pytest.param(every_two(0.1, 0.3, 0.2, 0.4, 0.3, 0.2, 0.9), {'patience': 2}, 12, id='a better one starts anew'),
    pytest.param(every_two(0.1, 0.15, 0.19, 0.9), {'patience': 2, 'min_delta': 0.1}, 6, id='too little better'),
    pytest.param(every_two(0.5, 0.3, 0.4, 0.1), {'patience': 1, 'rule': 'min'}, 6, id='less is better'),
    pytest.param(every_two(0.5, 0.3, 0.4, 0.1), {'patience': 1, 'metric_key': 'score/cat'}, 6, id='of a class'),
    pytest.param(every_two(*(number / 10 for number in range(7))), {'patience': 1}, 14, id='always better'),
])
def test_it_ends_after_so_many_evaluations_without_a_better_one(values, settings, last, tmp_path):
    trainer = stopping(tmp_path, values, BY_EPOCH, **settings)
    assert (trainer.iter, trainer.epoch) == (last, last // 2)
    assert saved_states(tmp_path / 'work')[-1] == f'epoch_{last // 2}'
    assert [line['iter'] for line in log_lines(tmp_path, 'eval')] == list(range(2, last + 1, 2))


def test_it_ends_within_an_epoch_with_its_state_saved_and_its_reason_told(tmp_path, caplog):
    ScriptedMetric.values = {1: 0.4, 2: 0.3, 3: 0.2, 4: 0.9}
    trainer = trainer_for(tmp_path, {**BY_ITERATION, 'train.logging.interval': 10,
                                     'train.early_stopping': {'patience': 2, 'metric_key': 'score'}},
                          eval_dataset=shapes(1))
    trainer.logger.addHandler(caplog.handler)
    try:
        trainer.train()
    finally:
        trainer.logger.removeHandler(caplog.handler)
    assert trainer.iter == 3
    assert saved_states(tmp_path / 'work') == ['epoch_1', 'iter_3']
    assert 'stopped early at iteration 3: score has not risen above 0.4000, the value of iteration 1' in caplog.text
    assert [line['iter'] for line in log_lines(tmp_path)] == [3]   # what was gathered up to there is logged
    assert (tmp_path / 'work' / 'output' / 'model.safetensors').exists()


class CutAt(Hook):
    PRIORITY = 100

    def __init__(self, iteration):
        self.iteration = iteration

    def after_train_epoch(self, trainer):
        if trainer.iter == self.iteration:
            raise InterruptedError


def test_its_patience_survives_a_resume(tmp_path):
    """Cut between the two evaluations that are no better, it ends where it would have ended."""
    values = every_two(0.4, 0.3, 0.2, 0.1, 0.9)
    with pytest.raises(InterruptedError):
        stopping(tmp_path, values, BY_EPOCH, patience=2, callbacks=[CutAt(4)])
    assert stopping(tmp_path, values, BY_EPOCH, patience=2).iter == 6


def test_stopped_it_stays_stopped_until_it_may_wait_longer(tmp_path):
    values = every_two(0.4, 0.3, 0.2, 0.1, 0.9)
    assert stopping(tmp_path, values, BY_EPOCH, patience=1).iter == 4
    assert stopping(tmp_path, values, BY_EPOCH, patience=1).iter == 4
    assert stopping(tmp_path, values, BY_EPOCH, patience=3).iter == 8


def test_a_metric_that_the_evaluation_does_not_give(tmp_path):
    with pytest.raises(ValueError, match="train.early_stopping.metric_key is 'typo'.*'score'"):
        stopping(tmp_path, every_two(0.4, 0.3), BY_EPOCH, patience=1, metric_key='typo')


def test_a_value_that_is_no_number_is_never_the_best(tmp_path):
    """At first, and later: neither for the patience nor for the output."""
    nan = float('nan')
    trainer = stopping(tmp_path, every_two(nan, 0.3, nan, 0.4, nan, nan, 0.9),
                       {**BY_EPOCH, 'train.checkpoint.best': {'metric_key': 'score'}}, patience=2)
    assert trainer.iter == 12
    assert (trainer.checkpoint_hook.best_score, trainer.checkpoint_hook.best_iter) == (0.4, 8)


def test_values_that_are_never_numbers_end_the_training_as_well(tmp_path):
    assert stopping(tmp_path, every_two(*[float('nan')] * 7), BY_EPOCH, patience=3).iter == 6
