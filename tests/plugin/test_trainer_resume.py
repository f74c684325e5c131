"""A training that is cut and resumed ends where the uninterrupted one ends."""
from __future__ import annotations

import json
import os
import signal

import pytest
import torch
from modelscope.trainers.hooks.hook import Hook

from modelscope_fastinst.plugin.checkpoint_files import saved_states

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


BY_STEPS = {'period': {'interval': 2, 'by_epoch': False, 'max_checkpoint_num': None}}
# By name: the configuration, where it is cut, and where it goes on.
TRAININGS = {
    'bf16, two iterations a step, a record of three, within an epoch': (
        {'train.amp': 'bf16', 'train.ema': {'decay': 0.9}, 'train.optimizer.options': {'cumulative_iters': 2},
         'train.logging.interval': 3, 'train.checkpoint': BY_STEPS, 'train.max_epochs': 2}, 7, 6),
    'best model, early stopping, grouping, copy-paste, workers': (
        {'train.ema': {'decay': 0.9}, 'evaluation.period': {'interval': 1},
         'train.checkpoint': {**BY_STEPS, 'best': {'metric_key': 'segm_mAP'}},
         'train.early_stopping': {'patience': 5, 'metric_key': 'segm_mAP'}, 'train.max_epochs': 3,
         'train.dataloader': {'batch_size_per_gpu': 2, 'workers_per_gpu': 2, 'aspect_ratio_grouping': True},
         'preprocessor.train': {'min_sizes': [48, 64], 'max_size': 64, 'crop': None, 'flip': 0.5,
                                'copy_paste': {'probability': 0.5}}}, 7, 6),
}
TIMED = ('iters_per_second', 'images_per_second', 'memory_mb', 'eta_seconds')


def differences(actual, expected, where=''):
    """Paths at which two nested states differ, bit by bit."""
    if isinstance(expected, torch.Tensor):
        same = isinstance(actual, torch.Tensor) and torch.equal(actual, expected)
    elif isinstance(expected, (dict, list, tuple)) and type(actual) is type(expected) and len(actual) == len(expected):
        keys = list(expected) if isinstance(expected, dict) else range(len(expected))
        if isinstance(expected, dict) and list(actual) != keys:
            return [where]
        return [path for key in keys for path in differences(actual[key], expected[key], f'{where}.{key}')]
    else:
        same = actual == expected
    return [] if same else [where]


@pytest.mark.parametrize('name', TRAININGS)
def test_everything_of_a_resumed_training_equals_the_uninterrupted_one(name, tmp_path):
    """The whole of the last state: optimiser, schedule, scaler, averages, best score, generators; and the log."""
    changes, cut, resumed_at = TRAININGS[name]
    images = {'train_dataset': [shapes(4, size=(64, 96)), shapes(3, size=(96, 64), seed=4)]
              if 'grouping' in name else data(), 'eval_dataset': shapes(3)}
    trainer_for(tmp_path / 'whole', changes, **images).train()
    with pytest.raises(Cut):
        trainer_for(tmp_path / 'cut', changes, callbacks=[CutAt(cut)], **images).train()
    trainer = trainer_for(tmp_path / 'cut', changes, resume_from='latest', **images)
    started = []

    class Watch(Hook):
        def before_run(self, trainer):
            started.append(trainer.iter)

    trainer.register_hook(Watch())
    trainer.train()
    assert started == [resumed_at]
    folders = [tmp_path / part / 'work' for part in ('cut', 'whole')]
    assert saved_states(folders[0])[-1] == saved_states(folders[1])[-1]
    for suffix in ('.pth', '_trainer_state.pth'):
        states = [torch.load(folder / f'{saved_states(folder)[-1]}{suffix}', weights_only=True) for folder in folders]
        assert differences(*states) == []
    assert {'optimizer', 'lr_scheduler', 'grad_scaler', 'ema', 'optimize', 'progress', 'rng', 'best'} <= set(states[1])
    for mode in ('train', 'eval'):
        logs = [[{key: value for key, value in line.items() if key not in TIMED} for line in log_lines(folder.parent,
                                                                                                       mode)]
                for folder in folders]
        assert logs[0] == logs[1]
    assert (folders[0] / 'output' / 'model.safetensors').read_bytes() == \
        (folders[1] / 'output' / 'model.safetensors').read_bytes()


