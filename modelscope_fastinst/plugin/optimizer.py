"""The recipe's optimiser: which tensor learns how fast, and how the learning rate runs over the training.

The rules are those of the authors' training script (junjiehe96/FastInst, ``train_net.py``): the backbone learns ten
times slower than the rest; norms and embeddings have no weight decay; everything else, biases included, has.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
_SCHEDULES = ('MultiStepLR', 'CosineAnnealingLR', 'PolynomialLR', 'ConstantLR')


def parameter_settings(net: nn.Module, lr: float, weight_decay: float, *, backbone_multiplier: float = 0.1,
                       weight_decay_norm: float = 0.0, weight_decay_embed: float = 0.0,
                       ) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of every trainable tensor.

    Args:
        net: the network; a tensor whose name has ``backbone`` in it belongs to the backbone.
        lr: learning rate of everything but the backbone.
        weight_decay: decay of convolutions, linear layers and attention, their biases, and bare parameters.
        backbone_multiplier: times ``lr`` for the backbone; 1.0 suits a backbone that starts from random numbers.
        weight_decay_norm: decay of batch, group and layer norms.
        weight_decay_embed: decay of ``nn.Embedding`` tables (the auxiliary queries).

    Returns:
        ``{parameter name: (lr, weight decay)}``; shared tensors once, under their first name.
    """
    settings, seen = {}, set()
    for module_name, module in net.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            full_name = f'{module_name}.{name}' if module_name else name
            decay = weight_decay
            if _is_norm(module):
                decay = weight_decay_norm
            elif isinstance(module, _EMBEDDINGS):
                decay = weight_decay_embed
            settings[full_name] = (lr * backbone_multiplier if 'backbone' in full_name else lr, decay)
    return settings


def parameter_groups(net: nn.Module, lr: float, weight_decay: float, **options: float) -> list[dict]:
    """The same as ``parameter_settings``, as groups for a ``torch.optim`` optimiser.

    Tensors with equal settings share a group, since an optimiser steps faster over four groups than over hundreds.
    """
    parameters = dict(net.named_parameters())
    groups: dict[tuple[float, float], dict] = {}
    for name, (rate, decay) in parameter_settings(net, lr, weight_decay, **options).items():
        group = groups.setdefault((rate, decay), {'params': [], 'lr': rate, 'weight_decay': decay})
        group['params'].append(parameters[name])
    if not groups:
        raise ValueError('the model has no tensor that needs a gradient: there is nothing to train')
    # The first group is the one whose learning rate is logged: the fastest.
    return sorted(groups.values(), key=lambda group: (-group['lr'], -group['weight_decay']))


def build_optimizer(net: nn.Module, cfg: Mapping[str, Any]) -> torch.optim.Optimizer:
    """The optimiser of a ``train.optimizer`` section.

    Args:
        net: the network.
        cfg: ``type`` (a class of ``torch.optim``, default AdamW), ``lr``, ``weight_decay``, ``backbone_multiplier``,
            ``weight_decay_norm``, ``weight_decay_embed``; the rest goes to the class.

    Raises:
        ValueError: an unknown type or a key that it does not take.
    """
    cfg = {'type': 'AdamW', 'lr': 1e-4, 'weight_decay': 0.05, **cfg}
    cfg.pop('options', None)
    kind = cfg.pop('type')
    cls = getattr(torch.optim, kind, None)
    if not (isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer)):
        raise ValueError(f'train.optimizer.type is {kind!r}, which torch.optim does not have')
    options = {key: float(cfg.pop(key)) for key in ('backbone_multiplier', 'weight_decay_norm', 'weight_decay_embed')
               if key in cfg}
    groups = parameter_groups(net, float(cfg.pop('lr')), float(cfg.pop('weight_decay')), **options)
    if 'betas' in cfg:
        cfg['betas'] = tuple(cfg['betas'])
    if kind in ('Adam', 'AdamW', 'SGD') and not {'fused', 'foreach'} & set(cfg):
        # One kernel over all tensors of a group; it takes float32 tensors on a CPU or a CUDA device.
        cfg['fused'] = all(p.dtype == torch.float32 and p.device.type in ('cpu', 'cuda')
                           for group in groups for p in group['params'])
    try:
        return cls(groups, **cfg)
    except TypeError as error:
        raise ValueError(f'train.optimizer: torch.optim.{kind} does not take these settings: {error}') from error


