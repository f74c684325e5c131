"""Which configuration ``convert`` chooses for a weight file."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import modelscope_fastinst  # noqa: F401  (registers the pipeline)
from modelscope_fastinst import zoo
from modelscope_fastinst.checkpoints import CheckpointError
from modelscope_fastinst.checkpoints.reading import WeightFile
from modelscope_fastinst.checkpoints.sources import recognise
from modelscope_fastinst.models.fastinst import build_fastinst
from modelscope_fastinst.plugin.weight_configuration import choose_configuration
from tests.golden_cases import vectors


def without_training(name: str) -> dict[str, Any]:
    """A published configuration less the training that a finished model has behind it."""
    configuration = zoo.configuration(name)
    del configuration['train'], configuration['evaluation']
    return configuration


def weight_file(name: str, **decoder) -> WeightFile:
    """The names and shapes of a published model's weights, without their numbers."""
    model = zoo.configuration(name)['model']
    model['decoder'].update(decoder)
    with torch.device('meta'):
        state = build_fastinst(model).state_dict()
    return WeightFile(Path('weights.pth'), {key: torch.zeros(()).expand(tensor.shape) for key, tensor in state.items()})


@pytest.mark.parametrize('name', zoo.NAMES)
def test_each_published_model_is_known_by_its_keys_and_shapes(name):
    configuration, remarks = choose_configuration(recognise(weight_file(name)), None, None, None)
    assert configuration == without_training(name)
    assert remarks == [f'the configuration is the published {name}',
                       '80 classes, taken to be COCO\'s; give --classes to name others']


def test_the_hub_s_file_alone_is_known_as_well():
    shapes = json.loads(vectors('stock_keys_r50_d3.json').read_text('utf-8'))
    state = {key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}
    source = recognise(WeightFile(Path('pytorch_model.pt'), state, 'model'))
    assert source.kind == 'fastinst-modelscope'
    configuration, _ = choose_configuration(source, None, None, None)
    assert configuration == without_training('fastinst_d3_r50')


def test_another_number_of_classes_still_fits_and_their_names_are_asked_for():
    source = recognise(weight_file('fastinst_d3_r50', num_classes=3))
    configuration, remarks = choose_configuration(source, None, None, None)
    assert configuration['model']['classes'] == ['class 0', 'class 1', 'class 2']
    assert configuration['model']['decoder']['num_classes'] == 3
    assert '--classes' in remarks[1]
    configuration, remarks = choose_configuration(source, None, None, ['ant', 'bee', 'cat'])
    assert configuration['model']['classes'] == ['ant', 'bee', 'cat'] and len(remarks) == 1


@pytest.mark.parametrize(('decoder', 'shown'), [
    pytest.param({'dec_layers': 2}, 'fastinst_d', id='two layers'),
    pytest.param({'num_queries': 300}, r'meta_pos_embed \(1, 256, 17, 17\) instead of \(1, 256, 10, 10\)',
                 id='more queries'),
    pytest.param({'dim_feedforward': 512}, 'linear1.weight', id='a narrower feed-forward'),
    pytest.param({'num_aux_queries': 4}, r'empty_query_features.weight \(4, 256\)', id='fewer auxiliary queries'),
])
def test_what_fits_no_published_model_is_compared_with_the_nearest(decoder, shown):
    with pytest.raises(CheckpointError, match=f'(?s)fits none of the published configurations. Nearest is .*{shown}.*'
                                              'Give --config'):
        choose_configuration(recognise(weight_file('fastinst_d3_r50', **decoder)), None, None, None)


@pytest.mark.parametrize(('given', 'classes'), [
    pytest.param('fastinst_d3_r50', None, id='a published configuration was given'),
    pytest.param(None, [f'c{index}' for index in range(80)], id='classes were given'),
])
def test_eighty_classes_that_somebody_named_need_no_remark(given, classes):
    _, remarks = choose_configuration(recognise(weight_file('fastinst_d3_r50')), given, None, classes)
    assert not [remark for remark in remarks if 'COCO' in remark]
