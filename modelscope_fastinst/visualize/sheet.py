"""Several pictures on one sheet."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modelscope_fastinst.fonts import as_line
from modelscope_fastinst.visualize.lettering import lettering
from modelscope_fastinst.visualize.shapes import unit_of

_LONGEST = 60   # a title is at most so many times as wide as its letters are high


def side_by_side(pictures: Sequence[np.ndarray], titles: Sequence[str] | None = None) -> np.ndarray:
    """Put pictures (uint8 RGB, any sizes) next to each other on white, with a title above each.

    A picture that is narrower than its title has white beside it.
    """
    if titles is not None and len(titles) != len(pictures):
        raise ValueError(f'{len(titles)} titles for {len(pictures)} pictures')
    unit = max((unit_of(picture) for picture in pictures), default=1.0)
    gap, size = max(4, round(10 * unit)), max(9, round(18 * unit))
    head = gap + round(1.4 * size) if titles else gap
    letters = lettering(None, size)
    height = max((picture.shape[0] for picture in pictures), default=0)
    lines = [letters.fitted(as_line(title), _LONGEST * size) for title in titles or [''] * len(pictures)]
    widths = [max(picture.shape[1], letters.length(line)) for picture, line in zip(pictures, lines, strict=True)]
    sheet = np.full((head + height + gap, sum(widths) + gap * (len(pictures) + 1), 3), 255, np.uint8)
    left = gap
    for line, width, picture in zip(lines, widths, pictures, strict=True):
        if line:
            painted = letters.painted(line)[:head]
            top = (head - painted.shape[0]) // 2
            ink = (255 - painted.astype(np.int32) * 215 // 255).astype(np.uint8)   # on white, towards a dark grey
            sheet[top:top + painted.shape[0], left:left + painted.shape[1]] = ink[..., None]
        sheet[head:head + picture.shape[0], left:left + picture.shape[1]] = picture
        left += width + gap
    return sheet
