"""Mask2Former's weights under Hugging Face's names and under the authors' own: the same tensors, but for joined ones.

Where the authors have one matrix for the queries, keys and values of an attention, ``transformers`` has three in
``Mask2FormerForUniversalSegmentation``; nothing else differs but names. They changed with its versions: those that
version 4 writes (5 as well, unless told otherwise) and those that version 5 has in memory are both read; version 4's
are written.
"""
from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .backbones import from_torchvision

# What every such file has, whatever prefix is before it; MaskFormer and OneFormer have no such entry.
MARK = 'transformer_module.queries_features.weight'
CLASS_WEIGHTS = 'the constant class weights of the loss, no weights of the network'
POSITIONS = 'positions in a window, which follow from its size'
LAST_NORM = 'a norm behind the backbone\'s last stage, which the network does not use'

_ENCODER = 'pixel_level_module.encoder.'
_BLOCK = _ENCODER + 'encoder.layers.<i>.blocks.<j>.'
_OUR_BLOCK = 'backbone.layers.<i>.blocks.<j>.'
_PIXELS, _OUR_PIXELS = 'pixel_level_module.decoder.', 'sem_seg_head.pixel_decoder.'
_LAYER, _OUR_LAYER = _PIXELS + 'encoder.layers.<i>.', _OUR_PIXELS + 'transformer.encoder.layers.<i>.'
_QUERIES, _OURS = 'transformer_module.', 'sem_seg_head.predictor.'
_DECODER = _QUERIES + 'decoder.layers.<i>.'


def _resnet() -> Iterator[tuple[str, str]]:
    """Their stages count from 0, the authors' from 2; convolutions and norms lie side by side."""
    for theirs, ours in (('convolution', ''), ('normalization', '.norm')):
        yield f'{_ENCODER}embedder.embedder.{theirs}', f'backbone.stem.conv1{ours}'
        for stage in range(4):
            block = f'{_ENCODER}encoder.stages.{stage}.layers.<i>.'
            yield f'{block}shortcut.{theirs}', f'backbone.res{stage + 2}.<i>.shortcut{ours}'
            for number in range(3):
                yield f'{block}layer.{number}.{theirs}', f'backbone.res{stage + 2}.<i>.conv{number + 1}{ours}'


