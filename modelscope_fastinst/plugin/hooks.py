"""What happens around a training step: the optimiser's step, averaged weights, evaluation, progress.

They replace the library's hooks for the same configuration keys. Order within a stage follows their priorities:
optimise, average, evaluate, save a checkpoint (`checkpoint_hook`), log.
"""
from __future__ import annotations

import json
import math
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from modelscope.trainers.hooks.hook import Hook
from modelscope.utils.torch_utils import is_master
from torch import nn

LOG_FILE = 'log.jsonl'


class OptimizeHook(Hook):
    """Backward pass, gradient clipping and accumulation, the optimiser's and the schedule's step.

    Args:
        cumulative_iters: iterations whose gradients make one step; the last one of an epoch or of the training always
            steps.
        grad_clip: ``max_norm`` and ``norm_type`` of ``torch.nn.utils.clip_grad_norm_``, or None.
        max_bad_steps: so many losses in a row that are not finite stop the training; single ones are skipped.
    """

    PRIORITY = 40

    def __init__(self, cumulative_iters: int = 1, grad_clip: dict | None = None, max_bad_steps: int = 10):
        self.cumulative_iters = int(cumulative_iters)
        self.grad_clip = dict(grad_clip) if grad_clip else None
        self.max_bad_steps = max_bad_steps
        self._bad_steps = 0

    def before_run(self, trainer: Any) -> None:
        trainer.cumulative_iters = self.cumulative_iters
        trainer.optimizer.zero_grad(set_to_none=True)

    def after_train_iter(self, trainer: Any) -> None:
        trainer.stepped = False
        loss = trainer.train_outputs['loss']
        if not self._is_finite(trainer, loss):
            return
        trainer.grad_scaler.scale(loss / self.cumulative_iters).backward()
        if self.every_n_iters(trainer, self.cumulative_iters) or self.end_of_epoch(trainer) \
                or self.is_last_iter(trainer):
            self._step(trainer)

    def _step(self, trainer: Any) -> None:
        if self.grad_clip:
            trainer.grad_scaler.unscale_(trainer.optimizer)
            parameters = [p for p in trainer.model.parameters() if p.grad is not None]
            trainer.grad_norm = float(nn.utils.clip_grad_norm_(parameters, **self.grad_clip))
        trainer.grad_scaler.step(trainer.optimizer)
        trainer.grad_scaler.update()
        trainer.optimizer.zero_grad(set_to_none=True)
        if trainer.lr_scheduler is not None:
            trainer.lr_scheduler.step()
        trainer.stepped = True

    def _is_finite(self, trainer: Any, loss: torch.Tensor) -> bool:
        finite = math.isfinite(trainer.log_vars.get('loss', 0.0))
        if not largest(not finite, loss.device):
            self._bad_steps = 0
            return True
        self._bad_steps += 1
        names = [sample.file_name or sample.image_id for sample in trainer.data_batch.get('samples', [])]
        message = f'the loss of iteration {trainer.iter + 1} is {loss.item()} (images {names})'
        if finite:
            message = f'the loss of iteration {trainer.iter + 1} is not finite in another process'
        trainer.optimizer.zero_grad(set_to_none=True)
        if self._bad_steps >= self.max_bad_steps:
            raise FloatingPointError(f'{message}; {self._bad_steps} such iterations in a row: lower the learning rate '
                                     'or set train.optimizer.options.grad_clip')
        trainer.logger.warning(f'{message}; step skipped')
        return False


