"""Whatever ends a training, and whenever: a state is left from which it goes on, and a model that loads."""
from __future__ import annotations

import json
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from modelscope.trainers.hooks.hook import Hook

from modelscope_fastinst.checkpoints import CheckpointError, load_weights
from modelscope_fastinst.checkpoints.writing import write_whole
from modelscope_fastinst.models.fastinst import build_fastinst
from modelscope_fastinst.plugin.checkpoint_files import find_whole_state, saved_states
from modelscope_fastinst.plugin.configuration import read_configuration
from tests.plugin.trainer_runs import assert_equal_weights, log_lines, shapes, trainer_for, weights

ROOT = Path(__file__).resolve().parents[2]
CHANGES = {'train.max_epochs': 1, 'train.ema': {'decay': 0.9},
           'train.checkpoint': {'period': {'interval': 1, 'by_epoch': False, 'max_checkpoint_num': 1}}}


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp('uninterrupted')
    trainer = trainer_for(folder, CHANGES, train_dataset=shapes(7))
    trainer.train()
    return trainer, folder


@pytest.fixture(scope='module')
def killed():
    """Trains in another process, which kills itself; gives the exit status."""
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': str(torch.get_num_threads())}
    server = subprocess.Popen([sys.executable, '-m', 'tests.plugin.killed_work', str(torch.get_num_threads())],
                              cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def train(folder, event, moment, changes=CHANGES):
        json.dump({'folder': str(folder), 'changes': changes, 'event': event, 'moment': moment}, server.stdin)
        server.stdin.write('\n')
        server.stdin.flush()
        return int(server.stdout.readline())

    assert server.stdout.readline() == 'ready\n'
    yield train
    server.stdin.close()
    server.stdout.close()
    server.wait(60)


def output_loads(folder):
    """The network of a model folder, with its weights."""
    section = read_configuration(folder)['model']
    load_weights(build_fastinst({**section, 'decoder': {**section['decoder'], 'num_classes': 2}}), folder)


def moment(event, when, states, slow=False):
    marks = pytest.mark.slow if slow else ()
    return pytest.param(event, when, states, id=f'{when} {event}', marks=marks)


@pytest.mark.parametrize(('event', 'when', 'states'), [
    moment('save iter_3.pth', 'middle', ['iter_2']),
    moment('save iter_3_trainer_state.pth', 'middle', ['iter_2'], slow=True),
    moment('replace iter_3.pth', 'before', ['iter_2'], slow=True),
    moment('replace iter_3.pth', 'after', ['iter_2']),   # between the two renames
    moment('replace iter_3_trainer_state.pth', 'after', ['iter_2', 'iter_3'], slow=True),
    moment('replace model.safetensors 5', 'before', ['iter_2', 'iter_3'], slow=True),
    moment('replace model.safetensors 5', 'after', ['iter_2', 'iter_3']),   # between the output's two renames
    moment('set aside iter_2.pth', 'after', ['iter_3'], slow=True),
    moment('unlink iter_2_trainer_state.pth 2', 'after', ['iter_3'], slow=True),   # the first time it is not there yet
])
def test_killed_at_any_moment_it_goes_on_where_it_was(event, when, states, killed, uninterrupted, tmp_path):
    expected, expected_folder = uninterrupted
    assert killed(tmp_path, event, when) == -signal.SIGKILL
    assert saved_states(tmp_path / 'work') == states
    output_loads(tmp_path / 'work' / 'output')
    trainer = trainer_for(tmp_path, CHANGES, train_dataset=shapes(7), resume_from='latest')
    started = []

    class Watch(Hook):
        def before_run(self, trainer):
            started.append(trainer.iter)

    trainer.register_hook(Watch())
    trainer.train()
    assert started == [int(states[-1].removeprefix('iter_'))]
    assert_equal_weights(weights(trainer), weights(expected))
    assert_equal_weights(trainer.ema.averages, expected.ema.averages)
    assert [line['loss'] for line in log_lines(tmp_path)] == [line['loss'] for line in log_lines(expected_folder)]
    left = [{file.relative_to(folder) for file in (folder / 'work').rglob('*') if file.suffix in ('.pth', '.tmp')}
            for folder in (tmp_path, expected_folder)]
    assert left[0] == left[1]


def test_killed_between_model_and_state_an_older_state_does_not_count_for_the_new_model(killed, tmp_path):
    """Over an earlier training of the same folder, whose states have the same names."""
    changes = {**CHANGES, 'train.checkpoint': {'period': {'interval': 1, 'by_epoch': False, 'max_checkpoint_num': 9}}}
    assert killed(tmp_path, 'replace iter_3.pth', 'after', changes) == -signal.SIGKILL
    assert 'iter_2' in saved_states(tmp_path / 'work')
    assert killed(tmp_path, 'replace iter_2.pth', 'after', changes) == -signal.SIGKILL
    assert 'iter_2' not in saved_states(tmp_path / 'work')


def test_output_of_another_model_is_never_mixed_with_the_new_one(killed, tmp_path):
    """Killed between the two files of ``output`` it has the new weights; not with the old model's configuration."""
    other = {**CHANGES, 'model.decoder.dec_layers': 2}
    trainer_for(tmp_path, other).train()
    output = tmp_path / 'work' / 'output'
    output_loads(output)
    assert killed(tmp_path, 'replace model.safetensors', 'after') == -signal.SIGKILL
    with pytest.raises(FileNotFoundError, match=r'configuration\.json: no such file'):
        output_loads(output)


# Damaged files


@pytest.fixture
def two_states(uninterrupted, tmp_path):
    """A work folder with the states iter_3 and, the latest, epoch_1; both are copies of the same one."""
    _, folder = uninterrupted
    work = tmp_path / 'work'
    shutil.copytree(folder / 'work', work)
    for suffix in ('.pth', '_trainer_state.pth'):
        shutil.copy(work / f'epoch_1{suffix}', work / f'iter_3{suffix}')
        os.utime(work / f'iter_3{suffix}', (1, 1))
    assert saved_states(work) == ['iter_3', 'epoch_1']
    return work


def cut_short(file):
    os.truncate(file, file.stat().st_size * 2 // 3)


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def empty(file):
    file.write_bytes(b'')


@pytest.mark.parametrize('damage', [cut_short, flip_a_bit, empty])
@pytest.mark.parametrize('name', ['epoch_1.pth', 'epoch_1_trainer_state.pth'])
def test_a_damaged_state_is_named_and_the_one_before_it_is_taken(damage, name, two_states, caplog):
    damage(two_states / name)
    files = find_whole_state('latest', two_states, logging.getLogger('a test'))
    assert [file.name for file in files] == ['iter_3.pth', 'iter_3_trainer_state.pth']
    assert f'{name} is damaged' in caplog.text and 'going back to iter_3' in caplog.text
    with pytest.raises(CheckpointError, match=f'cannot resume from .*epoch_1: .*{name} is damaged'):
        find_whole_state(two_states / 'epoch_1', two_states, logging.getLogger('a test'))
    cut_short(two_states / 'iter_3.pth')
    with pytest.raises(CheckpointError, match=f'{name} is damaged .*iter_3.pth is damaged .* no other checkpoint'):
        find_whole_state('latest', two_states, logging.getLogger('a test'))


def test_resuming_goes_back_to_the_state_before_a_damaged_one(tmp_path):
    changes = {**CHANGES, 'train.checkpoint': {'period': {'interval': 3, 'by_epoch': False}}}
    trainer = trainer_for(tmp_path, changes, train_dataset=shapes(7))
    trainer.train()
    assert saved_states(tmp_path / 'work') == ['iter_3', 'epoch_1']
    cut_short(tmp_path / 'work' / 'epoch_1_trainer_state.pth')
    again = trainer_for(tmp_path, changes, train_dataset=shapes(7), resume_from='latest')
    again.train()
    assert_equal_weights(weights(again), weights(trainer))
    assert find_whole_state('latest', tmp_path / 'work', logging.getLogger('a test'))[0].name == 'epoch_1.pth'
    assert [line['iter'] for line in log_lines(tmp_path)] == [1, 2, 3, 4]


# A full disk


@contextmanager
def limit_restored():
    """Within it a test may call ``fill``; the limit holds for the test runner's own log as well, so no longer."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def fill(size: int) -> None:
    """Files of more than so many bytes cannot be written from now on, as with a full disk or a quota."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def test_a_full_disk_ends_the_training_and_keeps_the_last_state(uninterrupted, tmp_path):
    class Fill(Hook):
        PRIORITY = 1

        def before_train_iter(self, trainer):
            if trainer.iter == 2:
                fill(200_000)

    trainer = trainer_for(tmp_path, CHANGES, train_dataset=shapes(7), callbacks=[Fill()])
    message = (r'iter_3\.pth: cannot be written \(File too large; .* free on this disk, about [\d.]+ MiB needed\); '
               'what was there before is left as it was')
    with limit_restored(), pytest.raises(OSError, match=message):
        trainer.train()
    work = tmp_path / 'work'
    assert saved_states(work) == ['iter_2']
    assert not list(work.rglob('.*.tmp'))
    output_loads(work / 'output')
    again = trainer_for(tmp_path, CHANGES, train_dataset=shapes(7), resume_from='latest')
    again.train()
    assert_equal_weights(weights(again), weights(uninterrupted[0]))


def test_a_file_for_which_there_is_no_room_is_left_as_it_was(tmp_path):
    file = tmp_path / 'model.safetensors'
    write_whole(file, b'old')
    message = r'model\.safetensors: cannot be written .* about 1\.0 MiB needed'
    with limit_restored(), pytest.raises(OSError, match=message):
        fill(1000)
        write_whole(file, bytes(2 ** 20))
    assert file.read_bytes() == b'old'
    assert [path.name for path in tmp_path.iterdir()] == ['model.safetensors']


def test_files_and_their_folder_are_on_the_disk_before_anything_counts_on_it(tmp_path, monkeypatch):
    """A power cut must not leave a name without its content: sync of the file, rename, sync of the folder."""
    done = []
    sync, replace = os.fsync, os.replace

    def watch_sync(handle):
        done.append(f'sync {Path(os.readlink(f"/proc/self/fd/{handle}")).suffix or "folder"}')
        sync(handle)

    def watch_replace(source, target):
        done.append('rename')
        replace(source, target)

    monkeypatch.setattr(os, 'fsync', watch_sync)
    monkeypatch.setattr(os, 'replace', watch_replace)
    folder = tmp_path / 'folder'
    folder.mkdir()
    write_whole(folder / 'a.pth', b'content')
    assert done == ['sync .tmp', 'rename', 'sync folder']


def test_a_finished_training_hands_its_model_out_when_it_was_killed_before(killed, tmp_path):
    """Between the last state and the output; resumed, there is nothing to train any more."""
    changes = {'train.max_epochs': 1}
    assert killed(tmp_path, 'replace epoch_1_trainer_state.pth', 'after', changes) == -signal.SIGKILL
    output = tmp_path / 'work' / 'output'
    assert not list(output.iterdir())
    trainer = trainer_for(tmp_path, changes, train_dataset=shapes(7), resume_from='latest')
    trainer.train()
    output_loads(output)
    load_weights(trainer.network, output)
    assert_equal_weights(weights(trainer), torch.load(tmp_path / 'work' / 'epoch_1.pth', weights_only=True))
