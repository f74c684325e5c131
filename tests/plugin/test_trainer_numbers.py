"""Losses and gradients that are no numbers: named, left out, and in the end a stop."""
from __future__ import annotations

import pytest
import torch
from modelscope.trainers.hooks.hook import Hook

from .trainer_runs import assert_equal_weights, log_lines, shapes, trainer_for, weights

CHANGES = {'train.max_epochs': 1, 'train.ema': {'decay': 0.9}}


class Snapshots(Hook):
    """The network, and what the batch held, after each iteration."""

    PRIORITY = 100

    def __init__(self):
        self.weights, self.images, self.stepped = [], [], []

    def after_train_iter(self, trainer):
        self.weights.append(weights(trainer))
        self.images.append([(sample.image_id, sample.file_name) for sample in trainer.data_batch['samples']])
        self.stepped.append(trainer.stepped)


def poison_images(trainer, *iterations):
    """Makes what the backbone gets NaN: activations, statistics of its batch norms, matching costs and losses."""
    def spoil(module, inputs):
        if module.training and trainer.iter + 1 in iterations:
            return (inputs[0] * float('nan'),)
        return None

    trainer.network.backbone.register_forward_pre_hook(spoil)


def poison_gradients(trainer, value, *iterations):
    parameter = trainer.network.sem_seg_head.pixel_decoder.adapter_1.weight
    parameter.register_hook(lambda gradient: gradient * value if trainer.iter + 1 in iterations else None)


def run(trainer, caplog):
    trainer.logger.addHandler(caplog.handler)
    try:
        trainer.train()
    finally:
        trainer.logger.removeHandler(caplog.handler)


def test_an_image_that_spoils_everything_is_named_and_left_out(tmp_path, caplog):
    seen = Snapshots()
    trainer = trainer_for(tmp_path, CHANGES, train_dataset=shapes(8), callbacks=[seen])
    poison_images(trainer, 2)
    run(trainer, caplog)
    line = next(record.getMessage() for record in caplog.records if 'step skipped' in record.getMessage())
    assert 'the loss of iteration 2 is nan (' in line and 'loss_mask nan' in line
    assert all(f'{number} ({name})' in line for number, name in seen.images[1])
    # statistics of batch norms are among them
    assert_equal_weights(seen.weights[1], seen.weights[0])
    assert all(tensor.isfinite().all() for tensor in seen.weights[3].values())
    assert seen.stepped == [True, False, True, True]
    assert trainer.ema.steps == 3
    assert trainer.lr_scheduler.last_epoch == 3
    assert all(tensor.isfinite().all() for tensor in trainer.ema.averages.values())


def test_the_log_of_an_iteration_that_was_left_out_has_no_loss(tmp_path):
    trainer = trainer_for(tmp_path, {**CHANGES, 'train.logging.interval': 2}, train_dataset=shapes(8))
    poison_images(trainer, 2, 3, 4)
    trainer.train()
    first, second = log_lines(tmp_path)
    assert first['iters_left_out'] == 1 and first['loss'] > 0
    assert second['iters_left_out'] == 2 and 'loss' not in second


def test_never_a_number_stops_and_says_what_to_try(tmp_path):
    trainer = trainer_for(tmp_path, {**CHANGES, 'train.optimizer.options': {'max_bad_steps': 3}},
                          train_dataset=shapes(12))
    poison_images(trainer, *range(1, 9))
    before = weights(trainer)
    with pytest.raises(FloatingPointError, match=r'(?s)iteration 3 is nan.*\.png.*; 3 such iterations in a row: try '
                                                 r'.*grad_clip.*lower train.optimizer.lr.*--resume'):
        trainer.train()
    assert_equal_weights(weights(trainer), before)


def test_a_good_iteration_between_two_bad_ones_starts_the_count_anew(tmp_path):
    trainer = trainer_for(tmp_path, {**CHANGES, 'train.optimizer.options': {'max_bad_steps': 2}},
                          train_dataset=shapes(10))
    poison_images(trainer, 1, 3, 5)
    trainer.train()
    assert trainer.iter == 5


def test_the_count_survives_a_resume(tmp_path):
    changes = {**CHANGES, 'train.optimizer.options': {'max_bad_steps': 3}}
    first = trainer_for(tmp_path, changes, train_dataset=shapes(4))
    poison_images(first, 1, 2)
    first.train()
    second = trainer_for(tmp_path, {**changes, 'train.max_epochs': 2}, train_dataset=shapes(4), resume_from='latest')
    poison_images(second, 3)
    with pytest.raises(FloatingPointError, match='iteration 3 is nan'):
        second.train()


