"""Backbones as their origins write them: what they are taken for, where each entry goes, what comes out of them."""
from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from modelscope_fastinst.checkpoints import CheckpointError, load_backbone, save_weights
from modelscope_fastinst.checkpoints.conversion import LATER_STAGE
from modelscope_fastinst.checkpoints.reading import read_weights
from modelscope_fastinst.checkpoints.sources import CLASSIFIER, COUNTER
from tests.checkpoints.backbone_networks import Backbone, assert_accounted_for, published, trained
from tests.checkpoints.pickles import python2_pickle


@pytest.fixture(scope='module')
def d_r50() -> Backbone:
    return published('fastinst_d3_r50').eval()


@pytest.fixture(scope='module')
def d_r50d() -> Backbone:
    return published('fastinst_d3_r50d_dcn').eval()


def stages(model, x):
    """The features of torchvision's and timm's ResNets after each stage."""
    x = model.maxpool((model.relu if hasattr(model, 'relu') else model.act1)(model.bn1(model.conv1(x))))
    features = {}
    for name, layer in (('res2', model.layer1), ('res3', model.layer2), ('res4', model.layer3), ('res5', model.layer4)):
        features[name] = x = layer(x)
    return features


@torch.no_grad()
def assert_same_features(origin, network, tolerance=1e-4):
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    expected, actual = stages(origin, image), network.backbone(image)
    assert set(actual) == {'res3', 'res4', 'res5'}
    for name, feature in actual.items():
        spread = expected[name].std()
        assert spread > 1e-3
        torch.testing.assert_close(feature / spread, expected[name] / spread, atol=tolerance, rtol=0)


def detectron2_keys(state):
    """detectron2's own renaming of torchvision's keys, in the order in which its converter replaces."""
    renamed = {}
    for key, tensor in state.items():
        name = key if 'layer' in key else f'stem.{key}'
        for number in (1, 2, 3, 4):
            name = name.replace(f'layer{number}', f'res{number + 1}')
        for number in (1, 2, 3):
            name = name.replace(f'bn{number}', f'conv{number}.norm')
        renamed[name.replace('downsample.0', 'shortcut').replace('downsample.1', 'shortcut.norm')] = tensor.numpy()
    return renamed


def detectron2_file(state, **others):
    return {'model': detectron2_keys(state), '__author__': 'torchvision', 'matching_heuristics': True, **others}


# torchvision

def write_torch(file, content):
    torch.save(content, file)


def write_torch_legacy(file, content):
    torch.save(content, file, _use_new_zipfile_serialization=False)


def write_data_parallel(file, state):
    torch.save({'epoch': 90, 'state_dict': {f'module.{key}': tensor for key, tensor in state.items()}}, file)


def write_safetensors(file, state):
    save_weights(state, file)


@pytest.mark.parametrize(('write', 'name'), [
    pytest.param(write_torch, 'resnet50.pth', id='torch.save'),
    pytest.param(write_torch_legacy, 'resnet50.pth', id='the format of old torch.save'),
    pytest.param(write_data_parallel, 'checkpoint.pth.tar', id='the checkpoint of a DataParallel training'),
    pytest.param(write_safetensors, 'resnet50.safetensors', id='safetensors'),
])
def test_torchvision_resnet50(write, name, resnet50, d_r50, tmp_path):
    write(tmp_path / name, resnet50.state_dict())
    conversion = load_backbone(d_r50, tmp_path / name)
    assert (conversion.kind, len(conversion.mapping), conversion.new) == ('torchvision', 265, [])
    assert sorted(set(conversion.unused.values())) == sorted([CLASSIFIER, COUNTER])
    assert_accounted_for(conversion, tmp_path / name, d_r50)
    assert_same_features(resnet50, d_r50)


def test_torchvision_resnet101_gives_520_of_520(resnet101, tmp_path):
    network = published('fastinst_d3_r101').eval()
    torch.save(resnet101.state_dict(), tmp_path / 'resnet101.pth')
    conversion = load_backbone(network, tmp_path / 'resnet101.pth')
    assert (len(conversion.mapping), conversion.new) == (520, [])
    assert_accounted_for(conversion, tmp_path / 'resnet101.pth', network)
    assert_same_features(resnet101, network)


def test_what_the_authors_converter_makes_of_torchvision_gives_520_of_520(resnet101, tmp_path):
    network = published('fastinst_d3_r101')
    content = {'model': {f'backbone.{key}': tensor.numpy() for key, tensor in resnet101.state_dict().items()},
               '__author__': 'torchvision', 'matching_heuristics': True}
    (tmp_path / 'R-101.pkl').write_bytes(pickle.dumps(content))
    conversion = load_backbone(network, tmp_path / 'R-101.pkl')
    assert (conversion.kind, len(conversion.mapping), conversion.new) == ('torchvision', 520, [])


def test_torchvision_resnet18_has_basic_blocks(tmp_path):
    import torchvision
    origin = trained(torchvision.models.resnet18())
    torch.save(origin.state_dict(), tmp_path / 'resnet18.pth')
    network = Backbone(depth=18).eval()
    conversion = load_backbone(network, tmp_path / 'resnet18.pth')
    assert conversion.new == [] and conversion.description.endswith('ResNet-18')
    assert_same_features(origin, network)


def test_a_backbone_that_ends_early_leaves_the_last_stage_out(tmp_path):
    import torchvision
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / 'resnet18.pth')
    network = Backbone(depth=18, out_features=['res2', 'res3', 'res4'])
    conversion = load_backbone(network, tmp_path / 'resnet18.pth')
    assert {key for key, reason in conversion.unused.items() if reason == LATER_STAGE} == {
        key for key in read_weights(tmp_path / 'resnet18.pth').state
        if key.startswith('layer4') and not key.endswith('num_batches_tracked')}


