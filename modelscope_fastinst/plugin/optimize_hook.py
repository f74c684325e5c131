"""The optimiser's step: backward pass, accumulation, clipping, and what happens to numbers that are none."""
from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from modelscope.trainers.hooks.hook import Hook
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from .processes import gathered, world_size

_SMALLEST_SCALE = 2.0 ** -20   # of the loss with fp16; gradients that overflow even so are no numbers at any scale


class OptimizeHook(Hook):
    """Backward pass, gradient accumulation and clipping, the optimiser's and the schedule's step.

    Accumulation: the gradients of ``cumulative_iters`` iterations of an epoch make one step; the last iteration of an
    epoch or of the training always steps. A step has the mean of its iterations' gradients, however many they were.
    That is the gradient of one batch of all their images for losses that are means over images; this objective divides
    by the number of objects of each iteration's batch, so that an object among few others weighs more, and batch norms
    see the small batches (see ``docs/fine-tune.md``).

    Numbers that are none: an iteration whose loss is NaN or infinite, in any of the processes, is named with its images
    and left out: no gradient of it is taken, and the running statistics of batch norms are put back to what they were
    before it. The other iterations of the same accumulation count. With finite losses and gradients that are not, the
    whole step is left out, and that counts alike, except that fp16's gradient scaler is expected to overflow now and
    then: its steps are left out without a word and do not count. A step that is left out moves neither the schedule
    nor the averages.

    Args:
        cumulative_iters: iterations whose gradients make one step.
        grad_clip: ``max_norm`` and ``norm_type`` of ``torch.nn.utils.clip_grad_norm_``, or None.
        max_bad_steps: so many bad iterations in a row stop the training.

    Raises:
        FloatingPointError: ``max_bad_steps`` are reached; the message names the last iteration, and what to try.
    """

    PRIORITY = 40

    def __init__(self, cumulative_iters: int = 1, grad_clip: dict | None = None, max_bad_steps: int = 10):
        self.cumulative_iters = int(cumulative_iters)
        self.grad_clip = dict(grad_clip) if grad_clip else None
        self.max_bad_steps = max_bad_steps
        self.schedule_counts_iterations = True   # else steps, as a schedule of the caller's own may
        self._bad_losses = self._bad_gradients = 0   # in a row
        self._gathered = 0   # iterations whose gradients are there
        self._unshared = False   # whether there are gradients that the processes have not exchanged
        self._statistics: BatchStatistics | None = None

    def before_run(self, trainer: Any) -> None:
        trainer.cumulative_iters = self.cumulative_iters
        trainer.optimizer.zero_grad(set_to_none=True)
        self._gathered, self._unshared = 0, False
        self._statistics = BatchStatistics(trainer.network)

    def after_train_iter(self, trainer: Any) -> None:
        trainer.stepped = False
        steps = self.steps_after(trainer)
        trainer.left_out = not self._is_finite(trainer)
        if not trainer.left_out:
            with self.exchange(trainer):
                trainer.grad_scaler.scale(trainer.train_outputs['loss'] / self.cumulative_iters).backward()
            self._gathered += 1
            self._unshared = not steps
            self._statistics.keep()
        if steps and self._gathered:
            self._step(trainer)

    def steps_after(self, trainer: Any) -> bool:
        """Whether the optimiser is to step after this iteration."""
        return (self.every_n_inner_iters(trainer, self.cumulative_iters) or self.end_of_epoch(trainer)
                or self.is_last_iter(trainer))

    def exchange(self, trainer: Any) -> AbstractContextManager:
        """Within it forward and backward leave the gradients unexchanged, unless they make a step."""
        if isinstance(trainer.model, DistributedDataParallel) and not self.steps_after(trainer):
            return trainer.model.no_sync()
        return nullcontext()

    def _step(self, trainer: Any) -> None:
        scaler, gathered = trainer.grad_scaler, self._gathered
        if self._unshared and isinstance(trainer.model, DistributedDataParallel):
            _exchange_late(trainer.model)
        parameters = [p for p in trainer.model.parameters() if p.grad is not None]
        if gathered < self.cumulative_iters:   # an epoch's end, or bad ones among them
            torch._foreach_mul_([p.grad for p in parameters], self.cumulative_iters / gathered)
        self._gathered, self._unshared = 0, False
        if scaler.is_enabled():
            finite = self._scaled_step(trainer, parameters)
        else:
            trainer.grad_norm = float(self._clip(parameters))
            finite = math.isfinite(trainer.grad_norm)
            if finite:
                trainer.optimizer.step()
            else:
                self._bad_gradients += 1
                self._refuse(trainer, f'the gradients of iteration {trainer.iter + 1} are not finite (norm '
                                      f'{trainer.grad_norm}; {named_images(trainer)})', self._bad_gradients)
        trainer.optimizer.zero_grad(set_to_none=True)
        if not finite:
            return
        self._bad_gradients = 0
        trainer.stepped = True
        if trainer.lr_scheduler is not None:
            # The schedule counts iterations; a step may be of fewer than usual.
            for _ in range(gathered if self.schedule_counts_iterations else 1):
                trainer.lr_scheduler.step()

    def _scaled_step(self, trainer: Any, parameters: list[nn.Parameter]) -> bool:
        """A step with scaled gradients (fp16); whether the scaler let it happen."""
        scaler, scale = trainer.grad_scaler, trainer.grad_scaler.get_scale()
        scaler.unscale_(trainer.optimizer)
        trainer.grad_norm = float(self._clip(parameters))
        scaler.step(trainer.optimizer)
        scaler.update()
        # What torch tells to the public of gradients that overflowed: the scale falls.
        done = scaler.get_scale() >= scale
        if scaler.get_scale() < _SMALLEST_SCALE:
            raise FloatingPointError(f'the gradients overflow in fp16 at whatever scale (now {scaler.get_scale():g}), '
                                     f'up to iteration {trainer.iter + 1}: train with train.amp "bf16", or lower '
                                     'train.optimizer.lr')
        return done

    def _clip(self, parameters: list[nn.Parameter]) -> torch.Tensor:
        """The gradients' norm before clipping."""
        settings = self.grad_clip or {}
        norm = nn.utils.get_total_norm([p.grad for p in parameters], settings.get('norm_type', 2.0))
        if settings:
            nn.utils.clip_grads_with_norm_(parameters, settings['max_norm'], norm)
        return norm

    def _is_finite(self, trainer: Any) -> bool:
        loss = trainer.train_outputs['loss']
        value = trainer.log_vars.get('loss')
        value = loss.item() if value is None else value
        finite = math.isfinite(value)
        if not largest(not finite, loss.device):
            self._bad_losses = 0
            return True
        self._bad_losses += 1
        self._statistics.put_back()
        parts = [f'{name} {part}' for name, part in trainer.log_vars.items()
                 if name != 'loss' and not math.isfinite(float(part))]
        message = f'the loss of iteration {trainer.iter + 1} is {value}'
        if parts:
            message += f' ({", ".join(parts[:3])}{", ..." if len(parts) > 3 else ""})'
        messages = gathered(None if finite else f'{message} ({named_images(trainer)})')
        if len(messages) > 1:
            messages = [text and f'process {rank}: {text}' for rank, text in enumerate(messages)]
        self._refuse(trainer, '; '.join(filter(None, messages)), self._bad_losses)
        return False

    def _refuse(self, trainer: Any, message: str, count: int) -> None:
        if count < self.max_bad_steps:
            trainer.logger.warning(f'{message}; step skipped')
            return
        half = 'train.amp "bf16" instead of "fp16", ' if trainer.amp == 'fp16' else ''
        clip = '' if self.grad_clip else 'train.optimizer.options.grad_clip, '
        raise FloatingPointError(
            f'{message}; {count} such iterations in a row: try {half}{clip}a lower train.optimizer.lr or a longer '
            'warm-up, look at these images, and go on from the last checkpoint with resume_from="latest" (--resume)')

    def state_dict(self) -> dict[str, int]:
        return {'bad_losses': self._bad_losses, 'bad_gradients': self._bad_gradients}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self._bad_losses, self._bad_gradients = state_dict['bad_losses'], state_dict['bad_gradients']


