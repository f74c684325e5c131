"""Tags with names and scores, where there is room for them."""
from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modelscope_fastinst.visualize.shapes import Shape, unit_of

logger = logging.getLogger('modelscope_fastinst')

# With more objects than this, tags go only to those that are large enough to bear one.
_MANY = 12
# A tag may hide this part of another object.
_HIDDEN = 0.3
_warned = False


def with_tags(canvas: np.ndarray, objects: Sequence[Shape], font_file: str | Path | None) -> np.ndarray:
    """The canvas with tags of the objects, in their order, where there is room."""
    from PIL import Image, ImageDraw
    unit = unit_of(canvas)
    font = font_of(font_file, max(9, round(13 * unit)))
    pad = max(2, round(3 * unit))
    ascent, descent = font.getmetrics()
    height = ascent + descent + pad
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    # What is seen where: 0 background, n the n-th object, -1 a tag.
    owner = np.zeros(canvas.shape[:2], np.int32)
    for number in sorted(range(len(objects)), key=lambda number: -objects[number].area):
        objects[number].window(owner)[objects[number].crop] = number + 1
    areas = np.bincount(owner.ravel(), minlength=len(objects) + 1)
    for number, item in enumerate(objects, start=1):
        for text in item.text if item.area else ():
            width = draw.textlength(text, font=font) + 2 * pad
            crowded = len(objects) > _MANY and (width > 1.1 * item.crop.shape[1] or height > 0.6 * item.crop.shape[0])
            place = None if crowded or not text else _free_place(item.places(width, height), (width, height), owner,
                                                                 areas, number)
            if place is not None:
                left, top, right, bottom = place
                owner[top:bottom, left:right] = -1
                draw.rounded_rectangle((left, top, right - 1, bottom - 1), radius=pad, fill=item.color)
                bright = np.dot(item.color, (0.299, 0.587, 0.114)) > 140
                draw.text((left + pad, (top + bottom) / 2), text, font=font, anchor='lm',
                          fill=(20, 20, 20) if bright else (255, 255, 255))
                break
    return np.array(picture)


def _free_place(places: Iterable[tuple[float, float]], size: tuple[float, float], owner: np.ndarray,
                areas: np.ndarray, number: int) -> tuple[int, int, int, int] | None:
    """The first place (xyxy in pixels) where a tag is inside the picture, over no other tag, and hides no object."""
    width, height = (int(np.ceil(length)) for length in size)
    for x, y in places:
        left, top = min(max(round(x), 0), owner.shape[1] - width), round(y)
        if left < 0 or top < 0 or top + height > owner.shape[0]:
            continue
        under = owner[top:top + height, left:left + width]
        if (under < 0).any():
            continue
        hidden = np.bincount(under.ravel(), minlength=len(areas))
        hidden[[0, number]] = 0
        if (hidden <= _HIDDEN * areas).all():
            return left, top, left + width, top + height
    return None


def font_of(file: str | Path | None, size: int) -> Any:
    """Pillow's font of a file, or its built-in one.

    Raises:
        ValueError: no font file.
    """
    from PIL import ImageFont
    if file is None:
        return ImageFont.load_default(size)
    try:
        return ImageFont.truetype(str(file), size)
    except OSError as error:
        raise ValueError(f'{file}: is no font file that can be read ({error})') from error


def warn_of_missing_glyphs(labels: Iterable[str]) -> None:
    """Warns, once in a process, of characters that the built-in font does not have."""
    global _warned
    strange = sorted({character for label in labels for character in label if not character.isascii()})
    if _warned or not strange:
        return
    font = font_of(None, 20)
    blank = _glyph(font, '\U0010ffff')   # a noncharacter, for which every font draws its box
    missing = ''.join(character for character in strange if _glyph(font, character) == blank)
    if missing:
        _warned = True
        logger.warning(f'the built-in font cannot draw {missing[:20]!r} of the labels; name a font file that can '
                       '(font= of draw_instances, --font of the command line)')


def _glyph(font: Any, character: str) -> bytes:
    mask = font.getmask(character)
    return bytes(mask)
