"""Which weights a training starts from: a model's, an ImageNet backbone's, or random ones."""
from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import nn

from modelscope_fastinst.checkpoints import load_backbone, load_for_finetuning, load_weights

from .backbone_weights import backbone_file
from .processes import first_here_first
from .trainer_config import shown


@dataclass
class Start:
    """What a network starts its training with.

    Attributes:
        message: the same for people, in one line.
        new: state-dict names of the tensors that have their fresh initialisation, in the network's order. Counters of
            batches say nothing and are not among them.
    """
    message: str
    new: list[str] = field(default_factory=list)


def from_model(network: nn.Module, source: str, classes: Sequence[str], source_classes: Sequence[str] | None, *,
               training: bool) -> Start:
    """Loads the weights of a model; those that depend on the classes only where the classes are the same.

    Args:
        network: freshly initialised, for ``classes``.
        source: weight file or model folder.
        classes: what the network is to tell apart.
        source_classes: what the weights tell apart, None where they do not say.
        training: another list of as many classes then means other classes; for evaluation only the number counts.

    Raises:
        CheckpointError: as ``checkpoints.load_weights``.
    """
    if source_classes == classes:
        load_weights(network, source)
        return Start(f'weights of {source}')
    new = load_for_finetuning(network, source, renew_classes=source_classes is not None and training)
    return Start(f'weights of {source}; the classes are {shown(classes)}; newly initialised: '
                 f'{", ".join(new) or "nothing"}', new)


def from_backbone(network: nn.Module, source: str) -> Start:
    """Loads ImageNet weights into the backbone; everything else stays new.

    Args:
        network: freshly initialised.
        source: see ``backbone_weights.backbone_file``.

    Raises:
        ConfigurationError, BackboneError: see there.
        CheckpointError: the file holds another backbone, or none.
    """
    with first_here_first():   # what one process downloads, the others find
        file = backbone_file(source)
    conversion = load_backbone(network, file)
    new = set(conversion.new)
    new = [name for name in network.state_dict()
           if (name in new or not name.startswith('backbone.')) and not name.endswith('num_batches_tracked')]
    inside = [name for name in new if name.startswith('backbone.')]
    message = f'backbone weights of {file} ({conversion.description}); new: everything outside of the backbone'
    if inside:
        message += f', and {len(inside)} tensors in it: {", ".join(inside)}'
    return Start(message, new)


def from_nothing(network: nn.Module) -> Start:
    """Leaves the network as it was built."""
    return Start('training from random weights',
                 [name for name in network.state_dict() if not name.endswith('num_batches_tracked')])


def wants_backbone(setting: str | os.PathLike | None) -> bool:
    """Whether ``train.backbone_weights`` asks for weights: it is there, and not 'none'."""
    return bool(setting) and str(setting).lower() != 'none'
