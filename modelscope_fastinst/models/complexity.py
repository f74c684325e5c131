"""How much a network computes, counted by PyTorch's own counter."""
from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import nn


def count_multiply_adds(network: nn.Module, height: int, width: int) -> int:
    """Multiply-adds of convolutions, linear layers and attention for one image; half the floating-point operations.

    This is what detectron2 and fvcore, hence the papers of FastInst and Mask2Former, call FLOPs. Both products of
    attention are counted, in windows too, and of deformable attention what its samples and their sum take. Norms,
    activations and resizing are not counted; nothing is computed and no memory taken.

    Args:
        network: maps a sequence of ``[3, H, W]`` images to anything; left as it is.
        height, width: of the network's input in pixels, before padding.
    """
    from torch.utils.flop_counter import FlopCounterMode
    network = copy.deepcopy(network).to('meta').eval().requires_grad_(False)
    counter = FlopCounterMode(display=False, custom_mapping=_deformable_convolution() | _deformable_attention())
    with torch.no_grad(), counter:
        network([torch.zeros(3, height, width, device='meta')])
    return counter.get_total_flops() // 2


def _deformable_convolution() -> dict:
    """The one operator of ours that PyTorch's counter does not know: the sums of an ordinary convolution."""
    from torchvision.ops import deform_conv2d  # noqa: F401  # its import registers the operator

    def operations(input_shape: Sequence[int], weight_shape: Sequence[int], *_, out_shape: Sequence[int], **__) -> int:
        return 2 * math.prod(out_shape) * math.prod(weight_shape[1:])
    return {torch.ops.torchvision.deform_conv2d: operations}


def _deformable_attention() -> dict:
    """A bilinear sample is the sum of four pixels, and is added to the others with its attention weight."""
    def operations(*_, out_shape: Sequence[int], **__) -> int:
        return 2 * (4 + 1) * math.prod(out_shape)
    return {torch.ops.aten.grid_sampler_2d: operations}
