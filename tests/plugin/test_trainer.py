"""Training end to end through ``build_trainer`` on procedural shapes."""
from __future__ import annotations

import io
import json
import socket
import sys

import numpy as np
import pytest
import torch
from modelscope.pipelines import pipeline
from modelscope.trainers import build_trainer

from modelscope_fastinst.checkpoints import CheckpointError
from modelscope_fastinst.plugin.trainer_keys import ConfigurationError

from .trainer_runs import assert_equal_weights, log_lines, shapes, trainer_for, weights, write_configuration


@pytest.fixture(scope='module')
def overfitted(tmp_path_factory):
    """A trainer that has seen four images often enough to know them by heart, and its folder."""
    folder = tmp_path_factory.mktemp('overfit')
    data = shapes(size=96)
    trainer = trainer_for(
        folder, {'preprocessor.min_size': 96, 'preprocessor.max_size': 96,
                 'preprocessor.train': {'min_sizes': [96], 'max_size': 96, 'crop': None, 'flip': 0},
                 'model.criterion.num_points': 256, 'train.max_epochs': 120, 'train.dataloader.batch_size_per_gpu': 4,
                 'train.lr_scheduler.options.warmup.warmup_iters': 10, 'train.ema': {'decay': 0.9},
                 'train.checkpoint': {'period': {'interval': 60}, 'best': {'metric_key': 'segm_mAP'}},
                 'train.logging.interval': 20, 'evaluation': {'period': {'interval': 60}}},
        train_dataset=data, eval_dataset=data)
    trainer.train()
    return trainer, folder, data


def test_four_images_are_learnt_by_heart(overfitted):
    trainer, _, _ = overfitted
    assert trainer.metric_values['segm_mAP'] > 0.9
    assert trainer.metric_values['bbox_mAP'] > 0.8


def test_loss_falls_and_is_logged_with_its_parts(overfitted):
    _, folder, _ = overfitted
    lines = log_lines(folder)
    assert [line['iter'] for line in lines] == [20, 40, 60, 80, 100, 120]
    assert lines[-1]['loss'] < 0.2 * lines[0]['loss']
    assert {'loss_ce', 'loss_mask', 'loss_dice', 'loss_proposal', 'lr', 'images_per_second', 'iters_per_second',
            'memory_mb', 'eta_seconds', 'epoch'} <= set(lines[0])
    assert [line['iter'] for line in log_lines(folder, 'eval')] == [60, 120]
    assert 'segm_AP/ellipse' in log_lines(folder, 'eval')[0]


def test_result_folder_works_in_a_pipeline_as_it_stands(overfitted):
    _, folder, data = overfitted
    segment = pipeline('image-segmentation', model=str(folder / 'work' / 'output'), device='cpu')
    for sample in data:
        found = segment(np.ascontiguousarray(sample.image.permute(1, 2, 0).numpy()[:, :, ::-1]))
        assert sorted(found['labels']) == sorted(data.classes[label] for label in sample.target.labels)


def test_result_folder_says_nothing_of_the_machine(overfitted):
    _, folder, data = overfitted
    output = folder / 'work' / 'output'
    assert sorted(file.name for file in output.iterdir()) == ['configuration.json', 'model.safetensors']
    text = (output / 'configuration.json').read_text(encoding='utf-8')
    assert str(folder) not in text and 'work_dir' not in text
    saved = json.loads(text)
    assert saved['model']['classes'] == data.classes
    assert saved['model']['decoder']['num_classes'] == 2
    assert saved['model']['pretrained'] is True
    assert saved['preprocessor']['min_size'] == 96
    assert 'dataset' not in saved


def test_result_folder_holds_the_best_averaged_weights(overfitted):
    trainer, folder, data = overfitted
    best = max(line['segm_mAP'] for line in log_lines(folder, 'eval'))
    evaluator = build_trainer('fastinst-trainer', default_args={
        'model': str(folder / 'work' / 'output'), 'work_dir': str(folder / 'other'), 'eval_dataset': data,
        'device': 'cpu'})
    assert evaluator.evaluate()['segm_mAP'] == pytest.approx(best, abs=1e-6)


