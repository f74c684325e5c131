"""A fluorescence microscope's image of cell nuclei, drawn from a seed: what ``modelscope-fastinst demo`` looks at.

The drawing follows what such images have in common (dark background, dim textured ellipses of uneven brightness, some
of them touching, glow, blur and shot noise), so that a model trained on real ones meets nothing strange. It is no data
set: nothing is trained or measured on it.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_BACKGROUND = 9.0      # grey values of 0..255, as in real images: dark, and brighter where cells are
_BRIGHTNESS = (35.0, 100.0)
_TOUCHING = 0.35       # share of the nuclei that are placed against another one
_ATTEMPTS = 200        # tries to place a nucleus before the field counts as full


@dataclass
class MicroscopeImage:
    """A drawn field of view.

    Attributes:
        image: uint8 ``[H, W, 3]``, RGB with three equal channels.
        masks: bool ``[N, H, W]``, the visible part of each nucleus; they do not overlap.
    """
    image: np.ndarray
    masks: np.ndarray


def draw_nuclei(height: int = 480, width: int = 640, count: int = 48, seed: int = 0) -> MicroscopeImage:
    """Draws a field of view with at most ``count`` nuclei (fewer if no more find room).

    Args:
        height: pixels, at least 16.
        width: pixels, at least 16.
        count: how many nuclei to place.
        seed: equal seeds give equal images.

    Raises:
        ValueError: an image too small to hold a nucleus, or a negative count.
    """
    if min(height, width) < 16:
        raise ValueError(f'a drawn image needs at least 16 x 16 pixels; got {height} x {width}')
    if count < 0:
        raise ValueError(f'count is {count}; it must be at least 0')
    from scipy.ndimage import gaussian_filter

    random = np.random.default_rng(seed)
    scale = min(height, width) / 480
    masks = _place(height, width, count, random)
    light = np.zeros((height, width))
    for mask in masks:
        light[mask] = random.uniform(*_BRIGHTNESS)
    texture = _noise((height, width), 3.5 * scale, random) + 0.6 * _noise((height, width), 9 * scale, random)
    light *= np.clip(1 + 0.16 * texture, 0.45, 1.7)
    speckles = np.clip(_noise((height, width), 1.6 * scale, random) - 1.6, 0, None)
    light *= 1 + 0.35 * speckles
    light = gaussian_filter(light, 1.5 * scale)
    glow = gaussian_filter(light, 14 * scale)
    slope = random.uniform(-0.3, 0.3, 2)    # the lamp is never quite in the middle
    uneven = 1 + slope[0] * np.linspace(-1, 1, height)[:, None] + slope[1] * np.linspace(-1, 1, width)[None]
    photons = (_BACKGROUND * uneven + light + 0.12 * glow).clip(0.5)
    grey = random.poisson(photons * 6) / 6 + random.normal(0, 0.6, photons.shape)
    grey = gaussian_filter(grey, 0.6 * scale).clip(0, 255).round().astype(np.uint8)
    return MicroscopeImage(np.repeat(grey[..., None], 3, axis=2), masks)


def _place(height: int, width: int, count: int, random: np.random.Generator) -> np.ndarray:
    """Bool ``[N, H, W]``: nuclei that do not overlap, a part of them against a neighbour, some cut by the border."""
    rows, columns = np.mgrid[0:height, 0:width] + 0.5
    base = min(height, width) / 480
    taken = np.zeros((height, width), bool)
    placed: list[tuple[float, float, float]] = []
    masks: list[np.ndarray] = []
    for _ in range(_ATTEMPTS * max(count, 1)):
        if len(masks) == count:
            break
        radius = random.uniform(12, 20) * base
        if placed and random.random() < _TOUCHING:
            y, x, other = placed[random.integers(len(placed))]
            angle = random.uniform(0, 2 * np.pi)
            y, x = y + (radius + other) * 0.9 * np.sin(angle), x + (radius + other) * 0.9 * np.cos(angle)
        else:
            y, x = random.uniform(0, height), random.uniform(0, width)
        mask = np.zeros((height, width), bool)
        reach = 1.6 * radius
        window = (slice(max(int(y - reach), 0), max(int(y + reach) + 1, 0)),
                  slice(max(int(x - reach), 0), max(int(x + reach) + 1, 0)))
        mask[window] = _nucleus(rows[window] - y, columns[window] - x, radius, random)
        free = mask & ~taken
        # a neighbour may hide a little of it, not make a crescent of it; slivers at the border are left out
        if not mask.any() or free.sum() < 0.88 * mask.sum() or free.sum() < np.pi * radius ** 2 * 0.35:
            continue
        placed.append((y, x, radius))
        masks.append(free)
        taken |= mask
    return np.stack(masks) if masks else np.zeros((0, height, width), bool)


def _nucleus(y: np.ndarray, x: np.ndarray, radius: float, random: np.random.Generator) -> np.ndarray:
    """An ellipse with a slightly wavy outline around the origin of the given pixel coordinates."""
    turn, stretch = random.uniform(0, np.pi), random.uniform(1.0, 1.7)
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    angle = np.arctan2(across, along)
    wave = sum(random.uniform(-0.05, 0.05) * np.sin(k * angle + random.uniform(0, 2 * np.pi)) for k in (2, 3, 4))
    return np.hypot(along / np.sqrt(stretch), across * np.sqrt(stretch)) < radius * (1 + wave)


def _noise(shape: tuple[int, int], sigma: float, random: np.random.Generator) -> np.ndarray:
    """Smooth noise of mean 0 and standard deviation 1, with features about ``sigma`` pixels wide."""
    from scipy.ndimage import gaussian_filter
    noise = gaussian_filter(random.standard_normal(shape), sigma, mode='wrap')
    return (noise - noise.mean()) / max(noise.std(), 1e-9)
