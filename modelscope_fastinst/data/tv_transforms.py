"""A user's own augmentation in torchvision.transforms.v2, as a transform of samples."""
from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from modelscope_fastinst.structures import Sample, Target


class V2Transform:
    """Calls a ``torchvision.transforms.v2`` transform with an image and its objects.

    The transform gets a mapping with ``image`` (``tv_tensors.Image``, uint8 RGB ``[3, H, W]``) and, if the sample has a
    target, ``masks`` (``tv_tensors.Mask``, uint8 0 and 1 ``[N, H, W]``), ``boxes`` (``tv_tensors.BoundingBoxes``, XYXY
    in pixels ``[N, 4]``, tight around the masks, for transforms that look at boxes such as ``RandomIoUCrop`` and
    ``SanitizeBoundingBoxes``) and ``labels`` (int64 ``[N]``). What it gives is read from ``image``, ``masks`` and
    ``labels``. It must not normalise: the network does.

    Args:
        transform: ``v2.Compose([...])`` or any callable on such a mapping; random numbers from torch's default
            generator follow the sample's seed.

    Raises:
        ValueError, at the call: what comes out is no RGB image, its floats exceed 0 to 1, masks, labels and image do
            not fit together.
    """

    def __init__(self, transform: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self.transform = transform

    def __call__(self, sample: Sample) -> Sample:
        """The sample with image and target transformed; ``original_size`` is filled in where it is missing."""
        from torchvision import tv_tensors
        size = tuple(sample.image.shape[-2:])
        given: dict[str, Any] = {'image': tv_tensors.Image(sample.image)}
        if sample.target is not None:
            given['masks'] = tv_tensors.Mask(sample.target.masks.to(torch.uint8))
            given['boxes'] = tv_tensors.BoundingBoxes(_boxes(sample.target.masks), format='XYXY', canvas_size=size)
            given['labels'] = sample.target.labels
        found = self.transform(given)
        name = sample.file_name or f'image {sample.image_id}'
        image = _pixels(found['image'], name)
        target = None
        if sample.target is not None:
            target = _target(found['masks'], found['labels'], image, name)
        original = sample.original_size if any(sample.original_size) else size
        return replace(sample, image=image, target=target, original_size=original)

    def __repr__(self) -> str:
        return f'V2Transform({self.transform!r})'


def adapted(transform: Any) -> Any:
    """A transform of torchvision.transforms.v2 as one of samples; anything else as it is."""
    return V2Transform(transform) if is_v2(transform) else transform


def is_v2(transform: Any) -> bool:
    """Whether it is a transform of torchvision.transforms.v2."""
    v2 = sys.modules.get('torchvision.transforms.v2')   # who has one has imported it
    return v2 is not None and isinstance(transform, v2.Transform)


def _boxes(masks: torch.Tensor) -> torch.Tensor:
    """float32 XYXY ``[N, 4]`` around bool masks ``[N, H, W]``, right and bottom exclusive; zeros for an empty one."""
    boxes = torch.zeros((len(masks), 4))
    for start, lines in ((0, masks.any(1)), (1, masks.any(2))):
        if not lines.numel():
            continue
        filled = lines.any(1)
        lines = lines.to(torch.uint8)
        boxes[:, start] = lines.argmax(1) * filled
        boxes[:, start + 2] = (lines.shape[1] - lines.flip(1).argmax(1)) * filled
    return boxes


def _pixels(image: Any, name: str) -> torch.Tensor:
    if not isinstance(image, torch.Tensor) or image.ndim != 3 or image.shape[0] != 3 or not image.numel():
        raise ValueError(f'{name}: the v2 transform must give an RGB image [3, H, W]; got '
                         f'{tuple(image.shape) if isinstance(image, torch.Tensor) else type(image).__name__}')
    if image.dtype != torch.uint8:
        from torchvision.transforms.v2.functional import to_dtype
        if image.is_floating_point() and (image.min() < 0 or image.max() > 1):
            raise ValueError(f'{name}: the v2 transform gives floats of {image.min():g} to {image.max():g}, which are '
                             'no colours in [0, 1]; leave out Normalize, the network does it')
        image = to_dtype(image, torch.uint8, scale=True)
    return image.as_subclass(torch.Tensor).contiguous()


def _target(masks: Any, labels: Any, image: torch.Tensor, name: str) -> Target:
    if len(masks) != len(labels) or masks.shape[1:] != image.shape[1:]:
        raise ValueError(f'{name}: the v2 transform gives an image {tuple(image.shape)}, masks {tuple(masks.shape)} '
                         f'and {len(labels)} labels, which do not fit together; transforms that resize or leave out '
                         'objects must see the whole mapping')
    return Target(labels, masks.as_subclass(torch.Tensor).to(torch.bool).contiguous())