def test_ordinary_batch_norm_takes_the_counters(tmp_path):
    import torchvision
    torch.save(trained(torchvision.models.resnet18()).state_dict(), tmp_path / 'resnet18.pth')
    network = Backbone(depth=18, norm='BN')
    conversion = load_backbone(network, tmp_path / 'resnet18.pth')
    assert set(conversion.unused.values()) == {CLASSIFIER} and conversion.new == []
    assert network.backbone.stem.conv1.norm.num_batches_tracked == 7


# timm

def prefixed(state):
    """What the authors' converter makes of timm's file."""
    return {'model': {f'backbone.{key}': tensor.numpy() for key, tensor in state.items()}, '__author__': 'timm',
            'matching_heuristics': True}


@pytest.mark.parametrize(('write', 'name'), [
    pytest.param(lambda file, state: torch.save(state, file), 'resnet50d.pth', id='timm\'s own'),
    pytest.param(lambda file, state: file.write_bytes(pickle.dumps(prefixed(state))), 'resnet50d.pkl',
                 id='through the authors\' converter'),
])
def test_timm_resnet50d_gives_all_but_the_offsets(write, name, resnet50d, d_r50d, tmp_path):
    write(tmp_path / name, resnet50d.state_dict())
    conversion = load_backbone(d_r50d, tmp_path / name)
    assert (conversion.kind, len(conversion.mapping), len(conversion.new)) == ('timm', 275, 18)
    assert all('conv2_offset' in key for key in conversion.new)
    assert not any(d_r50d.backbone.state_dict()[key.removeprefix('backbone.')].any() for key in conversion.new)
    assert set(conversion.unused.values()) == {CLASSIFIER, COUNTER}
    assert_accounted_for(conversion, tmp_path / name, d_r50d)
    # offsets of 0 make a deformable convolution an ordinary one
    assert_same_features(resnet50d, d_r50d)


def test_timm_weights_for_modulated_deformable_convolution(resnet50d, tmp_path):
    network = Backbone(type='resnet_d', depth=50, deform_stages=[4], deform_modulated=True)
    torch.save(resnet50d.state_dict(), tmp_path / 'resnet50d.pth')
    conversion = load_backbone(network, tmp_path / 'resnet50d.pth')
    assert len(conversion.new) == 6
    assert {tuple(conversion.state[key].shape)[0] for key in conversion.new} == {27}


def test_timm_weights_without_deformable_convolution(resnet50d, tmp_path):
    network = Backbone(type='resnet_d', depth=50).eval()
    torch.save(resnet50d.state_dict(), tmp_path / 'resnet50d.pth')
    assert load_backbone(network, tmp_path / 'resnet50d.pth').new == []
    assert_same_features(resnet50d, network)


# detectron2

@pytest.mark.parametrize('write', [
    pytest.param(lambda content: pickle.dumps(content, 2), id='protocol 2'),
    pytest.param(lambda content: pickle.dumps(content, pickle.HIGHEST_PROTOCOL), id='highest protocol'),
    pytest.param(python2_pickle, id='written by Python 2'),
    pytest.param(lambda content: pickle.dumps({**content, 'model': {
        f'backbone.{key}': array for key, array in content['model'].items()}}), id='keys with backbone in front'),
])
def test_detectron2_pkl(write, resnet50, d_r50, tmp_path):
    (tmp_path / 'R-50.pkl').write_bytes(write(detectron2_file(resnet50.state_dict())))
    conversion = load_backbone(d_r50, tmp_path / 'R-50.pkl')
    assert (conversion.kind, len(conversion.mapping), conversion.new) == ('detectron2', 265, [])
    assert set(conversion.unused.values()) == {CLASSIFIER, COUNTER}
    assert conversion.remarks == []
    assert_accounted_for(conversion, tmp_path / 'R-50.pkl', d_r50)
    assert_same_features(resnet50, d_r50)


@pytest.mark.parametrize(('change', 'said'), [
    pytest.param(lambda content: content.pop('__author__'), 'does not say who made it', id='no author'),
    pytest.param(lambda content: content.update(__author__='Caffe2'), "'Caffe2'", id='another author'),
    pytest.param(lambda content: content['model'].update({
        key: np.full_like(array, key.endswith('var')) for key, array in content['model'].items() if 'running_' in key}),
        'no statistics', id='batch norms without statistics'),
])
def test_msra_weights_are_not_silently_taken_for_torchvision_s(change, said, resnet50, d_r50, tmp_path):
    content = detectron2_file(resnet50.state_dict())
    change(content)
    (tmp_path / 'R-50.pkl').write_bytes(pickle.dumps(content))
    (remark,) = load_backbone(d_r50, tmp_path / 'R-50.pkl').remarks
    assert said in remark and 'MSRA' in remark and 'BGR' in remark


def test_msra_weights_under_caffe2_s_names_are_refused(d_r50, tmp_path):
    content = {'blobs': {}, 'model': {'conv1_w': np.zeros((64, 3, 7, 7), np.float32),
                                      'res2_0_branch2a_w': np.zeros((64, 64, 1, 1), np.float32)}}
    (tmp_path / 'R-101.pkl').write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointError, match='Caffe2 ResNet .*MSRA'):
        load_backbone(d_r50, tmp_path / 'R-101.pkl')
