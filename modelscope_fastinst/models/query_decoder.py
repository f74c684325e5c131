"""What the transformer decoders share: where their queries come from, and the pass that ground truth guides.

Both are choices of FastInst (He et al., CVPR 2023, sections 3.2 and 3.4) that its ablation switches off.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..structures import NetworkOutput, Prediction, Target
from .network import Match
from .queries import ProposedQueries, QueryProposal

QUERIES = ('activation-guided', 'static')


class QueryDecoder(nn.Module):
    """The part of a transformer decoder that makes its queries and guides its training.

    Keys: ``query_proposal`` for activation-guided queries; ``query_feat``, ``query_embed`` (content and position, as in
    Mask2Former) for static ones.

    Args:
        num_classes: K, without "no object".
        hidden_dim: C, width of the queries.
        num_queries: Q.
        queries: 'activation-guided', picked from the pixels of every image, or 'static', learnt and the same for all.
        guidance: whether a training step runs every layer once more with attention on the true objects.

    Attributes:
        needs_mask_features: whether the pixel decoder has to make ``PixelFeatures.mask_features``.
        proposes_queries: whether there are proposals, hence ``NetworkOutput.proposal_logits`` and ``query_locations``.

    Raises:
        ValueError: ``queries`` is neither.
    """
    needs_mask_features = False

    def __init__(self, num_classes: int, hidden_dim: int, num_queries: int, queries: str, guidance: bool):
        super().__init__()
        if queries not in QUERIES:
            raise ValueError(f'decoder queries {queries!r} is unknown; choose one of {", ".join(QUERIES)}')
        self.num_classes, self.num_queries = num_classes, num_queries
        self.guidance = guidance
        self.proposes_queries = queries == 'activation-guided'
        if self.proposes_queries:
            self.query_proposal = QueryProposal(hidden_dim, num_queries, num_classes)
        else:
            self.query_feat = nn.Embedding(num_queries, hidden_dim)
            self.query_embed = nn.Embedding(num_queries, hidden_dim)

    def _is_training(self, targets: Sequence[Target] | None, match: Match | None) -> bool:
        """Whether there is something to learn from.

        Raises:
            ValueError: there is, with guidance, but nothing that pairs queries with objects.
        """
        if targets is not None and self.guidance and match is None:
            raise ValueError('targets need a matcher: pass match=criterion.match')
        return targets is not None

    def _first_queries(self, features: Tensor, position_embedding: Tensor) -> ProposedQueries:
        """The queries before the first layer, for a map ``[B, C, h, w]`` and its positions ``[1, C, h, w]``."""
        if self.proposes_queries:
            return self.query_proposal(features, position_embedding)
        return ProposedQueries(*(table.weight.expand(len(features), -1, -1)
                                 for table in (self.query_feat, self.query_embed)))

    def _output(self, predictions: list[Prediction], proposed: ProposedQueries, canvas: tuple[int, int],
                sizes: list[tuple[int, int]], training: bool) -> NetworkOutput:
        """What the heads said, the initial ones first, as a ``NetworkOutput`` without guided heads."""
        return NetworkOutput(final=predictions[-1], auxiliary=predictions[:-1], canvas=canvas, sizes=sizes,
                             proposal_logits=proposed.logits, query_locations=proposed.locations if training else None)

    def _guide(self, output: NetworkOutput, targets: Sequence[Target], match: Match,
               grids: Sequence[tuple[int, int]], again: Callable[[int, Tensor], Prediction]) -> None:
        """Adds the guided heads to the output of a training step.

        Args:
            output: of the ordinary pass; its last layer is matched with the targets.
            match: pairs queries with objects.
            grids: (height, width) of the map that each layer's queries look at.
            again: runs a layer on its own output, looking where the bool ``[B, Q, h * w]`` says, and its heads.
        """
        matching = match(output.final, output.query_locations, targets)
        shape = output.final.logits.shape[:2]
        attend = {grid: self._attend_to_objects(matching, targets, (*shape, *grid)) for grid in dict.fromkeys(grids)}
        output.auxiliary = [again(layer, attend[grid]) for layer, grid in enumerate(grids)] + output.auxiliary
        output.guided_matching = matching

    def _attend_to_objects(self, matching: Sequence[tuple[Tensor, Tensor]], targets: Sequence[Target],
                           shape: tuple[int, int, int, int]) -> Tensor:
        """Where each query may look in the guided pass: its matched object; everywhere if it has none."""
        height, width = shape[2:]
        device = targets[0].masks.device
        attend = torch.ones(shape, dtype=torch.bool, device=device)
        for image, ((queries, objects), target) in enumerate(zip(matching, targets, strict=True)):
            if len(queries):
                masks = _nearest(target, height, width)
                # The image lies at the top left of the canvas; where it is not, there is no object.
                region = torch.zeros(len(queries), height, width, dtype=torch.bool, device=device)
                region[:, :masks.shape[1], :masks.shape[2]] = masks[objects]
                attend[image, queries] = region
        return self._complete(attend.flatten(2))

    def _complete(self, attend: Tensor) -> Tensor:
        """Lets queries that may look nowhere look everywhere."""
        return attend | ~attend.any(dim=-1, keepdim=True)


def _nearest(target: Target, height: int, width: int) -> Tensor:
    """The masks at every (canvas / size)-th pixel, as nearest interpolation of the canvas to ``height x width`` reads
    them: bool ``[N, <= height, <= width]``, as far as the image reaches.
    """
    canvas = target.canvas or target.masks.shape[1:]
    steps = [extent // count for extent, count in zip(canvas, (height, width), strict=True)]
    if all(extent == step * count for extent, step, count in zip(canvas, steps, (height, width), strict=True)):
        return target.masks[:, ::steps[0], ::steps[1]].bool()
    masks = target.pad_to(*canvas).masks
    return F.interpolate(masks[None].to(torch.uint8), size=(height, width), mode='nearest')[0].bool()