# Four iterations an epoch, whose last one saves a state; evaluated after each epoch.
EVALUATED = {'train.max_epochs': 2, 'train.ema': {'decay': 0.9}, 'evaluation.period': {'interval': 1},
             'train.checkpoint': {'period': {'interval': 4, 'by_epoch': False}, 'best': {'metric_key': 'segm_mAP'}},
             'train.early_stopping': {'patience': 2, 'metric_key': 'segm_mAP'}}


@pytest.fixture(scope='module')
def evaluated(tmp_path_factory):
    folder = tmp_path_factory.mktemp('evaluated')
    trainer_for(folder, EVALUATED, train_dataset=data(), eval_dataset=shapes(2)).train()
    return folder


class CutInEvaluation(Hook):
    """Ends the training after an iteration that ends an epoch: before the epoch's evaluation, or right after it."""

    def __init__(self, iteration, priority):
        self.iteration = iteration
        self.PRIORITY = priority

    def after_train_epoch(self, trainer):
        if trainer.iter == self.iteration:
            raise Cut


@pytest.mark.parametrize(('cut', 'priority'), [
    pytest.param(4, 1, id='before the evaluation'), pytest.param(4, 51, id='after its record'),
    pytest.param(8, 1, id='before the last evaluation')])
def test_an_evaluation_that_was_cut_is_made_up_for(cut, priority, evaluated, tmp_path):
    """A state of an epoch's last iteration does not yet know the epoch's evaluation, best model and patience."""
    with pytest.raises(Cut):
        trainer_for(tmp_path, EVALUATED, train_dataset=data(), eval_dataset=shapes(2),
                    callbacks=[CutInEvaluation(cut, priority)]).train()
    assert saved_states(tmp_path / 'work')[-1] == f'iter_{cut}'
    trainer_for(tmp_path, EVALUATED, train_dataset=data(), eval_dataset=shapes(2), resume_from='latest').train()
    assert_same_end(tmp_path, evaluated)


def test_asked_to_stop_in_an_epochs_last_iteration_the_evaluation_comes_with_the_resume(evaluated, tmp_path, capfd):
    class Ask(Hook):
        def before_train_iter(self, trainer):
            if trainer.iter == 7:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit):
        trainer_for(tmp_path, EVALUATED, train_dataset=data(), eval_dataset=shapes(2), callbacks=[Ask()]).train()
    assert 'SIGTERM: the training saves its state after this step' in capfd.readouterr().err
    assert [line['iter'] for line in log_lines(tmp_path, 'eval')] == [4]
    trainer_for(tmp_path, EVALUATED, train_dataset=data(), eval_dataset=shapes(2), resume_from='latest').train()
    assert_same_end(tmp_path, evaluated)


def assert_same_end(actual, expected):
    """Two trainings have the same last state, log, and output."""
    folders = [folder / 'work' for folder in (actual, expected)]
    assert saved_states(folders[0])[-1] == saved_states(folders[1])[-1] == 'epoch_2'
    states = [torch.load(folder / 'epoch_2_trainer_state.pth', weights_only=True) for folder in folders]
    assert differences(*states) == []
    for mode in ('train', 'eval'):
        logs = [[{key: value for key, value in line.items() if key not in TIMED}
                 for line in log_lines(folder.parent, mode)] for folder in folders]
        assert logs[0] == logs[1]
    for file in ('model.safetensors', 'configuration.json'):
        assert (folders[0] / 'output' / file).read_bytes() == (folders[1] / 'output' / file).read_bytes()


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
    pytest.param({'train.dataloader.batch_size_per_gpu': 3}, {}, ValueError,
                 r'4 iterations an epoch \(1 process\(es\) with batches of 2\)', id='other batches'),
])
def test_resume_that_does_not_fit_is_an_error(uninterrupted, changes, arguments, error, message, tmp_path):
    _, folder = uninterrupted
    arguments = {'resume_from': str(folder / 'work' / 'epoch_2'), 'train_dataset': data(), **arguments}
    with pytest.raises(error, match=message):
        trainer_for(tmp_path, {**CHANGES, **changes}, **arguments).train()


