"""Backbones by their state-dict keys: which one it is, and its parts under the published names.

Three families of names are the published ones: detectron2's (``stem``, ``res2`` to ``res5``) for ResNet, timm's
(``conv1.0``, ``layer1`` to ``layer4``) for ResNet-D, the authors' (``patch_embed``, ``layers.0`` to ``layers.3``) for
Swin. torchvision's ``layerN`` and ``bnN`` become detectron2's, its ``features.N`` the Swin authors'.
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
    ('swin', 'Swin-T'): ('mask2former_coco_panoptic_swin_t', 'mask2former_coco_instance_swin_t'),
    ('swin', 'Swin-S'): ('mask2former_coco_panoptic_swin_s', 'mask2former_coco_instance_swin_s'),
    ('swin', 'Swin-B'): ('mask2former_coco_panoptic_swin_b', 'mask2former_coco_instance_swin_b'),
    ('swin', 'Swin-L'): ('mask2former_coco_panoptic_swin_l', 'mask2former_coco_instance_swin_l'),
}
_STAGE = re.compile(r'(?:res|layer)(\d)\.(\d+)\.(\w+)')
# By the width of the first stage and the blocks of all.
_SWINS = {(96, (2, 2, 6, 2)): 'Swin-T', (96, (2, 2, 18, 2)): 'Swin-S', (128, (2, 2, 18, 2)): 'Swin-B',
          (192, (2, 2, 18, 2)): 'Swin-L'}
# A Swin's blocks by the authors' names, and torchvision's, which count merging layers in between.
_SWIN_BLOCK = re.compile(r'layers\.(\d)\.blocks\.(\d+)\.norm1\.')
_TORCHVISION_SWIN = re.compile(r'features\.(\d)\.(?:(\d+)\.(?=\w+\.))?')
_BLOCK_NAMES = (('downsample.0.', 'shortcut.'), ('downsample.1.', 'shortcut.norm.'), ('bn1.', 'conv1.norm.'),
                ('bn2.', 'conv2.norm.'), ('bn3.', 'conv3.norm.'))


@dataclass(frozen=True)
class BackboneKind:
    """Which ResNet or Swin it is.

    Attributes:
        type: as in the configuration, ``'resnet'``, ``'resnet_d'`` or ``'swin'``.
        blocks: of each stage that is there, first to last.
        bottleneck: blocks of three convolutions instead of two.
        width: of a Swin's first stage, which keys do not tell; None where it was not looked up.
    """
    type: str
    blocks: tuple[int, ...]
    bottleneck: bool
    width: int | None = None

    @property
    def depth(self) -> int | None:
        """18, 34, 50, 101 or 152; None for another number of blocks, and for a Swin."""
        if self.type == 'swin':
            return None
        return next((depth for depth, blocks in STAGE_BLOCKS.items()
                     if blocks[:len(self.blocks)] == self.blocks and (depth >= 50) == self.bottleneck), None)

    @property
    def name(self) -> str:
        """'ResNet-50', 'ResNet-50-d', 'Swin-T', or what is known of another."""
        if self.type == 'swin':
            return _SWINS.get((self.width, self.blocks), f'Swin of {"-".join(map(str, self.blocks))} blocks')
        if self.depth is None:
            return f'ResNet of {"-".join(map(str, self.blocks))} blocks'
        return f'ResNet-{self.depth}' + ('-d' if self.type == 'resnet_d' else '')

    @property
    def configurations(self) -> tuple[str, ...]:
        """The published configurations with this backbone; empty if there are none."""
        return CONFIGURATIONS.get((self.type, self.name if self.type == 'swin' else self.depth), ())


def backbone_kind(keys: Iterable[str]) -> BackboneKind | None:
    """The backbone behind keys without prefix, of any of the namings; None if it is none that is known."""
    keys = set(keys)
    return _swin_kind(keys) or _resnet_kind(keys)


def _swin_kind(keys: set[str]) -> BackboneKind | None:
    """Of version 1: the second, which scales its attention, is another network."""
    names = {from_torchvision(key) for key in keys if key.startswith('features.')} or keys
    if 'patch_embed.proj.weight' not in names or any(name.endswith('.logit_scale') for name in names):
        return None
    found = [(int(match[1]), int(match[2])) for match in map(_SWIN_BLOCK.match, names) if match]
    stages = 1 + max((stage for stage, _ in found), default=-1)
    counts = tuple(len({block for own, block in found if own == stage}) for stage in range(stages))
    return BackboneKind('swin', counts, False) if counts else None


def _resnet_kind(keys: set[str]) -> BackboneKind | None:
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

    This is the renaming that the authors' own converter has, but does not call. Of a Swin:
    'features.3.1.mlp.3.bias' -> 'layers.1.blocks.1.mlp.fc2.bias'.
    """
    if key.startswith('features.'):
        return _from_torchvision_swin(key)
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


def _from_torchvision_swin(key: str) -> str:
    match = _TORCHVISION_SWIN.match(key)
    if match is None:
        return key
    index, block, rest = int(match[1]), match[2], key[match.end():]
    if index == 0:
        return key.replace('features.0.0.', 'patch_embed.proj.').replace('features.0.2.', 'patch_embed.norm.')
    if block is None:
        return f'layers.{index // 2 - 1}.downsample.{rest}'
    rest = rest.replace('mlp.0.', 'mlp.fc1.').replace('mlp.3.', 'mlp.fc2.')
    return f'layers.{index // 2}.blocks.{block}.{rest}'


def stage_of(key: str) -> int | None:
    """1 to 4 for a key inside a stage, by any of the namings; None for the stem and the classifier.

    The layer that merges patches for a Swin's next stage belongs to the next, the norm of an output to its own.
    """
    swin = re.match(r'(?:layers\.(\d)\.(downsample)?|norm(\d)\.)', key)
    if swin:
        return int(swin[1] or swin[3]) + 1 + bool(swin[2])
    match = _STAGE.match(key)
    return int(match[1]) - key.startswith('res') if match else None
