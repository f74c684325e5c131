"""Mask2Former's transformer decoder: queries look at three scales in turn, each only where its own mask is so far.

Masked attention, section 3.2 of Mask2Former (Cheng et al., CVPR 2022, arXiv 2112.01527).
"""
from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from ..structures import NetworkOutput, PixelFeatures, Prediction, Target
from .attention import MLP, CrossAttentionLayer, FeedForwardLayer, SelfAttentionLayer
from .network import Match
from .pixel_decoder import resize
from .position import sine_positions
from .query_decoder import QueryDecoder

SCALES = 3


class MaskedAttentionDecoder(QueryDecoder):
    """Updates queries by pixel features of one scale after another; the pixel features stay as they are.

    Keys: ``transformer_{cross_attention,self_attention,ffn}_layers`` (one of each a layer); ``decoder_norm``,
    ``class_embed``, ``mask_embed`` (one set of heads for all layers and for the queries before the first);
    ``level_embed``; ``query_feat``, ``query_embed`` or ``query_proposal``; ``input_proj`` where it is enforced.

    Args:
        num_classes: K, without "no object".
        hidden_dim: C, width of queries and maps; a multiple of 4.
        num_queries: Q.
        nheads: attention heads.
        dim_feedforward: hidden width of the feed-forward blocks.
        dec_layers: L, number of layers: 9 in the published models, whose files say 10, for they count the heads before
            the first layer as well. Layer i looks at map i modulo 3, coarsest first.
        pre_norm: layer norm before instead of after each block.
        mask_dim: width of the dot product that makes the masks.
        queries: 'static', as published: learnt; 'activation-guided' as in FastInst: picked from the middle map.
        guidance: train with FastInst's ground-truth guidance, at each layer's own scale.
        enforce_input_project: a 1x1 convolution on each map, though its width is ``hidden_dim`` already.
    """
    needs_mask_features = True

    def __init__(self, *, num_classes: int, hidden_dim: int = 256, num_queries: int = 100, nheads: int = 8,
                 dim_feedforward: int = 2048, dec_layers: int = 9, pre_norm: bool = False, mask_dim: int = 256,
                 queries: str = 'static', guidance: bool = False, enforce_input_project: bool = False):
        super().__init__(num_classes, hidden_dim, num_queries, queries, guidance)
        if hidden_dim % 4:
            raise ValueError(f'decoder hidden_dim {hidden_dim} must be a multiple of 4: sines and cosines of rows and '
                             'of columns share it')
        self.num_layers = dec_layers

        def layers(make: Callable[[], nn.Module]) -> nn.ModuleList:
            return nn.ModuleList(make() for _ in range(dec_layers))

        self.transformer_self_attention_layers = layers(lambda: SelfAttentionLayer(hidden_dim, nheads, pre_norm))
        self.transformer_cross_attention_layers = layers(lambda: CrossAttentionLayer(hidden_dim, nheads, pre_norm))
        self.transformer_ffn_layers = layers(lambda: FeedForwardLayer(hidden_dim, dim_feedforward, pre_norm))
        self.decoder_norm = nn.LayerNorm(hidden_dim)
        self.level_embed = nn.Embedding(SCALES, hidden_dim)
        self.input_proj = nn.ModuleList(_projection(hidden_dim) if enforce_input_project else nn.Identity()
                                        for _ in range(SCALES))
        # Scales that no layer looks at: several processes that train together would wait for their gradients.
        self.input_proj[dec_layers:].requires_grad_(False)
        self.class_embed = nn.Linear(hidden_dim, num_classes + 1)
        self.mask_embed = MLP(hidden_dim, hidden_dim, mask_dim)

    def forward(self, features: PixelFeatures, *, canvas: tuple[int, int], sizes: list[tuple[int, int]],
                targets: Sequence[Target] | None = None, match: Match | None = None) -> NetworkOutput:
        """Decodes one batch.

        Args:
            features: three maps and the mask features of the pixel decoder.
            canvas, sizes: see ``NetworkOutput``; passed through.
            targets: ground truth that knows its canvas; with it, every head classifies.
            match: pairs queries with objects; needed with ``targets`` where there is guidance.

        Raises:
            ValueError: no mask features, or guidance and targets without ``match``.
        """
        if features.mask_features is None:
            raise ValueError('the masked-attention decoder needs mask features: give the pixel decoder a mask_dim')
        training = self._is_training(targets, match)
        grids = [tuple(map_.shape[-2:]) for map_ in features.maps]
        levels = self.level_embed.weight
        position_maps = [sine_positions(*grid, levels.shape[1], levels.device).to(levels) for grid in grids]
        proposed = self._first_queries(features.maps[1], position_maps[1])
        positions = [position.flatten(2).transpose(1, 2) for position in position_maps]
        memories = [project(map_).flatten(2).transpose(1, 2) + level
                    for project, map_, level in zip(self.input_proj, features.maps, levels, strict=True)]

        def update(layer: int, queries: Tensor, attend: Tensor) -> Tensor:
            scale = layer % SCALES
            queries = self.transformer_cross_attention_layers[layer](
                queries, proposed.position, memories[scale], positions[scale], attend)
            queries = self.transformer_self_attention_layers[layer](queries, proposed.position)
            return self.transformer_ffn_layers[layer](queries)

        states = [proposed.content]
        predictions = [self._predict(states[0], features.mask_features, training or self.num_layers == 0)]
        for layer in range(self.num_layers):
            attend = self._attend_to_foreground(predictions[-1].masks, grids[layer % SCALES])
            states.append(update(layer, states[-1], attend))
            if not training:   # nobody will read them: at stride 4 every head's masks take much memory
                predictions.clear()
            predictions.append(self._predict(states[-1], features.mask_features,
                                             training or layer == self.num_layers - 1))
        output = self._output(predictions, proposed, canvas, sizes, training)
        if training and self.guidance:
            self._guide(output, targets, match, [grids[layer % SCALES] for layer in range(self.num_layers)],
                        lambda layer, attend: self._predict(update(layer, states[layer + 1], attend),
                                                            features.mask_features, True))
        return output

    def _predict(self, queries: Tensor, mask_features: Tensor, classify: bool) -> Prediction:
        queries = self.decoder_norm(queries)
        logits = self.class_embed(queries) if classify else None
        masks = self.mask_embed(queries) @ mask_features.flatten(2)
        return Prediction(logits, masks.unflatten(-1, tuple(mask_features.shape[-2:])))

    def _attend_to_foreground(self, mask_logits: Tensor, grid: tuple[int, int]) -> Tensor:
        """Where each query may look next: bool ``[B, Q, h * w]``, the foreground of its own mask at another scale."""
        return self._complete(resize(mask_logits.detach(), grid).flatten(2).sigmoid() >= 0.5)


def _projection(channels: int) -> nn.Conv2d:
    convolution = nn.Conv2d(channels, channels, 1)
    nn.init.kaiming_uniform_(convolution.weight, a=1)
    nn.init.zeros_(convolution.bias)
    return convolution
