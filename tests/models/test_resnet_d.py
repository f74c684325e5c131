"""The ResNet-D backbone and its deformable convolutions, beyond what the golden vectors say."""
from __future__ import annotations

import pytest
import torch
from torch import nn

from modelscope_fastinst.models.deformable import DeformableConv2d
from modelscope_fastinst.models.fastinst import build_fastinst
from modelscope_fastinst.models.optimize import optimize_for_inference
from modelscope_fastinst.models.resnet_d import ResNetD
from tests.tiny import model_config

THIN = {'stem_width': 8, 'stem_out_channels': 8, 'res2_out_channels': 32}


def tiny_network(**backbone):
    config = model_config()
    config['backbone'] = {'type': 'resnet_d', **THIN, 'deform_stages': [3, 4], **backbone}
    return build_fastinst(config).eval()


@pytest.mark.parametrize('modulated', [pytest.param(False, id='version 1'), pytest.param(True, id='modulated')])
def test_without_offsets_it_is_an_ordinary_convolution(modulated):
    conv = DeformableConv2d(4, 6, stride=2, modulated=modulated)
    offsets = conv.offset_convolution()
    assert offsets.out_channels == (27 if modulated else 18)
    x = torch.randn(2, 4, 9, 12)
    plain = nn.functional.conv2d(x, conv.weight, stride=2, padding=1)
    torch.testing.assert_close(conv(x, offsets), plain * (0.5 if modulated else 1), atol=1e-5, rtol=0)


def test_an_offset_of_one_pixel_moves_what_is_read():
    conv = DeformableConv2d(1, 1)
    offsets = conv.offset_convolution()
    with torch.no_grad():
        offsets.bias[0::2] = 1.0   # dy of every tap; dx stays 0
    x = torch.randn(1, 1, 8, 8)
    below = torch.cat([x[:, :, 1:], torch.zeros(1, 1, 1, 8)], 2)
    plain = nn.functional.conv2d(below, conv.weight, padding=1)
    # the row over the image is padding for the ordinary convolution and the first row for the moved one
    torch.testing.assert_close(conv(x, offsets)[:, :, 1:], plain[:, :, 1:], atol=1e-5, rtol=0)


def test_it_stays_in_float32_under_autocast():
    conv = DeformableConv2d(4, 4)
    offsets = conv.offset_convolution()
    nn.init.normal_(offsets.bias)
    x = torch.randn(1, 4, 8, 8)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        inside = conv(x, offsets)
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, conv(x, offsets), atol=0, rtol=0)


def test_a_network_in_half_precision_stays_in_it():
    network = ResNetD(50, deform_stages=[4], **THIN).to(torch.bfloat16).eval()
    assert network(torch.randn(1, 3, 64, 64, dtype=torch.bfloat16))['res5'].dtype == torch.bfloat16


@pytest.mark.parametrize('options', [
    pytest.param({}, id='deformable stages 3 and 4'),
    pytest.param({'deform_modulated': True}, id='modulated'),
    pytest.param({'deform_stages': []}, id='no deformable stage'),
    pytest.param({'norm': 'BN'}, id='ordinary batch norm'),
])
def test_optimising_changes_nothing_but_rounding(options):
    torch.manual_seed(0)
    network = tiny_network(**options)
    for name, module in network.named_modules():
        if hasattr(module, 'running_mean'):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        if name.endswith('conv2_offset'):
            nn.init.normal_(module.weight, std=0.05)
            nn.init.normal_(module.bias, std=0.5)
    images = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    plain = network(images).final
    fast = optimize_for_inference(network)
    assert not any(hasattr(module, 'running_mean') for module in fast.modules())
    torch.testing.assert_close(fast(images).final.logits, plain.logits, rtol=0, atol=1e-3)
    torch.testing.assert_close(fast(images).final.masks, plain.masks, rtol=0, atol=1e-3)


@pytest.mark.parametrize(('out_features', 'shapes'), [
    pytest.param(['res3', 'res4', 'res5'], {'res3': (64, 8, 12), 'res4': (128, 4, 6), 'res5': (256, 2, 3)}, id='usual'),
    pytest.param(['res2', 'res4'], {'res2': (32, 16, 24), 'res4': (128, 4, 6)}, id='without the last stage'),
])
def test_stages(out_features, shapes):
    backbone = ResNetD(50, out_features=out_features, **THIN)
    found = backbone(torch.randn(1, 3, 64, 96))
    assert {name: tuple(features.shape[1:]) for name, features in found.items()} == shapes
    assert backbone.channels == {name: shape[0] for name, shape in shapes.items()}
    assert backbone.strides == {name: 64 // shape[1] for name, shape in shapes.items()}
    assert hasattr(backbone, 'layer4') == ('res5' in out_features)


def test_offsets_are_trained_and_frozen_parts_are_not():
    backbone = ResNetD(50, norm='BN', deform_stages=[3, 4], freeze_at=2, **THIN).train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    backbone(torch.randn(2, 3, 64, 64))['res5'].square().mean().backward()
    graded = {name for name, parameter in backbone.named_parameters() if parameter.grad is not None}
    assert {name.split('.')[0] for name in graded} == {'layer2', 'layer3', 'layer4'}
    assert backbone.layer3[0].conv2_offset.weight.grad.abs().sum() > 0
    changed = {name.split('.')[0] for name, value in backbone.state_dict().items() if not value.equal(before[name])}
    assert changed == {'layer2', 'layer3', 'layer4'}   # statistics of frozen norms stay


@pytest.mark.parametrize(('options', 'message'), [
    pytest.param({'depth': 18}, r'depth 18 is unknown for resnet_d; choose one of \[50, 101, 152\]', id='basic blocks'),
    pytest.param({'norm': ''}, 'norm is empty', id='no norm'),
    pytest.param({'deform_stages': [5]}, r'deform_stages \[5\] must be some of \[1, 2, 3, 4\]', id='fifth stage'),
    pytest.param({'out_features': ['res6']}, r"\['res6'\] must be some of", id='unknown stage'),
    pytest.param({'res2_out_channels': 30}, '30 is not a multiple of 4', id='odd width'),
    pytest.param({'groups': 2}, r"model.backbone has unknown keys \['groups'\]", id='unknown key'),
    pytest.param({'type': 'vgg'}, r"type 'vgg' is unknown; choose one of \['resnet', 'resnet_d', 'swin'\]", id='type'),
])
def test_wrong_settings_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        tiny_network(**options)
