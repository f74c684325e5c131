"""What a network is called, from the ``model`` section of its configuration."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# By the type of the transformer decoder: the architecture that it makes, and the pixel decoder that belongs to it.
ARCHITECTURES = {'dual-path': ('fastinst', 'ppm-fpn'), 'masked-attention': ('mask2former', 'msdeformattn')}
_DECODERS = {architecture: decoder for decoder, (architecture, _) in ARCHITECTURES.items()}
TITLES = {'fastinst': 'FastInst', 'mask2former': 'Mask2Former'}
PIXEL_DECODERS = {'ppm-fpn': 'PPM-FPN', 'msdeformattn': 'MSDeformAttn'}
_LAYERS = {'fastinst': 3, 'mask2former': 9}
# Swin transformers (Liu et al. 2021) by width and depths.
_SWIN = {(96, (2, 2, 6, 2)): 'Swin-T', (96, (2, 2, 18, 2)): 'Swin-S', (128, (2, 2, 18, 2)): 'Swin-B',
         (192, (2, 2, 18, 2)): 'Swin-L'}


def architecture(model: Mapping[str, Any]) -> str:
    """'fastinst' or 'mask2former': by the transformer decoder, whatever ``model.type`` says."""
    decoder = _section(model, 'decoder').get('type')
    if decoder in ARCHITECTURES:
        return ARCHITECTURES[decoder][0]
    return str(model.get('type') or 'fastinst')


def decoder_layers(model: Mapping[str, Any]) -> int:
    """Layers of the transformer decoder."""
    return _section(model, 'decoder').get('dec_layers', _LAYERS.get(architecture(model), 3))


def pixel_decoder(model: Mapping[str, Any]) -> str:
    """'ppm-fpn' or 'msdeformattn': ``model.encoder.type``, or what ``model.type`` stands for."""
    usual = ARCHITECTURES.get(_DECODERS.get(str(model.get('type') or 'fastinst'), ''), ('', 'ppm-fpn'))[1]
    return _section(model, 'encoder').get('type') or usual


def network_name(model: Mapping[str, Any]) -> str:
    """The paper's name for a network: ``FastInst-D3 R50-d-DCN``, ``Mask2Former Swin-T``.

    A pixel decoder other than the paper's is named besides: ``Mask2Former Swin-T with PPM-FPN``.
    """
    kind = architecture(model)
    name = TITLES.get(kind, kind)
    layers = decoder_layers(model)
    if kind != 'mask2former' or layers != _LAYERS[kind]:
        name += f'-D{layers}'
    name += f' {_backbone(_section(model, "backbone"))}'
    decoder = pixel_decoder(model)
    usual = ARCHITECTURES[_DECODERS[kind]][1] if kind in _DECODERS else decoder
    return name if decoder == usual else f'{name} with {PIXEL_DECODERS.get(decoder, decoder)}'


def backbone_tag(model: Mapping[str, Any]) -> str:
    """The backbone as a tag: ``resnet50``, ``resnet50d-dcn``, ``swin-t``."""
    name = _backbone(_section(model, 'backbone'))
    if name.startswith('Swin'):
        return name.lower()
    return f'resnet{name[1:].replace("-d", "d", 1).replace("-DCN", "-dcn")}'


def backbone_name(backbone: Mapping[str, Any]) -> str:
    """'ResNet-50', 'ResNet-50-d with deformable stages 3 and 4', or 'Swin-L, windows of 12'."""
    if backbone.get('type') == 'swin':
        return f'{_backbone(backbone)}, windows of {backbone.get("window_size", 7)}'
    name = f'ResNet-{backbone.get("depth", 50)}' + ('-d' if backbone.get('type') == 'resnet_d' else '')
    stages = backbone.get('deform_stages') or []
    if not stages:
        return name
    kind = 'modulated deformable' if backbone.get('deform_modulated') else 'deformable'
    return f'{name} with {kind} stage{"s" * (len(stages) > 1)} {" and ".join(map(str, stages))}'


def _backbone(backbone: Mapping[str, Any]) -> str:
    """'R50', 'R50-d-DCN', 'Swin-T'; 'Swin-64' for a width and depths that have no name."""
    if backbone.get('type') == 'swin':
        width, depths = backbone.get('embed_dim', 96), tuple(backbone.get('depths', (2, 2, 6, 2)))
        return _SWIN.get((width, depths), f'Swin-{width}')
    name = f'R{backbone.get("depth", 50)}'
    if backbone.get('type', 'resnet') == 'resnet_d':
        name += '-d'
    return name + '-DCN' if backbone.get('deform_stages') else name


def _section(mapping: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    section = mapping.get(key)
    return section if isinstance(section, Mapping) else {}