def lr_factor(cfg: Mapping[str, Any] | None, max_iters: int, iters_per_epoch: int = 1) -> Callable[[int], float]:
    """What the base learning rate is multiplied with at each iteration.

    Args:
        cfg: the ``train.lr_scheduler`` section: ``type`` MultiStepLR (``milestones``, ``gamma``), CosineAnnealingLR
            (``eta_min`` as a fraction of the base rate: ``min_factor``), PolynomialLR (``power``, ``min_factor``) or
            ConstantLR; ``options``: ``by_epoch`` (milestones count epochs, else iterations; no default, because other
            trainers' differ) and ``warmup``: ``warmup_iters``, always iterations, and ``warmup_ratio``. Milestones
            between 0 and 1 are fractions of the training and need no ``by_epoch``.
        max_iters: iterations of the whole training.
        iters_per_epoch: iterations of one epoch.

    Returns:
        A function of the number of finished iterations.

    Raises:
        ValueError: unknown type, milestones that do not ascend, or that do not say what they count.
    """
    cfg = dict(cfg or {'type': 'ConstantLR'})
    kind = cfg.get('type')
    if kind not in _SCHEDULES:
        raise ValueError(f'train.lr_scheduler.type is {kind!r}; known are {", ".join(_SCHEDULES)} '
                         '(others: build_trainer(..., optimizers=(optimizer, scheduler)))')
    options = dict(cfg.get('options') or {})
    unit = iters_per_epoch if options.get('by_epoch') else 1
    warmup = dict(options.get('warmup') or {})
    warmup_iters = int(warmup.get('warmup_iters', 0))
    warmup_ratio = float(warmup.get('warmup_ratio', 0.1))
    min_factor = float(cfg.get('min_factor', 0.0))
    power = float(cfg.get('power', 0.9))
    gamma = float(cfg.get('gamma', 0.1))
    if options.get('by_epoch') is None and any(m >= 1 for m in cfg.get('milestones', [])):
        raise ValueError(f'train.lr_scheduler.milestones {list(cfg["milestones"])} may be epochs or iterations: add '
                         '"options": {"by_epoch": true} for epochs, false for iterations')
    milestones = [m * max_iters if 0 < m < 1 else m * unit for m in cfg.get('milestones', [])]
    if milestones != sorted(milestones):
        raise ValueError(f'train.lr_scheduler.milestones must ascend; got {list(cfg["milestones"])}')
    if kind == 'MultiStepLR' and not milestones:
        raise ValueError('train.lr_scheduler: MultiStepLR needs milestones')
    span = max(1, max_iters - warmup_iters)

    def factor(iteration: int) -> float:
        if iteration < warmup_iters:
            return warmup_ratio + (1 - warmup_ratio) * iteration / warmup_iters
        progress = min(1.0, (iteration - warmup_iters) / span)
        if kind == 'MultiStepLR':
            return gamma ** sum(iteration >= milestone for milestone in milestones)
        if kind == 'CosineAnnealingLR':
            return min_factor + (1 - min_factor) * 0.5 * (1 + math.cos(math.pi * progress))
        if kind == 'PolynomialLR':
            return min_factor + (1 - min_factor) * (1 - progress) ** power
        return 1.0

    return factor


def build_scheduler(optimizer: torch.optim.Optimizer, cfg: Mapping[str, Any] | None, max_iters: int,
                    iters_per_epoch: int, cumulative_iters: int = 1) -> torch.optim.lr_scheduler.LambdaLR:
    """The schedule as a torch scheduler that is to be stepped after every step of the optimiser.

    Args:
        cumulative_iters: iterations whose gradients one step of the optimiser gathers.
    """
    factor = lr_factor(cfg, max_iters, iters_per_epoch)
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factor(step * cumulative_iters))


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm))
