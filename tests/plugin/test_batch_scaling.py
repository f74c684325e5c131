"""``train.batch_scaling``: a recipe trained with another batch size sees as many images."""
from __future__ import annotations

import json

import pytest
from modelscope.utils.config import Config
from modelscope.utils.logger import get_logger

from modelscope_fastinst import zoo
from modelscope_fastinst.plugin.batch_scaling import scale_to_batch
from modelscope_fastinst.plugin.trainer_keys import ConfigurationError, check_keys, section_at

from .trainer_runs import log_lines, shapes, trainer_for

RECIPE = {
    'max_iters': 1000, 'dataloader': {'batch_size_per_gpu': 16}, 'optimizer': {'type': 'AdamW', 'lr': 1e-4},
    'lr_scheduler': {'type': 'MultiStepLR', 'milestones': [800, 900],
                     'options': {'by_epoch': False, 'warmup': {'warmup_iters': 50, 'warmup_ratio': 0.1}}},
    'checkpoint': {'period': {'interval': 100, 'by_epoch': False}}, 'ema': {'decay': 0.99},
    'batch_scaling': {'base_batch_size': 16}}
EVALUATION = {'period': {'interval': 200, 'by_epoch': False, 'start_idx': 400}}
LENGTHS = ('train.max_iters', 'train.lr_scheduler.milestones', 'train.lr_scheduler.options.warmup.warmup_iters',
           'train.checkpoint.period.interval', 'evaluation.period.interval', 'evaluation.period.start_idx')


def scaled(changes=None, processes=1, asked=None, **train):
    """The values after scaling, and the line that says so. ``asked``: what the caller set."""
    before = Config({'train': {**json.loads(json.dumps(RECIPE)), **train}, 'evaluation': EVALUATION})
    cfg = Config({'train': {**json.loads(json.dumps(RECIPE)), **train}, 'evaluation': EVALUATION})
    for options in (changes or {}, asked or {}):
        cfg.merge_from_dict(options)
    line = scale_to_batch(cfg, before, asked or (), processes, 'recipe.json')
    return {path: section_at(cfg._cfg_dict.to_dict(), path) for path in
            ('train.optimizer.lr', 'train.ema.decay', 'train.batch_scaling', *LENGTHS)}, line


@pytest.mark.parametrize(('batch', 'processes', 'gathered', 'rate', 'times'), [
    pytest.param(16, 1, 1, 1e-4, 1, id='as written'), pytest.param(4, 1, 1, 2.5e-5, 4, id='a quarter'),
    pytest.param(4, 4, 1, 1e-4, 1, id='four processes'), pytest.param(16, 4, 1, 4e-4, 0.25, id='four times as many'),
    pytest.param(4, 1, 4, 1e-4, 4, id='gathered from small iterations'),
    pytest.param(2, 2, 2, 5e-5, 4, id='all of these'),
])
def test_rate_and_lengths(batch, processes, gathered, rate, times):
    values, line = scaled({'train.dataloader.batch_size_per_gpu': batch,
                           'train.optimizer.options': {'cumulative_iters': gathered}}, processes)
    total = batch * processes * gathered
    assert values['train.optimizer.lr'] == rate
    assert values['train.ema.decay'] == pytest.approx(0.99 ** (total / 16))
    assert [values[path] for path in LENGTHS] == [
        1000 * times, [800 * times, 900 * times], int(50 * times + 0.5), 100 * times, 200 * times, 400 * times]
    assert line.startswith(f'train.batch_scaling: {total} images a step (batch {batch}, processes {processes}, '
                           f'iterations {gathered}) instead of 16: ')
    assert ('nothing changes' in line) == (times == 1)
    assert ('train.max_iters 1000 -> ' in line) == (times != 1) and '\n' not in line


def test_epochs_and_shares_stay_as_they_are():
    values, line = scaled({}, dataloader={'batch_size_per_gpu': 4}, max_iters=None, max_epochs=12,
                          lr_scheduler={'type': 'MultiStepLR', 'milestones': [8, 11], 'options': {'by_epoch': True}},
                          checkpoint={'period': {'interval': 2}})
    assert values['train.lr_scheduler.milestones'] == [8, 11] and values['train.checkpoint.period.interval'] == 2
    assert values['train.optimizer.lr'] == 2.5e-5
    values, _ = scaled({}, dataloader={'batch_size_per_gpu': 4}, lr_scheduler={
        'type': 'MultiStepLR', 'milestones': [0.8, 0.9], 'options': {'by_epoch': False, 'warmup': {
            'warmup_iters': 0.02}}})
    assert values['train.lr_scheduler.milestones'] == [0.8, 0.9]
    assert values['train.lr_scheduler.options.warmup.warmup_iters'] == 0.02


