"""Averaged weights, beside those that are trained."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from modelscope.metrics.builder import build_metric
from modelscope.trainers.hooks.hook import Hook

RAW = 'raw/'   # what the names of the raw weights' metrics begin with

class EmaHook(Hook):
    """An exponential moving average of the weights in float32, which is what gets evaluated and becomes the output.

    The raw weights are what checkpoints hold, and what lies beside the output in ``output_raw``.

    Args:
        decay: of the average per step; the first steps use ``(1 + n) / (10 + n)`` where that is smaller.
        evaluate_raw: whether each evaluation during the training also gives the raw weights' values, under names like
            ``raw/segm_mAP``.
    """

    PRIORITY = 45

    def __init__(self, decay: float = 0.999, evaluate_raw: bool = False):
        self.decay = float(decay)
        self.evaluate_raw = bool(evaluate_raw)
        self.steps = 0
        self.averages: dict[str, torch.Tensor] = {}

    def before_run(self, trainer: Any) -> None:
        tensors = self._tensors(trainer)
        if not self.averages:
            self.averages = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        else:   # a resumed training's, which a file gave
            self.averages = {name: self.averages[name].to(tensor.device) for name, tensor in tensors.items()}

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


def raw_values(trainer: Any) -> dict[str, Any]:
    """The evaluation set's metrics for the raw weights, by names that begin with ``raw/``."""
    if trainer.eval_dataloader is None:
        trainer.eval_dataloader = trainer.get_eval_data_loader()
    metrics = [build_metric(metric) for metric in trainer.metrics]
    for metric in metrics:
        metric.trainer = trainer
    values = trainer.evaluation_loop(trainer.eval_dataloader, metrics)
    averages = [f'{RAW}{name} {value:.4f}' for name, value in values.items()
                if '/' not in name and isinstance(value, float)]
    trainer.logger.info(f'raw weights: {" ".join(averages)}')
    return {f'{RAW}{name}': value for name, value in values.items()}