def largest(number: float, device: torch.device) -> float:
    """The largest of the numbers that the training processes call this with: what one of them does, all must do.

    A process that leaves out a backward pass, or leaves, would have the others wait for its gradients forever.

    Args:
        number: a flag, or a number that float32 holds.
        device: of the model, for that is what the processes' messages go through.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return float(number)
    shared = torch.tensor(float(number), device=device)
    torch.distributed.all_reduce(shared, op=torch.distributed.ReduceOp.MAX)
    return shared.item()


def ends_within_epoch(trainer: Any) -> bool:
    """Whether this iteration is the training's last and not its epoch's (``train.max_iters``)."""
    return Hook.is_last_iter(trainer) and not Hook.end_of_epoch(trainer)


class EmaHook(Hook):
    """An exponential moving average of the weights in float32, which is what gets evaluated and becomes the output.

    Args:
        decay: of the average per step; the first steps use ``(1 + n) / (10 + n)`` where that is smaller.
    """

    PRIORITY = 45

    def __init__(self, decay: float = 0.999):
        if not 0 < decay < 1:
            raise ValueError(f'train.ema.decay must lie in (0, 1); got {decay}')
        self.decay = float(decay)
        self.steps = 0
        self.averages: dict[str, torch.Tensor] = {}

    def before_run(self, trainer: Any) -> None:
        # A resumed training has its averages already.
        if not self.averages:
            self.averages = {name: tensor.detach().clone() for name, tensor in self._tensors(trainer).items()}

    def after_train_iter(self, trainer: Any) -> None:
        if not trainer.stepped:
            return
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        weights = dict(trainer.network.named_parameters())
        names = list(weights)
        torch._foreach_lerp_([self.averages[name] for name in names], [weights[name].detach() for name in names],
                             1 - decay)
        for name, buffer in trainer.network.named_buffers():
            if name in self.averages:
                self.averages[name].copy_(buffer)

    @contextmanager
    def swapped_in(self, trainer: Any) -> Iterator[None]:
        """Within it the network has the averaged weights."""
        tensors = self._tensors(trainer)
        self._swap(tensors)
        try:
            yield
        finally:
            self._swap(tensors)

    def _swap(self, tensors: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, tensor in tensors.items():
                kept = tensor.detach().clone()
                tensor.copy_(self.averages[name])
                self.averages[name].copy_(kept)

    @staticmethod
    def _tensors(trainer: Any) -> dict[str, torch.Tensor]:
        network = trainer.network
        saved = set(network.state_dict())
        return {name: tensor for named in (network.named_parameters(), network.named_buffers())
                for name, tensor in named if name in saved}

    def state_dict(self) -> dict:
        return {'steps': self.steps, 'averages': {name: t.cpu() for name, t in self.averages.items()}}

    def load_state_dict(self, state_dict: dict) -> None:
        self.steps = state_dict['steps']
        self.averages = dict(state_dict['averages'])


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
        self._evaluated_at = -1

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
        if self._evaluated_at != iteration:
            self._evaluated_at = iteration
            trainer.evaluate_while_training(iteration)


class ProgressHook(Hook):
    """One line of progress every ``interval`` iterations, for people in the log and for programs in ``log.jsonl``.

    On a terminal people get a bar for each epoch instead of the lines.
    """

    PRIORITY = 90

    def __init__(self, interval: int = 10):
        self.interval = interval
        self._sums: dict[str, float] = defaultdict(float)
        self._count = self._images = 0
        self._bar: Any = None

    def before_run(self, trainer: Any) -> None:
        self._start = self._since = time.perf_counter()
        self._first_iter = trainer.iter

    def before_train_epoch(self, trainer: Any) -> None:
        if is_master() and sys.stderr.isatty():
            from tqdm import tqdm
            self._bar = tqdm(total=min(trainer.iters_per_epoch, trainer.max_iters - trainer.iter + trainer.inner_iter),
                             initial=trainer.inner_iter, file=sys.stderr, unit='it',
                             desc=f'epoch {trainer.epoch + 1}/{trainer.max_epochs}', dynamic_ncols=True)

    def close(self) -> None:
        """Ends the bar's line, so that what is written next starts one of its own."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def before_train_iter(self, trainer: Any) -> None:
        self._lr = trainer.optimizer.param_groups[0]['lr']

    def after_train_iter(self, trainer: Any) -> None:
        for name, value in trainer.log_vars.items():
            self._sums[name] += float(value)
        self._count += 1
        self._images += len(trainer.data_batch['images']) * trainer.world_size
        if self.every_n_iters(trainer, self.interval) or self.is_last_iter(trainer):
            self._log(trainer)
        if self._bar is not None:
            self._bar.set_postfix(
                {name: f'{value:.4g}' for name, value in _summary(trainer.log_vars).items()}
                | {'lr': f'{self._lr:.3g}', 'mem': f'{memory_mb()} MB',
                   'eta': str(timedelta(seconds=round(self._remaining(trainer))))}, refresh=False)
            self._bar.update()
            if self.end_of_epoch(trainer) or self.is_last_iter(trainer):
                self.close()

    def _remaining(self, trainer: Any) -> float:
        done = trainer.iter + 1
        return (time.perf_counter() - self._start) / (done - self._first_iter) * (trainer.max_iters - done)

    def _log(self, trainer: Any) -> None:
        now = time.perf_counter()
        done = trainer.iter + 1
        seconds = max(now - self._since, 1e-9)
        remaining = self._remaining(trainer)
        losses = {name: total / self._count for name, total in self._sums.items()}
        record = {'mode': 'train', 'epoch': trainer.epoch + 1, 'iter': done, 'lr': self._lr, **losses,
                  'iters_per_second': self._count / seconds, 'images_per_second': self._images / seconds,
                  'memory_mb': memory_mb(), 'eta_seconds': round(remaining)}
        shown = ' '.join(f'{name} {value:.4g}' for name, value in _summary(losses).items())
        write_line = trainer.logger.info if self._bar is None else trainer.logger.debug
        write_line(
            f'epoch {trainer.epoch + 1}/{trainer.max_epochs} iter {done}/{trainer.max_iters} {shown} '
            f'lr {self._lr:.3g} {record["iters_per_second"]:.2f} it/s {record["images_per_second"]:.1f} img/s '
            f'mem {record["memory_mb"]} MB eta {timedelta(seconds=round(remaining))}')
        write_log(trainer, record)
        self._sums.clear()
        self._count = self._images = 0
        self._since = now


