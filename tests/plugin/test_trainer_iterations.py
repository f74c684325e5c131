"""Trainings that count iterations: where they end, when they evaluate and save."""
from __future__ import annotations

import json

import pytest
from modelscope.metrics.base import Metric
from modelscope.metrics.builder import METRICS
from modelscope.pipelines import pipeline
from modelscope.trainers.hooks.hook import Hook
from safetensors.torch import load_file

from modelscope_fastinst.plugin.checkpoint_hook import saved_states
from modelscope_fastinst.plugin.trainer_keys import ConfigurationError

from .trainer_runs import assert_equal_weights, log_lines, shapes, trainer_for, weights

# Seven images make four iterations an epoch.
TEN = {'train.max_epochs': None, 'train.max_iters': 10, 'train.ema': {'decay': 0.9},
       'train.checkpoint': {'period': {'interval': 4, 'by_epoch': False, 'max_checkpoint_num': None}}}


def data():
    return shapes(7)


@pytest.fixture(scope='module')
def ten(tmp_path_factory):
    """A training that ends in the middle of its third epoch, and its folder."""
    folder = tmp_path_factory.mktemp('ten')
    trainer = trainer_for(folder, TEN, train_dataset=data())
    trainer.train()
    return trainer, folder


def test_it_ends_in_the_middle_of_an_epoch(ten):
    trainer, folder = ten
    assert (trainer.epoch, trainer.iter, trainer.inner_iter, trainer.max_epochs) == (2, 10, 2, 3)
    assert [line['iter'] for line in log_lines(folder)] == list(range(1, 11))
    assert log_lines(folder)[-1]['eta_seconds'] == 0


def test_the_end_is_saved_and_handed_out(ten):
    trainer, folder = ten
    assert saved_states(folder / 'work') == ['iter_4', 'iter_8', 'iter_10']
    averages = {name: tensor for name, tensor in trainer.ema.averages.items()}
    output = load_file(folder / 'work' / 'output' / 'model.safetensors')
    assert_equal_weights({name: output[name] for name in averages}, averages)
    pipeline('image-segmentation', model=str(folder / 'work' / 'output'), device='cpu')


def test_the_handed_out_configuration_says_iterations(ten):
    _, folder = ten
    train = json.loads((folder / 'work' / 'output' / 'configuration.json').read_text('utf-8'))['train']
    assert train['max_iters'] == 10
    assert 'max_epochs' not in train


@pytest.mark.parametrize('milestones', [pytest.param([6, 8], id='iterations'), pytest.param([0.6, 0.8], id='shares')])
def test_the_schedule_runs_over_these_iterations(milestones, tmp_path):
    trainer = trainer_for(tmp_path, {**TEN, 'train.lr_scheduler': {
        'type': 'MultiStepLR', 'milestones': milestones, 'gamma': 0.1, 'options': {'by_epoch': False}}},
        train_dataset=data())
    trainer.train()
    assert [line['lr'] for line in log_lines(tmp_path)] == pytest.approx([2e-3] * 6 + [2e-4] * 2 + [2e-5] * 2)


@pytest.mark.parametrize(('bounds', 'iterations', 'states'), [
    pytest.param({'train.max_epochs': 2}, 8, ['iter_4', 'iter_8', 'epoch_2'], id='fewer epochs'),
    pytest.param({'train.max_epochs': 9, 'train.max_iters': 5}, 5, ['iter_4', 'iter_5'], id='fewer iterations'),
    pytest.param({'train.max_iters': 8}, 8, ['iter_4', 'iter_8', 'epoch_2'], id='whole epochs'),
    pytest.param({'train.max_iters': 1}, 1, ['iter_1'], id='one iteration'),
])
def test_what_ends_first_counts(bounds, iterations, states, tmp_path):
    trainer = trainer_for(tmp_path, {**TEN, **bounds}, train_dataset=data())
    trainer.train()
    assert trainer.iter == iterations
    assert saved_states(tmp_path / 'work') == states


def test_epochs_of_the_caller_bound_iterations_of_the_configuration(tmp_path):
    trainer = trainer_for(tmp_path, TEN, train_dataset=data(), max_epochs=1)
    trainer.train()
    assert trainer.iter == 4


class Cut(Hook):
    PRIORITY = 100

    def after_train_iter(self, trainer):
        if trainer.iter + 1 == 9:
            raise InterruptedError


def test_resumed_it_ends_where_the_uninterrupted_one_ends(ten, tmp_path):
    with pytest.raises(InterruptedError):
        trainer_for(tmp_path, TEN, train_dataset=data(), callbacks=[Cut()]).train()
    trainer = trainer_for(tmp_path, TEN, train_dataset=data(), resume_from='latest')
    trainer.train()
    assert (trainer.epoch, trainer.iter) == (2, 10)
    assert_equal_weights(weights(trainer), weights(ten[0]))


def test_resume_of_the_finished_training_does_nothing(ten):
    expected, folder = ten
    trainer = trainer_for(folder, TEN, train_dataset=data(), resume_from='latest')
    trainer.train()
    assert trainer.iter == 10
    assert_equal_weights(weights(trainer), weights(expected))