CONSTANT = {'train.lr_scheduler': {'type': 'ConstantLR'}, 'train.optimizer': {'type': 'SGD', 'lr': 1e-3}}


@pytest.mark.parametrize('bad', [pytest.param(1, id='the first of two'), pytest.param(2, id='the one that steps')])
def test_the_good_iterations_of_an_accumulation_make_the_step(bad, tmp_path):
    """Of two iterations one is bad: the step is that of the other alone."""
    seen = []

    class Gradients(Hook):
        def before_run(self, trainer):
            trainer.optimizer.register_step_pre_hook(lambda optimizer, *_: seen.append(
                [p.grad.clone() for group in optimizer.param_groups for p in group['params'] if p.grad is not None]))

    for number, (gathered, bad_ones) in enumerate(((2, [bad]), (1, [bad]))):
        trainer = trainer_for(tmp_path / str(number), {**CHANGES, **CONSTANT,
                                                       'train.optimizer.options': {'cumulative_iters': gathered}},
                              train_dataset=shapes(4), callbacks=[Gradients()])
        poison_images(trainer, *bad_ones)
        trainer.train()
    together, alone = seen
    assert max(gradient.abs().max() for gradient in alone) > 0
    torch.testing.assert_close(together, alone)


def test_gradients_that_are_no_numbers_leave_the_weights(tmp_path, caplog):
    seen = Snapshots()
    trainer = trainer_for(tmp_path, CHANGES, train_dataset=shapes(6), callbacks=[seen])
    poison_gradients(trainer, float('nan'), 2)
    run(trainer, caplog)
    assert 'the gradients of iteration 2 are not finite' in caplog.text
    assert seen.stepped == [True, False, True]
    parameters = dict(trainer.network.named_parameters())
    assert all(torch.equal(seen.weights[1][name], seen.weights[0][name]) for name in parameters)
    assert all(tensor.isfinite().all() for tensor in seen.weights[2].values())


def test_gradients_that_are_never_numbers_stop(tmp_path):
    trainer = trainer_for(tmp_path, {**CHANGES, 'train.optimizer.options': {
        'max_bad_steps': 2, 'cumulative_iters': 2, 'grad_clip': {'max_norm': 1.0}}}, train_dataset=shapes(12))
    poison_gradients(trainer, float('inf'), *range(1, 9))
    with pytest.raises(FloatingPointError, match='the gradients of iteration 4 are not finite'):
        trainer.train()


def test_overflow_in_half_precision_is_the_scalers_affair(tmp_path, caplog):
    """The scaler skips a step now and then: no bad loss, and neither schedule nor averages move."""
    seen = Snapshots()
    trainer = trainer_for(tmp_path, {**CHANGES, 'train.optimizer.options': {'max_bad_steps': 1}},
                          train_dataset=shapes(6), callbacks=[seen])
    trainer.grad_scaler = torch.amp.GradScaler('cpu', init_scale=1024.0)
    poison_gradients(trainer, float('inf'), 2)
    run(trainer, caplog)
    assert 'step skipped' not in caplog.text
    assert seen.stepped == [True, False, True]
    assert trainer.grad_scaler.get_scale() == 512
    assert trainer.ema.steps == trainer.lr_scheduler.last_epoch == 2
    state = torch.load(tmp_path / 'work' / 'epoch_1_trainer_state.pth', weights_only=True)
    assert state['grad_scaler']['scale'] == 512
    assert torch.isfinite(torch.cat([p.detach().flatten() for p in trainer.network.parameters()])).all()


def test_overflow_at_whatever_scale_stops(tmp_path):
    trainer = trainer_for(tmp_path, CHANGES, train_dataset=shapes(6))
    trainer.grad_scaler = torch.amp.GradScaler('cpu', init_scale=2.0 ** -20)
    poison_gradients(trainer, float('inf'), 1, 2, 3)
    with pytest.raises(FloatingPointError, match='overflow in fp16 at whatever scale.*bf16'):
        trainer.train()


def test_scaled_gradients_are_clipped_at_their_true_size(tmp_path):
    """What the optimiser steps with does not depend on the scale."""
    results = []
    for scale in (None, 256.0):
        trainer = trainer_for(tmp_path / str(scale), {**CHANGES, 'train.optimizer.options': {
            'grad_clip': {'max_norm': 0.5}, 'cumulative_iters': 2}}, train_dataset=shapes(6))
        if scale:
            trainer.grad_scaler = torch.amp.GradScaler('cpu', init_scale=scale)
        trainer.train()
        results.append(weights(trainer))
        assert trainer.grad_norm > 0.5
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)
