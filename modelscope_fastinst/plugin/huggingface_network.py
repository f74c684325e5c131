"""The network and the losses that the ``config.json`` of a Mask2Former of Hugging Face's describes, as ours say it.

A setting that would change what the network computes, and that it does not have here, is an error. Those that only a
training in ``transformers`` knows (dropout, the initialisation) are not looked at.
"""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

STAGES = ['res2', 'res3', 'res4', 'res5']
# Of ``transformers``' configuration classes: what a file does not say has these values.
_DEFAULTS = {
    'feature_size': 256, 'mask_feature_size': 256, 'hidden_dim': 256, 'encoder_feedforward_dim': 1024,
    'encoder_layers': 6, 'decoder_layers': 10, 'num_attention_heads': 8, 'dim_feedforward': 2048, 'pre_norm': False,
    'enforce_input_projection': False, 'num_queries': 100, 'no_object_weight': 0.1, 'class_weight': 2.0,
    'mask_weight': 5.0, 'dice_weight': 5.0, 'train_num_points': 12544, 'oversample_ratio': 3.0,
    'importance_sample_ratio': 0.75, 'use_auxiliary_loss': True, 'activation_function': 'relu', 'common_stride': 4,
    'feature_strides': [4, 8, 16, 32],
}
_SWIN = {'embed_dim': 96, 'depths': [2, 2, 6, 2], 'num_heads': [3, 6, 12, 24], 'window_size': 7,
         'drop_path_rate': 0.1, 'mlp_ratio': 4.0, 'patch_size': 4, 'num_channels': 3, 'qkv_bias': True,
         'use_absolute_embeddings': False, 'hidden_act': 'gelu', 'layer_norm_eps': 1e-5}
# Of a Mask2Former that does not describe its backbone.
_DEFAULT_BACKBONE = {'model_type': 'swin', 'depths': [2, 2, 18, 2], 'drop_path_rate': 0.3}
_RESNET = {'embedding_size': 64, 'hidden_sizes': [256, 512, 1024, 2048], 'depths': [3, 4, 6, 3],
           'layer_type': 'bottleneck', 'hidden_act': 'relu', 'downsample_in_first_stage': False,
           'downsample_in_bottleneck': False, 'num_channels': 3}
# Blocks by depth, those of basic blocks first.
_RESNETS = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3], 101: [3, 4, 23, 3], 152: [3, 8, 36, 3]}
_TIMM = re.compile(r'resnet(\d+)(\.\w+)?')


class HuggingFaceError(ValueError):
    """A folder of Hugging Face's whose network or preprocessing is not known here, or that says nothing of it."""


