"""Tags with names and scores, where there is room for them."""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from modelscope_fastinst.fonts import as_line
from modelscope_fastinst.visualize.colors import opposite
from modelscope_fastinst.visualize.lettering import Lettering, lettering
from modelscope_fastinst.visualize.shapes import Shape, unit_of

# With more objects than this, tags are smaller and go only to those that are large enough to bear one.
_MANY = 12
# A tag may hide this part of another object.
_HIDDEN = 0.3
_LONGEST = 22   # a tag is at most so many times as wide as its letters are high


def with_tags(canvas: np.ndarray, objects: Sequence[Shape], font_file: str | Path | None,
              always: bool = False) -> np.ndarray:
    """The canvas with tags of the objects, in their order, where there is room; drawn upon it.

    Args:
        always: objects get a tag even where it hides others or is larger than they are.
    """
    unit = unit_of(canvas)
    many = len(objects) > _MANY and not always
    letters = lettering(font_file, max(9, round((10.5 if many else 13) * unit)))
    pad = max(2, round(3 * unit))
    height = letters.ascent + letters.descent + pad
    ground = _Ground(canvas.shape[:2], objects, max(1, int(unit)))
    for number, item in enumerate(objects, start=1):
        if not item.area:
            continue
        limit = min(canvas.shape[1] - 2 * pad, _LONGEST * letters.size)
        if many:
            limit = min(limit, 1.15 * item.crop.shape[1] - 2 * pad)
            if height > 0.6 * item.crop.shape[0]:
                continue
        for text in _texts(item, letters, limit):
            width = letters.length(text) + 2 * pad
            place = ground.free_place(item.places(width, height), (width, height), number, always)
            if place is not None:
                _draw(canvas, place, text, item.color, letters, pad)
                break
    return canvas


def _texts(item: Shape, letters: Lettering, limit: float) -> Iterator[str]:
    """What a tag may say, in full and in short, within a width in pixels."""
    name, score = as_line(item.text[0]), item.text[1]
    room = limit - (letters.length(f' {score}') if score else 0)
    fitted = letters.fitted(name, room) if name else ''
    if len(fitted) > 3 or fitted == name != '':   # a letter or two say nothing
        yield f'{fitted} {score}'.strip()
    if score and letters.length(score) <= limit:
        yield score


def _draw(canvas: np.ndarray, place: tuple[int, int, int, int], text: str, color: tuple[int, int, int],
          letters: Lettering, pad: int) -> None:
    from PIL import Image, ImageDraw
    left, top, right, bottom = place
    patch = Image.fromarray(canvas[top:bottom, left:right])
    draw = ImageDraw.Draw(patch)
    ink = opposite(color)
    # The thin edge keeps a tag apart from a background of its colour.
    draw.rounded_rectangle((0, 0, right - left - 1, bottom - top - 1), radius=pad, fill=color, outline=ink,
                           width=max(1, pad // 4))
    painted = Image.fromarray(letters.painted(text))
    patch.paste(ink, (pad, (bottom - top - painted.height + 1) // 2), painted)
    canvas[top:bottom, left:right] = np.asarray(patch)


class _Ground:
    """What is seen where, coarsely: which object or tag each cell of so many pixels belongs to."""

    def __init__(self, size: tuple[int, int], objects: Sequence[Shape], cell: int) -> None:
        self.size, self.cell = size, cell
        # 0 background, n the n-th object, -1 a tag
        self.owner = np.zeros([-(-side // cell) for side in size], np.int32)
        for number in sorted(range(len(objects)), key=lambda number: -objects[number].area):
            item = objects[number]
            mask = item.crop[-item.top % cell::cell, -item.left % cell::cell]
            top, left = -(-item.top // cell), -(-item.left // cell)
            self.owner[top:top + mask.shape[0], left:left + mask.shape[1]][mask] = number + 1
        self.areas = np.bincount(self.owner.ravel(), minlength=len(objects) + 1)

    def free_place(self, places: Iterable[tuple[float, float]], size: tuple[int, int], number: int,
                   always: bool) -> tuple[int, int, int, int] | None:
        """The first place (xyxy in pixels) for a tag that is inside the picture and over no other tag, and hides no
        object (or ``always``); it is taken then."""
        width, height = size
        if width > self.size[1] or height > self.size[0]:
            return None
        for x, y in places:
            left = min(max(round(x), 0), self.size[1] - width)
            top = min(max(round(y), 0), self.size[0] - height)
            under = self.owner[top // self.cell:-(-(top + height) // self.cell),
                               left // self.cell:-(-(left + width) // self.cell)]
            if (under < 0).any():
                continue
            hidden = np.bincount(under.ravel(), minlength=len(self.areas))
            hidden[[0, number]] = 0
            if always or (hidden <= _HIDDEN * self.areas).all():
                under[:] = -1
                return left, top, left + width, top + height
        return None
