"""Deformable convolution (Dai et al., arXiv 1703.06211), also modulated (Zhu et al., arXiv 1811.11168)."""
from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn


class DeformableConv2d(nn.Conv2d):
    """A convolution that reads its input at positions moved by offsets, which an ordinary convolution predicts.

    Version 1 takes two offset values a kernel tap; version 2 ("modulated") one more, whose sigmoid scales what is read
    there. It computes in float32 whatever the surrounding precision, as the authors' does: offsets in half precision
    would be off by up to a pixel on large maps.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, *, stride: int = 1, padding: int = 1,
                 dilation: int = 1, modulated: bool = False):
        super().__init__(in_channels, out_channels, kernel_size, stride=stride, padding=padding, dilation=dilation,
                         bias=False)
        self.modulated = modulated

    def offset_convolution(self) -> nn.Conv2d:
        """A fitting convolution for the offsets: 18 or, modulated, 27 channels for a 3x3 kernel; zero, hence no offset
        (and a modulation of 1/2, as published) until it is trained."""
        taps = self.kernel_size[0] * self.kernel_size[1]
        conv = nn.Conv2d(self.in_channels, (3 if self.modulated else 2) * taps, self.kernel_size, stride=self.stride,
                         padding=self.padding, dilation=self.dilation)
        nn.init.zeros_(conv.weight)
        nn.init.zeros_(conv.bias)
        return conv

    def forward(self, x: Tensor, offset_conv: nn.Conv2d) -> Tensor:
        """The convolution of ``x`` at the places that ``offset_conv`` predicts from it.

        Args:
            x: ``[B, C, H, W]``.
            offset_conv: as ``offset_convolution`` makes it. Its channels are (dy, dx) in pixels a kernel tap, row by
                row; with modulation one more channel a tap follows them all.

        Returns:
            ``[B, out_channels, H / stride, W / stride]`` float32; in half precision if the weights are.
        """
        from torchvision.ops import deform_conv2d
        device = x.device.type
        # devices without autocast, such as 'meta', have nothing to switch off
        with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
            x = x.float()
            moves = nn.functional.conv2d(x, offset_conv.weight.float(), offset_conv.bias.float(), self.stride,
                                         self.padding, self.dilation)
            # torchvision's kernels crash the process for offsets that are NaN
            broken = moves.isnan().any(1, keepdim=True)
            moves = moves.masked_fill(broken, 0)
            taps = 2 * self.kernel_size[0] * self.kernel_size[1]
            modulation = moves[:, taps:].sigmoid() if self.modulated else None
            out = deform_conv2d(x, moves[:, :taps], self.weight.float(),
                                None if self.bias is None else self.bias.float(), stride=self.stride,
                                padding=self.padding, dilation=self.dilation, mask=modulation)
        return out.masked_fill(broken, torch.nan).to(self.weight.dtype)

    def extra_repr(self) -> str:
        return f'{super().extra_repr()}, modulated={self.modulated}'
