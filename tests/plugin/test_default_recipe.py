"""What a training does whose configuration has no recipe: fine-tuning on a few hundred images."""
from __future__ import annotations

import pytest
from modelscope.utils.config import Config

from modelscope_fastinst.plugin.default_recipe import DEFAULT_TRAIN, with_defaults
from modelscope_fastinst.plugin.optimizer import lr_factor

from .trainer_runs import log_lines, shapes, trainer_for


def completed(cfg, *data):
    cfg = Config(cfg)
    with_defaults(cfg, *data)
    return cfg._cfg_dict.to_dict()


def test_with_a_validation_set_the_best_of_all_epochs_is_kept():
    cfg = completed({}, 'train', 'val')
    assert {key: cfg['train'][key] for key in DEFAULT_TRAIN} == DEFAULT_TRAIN
    assert cfg['train']['checkpoint'] == {'best': {'metric_key': 'segm_mAP', 'rule': 'max'}}
    assert cfg['evaluation']['period'] == {'interval': 1}


@pytest.mark.parametrize('data', [pytest.param(('train', None), id='none to validate'),
                                  pytest.param((None, 'val'), id='nothing to train')])
def test_without_one_nothing_is_evaluated(data):
    cfg = completed({}, *data)
    assert 'period' not in cfg['evaluation'] and 'checkpoint' not in cfg['train']


def test_data_of_the_configuration_counts_as_well():
    assert completed({'dataset': {'train': {'root': 'a'}, 'val': {'root': 'a'}}})['evaluation']['period']


@pytest.mark.parametrize(('cfg', 'best'), [
    pytest.param({'evaluation': {'period': None}}, False, id='no evaluation wanted'),
    pytest.param({'evaluation': {'metrics': ['their-own']}}, False, id='other metrics'),
    pytest.param({'train': {'checkpoint': {'period': {'interval': 5}}}}, True, id='another period of saving')])
def test_what_is_said_stays(cfg, best):
    done = completed(cfg, 'train', 'val')
    assert ('best' in done['train'].get('checkpoint', {})) == best
    for section in cfg:
        for key, value in cfg[section].items():
            found = done[section].get(key)
            assert found == value or found == {'best': {'metric_key': 'segm_mAP', 'rule': 'max'}, **value}


@pytest.mark.parametrize('train', [
    pytest.param({'max_epochs': 3, 'optimizer': {'type': 'SGD', 'lr': 0.1}}, id='an optimiser'),
    pytest.param({'max_epochs': 3, 'lr_scheduler': {'type': 'ConstantLR'}}, id='a schedule')])
def test_a_recipe_of_its_own_gets_nothing_of_this(train):
    cfg = completed({'train': train}, 'train', 'val')
    assert 'ema' not in cfg['train'] and 'checkpoint' not in cfg['train'] and 'period' not in cfg['evaluation']
    assert {key: cfg['train'][key] for key in train} == train


def test_one_epoch_of_fifty_warms_up():
    factor = lr_factor(DEFAULT_TRAIN['lr_scheduler'], 3750, 75)   # 300 images in batches of 4
    assert [factor(done) for done in (0, 75, 3332, 3334, 3612)] == pytest.approx([0.01, 1, 1, 0.1, 0.01])


def test_the_defaults_are_not_shared():
    cfg = completed({}, 'train', 'val')
    cfg['train']['lr_scheduler']['milestones'].append(1)
    assert len(DEFAULT_TRAIN['lr_scheduler']['milestones']) == 2


def test_a_training_with_it(tmp_path):
    trainer = trainer_for(tmp_path, {'train': {'max_epochs': 2}}, train_dataset=shapes(6), eval_dataset=shapes(2))
    trainer.train()
    assert [line['epoch'] for line in log_lines(tmp_path, 'eval')] == [1, 2]
    assert trainer.ema.decay == 0.999 and trainer.checkpoint_hook.best_score is not None
    assert len(trainer.train_dataloader) == 2
