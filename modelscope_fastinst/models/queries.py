"""Instance-activation-guided queries: object queries are picked from the pixels where instances are active.

Section 3.2 of FastInst (He et al., CVPR 2023, arXiv 2303.08594).
"""
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass
class ProposedQueries:
    """Queries of one batch, best first; learnt ones have content and position only.

    Attributes:
        content: ``[B, Q, C]``, the features at the picked positions.
        position: ``[B, Q, C]``, their position embeddings.
        indices: int64 ``[B, Q]``, row-major positions on the map.
        scores: float32 ``[B, Q]``, in (1, 2] for local maxima, below 1 otherwise.
        locations: float ``[B, Q, 2]``, (x, y) in [0, 1] of the map, corners aligned.
        logits: ``[B, K + 1, h, w]``, class logits of every position.
    """
    content: Tensor
    position: Tensor
    indices: Tensor | None = None
    scores: Tensor | None = None
    locations: Tensor | None = None
    logits: Tensor | None = None


def activation_scores(logits: Tensor) -> Tensor:
    """How much each position is asked to be a query.

    A position counts with the probability of its best class; one more is added where no neighbour with the same best
    class is more probable.

    Args:
        logits: ``[B, K + 1, h, w]``, the last class is "no object".

    Returns:
        float32 ``[B, h * w]`` in [0, 2], row-major.
    """
    # In half precision "probability + 1" has too few digits left to tell local maxima apart.
    probabilities = logits.detach().float().softmax(dim=1)[:, :-1]
    best, best_class = probabilities.max(dim=1, keepdim=True)
    only_best = torch.zeros_like(probabilities).scatter_(1, best_class, best)
    neighbourhood = F.max_pool2d(only_best, kernel_size=3, stride=1, padding=1).gather(1, best_class)
    is_peak = (best >= neighbourhood) & (best >= 1e-6)
    return (best + is_peak).flatten(1)


class QueryProposal(nn.Module):
    """Classifies every position of a feature map and picks the ``num_queries`` best as object queries.

    Keys: ``conv_proposal_cls_logits.{0,2}``.
    """

    def __init__(self, channels: int, num_queries: int, num_classes: int):
        super().__init__()
        self.num_queries = num_queries
        self.conv_proposal_cls_logits = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, num_classes + 1, 1))

    def forward(self, features: Tensor, position_embedding: Tensor) -> ProposedQueries:
        """Picks queries.

        Args:
            features: ``[B, C, h, w]``.
            position_embedding: ``[1, C, h, w]``.

        Returns:
            min(``num_queries``, h * w) queries an image: a map with fewer positions has fewer queries.
        """
        height, width = features.shape[-2:]
        logits = self.conv_proposal_cls_logits(features)
        scores, indices = activation_scores(logits).topk(min(self.num_queries, height * width), dim=1)

        channels = features.shape[1]
        gather = indices[:, :, None].expand(-1, -1, channels)
        content = features.flatten(2).transpose(1, 2).gather(1, gather)
        position = (position_embedding.flatten(2).transpose(1, 2).expand(len(features), -1, -1).gather(1, gather))
        x = torch.linspace(0, 1, width, device=features.device)[indices % width]
        y = torch.linspace(0, 1, height, device=features.device)[indices // width]
        return ProposedQueries(content, position, indices, scores, torch.stack([x, y], dim=-1), logits)
