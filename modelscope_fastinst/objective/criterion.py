"""The training objective of FastInst: classification, mask, dice and proposal losses with deep supervision."""
from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..structures import NetworkOutput, Prediction, Target
from . import points
from .matcher import Matching, ProposalMatcher, QueryMatcher


class FastInstCriterion(nn.Module):
    """Weighted losses of a ``NetworkOutput`` (He et al., CVPR 2023; Mask2Former's point losses).

    Args:
        num_classes: K.
        num_points: points at which a mask is compared with its object, in losses and matching.
        oversample_ratio, importance_sample_ratio: see ``points.uncertain_points``.
        class_weight, mask_weight, dice_weight, proposal_weight: weights of the losses.
        no_object_weight: weight of the class "no object" in the classification loss.
        location_weight: weight of the matching's location cost.
        cost_class_weight, cost_mask_weight, cost_dice_weight: weights of the matching's other costs; by default the
            losses' own.
        deep_supervision: whether the heads before the last and the guided ones are supervised.
    """

    def __init__(self, num_classes: int, *, num_points: int = 12544, oversample_ratio: float = 3.0,
                 importance_sample_ratio: float = 0.75, class_weight: float = 2.0, mask_weight: float = 5.0,
                 dice_weight: float = 5.0, proposal_weight: float = 20.0, no_object_weight: float = 0.1,
                 location_weight: float = 1000.0, cost_class_weight: float | None = None,
                 cost_mask_weight: float | None = None, cost_dice_weight: float | None = None,
                 deep_supervision: bool = True):
        super().__init__()
        self.num_classes = num_classes
        self.num_points = num_points
        self.oversample_ratio = oversample_ratio
        self.importance_sample_ratio = importance_sample_ratio
        self.weights = {'ce': class_weight, 'mask': mask_weight, 'dice': dice_weight}
        self.proposal_weight = proposal_weight
        self.deep_supervision = deep_supervision

        def chosen(value: float | None, default: float) -> float:
            return default if value is None else value

        cost_class = chosen(cost_class_weight, class_weight)
        self.query_matcher = QueryMatcher(num_points, cost_class, chosen(cost_mask_weight, mask_weight),
                                          chosen(cost_dice_weight, dice_weight), location_weight)
        self.proposal_matcher = ProposalMatcher(cost_class, location_weight)
        class_weights = torch.ones(num_classes + 1)
        class_weights[-1] = no_object_weight
        self.register_buffer('class_weights', class_weights, persistent=False)

    def match(self, prediction: Prediction, locations: Tensor, targets: Sequence[Target]) -> Matching:
        """Pairs queries with objects; what the network's guided pass asks for."""
        return self.query_matcher(prediction, locations, targets)

    def forward(self, output: NetworkOutput, targets: Sequence[Target]) -> dict[str, Tensor]:
        """The weighted losses; training minimises their sum.

        Args:
            output: of the network in training, with guidance.
            targets: ground truth at the images' sizes or already on the canvas.

        Returns:
            Scalars ``loss_ce``, ``loss_mask``, ``loss_dice`` of the last layer, the same with suffixes ``_0`` ... for
            the other heads in the authors' order (guided layers, initial heads, inner layers), and ``loss_proposal``.
        """
        targets = [target.to(output.final.masks.device).pad_to(*output.canvas) for target in targets]
        with torch.autocast(output.final.masks.device.type, enabled=False):
            num_masks = self._num_masks(targets, output.final.masks.device)
            losses = self._head_losses(output.final, output.query_locations, targets, num_masks)
            losses['loss_proposal'] = self.proposal_weight * self._proposal_loss(output.proposal_logits, targets)
            if self.deep_supervision:
                guided = len(output.auxiliary) // 2
                for index, prediction in enumerate(output.auxiliary):
                    matching = output.guided_matching if index < guided else None
                    head = self._head_losses(prediction, output.query_locations, targets, num_masks, matching)
                    losses |= {f'{name}_{index}': value for name, value in head.items()}
        return losses

    @staticmethod
    def _num_masks(targets: Sequence[Target], device: torch.device) -> float:
        """Objects per process, over all processes, at least 1: every process normalises alike."""
        count = torch.as_tensor(float(sum(len(target) for target in targets)), device=device)
        world = 1
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            world = torch.distributed.get_world_size()
            torch.distributed.all_reduce(count)
        return max(count.item() / world, 1.0)

    def _head_losses(self, prediction: Prediction, locations: Tensor, targets: Sequence[Target], num_masks: float,
                     matching: Matching | None = None) -> dict[str, Tensor]:
        logits, masks = prediction.logits.float(), prediction.masks.float()
        if matching is None:
            matching = self.query_matcher(Prediction(logits, masks), locations, targets)
        truth = torch.full(logits.shape[:2], self.num_classes, dtype=torch.int64, device=logits.device)
        for row, (queries, objects), target in zip(truth, matching, targets, strict=True):
            row[queries] = target.labels[objects]
        ce = F.cross_entropy(logits.transpose(1, 2), truth, self.class_weights)
        mask, dice = self._mask_losses(masks, targets, matching, num_masks)
        return {'loss_ce': self.weights['ce'] * ce, 'loss_mask': self.weights['mask'] * mask,
                'loss_dice': self.weights['dice'] * dice}

    def _mask_losses(self, masks: Tensor, targets: Sequence[Target], matching: Matching,
                     num_masks: float) -> tuple[Tensor, Tensor]:
        predicted = torch.cat([image[queries] for image, (queries, _) in zip(masks, matching, strict=True)])[:, None]
        if len(predicted) == 0:
            nothing = masks.sum() * 0.0  # keeps every parameter in the graph, as distributed training needs
            return nothing, nothing
        uncertain = points.uncertain_points(predicted.detach(), self.num_points, self.oversample_ratio,
                                            self.importance_sample_ratio)
        truth, start = [], 0
        for target, (_, objects) in zip(targets, matching, strict=True):
            at = uncertain[start:start + len(objects)]
            start += len(objects)
            if len(objects):
                truth.append(points.sample(target.masks[objects][:, None].float(), at)[:, 0])
        truth = torch.cat(truth)
        logits = points.sample(predicted, uncertain)[:, 0]
        bce = F.binary_cross_entropy_with_logits(logits, truth, reduction='none').mean(dim=1).sum()
        probabilities = logits.sigmoid()
        dice = 1 - (2 * (probabilities * truth).sum(dim=1) + 1) / (probabilities.sum(dim=1) + truth.sum(dim=1) + 1)
        return bce / num_masks, dice.sum() / num_masks

    def _proposal_loss(self, logits: Tensor, targets: Sequence[Target]) -> Tensor:
        logits = logits.float()
        matching = self.proposal_matcher(logits, targets)
        truth = torch.full((len(logits), logits.shape[2] * logits.shape[3]), self.num_classes, dtype=torch.int64,
                           device=logits.device)
        for row, (positions, objects), target in zip(truth, matching, targets, strict=True):
            row[positions] = target.labels[objects]
        return F.cross_entropy(logits.flatten(2), truth)


def build_criterion(config: Mapping[str, Any] | None, num_classes: int) -> FastInstCriterion:
    """The criterion that the section ``model.criterion`` of a ``configuration.json`` describes; None for the recipe's.

    Raises:
        ValueError: an unknown key.
    """
    config = dict(config or {})
    valid = [name for name in inspect.signature(FastInstCriterion).parameters if name != 'num_classes']
    unknown = sorted(set(config) - set(valid))
    if unknown:
        raise ValueError(f'configuration: model.criterion has unknown keys {unknown}; valid keys are {valid}')
    return FastInstCriterion(num_classes, **config)
