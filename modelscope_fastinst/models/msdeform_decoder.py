"""Mask2Former's pixel decoder: a transformer of multi-scale deformable attention over three feature maps.

Mask2Former (Cheng et al., CVPR 2022, arXiv 2112.01527), section 3.3 and ``MSDeformAttnPixelDecoder`` of its repository.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..structures import PixelFeatures
from .convolution import ConvNorm, GroupNorm
from .deformable_attention import MSDeformAttn, Shapes
from .pixel_decoder import check_in_features, make_mask_features, resize
from .position import sine_positions

LEVELS = 3


class DeformableEncoderLayer(nn.Module):
    """Deformable self-attention and a feed-forward block, each with a shortcut and a layer norm after it."""

    def __init__(self, channels: int, nheads: int, dim_feedforward: int, num_points: int, kernel: str):
        super().__init__()
        self.self_attn = MSDeformAttn(channels, LEVELS, nheads, num_points, kernel)
        self.norm1 = nn.LayerNorm(channels)
        self.linear1 = nn.Linear(channels, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, channels)
        self.norm2 = nn.LayerNorm(channels)

    def forward(self, x: Tensor, positions: Tensor, references: Tensor, shapes: Shapes) -> Tensor:
        x = self.norm1(x + self.self_attn(x + positions, references, x, shapes))
        return self.norm2(x + self.linear2(F.relu_(self.linear1(x))))


class DeformableEncoder(nn.Module):
    """Lets the pixels of all maps look at each other. Keys: ``level_embed`` and ``encoder.layers.{i}``."""

    def __init__(self, channels: int, nheads: int, num_layers: int, dim_feedforward: int, num_points: int,
                 kernel: str):
        super().__init__()
        self.encoder = nn.Module()   # the published name between this module and its layers
        self.encoder.layers = nn.ModuleList(
            DeformableEncoderLayer(channels, nheads, dim_feedforward, num_points, kernel) for _ in range(num_layers))
        self.level_embed = nn.Parameter(torch.empty(LEVELS, channels))
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        for layer in self.encoder.layers:
            layer.self_attn.reset_parameters()
        nn.init.normal_(self.level_embed)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps ``[B, C, h, w]`` to maps of the same sizes."""
        shapes = [tuple(x.shape[-2:]) for x in maps]
        channels = self.level_embed.shape[1]
        positions = torch.cat([
            (sine_positions(*shape, channels, x.device).to(x) + embedding[:, None, None]).flatten(2)
            for shape, x, embedding in zip(shapes, maps, self.level_embed, strict=True)], dim=2).transpose(1, 2)
        references = torch.cat([pixel_centres(*shape, maps[0]) for shape in shapes])
        x = torch.cat([x.flatten(2).transpose(1, 2) for x in maps], dim=1)
        for layer in self.encoder.layers:
            x = layer(x, positions, references, shapes)
        parts = x.split([height * width for height, width in shapes], dim=1)
        return [part.transpose(1, 2).unflatten(2, shape) for part, shape in zip(parts, shapes, strict=True)]


def pixel_centres(height: int, width: int, like: Tensor) -> Tensor:
    """(x, y) in [0, 1] of every pixel's centre, row by row: ``[height * width, 2]`` of the dtype of ``like``."""
    y = (torch.arange(height, dtype=like.dtype, device=like.device) + 0.5) / height
    x = (torch.arange(width, dtype=like.dtype, device=like.device) + 0.5) / width
    return torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], dim=-1).flatten(0, 1)


class MSDeformAttnPixelDecoder(nn.Module):
    """Multi-scale deformable attention over the three coarsest maps; the finest of four joins by an FPN level.

    Keys: ``input_proj.{0,1,2}.{0,1}`` (0 is the coarsest), ``transformer``, and with a fourth map ``adapter_1``,
    ``layer_1``; ``mask_features``. All is computed in full precision, under autocast too, as the authors do. They train
    without dropout.

    Args:
        in_channels: channels of the backbone maps by name.
        in_features: their names, finest first: four as published (strides 4 to 32), or three, whose finest then takes
            the place of the FPN level.
        convs_dim: C, width of every map.
        mask_dim: width of the mask features, on the finest map; None for none, and then a fourth map is not used.
        nheads, enc_layers, dim_feedforward: attention heads, layers and hidden width of the transformer.
        num_points: points of each head in each map.
        norm: of the FPN level, ``'GN'`` or ``''`` (convolutions with a bias).
        kernel: ``'torch'``, or ``'mmcv'`` for mmcv's compiled kernel on GPUs.

    Raises:
        ValueError: maps that the backbone does not give, widths that heads or norms do not divide, an unknown value.
        ImportError: mmcv's kernel is asked for and not installed.
    """

    def __init__(self, in_channels: Mapping[str, int], in_features: Sequence[str], convs_dim: int = 256,
                 mask_dim: int | None = 256, nheads: int = 8, enc_layers: int = 6, dim_feedforward: int = 1024,
                 num_points: int = 4, norm: str | None = 'GN', kernel: str = 'torch'):
        super().__init__()
        check_in_features(in_features, in_channels, counts=(LEVELS, LEVELS + 1))
        if convs_dim % 32:
            raise ValueError(f'encoder convs_dim {convs_dim} must be a multiple of 32, the groups of its group norms')
        if norm not in ('GN', '', None):
            raise ValueError(f'encoder norm {norm!r} is unknown; choose "GN"')
        self.in_features = tuple(in_features)[-LEVELS:]
        self.fine_feature = in_features[0] if len(in_features) > LEVELS and mask_dim else None
        self.read_features = (*([self.fine_feature] if self.fine_feature else ()), *self.in_features)
        self.input_proj = nn.ModuleList(
            nn.Sequential(nn.Conv2d(in_channels[name], convs_dim, 1), GroupNorm(32, convs_dim))
            for name in reversed(self.in_features))
        for convolution, _ in self.input_proj:
            nn.init.xavier_uniform_(convolution.weight)
            nn.init.zeros_(convolution.bias)
        self.transformer = DeformableEncoder(convs_dim, nheads, enc_layers, dim_feedforward, num_points, kernel)
        if self.fine_feature:
            self.adapter_1 = ConvNorm(in_channels[self.fine_feature], convs_dim, 1, norm=norm or '')
            self.layer_1 = ConvNorm(convs_dim, convs_dim, 3, padding=1, norm=norm or '', activation=F.relu_)
            for module in (self.adapter_1, self.layer_1):
                nn.init.kaiming_uniform_(module.weight, a=1)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.mask_features = make_mask_features(convs_dim, mask_dim)

    def forward(self, features: Mapping[str, Tensor]) -> PixelFeatures:
        """Returns three maps ``[B, convs_dim, H/s, W/s]`` of the transformer, and mask features."""
        device = features[self.in_features[0]].device.type
        if device != 'meta' and torch.is_autocast_enabled(device):
            with torch.autocast(device, enabled=False):
                return self._decode({name: x.float() for name, x in features.items()})
        return self._decode(features)

    def _decode(self, features: Mapping[str, Tensor]) -> PixelFeatures:
        maps = self.transformer([project(features[name])
                                 for project, name in zip(self.input_proj, reversed(self.in_features), strict=True)])
        if self.mask_features is None:
            return PixelFeatures(maps)
        finest = maps[-1]
        if self.fine_feature:
            lateral = self.adapter_1(features[self.fine_feature])
            finest = self.layer_1(lateral + resize(finest, lateral.shape[-2:]))
        return PixelFeatures(maps, self.mask_features(finest))
