"""Checkpoints that survive a power cut, and the result folder that ``pipeline()`` loads.

Of every saved state there are two files, named as the library names them: ``epoch_N.pth`` (or ``iter_N.pth``), the
network's state dict with its published keys, and ``epoch_N_trainer_state.pth`` with everything else. Each is written to
a temporary file, synced and renamed; a state counts only once both are there. Both load with ``weights_only=True``.
"""
from __future__ import annotations

import os
import re
import signal
import threading
from pathlib import Path
from typing import Any

import torch
from modelscope.trainers.hooks.hook import Hook
from modelscope.utils.torch_utils import is_master

from .hooks import ends_within_epoch, largest
from .sampling import rng_state, set_rng_state

OUTPUT_DIR = 'output'
STATE_SUFFIX = '_trainer_state.pth'
_NAME = re.compile(r'(epoch|iter)_(\d+)')


class CheckpointHook(Hook):
    """Saves the training's state at intervals and the model to hand out in ``output``.

    ``output`` holds the best model seen where ``best`` is configured, otherwise the one of the last checkpoint; with
    averaged weights (EMA) it holds those.

    Args:
        interval: in epochs, or iterations without ``by_epoch``; the training's end is always saved.
        by_epoch: what ``interval`` counts.
        max_checkpoint_num: how many states to keep, the latest ones; None for all.
        best: ``metric_key`` (of the evaluation) and ``rule`` ('max' or 'min'), or None.
    """

    PRIORITY = 70

    def __init__(self, interval: int = 1, by_epoch: bool = True, max_checkpoint_num: int | None = 2,
                 best: dict | None = None):
        self.interval = interval
        self.by_epoch = by_epoch
        self.max_checkpoint_num = max_checkpoint_num
        self.metric_key = best['metric_key'] if best else None
        self.sign = -1.0 if best and best.get('rule', 'max') == 'min' else 1.0
        self.best_score: float | None = None
        self.best_iter: int | None = None
        self._due = False

    def before_run(self, trainer: Any) -> None:
        if is_master():
            Path(trainer.work_dir, OUTPUT_DIR).mkdir(parents=True, exist_ok=True)

    def after_train_iter(self, trainer: Any) -> None:
        self._keep_best(trainer, trainer.iter + 1)
        self._due |= not self.by_epoch and (trainer.iter + 1) % self.interval == 0
        last = ends_within_epoch(trainer)
        # Between two steps there may be gradients, which are not saved.
        if last or (self._due and trainer.stepped):
            self.save_within_epoch(trainer)

    def save_within_epoch(self, trainer: Any) -> None:
        """Saves the state as it is after an iteration that made a step."""
        self._due = False
        # An iteration that ends an epoch is resumed at the start of the next one.
        ends = self.end_of_epoch(trainer)
        self._save(trainer, f'iter_{trainer.iter + 1}', epoch=trainer.epoch + ends, iteration=trainer.iter + 1,
                   inner_iter=0 if ends else trainer.inner_iter + 1)

    def after_train_epoch(self, trainer: Any) -> None:
        self._keep_best(trainer, trainer.iter)
        done = trainer.epoch + 1
        if (self.by_epoch and done % self.interval == 0) or done == trainer.max_epochs:
            self._save(trainer, f'epoch_{done}', epoch=done, iteration=trainer.iter, inner_iter=0)

    def _keep_best(self, trainer: Any, iteration: int) -> None:
        metrics, trainer.fresh_metrics = trainer.fresh_metrics, None
        if self.metric_key is None or metrics is None:
            return
        if self.metric_key not in metrics:
            raise ValueError(f'train.checkpoint.best.metric_key is {self.metric_key!r}, which the evaluation does not '
                             f'give; it gives {sorted(k for k, v in metrics.items() if isinstance(v, float))}')
        score = metrics[self.metric_key]
        if self.best_score is None or self.sign * score > self.sign * self.best_score:
            self.best_score, self.best_iter = score, iteration
            trainer.logger.info(f'best {self.metric_key} so far: {score:.4f}, at iteration {iteration}')
            if is_master():
                trainer.save_output()

    def _save(self, trainer: Any, name: str, **progress: int) -> None:
        if not is_master():
            return
        network = {key: tensor.detach().cpu() for key, tensor in trainer.network.state_dict().items()}
        state = {**progress, 'iters_per_epoch': trainer.iters_per_epoch, 'rng': rng_state(),
                 'optimizer': trainer.optimizer.state_dict(),
                 'lr_scheduler': trainer.lr_scheduler.state_dict() if trainer.lr_scheduler else None,
                 'grad_scaler': trainer.grad_scaler.state_dict(),
                 'ema': trainer.ema.state_dict() if trainer.ema else None,
                 'best': [self.best_score, self.best_iter], 'classes': list(trainer.model_classes)}
        model_file = Path(trainer.work_dir, f'{name}.pth')
        state_file = Path(trainer.work_dir, f'{name}{STATE_SUFFIX}')
        # A state of this name from an earlier run must not be taken for the new model's.
        state_file.unlink(missing_ok=True)
        save_atomically(network, model_file)
        save_atomically(state, state_file)
        if self.best_score is None:
            trainer.save_output()
        trainer.logger.info(f'saved {model_file}')
        if self.max_checkpoint_num:
            for obsolete in saved_states(trainer.work_dir)[:-self.max_checkpoint_num]:
                Path(trainer.work_dir, f'{obsolete}{STATE_SUFFIX}').unlink()
                Path(trainer.work_dir, f'{obsolete}.pth').unlink()

    def load_state_dict(self, state_dict: dict) -> None:
        self.best_score, self.best_iter = state_dict['best']


