"""Bipartite matching of predictions and objects (DETR's, with FastInst's location cost)."""
from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..structures import Prediction, Target
from . import points

logger = logging.getLogger(__name__)

Matching = list[tuple[Tensor, Tensor]]


def assign(cost: Tensor) -> tuple[Tensor, Tensor]:
    """The pairs (row, column) of least total cost, rows ascending: min(rows, columns) int64 pairs.

    Args:
        cost: ``[R, N]``.

    Raises:
        FloatingPointError: the cost holds NaN or infinity.
    """
    from scipy.optimize import linear_sum_assignment
    if not torch.isfinite(cost).all():
        raise FloatingPointError('the matching cost is not finite: the network\'s outputs have become NaN or infinite. '
                                 'Lower the learning rate, clip gradients, or train in float32')
    rows, columns = linear_sum_assignment(cost.float().cpu().numpy())
    return (torch.as_tensor(rows, dtype=torch.int64, device=cost.device),
            torch.as_tensor(columns, dtype=torch.int64, device=cost.device))


class QueryMatcher:
    """Pairs queries with objects by class, mask, dice and location cost.

    The location cost is -1 where the query was picked inside the object. With its large weight it decides wherever an
    assignment of inside queries exists.

    Args:
        num_points: points per image at which masks are compared.
        class_weight, mask_weight, dice_weight, location_weight: weights of the four costs.
    """

    def __init__(self, num_points: int = 12544, class_weight: float = 2.0, mask_weight: float = 5.0,
                 dice_weight: float = 5.0, location_weight: float = 1000.0):
        self.num_points = num_points
        self.class_weight = class_weight
        self.mask_weight = mask_weight
        self.dice_weight = dice_weight
        self.location_weight = location_weight
        self._surplus_reported = False

    @torch.no_grad()
    def __call__(self, prediction: Prediction, locations: Tensor, targets: Sequence[Target]) -> Matching:
        """Matches each image.

        Args:
            prediction: class logits ``[B, Q, K + 1]`` and mask logits ``[B, Q, h, w]``.
            locations: ``[B, Q, 2]``, (x, y) in [0, 1] of the canvas.
            targets: masks on the canvas.

        Returns:
            Per image (query indices ascending, object indices): min(Q, N) pairs, empty for images without objects.
        """
        device_type = prediction.masks.device.type
        with torch.autocast(device_type, enabled=False):
            return [self._match_image(logits.float(), masks.float(), location.float(), target)
                    for logits, masks, location, target
                    in zip(prediction.logits, prediction.masks, locations, targets, strict=True)]

    def _match_image(self, logits: Tensor, mask_logits: Tensor, locations: Tensor,
                     target: Target) -> tuple[Tensor, Tensor]:
        if len(target) == 0:
            empty = torch.zeros(0, dtype=torch.int64, device=logits.device)
            return empty, empty
        self._report_surplus(len(target), len(logits))
        masks = target.masks[None].float()
        class_cost = -logits.softmax(dim=-1)[:, target.labels]
        location_cost = -(points.sample(masks, locations[None])[0] > 0).float().T
        at = points.draw((1, self.num_points, 2), logits.device)
        mask_cost, dice_cost = mask_costs(points.sample(mask_logits[None], at)[0], points.sample(masks, at)[0])
        return assign(self.mask_weight * mask_cost + self.class_weight * class_cost + self.dice_weight * dice_cost
                      + self.location_weight * location_cost)

    def _report_surplus(self, num_objects: int, num_queries: int) -> None:
        if num_objects > num_queries and not self._surplus_reported:
            self._surplus_reported = True
            logger.warning('an image has %d objects but the network only %d queries: the surplus is not learnt from. '
                           'Raise model.decoder.num_queries, crop, or enlarge very small images. (Said once.)',
                           num_objects, num_queries)


def mask_costs(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Costs of every pair of masks at P shared points.

    Args:
        logits: float ``[Q, P]``.
        truth: float ``[N, P]`` in [0, 1].

    Returns:
        Mean binary cross-entropy and dice cost, each ``[Q, N]``.
    """
    # BCE(x, t) = softplus(x) - x * t, so that one matrix product serves all pairs.
    mask_cost = (F.softplus(logits).sum(dim=1)[:, None] - logits @ truth.T) / logits.shape[1]
    probabilities = logits.sigmoid()
    dice_cost = 1 - (2 * probabilities @ truth.T + 1) / (probabilities.sum(dim=1)[:, None] + truth.sum(dim=1) + 1)
    return mask_cost, dice_cost


class ProposalMatcher:
    """Pairs positions of the query proposal's map with objects by class and by lying inside the object."""

    def __init__(self, class_weight: float = 2.0, location_weight: float = 1000.0):
        self.class_weight = class_weight
        self.location_weight = location_weight

    @torch.no_grad()
    def __call__(self, logits: Tensor, targets: Sequence[Target]) -> Matching:
        """Matches each image.

        Args:
            logits: ``[B, K + 1, h, w]``.
            targets: masks on the canvas.

        Returns:
            Per image (row-major positions ascending, object indices).
        """
        matching = []
        with torch.autocast(logits.device.type, enabled=False):
            for image, target in zip(logits.float(), targets, strict=True):
                # A cell counts as inside as soon as one pixel of it is.
                inside = F.adaptive_max_pool2d(target.masks.float(), image.shape[-2:]).flatten(1) > 0
                class_cost = -image.softmax(dim=0).flatten(1).T[:, target.labels]
                if len(target):
                    matching.append(assign(self.class_weight * class_cost - self.location_weight * inside.float().T))
                else:
                    empty = torch.zeros(0, dtype=torch.int64, device=logits.device)
                    matching.append((empty, empty))
        return matching
