"""The recipe's optimiser: which tensor learns how fast, and how the learning rate runs over the training.

The rules are those of the authors' training scripts (``train_net.py`` of facebookresearch/Mask2Former and of
junjiehe96/FastInst): the backbone learns ten times slower than the rest; norms and embeddings, and Swin's tables of
positions, have no weight decay; everything else, biases included, has.
"""
from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
# Bare parameters that are embeddings too, of positions in Swin: never decayed.
_POSITION_TABLES = ('relative_position_bias_table', 'absolute_pos_embed')
_STAGES = ('stem', 'res2', 'res3', 'res4', 'res5')
# The same stages in a ResNet-D and in a Swin, by the beginning of the names below the backbone.
_OTHER_STAGES = {'conv1': 'stem', 'bn1': 'stem', 'layer1': 'res2', 'layer2': 'res3', 'layer3': 'res4', 'layer4': 'res5',
                 'patch_embed': 'stem', 'layers.0': 'res2', 'layers.1': 'res3', 'layers.2': 'res4', 'layers.3': 'res5',
                 'norm0': 'res2', 'norm1': 'res3', 'norm2': 'res4', 'norm3': 'res5'}
_OWN_KEYS = ('backbone_multiplier', 'weight_decay_norm', 'weight_decay_embed', 'layer_decay', 'paramwise')
_WARMUPS = ('LinearWarmup', 'ConstantWarmup', 'ExponentialWarmup')
_SCHEDULES = ('MultiStepLR', 'CosineAnnealingLR', 'PolynomialLR', 'ConstantLR')


