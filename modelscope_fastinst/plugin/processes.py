"""Several processes that train one model together, as ``torchrun`` starts them: each has its share of every batch.

``torchrun --nproc-per-node N -m modelscope_fastinst train ...`` needs no further option, and a script of one's own
under ``torchrun`` none in ``build_trainer``. GPUs talk through NCCL, CPUs through gloo. ModelScope's own hook for it
knows CUDA only, and joins too late to keep the other processes from writing and downloading beside the first.
"""
from __future__ import annotations

import atexit
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
from modelscope.trainers.hooks.hook import Hook
from modelscope.utils.constant import DistributedParallelType
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from .trainer_keys import ConfigurationError

# What torchrun tells every process. Schedulers that start one process a machine set some of these as well, with the
# machine's number; LOCAL_RANK is what only a launcher of processes sets.
_TORCHRUN = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT')
# The same three numbers from other launchers, for ``launcher=``.
_LAUNCHERS = {'pytorch': _TORCHRUN[:3],
              'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
              'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID')}
# The first process may evaluate or write for long while the others wait; one that dies is noticed otherwise.
_PATIENCE = timedelta(minutes=60)

T = TypeVar('T')


class ProcessesError(ConnectionError):
    """Another training process failed, which ends this one; what went wrong is in the other one's message."""


def rank() -> int:
    """The number of this process, from 0."""
    return distributed.get_rank() if _joined() else 0


def world_size() -> int:
    """How many processes train together; 1 without a launcher."""
    return distributed.get_world_size() if _joined() else 1


def local_rank() -> int:
    """The number of this process on its machine."""
    if 'LOCAL_RANK' in os.environ:
        return int(os.environ['LOCAL_RANK'])
    return rank() % max(torch.cuda.device_count(), 1) if torch.cuda.is_available() else rank()


def is_first() -> bool:
    """Whether this is the process that writes files and logs."""
    return rank() == 0


def join(device: str | None = None, launcher: str | None = None) -> str:
    """Joins the other processes of this training, if a launcher has started several; the first call counts.

    Args:
        device: as the trainer takes it: 'cpu', 'gpu', ...; with several processes each takes a GPU of its own.
        launcher: 'pytorch' (``torchrun``, which is found without being named), 'mpi' or 'slurm'. None: ``torchrun``, or
            a process group that the caller has made, or nobody.

    Returns:
        The device of this process: ``device`` itself for a single one.

    Raises:
        ConfigurationError: a launcher that is not known or not there, more processes than GPUs, one GPU for all.
    """
    device = str(device or 'gpu')
    if not _joined():
        if launcher is not None:
            _read_launcher(launcher)
        if not all(name in os.environ for name in _TORCHRUN) or int(os.environ['WORLD_SIZE']) == 1:
            return device
        on_gpu = not device.startswith('cpu') and torch.cuda.is_available()
        own = _own_device(device, int(os.environ['WORLD_SIZE']))
        # gloo beside NCCL: what is no tensor on a GPU travels without one.
        distributed.init_process_group('cpu:gloo,cuda:nccl' if on_gpu else 'gloo', timeout=_PATIENCE)
        atexit.register(_leave_at_exit)
    else:
        own = _own_device(device, world_size()) if world_size() > 1 else device
    if not is_first():
        _hush()
    return own


def leave() -> None:
    """Takes leave of the other processes, after everything has gone well."""
    if _joined():
        distributed.destroy_process_group()


@contextmanager
def first_here_first() -> Iterator[None]:
    """Runs the block in one process of every machine, then in its others: what the one fetches, they find.

    Raises:
        ProcessesError: the block failed in one of the first ones.
    """
    if world_size() == 1:
        yield
    elif local_rank() != 0:
        _all_well(True)
        yield
    else:
        try:
            yield
        except BaseException:
            _all_well(False)
            raise
        _all_well(True)


def from_first(function: Callable[[], T]) -> T:
    """What ``function`` gives in the first process, in all of them: for decisions about files that it writes.

    Args:
        function: called in the first process only; gives something that can be pickled.

    Raises:
        ProcessesError: it failed in the first process, which raises its own error.
    """
    if world_size() == 1:
        return function()
    answer: list[Any] = [False, None]
    if is_first():
        try:
            answer = [True, function()]
        finally:
            distributed.broadcast_object_list(answer, 0)
        return answer[1]
    distributed.broadcast_object_list(answer, 0)
    if not answer[0]:
        raise ProcessesError('process 0 failed; its own message says why')
    return answer[1]


