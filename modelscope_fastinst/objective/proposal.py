"""What FastInst's query proposal is taught: to classify the pixels that are to become queries.

Section 3.2 of FastInst (He et al., CVPR 2023, arXiv 2303.08594).
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..structures import Target
from .matcher import Matching, assign_images, over_batch
from .objects import BatchObjects, inside_cells, to_host


class ProposalMatcher:
    """Pairs positions of the query proposal's map with objects by class and by lying inside the object."""

    def __init__(self, class_weight: float = 2.0, location_weight: float = 1000.0):
        self.class_weight = class_weight
        self.location_weight = location_weight

    def __call__(self, logits: Tensor, targets: Sequence[Target], costs: Sequence[Tensor] | None = None) -> Matching:
        """Matches each image.

        Args:
            logits: ``[B, K + 1, h, w]``.
            targets: ground truth, which knows its canvas (``Target.canvas``).
            costs: what ``costs`` gave for them, on the host already; None computes them here.

        Returns:
            Per image (row-major positions ascending, object indices).
        """
        return assign_images(to_host(self.costs(logits, targets)) if costs is None else costs, logits.device)

    @torch.no_grad()
    def costs(self, logits: Tensor, targets: Sequence[Target]) -> list[Tensor]:
        """The cost of every pair: float32 ``[h * w, N]`` of each image, on the logits' device."""
        costs = []
        with torch.autocast(logits.device.type, enabled=False):
            for image, target in zip(logits, targets, strict=True):
                # A cell counts as inside as soon as one pixel of it is.
                inside = inside_cells(target, (image.shape[-2], image.shape[-1])).flatten(1)
                class_cost = -image.float().softmax(dim=0).flatten(1).T[:, target.labels]
                costs.append(self.class_weight * class_cost - self.location_weight * inside.float().T)
        return costs


def proposal_loss(logits: Tensor, objects: BatchObjects, matching: Matching, positions: float | Tensor) -> Tensor:
    """Cross-entropy of every position: with its object's class where it is matched, elsewhere with "no object".

    Args:
        logits: float32 ``[B, K + 1, h, w]``.
        matching: of ``ProposalMatcher``.
        positions: what the sum is divided by.
    """
    batch, classes, height, width = logits.shape
    rows, matched = over_batch(matching, height * width, objects)
    truth = torch.full((batch * height * width,), classes - 1, dtype=torch.int64, device=logits.device)
    truth[rows] = objects.labels[matched]
    return F.cross_entropy(logits.flatten(2), truth.view(batch, -1), reduction='sum') / positions
