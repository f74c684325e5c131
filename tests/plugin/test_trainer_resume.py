"""A training that is cut and resumed ends where the uninterrupted one ends."""
from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
import torch
from modelscope.trainers.hooks.hook import Hook

from modelscope_fastinst.plugin import checkpoint_hook
from modelscope_fastinst.plugin.checkpoint_hook import save_atomically, saved_states

from .trainer_runs import assert_equal_weights, log_lines, shapes, trainer_for, weights


class Cut(Exception):
    """Stands for whatever ends a process."""


class CutAt(Hook):
    """Ends the training after an iteration, or after the epoch that it ends, when all else has happened there."""

    PRIORITY = 100

    def __init__(self, iteration):
        self.iteration = iteration

    def after_train_iter(self, trainer):
        if trainer.iter + 1 == self.iteration and not self.end_of_epoch(trainer):
            raise Cut

    def after_train_epoch(self, trainer):
        if trainer.iter == self.iteration:
            raise Cut


CHANGES = {'train.max_epochs': 3, 'train.ema': {'decay': 0.9},
           'train.checkpoint': {'period': {'interval': 1, 'max_checkpoint_num': None}}}
BY_ITERATION = {**CHANGES, 'train.checkpoint': {'period': {'interval': 5, 'by_epoch': False}}}


def data():
    return shapes(7)   # four iterations an epoch, the last one of a single image


def state_of(trainer):
    moments = [value for state in trainer.optimizer.state_dict()['state'].values() for value in state.values()]
    return {**weights(trainer), **{f'average {name}': value for name, value in trainer.ema.averages.items()},
            **{f'moment {number}': value for number, value in enumerate(moments)}}


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp('uninterrupted')
    trainer = trainer_for(folder, CHANGES, train_dataset=data())
    trainer.train()
    return trainer, folder


@pytest.mark.parametrize(('changes', 'cut', 'resumed_at'), [
    pytest.param(CHANGES, 8, (2, 8), id='at the end of an epoch'),
    pytest.param(CHANGES, 7, (1, 4), id='within an epoch, back to its beginning'),
    pytest.param(BY_ITERATION, 6, (1, 5), id='within an epoch, from a checkpoint there'),
    pytest.param({**CHANGES, 'train.dataloader.workers_per_gpu': 2}, 8, (2, 8), id='with workers'),
])
def test_resumed_training_equals_the_uninterrupted_one(uninterrupted, changes, cut, resumed_at, tmp_path):
    expected, expected_folder = uninterrupted
    with pytest.raises(Cut):
        trainer_for(tmp_path, changes, train_dataset=data(), callbacks=[CutAt(cut)]).train()
    trainer = trainer_for(tmp_path, changes, train_dataset=data(), resume_from='latest')
    seen = []

    class Watch(Hook):
        def before_run(self, trainer):
            seen.append((trainer.epoch, trainer.iter))

    trainer.register_hook(Watch())
    trainer.train()
    assert seen == [resumed_at]
    assert (trainer.epoch, trainer.iter) == (3, 12)
    assert_equal_weights(state_of(trainer), state_of(expected))
    assert [(line['iter'], line['loss'], line['lr']) for line in log_lines(tmp_path)] == \
        [(line['iter'], line['loss'], line['lr']) for line in log_lines(expected_folder)]


def test_same_samples_whatever_the_number_of_workers(uninterrupted, tmp_path):
    trainer = trainer_for(tmp_path, {**CHANGES, 'train.dataloader.workers_per_gpu': 1}, train_dataset=data())
    trainer.train()
    assert_equal_weights(weights(trainer), weights(uninterrupted[0]))


def test_resume_of_a_finished_training_does_nothing(uninterrupted):
    expected, folder = uninterrupted
    trainer = trainer_for(folder, CHANGES, train_dataset=data())
    trainer.train(resume_from='latest')
    assert_equal_weights(weights(trainer), weights(expected))


def test_a_resumed_training_may_be_longer(uninterrupted, tmp_path):
    _, folder = uninterrupted
    trainer = trainer_for(tmp_path, {**CHANGES, 'train.max_epochs': 4}, train_dataset=data())
    trainer.train(checkpoint_path=str(folder / 'work' / 'epoch_3.pth'))
    assert (trainer.epoch, trainer.iter) == (4, 16)


def test_only_the_weights_of_a_checkpoint(uninterrupted, tmp_path):
    expected, folder = uninterrupted
    trainer = trainer_for(tmp_path, {'train.max_epochs': 1, 'train.optimizer': {'type': 'SGD', 'lr': 0.0}})
    trainer.train(checkpoint_path=str(folder / 'work' / 'epoch_3.pth'), load_all_state=False)
    assert trainer.iter == 2
    parameters = {name for name, _ in trainer.network.named_parameters()}
    assert_equal_weights({name: t for name, t in weights(trainer).items() if name in parameters},
                         {name: t for name, t in weights(expected).items() if name in parameters})


def test_nothing_to_resume_starts_from_the_beginning(tmp_path):
    trainer = trainer_for(tmp_path, {'train.max_epochs': 1}, resume_from='latest')
    trainer.train()
    assert trainer.iter == 2


