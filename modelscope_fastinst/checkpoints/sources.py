"""What a weight file is: FastInst or Mask2Former under published names, or an ImageNet backbone under one of three."""
from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from .architecture import is_mask2former
from .backbones import BackboneKind, backbone_kind, from_torchvision
from .formats import CheckpointError
from .huggingface import CLASS_WEIGHTS, is_huggingface, translate
from .reading import WeightFile

FASTINST = ('fastinst', 'fastinst-authors', 'fastinst-modelscope')
MASK2FORMER = ('mask2former', 'mask2former-authors', 'mask2former-huggingface')
KINDS = {
    'fastinst': 'FastInst under the published names',
    'fastinst-authors': 'FastInst as its authors release it (detectron2\'s wrapping)',
    'fastinst-modelscope': 'FastInst as ModelScope\'s hub has it',
    'mask2former': 'Mask2Former under the published names',
    'mask2former-authors': 'Mask2Former as its authors release it (detectron2\'s wrapping)',
    'mask2former-huggingface': 'Mask2Former under Hugging Face\'s names',
    'torchvision': 'ImageNet backbone under torchvision\'s names',
    'timm': 'ImageNet backbone under timm\'s names',
    'detectron2': 'ImageNet backbone under detectron2\'s names',
    'swin': 'ImageNet backbone under the names of Swin\'s authors',
}
UNDERSTOOD = ('FastInst (the authors\' .pth, a bare state dict, ModelScope\'s pytorch_model.pt, model.safetensors), '
              'Mask2Former (the authors\' .pkl and .pth, Hugging Face\'s), and ImageNet backbones: torchvision\'s '
              'ResNets and Swins, timm\'s resnet50d, detectron2\'s .pkl, the Swin authors\' .pth')

CLASSIFIER = 'the ImageNet classifier, which FastInst does not have'
COUNTER = 'a counter of batches, which a frozen batch norm does not have'
# How the names of those end.
COUNTER_NAME = '.num_batches_tracked'
# How those end that follow from the size of Swin's windows: a file need not have them.
POSITIONS_NAME = '.relative_position_index'
WINDOW_CONSTANT = 'a constant that follows from the size of the windows'
COLOURS = 'the mean and deviation of the images, which are constants'

# What tells other people's networks, by a part of their keys.
_OTHERS = (
    ('sem_seg_head.predictor.label_enc.', 'MaskDINO'),
    ('sem_seg_head.predictor.enc_output.', 'MaskDINO'),
    ('panoptic_head.', 'MMDetection\'s Mask2Former'),
    ('transformer_module.queries_embedder.', 'Transformers\' MaskFormer or OneFormer'),
    ('sem_seg_head.predictor.query_embed.', 'MaskFormer'),
    ('proposal_generator.rpn_head.', 'detectron2\'s Mask R-CNN or Faster R-CNN'),
    ('roi_heads.', 'Mask R-CNN or Faster R-CNN'),
    ('roi_head.', 'MMDetection\'s Mask R-CNN or Faster R-CNN'),
    ('encoder.inst_branch', 'SparseInst'),
    ('decoder.inst_branch', 'SparseInst'),
    ('class_embed.weight', 'DETR'),
    ('attn.logit_scale', 'a Swin transformer of version 2'),
    ('cls_token', 'a vision transformer'),
    ('branch2a_w', 'a Caffe2 ResNet (MSRA\'s; for BGR images, with the stride in the 1x1 convolutions)'),
)
# Wrappers of training code around the keys.
_PREFIXES = ('', 'backbone.', 'module.', 'module.backbone.')


@dataclass
class Source:
    """A weight file that was recognised.

    Attributes:
        file: what was read.
        kind: one of ``KINDS``.
        backbone: which one it is, or has; None for one that is not known by name.
        names: of every key of the file the published name, with ``backbone.`` or ``sem_seg_head.`` in front.
        left_out: of every key that has none the reason.
        remarks: what the user should know of this file.
        joined: the keys, in order, of the published names whose tensors the file has in pieces.
    """
    file: WeightFile
    kind: str
    backbone: BackboneKind | None
    names: dict[str, str]
    left_out: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    joined: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def backbone_only(self) -> bool:
        """Whether it is an ImageNet backbone, without a decoder."""
        return self.kind not in FASTINST + MASK2FORMER

    @property
    def description(self) -> str:
        """What it is, in words."""
        return KINDS[self.kind] + (f', {self.backbone.name}' if self.backbone else '')

    def tensor(self, key: str) -> Tensor:
        """What the file has for the published name of this key, whole."""
        keys = self.joined.get(self.names[key])
        return self.file.state[key] if keys is None else torch.cat([self.file.state[part] for part in keys])

    def published(self) -> dict[str, Tensor]:
        """All tensors of the network by their published names."""
        return {name: self.tensor(key) for key, name in self.names.items()
                if self.joined.get(name, (key,))[0] == key}


def recognise(file: WeightFile) -> Source:
    """Says which of ``KINDS`` a file is, by its keys, and gives every key its published name.

    Raises:
        CheckpointError: it is another network's, or nothing known; the message says what was seen and what is read.
    """
    keys = set(file.state)
    source = _huggingface(file) or _mask2former(file)
    if source is not None:
        return source
    for part, name in _OTHERS:
        seen = next((key for key in keys if part in key), None)
        if seen:
            raise CheckpointError(f'{file.path}: holds another network: {name}, by its entry {seen}. What is read is '
                                  f'{UNDERSTOOD}')
    source = _fastinst(file) or _imagenet(file)
    if source is None:
        shown = ', '.join(list(file.state)[:4])
        raise CheckpointError(f'{file.path}: holds no network that is known here; its {len(keys)} entries begin with '
                              f'{shown}. What is read is {UNDERSTOOD}')
    return source


