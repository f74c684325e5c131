"""Mask2Former's pixel decoder against transformers' (equal random weights), its forms and its place in a network."""
from __future__ import annotations

import pytest
import torch

from modelscope_fastinst.models.build import build_network
from modelscope_fastinst.models.msdeform_decoder import MSDeformAttnPixelDecoder
from tests.models.test_swin import randomised
from tests.tiny import model_config

CHANNELS = {'res2': 8, 'res3': 12, 'res4': 16, 'res5': 20}
SMALL = {'convs_dim': 32, 'nheads': 2, 'enc_layers': 2, 'dim_feedforward': 48}
RENAMED = (('input_proj', 'input_projections'), ('transformer.level_embed', 'level_embed'),
           ('transformer.encoder', 'encoder'), ('norm1', 'self_attn_layer_norm'), ('norm2', 'final_layer_norm'),
           ('linear1', 'fc1'), ('linear2', 'fc2'), ('mask_features', 'mask_projection'),
           ('adapter_1.weight', 'adapter_1.0.weight'), ('adapter_1.norm', 'adapter_1.1'),
           ('layer_1.weight', 'layer_1.0.weight'), ('layer_1.norm', 'layer_1.1'))


def features(height: int, width: int, batch: int = 2, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Backbone maps of an image of that size, rounded up at each stage."""
    generator = torch.Generator().manual_seed(height * 1000 + width)
    return {name: torch.randn(batch, channels, -(-height // stride), -(-width // stride), generator=generator).to(dtype)
            for (name, channels), stride in zip(CHANNELS.items(), (4, 8, 16, 32), strict=True)}


def transformers_decoder(own: MSDeformAttnPixelDecoder, mask_dim: int) -> torch.nn.Module:
    """transformers' decoder with the same weights."""
    import transformers
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerPixelDecoder
    config = transformers.Mask2FormerConfig(
        feature_size=SMALL['convs_dim'], mask_feature_size=mask_dim, num_attention_heads=SMALL['nheads'],
        encoder_layers=SMALL['enc_layers'], encoder_feedforward_dim=SMALL['dim_feedforward'], dropout=0.0)
    reference = Mask2FormerPixelDecoder(config, list(CHANNELS.values())).eval()
    state = {}
    for key, tensor in own.state_dict().items():
        for ours, theirs in RENAMED:
            key = key.replace(ours, theirs)
        state[key] = tensor
    reference.load_state_dict(state, strict=True)
    return reference


@pytest.mark.parametrize('size', [
    pytest.param((64, 96), id='multiples of 32'),
    pytest.param((100, 75), id='sizes that are rounded up'),
    pytest.param((32, 32), id='a single pixel at stride 32'),
    pytest.param((40, 300), id='wide'),
])
def test_equals_transformers(size):
    own = randomised(MSDeformAttnPixelDecoder(CHANNELS, tuple(CHANNELS), mask_dim=24, **SMALL))
    reference = transformers_decoder(own, mask_dim=24)
    maps = features(*size)
    with torch.no_grad():
        got = own(maps)
        expected = reference(list(maps.values()), output_attentions=False, output_hidden_states=False)
    assert got.mask_features.shape == (2, 24, *maps['res2'].shape[2:])
    torch.testing.assert_close(got.mask_features, expected.mask_features, rtol=1e-4, atol=1e-4)
    for ours, theirs, name in zip(got.maps, expected.multi_scale_features, ('res5', 'res4', 'res3'), strict=True):
        assert ours.shape == (2, 32, *maps[name].shape[2:])
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_names_are_those_of_the_published_files():
    own = MSDeformAttnPixelDecoder(CHANNELS, tuple(CHANNELS), **SMALL)
    layer = {f'{part}.{name}' for name in ('weight', 'bias') for part in (
        'self_attn.sampling_offsets', 'self_attn.attention_weights', 'self_attn.value_proj', 'self_attn.output_proj',
        'norm1', 'linear1', 'linear2', 'norm2')}
    expected = {f'transformer.encoder.layers.{i}.{name}' for i in range(2) for name in layer}
    expected |= {f'input_proj.{i}.{j}.{name}' for i in range(3) for j in (0, 1) for name in ('weight', 'bias')}
    expected |= {'transformer.level_embed', 'mask_features.weight', 'mask_features.bias'}
    expected |= {f'{part}.{name}' for part in ('adapter_1', 'layer_1')
                 for name in ('weight', 'norm.weight', 'norm.bias')}
    assert set(own.state_dict()) == expected


@pytest.mark.parametrize(('in_features', 'mask_dim', 'stride'), [
    pytest.param(('res2', 'res3', 'res4', 'res5'), 16, 4, id='four maps: masks at stride 4'),
    pytest.param(('res3', 'res4', 'res5'), 16, 8, id='three maps: masks on the finest'),
    pytest.param(('res2', 'res3', 'res4'), 16, 4, id='three finer maps'),
    pytest.param(('res3', 'res4', 'res5'), None, None, id='no mask features'),
    pytest.param(('res2', 'res3', 'res4', 'res5'), None, None, id='no mask features: the fourth map is not used'),
])
def test_forms(in_features, mask_dim, stride):
    own = MSDeformAttnPixelDecoder(CHANNELS, in_features, mask_dim=mask_dim, **SMALL)
    maps = features(64, 96)
    result = own(maps)
    assert [tuple(x.shape[2:]) for x in result.maps] == [tuple(maps[name].shape[2:]) for name in in_features[:-4:-1]]
    if mask_dim is None:
        assert result.mask_features is None
        sum(x.square().mean() for x in result.maps).backward()
    else:
        assert result.mask_features.shape == (2, mask_dim, 64 // stride, 96 // stride)
        (result.mask_features.square().mean() + sum(x.square().mean() for x in result.maps)).backward()
    # several processes need a gradient for every parameter
    assert [name for name, p in own.named_parameters() if p.grad is None] == []


def test_autocast_changes_nothing():
    own = randomised(MSDeformAttnPixelDecoder(CHANNELS, tuple(CHANNELS), **SMALL))
    maps = {name: x.bfloat16().float() for name, x in features(64, 64).items()}
    with torch.no_grad():
        plain = own(maps)
        with torch.autocast('cpu', torch.bfloat16):
            mixed = own({name: x.bfloat16() for name, x in maps.items()})
    assert mixed.mask_features.dtype == torch.float32
    assert torch.equal(mixed.mask_features, plain.mask_features)


def test_double_precision_is_kept():
    own = randomised(MSDeformAttnPixelDecoder(CHANNELS, tuple(CHANNELS), **SMALL)).double()
    with torch.no_grad():
        exact = own(features(64, 96, dtype=torch.float64))
        single = own.float()(features(64, 96))
    assert exact.mask_features.dtype == torch.float64
    torch.testing.assert_close(single.mask_features.double(), exact.mask_features, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(('change', 'message'), [
    pytest.param({'in_features': ('res4', 'res5')}, 'must name three or four backbone stages', id='two maps'),
    pytest.param({'in_features': ('res3', 'res4', 'res6')}, "are not among the backbone's", id='unknown map'),
    pytest.param({'nheads': 3}, '32 channels are no multiple of 3 heads', id='heads'),
    pytest.param({'convs_dim': 40}, 'convs_dim 40 must be a multiple of 32', id='width'),
    pytest.param({'norm': 'BN'}, "norm 'BN' is unknown", id='norm'),
    pytest.param({'kernel': 'cuda'}, "kernel 'cuda' is unknown; choose one of", id='kernel'),
])
def test_values_that_cannot_be_are_refused(change, message):
    settings = {'in_features': tuple(CHANNELS), **SMALL, **change}
    with pytest.raises(ValueError, match=message):
        MSDeformAttnPixelDecoder(CHANNELS, **settings)


@pytest.mark.parametrize('encoder', ['ppm-fpn', 'msdeformattn'])
@pytest.mark.parametrize(('decoder', 'makes_mask_features'), [('dual-path', False), ('masked-attention', True)])
def test_mask_features_are_made_for_a_decoder_that_wants_them(encoder, decoder, makes_mask_features):
    network = build_network(_section(encoder, decoder))
    keys = [key for key in network.state_dict() if 'pixel_decoder.mask_features' in key]
    assert bool(keys) == makes_mask_features
    output = network([torch.rand(3, 64, 96) * 255])
    assert output.final.masks.shape == (1, 9, 8, 12)


def test_widths_of_mask_features_must_agree():
    config = _section('msdeformattn', 'masked-attention')
    config['encoder']['mask_dim'] = 24
    with pytest.raises(ValueError, match='model.encoder.mask_dim 24 and model.decoder.mask_dim 16 must be equal'):
        build_network(config)


def _section(encoder: str, decoder: str) -> dict:
    config = model_config()
    small = {'in_features': ['res3', 'res4', 'res5'], 'convs_dim': 32, 'type': encoder}
    if encoder == 'msdeformattn':
        small |= {'nheads': 2, 'enc_layers': 1, 'dim_feedforward': 32}
    config['encoder'] = small
    config['decoder'] = {'type': decoder, 'num_classes': 3, 'hidden_dim': 32, 'num_queries': 9, 'nheads': 2,
                         'dim_feedforward': 32, 'dec_layers': 2, 'mask_dim': 16}
    return config
