"""FastInst: real-time instance segmentation with queries (He et al., CVPR 2023, arXiv 2303.08594)."""
from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..structures import NetworkOutput, Target
from .decoder import DualPathDecoder, Match
from .pixel_decoder import PyramidPoolingFPN
from .resnet import ResNet
from .resnet_d import ResNetD

# Of ImageNet's RGB images, in grey levels of 0..255.
PIXEL_MEAN = (123.675, 116.280, 103.530)
PIXEL_STD = (58.395, 57.120, 57.375)

# What ``model.backbone.type`` can be. ModelScope's own FastInst knows the first only and has no such key.
BACKBONES = {'resnet': ResNet, 'resnet_d': ResNetD}


class SegmentationHead(nn.Module):
    """Pixel decoder and transformer decoder under the published names ``pixel_decoder`` and ``predictor``."""

    def __init__(self, pixel_decoder: PyramidPoolingFPN, predictor: DualPathDecoder):
        super().__init__()
        self.pixel_decoder = pixel_decoder
        self.predictor = predictor


class FastInst(nn.Module):
    """Backbone, pixel decoder, dual-path decoder.

    State-dict keys are those of the published checkpoints (``backbone.*``, ``sem_seg_head.pixel_decoder.*``,
    ``sem_seg_head.predictor.*``), less the two copies of the criterion's class weights, which are constants.

    Args:
        backbone: gives ``{name: feature map}``.
        pixel_decoder: gives three maps, coarsest first.
        predictor: the decoder.
        size_divisor: height and width of the batch canvas are rounded up to a multiple of it.
    """

    def __init__(self, backbone: nn.Module, pixel_decoder: PyramidPoolingFPN, predictor: DualPathDecoder,
                 size_divisor: int = 32):
        super().__init__()
        self.backbone = backbone
        self.sem_seg_head = SegmentationHead(pixel_decoder, predictor)
        self.size_divisor = size_divisor
        self.register_buffer('pixel_mean', torch.tensor(PIXEL_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer('pixel_std', torch.tensor(PIXEL_STD).view(3, 1, 1), persistent=False)

    @property
    def num_classes(self) -> int:
        return self.sem_seg_head.predictor.query_proposal.conv_proposal_cls_logits[-1].out_channels - 1

    @property
    def num_queries(self) -> int:
        return self.sem_seg_head.predictor.num_queries

    def canvas(self, sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
        """(height, width) of the canvas for images of these (height, width), in pixels."""
        divisor = self.size_divisor
        return tuple(-(-max(size[axis] for size in sizes) // divisor) * divisor for axis in (0, 1))

    def place(self, images: Tensor | Sequence[Tensor]) -> tuple[Tensor, list[tuple[int, int]]]:
        """Normalises images and places them at the top left of one canvas; the rest is 0, the mean colour.

        Args:
            images: ``[B, 3, H, W]`` or a sequence of ``[3, H, W]`` of any sizes; RGB, 0..255, any dtype.

        Returns:
            float ``[B, 3, Hc, Wc]`` and the (height, width) of each image.
        """
        if not len(images):
            raise ValueError('no images: the batch is empty')
        for image in images:
            if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
                raise ValueError(f'an image must be an RGB tensor [3, H, W] with H, W >= 1; got {tuple(image.shape)}')
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        height, width = self.canvas(sizes)
        if isinstance(images, Tensor):
            batch = (images.to(self.pixel_mean) - self.pixel_mean) / self.pixel_std
            return F.pad(batch, (0, width - images.shape[-1], 0, height - images.shape[-2])), sizes
        batch = self.pixel_mean.new_zeros(len(images), 3, height, width)
        for slot, image, (h, w) in zip(batch, images, sizes, strict=True):
            slot[:, :h, :w] = (image.to(self.pixel_mean) - self.pixel_mean) / self.pixel_std
        return batch, sizes

    def forward(self, images: Tensor | Sequence[Tensor], targets: Sequence[Target] | None = None,
                match: Match | None = None) -> NetworkOutput:
        """Segments a batch of images.

        No padding mask is kept, as in the authors' network: an image's result depends on the canvas that it shares.

        Args:
            images: ``[B, 3, H, W]`` or a sequence of ``[3, H, W]`` of any sizes; RGB, 0..255.
            targets: ground truth at the images' sizes, for training.
            match: pairs queries with objects for ground-truth guidance (``FastInstCriterion.match``); with ``targets``.

        Returns:
            Class logits ``[B, Q, K + 1]`` and mask logits ``[B, Q, Hc / s, Wc / s]`` of every head, s the stride of the
            finest feature map (8 in the published models). Q is at most the number of positions of the middle map.

        Raises:
            ValueError: an image is not ``[3, H, W]``, or a target's masks are larger than the canvas.
        """
        batch, sizes = self.place(images)
        canvas = (batch.shape[-2], batch.shape[-1])
        if targets is not None:
            targets = [target.on_canvas(*canvas) for target in targets]
        _, query_features, pixel_features = self.sem_seg_head.pixel_decoder(self.backbone(batch))
        return self.sem_seg_head.predictor(query_features, pixel_features, canvas=canvas, sizes=sizes,
                                           targets=targets, match=match)


def _accepted(build: Callable, section: Mapping[str, Any], name: str, *, given: Sequence[str] = ()) -> dict[str, Any]:
    """``section`` as keyword arguments of ``build``; a key that it does not take is an error that lists the valid."""
    valid = [key for key in inspect.signature(build).parameters if key not in given]
    unknown = sorted(set(section) - set(valid))
    if unknown:
        raise ValueError(f'configuration: model.{name} has unknown keys {unknown}; valid keys are {valid}')
    return dict(section)


def build_fastinst(config: Mapping[str, Any]) -> FastInst:
    """Builds the network that the ``model`` section of a ``configuration.json`` describes.

    The sections ``backbone``, ``encoder`` and ``decoder`` are those of ModelScope's own FastInst; other keys of
    ``config`` (``type``, ``classes``, ...) are not the network's. The mapping is left as it is.

    Raises:
        ValueError: a section is missing, has an unknown key or a value that does not fit.
    """
    sections = {}
    for name in ('backbone', 'encoder', 'decoder'):
        section = config.get(name)
        if not isinstance(section, Mapping):
            raise ValueError(f'configuration: model.{name} is missing; it describes the {name} of the network')
        sections[name] = dict(section)
    kind = sections['backbone'].pop('type', 'resnet')
    if kind not in BACKBONES:
        raise ValueError(f'configuration: model.backbone.type {kind!r} is unknown; choose one of {sorted(BACKBONES)}')
    backbone = BACKBONES[kind](**_accepted(BACKBONES[kind], sections['backbone'], 'backbone'))

    decoder_section = sections['decoder']
    if 'num_classes' not in decoder_section:
        raise ValueError('configuration: model.decoder.num_classes is missing; it is the number of classes')
    decoder = DualPathDecoder(**_accepted(DualPathDecoder, decoder_section, 'decoder'))

    encoder_section = sections['encoder']
    allowed = {'in_features', 'convs_dim', 'mask_dim', 'norm'}
    if set(encoder_section) - allowed:
        raise ValueError(f'configuration: model.encoder has unknown keys {sorted(set(encoder_section) - allowed)}; '
                         f'valid keys are {sorted(allowed)}')
    hidden_dim = decoder_section.get('hidden_dim', 256)
    channels = encoder_section.get('convs_dim', hidden_dim)
    if channels != hidden_dim:
        raise ValueError(f'configuration: model.encoder.convs_dim {channels} and model.decoder.hidden_dim {hidden_dim} '
                         f'must be equal: nothing projects one to the other')
    pixel_decoder = PyramidPoolingFPN(backbone.channels, encoder_section.get('in_features', backbone.out_features),
                                      channels, encoder_section.get('norm', 'GN'))
    return FastInst(backbone, pixel_decoder, decoder)
