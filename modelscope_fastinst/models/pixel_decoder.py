"""The pixel decoder of FastInst: a feature pyramid over a pyramid pooling module."""
from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..structures import PixelFeatures
from .convolution import ConvNorm


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear resize of ``[B, C, H, W]`` to ``size`` = (height, width), corners not aligned."""
    return x if x.shape[-2:] == tuple(size) else F.interpolate(x, size=tuple(size), mode='bilinear',
                                                               align_corners=False)


def check_in_features(in_features: Sequence[str], in_channels: Mapping[str, int], counts: Sequence[int] = (3,)) -> None:
    """Raises a ValueError for another number of backbone maps than ``counts``, or maps that the backbone has not."""
    if len(in_features) not in counts:
        words = ' or '.join({3: 'three', 4: 'four'}[count] for count in counts)
        raise ValueError(f'encoder in_features must name {words} backbone stages, finest first; '
                         f'got {list(in_features)}')
    missing = [name for name in in_features if name not in in_channels]
    if missing:
        raise ValueError(f'encoder in_features {missing} are not among the backbone\'s out_features '
                         f'{list(in_channels)}')


def make_mask_features(channels: int, mask_dim: int | None) -> nn.Conv2d | None:
    """The 1x1 convolution that makes mask features of the finest map; None where the decoder makes its own."""
    if not mask_dim:
        return None
    convolution = nn.Conv2d(channels, mask_dim, 1)
    nn.init.kaiming_uniform_(convolution.weight, a=1)
    nn.init.zeros_(convolution.bias)
    return convolution


class PyramidPooling(nn.Module):
    """Pyramid pooling module (PSPNet, Zhao et al., 2017): context of the whole map at four grid sizes.

    Keys: ``stages.{0..3}.1`` (1x1 convolutions after the pooling) and ``bottleneck``.
    """

    def __init__(self, channels: int, grids: Sequence[int] = (1, 2, 3, 6)):
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(grid), nn.Conv2d(channels, channels // len(grids), 1))
            for grid in grids)
        self.bottleneck = nn.Conv2d(channels + channels // len(grids) * len(grids), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        context = [resize(F.relu_(stage(x)), x.shape[-2:]) for stage in self.stages]
        return F.relu_(self.bottleneck(torch.cat([*context, x], dim=1)))


class PyramidPoolingFPN(nn.Module):
    """PPM-FPN, the light pixel decoder of FastInst.

    ``y3 = layer_3(PPM(adapter_3(f3)))``, ``y2 = layer_2(adapter_2(f2) + up(y3))``,
    ``y1 = layer_1(adapter_1(f1) + up(y2))`` for backbone maps f1 (finest) to f3 (coarsest).
    Keys: ``adapter_{1,2,3}``, ``layer_{1,2,3}`` (1 is the finest), ``ppm``; ``mask_features`` where they are made.

    Args:
        in_channels: channels of the three backbone maps by name.
        in_features: their names, finest first.
        convs_dim: width of every output.
        norm: ``'GN'``, group norm after each convolution, as published. ``''`` is how configurations of ModelScope's
            own FastInst ask for convolutions with a bias; those have group norm as well.
        mask_dim: width of the mask features for a decoder that does not make its own, by a 1x1 convolution on the
            finest map; None for none.
    """

    def __init__(self, in_channels: Mapping[str, int], in_features: Sequence[str], convs_dim: int,
                 norm: str | None = 'GN', mask_dim: int | None = None):
        super().__init__()
        channels = convs_dim
        check_in_features(in_features, in_channels)
        if norm not in ('GN', '', None):
            raise ValueError(f'encoder norm {norm!r} is unknown; choose "GN"')
        self.in_features = self.read_features = tuple(in_features)
        for level, name in enumerate(self.in_features, start=1):
            adapter = ConvNorm(in_channels[name], channels, 1, norm='GN', bias=norm == '')
            layer = ConvNorm(channels, channels, 3, padding=1, norm='GN', bias=norm == '', activation=F.relu_)
            for module in (adapter, layer):
                nn.init.kaiming_uniform_(module.weight, a=1)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            self.add_module(f'adapter_{level}', adapter)
            self.add_module(f'layer_{level}', layer)
        self.ppm = PyramidPooling(channels)
        self.mask_features = make_mask_features(channels, mask_dim)

    def forward(self, features: Mapping[str, Tensor]) -> PixelFeatures:
        """Returns three maps ``[B, convs_dim, H/s, W/s]`` at the backbone maps' strides s, and mask features."""
        fine, middle, coarse = (features[name] for name in self.in_features)
        y3 = self.layer_3(self.ppm(self.adapter_3(coarse)))
        lateral = self.adapter_2(middle)
        y2 = self.layer_2(lateral + resize(y3, lateral.shape[-2:]))
        lateral = self.adapter_1(fine)
        y1 = self.layer_1(lateral + resize(y2, lateral.shape[-2:]))
        return PixelFeatures([y3, y2, y1], None if self.mask_features is None else self.mask_features(y1))