class StopHook(Hook):
    """Saves the state and leaves when the process is asked to stop, by SIGTERM or Ctrl-C; the second time at once."""

    PRIORITY = 80

    def __init__(self) -> None:
        self._asked: int | None = None
        self._process = 0
        self._previous: dict[int, Any] = {}

    def before_run(self, trainer: Any) -> None:
        self._asked, self._process = None, os.getpid()
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}

    def _ask(self, number: int, frame: Any) -> None:
        if os.getpid() != self._process:   # a loader's worker, which inherits the handler: its parent sees to it
            if number == signal.SIGTERM:
                os._exit(128 + number)
        elif self._asked is not None:
            self._leave(number)
        else:
            self._asked = number

    def after_train_iter(self, trainer: Any) -> None:
        # A signal may reach one of several processes only; they leave together.
        asked = int(largest(self._asked or 0, trainer.train_outputs['loss'].device))
        if asked and trainer.stepped:
            trainer.checkpoint_hook.save_within_epoch(trainer)
            trainer.logger.info(f'stopped by {signal.Signals(asked).name}; to go on: resume_from=\'latest\'')
            self._leave(asked)

    @staticmethod
    def _leave(number: int) -> None:
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    def release(self) -> None:
        """Puts the signals' handlers back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}


def saved_states(work_dir: str | os.PathLike) -> list[str]:
    """Names (``epoch_3``) of the complete states in a folder, oldest first."""
    folder = Path(work_dir)
    names = [file.name.removesuffix(STATE_SUFFIX) for file in folder.glob(f'*{STATE_SUFFIX}')
             if _NAME.fullmatch(file.name.removesuffix(STATE_SUFFIX))]
    names = [name for name in names if (folder / f'{name}.pth').exists()]
    return sorted(names, key=lambda name: (folder / f'{name}{STATE_SUFFIX}').stat().st_mtime_ns)


def find_state(checkpoint: str | os.PathLike, work_dir: str | os.PathLike) -> tuple[Path, Path] | None:
    """The model and the trainer-state file of a checkpoint.

    Args:
        checkpoint: 'latest', a path to either file, or that path without its suffix (``.../epoch_3``).
        work_dir: where 'latest' looks.

    Returns:
        (model file, state file), or None if 'latest' finds nothing.

    Raises:
        FileNotFoundError: one of the two files is not there.
    """
    if checkpoint == 'latest':
        names = saved_states(work_dir)
        if not names:
            return None
        prefix = os.path.join(work_dir, names[-1])
    else:
        prefix = os.fspath(checkpoint).removesuffix(STATE_SUFFIX).removesuffix('.pth')
    files = Path(f'{prefix}.pth'), Path(f'{prefix}{STATE_SUFFIX}')
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise FileNotFoundError(f'cannot resume from {checkpoint}: there is no {" and no ".join(missing)}')
    return files


def restore(trainer: Any, model_file: Path, state_file: Path) -> None:
    """Puts the trainer into a saved state: weights, optimiser, schedule, averages, random generators, progress.

    Raises:
        ValueError: the state is of another training (other classes, other number of iterations an epoch).
    """
    from modelscope_fastinst.checkpoints import load_weights
    state = torch.load(state_file, map_location='cpu', weights_only=True)
    if state['classes'] != list(trainer.model_classes):
        raise ValueError(f'{state_file}: is of a training with the classes {state["classes"]}, '
                         f'this one has {list(trainer.model_classes)}')
    if state['iters_per_epoch'] != trainer.iters_per_epoch:
        raise ValueError(f'{state_file}: is of a training with {state["iters_per_epoch"]} iterations an epoch, this '
                         f'one has {trainer.iters_per_epoch}: data set or batch size changed. To start a new training '
                         'from these weights: train(checkpoint_path=..., load_all_state=False)')
    load_weights(trainer.network, model_file)
    trainer.optimizer.load_state_dict(state['optimizer'])
    if trainer.lr_scheduler is not None and state['lr_scheduler'] is not None:
        trainer.lr_scheduler.load_state_dict(state['lr_scheduler'])
    trainer.grad_scaler.load_state_dict(state['grad_scaler'])
    if trainer.ema and state['ema']:
        device = next(trainer.network.parameters()).device
        state['ema']['averages'] = {name: t.to(device) for name, t in state['ema']['averages'].items()}
        trainer.ema.load_state_dict(state['ema'])
    trainer.checkpoint_hook.load_state_dict(state)
    trainer._epoch, trainer._iter, trainer._inner_iter = state['epoch'], state['iteration'], state['inner_iter']
    set_rng_state(state['rng'])


def save_atomically(content: Any, file: Path) -> None:
    """``torch.save`` to a temporary file beside ``file``, synced to the disk and renamed."""
    temporary = file.with_name(f'.{file.name}.{os.getpid()}.tmp')
    try:
        with open(temporary, 'wb') as stream:
            torch.save(content, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
