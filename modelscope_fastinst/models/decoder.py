"""The dual-path transformer decoder: pixels and queries are updated in turn, and ground-truth masks guide the training.

Sections 3.3 and 3.4 of FastInst (He et al., CVPR 2023, arXiv 2303.08594).
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..structures import NetworkOutput, PixelFeatures, Prediction, Target
from .attention import MLP, CrossAttentionLayer, FeedForwardLayer, SelfAttentionLayer
from .network import Match
from .pixel_decoder import resize
from .query_decoder import QueryDecoder

PATHS = ('dual', 'query')


@dataclass
class DecoderState:
    """What the layers update: queries ``[B, Q + A, C]``, the A auxiliary ones last, and pixels ``[B, h * w, C]``."""
    queries: Tensor
    pixels: Tensor


@dataclass
class Positions:
    """Position embeddings of a ``DecoderState``: ``[B, Q + A, C]`` and ``[1, h * w, C]``."""
    queries: Tensor
    pixels: Tensor


def sine_embedding(channels: int, side: int) -> Tensor:
    """Sines and cosines of x and y at geometric frequencies, of mean square 1: float ``[1, channels, side, side]``.

    Neighbours start out alike and distant positions do not. In one training of 200 iterations each on small crops of
    crowded images the mask loss was lower with it than with independent random numbers.
    """
    centres = (torch.arange(side) + 0.5) / side
    count = -(-channels // 4)
    # From half a wave over the map to the shortest wave that its cells can carry.
    frequencies = torch.pi * torch.logspace(0, 1, count, base=max(side / 2, 1.0))
    angles = frequencies[:, None] * centres
    waves = 2 ** 0.5 * torch.stack([angles.sin(), angles.cos()], dim=1).flatten(0, 1)
    x, y = waves[:, None, :].expand(-1, side, -1), waves[:, :, None].expand(-1, -1, side)
    return torch.stack([x, y], dim=1).flatten(0, 1)[None, :channels].contiguous()


class DualPathDecoder(QueryDecoder):
    """Updates pixel features by queries and queries by pixel features, ``num_layers`` times.

    Keys: ``meta_pos_embed``; ``empty_query_features``, ``empty_query_pos_embed`` (content and position of the auxiliary
    queries: they take part in attention, no head reads them); ``query_proposal`` or ``query_feat``, ``query_embed``;
    ``transformer_{query_cross,query_self,mask_cross}_attention_layers``, ``transformer_{query,mask}_ffn_layers`` (one
    of each a layer; "mask" is the pixel path); ``decoder_query_norm_layers``, ``class_embed_layers``,
    ``mask_embed_layers``, ``mask_features_layers`` (one set of heads before the first layer and one after each).

    Args:
        num_classes: K, without "no object".
        hidden_dim: C, width of queries and pixels.
        num_queries, num_aux_queries: Q and A.
        nheads: attention heads.
        dim_feedforward: hidden width of the feed-forward blocks.
        dec_layers: L.
        pre_norm: layer norm before instead of after each block.
        mask_dim: width of the dot product that makes the masks.
        position_grid: side of the learnt map of position embeddings; None, as published, for round(sqrt(Q)).
        position_in_content: add the position embeddings to the content of queries and pixels as well. As published they
            only steer attention, so that masks of objects that look alike have to be told apart by their surroundings;
            meant for crowds of equal objects (cells, seeds); in one short training each, the loss was lower with it.
        queries: 'activation-guided', as published: picked from the middle map; 'static': learnt.
        path: 'dual', as published; 'query' updates the queries only, and no layer has the pixels' blocks.
        guidance: train with ground-truth guidance, as published.

    Raises:
        ValueError: an unknown ``queries`` or ``path``.
    """

    def __init__(self, *, num_classes: int, hidden_dim: int = 256, num_queries: int = 100, num_aux_queries: int = 8,
                 nheads: int = 8, dim_feedforward: int = 1024, dec_layers: int = 3, pre_norm: bool = False,
                 mask_dim: int = 256, position_grid: int | None = None, position_in_content: bool = False,
                 queries: str = 'activation-guided', path: str = 'dual', guidance: bool = True):
        super().__init__(num_classes, hidden_dim, num_queries, queries, guidance)
        if path not in PATHS:
            raise ValueError(f'decoder path {path!r} is unknown; choose one of {", ".join(PATHS)}')
        self.updates_pixels = path == 'dual'
        self.position_in_content = position_in_content
        self.num_layers = dec_layers
        self.num_aux_queries = num_aux_queries

        # One small map of position embeddings serves pixels and queries; it is resized to each feature map. The
        # authors leave it uninitialised (their issue 57).
        self.meta_pos_embed = nn.Parameter(sine_embedding(hidden_dim, position_grid or round(num_queries ** 0.5)))
        if num_aux_queries:
            self.empty_query_features = nn.Embedding(num_aux_queries, hidden_dim)
            self.empty_query_pos_embed = nn.Embedding(num_aux_queries, hidden_dim)

        def layers(make: Callable[[], nn.Module], count: int = dec_layers) -> nn.ModuleList:
            return nn.ModuleList(make() for _ in range(count))

        self.transformer_query_cross_attention_layers = layers(
            lambda: CrossAttentionLayer(hidden_dim, nheads, pre_norm))
        self.transformer_query_self_attention_layers = layers(lambda: SelfAttentionLayer(hidden_dim, nheads, pre_norm))
        self.transformer_query_ffn_layers = layers(lambda: FeedForwardLayer(hidden_dim, dim_feedforward, pre_norm))
        if self.updates_pixels:
            self.transformer_mask_cross_attention_layers = layers(
                lambda: CrossAttentionLayer(hidden_dim, nheads, pre_norm))
            self.transformer_mask_ffn_layers = layers(lambda: FeedForwardLayer(hidden_dim, dim_feedforward, pre_norm))

        heads = dec_layers + 1
        self.decoder_query_norm_layers = layers(lambda: nn.LayerNorm(hidden_dim), heads)
        self.class_embed_layers = layers(lambda: MLP(hidden_dim, hidden_dim, num_classes + 1), heads)
        self.mask_embed_layers = layers(lambda: MLP(hidden_dim, hidden_dim, mask_dim), heads)
        self.mask_features_layers = layers(lambda: nn.Linear(hidden_dim, mask_dim), heads)

    def forward(self, features: PixelFeatures, *, canvas: tuple[int, int], sizes: list[tuple[int, int]],
                targets: Sequence[Target] | None = None, match: Match | None = None) -> NetworkOutput:
        """Decodes one batch.

        Args:
            features: of the pixel decoder; queries are picked from the middle map, the finest holds the pixels of the
                masks.
            canvas, sizes: see ``NetworkOutput``; passed through.
            targets: ground truth that knows its canvas; with it, every head classifies and the guided pass runs.
            match: pairs queries with objects for the guided pass; needed with ``targets`` where there is guidance.

        Raises:
            ValueError: guidance and targets without ``match``.
        """
        _, query_features, pixel_features = features.maps
        training = self._is_training(targets, match)
        grid = tuple(pixel_features.shape[-2:])
        proposed = self._first_queries(query_features, resize(self.meta_pos_embed, query_features.shape[-2:]))
        num_queries = proposed.content.shape[1]
        queries, pixels = proposed.content, pixel_features.flatten(2).transpose(1, 2)
        pixel_positions = resize(self.meta_pos_embed, grid).flatten(2).transpose(1, 2)
        if self.position_in_content:
            queries, pixels = queries + proposed.position, pixels + pixel_positions
        state = DecoderState(self._with_auxiliary(queries, 'empty_query_features'), pixels)
        positions = Positions(self._with_auxiliary(proposed.position, 'empty_query_pos_embed'), pixel_positions)

        predictions = [self._predict(0, state, num_queries, grid, classify=training or self.num_layers == 0)]
        memory = []
        for layer in range(self.num_layers):
            attend = self._attend_to_foreground(predictions[-1].masks)
            state = self._update(layer, state, positions, attend)
            memory.append(state)
            predictions.append(self._predict(layer + 1, state, num_queries, grid,
                                             classify=training or layer == self.num_layers - 1))

        output = self._output(predictions, proposed, canvas, sizes, training)
        if training and self.guidance:
            # The layer's own output goes through the layer once more, now looking where the objects truly are.
            self._guide(output, targets, match, [grid] * self.num_layers, lambda layer, attend: self._predict(
                layer + 1, self._update(layer, memory[layer], positions, attend), num_queries, grid, classify=True))
        return output

    def _with_auxiliary(self, queries: Tensor, table: str) -> Tensor:
        if not self.num_aux_queries:
            return queries
        rows = getattr(self, table).weight.expand(len(queries), -1, -1)
        return torch.cat([queries, rows.to(queries.dtype)], dim=1)

    def _update(self, layer: int, state: DecoderState, positions: Positions, attend: Tensor) -> DecoderState:
        """One layer: pixels look at queries, then queries look at the updated pixels where ``attend`` lets them."""
        pixels = self._update_pixels(layer, state, positions) if self.updates_pixels else state.pixels
        queries = self.transformer_query_cross_attention_layers[layer](
            state.queries, positions.queries, pixels, positions.pixels, attend)
        queries = self.transformer_query_self_attention_layers[layer](queries, positions.queries)
        queries = self.transformer_query_ffn_layers[layer](queries)
        return DecoderState(queries, pixels)

    def _update_pixels(self, layer: int, state: DecoderState, positions: Positions) -> Tensor:
        pixels = self.transformer_mask_cross_attention_layers[layer](
            state.pixels, positions.pixels, state.queries, positions.queries)
        return self.transformer_mask_ffn_layers[layer](pixels)

    def _predict(self, head: int, state: DecoderState, num_queries: int, grid: Sequence[int],
                 classify: bool) -> Prediction:
        queries = self.decoder_query_norm_layers[head](state.queries[:, :num_queries])
        logits = self.class_embed_layers[head](queries) if classify else None
        embedding = self.mask_embed_layers[head](queries)
        features = self.mask_features_layers[head](state.pixels)
        masks = (embedding @ features.transpose(1, 2)).unflatten(-1, tuple(grid))
        return Prediction(logits, masks)

    def _attend_to_foreground(self, mask_logits: Tensor) -> Tensor:
        """Where each query may look next: bool ``[B, Q + A, h * w]``, the foreground of its own predicted mask."""
        return self._complete(mask_logits.detach().flatten(2) >= 0)

    def _complete(self, attend: Tensor) -> Tensor:
        """Adds the rows of the auxiliary queries, which look everywhere."""
        return F.pad(super()._complete(attend), (0, 0, 0, self.num_aux_queries), value=True)
