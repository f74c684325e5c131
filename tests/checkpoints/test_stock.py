"""ModelScope's own layout: its keys and shapes, to the bit and back, and what it cannot have."""
from __future__ import annotations

import copy
import json
import subprocess
import sys

import pytest
import torch

from modelscope_fastinst import zoo
from modelscope_fastinst.checkpoints import CheckpointError, load_weights
from modelscope_fastinst.checkpoints.stock import stock_model, stock_state
from modelscope_fastinst.models.fastinst import build_fastinst
from tests.golden_cases import vectors
from tests.tiny import model_config

# What the constructors of ModelScope's own network take, by the sections of its configuration.
STOCK_KEYS = {
    'backbone': {'out_features', 'depth', 'num_groups', 'width_per_group', 'norm', 'stem_out_channels',
                 'res2_out_channels', 'stride_in_1x1', 'res4_dilation', 'res5_dilation', 'res5_multi_grid'},
    'encoder': {'in_features', 'convs_dim', 'mask_dim', 'norm'},
    'decoder': {'num_classes', 'hidden_dim', 'num_queries', 'num_aux_queries', 'nheads', 'dim_feedforward',
                'dec_layers', 'pre_norm', 'mask_dim'},
}
RESNET50 = {'depth': 50, 'stem_out_channels': 8, 'res2_out_channels': 8, 'width_per_group': 2}


def network(seed=0, **changes):
    config = model_config(**{'backbone': RESNET50, **changes})
    torch.manual_seed(seed)
    return build_fastinst(config), config


def test_keys_and_shapes_of_d3_r50_are_those_of_the_hub_s_model():
    model = zoo.configuration('fastinst_d3_r50')['model']
    with torch.device('meta'):
        state = build_fastinst(model).state_dict()
    stock = stock_state(state, stock_model(model))
    expected = json.loads(vectors('stock_keys_r50_d3.json').read_text('utf-8'))
    assert {key: list(tensor.shape) for key, tensor in stock.items()} == expected


@pytest.mark.parametrize('name', ['fastinst_d1_r50', 'fastinst_d3_r50', 'fastinst_d3_r101'])
def test_the_configuration_holds_what_stock_knows_and_no_more(name):
    model = stock_model(zoo.configuration(name)['model'])
    assert set(model) == {'type', 'pretrained', 'classes', *STOCK_KEYS}
    assert {section: set(model[section]) for section in STOCK_KEYS} == STOCK_KEYS
    assert model['backbone']['norm'] == 'BN' and model['encoder']['norm'] == '' and len(model['classes']) == 80


def test_what_is_added_is_zero_and_the_rest_is_as_it_was():
    ours, config = network()
    stock = stock_state(ours.state_dict(), stock_model(config))
    state = ours.state_dict()
    added = {key: tensor for key, tensor in stock.items() if key not in state}
    assert {key.rpartition('.')[2] for key in added} == {'num_batches_tracked', 'bias'}
    assert not any(tensor.any() for tensor in added.values())
    assert all(tensor.dtype == torch.int64 for key, tensor in added.items() if key.endswith('tracked'))
    torch.testing.assert_close({key: stock[key] for key in state}, dict(state), rtol=0, atol=0)