def _fastinst(file: WeightFile) -> Source | None:
    prefix = _prefix(file.state, ('', 'module.'), 'sem_seg_head.predictor.query_proposal.')
    if prefix is None:
        return None
    names, left_out = {}, {}
    for key in file.state:
        name = key[len(prefix):] if key.startswith(prefix) else key
        if name.endswith('criterion.empty_weight'):
            left_out[key] = CLASS_WEIGHTS
        else:
            names[key] = name
    backbone = backbone_kind(name.removeprefix('backbone.') for name in names.values() if name.startswith('backbone.'))
    if backbone is None:
        raise CheckpointError(f'{file.path}: holds a FastInst without a ResNet backbone; its keys are incomplete')
    kind = 'fastinst'
    if left_out:
        kind = 'fastinst-authors'
    elif any(name.endswith(COUNTER_NAME) for name in names.values()):
        kind = 'fastinst-modelscope'
    return Source(file, kind, backbone, names, left_out)


def _mask2former(file: WeightFile) -> Source | None:
    prefix = _prefix(file.state, ('', 'module.'), 'sem_seg_head.predictor.')
    if prefix is None:
        return None
    names, left_out = {}, {}
    for key in file.state:
        name = _as_published(key.removeprefix(prefix))
        if name.endswith('criterion.empty_weight'):
            left_out[key] = CLASS_WEIGHTS
        elif name in ('pixel_mean', 'pixel_std'):
            left_out[key] = COLOURS
        else:
            names[key] = name
    if not is_mask2former(names.values()):
        return None
    kind = 'mask2former-authors' if left_out else 'mask2former'
    return Source(file, kind, _own_backbone(file, names), names, left_out)


def _as_published(name: str) -> str:
    """The name that the authors' code gives to an entry of their older files when it loads it."""
    if name.startswith('sem_seg_head.') and not name.startswith(('sem_seg_head.predictor.',
                                                                 'sem_seg_head.pixel_decoder.')):
        name = 'sem_seg_head.pixel_decoder.' + name.removeprefix('sem_seg_head.')
    return name.replace('.predictor.static_query.', '.predictor.query_feat.')


def _huggingface(file: WeightFile) -> Source | None:
    if not is_huggingface(file.state):
        return None
    found = translate(file.state)
    # What no such network has stays under its own name, and is then found to be too much.
    names = found.names | {key: key for key in found.unknown}
    return Source(file, 'mask2former-huggingface', _own_backbone(file, found.names), names, found.left_out,
                  joined=found.joined)


def _own_backbone(file: WeightFile, names: Mapping[str, str]) -> BackboneKind | None:
    kind = backbone_kind(name.removeprefix('backbone.') for name in names.values() if name.startswith('backbone.'))
    width = next((len(file.state[key]) for key, name in names.items() if name == 'backbone.patch_embed.proj.weight'),
                 None)
    return kind and replace(kind, width=width)


def _imagenet(file: WeightFile) -> Source | None:
    prefix = next((prefix for prefix in _PREFIXES if all(key.startswith(prefix) for key in file.state)
                   and backbone_kind(key[len(prefix):] for key in file.state)), None)
    if prefix is None:
        return None
    plain = {key: key[len(prefix):] for key in file.state}
    backbone = backbone_kind(plain.values())
    if backbone.type == 'swin':
        kind = 'swin' if 'patch_embed.proj.weight' in plain.values() else 'torchvision'
        first = next(key for key, name in plain.items() if from_torchvision(name) == 'patch_embed.proj.weight')
        backbone = replace(backbone, width=len(file.state[first]))
    elif backbone.type == 'resnet_d':
        kind = 'timm'
    elif 'stem.conv1.weight' in plain.values():
        kind = 'detectron2'
    else:
        kind = 'torchvision'
    names, left_out = {}, {}
    for key, name in plain.items():
        if re.fullmatch(r'((stem\.)?fc|head|norm)\.(weight|bias)', name):
            left_out[key] = CLASSIFIER
        elif name.endswith((POSITIONS_NAME, '.attn_mask')):
            left_out[key] = WINDOW_CONSTANT
        else:
            names[key] = 'backbone.' + (from_torchvision(name) if kind == 'torchvision' else name)
    remarks = _doubts(file, plain) if kind == 'detectron2' else []
    return Source(file, kind, backbone, names, left_out, remarks)


def _prefix(state: Mapping[str, Tensor], prefixes: Collection[str], part: str) -> str | None:
    return next((prefix for prefix in prefixes if any(key.startswith(prefix + part) for key in state)), None)


def _doubts(file: WeightFile, plain: Mapping[str, str]) -> list[str]:
    """Signs that a backbone under detectron2's names is MSRA's, which has the keys of torchvision's."""
    warning = ('weights of MSRA\'s R-50.pkl and R-101.pkl are for BGR images in another scale, with the stride in the '
               '1x1 convolutions, and make a worse start here; take torchvision\'s')
    found = {name: file.state[key] for key, name in plain.items()}
    means, variances = (found.get(f'stem.conv1.norm.running_{what}') for what in ('mean', 'var'))
    if means is not None and variances is not None and not means.any() and bool(((variances - 1).abs() < 1e-4).all()):
        return [f'its batch norms have no statistics (means 0, variances 1), as in MSRA\'s files: {warning}']
    if 'torchvision' not in (file.author or '').lower():
        said = f'its author is given as {file.author!r}' if file.author else 'it does not say who made it'
        return [f'{said}, so it cannot be told from MSRA\'s: {warning}']
    return []
