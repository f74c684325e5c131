"""What a weight file is: FastInst under its published names, or an ImageNet backbone under one of three namings."""
from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from .backbones import BackboneKind, backbone_kind, from_torchvision
from .formats import CheckpointError
from .reading import WeightFile

FASTINST = ('fastinst', 'fastinst-authors', 'fastinst-modelscope')
KINDS = {
    'fastinst': 'FastInst under the published names',
    'fastinst-authors': 'FastInst as its authors release it (detectron2\'s wrapping)',
    'fastinst-modelscope': 'FastInst as ModelScope\'s hub has it',
    'torchvision': 'ImageNet backbone under torchvision\'s names',
    'timm': 'ImageNet backbone under timm\'s names',
    'detectron2': 'ImageNet backbone under detectron2\'s names',
}
UNDERSTOOD = ('FastInst (the authors\' .pth, a bare state dict, ModelScope\'s pytorch_model.pt, model.safetensors), '
              'and ImageNet backbones: torchvision\'s ResNets, timm\'s resnet50d, detectron2\'s .pkl')

CLASSIFIER = 'the ImageNet classifier, which FastInst does not have'
COUNTER = 'a counter of batches, which a frozen batch norm does not have'
# How the names of those end.
COUNTER_NAME = '.num_batches_tracked'
CLASS_WEIGHTS = 'the constant class weights of the loss, no weights of the network'

# What tells other people's networks, by a part of their keys.
_OTHERS = (
    ('sem_seg_head.predictor.query_feat.', 'Mask2Former'),
    ('sem_seg_head.predictor.static_query.', 'Mask2Former'),
    ('sem_seg_head.predictor.label_enc.', 'MaskDINO'),
    ('sem_seg_head.predictor.enc_output.', 'MaskDINO'),
    ('panoptic_head.', 'MMDetection\'s Mask2Former'),
    ('transformer_module.decoder.queries_embedder.', 'Transformers\' Mask2Former'),
    ('sem_seg_head.predictor.query_embed.', 'MaskFormer'),
    ('proposal_generator.rpn_head.', 'detectron2\'s Mask R-CNN or Faster R-CNN'),
    ('roi_heads.', 'Mask R-CNN or Faster R-CNN'),
    ('roi_head.', 'MMDetection\'s Mask R-CNN or Faster R-CNN'),
    ('encoder.inst_branch', 'SparseInst'),
    ('decoder.inst_branch', 'SparseInst'),
    ('class_embed.weight', 'DETR'),
    ('patch_embed.', 'a Swin or vision transformer'),
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
        backbone: which ResNet it is, or has.
        names: of every key of the file the published name, with ``backbone.`` or ``sem_seg_head.`` in front.
        left_out: of every key that has none the reason.
        remarks: what the user should know of this file.
    """
    file: WeightFile
    kind: str
    backbone: BackboneKind
    names: dict[str, str]
    left_out: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @property
    def backbone_only(self) -> bool:
        """Whether it is an ImageNet backbone, without a decoder."""
        return self.kind not in FASTINST

    @property
    def description(self) -> str:
        """What it is, in words."""
        return f'{KINDS[self.kind]}, {self.backbone.name}'


def recognise(file: WeightFile) -> Source:
    """Says which of ``KINDS`` a file is, by its keys, and gives every key its published name.

    Raises:
        CheckpointError: it is another network's, or nothing known; the message says what was seen and what is read.
    """
    keys = set(file.state)
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


def _imagenet(file: WeightFile) -> Source | None:
    prefix = next((prefix for prefix in _PREFIXES if all(key.startswith(prefix) for key in file.state)
                   and backbone_kind(key[len(prefix):] for key in file.state)), None)
    if prefix is None:
        return None
    plain = {key: key[len(prefix):] for key in file.state}
    backbone = backbone_kind(plain.values())
    if backbone.type == 'resnet_d':
        kind = 'timm'
    elif 'stem.conv1.weight' in plain.values():
        kind = 'detectron2'
    else:
        kind = 'torchvision'
    names, left_out = {}, {}
    for key, name in plain.items():
        if re.fullmatch(r'(stem\.)?fc\.(weight|bias)', name):
            left_out[key] = CLASSIFIER
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
