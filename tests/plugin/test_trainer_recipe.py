"""The paper's training recipe, as the configurations of the published models say it and the trainer takes it."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
from modelscope.trainers.hooks.hook import Hook

from modelscope_fastinst import zoo
from modelscope_fastinst.cli import main
from modelscope_fastinst.data.augment import RECIPE_CROP, RECIPE_SIZES
from modelscope_fastinst.plugin.dataset import build_transforms, open_dataset
from modelscope_fastinst.plugin.optimize_hook import OptimizeHook
from modelscope_fastinst.plugin.optimizer import lr_factor
from modelscope_fastinst.plugin.trainer_keys import check_keys

from .trainer_runs import shapes, trainer_for

ALL = pytest.mark.parametrize('name', zoo.NAMES)


def recipe(name):
    return zoo.configuration(name)


@ALL
def test_length_batch_and_precision(name):
    cfg = recipe(name)
    check_keys(cfg, name)
    assert cfg['train']['max_iters'] == 368750 and 'max_epochs' not in cfg['train']
    assert cfg['train']['dataloader']['batch_size_per_gpu'] == 16
    assert cfg['train']['batch_scaling'] == {'base_batch_size': 16}
    assert cfg['train']['dataloader']['aspect_ratio_grouping'] is True
    assert cfg['train']['amp'] == 'fp16'
    assert 'ema' not in cfg['train']
    assert OptimizeHook(**cfg['train']['optimizer'].get('options', {})).grad_clip is None
    assert cfg['evaluation']['period'] == {'interval': 5000, 'by_epoch': False}


@ALL
def test_learning_rate_has_no_warm_up_and_falls_twice(name):
    factor = lr_factor(recipe(name)['train']['lr_scheduler'], 368750, iters_per_epoch=7329)
    assert [factor(done) for done in (0, 1, 10, 327777, 327778, 355091, 355092, 368749)] == pytest.approx(
        [1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])


@ALL
def test_augmentation(name):
    train, val = build_transforms(recipe(name)['preprocessor'])
    assert train.min_sizes == tuple(range(416, 641, 32)) == RECIPE_SIZES
    assert (train.max_size, train.flip, train.drop_empty, train.window) == (853, 0.5, False, None)
    assert (train.vertical_flip, train.rotate, any(train.color.values())) == (0, 0, False)
    assert train.crop == {'probability': 0.5, 'min_sizes': (400, 500, 600), 'size_range': (384, 600)} == RECIPE_CROP
    assert (val.min_size, val.max_size) == ((576, 777) if '_d1_' in name else (640, 853))


@ALL
def test_imagenet_weights_are_of_that_backbone(name):
    source = recipe(name)['train']['backbone_weights']
    assert source.rpartition('/')[2] == ('resnet50d_ra2-464e36ba.pth' if 'dcn' in name else
                                         f'ResNet{recipe(name)["model"]["backbone"]["depth"]}_Weights.IMAGENET1K_V1')


def write_coco_of_80_classes(folder):
    """Two images with objects of the first of COCO's classes."""
    file, images = shapes(2, size=160).write_coco(folder / 'data')
    content = json.loads(Path(file).read_text('utf-8'))
    content['categories'] = [{'id': number, 'name': name} for number, name in
                             enumerate(recipe('fastinst_d1_r50')['model']['classes'], 1)]
    Path(file).write_text(json.dumps(content), 'utf-8')
    return file, images


def test_training_images_have_objects_that_are_no_crowds(tmp_path):
    """Images without annotation, or with crowds only, are left out; so are crowds among other objects."""
    file, images = shapes(3).write_coco(tmp_path)
    content = json.loads(Path(file).read_text('utf-8'))
    first, second, third = (image['id'] for image in content['images'])
    content['annotations'] = [{**annotation, 'iscrowd': int(annotation['image_id'] == second)}
                              for annotation in content['annotations'] if annotation['image_id'] != third]
    of_first = [annotation for annotation in content['annotations'] if annotation['image_id'] == first]
    of_first[0]['iscrowd'] = 1
    Path(file).write_text(json.dumps(content), 'utf-8')
    data = open_dataset({'annotation_file': file, 'image_dir': images}, None, 'train', None, None)
    assert [sample.image_id for sample in data] == [first]
    assert len(data[0].target) == len(of_first) - 1