class BatchStatistics:
    """Running statistics of a network's batch norms, kept so that a bad batch can be undone.

    A batch with a NaN makes them NaN for ever, and with them every later evaluation.
    """

    def __init__(self, network: nn.Module):
        buffers = [buffer for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
                   for buffer in (module.running_mean, module.running_var, module.num_batches_tracked)
                   if buffer is not None]
        # Those of one type are copied together.
        self._groups = [(own, [buffer.clone() for buffer in own]) for dtype in {buffer.dtype for buffer in buffers}
                        for own in [[buffer for buffer in buffers if buffer.dtype == dtype]]]

    def keep(self) -> None:
        """Takes the present statistics for good."""
        for own, kept in self._groups:
            torch._foreach_copy_(kept, own)

    def put_back(self) -> None:
        """Makes the statistics those last kept."""
        for own, kept in self._groups:
            torch._foreach_copy_(own, kept)


def named_images(trainer: Any) -> str:
    """The images of the present batch, by id and file name, for a message."""
    names = [str(sample.image_id) + (f' ({sample.file_name})' if sample.file_name else '')
             for sample in trainer.data_batch.get('samples', [])]
    return f'images {", ".join(names) or "unknown"}'


def _exchange_late(model: DistributedDataParallel) -> None:
    """Averages gradients over the processes that the backward passes have left unexchanged."""
    world = torch.distributed.get_world_size(model.process_group)
    for parameter in model.parameters():
        if parameter.requires_grad:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            torch.distributed.all_reduce(parameter.grad, group=model.process_group)
            parameter.grad /= world


def largest(number: float, device: torch.device) -> float:
    """The largest of the numbers that the training processes call this with: what one of them does, all must do.

    A process that leaves out a backward pass, or leaves, would have the others wait for its gradients forever.

    Args:
        number: a flag, or a number that float32 holds.
        device: of the model, for that is what the processes' messages go through.
    """
    if world_size() == 1:
        return float(number)
    shared = torch.tensor(float(number), device=device)
    torch.distributed.all_reduce(shared, op=torch.distributed.ReduceOp.MAX)
    return shared.item()