def parameter_settings(net: nn.Module, lr: float, weight_decay: float, *, backbone_multiplier: float = 0.1,
                       weight_decay_norm: float = 0.0, weight_decay_embed: float = 0.0,
                       layer_decay: float | None = None, paramwise: Mapping[str, float] | None = None,
                       ) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of every trainable tensor.

    Args:
        net: the network; a tensor whose name has ``backbone`` in it belongs to the backbone.
        lr: learning rate of everything but the backbone.
        weight_decay: decay of convolutions, linear layers and attention, their biases, and bare parameters but for
            Swin's ``relative_position_bias_table``.
        backbone_multiplier: times ``lr`` for the backbone; 1.0 suits a backbone that starts from random numbers.
        weight_decay_norm: decay of batch, group and layer norms.
        weight_decay_embed: decay of ``nn.Embedding`` tables (the auxiliary queries).
        layer_decay: in (0, 1], for the backbone's stages besides its multiplier: once for the last (res5), twice for
            the one before it, and so on down to the stem, which has learned the most general of features (Clark et al.
            2020, ELECTRA; Bao et al. 2022, BEiT). What is not the backbone keeps the full rate. None for no decay.
        paramwise: factors by name, besides all others: ``{'sem_seg_head.predictor': 2.0}`` for a module or a tensor
            and what is in it; ``*`` and ``?`` stand for any characters. Of several that fit, the longest counts.

    Returns:
        ``{parameter name: (lr, weight decay)}``; shared tensors once, under their first name.

    Raises:
        ValueError: a name in ``paramwise`` that fits no trainable tensor; ``layer_decay`` for a network without stages.
    """
    settings, seen = {}, set()
    stage_factors = _stage_factors(net, layer_decay)
    patterns = _Patterns(paramwise)
    for module_name, module in net.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            full_name = f'{module_name}.{name}' if module_name else name
            decay = 0.0 if name in _POSITION_TABLES else weight_decay
            if _is_norm(module):
                decay = weight_decay_norm
            elif isinstance(module, _EMBEDDINGS):
                decay = weight_decay_embed
            rate = lr * backbone_multiplier if 'backbone' in full_name else lr
            factor = stage_factors.get(_stage_of(full_name), 1.0) * patterns.factor(full_name)
            settings[full_name] = (rate * factor, decay)
    patterns.check_used()
    return settings


def _stage_of(name: str) -> str | None:
    """The backbone's stage that a tensor belongs to: 'res4' for 'backbone.res4.0.conv1.weight'.

    Also for 'backbone.layer3.0.conv1.weight' and for 'backbone.layers.2.blocks.0.norm1.weight'.
    """
    found = re.search(r'(?:^|\.)backbone\.(layers\.\d|\w+)\.', name)
    return _OTHER_STAGES.get(found[1], found[1]) if found else None


def _stage_factors(net: nn.Module, decay: float | None) -> dict[str | None, float]:
    if decay is None:
        return {}
    present = {_stage_of(name) for name, _ in net.named_parameters()}
    stages = [stage for stage in _STAGES if stage in present]
    if not stages:
        raise ValueError(f'train.optimizer.layer_decay is {decay}, but the network has none of the backbone stages '
                         f'{", ".join(_STAGES)}; leave it out')
    return {stage: decay ** number for number, stage in enumerate(reversed(stages), 1)}


class _Patterns:
    """The factors of ``paramwise``, and which of its names have fitted a tensor."""

    def __init__(self, factors: Mapping[str, float] | None) -> None:
        self._factors = {str(name): float(factor) for name, factor in (factors or {}).items()}
        self._used: set[str] = set()

    def factor(self, name: str) -> float:
        fitting = [pattern for pattern in self._factors
                   if name == pattern or name.startswith(f'{pattern}.') or fnmatch.fnmatchcase(name, pattern)]
        self._used.update(fitting)
        return self._factors[max(fitting, key=len)] if fitting else 1.0

    def check_used(self) -> None:
        unused = sorted(set(self._factors) - self._used)
        if unused:
            raise ValueError(f'train.optimizer.paramwise names {unused}, which fit no trainable tensor of the network; '
                             'tensors have names such as sem_seg_head.predictor.query_proposal.conv1.weight')


def check_rates(section: Mapping[str, Any]) -> None:
    """What can be said of ``layer_decay`` and ``paramwise`` of a ``train.optimizer`` section without the network.

    Raises:
        ValueError: naming the key and its value.
    """
    decay = section.get('layer_decay')
    if decay is not None and not (_is_number(decay) and 0 < decay <= 1):
        raise ValueError(f'train.optimizer.layer_decay must be a number above 0 and at most 1; got {decay!r}')
    factors = section.get('paramwise')
    if factors is not None and not isinstance(factors, Mapping):
        raise ValueError('train.optimizer.paramwise must be a mapping of tensors\' names to factors, such as '
                         f'{{"sem_seg_head.predictor": 2.0}}; got {factors!r}')
    for name, factor in (factors or {}).items():
        if not (_is_number(factor) and 0 <= factor < math.inf):
            raise ValueError(f'train.optimizer.paramwise[{name!r}] must be a factor of at least 0; got {factor!r}')


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def parameter_groups(net: nn.Module, lr: float, weight_decay: float, **options: Any) -> list[dict]:
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
            ``weight_decay_norm``, ``weight_decay_embed``, ``layer_decay``, ``paramwise`` (see
            ``parameter_settings``); the rest goes to the class.

    Raises:
        ValueError: an unknown type, a key that it does not take, or a value that cannot be.
    """
    check_rates(cfg)
    cfg = {'type': 'AdamW', 'lr': 1e-4, 'weight_decay': 0.05, **cfg}
    cfg.pop('options', None)
    kind = cfg.pop('type')
    cls = getattr(torch.optim, kind, None)
    if not (isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer)):
        raise ValueError(f'train.optimizer.type is {kind!r}, which torch.optim does not have')
    options = {key: cfg.pop(key) for key in _OWN_KEYS if cfg.get(key) is not None}
    for key in _OWN_KEYS:
        cfg.pop(key, None)
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
            trainers' differ) and ``warmup``. Milestones between 0 and 1 are shares of the training and need no
            ``by_epoch``. ``warmup``: ``warmup_iters``, always iterations, or below 1 a share of the training;
            ``warmup_ratio``, the factor it begins with; ``type`` LinearWarmup (the default), ConstantWarmup (the ratio
            all along) or ExponentialWarmup. The warm-up takes its time off the beginning: milestones count from the
            training's first iteration, a cosine or polynomial runs from the warm-up's end to the training's.
        max_iters: iterations of the whole training.
        iters_per_epoch: iterations of one epoch.

    Returns:
        A function of the number of finished iterations.

    Raises:
        ValueError: unknown type, milestones that do not ascend, or that do not say what they count; a warm-up that
            cannot be.
    """
    cfg = dict(cfg or {'type': 'ConstantLR'})
    kind = cfg.get('type')
    if kind not in _SCHEDULES:
        raise ValueError(f'train.lr_scheduler.type is {kind!r}; known are {", ".join(_SCHEDULES)} '
                         '(others: build_trainer(..., optimizers=(optimizer, scheduler)))')
    options = dict(cfg.get('options') or {})
    unit = iters_per_epoch if options.get('by_epoch') else 1
    warmup_iters, warmup_factor = _warmup(options.get('warmup') or {}, max_iters)
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
            return warmup_factor(iteration / warmup_iters)
        progress = min(1.0, (iteration - warmup_iters) / span)
        if kind == 'MultiStepLR':
            return gamma ** sum(iteration >= milestone for milestone in milestones)
        if kind == 'CosineAnnealingLR':
            return min_factor + (1 - min_factor) * 0.5 * (1 + math.cos(math.pi * progress))
        if kind == 'PolynomialLR':
            return min_factor + (1 - min_factor) * (1 - progress) ** power
        return 1.0

    return factor


def _warmup(cfg: Mapping[str, Any], max_iters: int) -> tuple[int, Callable[[float], float]]:
    """Iterations of a warm-up, and the factor at a share of it that is done."""
    kind = cfg.get('type', 'LinearWarmup')
    if kind not in _WARMUPS:
        raise ValueError(f'train.lr_scheduler.options.warmup.type is {kind!r}; known are {", ".join(_WARMUPS)}')
    length, ratio = cfg.get('warmup_iters', 0), cfg.get('warmup_ratio', 0.1)
    if not (_is_number(length) and 0 <= length < math.inf and (length < 1 or int(length) == length)):
        raise ValueError('train.lr_scheduler.options.warmup.warmup_iters must be a whole number of iterations, or '
                         f'below 1 a share of the training; got {length!r}')
    if not (_is_number(ratio) and 0 <= ratio <= 1) or (kind == 'ExponentialWarmup' and not ratio):
        raise ValueError('train.lr_scheduler.options.warmup.warmup_ratio must lie in [0, 1], and above 0 for '
                         f'ExponentialWarmup; got {ratio!r}')
    factors = {'LinearWarmup': lambda done: ratio + (1 - ratio) * done, 'ConstantWarmup': lambda done: ratio,
               'ExponentialWarmup': lambda done: ratio ** (1 - done)}
    return int(length if length >= 1 else length * max_iters + 0.5), factors[kind]


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
