"""Bipartite matching of predictions and objects (DETR's, with FastInst's location cost).

In two steps: costs are computed where the predictions are, without waiting for them; then all that a step needs go to
the host at once, where assignments are found. ``matcher(...)`` does both for one set of heads.
"""
from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..structures import Prediction, Target
from . import points
from .objects import BatchObjects, to_device, to_host

logger = logging.getLogger(__name__)

# What stands in the place of a cost that is NaN or infinite: more than any true one, and small enough to add up.
_BAD_COST = 1e6


class Matching(list):
    """Per image (query indices ascending, object indices), int64 tensors on the predictions' device.

    Attributes:
        finite: whether all costs were finite; if not, the pairs mean nothing and the step must not be learnt from.
    """
    finite: bool = True


def assign(cost: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The pairs (row, column) of least total cost, rows ascending: min(rows, columns) int64 pairs.

    Args:
        cost: float32 ``[R, N]``, on the host. NaN and infinity count as a very large cost (or gain).
    """
    from scipy.optimize import linear_sum_assignment
    return linear_sum_assignment(np.nan_to_num(cost.numpy(), nan=_BAD_COST, posinf=_BAD_COST, neginf=-_BAD_COST))


def assign_images(costs: Sequence[Tensor], device: torch.device) -> Matching:
    """Pairs each image's rows and columns.

    Args:
        costs: float32 ``[R, N]`` of each image, on the host.
        device: where the pairs are to be.
    """
    pairs = [assign(cost) for cost in costs]
    # One copy for all of them; the host does not wait for it.
    flat = to_device(torch.from_numpy(np.concatenate([indices for pair in pairs for indices in pair])), device)
    parts = flat.split([len(indices) for pair in pairs for indices in pair])
    matching = Matching(zip(parts[::2], parts[1::2], strict=True))
    matching.finite = all(bool(np.isfinite(cost.numpy()).all()) for cost in costs)
    return matching


def over_batch(matching: Matching, rows: int, objects: BatchObjects) -> tuple[Tensor, Tensor]:
    """An image's pairs -> the batch's: row index over all images' rows, object index over all images' objects."""
    return (torch.cat([found + image * rows for image, (found, _) in enumerate(matching)]),
            torch.cat([matched + start for start, (_, matched) in zip(objects.starts, matching, strict=True)]))


class QueryMatcher:
    """Pairs queries with objects by class, mask, dice and location cost.

    The location cost, FastInst's, is -1 where the query was picked inside the object. With its large weight it decides
    wherever an assignment of inside queries exists. Learnt queries have no location, and the other three costs decide.

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

    def __call__(self, prediction: Prediction, locations: Tensor | None, targets: Sequence[Target],
                 costs: Sequence[Tensor] | None = None) -> Matching:
        """Matches each image.

        Args:
            prediction: class logits ``[B, Q, K + 1]`` and mask logits ``[B, Q, h, w]``.
            locations: ``[B, Q, 2]``, (x, y) in [0, 1] of the canvas; None for learnt queries.
            targets: ground truth, which knows its canvas (``Target.canvas``).
            costs: what ``costs`` gave for them, on the host already; None computes them here.

        Returns:
            Per image (query indices ascending, object indices): min(Q, N) pairs, empty for images without objects.
        """
        if costs is None:
            objects = BatchObjects(targets)
            costs = to_host(self.costs(prediction, self.inside(locations, objects), objects, self.draw(targets)))
        return assign_images(costs, prediction.logits.device)

    def draw(self, targets: Sequence[Target]) -> list[Tensor]:
        """The random points at which masks are compared: ``[1, P, 2]`` for each image that has objects, in order."""
        return [points.draw((1, self.num_points, 2), target.masks.device) for target in targets if len(target)]

    @torch.no_grad()
    def inside(self, locations: Tensor | None, objects: BatchObjects) -> Tensor | None:
        """Whether queries were picked inside objects: float32 ``[sum of N, Q]`` of 0 and 1; the same for all heads.

        Inside is where any pixel that a bilinear sample would touch is the object's. None for learnt queries.
        """
        if locations is None:
            return None
        return (objects.sample(locations.float()[objects.image]) > 0).float()

    @torch.no_grad()
    def costs(self, prediction: Prediction, inside: Tensor | None, objects: BatchObjects,
              drawn: Sequence[Tensor]) -> list[Tensor]:
        """The cost of every pair: float32 ``[Q, N]`` of each image, on the predictions' device.

        Args:
            prediction: as in ``__call__``.
            inside: what ``inside`` gave.
            objects: of the targets.
            drawn: what ``draw`` gave.
        """
        num_queries = prediction.logits.shape[1]
        with torch.autocast(prediction.masks.device.type, enabled=False):
            truths: Iterator[Tensor] = iter(())
            if drawn:
                counts = [count for count in objects.counts if count]
                at = torch.cat([shared.expand(count, -1, -1) for shared, count in zip(drawn, counts, strict=True)])
                truths = iter(objects.sample(at).split(counts))
            found, costs = iter(drawn), []
            for image, (count, start) in enumerate(zip(objects.counts, objects.starts, strict=True)):
                if not count:
                    costs.append(prediction.logits.new_zeros(num_queries, 0, dtype=torch.float32))
                    continue
                self._report_surplus(count, num_queries)
                mine = slice(start, start + count)
                class_cost = -prediction.logits[image].float().softmax(dim=-1)[:, objects.labels[mine]]
                sampled = points.sample(prediction.masks[image].float()[None], next(found))[0]
                mask_cost, dice_cost = mask_costs(sampled, next(truths))
                cost = self.mask_weight * mask_cost + self.class_weight * class_cost + self.dice_weight * dice_cost
                costs.append(cost if inside is None else cost - self.location_weight * inside[mine].T)
        return costs

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
