"""ResNets by their state-dict keys: which one it is, and its parts under the published names.

Two families of names are the published ones: detectron2's (``stem``, ``res2`` to ``res5``) for ResNet, timm's
(``conv1.0``, ``layer1`` to ``layer4``) for ResNet-D. torchvision's ``layerN`` and ``bnN`` become detectron2's.
"""
from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..models.resnet import STAGE_BLOCKS

# Of the published models, by the type and the depth of their backbone.
CONFIGURATIONS = {
    ('resnet', 50): ('fastinst_d1_r50', 'fastinst_d3_r50'),
    ('resnet', 101): ('fastinst_d3_r101',),
    ('resnet_d', 50): ('fastinst_d1_r50d_dcn', 'fastinst_d3_r50d_dcn'),
}
_STAGE = re.compile(r'(?:res|layer)(\d)\.(\d+)\.(\w+)')
_BLOCK_NAMES = (('downsample.0.', 'shortcut.'), ('downsample.1.', 'shortcut.norm.'), ('bn1.', 'conv1.norm.'),
                ('bn2.', 'conv2.norm.'), ('bn3.', 'conv3.norm.'))


@dataclass(frozen=True)
class BackboneKind:
    """Which ResNet it is.

    Attributes:
        type: as in the configuration, ``'resnet'`` or ``'resnet_d'``.
        blocks: of each stage that is there, first to last.
        bottleneck: blocks of three convolutions instead of two.
    """
    type: str
    blocks: tuple[int, ...]
    bottleneck: bool

    @property
    def depth(self) -> int | None:
        """18, 34, 50, 101 or 152; None for another number of blocks."""
        return next((depth for depth, blocks in STAGE_BLOCKS.items()
                     if blocks[:len(self.blocks)] == self.blocks and (depth >= 50) == self.bottleneck), None)

    @property
    def name(self) -> str:
        """'ResNet-50', 'ResNet-50-d', or what is known of another."""
        if self.depth is None:
            return f'ResNet of {"-".join(map(str, self.blocks))} blocks'
        return f'ResNet-{self.depth}' + ('-d' if self.type == 'resnet_d' else '')

    @property
    def configurations(self) -> tuple[str, ...]:
        """The published configurations with this backbone; empty if there are none."""
        return CONFIGURATIONS.get((self.type, self.depth), ())


def backbone_kind(keys: Iterable[str]) -> BackboneKind | None:
    """The ResNet behind keys without prefix, of detectron2's, torchvision's or timm's naming; None if it is none."""
    keys = set(keys)
    blocks: dict[int, set[int]] = {}
    bottleneck = False
    for key in keys:
        match = _STAGE.match(key)
        if match:
            # detectron2 counts its stages from 2
            stage = int(match[1]) - key.startswith('res')
            blocks.setdefault(stage, set()).add(int(match[2]))
            bottleneck |= match[3] == 'conv3'
    deep = 'conv1.0.weight' in keys
    if not blocks or not (deep or keys & {'conv1.weight', 'stem.conv1.weight'}):
        return None
    counts = tuple(len(blocks.get(stage, ())) for stage in range(1, max(blocks) + 1))
    return BackboneKind('resnet_d' if deep else 'resnet', counts, bottleneck)


def from_torchvision(key: str) -> str:
    """'layer1.0.downsample.1.bias' -> 'res2.0.shortcut.norm.bias', 'bn1.weight' -> 'stem.conv1.norm.weight', and so on.

    This is the renaming that the authors' own converter has, but does not call.
    """
    match = _STAGE.match(key)
    if match:
        rest = key[match.start(3):]
        for theirs, ours in _BLOCK_NAMES:
            if rest.startswith(theirs):
                rest = ours + rest[len(theirs):]
                break
        return f'res{int(match[1]) + 1}.{match[2]}.{rest}'
    if key.startswith('bn1.'):
        return f'stem.conv1.norm.{key[len("bn1."):]}'
    return f'stem.{key}' if key.startswith('conv1.') else key


def stage_of(key: str) -> int | None:
    """1 to 4 for a key inside a stage, by any of the namings; None for the stem and the classifier."""
    match = _STAGE.match(key)
    return int(match[1]) - key.startswith('res') if match else None
