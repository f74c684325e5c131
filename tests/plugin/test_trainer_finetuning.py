"""Fine-tuning a model of COCO's 80 classes for others: only tensors that depend on the classes are new."""
from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from modelscope.pipelines import pipeline
from modelscope.trainers import build_trainer

from modelscope_fastinst import zoo
from modelscope_fastinst.checkpoints import read_state_dict, save_weights
from modelscope_fastinst.models.fastinst import build_fastinst
from tests.golden_cases import load
from tests.plugin.hub_client import client_of
from tests.plugin.loopback_hub import serve
from tests.plugin.model_folders import SINGLE_IMAGE_CASE, write_stock_folder

from .trainer_runs import CONFIGURATION, configuration, shapes, weights

DEFORMABLE = {'type': 'resnet_d', 'depth': 50, 'norm': 'FrozenBN', 'deform_stages': [3, 4], 'stem_width': 4,
              'stem_out_channels': 8, 'res2_out_channels': 16}
COCO = zoo.configuration('fastinst_d3_r50')['model']['classes']
PREPROCESSOR = CONFIGURATION['preprocessor']


def class_dependent(layers: int) -> list[str]:
    """Their published names in a network of so many decoder layers."""
    predictor = 'sem_seg_head.predictor'
    return [f'{predictor}.{name}.{kind}' for name in (
        'query_proposal.conv_proposal_cls_logits.2', *(f'class_embed_layers.{i}.layers.2' for i in range(layers + 1)))
        for kind in ('weight', 'bias')]


def write_model(folder: Path, cfg: dict[str, Any], stock: bool = False) -> Path:
    """A model folder with random weights, none of them a constant that a fresh network starts with."""
    folder.mkdir(parents=True)
    network = build_fastinst(cfg['model'])
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.001 * torch.rand(tensor.shape, generator=generator) + 0.001)
    if stock:
        state = network.state_dict()
        counters = {name.replace('running_var', 'num_batches_tracked'): torch.tensor(9)
                    for name in state if name.endswith('running_var')}
        torch.save({'model': {**state, **counters}}, folder / 'pytorch_model.pt')
    else:
        save_weights(network, folder / 'model.safetensors')
    (folder / 'configuration.json').write_text(json.dumps(cfg), 'utf-8')
    return folder


def coco_model(backbone: dict[str, Any] | None = None) -> dict[str, Any]:
    """A thin network of three decoder layers for COCO's classes."""
    return configuration({'model.pretrained': None, 'model.classes': COCO, 'model.decoder.num_classes': 80,
                          'model.decoder.dec_layers': 3, 'model.backbone.norm': 'FrozenBN',
                          **({'model.backbone': backbone} if backbone else {})})


def finetuner(model: Any, work_dir: Path, data: Any = None, **arguments: Any) -> Any:
    return build_trainer('fastinst-trainer', default_args={
        'model': str(model), 'work_dir': str(work_dir), 'device': 'cpu', 'max_epochs': 1,
        'train_dataset': shapes(2, num_classes=3) if data is None else data, **arguments})


def assert_only_new_differ(trainer: Any, source: Path, expected_new: list[str]) -> None:
    """Every tensor but the new ones equals the file's to the last bit; the new ones do not."""
    assert sorted(trainer.new_weights) == sorted(expected_new)
    given, started = read_state_dict(source), weights(trainer)
    counters = {name for name in started.keys() | given.keys() if name.endswith('num_batches_tracked')}
    assert started.keys() - counters == given.keys() - counters
    for name in started.keys() - counters:
        same = started[name].shape == given[name].shape and torch.equal(started[name], given[name])
        assert same != (name in expected_new), name


@pytest.mark.parametrize('backbone', [pytest.param(None, id='ResNet'), pytest.param(DEFORMABLE, id='R50-d-DCN')])
@pytest.mark.parametrize('stock', [pytest.param(False, id='safetensors'), pytest.param(True, id='stock file')])
def test_only_class_dependent_tensors_are_new(backbone, stock, tmp_path, caplog):
    folder = write_model(tmp_path / 'coco', coco_model(backbone), stock)
    data = shapes(2, num_classes=3)
    with caplog.at_level(logging.INFO):
        trainer = finetuner(folder, tmp_path / 'work', data)
    assert_only_new_differ(trainer, folder, class_dependent(3))
    assert trainer.model_classes == data.classes
    assert f'the classes are {data.classes}; newly initialised: ' in caplog.text
    assert all(name in caplog.text for name in class_dependent(3))


def test_the_result_is_a_model_of_the_new_classes(tmp_path):
    folder = write_model(tmp_path / 'coco', coco_model())
    data = shapes(2, num_classes=3)
    finetuner(folder, tmp_path / 'work', data).train()
    output = tmp_path / 'work' / 'output'
    saved = json.loads((output / 'configuration.json').read_text('utf-8'))
    assert saved['model']['classes'] == data.classes
    assert saved['model']['decoder']['num_classes'] == 3
    state = read_state_dict(output)
    assert state['sem_seg_head.predictor.class_embed_layers.3.layers.2.weight'].shape == (4, 32)
    pipeline('image-segmentation', model=str(output), device='cpu')(np.zeros((64, 64, 3), np.uint8))


def test_new_class_heads_start_as_in_a_fresh_network(tmp_path):
    """PyTorch's initialisation of linear layers and convolutions: uniform within 1 / sqrt(inputs)."""
    trainer = finetuner(write_model(tmp_path / 'coco', coco_model()), tmp_path / 'work',
                        shapes(1, num_classes=6))
    started = weights(trainer)
    values = torch.cat([started[name].flatten() * started[name.replace('bias', 'weight')][0].numel() ** 0.5
                        for name in class_dependent(3)])
    assert values.abs().max() <= 1
    assert abs(values.mean()) < 0.05 and values.std() == pytest.approx(3 ** -0.5, rel=0.05)


