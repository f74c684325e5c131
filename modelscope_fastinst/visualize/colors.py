"""Colours that can be told apart, by people who are colour-blind as well; the same ones in every view."""
from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np

Color = tuple[int, int, int]
# The first twelve were found by a search for colours whose smallest distance (in Oklab) is largest, among the first 6,
# 8, 10 and 12, as they are and as people without one kind of cone see them (Machado, Oliveira & Fernandes, 2009,
# severity 1); what is left to these people is lightness and one hue axis, hence dark and light colours. Each of the
# others is as far as can be from all before it, and far from its neighbour.
_TABLE = bytes.fromhex(
    'f0a824 840c00 9000fc 189ca8 78fcfc 003c90 ccfc0c fc4860 c0b4fc d860fc 3cd890 78600c '
    'a83c84 5460b4 6c9000 6000c0 6c3c6c c07884 fcd878 9c78d8 1800e4 f060b4 cc0048 186c48 '
    '9cb46c 78a8e4 a8f0a8 fca8cc 48f048 54cc24 d890fc 7848d8 e400fc cc9030 8424a8 fc18cc '
    '900c54 d86c30 84549c e4909c 843c00 48b490 ccc078 84d8fc fc78e4 484890 909048 c090cc')
_CHOSEN = tuple(zip(_TABLE[0::3], _TABLE[1::3], _TABLE[2::3], strict=True))


def palette(number: int, chroma: float | None = None) -> list[Color]:
    """``number`` RGB colours that differ, most so the first ones, and those near one another in the list; always the
    same ones, a longer list goes on where a shorter one ends.

    The first twelve differ well for people with protanopia, deuteranopia and tritanopia too, the first twenty somewhat.
    After 48 they no longer keep apart.

    Args:
        chroma: the most that a colour may have, for muted ones; None for the colours as they are.
    """
    colors = list(_palette(number))
    if chroma is None:
        return colors
    lightness, vivid, hue = _as_oklch(np.array(colors).reshape(-1, 3))
    return oklch(lightness, np.minimum(vivid, chroma), hue)


def instance_colors(number: int) -> list[Color]:
    """The colours of the instances of a picture, in their order; of a video, of ids from the first on."""
    return palette(number)


def class_colors(classes: Iterable[str]) -> dict[str, Color]:
    """The colour of each class, by name, for the names of a model's classes in the model's order.

    Pictures, tables, legends and videos that ask with the same names show the same colours.
    """
    names = list(dict.fromkeys(classes))
    return dict(zip(names, palette(len(names)), strict=True))


def shade(index: int, turn: int) -> Color:
    """A colour near the ``index``-th of the palette: itself for ``turn`` 0, then others in its neighbourhood, so that
    objects of one class differ and still look alike."""
    lightness, chroma, hue = _as_oklch(np.array([_palette(index + 1)[index]]))
    if turn == 0:
        return _palette(index + 1)[index]
    # To either side in turn; lightness and hue out of step, so that it takes 35 turns to come back to the same.
    aside = (0, 8, -8, 16, -16, 24, -24)[turn % 7]
    lighter = (0, 0.10, -0.10, 0.05, -0.05)[turn % 5]
    return oklch(np.clip(lightness + lighter, 0.3, 0.95), np.minimum(chroma, 0.2), hue + aside)[0]


def oklch(lightness: np.ndarray, chroma: np.ndarray, hue: np.ndarray) -> list[Color]:
    """RGB colours in 0..255 of lightness in 0..1, chroma, and hue in degrees, in a space where equal steps look equal
    (https://bottosson.github.io/posts/oklab)."""
    a, b = chroma * np.cos(np.deg2rad(hue)), chroma * np.sin(np.deg2rad(hue))
    cone = np.linalg.solve(_TO_LAB, np.stack([lightness, a, b])) ** 3
    linear = np.clip(np.linalg.solve(_TO_CONES, cone), 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return [tuple(int(value) for value in color) for color in np.rint(encoded.T * 255)]


def luminance(color: Iterable[int]) -> float:
    """Relative luminance, 0 (black) to 1 (white), as the Web Content Accessibility Guidelines (WCAG 2) define it."""
    return float(_linear(np.array([*color])) @ (0.2126, 0.7152, 0.0722))


def contrast(first: Iterable[int], second: Iterable[int]) -> float:
    """The contrast ratio of two colours, 1 to 21 (WCAG 2): 3 suffices for lines, 4.5 for text."""
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@lru_cache(maxsize=4096)
def opposite(color: Color) -> Color:
    """Black or white, whichever stands out more beside a colour: for text upon it and lines around it."""
    return max(((0, 0, 0), (255, 255, 255)), key=lambda candidate: contrast(color, candidate))


@lru_cache(maxsize=64)
def _palette(number: int) -> tuple[Color, ...]:
    # Steps that fill a plane evenly, https://extremelearning.com.au/unreasonable-effectiveness-of-quasirandom-sequences
    beyond = np.arange(max(0, number - len(_CHOSEN)))
    lightness, turns, strength = (beyond[:, None] * (0.7548776662, 0.5698402910, 0.6180339887) % 1).T
    more = oklch(0.5 + 0.4 * lightness, 0.09 + 0.08 * strength, 360 * turns)
    return (*_CHOSEN[:number], *more)


_TO_CONES = np.array([[0.4122214708, 0.5363325363, 0.0514459929],
                      [0.2119034982, 0.6806995451, 0.1073969566],
                      [0.0883024619, 0.2817188376, 0.6299787005]])
_TO_LAB = np.array([[0.2104542553, 0.7936177850, -0.0040720468],
                    [1.9779984951, -2.4285922050, 0.4505937099],
                    [0.0259040371, 0.7827717662, -0.8086757660]])


def _linear(encoded: np.ndarray) -> np.ndarray:
    """Light, 0 to 1, of sRGB values 0 to 255."""
    share = encoded / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def _as_oklch(colors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lightness, chroma and hue in degrees of RGB colours ``[N, 3]``."""
    lightness, a, b = _TO_LAB @ np.cbrt(_TO_CONES @ _linear(colors).T)
    return lightness, np.hypot(a, b), np.rad2deg(np.arctan2(b, a))
