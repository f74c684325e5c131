"""Several pictures on one sheet."""
from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from modelscope_fastinst.visualize.shapes import unit_of
from modelscope_fastinst.visualize.tags import font_of


def side_by_side(pictures: Sequence[np.ndarray], titles: Sequence[str] | None = None) -> np.ndarray:
    """Put pictures (uint8 RGB, any sizes) next to each other on white, with a title above each.

    A picture that is narrower than its title has white beside it.
    """
    from PIL import Image, ImageDraw
    if titles is not None and len(titles) != len(pictures):
        raise ValueError(f'{len(titles)} titles for {len(pictures)} pictures')
    unit = max((unit_of(picture) for picture in pictures), default=1.0)
    gap, size = round(10 * unit), round(18 * unit)
    head = gap + round(1.4 * size) if titles else gap
    font = font_of(None, size)
    height = max((picture.shape[0] for picture in pictures), default=0)
    widths = [max(picture.shape[1], math.ceil(font.getlength(title)))
              for picture, title in zip(pictures, titles or [''] * len(pictures), strict=True)]
    sheet = Image.new('RGB', (sum(widths) + gap * (len(pictures) + 1), head + height + gap), 'white')
    draw = ImageDraw.Draw(sheet)
    left = gap
    for number, picture in enumerate(pictures):
        if titles:
            draw.text((left, head / 2), titles[number], fill=(40, 40, 40), font=font, anchor='lm')
        sheet.paste(Image.fromarray(picture), (left, head))
        left += widths[number] + gap
    return np.array(sheet)
