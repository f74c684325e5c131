"""From a state dict into a network: strictly, or with new classes."""
from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .reading import CheckpointError, WeightFile, read_weights
from .sources import COUNTER_NAME, POSITIONS_NAME, recognise

logger = logging.getLogger(__name__)

POSITION_EMBEDDING = 'sem_seg_head.predictor.meta_pos_embed'
# Configurations of ModelScope's own FastInst can ask for biases that the authors' weights do not have. A bias of 0 is
# none.
UNTRAINED_BIAS = re.compile(r'pixel_decoder\.(adapter|layer)_\d\.bias$')
# The last layers of the class heads, whose shape follows from the number of classes.
CLASS_DEPENDENT = re.compile(r'query_proposal\.conv_proposal_cls_logits\.2\.|class_embed_layers\..*\.layers\.2\.'
                             r'|predictor\.class_embed\.')


def load_weights(network: nn.Module, source: str | Path) -> None:
    """Loads every tensor of ``network`` from a weight file or a model folder.

    Four differences are none: counters of batches (``num_batches_tracked``), which only ordinary batch norm has;
    ``relative_position_index``, which follows from the size of Swin's windows; biases of the pixel decoder's
    convolutions that the file does not have (they become 0); and the size of ``meta_pos_embed``, which follows from the
    number of queries and is resized (bilinear) to the network's.

    Raises:
        CheckpointError: with all keys that are missing, unexpected or of another shape; the network is left as it was.
    """
    file = read_weights(source)
    _load(network, _published(file, network), file.path)


def load_for_finetuning(network: nn.Module, source: str | Path, renew_classes: bool = False) -> list[str]:
    """Like ``load_weights``, but the tensors that depend on the classes may have another shape.

    Those keep the network's fresh initialisation.

    Args:
        renew_classes: all tensors that depend on the classes keep it, also those of the same shape: for as many classes
            that mean something else.

    Returns:
        The names of the tensors that were newly initialised; without ``renew_classes`` empty where the number of
        classes is the same.

    Raises:
        CheckpointError: as ``load_weights``, for every tensor that does not depend on the classes.
    """
    file = read_weights(source)
    path, state = file.path, _published(file, network)
    own = network.state_dict()
    new = [key for key, tensor in own.items()
           if key in state and CLASS_DEPENDENT.search(key) and (renew_classes or state[key].shape != tensor.shape)]
    _load(network, state | {key: own[key] for key in new}, path)
    if new:
        logger.info('%s: newly initialised for other classes: %s', path, ', '.join(new))
    return new


def _published(file: WeightFile, network: nn.Module) -> dict[str, Tensor]:
    """The file's tensors by their published names; another network's file is refused in one line, not key by key."""
    if not file.state.keys() & network.state_dict().keys():
        source = recognise(file)
        if source.backbone_only:
            raise CheckpointError(f'{file.path}: {source.description}, not the weights of a whole FastInst; '
                                  f'modelscope-fastinst convert makes a model folder of it')
        return source.published()
    return {key: tensor for key, tensor in file.state.items() if not key.endswith('criterion.empty_weight')}


def _load(network: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    own = network.state_dict()
    state = {key: tensor for key, tensor in state.items()
             if key in own or not key.endswith(COUNTER_NAME)}
    for key, tensor in own.items():
        if key.endswith((COUNTER_NAME, POSITIONS_NAME)):
            state.setdefault(key, tensor)
        elif UNTRAINED_BIAS.search(key) and key not in state:
            logger.info('%s: has no %s; it stays 0', path, key)
            state[key] = torch.zeros_like(tensor)
    if POSITION_EMBEDDING in state and POSITION_EMBEDDING in own:
        state[POSITION_EMBEDDING] = _resized(state[POSITION_EMBEDDING], own[POSITION_EMBEDDING], path)

    faults = [
        *_listed('missing', sorted(own.keys() - state.keys())),
        *_listed('unexpected', sorted(state.keys() - own.keys())),
        *_listed('of another shape', (f'{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}'
                                      for key in own if key in state and state[key].shape != own[key].shape)),
    ]
    if faults:
        raise CheckpointError(f'{path}: the weights are those of another network than the configuration describes.\n'
                              + '\n'.join(faults))
    network.load_state_dict(state, strict=True)


def _listed(title: str, items: Iterable[str]) -> list[str]:
    items = list(items)
    return [f'{len(items)} {title}:', *(f'  {item}' for item in items)] if items else []


def _resized(embedding: Tensor, own: Tensor, path: Path) -> Tensor:
    same_width = embedding.ndim == own.ndim and embedding.shape[:2] == own.shape[:2]
    if embedding.shape == own.shape or not same_width:
        return embedding
    logger.info('%s: %s resized from %s to %s for another number of queries', path, POSITION_EMBEDDING,
                tuple(embedding.shape[2:]), tuple(own.shape[2:]))
    return F.interpolate(embedding.float(), size=own.shape[2:], mode='bilinear', align_corners=False)
