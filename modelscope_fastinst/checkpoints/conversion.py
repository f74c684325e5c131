"""From a recognised weight file into a network, strictly: every key of either side is accounted for."""
from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from .backbones import BackboneKind, backbone_kind, stage_of
from .formats import CheckpointError
from .loading import UNTRAINED_BIAS
from .reading import read_weights
from .sources import COUNTER, COUNTER_NAME, MASK2FORMER, POSITIONS_NAME, Source, recognise

NOT_BACKBONE = 'not a part of the backbone'
LATER_STAGE = 'a stage that the backbone of the network does not have'
ZERO_BIAS = 'a bias of 0, which is none'
UNUSED_OUTPUT = 'the norm of an output that the backbone of the network does not give'
# A Swin's outputs have norms of their own, which no classifier has.
OUTPUT_NORM = re.compile(r'backbone\.norm\d\.')


@dataclass
class Conversion:
    """What became of a weight file's entries.

    Attributes:
        source: the file.
        kind: what it is, one of ``sources.KINDS``.
        description: the same in words, with the backbone.
        mapping: the network's key for each entry of the file that was taken over.
        new: keys of the network that keep their fresh initialisation.
        unused: the reason for each entry of the file that was left out.
        state: all tensors by the network's keys; the backbone's alone where only that was asked for.
        remarks: what the user should know besides.
    """
    source: Path
    kind: str
    description: str
    mapping: dict[str, str]
    new: list[str]
    unused: dict[str, str]
    state: dict[str, Tensor]
    remarks: list[str] = field(default_factory=list)

    @property
    def entries(self) -> int:
        """How many entries the file has: all are either mapped or unused."""
        return len(self.mapping) + len(self.unused)


def load_backbone(network: nn.Module, source: str | Path) -> Conversion:
    """Loads ImageNet weights, as users have them, into ``network.backbone``.

    torchvision's ResNets and Swins, timm's resnet50d, detectron2's ``.pkl``, the Swin authors' ``.pth``, what the
    converters of FastInst's and Mask2Former's authors write, and the backbone of a FastInst. Deformable stages keep
    the fresh (zero) initialisation of their offsets. With it those of version 1 compute what ordinary convolutions do;
    the modulated ones (version 2) half of that, because their masks are then sigmoid(0). The norms of a Swin's outputs
    stay fresh, for a classifier has none.

    Args:
        network: with a freshly initialised ``backbone`` under the published names.
        source: the file, or a model folder.

    Returns:
        The conversion; its ``new`` names what the file does not have, its ``unused`` what the backbone does not need.

    Raises:
        CheckpointError: the file cannot be read, is of another network or another backbone (the message names the
            configurations that fit), or misses something; the network is left as it was.
    """
    conversion = convert_weights(recognise(read_weights(source)), network, backbone_only=True)
    network.backbone.load_state_dict({key.removeprefix('backbone.'): tensor
                                      for key, tensor in conversion.state.items()}, strict=True)
    return conversion


def convert_weights(source: Source, network: nn.Module, backbone_only: bool = False) -> Conversion:
    """Brings a file's tensors under the keys of ``network``, which is left as it is.

    ImageNet backbones leave everything but the backbone new. Counters of batches that frozen norms do not have are
    left out; those of a whole FastInst that say something are carried along, so that nothing of it is lost.

    Raises:
        CheckpointError: the file is not of this network; the message counts what differs and shows the first of it.
    """
    file = source.file
    own = {key: tensor for key, tensor in network.state_dict().items()
           if not backbone_only or key.startswith('backbone.')}
    match = match_keys(source, own, backbone_only)
    if not match.complete:
        raise CheckpointError(f'{file.path}: {source.description}; {match.summary()}')
    state = {key: torch.zeros_like(tensor) if UNTRAINED_BIAS.search(key) else tensor
             for key, tensor in own.items()}
    state.update({name: source.tensor(key) for key, name in match.mapping.items()})
    unlike = next((name for name in match.mapping.values() if not bool(torch.isfinite(state[name]).all())), None)
    if unlike is not None:
        raise CheckpointError(f'{file.path}: {unlike} has values that are infinite or no numbers; the file is damaged')
    return Conversion(file.path, source.kind, source.description, match.mapping, match.new, match.unused, state,
                      list(source.remarks))


