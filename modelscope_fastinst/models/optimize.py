"""A network made ready for fast inference."""
from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from .convolution import ConvNorm, FrozenBatchNorm2d

_BATCH_NORMS = (FrozenBatchNorm2d, nn.BatchNorm2d, nn.SyncBatchNorm)


def folded(conv: nn.Conv2d, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that equals ``conv`` and then batch norm ``norm``, computed in float64."""
    scale = norm.weight.double() * (norm.running_var.double() + norm.eps).rsqrt()
    shift = norm.bias.double() - norm.running_mean.double() * scale
    bias = 0.0 if conv.bias is None else conv.bias.double() * scale
    weight = conv.weight.double() * scale.view(-1, 1, 1, 1)
    return weight.to(conv.weight.dtype), (bias + shift).to(conv.weight.dtype)


@torch.no_grad()
def optimize_for_inference(network: nn.Module) -> nn.Module:
    """A copy of ``network`` for inference: batch norm folded into convolutions, weights channels-last, no gradients.

    Its outputs equal the network's up to rounding. It cannot be trained, and its keys are no longer the published ones:
    keep the original for saving.
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    for module in network.modules():
        # A convolution with its norm inside, or a module that says which norm follows which convolution.
        if isinstance(module, ConvNorm) and isinstance(module.norm, _BATCH_NORMS):
            _fold(module, module.norm)
            module.norm = None
        for conv_name, norm_name in getattr(module, 'norm_of', {}).items():
            norm = module.get_submodule(norm_name)
            if isinstance(norm, _BATCH_NORMS):
                _fold(module.get_submodule(conv_name), norm)
                setattr(module, norm_name, nn.Identity())
    return network.to(memory_format=torch.channels_last)


def _fold(conv: nn.Conv2d, norm: nn.Module) -> None:
    weight, bias = folded(conv, norm)
    conv.weight, conv.bias = nn.Parameter(weight, False), nn.Parameter(bias, False)
