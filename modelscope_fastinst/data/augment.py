"""The network's input sizes and the training recipe's augmentation, on images and masks together.

Random numbers come from torch's default generator, which a DataLoader seeds differently in every worker.
"""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np
import torch

from modelscope_fastinst.data.geometry import Crop, Flip, Plan, Resize, Transpose, resize_image, resized_size
from modelscope_fastinst.structures import Sample, Target

__all__ = ['InferenceTransform', 'TrainTransform', 'resize_image', 'resized_size']

RECIPE_SIZES = (416, 448, 480, 512, 544, 576, 608, 640)
RECIPE_CROP = {'probability': 0.5, 'min_sizes': (400, 500, 600), 'size_range': (384, 600)}


class InferenceTransform:
    """Resizes the short side to ``min_size``, unless the long side would then exceed ``max_size``.

    Args:
        min_size, max_size: in pixels; the defaults are those of the authors' D3 models. ``max_size`` None for no limit.
    """

    def __init__(self, min_size: int = 640, max_size: int | None = 853) -> None:
        self.min_size = _positive('min_size', min_size)
        self.max_size = None if max_size is None else _positive('max_size', max_size)

    def plan(self, height: int, width: int) -> Plan:
        """The geometry for an image of this size in pixels; the same at every call."""
        return Plan(height, width, [Resize(*resized_size(height, width, self.min_size, self.max_size))])

    def finish(self, sample: Sample) -> Sample:
        """What remains to be done after the geometry: nothing."""
        return sample

    def __call__(self, sample: Sample) -> Sample:
        """The sample at the network's input size; ``original_size`` is filled in where it is missing."""
        return _apply(self, sample)


class TrainTransform:
    """The recipe's augmentation (the authors' ``fastinst_instance`` mapper; no large-scale jitter), all adjustable.

    In this order: with ``crop['probability']`` a resize to one of ``crop['min_sizes']`` (short side, no limit on the
    long one) and a crop whose sides are drawn from ``crop['size_range']``; a resize to one of ``min_sizes``; a crop to
    ``window``; flips and rotation; colours. Crops never leave the image, so no padding is ever needed.

    Args:
        min_sizes: short sides in pixels to choose from, or one.
        max_size: limit of the long side in pixels; None for no limit.
        crop: the recipe's crop before the resize; missing keys keep the recipe's values; None switches it off.
        window: (height, width) in pixels, or one number for both, of a crop after the resize; a side longer than the
            image becomes the image's. This is the crop for small images with many small objects. None for no crop.
        flip, vertical_flip: probabilities of mirroring left to right and top to bottom.
        rotate: probability of a rotation by 90 degrees (with both flips at 0.5: one of the eight orientations).
        color: strengths ``brightness``, ``contrast``, ``saturation``, ``hue`` (as torchvision's ColorJitter) and
            probabilities ``grayscale``, ``invert``; None, the recipe's value, leaves the colours alone.
        drop_empty: leave out objects of which the crop left no pixel. The authors keep them, as all-zero masks.

    Raises:
        ValueError: naming the argument or key and its value.
    """

    def __init__(self, min_sizes: int | Sequence[int] = RECIPE_SIZES, max_size: int | None = 853,
                 crop: Mapping | None = RECIPE_CROP, window: int | Sequence[int] | None = None, flip: float = 0.5,
                 vertical_flip: float = 0.0, rotate: float = 0.0, color: Mapping | None = None,
                 drop_empty: bool = False) -> None:
        self.min_sizes = _sizes('min_sizes', min_sizes)
        self.max_size = None if max_size is None else _positive('max_size', max_size)
        self.crop = None if crop is None else _crop_settings(crop)
        self.window = None
        if window is not None:
            self.window = _sizes('window', window)
            self.window = self.window * 2 if len(self.window) == 1 else self.window
            if len(self.window) != 2:
                raise ValueError(f'window must be one size or (height, width), got {window}')
        self.flip = _probability('flip', flip)
        self.vertical_flip = _probability('vertical_flip', vertical_flip)
        self.rotate = _probability('rotate', rotate)
        self.color = _color_settings({} if color is None else color)
        if not isinstance(drop_empty, bool):
            raise ValueError(f'drop_empty must be true or false; got {drop_empty!r}')
        self.drop_empty = drop_empty

    def plan(self, height: int, width: int) -> Plan:
        """Draws the geometry for an image of this size in pixels."""
        plan = Plan(height, width)
        if self.crop and _happens(self.crop['probability']):
            plan.add(Resize(*resized_size(height, width, _choice(self.crop['min_sizes']))))
            low, high = self.crop['size_range']
            _add_crop(plan, *(_between(min(side, low), min(side, high)) for side in plan.size))
        plan.add(Resize(*resized_size(*plan.size, _choice(self.min_sizes), self.max_size)))
        if self.window:
            _add_crop(plan, *self.window)
        if _happens(self.flip):
            plan.add(Flip())
        if _happens(self.vertical_flip):
            plan.add(Flip(vertical=True))
        if _happens(self.rotate):
            plan.add(Transpose())
            plan.add(Flip())
        return plan

    def finish(self, sample: Sample) -> Sample:
        """What remains to be done after the geometry: colours, and leaving out emptied objects where asked for."""
        target = sample.target
        if self.drop_empty and target is not None:
            kept = target.masks.flatten(1).any(1)
            target = Target(target.labels[kept], target.masks[kept])
        return replace(sample, image=self._colors(sample.image), target=target)

    def __call__(self, sample: Sample) -> Sample:
        """The sample with image and masks transformed together; ``original_size`` is filled in where it is missing."""
        return _apply(self, sample)

    def _colors(self, image: torch.Tensor) -> torch.Tensor:
        jitter = {key: self.color[key] for key in ('brightness', 'contrast', 'saturation', 'hue') if self.color[key]}
        if jitter:
            from torchvision.transforms.v2 import ColorJitter
            image = ColorJitter(**jitter)(image)
        if _happens(self.color['grayscale']):
            from torchvision.transforms.v2.functional import rgb_to_grayscale
            image = rgb_to_grayscale(image, num_output_channels=3)
        return 255 - image if _happens(self.color['invert']) else image


