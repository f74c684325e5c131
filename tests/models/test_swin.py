"""The Swin backbone against transformers' (equal random weights), its names, and what a configuration can ask for."""
from __future__ import annotations

import re

import pytest
import torch

from modelscope_fastinst.models.build import build_network
from modelscope_fastinst.models.swin import Swin
from tests.tiny import model_config

SMALL = {'embed_dim': 12, 'depths': (2, 2, 3, 2), 'num_heads': (1, 2, 3, 4), 'window_size': 4, 'drop_path_rate': 0.0}
STAGES = ('res2', 'res3', 'res4', 'res5')


def randomised(module: torch.nn.Module) -> torch.nn.Module:
    """With every parameter random: the initial zeros and ones of norms, biases and tables would hide a mistake."""
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return module.eval()


def transformers_swin(own: Swin, window_size: int = SMALL['window_size']) -> torch.nn.Module:
    """transformers' backbone with the same weights."""
    import transformers
    from transformers.models.swin.modeling_swin import SwinBackbone
    config = transformers.SwinConfig(
        embed_dim=SMALL['embed_dim'], depths=list(SMALL['depths']), num_heads=list(SMALL['num_heads']),
        window_size=window_size, drop_path_rate=0.0, out_features=[f'stage{i}' for i in (1, 2, 3, 4)])
    reference = SwinBackbone(config).eval()
    state = {}
    for key, tensor in own.state_dict().items():
        key = re.sub(r'^norm(\d)', lambda match: f'hidden_states_norms.stage{int(match[1]) + 1}', key)
        key = key.replace('patch_embed.proj', 'swin.embeddings.patch_embeddings.projection')
        key = key.replace('patch_embed.norm', 'swin.embeddings.norm')
        key = re.sub(r'^layers', 'swin.encoder.layers', key)
        key = key.replace('norm1', 'layernorm_before').replace('norm2', 'layernorm_after')
        if 'attn.qkv' in key:
            for part, name in zip(tensor.chunk(3), 'qkv', strict=True):
                state[key.replace('attn.qkv', f'attention.{name}_proj')] = part
        elif 'relative_position_index' not in key:
            key = key.replace('attn.proj', 'attention.o_proj')
            state[key.replace('attn.relative_position', 'attention.relative_position_bias.relative_position')] = tensor
    missing, unexpected = reference.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= {'swin.layernorm.weight', 'swin.layernorm.bias'}
    return reference


