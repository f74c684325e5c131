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


def draw_candidates(count: int, num_points: int, oversample_ratio: float, importance_ratio: float,
                    device: torch.device) -> tuple[Tensor, Tensor | None]:
    """The random points that ``uncertain_points`` chooses from, and those that it adds (None for none)."""
    candidates = draw((count, int(num_points * oversample_ratio), 2), device)
    fresh = num_points - int(importance_ratio * num_points)
    return candidates, draw((count, fresh, 2), device) if fresh > 0 else None


@torch.no_grad()
def uncertain_points(mask_logits: Tensor, num_points: int, oversample_ratio: float = 3.0,
                     importance_ratio: float = 0.75, drawn: tuple[Tensor, Tensor | None] | None = None) -> Tensor:
    """Points where masks are undecided, mixed with points from anywhere.

    ``oversample_ratio * num_points`` uniform points are drawn for each mask; the ``importance_ratio`` share of
    ``num_points`` is filled with those of smallest absolute logit, the rest with fresh uniform points.

    Args:
        mask_logits: float ``[N, 1, h, w]``.
        drawn: what ``draw_candidates`` gave, where the points were drawn beforehand.

    Returns:
        float ``[N, num_points, 2]``, (x, y) in [0, 1].
    """
    candidates, fresh = drawn or draw_candidates(len(mask_logits), num_points, oversample_ratio, importance_ratio,
                                                 mask_logits.device)
    certainty = sample(mask_logits, candidates)[:, 0].abs()
    chosen = certainty.topk(int(importance_ratio * num_points), dim=1, largest=False, sorted=False).indices
    points = candidates.gather(1, chosen[:, :, None].expand(-1, -1, 2))
    return points if fresh is None else torch.cat([points, fresh], dim=1)
