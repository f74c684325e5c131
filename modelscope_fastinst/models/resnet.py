"""ResNet backbones (He et al., 2015) with detectron2's names and layout.

The stride sits in the 3x3 convolution unless ``stride_in_1x1`` is set, as in torchvision's weights ("v1.5").
"""
from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from .convolution import ConvNorm, FrozenBatchNorm2d

STAGE_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
STAGES = ('res2', 'res3', 'res4', 'res5')


class Stem(nn.Module):
    """7x7 convolution with stride 2, norm, ReLU, 3x3 max-pool with stride 2: ``[B, 3, H, W]`` to stride 4."""

    def __init__(self, out_channels: int, norm: str):
        super().__init__()
        self.conv1 = ConvNorm(3, out_channels, 7, stride=2, padding=3, norm=norm, activation=F.relu_)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(self.conv1(x), kernel_size=3, stride=2, padding=1)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, for ResNet 18 and 34."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, norm: str, dilation: int = 1):
        super().__init__()
        self.shortcut = (ConvNorm(in_channels, out_channels, 1, stride=stride, norm=norm)
                         if in_channels != out_channels or stride != 1 else None)
        self.conv1 = ConvNorm(in_channels, out_channels, 3, stride=stride, padding=dilation, dilation=dilation,
                              norm=norm, activation=F.relu_)
        self.conv2 = ConvNorm(out_channels, out_channels, 3, padding=dilation, dilation=dilation, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return F.relu_(self.conv2(self.conv1(x)).add_(shortcut))


class BottleneckBlock(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut, for ResNet 50 and deeper."""

    def __init__(self, in_channels: int, out_channels: int, *, bottleneck_channels: int, stride: int, norm: str,
                 dilation: int = 1, groups: int = 1, stride_in_1x1: bool = False):
        super().__init__()
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.shortcut = (ConvNorm(in_channels, out_channels, 1, stride=stride, norm=norm)
                         if in_channels != out_channels or stride != 1 else None)
        self.conv1 = ConvNorm(in_channels, bottleneck_channels, 1, stride=stride_1x1, norm=norm, activation=F.relu_)
        self.conv2 = ConvNorm(bottleneck_channels, bottleneck_channels, 3, stride=stride_3x3, padding=dilation,
                              dilation=dilation, groups=groups, norm=norm, activation=F.relu_)
        self.conv3 = ConvNorm(bottleneck_channels, out_channels, 1, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return F.relu_(self.conv3(self.conv2(self.conv1(x))).add_(shortcut))


class ResNet(nn.Module):
    """A ResNet that returns the feature maps of the stages asked for.

    Keys: ``stem.conv1``, ``res{2..5}.{block}.{conv1,conv2,conv3,shortcut}``, each with ``weight`` and ``norm.*``.

    Args:
        depth: 18, 34 (basic blocks), 50, 101 or 152 (bottlenecks).
        norm: one of ``convolution.NORMS``; the published models have ``'FrozenBN'``.
        out_features: names of the stages to return; later stages are not built.
        stem_out_channels: width of the stem.
        res2_out_channels: output width of the first stage, doubled at each further one; by default 64 for basic blocks
            and 256 for bottlenecks.
        num_groups, width_per_group: groups of the 3x3 convolution and channels of each in the first stage.
        stride_in_1x1: stride in the first 1x1 convolution instead of the 3x3 one.
        res4_dilation, res5_dilation: dilation in place of stride in the last stages (1 or 2).
        res5_multi_grid: factors on the dilation of the blocks of the last stage.
        freeze_at: how many leading parts (1: stem, 2: stem and res2, ...) are not trained.
    """

    def __init__(self, depth: int = 50, *, norm: str = 'FrozenBN',
                 out_features: Sequence[str] = ('res3', 'res4', 'res5'), stem_out_channels: int = 64,
                 res2_out_channels: int | None = None, num_groups: int = 1, width_per_group: int = 64,
                 stride_in_1x1: bool = False, res4_dilation: int = 1, res5_dilation: int = 1,
                 res5_multi_grid: Sequence[int] = (1, 1, 1), freeze_at: int = 0):
        super().__init__()
        if depth not in STAGE_BLOCKS:
            raise ValueError(f'backbone depth {depth} is unknown; choose one of {sorted(STAGE_BLOCKS)}')
        unknown = [name for name in out_features if name not in STAGES]
        if unknown or not out_features:
            raise ValueError(f'backbone out_features {list(out_features)} must be some of {list(STAGES)}')
        basic = depth in (18, 34)
        self.out_features = tuple(out_features)
        self.channels: dict[str, int] = {}
        self.strides: dict[str, int] = {}
        self.stem = Stem(stem_out_channels, norm)

        in_channels, stride_so_far = stem_out_channels, 4
        out_channels = res2_out_channels or (64 if basic else 256)
        bottleneck_channels = num_groups * width_per_group
        last = max(STAGES.index(name) for name in out_features)
        for index, name in enumerate(STAGES[:last + 1]):
            dilation = {'res4': res4_dilation, 'res5': res5_dilation}.get(name, 1)
            stride = 1 if index == 0 or dilation > 1 else 2
            blocks: list[nn.Module] = []
            for block in range(STAGE_BLOCKS[depth][index]):
                block_stride = stride if block == 0 else 1
                if basic:
                    blocks.append(BasicBlock(in_channels, out_channels, stride=block_stride, norm=norm,
                                             dilation=dilation))
                else:
                    grid = res5_multi_grid[block % len(res5_multi_grid)] if name == 'res5' else 1
                    blocks.append(BottleneckBlock(
                        in_channels, out_channels, bottleneck_channels=bottleneck_channels, stride=block_stride,
                        norm=norm, dilation=dilation * grid, groups=num_groups, stride_in_1x1=stride_in_1x1))
                in_channels = out_channels
            self.add_module(name, nn.Sequential(*blocks))
            stride_so_far *= stride
            if name in self.out_features:
                self.channels[name], self.strides[name] = out_channels, stride_so_far
            out_channels *= 2
            bottleneck_channels *= 2

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self._freeze(freeze_at)

    def _freeze(self, freeze_at: int) -> None:
        for name in ('stem', *STAGES)[:freeze_at]:
            if not hasattr(self, name):
                break
            part = getattr(self, name)
            part.requires_grad_(False)
            for module in part.modules():
                if isinstance(module, ConvNorm) and module.norm is not None:
                    module.norm = FrozenBatchNorm2d(module.out_channels)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Feature maps by stage name.

        Args:
            x: normalised images ``[B, 3, H, W]``, H and W multiples of 32.

        Returns:
            ``{name: [B, channels[name], H / strides[name], W / strides[name]]}``.
        """
        features = {}
        x = self.stem(x)
        for name in STAGES:
            if not hasattr(self, name):
                break
            x = getattr(self, name)(x)
            if name in self.out_features:
                features[name] = x
        return features
