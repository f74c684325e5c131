"""Point sampling for mask losses (PointRend, Kirillov et al., 2020, as Mask2Former uses it)."""
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def draw(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Uniform random points in [0, 1): float32 of ``shape``, whose last axis is (x, y)."""
    return torch.rand(shape, device=device)


def sample(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear samples, zero outside the map, corners not aligned.

    Args:
        maps: float ``[N, C, H, W]``.
        points: float ``[N, P, 2]``, (x, y) in [0, 1] of the map.

    Returns:
        ``[N, C, P]``.
    """
    return F.grid_sample(maps, 2.0 * points[:, None] - 1.0, mode='bilinear', align_corners=False).squeeze(2)


@torch.no_grad()
def uncertain_points(mask_logits: Tensor, num_points: int, oversample_ratio: float = 3.0,
                     importance_ratio: float = 0.75) -> Tensor:
    """Points where masks are undecided, mixed with points from anywhere.

    ``oversample_ratio * num_points`` uniform points are drawn for each mask; the ``importance_ratio`` share of
    ``num_points`` is filled with those of smallest absolute logit, the rest with fresh uniform points.

    Args:
        mask_logits: float ``[N, 1, h, w]``.

    Returns:
        float ``[N, num_points, 2]``, (x, y) in [0, 1].
    """
    count, device = len(mask_logits), mask_logits.device
    candidates = draw((count, int(num_points * oversample_ratio), 2), device)
    num_uncertain = int(importance_ratio * num_points)
    certainty = sample(mask_logits, candidates)[:, 0].abs()
    chosen = certainty.topk(num_uncertain, dim=1, largest=False).indices
    points = candidates.gather(1, chosen[:, :, None].expand(-1, -1, 2))
    if num_points > num_uncertain:
        points = torch.cat([points, draw((count, num_points - num_uncertain, 2), device)], dim=1)
    return points
