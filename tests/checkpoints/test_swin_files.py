"""ImageNet weights of Swin as users have them: torchvision's files and the authors'."""
from __future__ import annotations

import pickle

import pytest
import torch

from modelscope_fastinst.checkpoints.backbones import backbone_kind, from_torchvision, stage_of
from modelscope_fastinst.checkpoints.conversion import LATER_STAGE, load_backbone
from modelscope_fastinst.checkpoints.formats import CheckpointError
from modelscope_fastinst.checkpoints.reading import read_weights
from modelscope_fastinst.checkpoints.sources import CLASSIFIER, WINDOW_CONSTANT, recognise
from tests.checkpoints.backbone_networks import Backbone

SMALL = {'embed_dim': 8, 'depths': [2, 2, 2, 1], 'num_heads': [1, 1, 2, 2], 'window_size': 2}


@pytest.fixture(scope='module')
def origin():
    """torchvision's network, with random norms: fresh ones would hide what is mixed up."""
    from torchvision.models.swin_transformer import SwinTransformer
    torch.manual_seed(0)
    network = SwinTransformer([4, 4], SMALL['embed_dim'], SMALL['depths'], SMALL['num_heads'], [2, 2],
                              num_classes=5).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.LayerNorm):
            torch.nn.init.normal_(module.weight, 1.0, 0.3)
            torch.nn.init.normal_(module.bias, 0.0, 0.3)
    return network


def authors_state(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The same weights as the Swin authors' files have them, with the buffers of their classifier."""
    state = {from_torchvision(key): tensor for key, tensor in network.state_dict().items()}
    for key in [key for key in state if key.endswith('relative_position_index')]:
        state[key] = state[key].view(4, 4)
    return state | {'layers.0.blocks.1.attn_mask': torch.zeros(4, 4, 4)}


def network(**changes) -> Backbone:
    return Backbone(type='swin', **(SMALL | {'out_features': ['res3', 'res4', 'res5']} | changes))


def assert_same_maps(own: Backbone, origin: torch.nn.Module) -> None:
    images = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        maps = own.eval().backbone(images)
        x = origin.features[:4](images)
        torch.testing.assert_close(maps['res3'], own.backbone.norm1(x).permute(0, 3, 1, 2), rtol=1e-4, atol=1e-5)
        x = origin.features[4:](x)
        torch.testing.assert_close(maps['res5'], own.backbone.norm3(x).permute(0, 3, 1, 2), rtol=1e-4, atol=1e-5)


def test_torchvisions_file(origin, tmp_path):
    file = tmp_path / 'swin.pth'
    torch.save(origin.state_dict(), file)
    own = network()
    fresh = {name: tensor.clone() for name, tensor in own.backbone.state_dict().items() if name.startswith('norm')}
    conversion = load_backbone(own, file)
    assert conversion.kind == 'torchvision'
    assert conversion.new == [f'backbone.{name}' for name in fresh]
    assert all(torch.equal(own.backbone.state_dict()[name], tensor) for name, tensor in fresh.items())
    assert set(conversion.unused.values()) == {CLASSIFIER, WINDOW_CONSTANT}
    assert conversion.unused.keys() >= {'norm.weight', 'norm.bias', 'head.weight', 'head.bias'}
    assert conversion.entries == len(origin.state_dict())
    assert_same_maps(own, origin)


def saved_by_authors(state, folder):
    torch.save({'model': state}, folder / 'swin.pth')
    return folder / 'swin.pth'


def pickled_arrays(state, folder):
    """As detectron2 keeps weights."""
    with open(folder / 'swin.pkl', 'wb') as file:
        pickle.dump({'model': {key: tensor.numpy() for key, tensor in state.items()}, '__author__': 'third_party',
                     'matching_heuristics': True}, file)
    return folder / 'swin.pkl'


@pytest.mark.parametrize('write', [saved_by_authors, pickled_arrays])
def test_the_authors_files(write, origin, tmp_path):
    own = network()
    conversion = load_backbone(own, write(authors_state(origin), tmp_path))
    assert conversion.kind == 'swin' and 'Swin' in conversion.description
    assert conversion.unused['layers.0.blocks.1.attn_mask'] == WINDOW_CONSTANT
    assert_same_maps(own, origin)


def test_a_backbone_that_ends_early_leaves_the_last_stage_out(origin, tmp_path):
    own = network(out_features=['res2', 'res3', 'res4'])
    conversion = load_backbone(own, saved_by_authors(authors_state(origin), tmp_path))
    later = {key for key, reason in conversion.unused.items() if reason == LATER_STAGE}
    assert {'.'.join(key.split('.')[:3]) for key in later} == {'layers.2.downsample', 'layers.3.blocks'}


@pytest.mark.parametrize(('changes', 'message'), [
    pytest.param({'depths': [2, 2, 4, 1]}, 'backbone of the network is another .Swin of 2-2-4-1 blocks', id='depths'),
    pytest.param({'embed_dim': 16}, 'of another shape .*instead of', id='width'),
    pytest.param({'window_size': 4}, 'of another shape .*relative_position_bias_table', id='window'),
])
def test_weights_of_another_swin_are_refused(changes, message, origin, tmp_path):
    own = network(**changes)
    with pytest.raises(CheckpointError, match=message):
        load_backbone(own, saved_by_authors(authors_state(origin), tmp_path))


def test_a_swin_is_known_by_its_width_too(tmp_path):
    depths = (2, 2, 18, 2)
    keys = [f'layers.{i}.blocks.{j}.norm1.weight' for i, depth in enumerate(depths) for j in range(depth)]
    state = {key: torch.ones(1) for key in keys} | {'patch_embed.proj.weight': torch.ones(192, 3, 4, 4)}
    source = recognise(read_weights(saved_by_authors(state, tmp_path)))
    assert source.backbone.name == 'Swin-L' and 'Swin-L' in source.description
    assert all('swin_l' in name for name in source.backbone.configurations) and source.backbone.configurations
    assert backbone_kind(state).name == 'Swin of 2-2-18-2 blocks' and backbone_kind(state).depth is None


@pytest.mark.parametrize(('theirs', 'ours', 'stage'), [
    pytest.param('features.0.0.weight', 'patch_embed.proj.weight', None, id='embedding'),
    pytest.param('features.0.2.bias', 'patch_embed.norm.bias', None, id='norm of the embedding'),
    pytest.param('features.1.1.attn.qkv.weight', 'layers.0.blocks.1.attn.qkv.weight', 1, id='attention'),
    pytest.param('features.5.12.mlp.0.bias', 'layers.2.blocks.12.mlp.fc1.bias', 3, id='first of the feed-forward'),
    pytest.param('features.7.0.mlp.3.weight', 'layers.3.blocks.0.mlp.fc2.weight', 4, id='second'),
    pytest.param('features.2.reduction.weight', 'layers.0.downsample.reduction.weight', 2, id='merging'),
    pytest.param('head.weight', 'head.weight', None, id='the classifier keeps its name'),
])
def test_torchvisions_names(theirs, ours, stage):
    assert from_torchvision(theirs) == ours
    assert stage_of(ours) == stage
