"""A wrong configuration ends before anything is computed, with a message that says what to mend."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from modelscope.metrics.base import Metric
from modelscope.metrics.builder import METRICS
from modelscope.trainers import build_trainer
from modelscope.utils.config import Config

from modelscope_fastinst.plugin.trainer_config import check_values, hook_settings, portable, settle_classes
from modelscope_fastinst.plugin.trainer_keys import ConfigurationError, check_keys, check_names

from .trainer_runs import configuration, shapes, trainer_for, write_configuration


@pytest.mark.parametrize(('changes', 'message'), [
    pytest.param({'train.max_epoch': 3}, "train has the unknown key 'max_epoch'; did you mean 'max_epochs'",
                 id='train'),
    pytest.param({'train.backbone_weight': 'x.pth'}, "did you mean 'backbone_weights'", id='backbone'),
    pytest.param({'train.max_iter': 3}, "did you mean 'max_iters'", id='iterations'),
    pytest.param({'evaluation.dataloader.aspect_ratio_grouping': True},
                 "evaluation.dataloader has the unknown key 'aspect_ratio_grouping'", id='grouping of an evaluation'),
    pytest.param({'train.dataloader.batch_size': 3}, "unknown key 'batch_size'; did you mean 'batch_size_per_gpu'",
                 id='data loader'),
    pytest.param({'train.optimizer.learning_rate': 1}, "train.optimizer has the unknown key 'learning_rate'",
                 id='optimiser'),
    pytest.param({'train.optimizer.type': 'AdamX'}, "train.optimizer.type is 'AdamX'", id='no such optimiser'),
    pytest.param({'train.lr_scheduler.milestone': [1]}, "did you mean 'milestones'", id='schedule'),
    pytest.param({'train.checkpoint.perod': {}}, "did you mean 'period'", id='checkpoint'),
    pytest.param({'train.ema': {'momentum': 0.1}}, "train.ema has the unknown key 'momentum'; known are decay",
                 id='averages'),
    pytest.param({'model.decodr': {}}, "model has the unknown key 'decodr'; did you mean 'decoder'", id='model'),
    pytest.param({'model.decoder.num_query': 3}, 'num_query', id='decoder'),
    pytest.param({'preprocessor.min_sizes': 3}, "did you mean 'min_size'", id='preprocessor'),
    pytest.param({'preprocessor.train.flipp': 3}, "preprocessor.train has the unknown key 'flipp'; did you mean 'flip'",
                 id='augmentation'),
    pytest.param({'preprocessor.train.flip': 3}, 'flip is a probability', id='augmentation out of range'),
    pytest.param({'preprocessor.min_size': 0}, 'min_size must be a whole number', id='size out of range'),
    pytest.param({'evaluation.metric': 'x'}, "did you mean 'metrics'", id='evaluation'),
    pytest.param({'evalution': {}}, "unknown section 'evalution'; did you mean 'evaluation'", id='section'),
    pytest.param({'train.dataloader': 3}, 'train.dataloader must be a section; got 3', id='section that is a number'),
    pytest.param({'train.amp': 'bf32'}, "train.amp is 'bf32'; known are bf16, fp16", id='precision'),
    pytest.param({'train.amp': 'fp16'}, 'on a CPU train with "bf16"', id='half precision on a CPU'),
    pytest.param({'train.max_epochs': 0}, 'train.max_epochs must be a whole number of at least 1; got 0',
                 id='no epochs'),
    pytest.param({'train.dataloader.batch_size_per_gpu': 2.5}, 'batch_size_per_gpu must be a whole number',
                 id='half an image'),
    pytest.param({'evaluation.period': {'interval': 1}}, 'there is no evaluation set', id='evaluation without a set'),
    pytest.param({'train.checkpoint.best': {'metric_key': 'segm_mAP'}}, 'nothing is evaluated',
                 id='best without evaluation'),
    pytest.param({'train.checkpoint.best': {'rule': 'max'}}, 'needs a metric_key', id='best of what'),
    pytest.param({'train.checkpoint.best': {'metric_key': 'segm_mAP', 'rule': 'highest'}}, 'must be "max" or "min"',
                 id='best by which rule'),
    pytest.param({'train.checkpoint.best': {'metric_key': 'segm_map'}, 'evaluation.period': {'interval': 1}},
                 "metric_key is 'segm_map', which fastinst-coco-metric does not give; did you mean 'segm_mAP'",
                 id='best by a value that is not measured'),
    pytest.param({'train.lr_scheduler': {'type': 'MultiStepLR', 'milestones': [8, 11]}},
                 'may be epochs or iterations: add "options"', id='milestones that count nobody knows what'),
    pytest.param({'train.optimizer.lr': '1e-4'}, "train.optimizer.lr must be a number of at least 0; got '1e-4'",
                 id='learning rate as text'),
    pytest.param({'train.optimizer.lr': -1}, 'train.optimizer.lr must be a number of at least 0; got -1',
                 id='negative learning rate'),
    pytest.param({'evaluation.metrics': ['coco']}, "evaluation.metrics: 'coco'", id='no such metric'),
    pytest.param({'evaluation.metrics': {'type': 'fastinst-coco-metric', 'max_instance': 9}},
                 "no setting 'max_instance'", id='setting of a metric'),
    pytest.param({'dataset': {'valid': {}}}, "dataset has the unknown key 'valid'; did you mean 'val'", id='data'),
    pytest.param({'model.decoder.num_classes': 7}, 'num_classes is 7, but there are 2 classes', id='class count'),
    pytest.param({'model.classes': ['cat']}, r"model.classes are \['cat'\], but the training set has \['ellipse'",
                 id='class names'),
    pytest.param({'model': None}, 'no model section', id='no model'),
])
def test_wrong_configuration(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        trainer_for(tmp_path, changes)


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
@pytest.mark.parametrize('arguments', [
    pytest.param({'changes': {'train.amp': 'fp16'}}, id='configured'),
    pytest.param({'use_fp16': True}, id='asked for'),
])
def test_half_precision_without_a_gpu_is_refused_before_anything_is_written(arguments, tmp_path):
    (tmp_path / 'run').mkdir()
    with pytest.raises(ConfigurationError, match='train.amp=bf16'):
        trainer_for(tmp_path / 'run', arguments.get('changes'), **{key: value for key, value in arguments.items()
                                                                   if key != 'changes'})
    assert not [file for file in (tmp_path / 'run').rglob('*') if file.name != 'configuration.json']


@pytest.mark.parametrize(('arguments', 'error', 'message'), [
    pytest.param({'train_dataset': None}, ConfigurationError, 'no training set', id='no data at all'),
    pytest.param({'evl_dataset': 3}, ConfigurationError, "unknown key 'evl_dataset'; did you mean 'eval_dataset'",
                 id='unknown argument'),
    pytest.param({'train_dataset': {'annotation_file': 'nowhere/a.json', 'image_dir': '.'}}, Exception,
                 'nowhere/a.json', id='missing annotation file'),
    pytest.param({'train_dataset': 'nowhere'}, Exception, 'nowhere', id='missing folder'),
    pytest.param({'train_dataset': {'annotation_file': 'a.json'}}, ConfigurationError, 'image_dir',
                 id='no image folder'),
    pytest.param({'train_dataset': {'annotations': 'a.json'}}, ConfigurationError,
                 "train_dataset has the unknown key 'annotations'; did you mean 'annotation_file'",
                 id='unknown data key'),
    pytest.param({'train_dataset': 7}, ConfigurationError, 'train_dataset: cannot use a int',
                 id='data of no known kind'),
    pytest.param({'train_dataset': []}, ConfigurationError, 'empty list', id='no data set in the list'),
    pytest.param({'classes': ['a', 'a']}, ConfigurationError, 'none twice', id='class named twice'),
    pytest.param({'classes': ['a', 'b']}, ConfigurationError, 'but the training set has', id='classes not in the data'),
    pytest.param({'eval_dataset': shapes(2, num_classes=3)}, ConfigurationError, 'the evaluation set has the classes',
                 id='evaluation of other classes'),
    pytest.param({'launcher': 'pytorch'}, ConfigurationError, 'lacks RANK, .*start the script with torchrun',
                 id='a launcher that did not launch it'),
    pytest.param({'cfg_modify_fn': lambda cfg: None}, ConfigurationError, 'must return', id='modification lost'),
])
def test_wrong_arguments(arguments, error, message, tmp_path):
    with pytest.raises(error, match=message):
        trainer_for(tmp_path, **arguments)


def test_neither_model_nor_configuration():
    with pytest.raises(ConfigurationError, match='give model='):
        build_trainer('fastinst-trainer', default_args={'train_dataset': shapes()})


def test_batches_that_nothing_fills(tmp_path):
    trainer = trainer_for(tmp_path, {'train.dataloader': {'batch_size_per_gpu': 9, 'drop_last': True}})
    with pytest.raises(ConfigurationError, match='4 training images make no batch of 9'):
        trainer.train()


@METRICS.register_module(group_key='default', module_name='test-constant-metric', force=True)
class ConstantMetric(Metric):
    def add(self, outputs, inputs):
        pass

    def merge(self, other):
        pass

    def evaluate(self):
        return {'constant': 1.0}


def test_best_by_a_value_that_another_metric_might_give(tmp_path):
    trainer = trainer_for(tmp_path, {'evaluation.period': {'interval': 1}, 'train.max_epochs': 1,
                                     'evaluation.metrics': ['fastinst-coco-metric', 'test-constant-metric'],
                                     'train.checkpoint.best': {'metric_key': 'segm_map'}}, eval_dataset=shapes(1))
    with pytest.raises(ValueError, match=r"'segm_map', which the evaluation does not give; it gives .*'constant'"):
        trainer.train()


def test_dataset_section_of_the_configuration(tmp_path):
    annotation_file, image_dir = shapes(3).write_coco(tmp_path / 'data')
    trainer = trainer_for(tmp_path, {'dataset': {'train': {'annotation_file': annotation_file, 'image_dir': image_dir},
                                                 'val': {'root': str(tmp_path / 'data'), 'split': 'train'}}},
                          train_dataset=None)
    assert (len(trainer.train_dataset), len(trainer.eval_dataset)) == (3, 3)
    assert trainer.model_classes == ['ellipse', 'rectangle']


def test_stock_configuration_gets_the_recipe(tmp_path):
    """A hub model's configuration.json holds nothing of training."""
    cfg = configuration()
    stock = {key: cfg[key] for key in ('framework', 'task', 'pipeline', 'model')}
    (tmp_path / 'configuration.json').write_text(json.dumps(stock), encoding='utf-8')
    trainer = build_trainer('fastinst-trainer', default_args={
        'cfg_file': str(tmp_path / 'configuration.json'), 'work_dir': str(tmp_path / 'work'), 'device': 'cpu',
        'train_dataset': shapes()})
    assert trainer.max_epochs == 50
    assert dict(trainer.cfg.train['optimizer']) == {'type': 'AdamW', 'lr': 1e-4, 'weight_decay': 0.05}
    assert trainer.train_dataset._inner_dataset is not None
    assert trainer.metrics == ['fastinst-coco-metric']


