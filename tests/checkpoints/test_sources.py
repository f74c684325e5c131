"""Weights as their origins write them: what they are taken for, where each entry goes, and what comes out of them."""
from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from modelscope_fastinst import zoo
from modelscope_fastinst.checkpoints import CheckpointError, load_backbone, load_weights, save_weights
from modelscope_fastinst.checkpoints.conversion import LATER_STAGE, NOT_BACKBONE
from modelscope_fastinst.checkpoints.reading import read_weights
from modelscope_fastinst.checkpoints.sources import CLASSIFIER, COUNTER, recognise
from modelscope_fastinst.models.fastinst import FastInst, build_fastinst
from tests.checkpoints.pickles import Calls, python2_pickle
from tests.tiny import model_config


class Backbone(torch.nn.Module):
    """A network of which only the backbone is built."""

    def __init__(self, **config):
        super().__init__()
        full = model_config(backbone=config)
        full['backbone'] = config
        full['encoder'] = {**full['encoder'], 'in_features': config.get('out_features', ['res3', 'res4', 'res5'])}
        self.backbone = build_fastinst(full).backbone


def published(name: str) -> Backbone:
    return Backbone(**zoo.configuration(name)['model']['backbone'])


def trained(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """With statistics and scales in its batch norms, as after a training: fresh ones hide what is mixed up."""
    random = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.0, generator=random)
            module.bias.data.uniform_(-0.1, 0.1, generator=random)
            module.running_mean.uniform_(-0.1, 0.1, generator=random)
            module.running_var.uniform_(0.8, 1.2, generator=random)
            module.num_batches_tracked.fill_(7)
    return model.eval()


@pytest.fixture(scope='module')
def resnet50():
    import torchvision
    return trained(torchvision.models.resnet50())


@pytest.fixture(scope='module')
def resnet101():
    import torchvision
    return trained(torchvision.models.resnet101())


@pytest.fixture(scope='module')
def resnet50d():
    import timm
    return trained(timm.create_model('resnet50d'))


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


def assert_accounted_for(conversion, file, network):
    """Every key of the file and of the backbone is in one list, and once."""
    assert conversion.mapping.keys() | conversion.unused.keys() == read_weights(file).state.keys()
    assert not conversion.mapping.keys() & conversion.unused.keys()
    targets = [*conversion.mapping.values(), *conversion.new]
    assert sorted(targets) == sorted(f'backbone.{key}' for key in network.backbone.state_dict())


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


# FastInst

def fastinst(seed=0, **changes) -> FastInst:
    torch.manual_seed(seed)
    return build_fastinst(model_config(**changes))


def training_state(network):
    """What detectron2's checkpointer writes during a training: optimizer, scheduler, numbers of numpy."""
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    weights = torch.ones(4)
    return {'model': {**network.state_dict(), 'criterion.empty_weight': weights,
                      'sem_seg_head.predictor.criterion.empty_weight': weights},
            'optimizer': optimizer.state_dict(), 'scheduler': {'last_epoch': np.int64(7), 'milestones': [1, 2]},
            'iteration': 7, 'trainer': {'hooks': {'best': np.float64(37.9), 'seen': np.arange(3)}},
            '__author__': 'the authors'}


@pytest.mark.parametrize('write', [write_torch, write_torch_legacy])
def test_the_authors_file_with_all_of_a_training_in_it(write, tmp_path):
    source, network = fastinst(1), fastinst(2)
    write(tmp_path / 'model_final.pth', training_state(source))
    file = read_weights(tmp_path / 'model_final.pth')
    assert recognise(file).kind == 'fastinst-authors' and file.author == 'the authors'
    assert {'optimizer', 'scheduler', 'trainer', 'iteration'} <= set(file.others)
    load_weights(network, tmp_path / 'model_final.pth')
    torch.testing.assert_close(dict(network.state_dict()), dict(source.state_dict()), rtol=0, atol=0)