def test_evaluation_of_a_checkpoint_file(overfitted):
    trainer, folder, data = overfitted
    evaluator = build_trainer('fastinst-trainer', default_args={
        'model': str(folder / 'work' / 'output'), 'work_dir': str(folder / 'other'), 'eval_dataset': data,
        'device': 'cpu'})
    early = evaluator.evaluate(str(folder / 'work' / 'epoch_60.pth'))['segm_mAP']
    late = evaluator.evaluate(str(folder / 'work' / 'epoch_120.pth'))['segm_mAP']
    assert early < late


def test_batches_of_mixed_canvases_evaluate_like_single_images(overfitted, tmp_path):
    _, folder, data = overfitted
    values = []
    for batch_size in (1, 3):
        trainer = build_trainer('fastinst-trainer', default_args={
            'model': str(folder / 'work' / 'output'), 'work_dir': str(tmp_path), 'device': 'cpu',
            'eval_dataset': [shapes(2, size=(96, 96)), shapes(2, size=(96, 64), seed=4), shapes(2, size=(60, 96))],
            'preprocessor': lambda sample: sample,
            'cfg_options': {'evaluation.dataloader.batch_size_per_gpu': batch_size}})
        values.append(trainer.evaluate())
    assert values[0] == pytest.approx(values[1], abs=1e-6)


def test_finetuning_for_other_classes_keeps_everything_else(overfitted, tmp_path):
    _, folder, _ = overfitted
    data = shapes(num_classes=3, size=96)
    trainer = build_trainer('fastinst-trainer', default_args={
        'model': str(folder / 'work' / 'output'), 'work_dir': str(tmp_path), 'train_dataset': data, 'device': 'cpu',
        'cfg_modify_fn': lambda cfg: cfg.merge_from_dict({'train.max_epochs': 1}) or cfg})
    pretrained = overfitted_weights(folder)
    changed = {name for name, tensor in weights(trainer).items() if not torch.equal(tensor, pretrained[name])}
    assert changed and all('class' in name or 'cls' in name for name in changed)
    trainer.train()
    saved = json.loads((tmp_path / 'output' / 'configuration.json').read_text(encoding='utf-8'))
    assert saved['model']['classes'] == data.classes
    assert saved['model']['decoder']['num_classes'] == 3
    pipeline('image-segmentation', model=str(tmp_path / 'output'), device='cpu')(np.zeros((96, 96, 3), np.uint8))


@pytest.mark.parametrize('recipe', [pytest.param(False, id='its own configuration'),
                                    pytest.param(True, id='a recipe beside the model')])
@pytest.mark.parametrize('count', [pytest.param(2, id='as many'), pytest.param(3, id='another number')])
def test_classes_of_other_names_start_anew(overfitted, tmp_path, recipe, count):
    _, folder, _ = overfitted
    data = shapes(2, num_classes=count, size=96)
    data.classes = ['square', 'disc', 'star'][:count]
    arguments = {'model': str(folder / 'work' / 'output'), 'work_dir': str(tmp_path), 'train_dataset': data,
                 'device': 'cpu'}
    if recipe:
        changes = {'model.classes': data.classes, 'model.decoder.num_classes': count}
        arguments['cfg_file'] = write_configuration(tmp_path / 'recipe', {**changes, 'model.pretrained': None})
    trainer = build_trainer('fastinst-trainer', default_args=arguments)
    assert trainer.model_classes == data.classes
    pretrained = overfitted_weights(folder)
    changed = {name for name, tensor in weights(trainer).items() if not torch.equal(tensor, pretrained[name])}
    assert len(changed) == 6 and all('class' in name or 'cls' in name for name in changed)


