"""The network: a backbone, a pixel decoder and a transformer decoder.

One class for FastInst (He et al., CVPR 2023, arXiv 2303.08594), Mask2Former (Cheng et al., CVPR 2022, arXiv 2112.01527)
and what lies between them: which parts it has is said by the configuration, see ``models.build``.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..structures import NetworkOutput, PixelFeatures, Prediction, Target

# (prediction, query locations or None, targets) -> per image (query indices, object indices)
Match = Callable[[Prediction, 'Tensor | None', Sequence[Target]], 'list[tuple[Tensor, Tensor]]']

# Of ImageNet's RGB images, in grey levels of 0..255.
PIXEL_MEAN = (123.675, 116.280, 103.530)
PIXEL_STD = (58.395, 57.120, 57.375)


class SegmentationHead(nn.Module):
    """Pixel decoder and transformer decoder under the published names ``pixel_decoder`` and ``predictor``."""

    def __init__(self, pixel_decoder: nn.Module, predictor: nn.Module):
        super().__init__()
        self.pixel_decoder = pixel_decoder
        self.predictor = predictor


class SegmentationNetwork(nn.Module):
    """Backbone, pixel decoder, transformer decoder.

    State-dict keys are those of the published checkpoints (``backbone.*``, ``sem_seg_head.pixel_decoder.*``,
    ``sem_seg_head.predictor.*``), less the two copies of the criterion's class weights, which are constants.

    Args:
        backbone: gives ``{name: feature map}`` for images ``[B, 3, Hc, Wc]``.
        pixel_decoder: gives ``PixelFeatures`` for them.
        predictor: the transformer decoder, called as ``predictor(features, canvas=, sizes=, targets=, match=)``; gives
            a ``NetworkOutput`` and has ``num_classes`` and ``num_queries``.
        size_divisor: height and width of the batch canvas are rounded up to a multiple of it.
    """

    def __init__(self, backbone: nn.Module, pixel_decoder: nn.Module, predictor: nn.Module, size_divisor: int = 32):
        super().__init__()
        self.backbone = backbone
        self.sem_seg_head = SegmentationHead(pixel_decoder, predictor)
        self.size_divisor = size_divisor
        self.register_buffer('pixel_mean', torch.tensor(PIXEL_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer('pixel_std', torch.tensor(PIXEL_STD).view(3, 1, 1), persistent=False)

    @property
    def num_classes(self) -> int:
        return self.sem_seg_head.predictor.num_classes

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
            match: pairs queries with objects for ground-truth guidance (the criterion's ``match``); with ``targets``.

        Returns:
            Class logits ``[B, Q, K + 1]`` and mask logits ``[B, Q, Hc / s, Wc / s]`` of every head, s the stride of the
            masks (8 in FastInst's published models, 4 in Mask2Former's).

        Raises:
            ValueError: an image is not ``[3, H, W]``, or a target's masks are larger than the canvas.
        """
        batch, sizes = self.place(images)
        canvas = (batch.shape[-2], batch.shape[-1])
        if targets is not None:
            targets = [target.on_canvas(*canvas) for target in targets]
        features: PixelFeatures = self.sem_seg_head.pixel_decoder(self.backbone(batch))
        return self.sem_seg_head.predictor(features, canvas=canvas, sizes=sizes, targets=targets, match=match)