@pytest.mark.parametrize(('changes', 'arguments', 'error', 'message'), [
    pytest.param({}, {'resume_from': 'nowhere/epoch_9'}, FileNotFoundError, 'nowhere/epoch_9.pth', id='no such file'),
    pytest.param({}, {'train_dataset': shapes(7, num_classes=3)}, ValueError, 'with the classes', id='other classes'),
    pytest.param({'train.dataloader.batch_size_per_gpu': 3}, {}, ValueError, '4 iterations an epoch',
                 id='other batches'),
])
def test_resume_that_does_not_fit_is_an_error(uninterrupted, changes, arguments, error, message, tmp_path):
    _, folder = uninterrupted
    arguments = {'resume_from': str(folder / 'work' / 'epoch_2'), 'train_dataset': data(), **arguments}
    with pytest.raises(error, match=message):
        trainer_for(tmp_path, {**CHANGES, **changes}, **arguments).train()


def test_the_last_states_are_kept(tmp_path):
    trainer = trainer_for(tmp_path, {'train.max_epochs': 4,
                                     'train.checkpoint': {'period': {'interval': 1, 'max_checkpoint_num': 2}}})
    trainer.train()
    assert saved_states(tmp_path / 'work') == ['epoch_3', 'epoch_4']
    assert len(list((tmp_path / 'work').glob('*.pth'))) == 4


def test_states_load_without_unpickling_code(uninterrupted):
    _, folder = uninterrupted
    for file in (folder / 'work').glob('*.pth'):
        torch.load(file, weights_only=True)


def test_saving_that_fails_keeps_the_old_file(tmp_path):
    file = tmp_path / 'epoch_1.pth'
    save_atomically({'a': 1}, file)

    class Unsavable:
        def __reduce__(self):
            raise OSError('no space left')

    with pytest.raises(OSError, match='no space left'):
        save_atomically({'a': torch.zeros(100), 'b': Unsavable()}, file)
    assert torch.load(file, weights_only=True) == {'a': 1}
    assert [path.name for path in tmp_path.iterdir()] == ['epoch_1.pth']


@pytest.mark.parametrize(('number', 'leaves_by'), [pytest.param(signal.SIGTERM, SystemExit, id='SIGTERM'),
                                                   pytest.param(signal.SIGINT, KeyboardInterrupt, id='Ctrl-C')])
def test_asked_to_stop_it_saves_and_goes_on_from_there(uninterrupted, number, leaves_by, tmp_path):
    class Ask(Hook):
        PRIORITY = 15

        def before_train_iter(self, trainer):
            if trainer.iter == 5:
                os.kill(os.getpid(), number)

    handler = signal.getsignal(number)
    with pytest.raises(leaves_by):
        trainer_for(tmp_path, CHANGES, train_dataset=data(), callbacks=[Ask()]).train()
    assert signal.getsignal(number) is handler
    assert saved_states(tmp_path / 'work') == ['epoch_1', 'iter_6']
    trainer = trainer_for(tmp_path, CHANGES, train_dataset=data(), resume_from='latest')
    trainer.train()
    assert_equal_weights(state_of(trainer), state_of(uninterrupted[0]))


def test_checkpoints_wait_for_a_step_of_the_optimiser(tmp_path):
    trainer = trainer_for(tmp_path, {'train.max_epochs': 1, 'train.optimizer.options': {'cumulative_iters': 2},
                                     'train.checkpoint': {'period': {'interval': 3, 'by_epoch': False}}},
                          train_dataset=shapes(10))
    trainer.train()
    assert saved_states(tmp_path / 'work') == ['iter_4', 'epoch_1']


def test_killed_while_writing_the_previous_state_remains(tmp_path):
    """A process that dies in the middle of writing epoch 2's state leaves epoch 1's as the latest."""
    script = f'''
import os, signal, sys, torch
sys.path.insert(0, {os.getcwd()!r})
from pathlib import Path
from tests.plugin.trainer_runs import trainer_for, shapes
written = []
save = torch.save
def die_in_the_fourth(content, stream):
    written.append(1)
    if len(written) == 4:
        stream.write(b'half')
        stream.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    save(content, stream)
torch.save = die_in_the_fourth
trainer_for(Path({str(tmp_path)!r})).train()
'''
    result = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, check=False)
    assert result.returncode == -9, result.stderr
    assert saved_states(tmp_path / 'work') == ['epoch_1']
    trainer = trainer_for(tmp_path, resume_from='latest')
    trainer.train()
    assert (trainer.epoch, trainer.iter) == (2, 4)


def test_an_old_state_is_not_taken_for_a_new_model(tmp_path, monkeypatch):
    """Written over an earlier run's epoch_1 and cut between its two files, epoch_1 counts as missing."""
    trainer = trainer_for(tmp_path, {'train.max_epochs': 1})
    trainer.train()

    def cut_after_the_model(content, file):
        save_atomically(content, file)
        raise Cut

    monkeypatch.setattr(checkpoint_hook, 'save_atomically', cut_after_the_model)
    with pytest.raises(Cut):
        trainer_for(tmp_path, {'train.max_epochs': 1}).train()
    assert saved_states(tmp_path / 'work') == []