def test_reading_numpy_s_numbers_leaves_nothing_allowed_in_the_process(tmp_path):
    own = [(dict, 'somebody.dict'), np.dtype]
    before = torch.serialization.get_safe_globals()
    with torch.serialization.safe_globals(own):
        during = set(torch.serialization.get_safe_globals())
        write_torch(tmp_path / 'model.pth', training_state(fastinst()))
        read_weights(tmp_path / 'model.pth')
        write_torch(tmp_path / 'model.pth', {'n': np.float64(1), 'bad': Calls(eval, '1'), 'model': {}})
        with pytest.raises(CheckpointError, match='wants to build eval'):
            read_weights(tmp_path / 'model.pth')
        assert set(torch.serialization.get_safe_globals()) == during
    assert set(torch.serialization.get_safe_globals()) == set(before)


@pytest.mark.parametrize(('state', 'kind'), [
    pytest.param(lambda: fastinst().state_dict(), 'fastinst', id='a bare state dict'),
    pytest.param(lambda: fastinst(backbone={'norm': 'BN'}).state_dict(), 'fastinst-modelscope', id='ModelScope\'s'),
    pytest.param(lambda: {f'module.{key}': value for key, value in fastinst().state_dict().items()}, 'fastinst',
                 id='of a DataParallel training'),
])
def test_fastinst_is_known_by_its_keys_and_gives_its_backbone(state, kind, tmp_path):
    torch.save(state(), tmp_path / 'weights.bin')
    source = recognise(read_weights(tmp_path / 'weights.bin'))
    assert (source.kind, source.backbone.name) == (kind, 'ResNet-18')
    network = fastinst(5)
    decoder = {key: value.clone() for key, value in network.state_dict().items() if key.startswith('sem_seg_head')}
    conversion = load_backbone(network, tmp_path / 'weights.bin')
    assert_accounted_for(conversion, tmp_path / 'weights.bin', network)
    assert NOT_BACKBONE in conversion.unused.values()
    torch.testing.assert_close(network.backbone.state_dict()['res3.0.conv1.weight'],
                               fastinst().backbone.state_dict()['res3.0.conv1.weight'], rtol=0, atol=0)
    own = network.state_dict()
    assert all(torch.equal(own[key], value) for key, value in decoder.items())


def test_load_weights_takes_a_data_parallel_fastinst(tmp_path):
    source, network = fastinst(1), fastinst(2)
    torch.save({f'module.{key}': value for key, value in source.state_dict().items()}, tmp_path / 'weights.bin')
    load_weights(network, tmp_path / 'weights.bin')
    torch.testing.assert_close(dict(network.state_dict()), dict(source.state_dict()), rtol=0, atol=0)


def test_load_weights_says_that_a_backbone_is_no_whole_network(resnet50, tmp_path):
    torch.save(resnet50.state_dict(), tmp_path / 'resnet50.pth')
    with pytest.raises(CheckpointError, match='not the weights of a whole FastInst.*convert') as error:
        load_weights(fastinst(), tmp_path / 'resnet50.pth')
    assert '\n' not in str(error.value)


# what does not fit

@pytest.mark.parametrize(('origin', 'network', 'names'), [
    pytest.param('resnet50d', 'fastinst_d3_r50', ['fastinst_d1_r50d_dcn', 'fastinst_d3_r50d_dcn'],
                 id='timm\'s into the plain one'),
    pytest.param('resnet50', 'fastinst_d3_r50d_dcn', ['fastinst_d1_r50', 'fastinst_d3_r50'],
                 id='torchvision\'s into the deep stem'),
    pytest.param('resnet101', 'fastinst_d1_r50', ['fastinst_d3_r101'], id='too deep'),
])
def test_the_wrong_backbone_names_the_right_configurations(origin, network, names, request, tmp_path):
    torch.save(request.getfixturevalue(origin).state_dict(), tmp_path / 'weights.pth')
    target = published(network)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    with pytest.raises(CheckpointError) as error:
        load_backbone(target, tmp_path / 'weights.pth')
    assert str(error.value).startswith(str(tmp_path / 'weights.pth')) and '\n' not in str(error.value)
    assert all(name in str(error.value) for name in names)
    torch.testing.assert_close(dict(target.state_dict()), before, rtol=0, atol=0)


