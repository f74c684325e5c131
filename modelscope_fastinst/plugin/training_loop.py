"""The training loop: epochs, iterations, and where they end."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelscope.utils.constant import ModeKeys, TrainerStages
from torch import nn
from torch.utils.data import DataLoader

from modelscope_fastinst.data.collate import to_device

from .sampling import begin_epoch
from .trainer_evaluation import EvaluatingTrainer


class LoopingTrainer(EvaluatingTrainer):
    """The library's loop with mid-epoch starts and ends; what it trains and with what is ``FastInstTrainer``'s."""

    @property
    def max_epochs(self) -> int:
        """Epochs of the whole training, a begun one included."""
        return self._max_epochs if self._ends_at is None else -(-self._ends_at // self.iters_per_epoch)

    @property
    def max_iters(self) -> int:
        """Iterations of the whole training: ``train.max_iters``, or fewer if ``max_epochs`` has fewer."""
        limits = [self._max_epochs * self.iters_per_epoch, self.cfg.safe_get('train.max_iters'), self._ends_at]
        return min(int(limit) for limit in limits if limit is not None)

    def end_at(self, iteration: int) -> None:
        """Makes this iteration the training's last, as if it had been configured so; what ends with it, ends there."""
        self._ends_at = iteration

    def train_loop(self, data_loader: DataLoader) -> None:
        """Trains epoch by epoch; an epoch that ``max_iters`` cuts short has no ``after_train_epoch``."""
        self.invoke_hook(TrainerStages.before_run)
        self.model.train()
        if self._inner_iter >= self.iters_per_epoch:   # resumed between an epoch's last iteration and its end
            self._end_epoch()
        while self._epoch < self.max_epochs and self._iter < self.max_iters and not self._stop_training:
            self.invoke_hook(TrainerStages.before_train_epoch)
            left_out = begin_epoch(data_loader, self._epoch, self._inner_iter)
            for inner_iter, batch in enumerate(data_loader, left_out):
                if inner_iter < self._inner_iter:   # trained before the training was interrupted
                    continue
                self._inner_iter = inner_iter
                self.data_batch = to_device(batch, self.device)
                self.invoke_hook(TrainerStages.before_train_iter)
                self.train_step(self.model, self.data_batch)
                self.invoke_hook(TrainerStages.after_train_iter)
                del self.data_batch
                self._iter += 1
                self._mode = ModeKeys.TRAIN
                if inner_iter + 1 >= self.iters_per_epoch or self._iter >= self.max_iters:
                    break
            if self._iter >= self.max_iters and self._inner_iter + 1 < self.iters_per_epoch:
                self._inner_iter += 1
                break
            self._end_epoch()
        self.invoke_hook(TrainerStages.after_run)

    def _end_epoch(self) -> None:
        self.invoke_hook(TrainerStages.after_train_epoch)
        self._inner_iter = 0
        self._epoch += 1

    def train_step(self, model: nn.Module, inputs: Mapping[str, Any]) -> None:
        """One forward pass; ``train_outputs`` and ``log_vars`` hold what it gave."""
        model.train()
        self._mode = ModeKeys.TRAIN
        for module in self._frozen:
            module.eval()
        with self._autocast(self.amp), self._optimize_hook.exchange(self):
            self.train_outputs = model.forward(**inputs)
        self.log_vars = self.train_outputs.get('log_vars') or {'loss': float(self.train_outputs['loss'].detach())}
