"""Several processes that torchrun starts train one model: it is the model that one process would have trained."""
from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from modelscope_fastinst.plugin import processes
from modelscope_fastinst.plugin.checkpoint_files import saved_states
from modelscope_fastinst.plugin.processes import join
from modelscope_fastinst.plugin.trainer_keys import ConfigurationError
from tests.plugin.process_work import EQUAL
from tests.plugin.trainer_runs import assert_equal_weights, log_lines, shapes, write_configuration

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 240   # seconds after which something hangs


def torchrun(*words, count=2, module='tests.plugin.process_work', **options):
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    launcher = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', str(count)] if count else []
    return subprocess.Popen([sys.executable, *launcher, '-m', module, *map(str, words)], cwd=ROOT, env=environment,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def finish(*runs):
    """Exit status, stdout and stderr of each."""
    ended = []
    for run in runs:
        try:
            out, err = run.communicate(timeout=LIMIT)
        finally:
            run.kill()
        ended.append((run.returncode, out, err))
    return ended


def reports(folder, count):
    return [json.loads((folder / f'report_{rank}.json').read_text('utf-8')) for rank in range(count)]


@pytest.fixture(scope='module')
def reference(tmp_path_factory):
    """A model that finds something, and images on which it does."""
    from tests.plugin.trainer_runs import trainer_for
    folder = tmp_path_factory.mktemp('reference')
    trainer_for(folder, {'train.max_epochs': 12}, train_dataset=shapes(5)).train()
    return folder / 'work' / 'output'


@pytest.mark.slow
def test_two_processes_with_half_the_batch_train_the_same_model(reference, tmp_path):
    """Also: each image is evaluated once, all have the same values, and only the first process writes."""
    runs = []
    for name, count, batch_size in (('one', 0, 4), ('two', 2, 2)):
        folder = tmp_path / name
        write_configuration(folder, EQUAL)
        shapes(12).write_coco(folder / 'data', 'train')
        shapes(5).write_coco(folder / 'data', 'val')
        shutil.copytree(reference, folder / 'reference')
        runs.append(torchrun('equal', folder, batch_size, count=count))
    said = []
    for status, _, err in finish(*runs):
        assert status == 0, err
        said.append(err.count('evaluating 5 images'))
    assert said == [2, 2]   # the first process says it for all
    one, two = tmp_path / 'one', tmp_path / 'two'
    for number in (1, 2):
        expected, actual = (torch.load(folder / 'work' / f'epoch_{number}.pth', weights_only=True)
                            for folder in (one, two))
        assert list(actual) == list(expected)
        for name, tensor in expected.items():
            torch.testing.assert_close(actual[name], tensor, rtol=1e-4, atol=1e-5, msg=lambda text, n=name: n + text)
    names = ('iter', 'lr', 'loss', 'loss_proposal', 'grad_norm')
    for expected, actual in zip(log_lines(one), log_lines(two), strict=True):
        assert [actual[name] for name in names] == pytest.approx([expected[name] for name in names], rel=1e-3)
    # Once more on equal weights, where nothing may differ.
    alone, both = reports(one, 1), reports(two, 2)
    assert both == alone * 2
    assert 0 < alone[0]['values']['segm_mAP'] < 1
    written = [sorted(str(file.relative_to(folder)) for file in (folder / 'work').rglob('*') if file.suffix != '.log')
               for folder in (one, two)]
    assert written[0] == written[1]
    assert len(list((two / 'work').glob('*.log'))) == 1
    assert len(log_lines(two)) == 6


@pytest.mark.slow
def test_a_process_without_objects_or_with_a_bad_loss_neither_hangs_nor_parts(tmp_path):
    (status, _, err), = finish(torchrun('shares', tmp_path))
    assert status == 0, err
    first, second = reports(tmp_path, 2)
    assert first['unused'] == [] == second['unused']
    assert first['checksum'] == second['checksum']
    assert first['draws'] != second['draws']
    for epoch in (slice(0, 2), slice(2, 4)):   # seven images: one of the two comes twice in each epoch
        one, two = (sum(part['seen'][epoch], []) for part in (first, second))
        assert len(one) == len(two) == 4 and len({*one, *two}) == 7
    assert first['seen'][:2] != first['seen'][2:]
    assert 'process 1: the loss of iteration 2 is nan' in err


@pytest.mark.slow
@pytest.mark.parametrize(('how', 'said'), [
    pytest.param('fails', 'picture_7.png: cannot be read', id='with an error'),
    pytest.param('killed', 'SIGKILL', id='killed'),
])
def test_a_process_that_dies_ends_the_others(how, said, tmp_path):
    (status, _, err), = finish(torchrun('dies', tmp_path, how))
    assert status != 0
    assert said in err, err
    assert 'epoch_1' in saved_states(tmp_path / 'work')   # and one that is written when the other dies, or none
    assert not list((tmp_path / 'work').glob('.*.tmp'))


@pytest.mark.slow
def test_a_training_of_two_that_is_stopped_and_resumed_ends_as_the_whole_one(tmp_path):
    whole, cut = tmp_path / 'whole', tmp_path / 'cut'
    (status, _, err), = finish(torchrun('resumed', whole, 0))
    assert status == 0, err
    (status, _, err), = finish(torchrun('resumed', cut, 4))
    assert status != 0
    assert saved_states(cut / 'work') == ['epoch_1', 'iter_4'], err
    state = torch.load(cut / 'work' / 'iter_4_trainer_state.pth', weights_only=True)
    assert not torch.equal(state['rng']['torch'], state['other_rngs'][0]['torch'])
    (status, _, err), = finish(torchrun('resumed', cut, 0))
    assert status == 0, err
    for rank in (0, 1):
        assert_equal_weights(*(torch.load(folder / f'weights_{rank}.pth') for folder in (cut, whole)))
    # A record of three iterations, of which one was before the stop: the mean over both processes all the same.
    losses = [[line['loss'] for line in log_lines(folder)] for folder in (cut, whole)]
    assert len(losses[1]) == 2
    assert losses[0] == pytest.approx(losses[1], abs=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize(('count', 'number'), [
    pytest.param(2, signal.SIGTERM, id='two processes, SIGTERM'), pytest.param(2, signal.SIGINT, id='two, Ctrl-C'),
    pytest.param(0, signal.SIGTERM, id='one process, SIGTERM'), pytest.param(0, signal.SIGINT, id='one, Ctrl-C'),
])
def test_a_training_asked_to_stop_saves_and_leaves(count, number, tmp_path):
    """As a scheduler does it, and as Ctrl-C does: it reaches every process, and torchrun passes it on once more."""
    write_configuration(tmp_path, {'train.max_epochs': 1000, 'train.checkpoint.period.interval': 1000})
    shapes(4).write_coco(tmp_path / 'data', 'train')
    run = torchrun('train', '--config', tmp_path / 'configuration.json', '--data', tmp_path / 'data', '--work-dir',
                   tmp_path / 'work', '--device', 'cpu', count=count, module='modelscope_fastinst',
                   start_new_session=True)
    log = tmp_path / 'work' / 'log.jsonl'
    deadline = time.monotonic() + LIMIT
    while not (log.exists() and log.read_text()) and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    if number == signal.SIGINT:
        os.killpg(run.pid, number)
    else:
        run.send_signal(number)
    (status, _, err), = finish(run)
    assert status != 0
    name, = saved_states(tmp_path / 'work')
    assert name.startswith('iter_'), err
    assert log_lines(tmp_path)[-1]['iter'] == int(name.removeprefix('iter_'))


@pytest.mark.parametrize(('launcher', 'environment', 'message'), [
    pytest.param('pytorch', {}, 'lacks RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT; start the script with '
                 'torchrun', id='not started by it'),
    pytest.param('slurm', {'SLURM_PROCID': '0', 'SLURM_NTASKS': '2', 'SLURM_LOCALID': '0'},
                 'lacks MASTER_ADDR, MASTER_PORT', id='half an environment'),
    pytest.param('ray', {}, "launcher='ray': known are 'pytorch', 'mpi', 'slurm'", id='unknown'),
])
def test_a_launcher_that_is_not_there_is_an_error(launcher, environment, message, monkeypatch):
    for name in (*processes._TORCHRUN, 'SLURM_PROCID'):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=message):
        join('cpu', launcher)


def test_a_scheduler_that_numbers_machines_starts_no_processes(monkeypatch):
    """Some set RANK and WORLD_SIZE for the machines of a job; only LOCAL_RANK says that a launcher was at work."""
    for name, value in {'RANK': '0', 'WORLD_SIZE': '4', 'MASTER_ADDR': 'localhost', 'MASTER_PORT': '1'}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv('LOCAL_RANK', raising=False)
    assert join('cpu') == 'cpu'
    assert processes.world_size() == 1
