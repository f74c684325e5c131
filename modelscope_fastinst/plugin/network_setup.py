"""What a training does to the network before it starts: frozen parts, synchronised batch norms, compiled parts."""
from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from .trainer_keys import ConfigurationError

STAGES = ('stem', 'res2', 'res3', 'res4', 'res5')
# The backbones' modules by stage: detectron2's names, timm's, and Swin's (whose stem is the embedding of patches).
_LAYOUTS = (
    {stage: (stage,) for stage in STAGES},
    {'stem': ('conv1', 'bn1'), 'res2': ('layer1',), 'res3': ('layer2',), 'res4': ('layer3',), 'res5': ('layer4',)},
    {'stem': ('patch_embed',), 'res2': ('layers.0',), 'res3': ('layers.1',), 'res4': ('layers.2',),
     'res5': ('layers.3',)},
)


def freeze(network: nn.Module, setting: int | str | Sequence[str] | None) -> list[nn.Module]:
    """Takes parts of the network out of the training: their parameters need no gradient any more.

    The trainer keeps them in evaluation mode, so that their batch norms do not learn either, and none of their blocks
    is left out by stochastic depth.

    Args:
        setting: ``train.freeze``: how many leading parts of the backbone (1: the stem, 2: stem and res2, ... 5; as
            detectron2's ``FREEZE_AT``), or names: 'stem', 'res2' ... 'res5', or those of the network's modules, such as
            'backbone' or 'sem_seg_head.pixel_decoder'. None, 0 or an empty list: nothing. A Swin's stem is the
            embedding of patches; the norms of its outputs belong to no stage.

    Returns:
        The frozen modules.

    Raises:
        ConfigurationError: the network has no such part, or nothing would be left to train.
    """
    if not setting:
        return []
    names = STAGES[:setting] if isinstance(setting, int) else [setting] if isinstance(setting, str) else list(setting)
    frozen = [module for name in names for module in _parts(network, name)]
    for module in frozen:
        module.requires_grad_(False).eval()
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ConfigurationError(f'train.freeze is {setting!r}, which leaves nothing to train')
    return frozen


def _parts(network: nn.Module, name: str) -> list[nn.Module]:
    if name in STAGES:
        parts = dict(network.backbone.named_modules())
        layout = next((layout for layout in _LAYOUTS if layout['stem'][0] in parts), _LAYOUTS[0])
        return [parts[part] for part in layout[name] if part in parts]   # late stages may not be built
    modules = dict(network.named_modules())
    if name not in modules or not name:
        near = difflib.get_close_matches(name, [*STAGES, *modules], 1)
        hint = f'; did you mean {near[0]!r}?' if near else ''
        raise ConfigurationError(f'train.freeze names {name!r}, which is no stage of the backbone '
                                 f'({", ".join(STAGES)}) and no module of the network{hint}')
    return [modules[name]]


def set_up(network: nn.Module, section: Mapping[str, Any], device: torch.device, processes: int, logger: Any) -> None:
    """Makes of the network what a ``train`` section asks for; a second time changes nothing.

    Raises:
        ConfigurationError: as the functions below.
    """
    on_gpu = device.type == 'cuda'
    if section.get('sync_batchnorm'):
        logger.info(synchronise_batch_norms(network, on_gpu=on_gpu, processes=processes))
    check_batch_norms(network, on_gpu=on_gpu, processes=processes)
    if section.get('compile') and network.backbone._compiled_call_impl is None:
        compile_parts(network, device)
        logger.info('backbone and pixel decoder are compiled while they first run, in training and in evaluation: '
                    'minutes on a CPU')


def synchronise_batch_norms(network: nn.Module, *, on_gpu: bool, processes: int) -> str:
    """Has the batch norms that learn take their statistics over the batches of all processes.

    Keys and values of the state dict stay as they are; frozen norms stay frozen.

    Args:
        on_gpu: whether the processes train on GPUs, which is the only place where torch can do this.
        processes: how many there are.

    Returns:
        What was done, or why nothing, for people.
    """
    if not on_gpu or processes == 1:
        reason = 'there is one process' if processes == 1 else 'torch synchronises batch norms on GPUs only'
        return f'train.sync_batchnorm changes nothing here: {reason}'
    learning = [(parent, name, child) for parent in network.modules() for name, child in parent.named_children()
                if isinstance(child, nn.BatchNorm2d) and not _is_frozen(child)]
    for parent, name, child in learning:
        setattr(parent, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))
    return f'{len(learning)} batch norms take their statistics over the batches of {processes} processes'


def _is_frozen(norm: nn.Module) -> bool:
    parameters = list(norm.parameters())
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)


def check_batch_norms(network: nn.Module, *, on_gpu: bool, processes: int) -> None:
    """Raises a ConfigurationError for synchronised batch norms where torch has none: several processes on CPUs."""
    if processes > 1 and not on_gpu and any(isinstance(m, nn.SyncBatchNorm) for m in network.modules()):
        raise ConfigurationError('model.backbone.norm asks for synchronised batch norms, which torch has on GPUs only: '
                                 'train with "BN" or "FrozenBN", or in one process')


def compile_parts(network: nn.Module, device: torch.device) -> None:
    """Compiles backbone and pixel decoder, in place: their keys stay, and sizes may change without compiling anew.

    The first training step and the first evaluation wait for the compiler, minutes on a CPU. Whether the training is
    faster then depends on the machine and has not been measured here. The decoder and the objective, whose shapes
    depend on what is found in each image, are left as they are.

    Raises:
        ConfigurationError: nothing can be compiled here, for instance because there is no C++ compiler.
    """
    _probe_compiler(device)
    for part in (network.backbone, network.sem_seg_head.pixel_decoder):
        part.compile(dynamic=True)


def _probe_compiler(device: torch.device) -> None:
    """Compiles a small thing: a missing compiler is to be known before the training has begun."""
    try:
        torch.compile(lambda x: (x * 2 + 1).relu())(torch.ones(8, device=device))
    except (RuntimeError, OSError, ImportError) as error:
        first_line = next((line for line in str(error).splitlines() if line.strip()), repr(error))
        raise ConfigurationError('train.compile is true, but torch.compile does not work here: '
                                 f'{type(error).__name__}: {first_line}; install what is missing (a C++ compiler; '
                                 'Triton for GPUs), or set train.compile to false') from error
