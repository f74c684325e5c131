"""A sheet of sample images with the outlines that the annotations give them."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from modelscope_fastinst.data.checking.part import Part
from modelscope_fastinst.data.checking.samples import choose_samples
from modelscope_fastinst.data.geometry import Plan, Resize
from modelscope_fastinst.data.image import read_image
from modelscope_fastinst.data.segmentation import draw
from modelscope_fastinst.visualize import draw_instances

_HIGH, _WIDEST = 300, 560   # pixels of an image on the sheet
_SHEET = 2400               # pixels that a row fills, about
_GAP, _TITLE = 12, 22


def draw_sheet(part: Part, number: int = 24, seed: int = 0, font: str | None = None) -> np.ndarray | None:
    """Sample images of a split with their objects outlined; classes are shown about equally often.

    Each class has its colour. Where there is but one, each object has, and no tags hide small ones.

    Args:
        part: one of ``Report.parts``.
        number: how many images, at least; up to twice as many where it takes them to show every class.
        seed: another one draws other images.
        font: see ``visualize.draw_instances``.

    Returns:
        uint8 ``[H, W, 3]`` RGB, or None where not one image can be shown.
    """
    sizes = list(map(tuple, part.records.sizes.tolist()))
    usable = [not picture.error and size in (picture.upright, picture.stored)
              for picture, size in zip(part.pictures, sizes, strict=True)]
    chosen = choose_samples(part.records, number, 2 * number, seed, usable)
    if not chosen:
        return None
    tiles = [_tile(part, image, font) for image in chosen]
    return grid(tiles, [_title(part, image) for image in chosen], font)


def _tile(part: Part, image: int, font: str | None) -> np.ndarray:
    records, size = part.records, tuple(part.records.sizes[image].tolist())
    if part.open_image is not None:
        pixels = part.open_image(image)
    else:
        pixels = read_image(part.path(image), orient=part.pictures[image].upright == size)
    plan = tile_plan(*size)
    indices = list(range(int(records.starts[image]), int(records.starts[image + 1])))
    labels = [records.classes[records.labels[index]] + (' (crowd)' if records.crowds[index] else '')
              for index in indices]
    masks = draw([records.segmentation(index) for index in indices], plan)
    classes = [*records.classes, *(f'{name} (crowd)' for name in records.classes)]
    single = len(records.classes) == 1
    return draw_instances(plan.image(pixels), None, labels, masks, color_by='instance' if single else 'class',
                          classes=classes, tags=not single, font=font)


def tile_plan(height: int, width: int) -> Plan:
    """The resize of an image of this size in pixels to that of a tile."""
    scale = min(_WIDEST / width, _HIGH / height)
    return Plan(height, width, [Resize(max(1, round(height * scale)), max(1, round(width * scale)))])


def _title(part: Part, image: int) -> str:
    span = slice(int(part.records.starts[image]), int(part.records.starts[image + 1]))
    objects = int((~part.records.crowds[span]).sum())
    return f'{part.records.file_names[image]}: {objects} object{"" if objects == 1 else "s"}'


def grid(tiles: Sequence[np.ndarray], titles: Sequence[str], font_file: str | None) -> np.ndarray:
    """Tiles in rows on white, each under its title."""
    from PIL import Image, ImageDraw, ImageFont
    rows: list[list[int]] = [[]]
    for number, tile in enumerate(tiles):
        if rows[-1] and sum(tiles[one].shape[1] + _GAP for one in rows[-1]) + tile.shape[1] > _SHEET:
            rows.append([])
        rows[-1].append(number)
    width = max(sum(tiles[number].shape[1] + _GAP for number in row) for row in rows) + _GAP
    heights = [max(tiles[number].shape[0] for number in row) + _TITLE + _GAP for row in rows]
    sheet = Image.new('RGB', (width, sum(heights) + _GAP), 'white')
    font = ImageFont.load_default(14) if font_file is None else ImageFont.truetype(font_file, 14)
    pen, top = ImageDraw.Draw(sheet), _GAP
    for row, height in zip(rows, heights, strict=True):
        left = _GAP
        for number in row:
            title = _fitted(titles[number], tiles[number].shape[1], font)
            pen.text((left, top + _TITLE / 2), title, fill=(40, 40, 40), font=font, anchor='lm')
            sheet.paste(Image.fromarray(tiles[number]), (left, top + _TITLE))
            left += tiles[number].shape[1] + _GAP
        top += height
    return np.array(sheet)


def _fitted(title: str, width: int, font: Any) -> str:
    """The title, cut at its start where it is too long: the end of a path says more."""
    if font.getlength(title) <= width:
        return title
    while title and font.getlength(f'...{title}') > width:
        title = title[1:]
    return f'...{title}'
