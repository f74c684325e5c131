"""Convolutions with their norms in training, where shortcuts are taken."""
from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from modelscope_fastinst.models.convolution import ConvNorm, FrozenBatchNorm2d, GroupNorm


def frozen(bias: bool) -> ConvNorm:
    torch.manual_seed(0)
    conv = ConvNorm(4, 6, 3, padding=1, norm='FrozenBN', bias=bias, activation=F.relu_)
    for buffer in conv.norm.buffers():
        buffer.uniform_(0.5, 2)
    return conv


@pytest.mark.parametrize('bias', [False, True])
@pytest.mark.parametrize('amp', [pytest.param(False, id='float32'), pytest.param(True, id='bfloat16')])
def test_a_frozen_norm_trains_like_a_convolution_and_then_a_norm(amp, bias):
    conv, x = frozen(bias), torch.randn(2, 4, 8, 8)
    found, expected = [], []
    for results, run in ((found, conv), (expected, lambda x: F.relu(conv.norm(conv._conv_forward(x, conv.weight,
                                                                                                   conv.bias))))):
        conv.zero_grad()
        leaf = x.clone().requires_grad_()
        with torch.autocast('cpu', torch.bfloat16, enabled=amp):
            y = run(leaf)
        (y.float() * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
        results += [y.detach().float(), leaf.grad, *(p.grad.clone() for p in conv.parameters())]
    for a, b in zip(found, expected, strict=True):
        assert (a - b).norm() <= (0.1 if amp else 1e-6) * b.norm()   # a ReLU flips now and then


def test_a_frozen_norm_without_gradients_is_batch_norm():
    conv, x = frozen(False), torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(conv(x), F.relu(conv.norm(F.conv2d(x, conv.weight, padding=1))), rtol=0, atol=0)
    assert isinstance(conv.norm, FrozenBatchNorm2d)


def test_group_norm_in_bfloat16_has_the_gradients_of_float32():
    torch.manual_seed(0)
    norm = GroupNorm(4, 8)
    x = torch.randn(2, 8, 6, 6).to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
    gradients = []
    for leaf in (x.clone().requires_grad_(), x.float().requires_grad_()):
        y = norm(leaf)
        assert y.dtype == leaf.dtype
        (y.float() ** 3).sum().backward()
        gradients.append(leaf.grad.float())
    assert (gradients[0] - gradients[1]).norm() < 0.02 * gradients[1].norm()