def test_a_terminal_sees_a_bar_and_the_log_stays(tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, 'stderr', terminal)
    trainer_for(tmp_path, {'train.max_epochs': 2}).train()
    shown = terminal.getvalue()
    for part in ('epoch 1/2', 'epoch 2/2', '2/2', 'loss=', 'lr=', 'eta=', 'mem='):
        assert part in shown
    assert [line['iter'] for line in log_lines(tmp_path)] == [1, 2, 3, 4]


def overfitted_weights(folder):
    from safetensors.torch import load_file
    return load_file(folder / 'work' / 'output' / 'model.safetensors')


def test_finetuning_with_the_same_classes_starts_from_all_weights(overfitted, tmp_path):
    _, folder, data = overfitted
    trainer = build_trainer('fastinst-trainer', default_args={
        'model': str(folder / 'work' / 'output'), 'work_dir': str(tmp_path), 'train_dataset': data, 'device': 'cpu'})
    assert_equal_weights(weights(trainer), {name: overfitted_weights(folder)[name] for name in weights(trainer)})


def test_missing_weights_are_an_error_not_random_numbers(overfitted, tmp_path):
    _, folder, data = overfitted
    text = (folder / 'work' / 'output' / 'configuration.json').read_text(encoding='utf-8')
    (tmp_path / 'configuration.json').write_text(text, encoding='utf-8')
    with pytest.raises(CheckpointError):
        build_trainer('fastinst-trainer', default_args={
            'model': str(tmp_path), 'work_dir': str(tmp_path), 'train_dataset': data, 'device': 'cpu'})


def test_starting_from_a_folder_asks_no_network(overfitted, tmp_path, monkeypatch):
    _, folder, data = overfitted

    def refuse(*args, **kwargs):
        raise AssertionError(f'asked the network for {args}')

    monkeypatch.setattr(socket.socket, 'connect', refuse)
    monkeypatch.setattr(socket, 'getaddrinfo', refuse)
    build_trainer('fastinst-trainer', default_args={
        'model': str(folder / 'work' / 'output'), 'work_dir': str(tmp_path), 'train_dataset': data, 'device': 'cpu'})


def test_model_object_is_trained_as_it_is(overfitted, tmp_path):
    from modelscope.models import Model
    _, folder, data = overfitted
    model = Model.from_pretrained(str(folder / 'work' / 'output'), device='cpu')
    trainer = build_trainer('fastinst-trainer', default_args={
        'model': model, 'work_dir': str(tmp_path), 'train_dataset': data, 'device': 'cpu', 'max_epochs': 1})
    assert trainer.model is model


@pytest.mark.parametrize('changes', [
    pytest.param({'train.amp': 'bf16'}, id='bfloat16'),
    pytest.param({'train.dataloader.workers_per_gpu': 2}, id='two workers'),
    pytest.param({'train.optimizer.options': {'cumulative_iters': 2, 'grad_clip': {'max_norm': 1.0}}},
                 id='accumulated and clipped gradients'),
    pytest.param({'train.lr_scheduler': {'type': 'MultiStepLR', 'milestones': [1], 'options': {'by_epoch': True}}},
                 id='steps by epoch'),
    pytest.param({'model.backbone.norm': 'FrozenBN'}, id='frozen batch norm'),
])
def test_options_train(changes, tmp_path):
    trainer = trainer_for(tmp_path, {**changes, 'train.lr_scheduler.options': changes.get(
        'train.lr_scheduler', {}).get('options', {})}, train_dataset=shapes(6))
    before = weights(trainer)
    trainer.train()
    assert trainer.iter == 6
    assert all(np.isfinite(line['loss']) for line in log_lines(tmp_path))
    assert any(not torch.equal(before[name], tensor) for name, tensor in weights(trainer).items())


def test_accumulated_gradients_step_less_often(tmp_path):
    trainer = trainer_for(tmp_path, {'train.max_epochs': 1, 'train.optimizer.options': {'cumulative_iters': 2}},
                          train_dataset=shapes(10))
    trainer.train()
    # Five iterations: after the second and the fourth, and at the end of the epoch.
    assert trainer.optimizer.state_dict()['state'][0]['step'] == 3