def test_objects_emptied_by_the_crop_stay(tmp_path):
    train, _ = build_transforms({'train': {'min_sizes': [64], 'crop': None, 'window': 16, 'flip': 0}})
    data = open_dataset(shapes(8, objects=(3, 3)), None, 'train', train, None)
    targets = [data[index].target for index in range(8)]
    assert any(not mask.any() for target in targets for mask in target.masks)
    assert [len(target) for target in targets] == [len(sample.target) for sample in shapes(8, objects=(3, 3))]


def test_the_trainer_takes_all_of_it(tmp_path):
    """A published recipe around a thin network: what remains to be changed is its size and what a CPU cannot do."""
    train = {**recipe('fastinst_d1_r50')['train'], 'max_iters': 3, 'amp': 'bf16', 'backbone_weights': 'none'}
    train['dataloader'] = {**train['dataloader'], 'batch_size_per_gpu': 2, 'workers_per_gpu': 0}
    train['lr_scheduler'] = {**train['lr_scheduler'], 'milestones': [1, 2]}
    train['batch_scaling'] = {'base_batch_size': 2}
    seen = []

    class Watch(Hook):
        def after_train_iter(self, trainer):
            sizes = {width > height for height, width in (s.original_size for s in trainer.data_batch['samples'])}
            seen.append((len(trainer.data_batch['samples']), len(sizes), trainer.optimizer.param_groups[0]['lr']))

    trainer = trainer_for(tmp_path, {'train': train}, callbacks=[Watch()],
                          train_dataset=[shapes(3, size=(64, 96)), shapes(3, size=(96, 64), seed=5)])
    trainer.train()
    assert trainer.iter == 3
    assert [batch[:2] for batch in seen] == [(2, 1)] * 3
    assert sorted({group['lr'] for group in trainer.optimizer.param_groups}) == pytest.approx([1e-7, 1e-6])


def test_from_the_command_line(tmp_path, capsys):
    """``--backbone`` takes the place of the recipe's weights; a published model's name stands for its file."""
    file, images = write_coco_of_80_classes(tmp_path)
    words = ['train', '--train-annotations', file, '--train-images', images, '--work-dir', str(tmp_path / 'work'),
             '--device', 'cpu', '--set', 'evaluation.period=null', '--set', 'train.amp=null']
    assert main([*words, '--config', 'fastinst_d1_r50', '--backbone', 'nowhere.pth']) == 1
    assert "'nowhere.pth': no such file" in capsys.readouterr().err
    assert main([*words, '--config', 'fastinst_d9_r50']) == 1
    assert 'no such configuration file, nor one of fastinst_d1_r50, ' in capsys.readouterr().err


def test_a_published_recipe_takes_the_classes_of_the_data(tmp_path):
    data = shapes(2)
    file, images = data.write_coco(tmp_path / 'data')
    settings = {'train.amp': None, 'train.max_iters': 1, 'train.dataloader.batch_size_per_gpu': 1,
                'train.dataloader.workers_per_gpu': 0, 'evaluation.period': None, 'preprocessor.train.crop': None,
                'preprocessor.train.min_sizes': [64],
                'model.backbone': {'depth': 18, 'stem_out_channels': 8, 'res2_out_channels': 8}}
    assert main(['train', '--config', 'fastinst_d1_r50', '--train-annotations', str(file), '--train-images',
                 str(images), '--backbone', 'none', '--work-dir', str(tmp_path / 'work'), '--device', 'cpu',
                 *(word for key, value in settings.items() for word in ('--set', f'{key}={json.dumps(value)}'))]) == 0
    written = json.loads((tmp_path / 'work' / 'output' / 'configuration.json').read_text('utf-8'))
    assert written['model']['classes'] == data.classes
    assert written['model']['decoder']['num_classes'] == len(data.classes)


@pytest.mark.slow
def test_the_reproduction_command(tmp_path, capsys):
    """One iteration of the largest published model from ImageNet weights as timm has them."""
    import timm
    import torch
    torch.save(timm.create_model('resnet50d').state_dict(), tmp_path / 'resnet50d.pth')
    file, images = write_coco_of_80_classes(tmp_path)
    assert main(['train', '--config', 'fastinst_d3_r50d_dcn', '--train-annotations', file, '--train-images', images,
                 '--backbone', str(tmp_path / 'resnet50d.pth'), '--work-dir', str(tmp_path / 'work'),
                 '--device', 'cpu', '--set', 'train.max_iters=1', '--set', 'train.amp=null',
                 '--set', 'evaluation.period=null', '--set', 'train.dataloader.batch_size_per_gpu=1',
                 '--set', 'train.dataloader.workers_per_gpu=0', '--set', 'preprocessor.train.min_sizes=[160]']) == 0
    assert 'the trained model' in capsys.readouterr().out
