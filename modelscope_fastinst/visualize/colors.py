"""Colours that can be told apart."""
from __future__ import annotations

import numpy as np

Color = tuple[int, int, int]

CHROMA = 0.17


def palette(number: int, chroma: float = CHROMA) -> list[Color]:
    """``number`` RGB colours that differ, most so those near one another in the list; always the same ones.

    Hues step by the golden angle.
    """
    hue, lightness = _steps(np.arange(number))
    return oklch(lightness, np.full(number, chroma), hue)


def shade(index: int, turn: int) -> Color:
    """A colour near the ``index``-th of the palette: itself for ``turn`` 0, then others in its neighbourhood, so that
    objects of one class differ and still look alike."""
    hue, lightness = _steps(np.array([index]))
    # To either side in turn; lightness and hue out of step, so that it takes 35 turns to come back to the same.
    aside = (0, 8, -8, 16, -16, 24, -24)[turn % 7]
    return oklch(lightness + (0, 0.10, -0.10, 0.05, -0.05)[turn % 5], np.array([CHROMA]), hue + aside)[0]


def oklch(lightness: np.ndarray, chroma: np.ndarray, hue: np.ndarray) -> list[Color]:
    """RGB colours in 0..255 of lightness in 0..1, chroma, and hue in degrees, in a space where equal steps look equal
    (https://bottosson.github.io/posts/oklab)."""
    a, b = chroma * np.cos(np.deg2rad(hue)), chroma * np.sin(np.deg2rad(hue))
    cone = np.stack([lightness + 0.3963377774 * a + 0.2158037573 * b,
                     lightness - 0.1055613458 * a - 0.0638541728 * b,
                     lightness - 0.0894841775 * a - 1.2914855480 * b]) ** 3
    linear = np.array([[4.0767416621, -3.3077115913, 0.2309699292],
                       [-1.2684380046, 2.6097574011, -0.3413193965],
                       [-0.0041960863, -0.7034186147, 1.7076147010]]) @ cone
    linear = np.clip(linear, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return [tuple(int(value) for value in color) for color in np.rint(encoded.T * 255)]


def _steps(index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hue and lightness of the palette's colours."""
    return 25 + index * 137.50776, np.array([0.72, 0.80, 0.64])[index % 3]