def gathered(value: T) -> list[T]:
    """The value of every process, in the order of their numbers."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    distributed.all_gather_object(values, value)
    return values


def averaged(numbers: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """The mean over all processes of numbers of the same names: of losses, the loss of the whole batch."""
    if world_size() == 1 or not numbers:
        return dict(numbers)
    values = torch.tensor([float(value) for value in numbers.values()], dtype=torch.float64, device=device)
    distributed.all_reduce(values)
    return dict(zip(numbers, (values / world_size()).tolist(), strict=True))


def wait_for_all() -> None:
    """Returns once every process has come here."""
    if world_size() > 1:
        _all_well(True)


@contextmanager
def naming_lost_peers() -> Iterator[None]:
    """Within it the error of a message that finds nobody at the other end says so.

    Raises:
        ProcessesError: another process has ended.
    """
    try:
        yield
    except BaseException as error:
        atexit.unregister(_leave_at_exit)   # the others may be gone, and to wait for them would hide the error
        text = str(error).lower()
        if isinstance(error, RuntimeError) and world_size() > 1 and any(
                word in text for word in ('gloo', 'closed by peer', 'connection reset', 'nccl')):
            raise ProcessesError('another training process has ended; its own message says why') from error
        raise


class ProcessesHook(Hook):
    """Gives every process its device and its random numbers, and has them exchange gradients.

    Batch norms that learn have the first process's running statistics in all of them.
    """

    PRIORITY = 5   # before whatever else looks at the model

    def after_init(self, trainer: Any) -> None:
        if world_size() == 1:
            return
        trainer.device = torch.device(trainer.device)
        trainer.model.to(trainer.device)
        trainer.parallel_groups[DistributedParallelType.DP] = None   # all processes
        if not is_first():   # the weights are there, equal everywhere; what is drawn from here on is each one's own
            seed = int(np.random.SeedSequence([trainer._seed, rank()]).generate_state(1)[0])
            torch.manual_seed(seed)

    def before_run(self, trainer: Any) -> None:
        if world_size() > 1 and not isinstance(trainer.model, DistributedDataParallel):
            trainer.model = wrapped(trainer.model)

    def before_val(self, trainer: Any) -> None:
        if world_size() > 1:
            for buffer in trainer.network.buffers():
                distributed.broadcast(buffer, 0)


def wrapped(model: nn.Module) -> DistributedDataParallel:
    """A model whose backward pass averages the gradients over the processes."""
    criterion = getattr(model, 'criterion', None)
    # Supervised at every head each parameter has a gradient in every step, also without objects.
    unused = not getattr(criterion, 'deep_supervision', False)
    return DistributedDataParallel(model, find_unused_parameters=unused)


def launched_rank() -> int | None:
    """The number that a launcher has given this process, before it has joined anybody; None without a launcher."""
    if all(name in os.environ for name in _TORCHRUN) and int(os.environ['WORLD_SIZE']) > 1:
        return int(os.environ['RANK'])
    return None


def under_torchrun() -> bool:
    """Whether ``torchrun`` watches over this process: it passes signals on to all of its processes."""
    return 'TORCHELASTIC_RUN_ID' in os.environ


def _joined() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _read_launcher(launcher: str) -> None:
    if launcher not in _LAUNCHERS:
        raise ConfigurationError(f'launcher={launcher!r}: known are {", ".join(map(repr, _LAUNCHERS))}')
    names = _LAUNCHERS[launcher]
    missing = [name for name in (*names, *_TORCHRUN[3:]) if name not in os.environ]
    if missing:
        raise ConfigurationError(f'launcher={launcher!r}: the environment lacks {", ".join(missing)}; start the script '
                                 'with torchrun --nproc-per-node N, or train with one process and no launcher=')
    for ours, theirs in zip(_TORCHRUN[:3], names, strict=True):
        os.environ[ours] = os.environ[theirs]


def _own_device(device: str, processes: int) -> str:
    if device.startswith('cpu') or not torch.cuda.is_available():
        return 'cpu'
    if ':' in device:
        raise ConfigurationError(f'device {device!r} is one GPU, but there are {processes} processes and each takes '
                                 'one of its own: leave the device out, or choose GPUs with CUDA_VISIBLE_DEVICES')
    number, count = local_rank(), torch.cuda.device_count()
    if number >= count:
        raise ConfigurationError(f'process {number} of this machine has no GPU: there are {count}; start at most '
                                 f'{count} processes (--nproc-per-node), or train on the CPU with device "cpu"')
    torch.cuda.set_device(number)
    return f'cuda:{number}'


def _all_well(well: bool) -> None:
    if not all(gathered(well)) and well:
        raise ProcessesError('another training process failed; its own message says why')


def _hush() -> None:
    """Keeps everything below errors off the terminal: the first process says it for all."""
    from modelscope.utils.logger import get_logger
    # at the handlers, for every get_logger() of the library sets the logger's own level again
    for handler in get_logger().handlers:
        handler.setLevel(logging.ERROR)


def _leave_at_exit() -> None:
    if not hasattr(sys, 'last_value'):   # as in naming_lost_peers
        leave()
