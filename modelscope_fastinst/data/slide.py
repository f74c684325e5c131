"""A microscope's picture far larger than a field of view, drawn nucleus by nucleus: for tiled inference.

It looks like those of `microscope.py`, but memory and time follow the picture's area and not the number of nuclei times
it, and whoever asks says where the nuclei are to be. It is no data set: nothing is trained on it.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from modelscope_fastinst.data.microscope import _BACKGROUND, _BRIGHTNESS, _noise, _nucleus

_GLOW = 45   # pixels around a nucleus that it lights up
_STRIP = 256   # rows that get their noise at a time


@dataclass
class Slide:
    """A drawn slide.

    Attributes:
        image: uint8 ``[H, W, 3]``, RGB with three equal channels.
        labels: int32 ``[H, W]``, the number of the nucleus that a pixel belongs to, from 1; 0 for none. Of nuclei that
            overlap, the first has the pixels.
    """
    image: np.ndarray
    labels: np.ndarray


def draw_slide(height: int, width: int, places: Sequence[tuple[float, float, float]], seed: int = 0) -> Slide:
    """Draws nuclei at given places, as large and as bright as in ``draw_nuclei`` with its default size.

    Args:
        height, width: in pixels.
        places: (y, x, radius) of each nucleus in pixels; radii of 12 to 20 look natural. Parts beyond the border are
            cut off.
        seed: equal seeds give equal pictures.
    """
    from scipy.ndimage import gaussian_filter

    random = np.random.default_rng(seed)
    labels = np.zeros((height, width), np.int32)
    light = np.zeros((height, width), np.float32)
    for number, (y, x, radius) in enumerate(places, 1):
        reach = int(1.6 * radius) + _GLOW
        top, left = max(int(y) - reach, 0), max(int(x) - reach, 0)
        window = (slice(top, min(int(y) + reach + 1, height)), slice(left, min(int(x) + reach + 1, width)))
        rows, columns = np.mgrid[window] + 0.5
        mask = _nucleus(rows - y, columns - x, radius, random) & (labels[window] == 0)
        labels[window][mask] = number
        texture = _noise(mask.shape, 3.5, random) + 0.6 * _noise(mask.shape, 9, random)
        speckles = np.clip(_noise(mask.shape, 1.6, random) - 1.6, 0, None)
        shade = random.uniform(*_BRIGHTNESS) * np.clip(1 + 0.16 * texture, 0.45, 1.7) * (1 + 0.35 * speckles)
        spot = gaussian_filter(mask * shade, 1.5)
        light[window] += (spot + 0.12 * gaussian_filter(spot, 14)).astype(np.float32)
    image = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, _STRIP):   # in strips, for the noise comes in eight bytes a pixel
        photons = np.clip(_BACKGROUND + light[top:top + _STRIP], 0.5, None)
        grey = random.poisson(photons * 6) / 6 + random.normal(0, 0.6, photons.shape)
        image[top:top + _STRIP] = gaussian_filter(grey, 0.6).clip(0, 255).round()[..., None]
    return Slide(image, labels)