def test_resume_with_another_number_of_processes_is_told(uninterrupted, tmp_path, caplog):
    """The batches are the same as long as all processes together have as many images; what is drawn is not."""
    expected, folder = uninterrupted
    for file in (folder / 'work').glob('epoch_2*.pth'):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    file = tmp_path / 'epoch_2_trainer_state.pth'
    state = torch.load(file, weights_only=True)
    torch.save({**state, 'other_rngs': [state['rng']]}, file)
    trainer = trainer_for(tmp_path, CHANGES, train_dataset=data(), resume_from=str(file))
    trainer.train()
    assert 'was saved by 2 process(es), now there are 1' in caplog.text
    assert_equal_weights(weights(trainer), weights(expected))


def test_a_state_of_an_earlier_version_loads(uninterrupted, tmp_path):
    """Without what later versions save: it goes on as far as it knows."""
    expected, folder = uninterrupted
    for file in (folder / 'work').glob('epoch_2*.pth'):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    file = tmp_path / 'epoch_2_trainer_state.pth'
    state = torch.load(file, weights_only=True)
    for name in ('processes', 'batch_size', 'other_rngs', 'grad_norm', 'progress', 'optimize'):
        del state[name]
    torch.save(state, file)
    trainer = trainer_for(tmp_path, CHANGES, train_dataset=data(), resume_from=str(file))
    trainer.train()
    assert_equal_weights(state_of(trainer), state_of(expected))


def test_the_schedule_of_an_earlier_versions_accumulating_training_goes_on(tmp_path):
    """Its states count steps of the optimiser, of two iterations each; now the schedule counts iterations."""
    changes = {'train.max_epochs': 4, 'train.optimizer.options': {'cumulative_iters': 2},
               'train.checkpoint': {'period': {'interval': 1, 'max_checkpoint_num': None}}}
    trainer_for(tmp_path, changes, train_dataset=shapes(8)).train()
    expected = [line['lr'] for line in log_lines(tmp_path)]
    file = tmp_path / 'work' / 'epoch_2_trainer_state.pth'
    state = torch.load(file, weights_only=True)
    assert state['lr_scheduler']['last_epoch'] == 8
    state['lr_scheduler']['last_epoch'] = 4
    del state['optimize']
    torch.save(state, file)
    trainer_for(tmp_path, changes, train_dataset=shapes(8), resume_from=str(file)).train()
    found = [line['lr'] for line in log_lines(tmp_path)]
    assert found == expected


def test_a_gradient_scaler_may_be_switched_on_in_a_resumed_training(uninterrupted, tmp_path):
    """As for a resume with fp16 after bf16: the state of a scaler that was off is empty."""
    _, folder = uninterrupted
    trainer = trainer_for(tmp_path, CHANGES, train_dataset=data(), resume_from=str(folder / 'work' / 'epoch_2'))
    trainer.grad_scaler = torch.amp.GradScaler('cpu', init_scale=8.0)
    trainer.train()
    assert trainer.iter == 12 and trainer.grad_scaler.get_scale() == 8.0


def test_the_best_thresholds_of_the_last_evaluation_are_known_after_a_resume(tmp_path):
    changes = {'train.max_epochs': 2}
    trainer = trainer_for(tmp_path, changes, callbacks=[CutAt(2)])
    trainer.best_thresholds = {'ellipse': 0.25, 'rectangle': 0.5}
    with pytest.raises(Cut):
        trainer.train()
    again = trainer_for(tmp_path, changes, resume_from='latest')
    again.train()
    written = json.loads((tmp_path / 'work' / 'output' / 'configuration.json').read_text('utf-8'))
    assert written['postprocessor']['score_thr'] == {'ellipse': 0.25, 'rectangle': 0.5}


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