# Their module or parameter, without 'model.' in front, and the authors'; the first of several is written.
_RENAMED = (
    ('class_predictor', _OURS + 'class_embed'),
    (_ENCODER + 'embeddings.patch_embeddings.projection', 'backbone.patch_embed.proj'),
    (_ENCODER + 'embeddings.norm', 'backbone.patch_embed.norm'),
    (_BLOCK + 'layernorm_before', _OUR_BLOCK + 'norm1'),
    (_BLOCK + 'layernorm_after', _OUR_BLOCK + 'norm2'),
    (_BLOCK + 'attention.self.relative_position_bias_table', _OUR_BLOCK + 'attn.relative_position_bias_table'),
    (_BLOCK + 'attention.relative_position_bias.relative_position_bias_table',
     _OUR_BLOCK + 'attn.relative_position_bias_table'),
    (_BLOCK + 'attention.output.dense', _OUR_BLOCK + 'attn.proj'),
    (_BLOCK + 'attention.o_proj', _OUR_BLOCK + 'attn.proj'),
    (_BLOCK + 'intermediate.dense', _OUR_BLOCK + 'mlp.fc1'),
    (_BLOCK + 'mlp.fc1', _OUR_BLOCK + 'mlp.fc1'),
    (_BLOCK + 'output.dense', _OUR_BLOCK + 'mlp.fc2'),
    (_BLOCK + 'mlp.fc2', _OUR_BLOCK + 'mlp.fc2'),
    (_ENCODER + 'encoder.layers.<i>.downsample.norm', 'backbone.layers.<i>.downsample.norm'),
    (_ENCODER + 'encoder.layers.<i>.downsample.reduction', 'backbone.layers.<i>.downsample.reduction'),
    *((f'{_ENCODER}hidden_states_norms.stage{stage + 1}', f'backbone.norm{stage}') for stage in range(4)),
    (_ENCODER + 'hidden_states_norms.<i>', 'backbone.norm<i>'),
    *_resnet(),
    (_PIXELS + 'input_projections.<i>.<j>', _OUR_PIXELS + 'input_proj.<i>.<j>'),
    (_PIXELS + 'adapter_<i>.0', _OUR_PIXELS + 'adapter_<i>'),
    (_PIXELS + 'adapter_<i>.1', _OUR_PIXELS + 'adapter_<i>.norm'),
    (_PIXELS + 'layer_<i>.0', _OUR_PIXELS + 'layer_<i>'),
    (_PIXELS + 'layer_<i>.1', _OUR_PIXELS + 'layer_<i>.norm'),
    (_PIXELS + 'level_embed', _OUR_PIXELS + 'transformer.level_embed'),
    (_PIXELS + 'mask_projection', _OUR_PIXELS + 'mask_features'),
    *((f'{_LAYER}self_attn.{name}', f'{_OUR_LAYER}self_attn.{name}')
      for name in ('sampling_offsets', 'attention_weights', 'value_proj', 'output_proj')),
    (_LAYER + 'self_attn_layer_norm', _OUR_LAYER + 'norm1'),
    (_LAYER + 'fc1', _OUR_LAYER + 'linear1'),
    (_LAYER + 'fc2', _OUR_LAYER + 'linear2'),
    (_LAYER + 'final_layer_norm', _OUR_LAYER + 'norm2'),
    (_QUERIES + 'queries_features', _OURS + 'query_feat'),
    (_QUERIES + 'queries_embedder', _OURS + 'query_embed'),
    (_QUERIES + 'level_embed', _OURS + 'level_embed'),
    (_QUERIES + 'input_projections.<i>', _OURS + 'input_proj.<i>'),
    (_QUERIES + 'decoder.layernorm', _OURS + 'decoder_norm'),
    (_QUERIES + 'decoder.mask_predictor.mask_embedder.<i>.0', _OURS + 'mask_embed.layers.<i>'),
    (_DECODER + 'self_attn.out_proj', _OURS + 'transformer_self_attention_layers.<i>.self_attn.out_proj'),
    (_DECODER + 'self_attn_layer_norm', _OURS + 'transformer_self_attention_layers.<i>.norm'),
    (_DECODER + 'cross_attn', _OURS + 'transformer_cross_attention_layers.<i>.multihead_attn'),
    (_DECODER + 'cross_attn.out_proj', _OURS + 'transformer_cross_attention_layers.<i>.multihead_attn.out_proj'),
    (_DECODER + 'cross_attn_layer_norm', _OURS + 'transformer_cross_attention_layers.<i>.norm'),
    (_DECODER + 'fc1', _OURS + 'transformer_ffn_layers.<i>.linear1'),
    (_DECODER + 'fc2', _OURS + 'transformer_ffn_layers.<i>.linear2'),
    (_DECODER + 'final_layer_norm', _OURS + 'transformer_ffn_layers.<i>.norm'),
)
# Their three modules, and the authors' one; one that ends in '_' is not a module of its own: ``in_proj_weight``.
_JOINED = (
    (tuple(f'{_BLOCK}attention.self.{part}' for part in ('query', 'key', 'value')), _OUR_BLOCK + 'attn.qkv'),
    (tuple(f'{_BLOCK}attention.{part}_proj' for part in 'qkv'), _OUR_BLOCK + 'attn.qkv'),
    (tuple(f'{_DECODER}self_attn.{part}_proj' for part in 'qkv'),
     _OURS + 'transformer_self_attention_layers.<i>.self_attn.in_proj_'),
)
_LEFT_OUT = (
    (re.compile(r'(^|\.)criterion\.empty_weight$'), CLASS_WEIGHTS),
    (re.compile(r'\.relative_position_index$'), POSITIONS),
    (re.compile(r'^pixel_level_module\.encoder\.layernorm\.(weight|bias)$'), LAST_NORM),
)
_LEAF = (r'(?P<leaf>(?:[._](?:weight|bias))?|\.in_proj_(?:weight|bias)|'
         r'\.(?:running_mean|running_var|num_batches_tracked))$')