def test_changes_by_function_and_by_options(tmp_path):
    def modify(cfg):
        cfg.train.max_epochs = 7
        return cfg

    trainer = trainer_for(tmp_path, cfg_modify_fn=modify, cfg_options={'train.optimizer.lr': 0.5})
    assert trainer.max_epochs == 7
    assert trainer.cfg.train['optimizer']['lr'] == 0.5
    assert trainer_for(tmp_path, cfg_modify_fn=modify, max_epochs=3).max_epochs == 3


def test_seed_of_the_configuration_decides_the_weights(tmp_path):
    def first_weight(**arguments):
        return next(trainer_for(tmp_path, **arguments).network.parameters()).flatten()[0].item()

    assert first_weight(changes={'train.seed': 5}) == first_weight(seed=5) != first_weight()


def test_configuration_file_is_left_as_it_is(tmp_path):
    file = write_configuration(tmp_path)
    before = Path(file).read_text(encoding='utf-8')
    trainer_for(tmp_path)
    assert Path(file).read_text(encoding='utf-8') == before


@pytest.mark.parametrize(('arguments', 'expected'), [
    pytest.param({'configured': ['a'], 'num_classes': 1, 'data': ['x', 'y'], 'asked_for': None,
                  'replaceable': ['classes', 'decoder.num_classes']}, ['x', 'y'],
                 id="a pretrained model takes the data's"),
    pytest.param({'configured': ['a', 'b'], 'num_classes': 2, 'data': None, 'asked_for': None}, ['a', 'b'],
                 id='data that does not say'),
    pytest.param({'configured': None, 'num_classes': 2, 'data': ['x', 'y'], 'asked_for': None}, ['x', 'y'],
                 id='count that fits'),
    pytest.param({'configured': ['a'], 'num_classes': 1, 'data': ['x', 'y'], 'asked_for': ['x', 'y']}, ['x', 'y'],
                 id='asked for'),
    pytest.param({'configured': ['x', 'y'], 'num_classes': 80, 'data': ['x', 'y'], 'asked_for': None,
                  'replaceable': ['decoder.num_classes']}, ['x', 'y'], id="names given, a pretrained model's count"),
])
def test_classes(arguments, expected):
    assert settle_classes(**arguments) == expected