def _apply(transform: InferenceTransform | TrainTransform, sample: Sample) -> Sample:
    height, width = sample.image.shape[-2:]
    plan = transform.plan(height, width)
    image = plan.image(np.ascontiguousarray(sample.image.permute(1, 2, 0).numpy()))
    target = sample.target
    if target is not None:
        target = Target(target.labels, torch.from_numpy(plan.masks(target.masks.numpy())))
    original = sample.original_size if any(sample.original_size) else (height, width)
    return transform.finish(replace(sample, image=to_tensor(image), target=target, original_size=original))


def to_tensor(image: np.ndarray) -> torch.Tensor:
    """uint8 ``H x W x 3`` array -> contiguous uint8 ``[3, H, W]`` tensor of its own memory."""
    return torch.from_numpy(np.array(image.transpose(2, 0, 1), order='C'))


def _add_crop(plan: Plan, height: int, width: int) -> None:
    """A crop of this size at a random place; sides are clamped to the image."""
    height, width = min(height, plan.size[0]), min(width, plan.size[1])
    top, left = _between(0, plan.size[0] - height), _between(0, plan.size[1] - width)
    plan.add(Crop(top, left, height, width))


def _happens(probability: float) -> bool:
    return probability > 0 and torch.rand(()).item() < probability


def _between(low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, ()))


def _choice(values: Sequence[int]) -> int:
    return values[_between(0, len(values) - 1)]


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _positive(name: str, value: int) -> int:
    if not _is_number(value) or not 1 <= value < math.inf or int(value) != value:
        raise ValueError(f'{name} must be a whole number of pixels, at least 1; got {value!r}')
    return int(value)


def _sizes(name: str, values: int | Sequence[int]) -> tuple[int, ...]:
    if isinstance(values, (str, bytes, Mapping)) or not hasattr(values, '__iter__'):
        values = (values,)
    values = tuple(values)
    if not values:
        raise ValueError(f'{name} needs at least one size')
    return tuple(_positive(name, value) for value in values)


def _probability(name: str, value: float) -> float:
    if not _is_number(value) or not 0 <= value <= 1:
        raise ValueError(f'{name} is a probability and must lie in [0, 1]; got {value!r}')
    return float(value)


def _crop_settings(crop: Mapping) -> dict:
    if not isinstance(crop, Mapping):
        raise ValueError(f'crop must be a mapping with {sorted(RECIPE_CROP)}, or null for no crop; got {crop!r}')
    unknown = set(crop) - set(RECIPE_CROP)
    if unknown:
        raise ValueError(f'crop has unknown keys {sorted(unknown)}; known are {sorted(RECIPE_CROP)}')
    crop = {**RECIPE_CROP, **crop}
    size_range = _sizes('crop.size_range', crop['size_range'])
    if len(size_range) != 2 or size_range[0] > size_range[1]:
        raise ValueError(f'crop.size_range must be (smallest, largest) in pixels; got {crop["size_range"]}')
    return {'probability': _probability('crop.probability', crop['probability']),
            'min_sizes': _sizes('crop.min_sizes', crop['min_sizes']), 'size_range': size_range}


def _color_settings(color: Mapping) -> dict:
    known = ('brightness', 'contrast', 'saturation', 'hue', 'grayscale', 'invert')
    if not isinstance(color, Mapping):
        raise ValueError(f'color must be a mapping with any of {list(known)}, or null for none; got {color!r}')
    unknown = set(color) - set(known)
    if unknown:
        raise ValueError(f'color has unknown keys {sorted(unknown)}; known are {list(known)}')
    limits = {'hue': 0.5, 'grayscale': 1, 'invert': 1}
    for key, value in color.items():
        if not _is_number(value) or not 0 <= value <= limits.get(key, math.inf):
            raise ValueError(f'color.{key} must be a number and lie in [0, {limits.get(key, "infinity")}]; '
                             f'got {value!r}')
    return {key: float(color.get(key, 0)) for key in known}
