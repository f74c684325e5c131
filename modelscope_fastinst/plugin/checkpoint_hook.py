"""Checkpoints that survive a power cut, and the result folder that ``pipeline()`` loads.

The two files of a saved state (``checkpoint_files``) are written to temporary files, synced and renamed; older states
are removed only after that. Both load with ``weights_only=True``.
"""
from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from modelscope.trainers.hooks.hook import Hook

from modelscope_fastinst.checkpoints.writing import remove_leftovers

from .checkpoint_files import remove_remains, remove_state, saved_states, write_state
from .configuration import CONFIGURATION_FILE
from .evaluation_hook import ends_within_epoch
from .processes import gathered, is_first, rank, world_size
from .result_folders import OUTPUT_DIR, RAW_OUTPUT_DIR
from .sampling import rng_state, set_rng_state


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
        self._due = self._handed_out = False

    def before_run(self, trainer: Any) -> None:
        output = Path(trainer.work_dir, OUTPUT_DIR)
        if self.best_score is not None and not (output / CONFIGURATION_FILE).is_file():
            trainer.logger.warning(f'{output}: has not the best model so far ({self.metric_key} {self.best_score:.4f}, '
                                   f'iteration {self.best_iter}); the best one from here on will be there')
            self.best_score = self.best_iter = None
        if is_first():
            output.mkdir(parents=True, exist_ok=True)
            removed = [*remove_remains(trainer.work_dir), *remove_leftovers(output),
                       *remove_leftovers(Path(trainer.work_dir, RAW_OUTPUT_DIR))]
            if removed:
                trainer.logger.info(f'removed what an interrupted training had left half-written: '
                                    f'{", ".join(map(str, removed))}')

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
        # After an epoch's last iteration its end is still to come: resumed, the training evaluates it.
        self._save(trainer, f'iter_{trainer.iter + 1}', epoch=trainer.epoch, iteration=trainer.iter + 1,
                   inner_iter=trainer.inner_iter + 1)

    def after_train_epoch(self, trainer: Any) -> None:
        self._keep_best(trainer, trainer.iter)
        done = trainer.epoch + 1
        if (self.by_epoch and done % self.interval == 0) or done == trainer.max_epochs:
            self._save(trainer, f'epoch_{done}', epoch=done, iteration=trainer.iter, inner_iter=0)

    def after_run(self, trainer: Any) -> None:
        # Killed between its last state and the output, a training is resumed only to end.
        if self.best_score is None and not self._handed_out and is_first():
            self._hand_out(trainer)

    def _hand_out(self, trainer: Any) -> None:
        trainer.save_output()
        self._handed_out = True

    def _keep_best(self, trainer: Any, iteration: int) -> None:
        metrics, trainer.fresh_metrics = trainer.fresh_metrics, None
        if self.metric_key is None or metrics is None:
            return
        if self.metric_key not in metrics:
            raise ValueError(f'train.checkpoint.best.metric_key is {self.metric_key!r}, which the evaluation does not '
                             f'give; it gives {sorted(k for k, v in metrics.items() if isinstance(v, float))}')
        score = metrics[self.metric_key]
        if not math.isnan(score) and (self.best_score is None or self.sign * (score - self.best_score) > 0):
            self.best_score, self.best_iter = score, iteration
            trainer.logger.info(f'best {self.metric_key} so far: {score:.4f}, at iteration {iteration}')
            if is_first():
                trainer.save_output()
                trainer.write_report()

    def _save(self, trainer: Any, name: str, **progress: int) -> None:
        generators = gathered(rng_state())
        trainer.stateful['progress'].share(torch.device(trainer.device))
        if not is_first():
            return
        network = {key: tensor.detach().cpu() for key, tensor in trainer.network.state_dict().items()}
        state = {**progress, 'iters_per_epoch': trainer.iters_per_epoch, 'processes': len(generators),
                 'batch_size': _batch_size(trainer), 'rng': generators[0], 'other_rngs': generators[1:],
                 'best': [self.best_score, self.best_iter], 'grad_norm': trainer.grad_norm,
                 'classes': list(trainer.model_classes), 'best_thresholds': trainer.best_thresholds,
                 **{name: part.state_dict() for name, part in trainer.stateful.items()}}
        model_file = write_state(trainer.work_dir, name, network, state)
        if self.best_score is None:
            self._hand_out(trainer)
        trainer.logger.info(f'saved {model_file}')
        if self.max_checkpoint_num:
            for obsolete in saved_states(trainer.work_dir)[:-self.max_checkpoint_num]:
                remove_state(trainer.work_dir, obsolete)

    def load_state_dict(self, state_dict: dict) -> None:
        self.best_score, self.best_iter = state_dict['best']


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
        saved, now = (_share(count, size) for count, size in ((state.get('processes'), state.get('batch_size')),
                                                              (world_size(), _batch_size(trainer))))
        raise ValueError(f'{state_file}: is of a training with {state["iters_per_epoch"]} iterations an epoch{saved}, '
                         f'this one has {trainer.iters_per_epoch}{now}: data set, batch size or number of processes '
                         'changed; as long as processes times batch size stay the same, both may change. To start a '
                         'new training from these weights: train(checkpoint_path=..., load_all_state=False)')
    load_weights(trainer.network, model_file)
    if state.get('ema'):
        device = next(trainer.network.parameters()).device
        state['ema']['averages'] = {name: t.to(device) for name, t in state['ema']['averages'].items()}
    _count_iterations(trainer, state)
    for name, part in trainer.stateful.items():
        if state.get(name):   # that of a gradient scaler which was off is empty
            part.load_state_dict(state[name])
    trainer.checkpoint_hook.load_state_dict(state)
    trainer.grad_norm = state.get('grad_norm')
    trainer.best_thresholds = state.get('best_thresholds')
    trainer._epoch, trainer._iter, trainer._inner_iter = state['epoch'], state['iteration'], state['inner_iter']
    generators = [state['rng'], *state.get('other_rngs', [])]
    if len(generators) != world_size():
        trainer.logger.warning(f'{state_file}: was saved by {len(generators)} process(es), now there are '
                               f'{world_size()}: what is drawn at random in each of them goes on otherwise')
    if rank() < len(generators):
        set_rng_state(generators[rank()])


def _count_iterations(trainer: Any, state: dict) -> None:
    """States of the first version have a schedule that counts steps, where now it counts iterations."""
    counts = trainer.stateful['optimize']
    if 'optimize' not in state and state.get('lr_scheduler') and counts.schedule_counts_iterations:
        state['lr_scheduler']['last_epoch'] *= counts.cumulative_iters


def _batch_size(trainer: Any) -> int:
    return int(trainer.cfg.train.dataloader.get('batch_size_per_gpu', 1))


def _share(processes: int | None, batch_size: int | None) -> str:
    return f' ({processes} process(es) with batches of {batch_size})' if processes and batch_size else ''
