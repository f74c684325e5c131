"""Tags with names and scores, where there is room for them."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from modelscope_fastinst.fonts import as_line
from modelscope_fastinst.visualize.colors import opposite
from modelscope_fastinst.visualize.lettering import Lettering, lettering
from modelscope_fastinst.visualize.shapes import Shape, unit_of

# With more objects than this, tags are smaller and go only to those that are large enough to bear one.
_MANY = 12
# Of them, those get none whose longer side is less than this many times a tag's height.
_SMALL = 4 / 3
# A tag may hide this part of another object, where there is no place at which it hides nothing.
_HIDDEN = 0.3
_LONGEST = 22           # a tag is at most so many times as wide as its letters are high,
_LONGEST_OF_MANY = 14   # among many
_GAP = '  '             # one blank is hardly seen in small letters


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
        across = canvas.shape[1] - 2 * pad
        beside = over = min(across, _LONGEST * letters.size)
        if many:
            if _SMALL * height > max(item.crop.shape):
                continue
            over = min(over, 1.15 * item.crop.shape[1] - 2 * pad)
            beside = max(over, min(across, _LONGEST_OF_MANY * letters.size))
        for text in _texts(item, letters, beside, over):
            width = letters.length(text) + 2 * pad
            shares = (1.0,) if always else (0.0, _HIDDEN) if width - 2 * pad <= over else (0.0,)
            place = ground.free_place(item.places(width, height), (width, height), number, shares)
            if place is not None:
                _draw(canvas, place, text, item.color, letters, pad)
                break
    return canvas


def _texts(item: Shape, letters: Lettering, beside: float, over: float) -> Iterator[str]:
    """What a tag may say, best first.

    Args:
        beside: how wide it may be where nothing is under it, in pixels.
        over: how wide elsewhere. Where that is less, names give way to scores rather than being shortened.
    """
    name, score = as_line(item.text[0]), item.text[1]
    tail = f'{_GAP}{score}' if score else ''
    full = f'{name}{tail}'.strip()
    if name and letters.length(full) <= beside:
        yield full
    if name and letters.length(full) > over and (over == beside or not score):
        fitted = letters.fitted(name, over - letters.length(tail))
        if len(fitted) > 3:   # a letter or two say nothing
            yield f'{fitted}{tail}'
    if score and letters.length(score) <= beside:
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

    def free_place(self, places: Sequence[tuple[float, float]], size: tuple[int, int], number: int,
                   shares: Sequence[float]) -> tuple[int, int, int, int] | None:
        """The first place (xyxy in pixels) for a tag that is inside the picture and over no other tag; it is taken
        then.

        Args:
            number: of the object whose tag it is, from 1.
            shares: how much of any other object a tag may hide; each is tried at all places before the next. One that
                may hide nothing spares its own object as well.
        """
        width, height = size
        if width > self.size[1] or height > self.size[0]:
            return None
        for share in shares:
            most = share * self.areas
            most[0], most[number] = self.areas[0], (1 if share else _HIDDEN) * self.areas[number]
            for x, y in places:
                left = min(max(round(x), 0), self.size[1] - width)
                top = min(max(round(y), 0), self.size[0] - height)
                under = self.owner[top // self.cell:-(-(top + height) // self.cell),
                                   left // self.cell:-(-(left + width) // self.cell)]
                if (under < 0).any():
                    continue
                if (np.bincount(under.ravel(), minlength=len(self.areas)) <= most).all():
                    under[:] = -1
                    return left, top, left + width, top + height
        return None
