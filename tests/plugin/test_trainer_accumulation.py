"""Gradients of several iterations in one step."""
from __future__ import annotations

import torch
from modelscope.trainers.hooks.hook import Hook

from .trainer_runs import shapes, trainer_for

# Five iterations an epoch; the weights stay what they are, so that gradients of different runs compare.
STILL = {'train.max_epochs': 2, 'train.lr_scheduler': {'type': 'ConstantLR'},
         'train.optimizer': {'type': 'SGD', 'lr': 0.0, 'weight_decay': 0.0}}


class Gradients(Hook):
    """The gradients of each step, and after how many iterations it came."""

    def __init__(self):
        self.seen, self.iterations = [], []

    def before_run(self, trainer):
        def keep(optimizer, *_):
            self.seen.append([p.grad.clone() for group in optimizer.param_groups for p in group['params']
                              if p.grad is not None])
            self.iterations.append(trainer.iter + 1)

        trainer.optimizer.register_step_pre_hook(keep)


def steps(folder, gathered, changes=None):
    hook = Gradients()
    trainer = trainer_for(folder, {**STILL, **(changes or {}), 'train.optimizer.options': {
        'cumulative_iters': gathered}}, train_dataset=shapes(10), callbacks=[hook])
    trainer.train()
    return trainer, hook


def assert_equal_gradients(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4)   # sums in another order


def mean(*parts):
    return [torch.stack(gradients).mean(dim=0) for gradients in zip(*parts, strict=True)]


def test_a_step_has_the_mean_of_its_iterations_however_many(tmp_path):
    _, single = steps(tmp_path / 'single', 1)
    trainer, gathered = steps(tmp_path / 'gathered', 2)
    # Each epoch begins anew, and its last step is of one iteration.
    assert gathered.iterations == [2, 4, 5, 7, 9, 10]
    one, two, three, four, five, six, seven, *_ = single.seen
    assert_equal_gradients(gathered.seen[0], mean(one, two))
    assert_equal_gradients(gathered.seen[1], mean(three, four))
    assert_equal_gradients(gathered.seen[2], five)
    assert_equal_gradients(gathered.seen[3], mean(six, seven))
    # The schedule is as far as the training, though not all steps were of two iterations.
    assert trainer.lr_scheduler.last_epoch == 10


def test_the_trainings_end_makes_a_step_of_what_there_is(tmp_path):
    _, single = steps(tmp_path / 'single', 1, {'train.max_iters': 3})
    _, gathered = steps(tmp_path / 'gathered', 4, {'train.max_iters': 3})
    assert gathered.iterations == [3]
    assert_equal_gradients(gathered.seen[0], mean(*single.seen))