_TIMM = _ENCODER + '_backbone.'


@dataclass
class Translation:
    """What the keys of one side are called on the other.

    Attributes:
        names: the authors' name of each key.
        joined: the keys, in order, whose tensors laid one below the other are the authors' one.
        left_out: of every key that has no name the reason.
        unknown: keys that no such network has.
    """
    names: dict[str, str] = field(default_factory=dict)
    joined: dict[str, tuple[str, ...]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)


def is_huggingface(keys: Iterable[str]) -> bool:
    """Whether these are the keys of Hugging Face's Mask2Former."""
    return any(key.endswith(MARK) for key in keys)


def translate(keys: Iterable[str]) -> Translation:
    """The authors' names for the keys of a file of Hugging Face's."""
    result = Translation()
    parts: dict[str, dict[int, str]] = {}
    for key in keys:
        plain = key.removeprefix('model.').replace('pixel_level_module.encoder.swin.', _ENCODER)
        reason = next((reason for pattern, reason in _LEFT_OUT if pattern.search(plain)), None)
        if reason is not None:
            result.left_out[key] = reason
            continue
        name, part = _authors(plain)
        if name is None:
            result.unknown.append(key)
            continue
        result.names[key] = name
        if part is not None:
            parts.setdefault(name, {})[part] = key
    result.joined = {name: tuple(keys[part] for part in sorted(keys)) for name, keys in parts.items()}
    return result


def to_huggingface(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a Mask2Former of ours under Hugging Face's names, as ``transformers`` reads them.

    Args:
        state: under the authors' names.

    Raises:
        ValueError: an entry that such a network does not have; names it.
    """
    result: dict[str, Tensor] = {}
    for name, tensor in state.items():
        for pattern, target in _TO_THEIRS:
            match = pattern.match(name)
            if match is None:
                continue
            whole = isinstance(target, str)
            pieces = (tensor,) if whole else torch.chunk(tensor, len(target))
            for theirs, piece in zip((target,) if whole else target, pieces, strict=True):
                key = _filled(theirs, match)
                result[key if key.startswith('class_predictor') else f'model.{key}'] = piece.clone()
            break
        else:
            raise ValueError(f'{name}: Hugging Face\'s Mask2Former has no such weights')
    return result


def _authors(plain: str) -> tuple[str | None, int | None]:
    """The authors' name, and which part of it the key is (None: all of it)."""
    if plain.startswith(_TIMM):
        return 'backbone.' + from_torchvision(plain[len(_TIMM):]), None
    for pattern, name, part in _TO_AUTHORS:
        match = pattern.match(plain)
        if match is not None:
            return _filled(name, match), part
    return None, None


def _filled(name: str, match: re.Match[str]) -> str:
    """A name with the numbers and the ending that were found."""
    for number, found in match.groupdict().items():
        if number != 'leaf':
            name = name.replace(f'<{number}>', found)
    leaf = match['leaf']
    return name + leaf[1:] if name.endswith('_') else name + ('.' + leaf[1:] if leaf.startswith('_') else leaf)


def _pattern(name: str) -> re.Pattern[str]:
    escaped = re.escape(name.removesuffix('_'))
    return re.compile(re.sub(r'<([ij])>', r'(?P<\1>\\d+)', escaped) + _LEAF)


_TO_AUTHORS = ([(_pattern(theirs), ours, None) for theirs, ours in _RENAMED]
               + [(_pattern(name), ours, part) for theirs, ours in _JOINED for part, name in enumerate(theirs)])
# joined ones first: 'self_attn.in_proj_weight' is no entry of a module 'self_attn'
_TO_THEIRS = [(_pattern(ours), theirs) for theirs, ours in (*_JOINED, *_RENAMED)]