@dataclass
class KeyMatch:
    """Which key goes where, and which should and does not."""
    mapping: dict[str, str] = field(default_factory=dict)
    new: list[str] = field(default_factory=list)
    unused: dict[str, str] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=dict)
    wrong_backbone: str = ''

    @property
    def complete(self) -> bool:
        """Whether the file is the network's."""
        return not self.faults and not self.wrong_backbone

    def summary(self, shown: int = 3) -> str:
        """'2 missing (a, b), 1 of another shape (c (3,) instead of (4,))'."""
        if self.wrong_backbone:
            return self.wrong_backbone
        return 'not the weights of this network: ' + ', '.join(
            f'{len(items)} {title} ({", ".join(items[:shown])}{", ..." if len(items) > shown else ""})'
            for title, items in self.faults.items())


def match_keys(source: Source, own: Mapping[str, Tensor], backbone_only: bool = False) -> KeyMatch:
    """Compares the file's keys and shapes with a network's (whose tensors need not hold data)."""
    match = KeyMatch()
    target = backbone_kind(key.removeprefix('backbone.') for key in own if key.startswith('backbone.'))
    named = backbone_only or source.kind not in MASK2FORMER
    if named and (target is None or not _same_backbone(source.backbone, target)):
        match.wrong_backbone = _wrong_backbone(source, target)
        return match
    match.unused = dict(source.left_out)
    taken: set[str] = set()
    for key, name in source.names.items():
        if source.joined.get(name, (key,))[0] != key:   # a further piece of what was looked at already
            match.mapping[key] = name
            continue
        tensor = source.tensor(key)
        if name in own and name not in taken:
            taken.add(name)
            match.mapping[key] = name
            if tensor.shape != own[name].shape:
                match.faults.setdefault('of another shape', []).append(
                    f'{name} {tuple(tensor.shape)} instead of {tuple(own[name].shape)}')
            continue
        reason = _reason(source, name, tensor, target, backbone_only)
        if reason is None:
            match.faults.setdefault('unexpected', []).append(key)
        elif reason:
            match.unused[key] = reason
        else:
            match.mapping[key] = name
    match.new = [name for name in own if name not in taken and not name.endswith(POSITIONS_NAME)]
    missing = [name for name in match.new if not _may_be_new(source, name)]
    if missing:
        match.faults['missing'] = missing
    return match


def _reason(source: Source, name: str, tensor: Tensor, target: BackboneKind | None, backbone_only: bool) -> str | None:
    """Why an entry that the network does not have may be left out; '' to carry it along, None if it may not."""
    in_backbone = name.startswith('backbone.')
    if backbone_only and not in_backbone:
        return NOT_BACKBONE
    if name.endswith(COUNTER_NAME):
        return COUNTER if backbone_only or source.backbone_only or not bool(tensor.any()) else ''
    if UNTRAINED_BIAS.search(name) and not bool(tensor.any()):
        return ZERO_BIAS
    stage = stage_of(name.removeprefix('backbone.'))
    if in_backbone and stage is not None and (backbone_only or source.backbone_only) and stage > len(target.blocks):
        return LATER_STAGE
    if OUTPUT_NORM.match(name) and backbone_only:
        return UNUSED_OUTPUT
    return None


def _may_be_new(source: Source, name: str) -> bool:
    if name.endswith(COUNTER_NAME) or UNTRAINED_BIAS.search(name):
        return True
    return source.backbone_only and (not name.startswith('backbone.') or '.conv2_offset.' in name
                                     or bool(OUTPUT_NORM.match(name)))


def _same_backbone(source: BackboneKind, target: BackboneKind) -> bool:
    return (source.type, source.bottleneck) == (target.type, target.bottleneck) and (
        source.blocks[:len(target.blocks)] == target.blocks)


def _wrong_backbone(source: Source, target: BackboneKind | None) -> str:
    network = target.name if target else 'no ResNet'
    names = source.backbone.configurations
    advice = (f'the configuration{"s" if len(names) > 1 else ""} with that backbone: {", ".join(names)}' if names else
              'none of the published configurations has that backbone; write one with its model.backbone')
    return f'the backbone of the network is another ({network}); {advice}'
