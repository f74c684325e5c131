"""The layout of ModelScope's own FastInst: its configuration's keys, its weights' keys, and what it cannot have.

Its network is the published one with ordinary batch norms (hence counters of batches) and, in the configuration of its
hub model, biases in the pixel decoder's convolutions, which the published weights do not have: they are 0.
"""
from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ..models.build import ARCHITECTURES, build_network
from ..models.decoder import DualPathDecoder
from ..models.pixel_decoder import PyramidPoolingFPN
from ..models.resnet import ResNet
from .formats import CheckpointError
from .loading import UNTRAINED_BIAS
from .sources import COUNTER_NAME

WEIGHTS_FILE = 'pytorch_model.pt'
# Every setting that its constructors take; the library passes them on without defaults.
_BACKBONE = ('out_features', 'depth', 'num_groups', 'width_per_group', 'norm', 'stem_out_channels',
             'res2_out_channels', 'stride_in_1x1', 'res4_dilation', 'res5_dilation', 'res5_multi_grid')
_DECODER = ('num_classes', 'hidden_dim', 'num_queries', 'num_aux_queries', 'nheads', 'dim_feedforward', 'dec_layers',
            'pre_norm', 'mask_dim')
_FEATURES = ['res3', 'res4', 'res5']
_NORMS = {'FrozenBN': 'BN', 'BN': 'BN', 'SyncBN': 'BN', 'nnSyncBN': 'BN', 'GN': 'GN'}


def stock_model(model: Mapping[str, Any], where: str = 'the configuration') -> dict[str, Any]:
    """The ``model`` section that ModelScope's own FastInst takes, for the network of one of ours.

    Args:
        model: the ``model`` section of ours.
        where: what the model is called in an error.

    Raises:
        CheckpointError: the network has something that it lacks; the message names all of that.
    """
    _check_parts(model, where)
    backbone = {**_defaults(ResNet), **model['backbone']}
    encoder = {**_defaults(PyramidPoolingFPN), **model['encoder']}
    decoder = {**_defaults(DualPathDecoder), **model['decoder']}
    obstacles = list(_obstacles(backbone, {'in_features': backbone['out_features'], **encoder}, decoder))
    if obstacles:
        raise CheckpointError(f'{where}: ModelScope\'s own FastInst cannot represent this model: '
                              f'{"; ".join(obstacles)}')
    classes = list(model.get('classes') or [])
    decoder['num_classes'] = len(classes) or decoder['num_classes']
    backbone.update(norm=_NORMS[backbone['norm']], res2_out_channels=backbone['res2_out_channels'] or 256,
                    res5_multi_grid=list(backbone['res5_multi_grid']), out_features=_FEATURES)
    return {
        'type': 'fastinst', 'pretrained': True, 'classes': classes,
        'backbone': {key: backbone[key] for key in _BACKBONE},
        'encoder': {'in_features': _FEATURES, 'convs_dim': decoder['hidden_dim'], 'mask_dim': decoder['mask_dim'],
                    'norm': ''},
        'decoder': {key: decoder[key] for key in _DECODER},
    }


def _check_parts(model: Mapping[str, Any], where: str) -> None:
    """Whether the network is a FastInst as published, of whatever size."""
    decoder = model['decoder']
    other = [f'model.{section}.{key} {value!r}' for section, key, value, own in (
        ('backbone', 'type', model['backbone'].get('type'), (None, 'resnet', 'resnet_d')),
        ('encoder', 'type', _kind(model, 'encoder'), ('ppm-fpn',)),
        ('decoder', 'type', _kind(model, 'decoder'), ('dual-path',)),
        ('decoder', 'queries', decoder.get('queries'), (None, 'activation-guided')),
        ('decoder', 'path', decoder.get('path'), (None, 'dual'))) if value not in own]
    if model.get('task') not in (None, 'instance'):
        other.append(f'model.task {model["task"]!r}')
    if other:
        raise CheckpointError(f'{where}: ModelScope\'s own FastInst cannot represent this model, which has '
                              f'{", ".join(other)}')


def _kind(model: Mapping[str, Any], section: str) -> str:
    usual = ARCHITECTURES[model.get('type') or 'fastinst']
    return model[section].get('type') or usual[0 if section == 'encoder' else 1]


def stock_state(state: Mapping[str, Tensor], model: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights under ModelScope's own keys; values are as they are, to the bit.

    Args:
        state: our network's.
        model: what ``stock_model`` gave for it.

    Raises:
        CheckpointError: a tensor is missing, surplus, or of another shape.
    """
    with torch.device('meta'):
        expected = build_network(model).state_dict()
    result: dict[str, Tensor] = {}
    for key, wanted in expected.items():
        if key in state:
            result[key] = state[key].contiguous()
        elif key.endswith(COUNTER_NAME) or UNTRAINED_BIAS.search(key):
            result[key] = torch.zeros(wanted.shape, dtype=wanted.dtype)
        else:
            raise CheckpointError(f'{key} is missing; ModelScope\'s own FastInst needs it')
        if result[key].shape != wanted.shape:
            raise CheckpointError(f'{key} is of shape {tuple(result[key].shape)}; ModelScope\'s own FastInst needs '
                                  f'{tuple(wanted.shape)}')
    surplus = sorted(state.keys() - result.keys())
    if surplus:
        raise CheckpointError(f'ModelScope\'s own FastInst has no place for {", ".join(surplus[:5])}')
    return result


def _obstacles(backbone: Mapping[str, Any], encoder: Mapping[str, Any],
               decoder: Mapping[str, Any]) -> Iterator[str]:
    kind = backbone.get('type', 'resnet')
    if kind != 'resnet':
        stages = backbone.get('deform_stages')
        yield (f'its backbone is of the type {kind!r} (deep stem, average pooling in the shortcuts'
               + (f', deformable convolution in the stages {list(stages)})' if stages else ')'))
    elif backbone['depth'] not in (50, 101, 152):
        yield f'its backbone has basic blocks (depth {backbone["depth"]}), not bottlenecks (50, 101, 152)'
    if backbone['norm'] not in _NORMS:
        yield f'its backbone has the norm {backbone["norm"]!r}'
    for name, features in (('out_features', backbone['out_features']), ('in_features', encoder['in_features'])):
        if list(features) != _FEATURES:
            yield f'its {name} are {list(features)}, not {_FEATURES}'
    if backbone['res4_dilation'] == 2 and backbone['res5_dilation'] != 4:
        yield f'its res4_dilation is 2, but its res5_dilation {backbone["res5_dilation"]}, not 4'
    if decoder['position_in_content']:
        yield 'its decoder has position_in_content'
    side = decoder['position_grid']
    if side is not None and side != round(decoder['num_queries'] ** 0.5):
        yield f'its decoder has a position_grid of {side}'


def _defaults(build: Any) -> dict[str, Any]:
    return {name: parameter.default for name, parameter in inspect.signature(build).parameters.items()
            if parameter.default is not inspect.Parameter.empty}
