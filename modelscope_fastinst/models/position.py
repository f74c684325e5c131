"""Fixed position embeddings of feature maps: sines and cosines (DETR, Carion et al., ECCV 2020, arXiv 2005.12872)."""
from __future__ import annotations

import math

import torch
from torch import Tensor


def sine_positions(height: int, width: int, channels: int, device: torch.device | None = None) -> Tensor:
    """Where each cell of a map is: half of the channels tell its row, the other half its column.

    Rows and columns count from 1 and are scaled so that the last is one full turn. Wave lengths grow geometrically from
    one turn to 10000; sine and cosine of a length are neighbours.

    Args:
        channels: a multiple of 4.

    Returns:
        float32 ``[1, channels, height, width]``.
    """
    half = channels // 2
    lengths = 10000.0 ** (2 * (torch.arange(half, device=device) // 2).float() / half)

    def waves(count: int) -> Tensor:
        """float ``[half, count]``"""
        turns = torch.arange(1, count + 1, device=device, dtype=torch.float32)
        angles = (turns / (count + 1e-6) * (2 * math.pi)) / lengths[:, None]
        return torch.stack([angles[0::2].sin(), angles[1::2].cos()], dim=1).flatten(0, 1)

    rows = waves(height)[:, :, None].expand(-1, -1, width)
    columns = waves(width)[:, None, :].expand(-1, height, -1)
    return torch.cat([rows, columns])[None]