def test_what_the_caller_sets_stays():
    values, line = scaled(asked={'train.dataloader.batch_size_per_gpu': 4, 'train.max_iters': 1000},
                          changes={'train.optimizer.lr': 3e-4})
    assert values['train.max_iters'] == 1000   # asked for, although it is the recipe's own number
    assert values['train.optimizer.lr'] == 3e-4
    assert values['train.lr_scheduler.milestones'] == [3200, 3600]
    assert line.endswith('; as the caller set them: train.optimizer.lr 0.0003, train.max_iters 1000')


@pytest.mark.parametrize(('batch', 'gathered'), [(4, 1), (4, 2)])
def test_what_is_written_scales_rightly_again(batch, gathered):
    """The output's configuration, trained as the recipe was written, is the recipe."""
    values, _ = scaled(dataloader={'batch_size_per_gpu': batch}, optimizer={
        'type': 'AdamW', 'lr': 1e-4, 'options': {'cumulative_iters': gathered}})
    assert values['train.batch_scaling']['base_batch_size'] == batch * gathered
    again = {**RECIPE, 'max_iters': values['train.max_iters'], 'batch_scaling': values['train.batch_scaling'],
             'optimizer': {'type': 'AdamW', 'lr': values['train.optimizer.lr']}}
    back, _ = scaled(**again)
    assert back['train.max_iters'] == 1000 and back['train.optimizer.lr'] == pytest.approx(1e-4)
    assert back['train.batch_scaling'] == {'base_batch_size': 16}


def test_off_by_default():
    values, line = scaled(batch_scaling=None, dataloader={'batch_size_per_gpu': 4})
    assert line is None and values['train.max_iters'] == 1000 and values['train.optimizer.lr'] == 1e-4


@pytest.mark.parametrize(('settings', 'message'), [
    pytest.param({'base': 16}, 'must be {"base_batch_size": N}', id='no size'),
    pytest.param(16, 'must be {"base_batch_size": N}', id='a number'),
    pytest.param({'base_batch_size': 0}, 'base_batch_size must be a whole number of at least 1; got 0', id='zero'),
    pytest.param({'base_batch_size': 16, 'images_per_iteration': 1.5}, 'images_per_iteration must be a whole number',
                 id='half an image'),
])
def test_wrong_settings(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        scaled(batch_scaling=settings)


@pytest.mark.parametrize('name', zoo.NAMES)
def test_the_published_recipes_are_scaled(name):
    """On one GPU with batches of 4: the paper's 5.9 million images."""
    before, cfg = Config(zoo.configuration(name)), Config(zoo.configuration(name))
    cfg.merge_from_dict({'train.dataloader.batch_size_per_gpu': 4})
    line = scale_to_batch(cfg, before, ['train.dataloader.batch_size_per_gpu'], 1, name)
    assert cfg.train.max_iters * 4 == 368750 * 16 and cfg.train.optimizer.lr == 2.5e-5
    assert cfg.train.lr_scheduler.milestones == [1311112, 1420368]
    assert cfg.evaluation.period.interval == cfg.train.checkpoint.period.interval == 20000
    assert 'train.max_iters 368750 -> 1475000' in line
    check_keys(cfg._cfg_dict.to_dict(), name)


def test_a_training_with_it(tmp_path, caplog):
    get_logger().addHandler(caplog.handler)
    trainer = trainer_for(tmp_path, {'train.max_epochs': None, 'train.max_iters': 2,
                                     'train.batch_scaling': {'base_batch_size': 4},
                                     'train.lr_scheduler': {'type': 'ConstantLR'}}, train_dataset=shapes(4))
    get_logger().removeHandler(caplog.handler)
    trainer.train()
    assert trainer.iter == 4
    assert [line['lr'] for line in log_lines(tmp_path)] == pytest.approx([1e-3] * 4)
    lines = {record.getMessage() for record in caplog.records if 'batch_scaling' in record.getMessage()}
    assert lines == {'train.batch_scaling: 2 images a step (batch 2, processes 1, iterations 1) instead of 4: '
                     'train.optimizer.lr 0.002 -> 0.001, train.max_iters 2 -> 4'}
    written = json.loads((tmp_path / 'work' / 'output' / 'configuration.json').read_text('utf-8'))['train']
    assert (written['max_iters'], written['batch_scaling']) == (4, {'base_batch_size': 2})