def test_lengthened_it_goes_on_in_the_middle_of_the_epoch(tmp_path):
    """A constant learning rate does not depend on the length, so the longer training is the same up to there."""
    constant = {**TEN, 'train.lr_scheduler': {'type': 'ConstantLR'}}
    whole = trainer_for(tmp_path / 'whole', {**constant, 'train.max_iters': 13}, train_dataset=data())
    whole.train()
    trainer_for(tmp_path / 'parts', constant, train_dataset=data()).train()
    longer = trainer_for(tmp_path / 'parts', {**constant, 'train.max_iters': 13}, train_dataset=data(),
                         resume_from='latest')
    longer.train()
    assert (longer.epoch, longer.iter) == (whole.epoch, whole.iter) == (3, 13)
    assert_equal_weights(weights(longer), weights(whole))


def test_gathered_gradients_make_a_step_at_the_end(tmp_path):
    trainer = trainer_for(tmp_path, {**TEN, 'train.max_iters': 3, 'train.optimizer.options': {'cumulative_iters': 2}},
                          train_dataset=data())
    trainer.train()
    assert trainer.optimizer.state_dict()['state'][0]['step'] == 2


@METRICS.register_module(group_key='default', module_name='test-measured-metric', force=True)
class MeasuredMetric(Metric):
    """Gives what was agreed for each number of finished iterations."""

    VALUES = {3: 0.1, 6: 0.4, 9: 0.2, 10: 0.3}

    def add(self, outputs, inputs):
        self.images = len(outputs)

    def merge(self, other):
        raise NotImplementedError

    def evaluate(self):
        return {'measured': self.VALUES[self.trainer.iter + 1]}


class Averages(Hook):
    """Keeps the averaged weights of an iteration, before anything is evaluated."""

    PRIORITY = 48

    def __init__(self, iteration):
        self.iteration, self.kept = iteration, {}

    def after_train_iter(self, trainer):
        if trainer.iter + 1 == self.iteration:
            self.kept = {name: tensor.clone() for name, tensor in trainer.ema.averages.items()}


def test_it_evaluates_by_iterations_and_hands_out_the_best(tmp_path):
    best = Averages(6)
    trainer = trainer_for(tmp_path, {**TEN, 'evaluation': {'metrics': ['test-measured-metric'],
                                                           'period': {'interval': 3, 'by_epoch': False}},
                                     'train.checkpoint.best': {'metric_key': 'measured'}},
                          train_dataset=data(), eval_dataset=shapes(1), callbacks=[best])
    trainer.train()
    assert {line['iter']: line['measured'] for line in log_lines(tmp_path, 'eval')} == MeasuredMetric.VALUES
    output = load_file(tmp_path / 'work' / 'output' / 'model.safetensors')
    assert_equal_weights({name: output[name] for name in best.kept}, best.kept)
    assert (trainer.checkpoint_hook.best_score, trainer.checkpoint_hook.best_iter) == (0.4, 6)


def test_evaluation_leaves_the_training_as_it_was(ten, tmp_path):
    trainer = trainer_for(tmp_path, {**TEN, 'evaluation.period': {'interval': 3, 'by_epoch': False}},
                          train_dataset=data(), eval_dataset=shapes(1))
    trainer.train()
    assert_equal_weights(weights(trainer), weights(ten[0]))


def test_a_last_loss_that_is_not_finite_does_not_lose_the_end(tmp_path):
    trainer = trainer_for(tmp_path, {**TEN, 'train.max_iters': 3}, train_dataset=data())
    original, calls = trainer.model.forward, []

    def broken_at_last(**batch):
        calls.append(1)
        output = original(**batch)
        return output if len(calls) < 3 else {'loss': output['loss'] * float('nan'), 'log_vars': {'loss': float('nan')}}

    trainer.model.forward = broken_at_last
    trainer.train()
    assert saved_states(tmp_path / 'work') == ['iter_3']


@pytest.mark.parametrize(('changes', 'message'), [
    pytest.param({'train.max_iters': 0}, 'train.max_iters must be a whole number of at least 1; got 0', id='none'),
    pytest.param({'train.max_iters': 2.5}, 'train.max_iters must be a whole number', id='half of one'),
    pytest.param({'train.max_epochs': None}, 'neither max_epochs nor max_iters', id='no length at all'),
])
def test_wrong_length(changes, message, tmp_path):
    with pytest.raises(ConfigurationError, match=message):
        trainer_for(tmp_path, changes)


def test_a_length_alone_keeps_the_recipe_of_models_without_one(tmp_path):
    trainer = trainer_for(tmp_path, {'train': {'max_iters': 7}})
    assert trainer.cfg.train['max_iters'] == 7
    assert 'max_epochs' not in trainer.cfg.train
    assert trainer.cfg.train['lr_scheduler']['milestones'] == [0.88889, 0.96296]


def test_epochs_longer_than_the_data_are_refused(tmp_path):
    """The schedule would be made for iterations that never come."""
    with pytest.raises(ConfigurationError, match='train_iters_per_epoch is 5, but an epoch .* has 4 batches'):
        trainer_for(tmp_path, {'train.train_iters_per_epoch': 5}, train_dataset=data()).train()