def network_sections(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The sections ``backbone``, ``encoder``, ``decoder`` and ``criterion``.

    Args:
        config: the content of ``config.json``.
        where: the file, for errors.

    Raises:
        HuggingFaceError: the network cannot be built here; names the setting and its value.
    """
    values = _values(config, _DEFAULTS)
    _only(values, {'activation_function': 'relu', 'common_stride': 4, 'feature_strides': [4, 8, 16, 32]}, where)
    if values['feature_size'] != values['hidden_dim']:
        raise HuggingFaceError(f'{where}: feature_size is {values["feature_size"]} and hidden_dim '
                               f'{values["hidden_dim"]}; here both are one width')
    encoder = {'type': 'msdeformattn', 'convs_dim': values['feature_size'], 'mask_dim': values['mask_feature_size'],
               'nheads': values['num_attention_heads'], 'num_points': 4, 'enc_layers': values['encoder_layers'],
               'dim_feedforward': values['encoder_feedforward_dim']}
    decoder = {'type': 'masked-attention', 'hidden_dim': values['hidden_dim'], 'num_queries': values['num_queries'],
               'nheads': values['num_attention_heads'], 'dim_feedforward': values['dim_feedforward'],
               'dec_layers': values['decoder_layers'] - 1,   # theirs counts the heads before the first layer
               'pre_norm': values['pre_norm'], 'mask_dim': values['mask_feature_size']}
    if values['enforce_input_projection']:
        decoder['enforce_input_project'] = True
    criterion = {'num_points': values['train_num_points'], 'deep_supervision': values['use_auxiliary_loss'],
                 **{name: values[name] for name in ('oversample_ratio', 'importance_sample_ratio', 'class_weight',
                                                    'mask_weight', 'dice_weight', 'no_object_weight')}}
    return {'backbone': _backbone(config, where), 'encoder': encoder, 'decoder': decoder, 'criterion': criterion}


def class_names(config: Mapping[str, Any], where: str) -> list[str]:
    """The names of the classes, in the order of the class logits.

    Raises:
        HuggingFaceError: they are not numbered from 0 on, or their number contradicts ``num_labels``.
    """
    names = config.get('id2label')
    number = config.get('num_labels')
    if not isinstance(names, Mapping) or not names:
        return [f'LABEL_{index}' for index in range(number if isinstance(number, int) else 2)]
    try:
        by_index = {int(index): str(name) for index, name in names.items()}
    except ValueError as error:
        raise HuggingFaceError(f'{where}: id2label has a key that is no number ({error})') from error
    if sorted(by_index) != list(range(len(by_index))) or number not in (None, len(by_index)):
        raise HuggingFaceError(f'{where}: id2label has the {len(by_index)} keys {shortened(sorted(by_index))}, but '
                               f'classes are numbered from 0 on' + (f', and num_labels is {number}' if number else ''))
    return [by_index[index] for index in range(len(by_index))]


def shortened(values: Sequence[Any], limit: int = 6) -> str:
    """A list for a message."""
    return f'{list(values[:limit])}{" and so on" if len(values) > limit else ""}'


def _backbone(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    section = config.get('backbone_config')
    name = config.get('backbone')
    if section is None:
        section = {'model_type': 'timm_backbone', 'backbone': name} if name else _DEFAULT_BACKBONE
    where, kind = f'{where}: backbone_config', section.get('model_type', 'swin')
    if kind == 'swin':
        return _swin(section, where)
    if kind == 'resnet':
        return _resnet(section, where)
    match = _TIMM.fullmatch(str(section.get('backbone'))) if kind == 'timm_backbone' else None
    if match and int(match[1]) in _RESNETS:
        return {'type': 'resnet', 'depth': int(match[1]), 'norm': 'FrozenBN', 'out_features': STAGES}
    found = repr(kind) + (f' with the backbone {section.get("backbone")!r}' if kind == 'timm_backbone' else '')
    raise HuggingFaceError(f'{where}.model_type is {found}; known are "swin", "resnet" and timm\'s resnet18 to '
                           'resnet152: no other backbone is in this package')


def _swin(section: Mapping[str, Any], where: str) -> dict[str, Any]:
    values = _values(section, _SWIN)
    _only(values, {'patch_size': 4, 'num_channels': 3, 'qkv_bias': True, 'use_absolute_embeddings': False,
                   'hidden_act': 'gelu', 'layer_norm_eps': 1e-5}, where)
    _all_stages(section, where)
    backbone = {'type': 'swin', 'embed_dim': values['embed_dim'], 'depths': list(values['depths']),
                'num_heads': list(values['num_heads']), 'window_size': values['window_size'],
                'drop_path_rate': values['drop_path_rate'], 'out_features': STAGES}
    return backbone | ({'mlp_ratio': values['mlp_ratio']} if values['mlp_ratio'] != 4 else {})


def _resnet(section: Mapping[str, Any], where: str) -> dict[str, Any]:
    values = _values(section, _RESNET)
    _only(values, {'hidden_act': 'relu', 'downsample_in_first_stage': False, 'num_channels': 3}, where)
    _all_stages(section, where)
    bottleneck, widths = values['layer_type'] == 'bottleneck', list(values['hidden_sizes'])
    depth = next((depth for depth, blocks in _RESNETS.items()
                  if blocks == list(values['depths']) and (depth >= 50) == bottleneck), None)
    if depth is None or widths != [widths[0] << stage for stage in range(4)]:
        raise HuggingFaceError(f'{where} is a ResNet of {values["layer_type"]} blocks with depths {values["depths"]} '
                               f'and hidden_sizes {widths}; known are ResNet-18, 34, 50, 101 and 152, which double '
                               'their width at each stage')
    backbone = {'type': 'resnet', 'depth': depth, 'norm': 'FrozenBN', 'out_features': STAGES,
                'stem_out_channels': values['embedding_size'], 'res2_out_channels': widths[0]}
    if bottleneck and widths[0] != 256:
        backbone['width_per_group'] = widths[0] // 4
    if values['downsample_in_bottleneck']:
        backbone['stride_in_1x1'] = True
    return backbone


def _all_stages(section: Mapping[str, Any], where: str) -> None:
    """Whether the backbone gives its four stages; ``out_indices`` counts the stem as 0."""
    stages, indices = section.get('out_features'), section.get('out_indices')
    if (stages is not None and list(stages) != [f'stage{index}' for index in (1, 2, 3, 4)]
            or stages is None and indices is not None and list(indices) != [1, 2, 3, 4]):
        raise HuggingFaceError(f'{where}: out_features {stages} with out_indices {indices} are not the four stages of '
                               'the backbone, which are what is known here')


def _values(section: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {name: default if section.get(name) is None else section[name] for name, default in defaults.items()}


def _only(values: Mapping[str, Any], known: Mapping[str, Any], where: str) -> None:
    """Raises HuggingFaceError for a setting with another value than the one that there is here."""
    for name, value in known.items():
        found = list(values[name]) if isinstance(values[name], (list, tuple)) else values[name]
        if found != value:
            raise HuggingFaceError(f'{where}: {name} is {values[name]!r}; this package knows {value!r} only')
