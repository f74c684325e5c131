"""Progress of a training, for people and for programs."""
from __future__ import annotations

import sys
import time
from collections import defaultdict
from datetime import timedelta
from typing import Any

import torch
from modelscope.trainers.hooks.hook import Hook

from .curves import losses_by_kind
from .processes import averaged, is_first
from .training_log import write_log


class ProgressHook(Hook):
    """One line of progress every ``interval`` iterations, for people in the log and for programs in ``log.jsonl``.

    On a terminal people get a bar for each epoch instead of the lines.
    """

    PRIORITY = 60   # before the checkpoint, so that a training resumed from it has the record

    def __init__(self, interval: int = 10):
        self.interval = interval
        self._sums: dict[str, float] = defaultdict(float)
        self._count = self._images = self._left_out = 0
        self._bar: Any = None

    def before_run(self, trainer: Any) -> None:
        self._start = self._since = time.perf_counter()
        self._first_iter = trainer.iter

    def before_train_epoch(self, trainer: Any) -> None:
        if is_first() and sys.stderr.isatty():
            from tqdm import tqdm
            self._bar = tqdm(total=min(trainer.iters_per_epoch, trainer.max_iters - trainer.iter + trainer.inner_iter),
                             initial=trainer.inner_iter, file=sys.stderr, unit='it',
                             desc=f'epoch {trainer.epoch + 1}/{trainer.max_epochs}', dynamic_ncols=True)

    def share(self, device: torch.device) -> None:
        """Gives every process the mean of what all have gathered, for a state that holds it once."""
        self._sums = defaultdict(float, averaged(self._sums, device))

    def state_dict(self) -> dict[str, Any]:
        return {'sums': dict(self._sums), 'count': self._count, 'left_out': self._left_out}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._sums = defaultdict(float, state_dict['sums'])
        self._count, self._left_out = state_dict['count'], state_dict['left_out']

    def close(self) -> None:
        """Ends the bar's line, so that what is written next starts one of its own."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def before_train_iter(self, trainer: Any) -> None:
        self._lr = trainer.optimizer.param_groups[0]['lr']

    def after_train_iter(self, trainer: Any) -> None:
        if trainer.left_out:   # it would make the means of all others NaN
            self._left_out += 1
        else:
            for name, value in trainer.log_vars.items():
                self._sums[name] += float(value)
        self._count += 1
        self._images += len(trainer.data_batch['images']) * trainer.world_size
        if self.every_n_iters(trainer, self.interval) or self.is_last_iter(trainer):
            self._log(trainer)
        if self._bar is not None:
            self._bar.set_postfix(
                {name: f'{value:.4g}' for name, value in losses_by_kind(trainer.log_vars).items()}
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
        losses = averaged({name: total / (self._count - self._left_out) for name, total in self._sums.items()},
                          trainer.train_outputs['loss'].device)
        if self._left_out:
            losses['iters_left_out'] = self._left_out
        if trainer.grad_norm is not None:
            losses['grad_norm'] = trainer.grad_norm
        record = {'mode': 'train', 'epoch': trainer.epoch + 1, 'iter': done, 'lr': self._lr, **losses,
                  'iters_per_second': self._count / seconds, 'images_per_second': self._images / seconds,
                  'memory_mb': memory_mb(), 'eta_seconds': round(remaining)}
        shown = ' '.join(f'{name} {value:.4g}' for name, value in losses_by_kind(losses).items())
        write_line = trainer.logger.info if self._bar is None else trainer.logger.debug
        write_line(
            f'epoch {trainer.epoch + 1}/{trainer.max_epochs} iter {done}/{trainer.max_iters} {shown} '
            f'lr {self._lr:.3g} {record["iters_per_second"]:.2f} it/s {record["images_per_second"]:.1f} img/s '
            f'mem {record["memory_mb"]} MB eta {timedelta(seconds=round(remaining))}')
        write_log(trainer, record)
        self._sums.clear()
        self._count = self._images = self._left_out = 0
        self._since = now


def memory_mb() -> int:
    """Most memory used so far, in MiB: of the GPU where there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() // 2 ** 20
    if sys.platform == 'win32':
        return 0
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (2 ** 20 if sys.platform == 'darwin' else 2 ** 10)