def test_loss_that_is_not_finite_is_skipped_and_named(tmp_path, caplog):
    trainer = trainer_for(tmp_path, {'train.max_epochs': 1})
    original = trainer.model.forward
    calls = []

    def broken_at_first(**batch):
        calls.append(1)
        output = original(**batch)
        return output if len(calls) > 1 else {'loss': output['loss'] * torch.nan, 'log_vars': {'loss': float('nan')}}

    trainer.model.forward = broken_at_first
    trainer.logger.addHandler(caplog.handler)
    try:
        trainer.train()
    finally:
        trainer.logger.removeHandler(caplog.handler)
    assert 'the loss of iteration 1 is nan' in caplog.text and '.png' in caplog.text
    assert all(torch.isfinite(tensor).all() for tensor in weights(trainer).values())


def test_losses_that_are_never_finite_stop_the_training(tmp_path):
    trainer = trainer_for(tmp_path, {'train.max_epochs': 9, 'train.optimizer.options': {'max_bad_steps': 3}})
    trainer.model.forward = lambda **batch: {'loss': torch.tensor(torch.nan, requires_grad=True),
                                             'log_vars': {'loss': float('nan')}}
    with pytest.raises(FloatingPointError, match='3 such iterations in a row'):
        trainer.train()


def test_training_needs_a_training_set(tmp_path):
    trainer = trainer_for(tmp_path, {'model.classes': ['ellipse', 'rectangle']}, train_dataset=None,
                          eval_dataset=shapes())
    with pytest.raises(ConfigurationError, match='no training set'):
        trainer.train()
    assert 'segm_mAP' in trainer.evaluate()


@pytest.mark.slow
def test_fine_tuning_on_real_polygons(shared_data, overfitted, tmp_path):
    """Dates, figs and hazelnuts: three new classes; the loss falls and AP is given by class."""
    nuts = {'annotation_file': str(shared_data / 'nuts' / 'trainval.json'),
            'image_dir': str(shared_data / 'nuts' / 'images')}
    trainer = build_trainer('fastinst-trainer', default_args={
        'model': str(overfitted[1] / 'work' / 'output'), 'work_dir': str(tmp_path / 'work'), 'train_dataset': nuts,
        'eval_dataset': nuts, 'device': 'cpu', 'cfg_options': {
            'preprocessor.min_size': 192, 'preprocessor.max_size': 256, 'preprocessor.train.min_sizes': [192],
            'preprocessor.train.max_size': 256, 'train.max_epochs': 15, 'train.logging.interval': 5,
            'train.dataloader.batch_size_per_gpu': 4, 'evaluation.period.interval': 15}})
    trainer.train()
    lines = log_lines(tmp_path)
    assert lines[-1]['loss'] < 0.8 * lines[0]['loss']
    assert {f'segm_AP/{name}' for name in trainer.model_classes} <= set(trainer.metric_values)
    assert len(trainer.model_classes) == 3
    image = next((shared_data / 'nuts' / 'images').iterdir())
    found = pipeline('image-segmentation', model=str(tmp_path / 'work' / 'output'), device='cpu')(str(image))
    assert set(found['labels']) <= set(trainer.model_classes)


def test_every_epoch_draws_in_another_order_with_other_augmentation(tmp_path):
    drawn = []

    def watch(sample):
        drawn.append((sample.image_id, torch.rand(()).item()))
        return sample

    trainer_for(tmp_path, {'train.max_epochs': 3}, preprocessor=watch).train()
    epochs = [drawn[0:4], drawn[4:8], drawn[8:12]]
    assert all(sorted(image for image, _ in epoch) == [1, 2, 3, 4] for epoch in epochs)
    assert len({tuple(image for image, _ in epoch) for epoch in epochs}) > 1
    assert len({number for _, number in drawn}) == 12
