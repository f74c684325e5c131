"""ResNet-D backbones (He et al., CVPR 2019, arXiv 1812.01187) with timm's names, optionally with deformable stages.

The published R50-d-DCN models have timm's ``resnet50d`` with deformable convolution (version 1) in stages 3 and 4.
"""
from __future__ import annotations

from collections.abc import Collection, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from .convolution import FrozenBatchNorm2d, build_norm
from .deformable import DeformableConv2d
from .resnet import STAGE_BLOCKS, STAGES

LAYERS = ('layer1', 'layer2', 'layer3', 'layer4')


class BottleneckD(nn.Module):
    """1x1, 3x3 and 1x1 convolutions; a shortcut that halves by average pooling instead of skipping pixels."""

    # which norm belongs to which convolution, for folding
    norm_of = {'conv1': 'bn1', 'conv2': 'bn2', 'conv3': 'bn3'}

    def __init__(self, in_channels: int, width: int, *, stride: int, norm: str, shortcut: bool, deformable: bool,
                 modulated: bool):
        super().__init__()
        out_channels = 4 * width
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = build_norm(norm, width)
        self.conv2_offset = None
        if deformable:
            self.conv2 = DeformableConv2d(width, width, stride=stride, modulated=modulated)
            self.conv2_offset = self.conv2.offset_convolution()
        else:
            self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = build_norm(norm, width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = build_norm(norm, out_channels)
        self.downsample = Shortcut(in_channels, out_channels, stride, norm) if shortcut else None

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = F.relu_(self.bn1(self.conv1(x)))
        out = self.conv2(out) if self.conv2_offset is None else self.conv2(out, self.conv2_offset)
        out = self.bn3(self.conv3(F.relu_(self.bn2(out))))
        return F.relu_(out.add_(shortcut))


class Shortcut(nn.Sequential):
    """Average pooling where the block has a stride, 1x1 convolution, norm."""

    norm_of = {'1': '2'}

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: str):
        pool = nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False) if stride == 2 else nn.Identity()
        super().__init__(pool, nn.Conv2d(in_channels, out_channels, 1, bias=False), build_norm(norm, out_channels))


class DeepStem(nn.Sequential):
    """Three 3x3 convolutions in the place of the 7x7 one; the last one's norm is the backbone's ``bn1``."""

    norm_of = {'0': '1', '3': '4'}

    def __init__(self, width: int, out_channels: int, norm: str):
        super().__init__(
            nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False), build_norm(norm, width), nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False), build_norm(norm, width), nn.ReLU(inplace=True),
            nn.Conv2d(width, out_channels, 3, padding=1, bias=False))


class ResNetD(nn.Module):
    """A ResNet-D that returns the feature maps of the stages asked for.

    Keys are timm's: ``conv1.{0,3,6}``, ``conv1.{1,4}`` and ``bn1`` (norms), ``layer{1..4}.{block}.{conv1,bn1,...}``,
    ``downsample.{1,2}``, and ``conv2_offset`` in deformable blocks. Stage names are those of the other backbones:
    ``res2`` is ``layer1``.

    Args:
        depth: 50, 101 or 152.
        norm: one of ``convolution.NORMS`` but the empty one; the published models have ``'FrozenBN'``.
        out_features: names of the stages to return; later stages are not built.
        stem_width: channels inside the stem.
        stem_out_channels: channels after it.
        res2_out_channels: output channels of the first stage, doubled at each further one; a multiple of 4.
        deform_stages: numbers (1 to 4) of the stages whose 3x3 convolutions are all deformable; the published models
            have ``[3, 4]``.
        deform_modulated: modulated deformable convolution (version 2), for one's own training.
        freeze_at: how many leading parts (1: stem, 2: stem and res2, ...) are not trained.

    Raises:
        ValueError: naming the setting and its value.
    """

    norm_of = {'conv1.6': 'bn1'}

    def __init__(self, depth: int = 50, *, norm: str = 'FrozenBN',
                 out_features: Sequence[str] = ('res3', 'res4', 'res5'), stem_width: int = 32,
                 stem_out_channels: int = 64, res2_out_channels: int = 256, deform_stages: Collection[int] = (),
                 deform_modulated: bool = False, freeze_at: int = 0):
        super().__init__()
        depths = [known for known in STAGE_BLOCKS if known >= 50]
        if depth not in depths:
            raise ValueError(f'backbone depth {depth} is unknown for resnet_d; choose one of {depths}')
        unknown = [name for name in out_features if name not in STAGES]
        if unknown or not out_features:
            raise ValueError(f'backbone out_features {list(out_features)} must be some of {list(STAGES)}')
        if not norm:
            raise ValueError('backbone norm is empty; resnet_d has no biases and needs one, such as "FrozenBN"')
        if res2_out_channels % 4:
            raise ValueError(f'backbone res2_out_channels {res2_out_channels} is not a multiple of 4')
        wrong = [stage for stage in deform_stages if stage not in (1, 2, 3, 4)]
        if wrong:
            raise ValueError(f'backbone deform_stages {list(deform_stages)} must be some of [1, 2, 3, 4]')
        self.out_features = tuple(out_features)
        self.channels: dict[str, int] = {}
        self.strides: dict[str, int] = {}
        self.conv1 = DeepStem(stem_width, stem_out_channels, norm)
        self.bn1 = build_norm(norm, stem_out_channels)

        in_channels, width = stem_out_channels, res2_out_channels // 4
        last = max(STAGES.index(name) for name in out_features)
        for index, (name, layer) in enumerate(zip(STAGES[:last + 1], LAYERS, strict=False)):
            blocks = []
            for block in range(STAGE_BLOCKS[depth][index]):
                blocks.append(BottleneckD(in_channels, width, stride=2 if index and not block else 1, norm=norm,
                                          shortcut=not block, deformable=index + 1 in deform_stages,
                                          modulated=deform_modulated))
                in_channels = 4 * width
            self.add_module(layer, nn.Sequential(*blocks))
            if name in self.out_features:
                self.channels[name], self.strides[name] = in_channels, 4 << index
            width *= 2

        offsets = {id(block.conv2_offset) for block in self.modules() if isinstance(block, BottleneckD)}
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and id(module) not in offsets:
                nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
        self._freeze(freeze_at)

    def _freeze(self, freeze_at: int) -> None:
        for names in (('conv1', 'bn1'), *((layer,) for layer in LAYERS))[:freeze_at]:
            for name in names:
                if hasattr(self, name):
                    setattr(self, name, _frozen(getattr(self, name)))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Feature maps by stage name.

        Args:
            x: normalised images ``[B, 3, H, W]``, H and W multiples of 32.

        Returns:
            ``{name: [B, channels[name], H / strides[name], W / strides[name]]}``.
        """
        features = {}
        x = F.max_pool2d(F.relu_(self.bn1(self.conv1(x))), kernel_size=3, stride=2, padding=1)
        for name, layer in zip(STAGES, LAYERS, strict=True):
            if not hasattr(self, layer):
                break
            x = getattr(self, layer)(x)
            if name in self.out_features:
                features[name] = x
        return features


def _frozen(module: nn.Module) -> nn.Module:
    """The module without anything to train: no gradients, and frozen norms in the place of others."""
    if getattr(module, 'running_mean', None) is not None:
        return FrozenBatchNorm2d(module.num_features)
    module.requires_grad_(False)
    for name, child in module.named_children():
        setattr(module, name, _frozen(child))
    return module
