"""Multiply-adds of the parts that PyTorch's counter does not know by itself, and of the published Mask2Former."""
from __future__ import annotations

import pytest
import torch

from modelscope_fastinst.models.build import build_network
from modelscope_fastinst.models.complexity import count_multiply_adds
from modelscope_fastinst.models.deformable_attention import MSDeformAttn
from modelscope_fastinst.models.swin import WindowAttention

SMALL = {'depths': (2, 2, 6, 2), 'embed_dim': 96}
LARGE = {'depths': (2, 2, 18, 2), 'embed_dim': 192, 'num_heads': (6, 12, 24, 48), 'window_size': 12}


class Applied(torch.nn.Module):
    """A part as ``count_multiply_adds`` calls a network, with inputs of its own."""

    def __init__(self, part: torch.nn.Module, make_inputs):
        super().__init__()
        self.part, self.make_inputs = part, make_inputs

    def forward(self, images):
        return self.part(*self.make_inputs(images[0]))


def test_deformable_attention():
    shapes, channels, heads, points = ((3, 5), (6, 10)), 16, 2, 4
    pixels = sum(h * w for h, w in shapes)
    network = Applied(MSDeformAttn(channels, len(shapes), heads, points), lambda image: (
        image.new_zeros(1, pixels, channels), image.new_zeros(pixels, 2), image.new_zeros(1, pixels, channels), shapes))
    samples = heads * len(shapes) * points
    linear = pixels * channels * (2 * channels + 3 * samples)
    assert count_multiply_adds(network, 8, 8) == linear + 5 * pixels * samples * channels // heads


@pytest.mark.parametrize('shift', [0, 3])
def test_attention_in_windows(shift):
    channels, window, heads = 8, 7, 2
    network = Applied(WindowAttention(channels, (window, window), (shift, shift), heads),
                      lambda image: (image.new_zeros(1, 20, 14, channels),))   # padded to 21 x 14 pixels
    tokens = 21 * 14
    assert count_multiply_adds(network, 8, 8) == tokens * (4 * channels ** 2 + 2 * window ** 2 * channels)


@pytest.mark.parametrize(('backbone', 'queries', 'parameters', 'published'), [
    pytest.param({'depth': 50, 'out_features': ['res2', 'res3', 'res4', 'res5']}, 100, 44, 226, id='R50'),
    pytest.param({'depth': 101, 'out_features': ['res2', 'res3', 'res4', 'res5']}, 100, 63, 293, id='R101'),
    pytest.param({'type': 'swin', **SMALL}, 100, 47, 232, id='Swin-T'),
    pytest.param({'type': 'swin', **LARGE}, 200, 216, 868, id='Swin-L'),
])
def test_the_published_mask2former(backbone, queries, parameters, published):
    """Parameters in millions and multiply-adds in billions of the paper's table 1.

    The paper counts over 100 images of COCO at 800 to 1333 pixels, this at one size of their kind: all of the models
    then come out 1 to 2 % below.
    """
    with torch.device('meta'):
        network = build_network({'type': 'mask2former', 'backbone': backbone, 'encoder': {},
                                 'decoder': {'num_classes': 80, 'num_queries': queries}})
    assert round(sum(p.numel() for p in network.parameters()) / 1e6) == parameters
    assert count_multiply_adds(network, 800, 1088) / 1e9 == pytest.approx(published, rel=0.05)