def test_nothing_says_what_the_classes_are():
    with pytest.raises(ConfigurationError, match='no class names'):
        settle_classes(None, 3, None, asked_for=None)


def test_portable_configuration_has_no_paths():
    checkpoint = {'period': {'save_dir': 'x', 'interval': 1}}
    assert portable({'train': {'work_dir': 'w', 'max_epochs': 2, 'checkpoint': checkpoint},
                     'dataset': {'train': {}}, 'evaluation': {'cache': '/somewhere', 'metrics': ['m']}}) == {
        'train': {'max_epochs': 2, 'checkpoint': {'period': {'interval': 1}}}, 'evaluation': {'metrics': ['m']}}


def test_hooks_of_the_library_become_settings_and_others_stay():
    own, rest = hook_settings([{'type': 'CheckpointHook', 'interval': 3, 'save_strategy': 'by_step', 'save_dir': 'x'},
                               {'type': 'TextLoggerHook', 'interval': 7}, {'type': 'IterTimerHook'},
                               {'type': 'EarlyStopHook', 'metric_key': 'segm_mAP'}])
    assert own == {'checkpoint': {'interval': 3, 'by_epoch': False}, 'progress': {'interval': 7}}
    assert rest == [{'type': 'EarlyStopHook', 'metric_key': 'segm_mAP'}]


def test_name_without_a_near_one_lists_what_is_known():
    with pytest.raises(ConfigurationError, match='known are left, right'):
        check_names(['up'], ['right', 'left'], 'here')


@pytest.mark.parametrize('file', [pytest.param(file, id=file.stem)
                                  for file in sorted((Path(__file__).parents[2] / 'configs').glob('*.json'))])
def test_committed_configurations_have_no_unknown_keys(file):
    cfg = json.loads(file.read_text(encoding='utf-8'))
    check_keys(cfg, file.name)
    check_values(Config(cfg), has_train=True, has_eval=True, file=file.name)