@pytest.mark.parametrize('size', [
    pytest.param((128, 256), id='whole windows everywhere'),
    pytest.param((160, 192), id='padding to whole windows'),
    pytest.param((131, 97), id='odd sizes: padding to patches and in merging'),
    pytest.param((32, 64), id='maps smaller than a window'),
    pytest.param((16, 288), id='smaller than a window in one direction'),
])
def test_equals_transformers(size):
    own = randomised(Swin(**SMALL))
    reference = transformers_swin(own)
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        maps, expected = own(images), reference(images).feature_maps
    assert list(maps) == list(STAGES)
    for name, theirs in zip(STAGES, expected, strict=True):
        torch.testing.assert_close(maps[name], theirs, rtol=1e-4, atol=2e-5)
        assert maps[name].shape[1] == own.channels[name]
        assert maps[name].shape[2:] == tuple(-(-side // own.strides[name]) for side in size)


def test_shifts_maps_that_fit_in_one_window_as_mask2former_does():
    """torchvision does not: pixels of all the map would attend to each other."""
    own = randomised(Swin(**SMALL)).layers[0].blocks[1].attn
    x = torch.randn(1, 4, 4, 12, generator=torch.Generator().manual_seed(0))
    moved = x.clone()
    moved[:, 3, 3] += 1
    with torch.no_grad():
        change = (own(moved) - own(x)).abs().amax(-1)[0]
    assert bool((change[2:, 2:] > 0).all()) and bool((change[:2] == 0).all()) and bool((change[:, :2] == 0).all())


def test_names_are_those_of_the_published_files():
    keys = set(Swin().state_dict())
    block = {'norm1.weight', 'norm1.bias', 'attn.relative_position_bias_table', 'attn.relative_position_index',
             'attn.qkv.weight', 'attn.qkv.bias', 'attn.proj.weight', 'attn.proj.bias', 'norm2.weight', 'norm2.bias',
             'mlp.fc1.weight', 'mlp.fc1.bias', 'mlp.fc2.weight', 'mlp.fc2.bias'}
    expected = {f'layers.{i}.blocks.{j}.{name}' for i, depth in enumerate((2, 2, 6, 2)) for j in range(depth)
                for name in block}
    expected |= {f'layers.{i}.downsample.{name}' for i in range(3)
                 for name in ('norm.weight', 'norm.bias', 'reduction.weight')}
    expected |= {f'patch_embed.{part}.{name}' for part in ('proj', 'norm') for name in ('weight', 'bias')}
    expected |= {f'norm{i}.{name}' for i in range(4) for name in ('weight', 'bias')}
    assert keys == expected


@pytest.mark.parametrize(('embed_dim', 'depth', 'parameters'), [
    pytest.param(96, 6, 28_288_354, id='Swin-T'),
    pytest.param(96, 18, 49_606_258, id='Swin-S'),
    pytest.param(128, 18, 87_768_224, id='Swin-B'),
])
def test_published_models_have_their_number_of_parameters(embed_dim, depth, parameters):
    """torchvision's numbers, which count a classifier and one norm; here four norms in their place."""
    heads = [embed_dim * 2 ** stage // 32 for stage in range(4)]
    with torch.device('meta'):
        backbone = Swin(embed_dim, (2, 2, depth, 2), heads)
    width = backbone.channels['res5']
    norms, classifier = 2 * sum(backbone.channels.values()), 1000 * (width + 1) + 2 * width
    assert sum(p.numel() for p in backbone.parameters()) == parameters - classifier + norms


def test_the_relative_position_index_is_that_of_torchvision():
    from torchvision.models.swin_transformer import ShiftedWindowAttention
    theirs = ShiftedWindowAttention(8, [7, 7], [0, 0], 2).relative_position_index
    own = Swin().layers[0].blocks[0].attn.relative_position_index
    assert torch.equal(own.flatten(), theirs) and own.shape == (49, 49)


def test_only_the_stages_that_are_needed_are_built():
    backbone = Swin(**SMALL, out_features=('res3', 'res4'))
    assert len(backbone.layers) == 3 and backbone.layers[2].downsample is None
    assert {key.split('.')[0] for key in backbone.state_dict()} == {'patch_embed', 'layers', 'norm1', 'norm2'}
    assert backbone.strides == {'res3': 8, 'res4': 16}


def test_stochastic_depth_leaves_out_blocks_in_training_only_and_later_ones_more():
    backbone = Swin(**(SMALL | {'drop_path_rate': 0.5}))
    rates = [block.stochastic_depth.p for stage in backbone.layers for block in stage.blocks]
    assert rates == pytest.approx([0.5 * i / 8 for i in range(9)])
    images = torch.randn(2, 3, 64, 64)
    torch.manual_seed(0)
    first, second = backbone(images)['res5'], backbone(images)['res5']
    assert not torch.allclose(first, second)
    backbone.eval()
    with torch.no_grad():
        assert torch.equal(backbone(images)['res5'], backbone(images)['res5'])


def test_frozen_parts_get_no_gradient():
    backbone = Swin(**SMALL, freeze_at=2)
    assert not any(p.requires_grad for part in (backbone.patch_embed, backbone.layers[0]) for p in part.parameters())
    assert all(p.requires_grad for p in backbone.layers[1].parameters())
    backbone.train()
    assert not any(module.training for module in backbone.layers[0].modules()) and backbone.layers[1].training


@pytest.mark.parametrize(('change', 'message'), [
    pytest.param({'out_features': ['res6']}, 'must be some of', id='stage'),
    pytest.param({'out_features': []}, 'must be some of', id='no stage'),
    pytest.param({'depths': [2, 2, 6]}, 'must be four numbers each', id='three depths'),
    pytest.param({'depths': [2, 2, 0, 2]}, 'of at least 1', id='a stage without blocks'),
    pytest.param({'num_heads': [5, 6, 12, 24]}, '5 heads do not share the 96 channels of res2', id='heads'),
    pytest.param({'drop_path_rate': 1.0}, 'drop_path_rate 1.0 must be', id='drop path'),
    pytest.param({'window_size': 0}, 'window_size 0 must be', id='window'),
    pytest.param({'freeze_at': 6}, 'freeze_at 6 must be', id='freeze'),
])
def test_values_that_cannot_be_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Swin(**change)


def test_a_network_with_swin_trains_under_autocast():
    swin = {'type': 'swin', **SMALL, 'num_heads': [1, 2, 3, 4], 'out_features': ['res3', 'res4', 'res5']}
    config = model_config()
    network = build_network(config | {'backbone': swin}).train()
    with torch.autocast('cpu', torch.bfloat16):
        output = network([torch.rand(3, 90, 70) * 255])
    output.final.masks.float().square().mean().backward()
    without = [name for name, p in network.backbone.named_parameters() if p.grad is None]
    assert without == [] and all(torch.isfinite(p.grad).all() for p in network.backbone.parameters())
