"""``modelscope-fastinst convert`` to ModelScope's own layout and from it: a round trip changes no bit."""
from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

import modelscope_fastinst  # noqa: F401  (registers the pipeline)
from modelscope_fastinst import zoo
from modelscope_fastinst.checkpoints import read_state_dict
from modelscope_fastinst.checkpoints.reading import WeightFile
from modelscope_fastinst.checkpoints.sources import recognise
from modelscope_fastinst.checkpoints.stock import stock_model
from modelscope_fastinst.cli import main
from modelscope_fastinst.models.fastinst import build_fastinst
from modelscope_fastinst.plugin.conversion import convert
from modelscope_fastinst.plugin.weight_configuration import choose_configuration
from tests.golden_cases import load
from tests.plugin.model_folders import (
    SINGLE_IMAGE_CASE,
    assert_same,
    scene,
    stock_configuration,
    stock_weights,
    write_stock_folder,
)

OPTIONS = {'device': 'cpu', 'mask_format': 'rle', 'min_size': 128, 'max_size': 160, 'score_thr': 0.2}


def results(folder) -> dict:
    from modelscope.pipelines import pipeline
    return pipeline('image-segmentation', model=str(folder), **OPTIONS)(scene())


def write_stock(folder: Path, counters=0, bias=0.0) -> Path:
    """A stock folder as the hub has it: counters, and biases in the pixel decoder."""
    case = load(SINGLE_IMAGE_CASE)
    configuration = stock_configuration(case)
    configuration['model']['encoder']['norm'] = ''
    write_stock_folder(folder, configuration=configuration)
    weights = stock_weights(case)
    for key in [key for key in weights if 'num_batches_tracked' in key]:
        weights[key] = torch.tensor(counters)
    for name in ('adapter', 'layer'):
        for level in (1, 2, 3):
            weights[f'sem_seg_head.pixel_decoder.{name}_{level}.bias'] = torch.full((64,), bias)
    torch.save({'model': weights}, folder / 'pytorch_model.pt')
    return folder


def stock_content(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / 'pytorch_model.pt', weights_only=True)['model']


def assert_bit_exact(first, second):
    assert first.keys() == second.keys()
    for key, tensor in first.items():
        assert tensor.dtype == second[key].dtype and tensor.shape == second[key].shape
        assert tensor.numpy().tobytes() == second[key].numpy().tobytes(), key


@pytest.mark.parametrize('content', [
    pytest.param({}, id='as published'),
    pytest.param({'counters': 90000}, id='counters that counted'),
    pytest.param({'bias': 0.25}, id='biases that are not 0'),
])
@pytest.mark.parametrize('file', [pytest.param('', id='the folder'), pytest.param('pytorch_model.pt', id='the file')])
def test_stock_to_ours_and_back_is_bit_exact(content, file, tmp_path):
    stock = write_stock(tmp_path / 'stock', **content)
    config = [] if not file else ['--config', str(stock / 'configuration.json')]
    assert main(['convert', str(stock / file), str(tmp_path / 'ours'), '--device', 'cpu', *config]) == 0
    assert main(['convert', str(tmp_path / 'ours'), str(tmp_path / 'back'), '--to', 'stock', '--device', 'cpu']) == 0
    assert_bit_exact(stock_content(tmp_path / 'back'), stock_content(stock))
    assert sorted(os.listdir(tmp_path / 'back')) == ['README.md', 'configuration.json', 'pytorch_model.pt']
    assert_same(results(tmp_path / 'ours'), results(stock))
    assert_same(results(tmp_path / 'back'), results(stock))


def test_ours_to_stock_and_back_is_bit_exact(tmp_path):
    words = ['--device', 'cpu']
    case = load(SINGLE_IMAGE_CASE)
    torch.save(case.weights(), tmp_path / 'weights.bin')
    (tmp_path / 'ours.json').write_text(json.dumps({**stock_configuration(case), 'model': case.model_config}), 'utf-8')
    assert main(['convert', str(tmp_path / 'weights.bin'), str(tmp_path / 'ours'), *words,
                 '--config', str(tmp_path / 'ours.json')]) == 0
    assert main(['convert', str(tmp_path / 'ours'), str(tmp_path / 'stock'), *words, '--to', 'stock']) == 0
    assert main(['convert', str(tmp_path / 'stock'), str(tmp_path / 'again'), *words]) == 0
    assert_bit_exact(read_state_dict(tmp_path / 'again'), read_state_dict(tmp_path / 'ours'))
    configuration = json.loads((tmp_path / 'stock' / 'configuration.json').read_text('utf-8'))
    assert set(configuration) == {'framework', 'task', 'pipeline', 'model'}
    assert set(configuration['model']) == {'type', 'pretrained', 'classes', 'backbone', 'encoder', 'decoder'}


@pytest.mark.parametrize(('sections', 'lost'), [
    pytest.param({'preprocessor': {'type': 'fastinst-preprocessor', 'min_size': 320, 'max_size': None},
                  'postprocessor': {'type': 'fastinst-postprocessor', 'score_thr': 0.3, 'max_instances': 100}},
                 ['preprocessor.min_size 320 (its own: 640)', 'preprocessor.max_size null (its own: 1333)',
                  'postprocessor.score_thr 0.3 (its own: 0.5)'], id='other settings'),
    pytest.param({'preprocessor': {'type': 'fastinst-preprocessor', 'min_size': 640, 'max_size': 1333}}, [],
                 id='its own settings'),
])
def test_settings_that_stock_has_no_place_for_are_named(sections, lost, tmp_path):
    case = load(SINGLE_IMAGE_CASE)
    torch.save(case.weights(), tmp_path / 'weights.bin')
    (tmp_path / 'ours.json').write_text(json.dumps(
        {**stock_configuration(case), 'model': case.model_config, **sections}), 'utf-8')
    done = convert(tmp_path / 'weights.bin', tmp_path / 'stock', config=str(tmp_path / 'ours.json'), to='stock',
                   device='cpu')
    remarks = [remark for remark in done.remarks if 'has no such setting' in remark]
    assert [remark.partition(': ')[2] for remark in remarks] == ([', '.join(lost)] if lost else [])
    # its pipeline would fail to build a preprocessor of a type that it does not know
    configuration = json.loads((tmp_path / 'stock' / 'configuration.json').read_text('utf-8'))
    assert set(configuration) == {'framework', 'task', 'pipeline', 'model'}
    assert 'short side' not in (tmp_path / 'stock' / 'README.md').read_text('utf-8')


def test_a_stock_folder_gets_the_sizes_of_the_published_model_it_is(tmp_path):
    published = zoo.configuration('fastinst_d1_r50')
    with torch.device('meta'):
        shapes = build_fastinst(published['model']).state_dict()
    state = {key: torch.zeros(()).expand(tensor.shape) for key, tensor in shapes.items()}
    stock = {key: published[key] for key in ('framework', 'task', 'pipeline')}
    stock['model'] = {**stock_model(published['model']), 'classes': [f'c{index}' for index in range(80)]}
    (tmp_path / 'configuration.json').write_text(json.dumps(stock), 'utf-8')
    configuration, _ = choose_configuration(recognise(WeightFile(tmp_path / 'x.pt', state)), None, tmp_path, None)
    assert configuration['preprocessor'] == published['preprocessor']
    assert 'train' not in configuration
    assert configuration['model']['classes'] == stock['model']['classes']
    # as the authors train; in ModelScope's own network, which only runs, it is an ordinary batch norm
    assert configuration['model']['backbone']['norm'] == 'FrozenBN'
