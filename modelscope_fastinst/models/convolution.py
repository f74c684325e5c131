"""Convolution with its norm attached, and the norms that the published checkpoints use."""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NORMS = ('FrozenBN', 'BN', 'SyncBN', 'nnSyncBN', 'GN', '')


class FrozenBatchNorm2d(nn.Module):
    """Batch normalisation whose statistics and affine parameters are constants (all four are buffers).

    ``y = (x - running_mean) / sqrt(running_var + eps) * weight + bias`` for x of shape ``[B, C, H, W]``. This is how
    the authors train and run their backbones (detectron2's ``FrozenBN``).
    """

    def __init__(self, num_features: int, eps: float = 1e-5):
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.register_buffer('weight', torch.ones(num_features))
        self.register_buffer('bias', torch.zeros(num_features))
        self.register_buffer('running_mean', torch.zeros(num_features))
        self.register_buffer('running_var', torch.ones(num_features))

    def forward(self, x: Tensor) -> Tensor:
        if not x.requires_grad:
            return F.batch_norm(x, self.running_mean.to(x.dtype), self.running_var.to(x.dtype),
                                self.weight.to(x.dtype), self.bias.to(x.dtype), training=False, eps=self.eps)
        # With gradients one multiply-add keeps less for the backward pass than batch_norm does.
        scale, shift = self.affine()
        return x * scale.to(x.dtype).view(1, -1, 1, 1) + shift.to(x.dtype).view(1, -1, 1, 1)

    def affine(self) -> tuple[Tensor, Tensor]:
        """Scale and shift ``[C]`` that the norm amounts to."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        # Ordinary batch norm counts its batches, a frozen one has nothing to count.
        state_dict.pop(prefix + 'num_batches_tracked', None)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def extra_repr(self) -> str:
        return f'{self.num_features}, eps={self.eps}'


class GroupNorm(nn.GroupNorm):
    """Group normalisation that also takes groups of a single value (torch's refuses them): those become the bias."""

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cpu and x.dtype == torch.bfloat16 and x.requires_grad:
            # The CPU kernel's backward pass of channels-last bfloat16 takes several times as long as in float32.
            return torch.group_norm(x.float(), self.num_groups, self.weight, self.bias, self.eps).to(x.dtype)
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


def build_norm(name: str, channels: int) -> nn.Module | None:
    """The norm layer of that name for ``channels`` channels; None for the empty name.

    Raises:
        ValueError: the name is not one of ``NORMS``, or group norm's 32 groups do not divide the channels.
    """
    if name == '':
        return None
    if name == 'FrozenBN':
        return FrozenBatchNorm2d(channels)
    if name == 'BN':
        return nn.BatchNorm2d(channels)
    if name in ('SyncBN', 'nnSyncBN'):
        return nn.SyncBatchNorm(channels)
    if name == 'GN':
        if channels % 32:
            raise ValueError(f'norm "GN" has 32 groups, which do not divide {channels} channels; '
                             f'use a width that is a multiple of 32')
        return GroupNorm(32, channels)
    raise ValueError(f'unknown norm {name!r}; choose one of {", ".join(repr(n) for n in NORMS)}')


class ConvNorm(nn.Conv2d):
    """A convolution followed by an optional norm and activation.

    The norm is the sub-module ``norm``, so that keys read ``conv1.weight``, ``conv1.norm.weight`` as in the published
    checkpoints. By default the convolution has a bias only where it has no norm.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, padding: int = 0,
                 dilation: int = 1, groups: int = 1, norm: str = '', bias: bool | None = None,
                 activation: Callable[[Tensor], Tensor] | None = None):
        super().__init__(in_channels, out_channels, kernel_size, stride=stride, padding=padding, dilation=dilation,
                         groups=groups, bias=norm == '' if bias is None else bias)
        self.norm = build_norm(norm, out_channels)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.norm, FrozenBatchNorm2d) and torch.is_grad_enabled() and self.weight.requires_grad:
            x = self._with_frozen_norm(x)
        else:
            x = self._conv_forward(x, self.weight, self.bias)
            x = x if self.norm is None else self.norm(x)
        return x if self.activation is None else self.activation(x)

    def _with_frozen_norm(self, x: Tensor) -> Tensor:
        """The same with gradients, where the norm's passes over the maps would be a good part of a training step."""
        scale, shift = self.norm.affine()
        if torch.is_autocast_enabled(x.device.type):
            # Into the weights, which are many times smaller. In full precision numbers stay as the authors' are.
            bias = shift if self.bias is None else self.bias * scale + shift
            return self._conv_forward(x, self.weight * scale.view(-1, 1, 1, 1), bias)
        x = self._conv_forward(x, self.weight, self.bias)
        # In place: a convolution's backward pass does not need what it gave.
        return x.mul_(scale.to(x.dtype).view(1, -1, 1, 1)).add_(shift.to(x.dtype).view(1, -1, 1, 1))
