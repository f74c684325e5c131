"""The network behind a Mask2Former's weights: what its configuration would say, read from names and shapes.

The authors' files hold no configuration. All of it can be read from the tensors but for the heads of the attentions
(which split a width that is the same for any number of them) and for where norms stand; see ``read_architecture``.
"""
from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from .backbones import backbone_kind

HEADS = 'sem_seg_head.predictor.'
PIXELS = 'sem_seg_head.pixel_decoder.'
# In every published model; the file only says how many there are of both together.
POINTS = 4
SCALES = 3


class UnknownArchitectureError(ValueError):
    """Weights whose network cannot be built here, or cannot be read from them."""


def is_mask2former(names: Iterable[str]) -> bool:
    """Whether these are the authors' names of a Mask2Former with deformable attention and masked attention."""
    names = set(names)
    return {HEADS + 'query_feat.weight', HEADS + 'transformer_cross_attention_layers.0.norm.weight',
            HEADS + 'class_embed.weight', PIXELS + 'transformer.level_embed'} <= names


def read_architecture(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The sections ``type``, ``backbone``, ``encoder`` and ``decoder`` for weights under the authors' names.

    What the tensors do not say is as in the authors' models: four sampling points, as many heads in the decoder as in
    the pixel decoder, norms behind the blocks, frozen batch norms, the stride of a ResNet in its 3x3 convolutions.

    Args:
        tensors: by name; only their shapes are looked at.

    Raises:
        UnknownArchitectureError: a part is missing, or is none that is known here.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}

    def of(name: str) -> tuple[int, ...]:
        if name not in shapes:
            raise UnknownArchitectureError(f'{name} is missing; the Mask2Former is incomplete')
        return shapes[name]

    backbone = _backbone(shapes, of)
    sampling = of(PIXELS + 'transformer.encoder.layers.0.self_attn.attention_weights.weight')[0]
    if sampling % (SCALES * POINTS):
        raise UnknownArchitectureError(f'its deformable attention looks at {sampling} points a pixel, all heads and '
                                       f'scales together, which are not {POINTS} for each of {SCALES} scales')
    heads = sampling // (SCALES * POINTS)
    width = of(HEADS + 'query_feat.weight')
    encoder = {
        'type': 'msdeformattn', 'convs_dim': of(PIXELS + 'input_proj.0.0.weight')[0],
        'mask_dim': of(PIXELS + 'mask_features.weight')[0], 'nheads': heads, 'num_points': POINTS,
        'enc_layers': count(shapes, PIXELS + 'transformer.encoder.layers.'),
        'dim_feedforward': of(PIXELS + 'transformer.encoder.layers.0.linear1.weight')[0],
    }
    decoder = {
        'type': 'masked-attention', 'num_classes': of(HEADS + 'class_embed.weight')[0] - 1, 'hidden_dim': width[1],
        'num_queries': width[0], 'nheads': heads, 'dec_layers': count(shapes, HEADS + 'transformer_ffn_layers.'),
        'dim_feedforward': of(HEADS + 'transformer_ffn_layers.0.linear1.weight')[0],
        'mask_dim': encoder['mask_dim'],
    }
    if HEADS + 'input_proj.0.weight' in shapes:
        decoder['enforce_input_project'] = True
    return {'type': 'mask2former', 'backbone': backbone, 'encoder': encoder, 'decoder': decoder}


def count(names: Iterable[str], prefix: str) -> int:
    """How many numbered parts there are under a prefix."""
    return len({name[len(prefix):].partition('.')[0] for name in names if name.startswith(prefix)})


def _backbone(shapes: Mapping[str, tuple[int, ...]], of: Any) -> dict[str, Any]:
    if 'backbone.patch_embed.proj.weight' in shapes:
        return _swin(shapes, of)
    kind = backbone_kind(name.removeprefix('backbone.') for name in shapes if name.startswith('backbone.'))
    if kind is None or kind.type != 'resnet' or kind.depth is None:
        known = 'ResNet-18, 34, 50, 101, 152 and Swin are'
        found = 'nothing that is known' if kind is None else kind.name
        raise UnknownArchitectureError(f'its backbone is {found}; {known}')
    section: dict[str, Any] = {
        'type': 'resnet', 'depth': kind.depth, 'norm': 'FrozenBN', 'out_features': ['res2', 'res3', 'res4', 'res5'],
        'stem_out_channels': of('backbone.stem.conv1.weight')[0],
    }
    if not kind.bottleneck:
        return section | {'res2_out_channels': of('backbone.res2.0.conv2.weight')[0]}
    outside, inside = of('backbone.res2.0.conv3.weight')[:2]
    groups = inside // of('backbone.res2.0.conv2.weight')[1]
    section['res2_out_channels'] = outside
    return section | ({'num_groups': groups, 'width_per_group': inside // groups}
                      if (groups, inside) != (1, 64) else {})


def _swin(shapes: Mapping[str, tuple[int, ...]], of: Any) -> dict[str, Any]:
    if 'backbone.absolute_pos_embed' in shapes:
        raise UnknownArchitectureError('its Swin has absolute position embeddings, which are not known here')
    width, _, patch, _ = of('backbone.patch_embed.proj.weight')
    if patch != 4:
        raise UnknownArchitectureError(f'its Swin has patches of {patch} pixels; 4 are known here')
    stages = count(shapes, 'backbone.layers.')
    tables = [of(f'backbone.layers.{stage}.blocks.0.attn.relative_position_bias_table') for stage in range(stages)]
    side = round(tables[0][0] ** 0.5)
    window = (side + 1) // 2
    if stages != 4 or any(table[0] != (2 * window - 1) ** 2 for table in tables):
        raise UnknownArchitectureError(f'its Swin has {stages} stages with the windows of '
                                       f'{[table[0] for table in tables]} relative positions; four equal ones are '
                                       'known here')
    hidden = of('backbone.layers.0.blocks.0.mlp.fc1.weight')[0]
    if hidden != 4 * width:
        raise UnknownArchitectureError(f'its Swin widens {width} channels to {hidden}; four times is known here')
    blocks = [count(shapes, f'backbone.layers.{stage}.blocks.') for stage in range(stages)]
    outputs = sorted(int(match[1]) for match in (re.fullmatch(r'backbone\.norm(\d)\.weight', name)
                                                 for name in shapes) if match)
    return {'type': 'swin', 'embed_dim': width, 'depths': blocks, 'num_heads': [table[1] for table in tables],
            'window_size': window, 'out_features': [f'res{stage + 2}' for stage in outputs]}