def write_log(trainer: Any, record: dict) -> None:
    """Appends a line to the work folder's ``log.jsonl``; the first process only."""
    if is_master():
        with open(os.path.join(trainer.work_dir, LOG_FILE), 'a', encoding='utf-8') as file:
            file.write(json.dumps({key: round(value, 6) if isinstance(value, float) and abs(value) >= 0.01 else value
                                   for key, value in record.items()}) + '\n')


def forget_log_after(work_dir: str, iteration: int) -> None:
    """Takes out of ``log.jsonl`` what was logged after the iteration from which a training is resumed."""
    file = os.path.join(work_dir, LOG_FILE)
    if not is_master() or not os.path.exists(file):
        return
    with open(file, encoding='utf-8') as lines:
        kept = [line for line in lines if line.endswith('\n') and json.loads(line)['iter'] <= iteration]
    with open(f'{file}.tmp', 'w', encoding='utf-8') as lines:
        lines.writelines(kept)
    os.replace(f'{file}.tmp', file)


def memory_mb() -> int:
    """Most memory used so far, in MiB: of the GPU where there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() // 2 ** 20
    if sys.platform == 'win32':
        return 0
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (2 ** 20 if sys.platform == 'darwin' else 2 ** 10)


def _summary(losses: dict[str, float]) -> dict[str, float]:
    """Total, and each kind of loss summed over the layers that have it (``loss_ce_0``, ``loss_ce_1``, ...)."""
    kinds: dict[str, float] = {}
    for name, value in losses.items():
        kind = name.rstrip('0123456789').rstrip('_').removeprefix('loss_')
        kinds[kind] = kinds.get(kind, 0.0) + value
    return kinds