def test_a_backbone_without_a_published_configuration_is_said_to_be_so(tmp_path):
    import torchvision
    torch.save(torchvision.models.resnet34().state_dict(), tmp_path / 'resnet34.pth')
    with pytest.raises(CheckpointError, match='ResNet-34; .*none of the published'):
        load_backbone(Backbone(depth=18), tmp_path / 'resnet34.pth')


@pytest.mark.filterwarnings('ignore:Validating sparse tensor invariants')
@pytest.mark.parametrize(('change', 'message'), [
    pytest.param(lambda state: state.pop('layer1.0.conv1.weight'), r'1 missing \(backbone.res2.0.conv1.weight\)',
                 id='missing'),
    pytest.param(lambda state: state.update(surplus=torch.zeros(1)), r'1 unexpected \(surplus\)', id='unexpected'),
    pytest.param(lambda state: state.update({'bn1.bias': torch.zeros(3)}),
                 r'backbone.stem.conv1.norm.bias \(3,\) instead of \(64,\)', id='of another shape'),
    pytest.param(lambda state: state.update({'bn1.bias': torch.full((64,), float('nan'))}),
                 'stem.conv1.norm.bias has values that are infinite or no numbers', id='no numbers'),
    pytest.param(lambda state: state.update({'bn1.bias': torch.zeros(64).to_sparse()}), 'bn1.bias is sparse',
                 id='sparse'),
])
def test_every_key_is_accounted_for_or_it_is_an_error(change, message, tmp_path):
    import torchvision
    state = torchvision.models.resnet18().state_dict()
    change(state)
    torch.save(state, tmp_path / 'resnet18.pth')
    with pytest.raises(CheckpointError, match=message):
        load_backbone(Backbone(depth=18), tmp_path / 'resnet18.pth')


@pytest.mark.parametrize(('keys', 'name'), [
    pytest.param(['sem_seg_head.predictor.query_feat.weight', 'backbone.stem.conv1.weight'], 'Mask2Former',
                 id='Mask2Former'),
    pytest.param(['backbone.bottom_up.stem.conv1.weight', 'proposal_generator.rpn_head.conv.weight'], 'Mask R-CNN',
                 id='Mask R-CNN of detectron2'),
    pytest.param(['backbone.body.conv1.weight', 'roi_heads.box_head.fc6.weight'], 'Mask R-CNN',
                 id='Mask R-CNN of torchvision'),
    pytest.param(['backbone.0.body.conv1.weight', 'class_embed.weight'], 'DETR', id='DETR'),
    pytest.param(['patch_embed.proj.weight', 'layers.0.blocks.0.norm1.weight'], 'Swin', id='Swin'),
])
def test_other_networks_are_known_by_name(keys, name, tmp_path):
    torch.save({'model': {key: torch.zeros(1) for key in keys}}, tmp_path / 'other.pth')
    with pytest.raises(CheckpointError, match=f'holds another network: .*{name}'):
        recognise(read_weights(tmp_path / 'other.pth'))


def test_an_unknown_network_is_shown_with_what_is_understood(tmp_path):
    torch.save({f'net.{index}.weight': torch.zeros(1) for index in range(9)}, tmp_path / 'other.pth')
    with pytest.raises(CheckpointError) as error:
        recognise(read_weights(tmp_path / 'other.pth'))
    assert 'its 9 entries begin with net.0.weight, net.1.weight' in str(error.value)
    assert all(word in str(error.value) for word in ('FastInst', 'torchvision', 'timm', 'detectron2'))
