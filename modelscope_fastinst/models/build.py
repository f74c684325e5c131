"""Builds the network that the ``model`` section of a ``configuration.json`` describes."""
from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .decoder import DualPathDecoder
from .mask2former import MaskedAttentionDecoder
from .msdeform_decoder import MSDeformAttnPixelDecoder
from .network import SegmentationNetwork
from .pixel_decoder import PyramidPoolingFPN
from .resnet import ResNet
from .resnet_d import ResNetD
from .swin import Swin

# What ``model.backbone.type`` can be. ModelScope's own FastInst knows the first only and has no such key.
BACKBONES: dict[str, Callable] = {'resnet': ResNet, 'resnet_d': ResNetD, 'swin': Swin}
# What ``model.encoder.type`` and ``model.decoder.type`` can be: any pixel decoder goes with any transformer decoder.
PIXEL_DECODERS: dict[str, Callable] = {'ppm-fpn': PyramidPoolingFPN, 'msdeformattn': MSDeformAttnPixelDecoder}
DECODERS: dict[str, Callable] = {'dual-path': DualPathDecoder, 'masked-attention': MaskedAttentionDecoder}
# What ``model.type`` can be, and the types of encoder and decoder where their sections do not say.
ARCHITECTURES = {'fastinst': ('ppm-fpn', 'dual-path'), 'mask2former': ('msdeformattn', 'masked-attention')}


def build_network(config: Mapping[str, Any]) -> SegmentationNetwork:
    """Builds the network that the ``model`` section of a ``configuration.json`` describes.

    The sections ``backbone``, ``encoder`` (the pixel decoder) and ``decoder`` are those of ModelScope's own FastInst,
    each with a ``type`` beside; ``config['type']`` (default 'fastinst') says which pixel decoder and decoder are meant
    where they have none. Other keys of ``config`` (``classes``, ...) are not the network's. The mapping is left as it
    is.

    Raises:
        ValueError: a section is missing, has an unknown key or a value that does not fit.
    """
    architecture = config.get('type') or 'fastinst'
    if architecture not in ARCHITECTURES:
        raise ValueError(f'configuration: model.type {architecture!r} is unknown; choose one of '
                         f'{sorted(ARCHITECTURES)}')
    backbone_section, backbone_class = _section(config, 'backbone', BACKBONES, 'resnet')
    encoder_section, encoder_class = _section(config, 'encoder', PIXEL_DECODERS, ARCHITECTURES[architecture][0])
    decoder_section, decoder_class = _section(config, 'decoder', DECODERS, ARCHITECTURES[architecture][1])
    backbone = backbone_class(**_accepted(backbone_class, backbone_section, 'backbone'))

    if 'num_classes' not in decoder_section:
        raise ValueError('configuration: model.decoder.num_classes is missing; it is the number of classes')
    decoder = decoder_class(**_accepted(decoder_class, decoder_section, 'decoder'))

    hidden_dim = decoder_section.get('hidden_dim', 256)
    encoder_section.setdefault('convs_dim', hidden_dim)
    encoder_section.setdefault('in_features', backbone.out_features)
    if encoder_section['convs_dim'] != hidden_dim:
        raise ValueError(f'configuration: model.encoder.convs_dim {encoder_section["convs_dim"]} and '
                         f'model.decoder.hidden_dim {hidden_dim} must be equal: nothing projects one to the other')
    encoder_section['mask_dim'] = _mask_dim(encoder_section, decoder_section, decoder_class)
    pixel_decoder = encoder_class(backbone.channels, **_accepted(encoder_class, encoder_section, 'encoder',
                                                                 given=('in_channels',)))
    if hasattr(backbone, 'leave_unread'):
        backbone.leave_unread(set(backbone.out_features) - set(pixel_decoder.read_features))
    return SegmentationNetwork(backbone, pixel_decoder, decoder)


def _mask_dim(encoder: Mapping[str, Any], decoder: Mapping[str, Any], decoder_class: Callable) -> int | None:
    """Width of the mask features that the pixel decoder makes; None where the transformer decoder makes its own."""
    if not decoder_class.needs_mask_features:
        return None
    default = inspect.signature(decoder_class).parameters['mask_dim'].default
    wanted = decoder.get('mask_dim', default)
    if encoder.get('mask_dim', wanted) != wanted:
        raise ValueError(f'configuration: model.encoder.mask_dim {encoder["mask_dim"]} and model.decoder.mask_dim '
                         f'{wanted} must be equal: their dot products make the masks')
    return wanted


def _section(config: Mapping[str, Any], name: str, types: Mapping[str, Callable],
             default: str) -> tuple[dict[str, Any], Callable]:
    """A copy of ``config[name]`` without its ``type``, and what that type names."""
    section = config.get(name)
    if not isinstance(section, Mapping):
        raise ValueError(f'configuration: model.{name} is missing; it describes the {name} of the network')
    section = dict(section)
    kind = section.pop('type', None) or default
    if kind not in types:
        raise ValueError(f'configuration: model.{name}.type {kind!r} is unknown; choose one of {sorted(types)}')
    return section, types[kind]


def _accepted(build: Callable, section: Mapping[str, Any], name: str, *, given: Sequence[str] = ()) -> dict[str, Any]:
    """``section`` as keyword arguments of ``build``; a key that it does not take is an error that lists the valid."""
    valid = [key for key in inspect.signature(build).parameters if key not in given]
    unknown = sorted(set(section) - set(valid))
    if unknown:
        raise ValueError(f'configuration: model.{name} has unknown keys {unknown}; valid keys are {valid}')
    return dict(section)