def test_other_classes_of_the_same_number_are_new_too(tmp_path):
    others = shapes(2, num_classes=2)
    cfg = configuration({'model.pretrained': None, 'model.classes': ['cat', 'dog'], 'model.decoder.num_classes': 2})
    folder = write_model(tmp_path / 'model', cfg)
    assert_only_new_differ(finetuner(folder, tmp_path / 'work', others), folder, class_dependent(1))


def test_the_same_classes_need_nothing_new(tmp_path):
    data = shapes(2, num_classes=2)
    cfg = configuration({'model.pretrained': None, 'model.classes': data.classes, 'model.decoder.num_classes': 2})
    folder = write_model(tmp_path / 'model', cfg)
    assert_only_new_differ(finetuner(folder, tmp_path / 'work', data), folder, [])


def test_from_the_folder_that_the_hub_has(tmp_path):
    """configuration.json without a recipe, pytorch_model.pt with batch norm and its counters, ten classes."""
    folder = write_stock_folder(tmp_path / 'stock')
    trainer = finetuner(folder, tmp_path / 'work', preprocessor=None, cfg_options={'preprocessor': PREPROCESSOR})
    layers = load(SINGLE_IMAGE_CASE).model_config['decoder']['dec_layers']
    assert_only_new_differ(trainer, folder, class_dependent(layers))


@pytest.mark.parametrize(('options', 'norm'), [
    pytest.param({}, 'FrozenBatchNorm2d', id='as the authors train'),
    pytest.param({'model.backbone.norm': 'BN'}, 'BatchNorm2d', id='asked for otherwise'),
])
def test_batch_norms_of_the_hubs_model_are_frozen(options, norm, tmp_path):
    trainer = finetuner(write_stock_folder(tmp_path / 'stock'), tmp_path / 'work', preprocessor=None,
                        cfg_options={'preprocessor': PREPROCESSOR, **options})
    assert type(trainer.network.backbone.stem.conv1.norm).__name__ == norm


def test_from_a_model_id(tmp_path, monkeypatch):
    """Downloaded once; the second trainer is built with the hub switched off. A revision is another model."""
    first = write_model(tmp_path / 'hub' / 'owner' / 'model', coco_model())
    second = write_model(tmp_path / 'hub' / 'owner' / 'model@v2', coco_model(DEFORMABLE), stock=True)
    with serve(tmp_path / 'hub') as hub, client_of(hub, tmp_path / 'cache'):
        trainer = finetuner('owner/model', tmp_path / 'work')
        assert_only_new_differ(trainer, first, class_dependent(3))
        trainer.train()
        hub.requests.clear()
        finetuner('owner/model', tmp_path / 'again')
        assert hub.requests == []
        trainer = finetuner('owner/model', tmp_path / 'other', model_revision='v2')
        assert_only_new_differ(trainer, second, class_dependent(3))
    assert 'owner' not in (tmp_path / 'work' / 'output' / 'configuration.json').read_text('utf-8')


def test_a_recipe_beside_the_model(tmp_path):
    """``--config`` with ``--model``: settings of the one, weights of the other, no ImageNet weights."""
    folder = write_model(tmp_path / 'coco', coco_model())
    data = shapes(2, num_classes=3)
    recipe = configuration({
        'model.pretrained': None, 'model.classes': data.classes, 'model.decoder.num_classes': 3,
        'model.decoder.dec_layers': 3, 'model.backbone.norm': 'FrozenBN', 'train.optimizer.lr': 0.5,
        'train.backbone_weights': 'ResNet50_Weights.IMAGENET1K_V1'})
    (tmp_path / 'recipe.json').write_text(json.dumps(recipe), 'utf-8')
    trainer = finetuner(folder, tmp_path / 'work', data, cfg_file=str(tmp_path / 'recipe.json'))
    assert trainer.cfg.train['optimizer']['lr'] == 0.5
    assert_only_new_differ(trainer, folder, class_dependent(3))


def test_the_evaluations_of_a_scaled_recipe_are_left_out_where_nothing_is_to_be_evaluated(tmp_path):
    cfg = coco_model()
    cfg['train']['batch_scaling'] = {'base_batch_size': 16}
    cfg['evaluation'] = {'period': {'interval': 100, 'by_epoch': False}}
    trainer = finetuner(write_model(tmp_path / 'coco', cfg), tmp_path / 'work')
    trainer.train()
    assert trainer.iter == 1 and trainer.cfg.safe_get('evaluation.period') is None


@pytest.mark.slow
@pytest.mark.parametrize('name', ['fastinst_d3_r50', 'fastinst_d3_r50d_dcn'])
def test_published_networks_in_full(name, tmp_path):
    cfg = zoo.configuration(name)
    folder = write_model(tmp_path / 'coco', cfg)
    trainer = finetuner(folder, tmp_path / 'work', shapes(1, size=160, num_classes=3), cfg_options={
        'train.amp': 'bf16', 'train.dataloader': {'batch_size_per_gpu': 1, 'workers_per_gpu': 0},
        'preprocessor.train': {'min_sizes': [160], 'max_size': 160, 'crop': None}})
    assert_only_new_differ(trainer, folder, class_dependent(3))
    trainer.train()
    assert trainer.iter == 1
