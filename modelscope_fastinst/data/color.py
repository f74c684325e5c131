"""Changes of an image's colours, through torchvision.transforms.v2; outlines stay where they are."""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from modelscope_fastinst.data.arguments import is_number, known_keys, probability
from modelscope_fastinst.data.chance import happens

_JITTER = ('brightness', 'contrast', 'saturation', 'hue')
_STRENGTHS = (*_JITTER, 'grayscale', 'invert')
_LIMITS = {'hue': 0.5, 'grayscale': 1, 'invert': 1}

PRESETS: dict[str, dict[str, Any]] = {
    'light': {'brightness': 0.1, 'contrast': 0.1, 'saturation': 0.1, 'hue': 0.02},
    # As detectron2's ColorAugSSDTransform, after SSD (Liu et al. 2016): 32 grey values, half, half, 18 of 180 degrees.
    'ssd': {'brightness': 0.125, 'contrast': 0.5, 'saturation': 0.5, 'hue': 0.1, 'probability': 0.5},
    'strong': {'brightness': 0.4, 'contrast': 0.4, 'saturation': 0.4, 'hue': 0.1, 'grayscale': 0.1},
}

# What may be named in `extra`: torchvision's transforms that leave size, place and type of the pixels alone.
PHOTOMETRIC = ('ColorJitter', 'GaussianBlur', 'GaussianNoise', 'JPEG', 'RandomAdjustSharpness', 'RandomAutocontrast',
               'RandomChannelPermutation', 'RandomEqualize', 'RandomGrayscale', 'RandomInvert',
               'RandomPhotometricDistort', 'RandomPosterize', 'RandomSolarize')


class Colors:
    """Random changes of the colours, in this order: jitter, grey, inversion, further transforms.

    Args:
        settings: a name of ``PRESETS``; or a mapping with any of the strengths ``brightness``, ``contrast``,
            ``saturation``, ``hue`` (as torchvision's ColorJitter: 0.4 is a factor of 0.6 to 1.4, hue a share of the
            colour circle), with ``probability`` (default 1) that each of these four happens, with the probabilities
            ``grayscale`` and ``invert``, with a ``preset`` to start from, and with ``extra``: a list of mappings, each
            a ``type`` of ``PHOTOMETRIC``, its arguments, and the ``probability`` (default 1) that it is applied.
            None for no change.

    Attributes:
        strengths: the six numbers, 0 where nothing happens.

    Raises:
        ValueError: naming the key and its value.
    """

    def __init__(self, settings: Mapping | str | None = None) -> None:
        if isinstance(settings, str) and settings in PRESETS:
            settings = PRESETS[settings]
        known = (*_STRENGTHS, 'probability', 'extra', 'preset')
        settings = known_keys('color', {} if settings is None else settings, known,
                              f'the name of a preset ({", ".join(PRESETS)}), or null for none')
        preset = settings.pop('preset', None)
        if preset is not None:
            if not isinstance(preset, str) or preset not in PRESETS:
                raise ValueError(f'color.preset must be one of {list(PRESETS)}; got {preset!r}')
            settings = {**PRESETS[preset], **settings}
        for key in set(settings) & set(_STRENGTHS):
            value, limit = settings[key], _LIMITS.get(key, math.inf)
            if not is_number(value) or not 0 <= value <= limit:
                raise ValueError(f'color.{key} must be a number and lie in [0, {_LIMITS.get(key, "infinity")}]; '
                                 f'got {value!r}')
        self.strengths = {key: float(settings.get(key, 0)) for key in _STRENGTHS}
        self.probability = probability('color.probability', settings.get('probability', 1.0))
        self.extra = _extra(settings.get('extra') or ())

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """uint8 RGB ``[3, H, W]`` -> the same, changed; random numbers from torch's default generator."""
        # At probability 1 no number is drawn for it.
        jitter = {key: self.strengths[key] for key in _JITTER
                  if self.strengths[key] and (self.probability == 1 or happens(self.probability))}
        if jitter:
            from torchvision.transforms.v2 import ColorJitter
            image = ColorJitter(**jitter)(image)
        if happens(self.strengths['grayscale']):
            from torchvision.transforms.v2.functional import rgb_to_grayscale
            image = rgb_to_grayscale(image, num_output_channels=3)
        if happens(self.strengths['invert']):
            image = 255 - image
        for likelihood, transform in self.extra:
            if likelihood == 1 or happens(likelihood):
                image = _apply(transform, image)
        return image


def _apply(transform: Any, image: torch.Tensor) -> torch.Tensor:
    """uint8 -> uint8"""
    from torchvision.transforms.v2 import GaussianNoise
    if not isinstance(transform, GaussianNoise):
        return transform(image)
    # Torchvision adds noise to whole numbers from 0.22 on only.
    return transform(image / 255).mul(255).round().to(torch.uint8)


def _extra(entries: Any) -> list[tuple[float, Any]]:
    if isinstance(entries, (str, bytes, Mapping)) or not isinstance(entries, Sequence):
        raise ValueError(f'color.extra must be a list of mappings, each with a `type`; got {entries!r}')
    found = []
    for number, entry in enumerate(entries):
        name = f'color.extra[{number}]'
        if not isinstance(entry, Mapping) or entry.get('type') not in PHOTOMETRIC:
            raise ValueError(f'{name} must be a mapping whose `type` is one of {list(PHOTOMETRIC)}; got {entry!r}')
        arguments = {key: value for key, value in entry.items() if key not in ('type', 'probability')}
        from torchvision.transforms import v2
        try:
            transform = getattr(v2, entry['type'])(**arguments)
        except (TypeError, ValueError) as error:
            raise ValueError(f'{name}: {entry["type"]} does not take these settings: {error}') from error
        found.append((probability(f'{name}.probability', entry.get('probability', 1.0)), transform))
    return found
