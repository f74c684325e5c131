"""The training objective: classification, mask and dice losses with deep supervision, and what FastInst adds to them.

The losses are Mask2Former's (Cheng et al., CVPR 2022, arXiv 2112.01527, section 3.3). FastInst's additions (He et al.,
CVPR 2023, arXiv 2303.08594) are the proposal loss and the matching's location cost, where queries were picked from
pixels, and the guided heads, where the network has run them; ``NetworkOutput`` says what there is.
"""
from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..structures import NetworkOutput, Prediction, Target
from . import points
from .matcher import Matching, QueryMatcher, over_batch
from .objects import BatchObjects, to_device, to_host
from .proposal import ProposalMatcher, proposal_loss

# What weighs something that only networks with proposals have.
OF_PROPOSALS = ('proposal_weight', 'location_weight')

# (suffix of the losses' names, prediction, the matching where it is given)
Head = tuple[str, Prediction, 'Matching | None']


class Normalisers(NamedTuple):
    """What the sums over objects, over the queries' class weights and over the proposal's positions are divided by.

    Without a proposal the last is meaningless.
    """
    objects: float | Tensor
    classes: float | Tensor
    positions: float | Tensor


class SegmentationCriterion(nn.Module):
    """Weighted losses of a ``NetworkOutput``: of FastInst, Mask2Former and what lies between.

    Args:
        num_classes: K.
        num_points: points at which a mask is compared with its object, in losses and matching.
        oversample_ratio, importance_sample_ratio: see ``points.uncertain_points``.
        class_weight, mask_weight, dice_weight: weights of the losses of each set of heads.
        proposal_weight: weight of the proposal's loss; without effect where the network has no proposal.
        no_object_weight: weight of the class "no object" in the classification loss.
        location_weight: weight of the matching's location cost; without effect where the network has no proposal.
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
        self._query_costs, self._proposal_costs = self.query_matcher, self.proposal_matcher
        class_weights = torch.ones(num_classes + 1)
        class_weights[-1] = no_object_weight
        self.no_object_weight = no_object_weight
        self.register_buffer('class_weights', class_weights, persistent=False)

    def match(self, prediction: Prediction, locations: Tensor | None, targets: Sequence[Target]) -> Matching:
        """Pairs queries with objects; what the network's guided pass asks for."""
        return self.query_matcher(prediction, locations, targets)

    def forward(self, output: NetworkOutput, targets: Sequence[Target]) -> dict[str, Tensor]:
        """The weighted losses; training minimises their sum.

        Waits for the device once, for the matching costs of all heads; see ``matchings``.

        Args:
            output: of the network in training.
            targets: ground truth at the images' sizes.

        Returns:
            Scalars ``loss_ce``, ``loss_mask``, ``loss_dice`` of the last layer, the same with suffixes ``_0`` ... for
            the other heads in the authors' order (guided layers, initial heads, inner layers; as far as there are), and
            ``loss_proposal`` where there is a proposal.
            All are NaN where a matching cost was NaN or infinite: such a step has nothing to teach.
        """
        device = output.final.masks.device
        targets = [target.to(device, non_blocking=True).on_canvas(*output.canvas) for target in targets]
        objects = BatchObjects(targets)
        with torch.autocast(device.type, enabled=False):
            norms = self._normalisers(output, objects)
            heads = self._heads(output)
            drawn = [self._draw(head, targets, output) for head in heads]
            proposal, matchings = self.matchings(output, targets, objects, heads, [points for points, _ in drawn])
            losses = {}
            for (suffix, prediction, _), matching in zip(heads, matchings, strict=True):
                head = self._head_losses(prediction, objects, matching, norms, drawn.pop(0)[1])
                losses |= {f'{name}{suffix}': value for name, value in head.items()}
                if not suffix and proposal is not None:
                    losses['loss_proposal'] = self.proposal_weight * proposal_loss(
                        output.proposal_logits.float(), objects, proposal, norms.positions)
        if not all(matching.finite for matching in (proposal, *matchings) if matching is not None):
            losses = {name: loss * torch.nan for name, loss in losses.items()}
        return losses

    def matchings(self, output: NetworkOutput, targets: Sequence[Target], objects: BatchObjects, heads: Sequence[Head],
                  drawn: Sequence[Sequence[Tensor]]) -> tuple[Matching | None, list[Matching]]:
        """Pairs queries and objects for every set of heads, with one transfer of all costs to the host.

        Returns:
            The proposal's matching (None without a proposal) and one for each of ``heads``; guided heads have theirs
            already.
        """
        inside = self._query_costs.inside(output.query_locations, objects)
        costs = [self._query_costs.costs(prediction, inside, objects, points)
                 for (_, prediction, matching), points in zip(heads, drawn, strict=True) if matching is None]
        proposes = output.proposal_logits is not None
        if proposes:   # in the order in which the pairs are found: the last layer's, the proposal's, the other heads'
            costs.insert(1, self._proposal_costs.costs(output.proposal_logits.float(), targets))
        host = to_host([cost for head in costs for cost in head])
        batch = len(targets)
        of_heads = [host[start:start + batch] for start in range(0, len(host), batch)]
        found, proposal = [], None
        for _, prediction, matching in heads:
            if matching is None:
                matching = self.query_matcher(prediction, output.query_locations, targets, of_heads.pop(0))
            found.append(matching)
            if proposes and proposal is None:
                proposal = self.proposal_matcher(output.proposal_logits, targets, of_heads.pop(0))
        return proposal, found

    def _heads(self, output: NetworkOutput) -> list[Head]:
        """Every supervised set of heads, the last first."""
        heads: list[Head] = [('', output.final, None)]
        if self.deep_supervision:
            guided = len(output.auxiliary) // 2   # where there are guided heads; where not, no matching is given either
            heads += [(f'_{index}', prediction, output.guided_matching if index < guided else None)
                      for index, prediction in enumerate(output.auxiliary)]
        return heads

    def _draw(self, head: Head, targets: Sequence[Target], output: NetworkOutput) -> tuple[list[Tensor], Any]:
        """The random points of one set of heads, in the authors' order: first the matching's, then the losses'."""
        matching_points = self._query_costs.draw(targets) if head[2] is None else []
        pairs = sum(min(len(target), output.final.logits.shape[1]) for target in targets)
        drawn = points.draw_candidates(pairs, self.num_points, self.oversample_ratio, self.importance_sample_ratio,
                                       output.final.masks.device) if pairs else None
        return matching_points, drawn

    def _normalisers(self, output: NetworkOutput, objects: BatchObjects) -> Normalisers:
        """What sums of losses are divided by, alike in every process; asks no device for anything."""
        batch, num_queries = output.final.logits.shape[:2]
        pairs = sum(min(count, num_queries) for count in objects.counts)
        positions = 0 if output.proposal_logits is None else batch * output.proposal_logits[0, 0].numel()
        sums = [float(len(objects)), pairs + (batch * num_queries - pairs) * self.no_object_weight, float(positions)]
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return Normalisers(max(sums[0], 1.0), *sums[1:])
        # The processes' gradients are averaged: N of them, each with its share of the batch, must make what one with
        # all of it makes.
        shared = to_device(torch.tensor(sums), output.final.masks.device)
        torch.distributed.all_reduce(shared)
        shared = shared.clamp(min=1.0) / torch.distributed.get_world_size()
        return Normalisers(*shared.unbind())

    def _head_losses(self, prediction: Prediction, objects: BatchObjects, matching: Matching, norms: Normalisers,
                     drawn: Any) -> dict[str, Tensor]:
        logits, masks = prediction.logits.float(), prediction.masks
        rows, matched = over_batch(matching, logits.shape[1], objects)
        truth = torch.full((logits.shape[0] * logits.shape[1],), self.num_classes, dtype=torch.int64,
                           device=logits.device)
        truth[rows] = objects.labels[matched]
        ce = F.cross_entropy(logits.flatten(0, 1), truth, self.class_weights, reduction='sum') / norms.classes
        mask, dice = self._mask_losses(masks.flatten(0, 1), rows, objects, matched, norms, drawn)
        return {'loss_ce': self.weights['ce'] * ce, 'loss_mask': self.weights['mask'] * mask,
                'loss_dice': self.weights['dice'] * dice}

    def _mask_losses(self, masks: Tensor, rows: Tensor, objects: BatchObjects, matched: Tensor, norms: Normalisers,
                     drawn: Any) -> tuple[Tensor, Tensor]:
        if len(rows) == 0:
            nothing = masks.float().sum() * 0.0  # keeps every parameter in the graph, as distributed training needs
            return nothing, nothing
        predicted = masks[rows].float()[:, None]
        uncertain = points.uncertain_points(predicted.detach(), self.num_points, self.oversample_ratio,
                                            self.importance_sample_ratio, drawn)
        truth = objects.sample(uncertain, matched)
        logits = points.sample(predicted, uncertain)[:, 0]
        bce = F.binary_cross_entropy_with_logits(logits, truth, reduction='none').mean(dim=1).sum()
        probabilities = logits.sigmoid()
        dice = 1 - (2 * (probabilities * truth).sum(dim=1) + 1) / (probabilities.sum(dim=1) + truth.sum(dim=1) + 1)
        return bce / norms.objects, dice.sum() / norms.objects


# Its name while it was FastInst's alone.
FastInstCriterion = SegmentationCriterion


def build_criterion(config: Mapping[str, Any] | None, num_classes: int, *,
                    proposals: bool = True) -> SegmentationCriterion:
    """The criterion that the section ``model.criterion`` of a ``configuration.json`` describes; None for the recipe's.

    Args:
        proposals: whether the network picks its queries from pixels; if not, nothing can be weighed by
            ``proposal_weight`` and ``location_weight``.

    Raises:
        ValueError: an unknown key, or a weight that has nothing to weigh.
    """
    config = dict(config or {})
    valid = [name for name in inspect.signature(SegmentationCriterion).parameters if name != 'num_classes']
    unknown = sorted(set(config) - set(valid))
    if unknown:
        raise ValueError(f'configuration: model.criterion has unknown keys {unknown}; valid keys are {valid}')
    for name in OF_PROPOSALS:
        if not proposals and config.get(name):
            raise ValueError(f'configuration: model.criterion.{name} is {config[name]}, but with static queries there '
                             'are no proposals to weigh; leave it out, or set model.decoder.queries to '
                             '"activation-guided"')
    return SegmentationCriterion(num_classes, **config)