@pytest.mark.parametrize('changes', [
    pytest.param({}, id='as published'),
    pytest.param({'backbone': {**RESNET50, 'norm': 'BN'}}, id='ordinary batch norm'),
    pytest.param({'encoder': {'norm': ''}}, id='biases in the pixel decoder'),
    pytest.param({'decoder': {'num_aux_queries': 0, 'pre_norm': True}}, id='other options'),
])
def test_the_stock_network_computes_the_same(changes, tmp_path):
    ours, config = network(**changes)
    model = stock_model(config)
    torch.save({'model': stock_state(ours.state_dict(), model)}, tmp_path / 'pytorch_model.pt')
    stock = build_fastinst(model)
    load_weights(stock, tmp_path)
    image = torch.randint(0, 256, (1, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, actual = ours.eval()(image).final, stock.eval()(image).final
    torch.testing.assert_close(actual.masks, expected.masks)
    torch.testing.assert_close(actual.logits, expected.logits)


@pytest.mark.parametrize(('changes', 'named'), [
    pytest.param({'backbone': {'depth': 18}}, 'basic blocks', id='basic blocks'),
    pytest.param({'backbone': {**RESNET50, 'out_features': ['res2', 'res3', 'res4']}},
                 "out_features are ['res2', 'res3', 'res4']", id='other features'),
    pytest.param({'backbone': {**RESNET50, 'out_features': ['res2', 'res3', 'res4', 'res5']},
                  'encoder': {'in_features': ['res2', 'res3', 'res4']}}, "in_features are ['res2', 'res3', 'res4']",
                 id='other features of the encoder'),
    pytest.param({'decoder': {'position_in_content': True}}, 'position_in_content', id='positions in the content'),
    pytest.param({'decoder': {'position_grid': 5}}, 'position_grid of 5', id='a larger map of positions'),
    pytest.param({'backbone': {**RESNET50, 'norm': ''}}, "the norm ''", id='no norm'),
])
def test_what_stock_cannot_represent_is_refused_by_name(changes, named):
    with pytest.raises(CheckpointError) as error:
        stock_model(model_config(**{'backbone': RESNET50, **changes}))
    assert named in str(error.value)


def test_deformable_convolution_is_refused_by_name():
    with pytest.raises(CheckpointError, match=r"type 'resnet_d' .*deformable convolution in the stages \[3, 4\]"):
        stock_model(zoo.configuration('fastinst_d3_r50d_dcn')['model'])


def test_all_obstacles_are_named_and_the_configuration_is_left_as_it_is():
    config = model_config(decoder={'position_in_content': True})
    before = copy.deepcopy(config)
    with pytest.raises(CheckpointError, match='basic blocks.*; its decoder has position_in_content'):
        stock_model(config)
    assert config == before
    config = model_config(backbone=RESNET50)
    before = copy.deepcopy(config)
    stock_model(config)
    assert config == before


@pytest.mark.parametrize(('change', 'message'), [
    pytest.param(lambda state: state.pop('backbone.stem.conv1.weight'), 'stem.conv1.weight is missing', id='missing'),
    pytest.param(lambda state: state.update(surplus=torch.zeros(1)), 'no place for surplus', id='surplus'),
    pytest.param(lambda state: state.update({'backbone.stem.conv1.weight': torch.zeros(1)}), r'of shape \(1,\)',
                 id='of another shape'),
])
def test_a_state_that_is_not_the_network_s_is_refused(change, message):
    ours, config = network()
    state = dict(ours.state_dict())
    change(state)
    with pytest.raises(CheckpointError, match=message):
        stock_state(state, stock_model(config))


# Runs ModelScope's own network. Its import chain wants timm and
# mmcv, of which it uses nothing; of mmcv only the names are there.
PROGRAM = '''
import json, sys, types
import torch
for name in ('mmcv', 'mmcv.ops', 'mmcv.ops.multi_scale_deform_attn'):
    sys.modules[name] = types.ModuleType(name)
sys.modules['mmcv.ops.multi_scale_deform_attn'].MultiScaleDeformableAttnFunction = None
sys.modules['mmcv.ops.multi_scale_deform_attn'].multi_scale_deformable_attn_pytorch = None
from modelscope.models.cv.image_instance_segmentation.fastinst_model import FastInst
folder = sys.argv[1]
section = json.load(open(folder + '/configuration.json'))['model']
section.pop('type')
network = FastInst(folder, **section).eval()
state, written = network.state_dict(), torch.load(folder + '/pytorch_model.pt', weights_only=True)['model']
assert state.keys() == written.keys(), sorted(state.keys() ^ written.keys())
assert all(torch.equal(state[key], written[key]) for key in state)
with torch.no_grad():
    outputs = network.forward([{'image': torch.load(folder + '/image.pt')}])['outputs']
torch.save([outputs['pred_logits'], outputs['pred_masks']], folder + '/outputs.pt')
'''


def test_modelscope_s_own_network_reads_it_completely_and_computes_the_same(tmp_path):
    ours, config = network(decoder={'num_queries': 9})
    model = stock_model(config)
    torch.save({'model': stock_state(ours.state_dict(), model)}, tmp_path / 'pytorch_model.pt')
    (tmp_path / 'configuration.json').write_text(json.dumps({'model': model}), 'utf-8')
    image = torch.randint(0, 256, (3, 96, 128), generator=torch.Generator().manual_seed(0)).float()
    torch.save(image, tmp_path / 'image.pt')
    done = subprocess.run([sys.executable, '-c', PROGRAM, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    logits, masks = torch.load(tmp_path / 'outputs.pt')
    with torch.no_grad():
        final = ours.eval()([image]).final
    torch.testing.assert_close(final.logits, logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(final.masks, masks, atol=1e-4, rtol=0)
