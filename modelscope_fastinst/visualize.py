"""Pictures of instances: a translucent fill, a crisp outline, and a tag with label and score."""
from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

logger = logging.getLogger('modelscope_fastinst')

COLOR_BY = ('instance', 'class')
_FILL = 0.38
# With more instances than this, tags go only to objects that are large enough to bear one.
_MANY = 12
# A tag may hide this part of another object.
_HIDDEN = 0.3
_warned = False


def draw_instances(image: np.ndarray, scores: Sequence[float] | None, labels: Sequence[str], masks: Any,
                   boxes: Any = None, *, color_by: str = 'instance', classes: Sequence[str] | None = None,
                   scale: float = 1.0, tags: bool = True, font: str | Path | None = None,
                   colors: Sequence[tuple[int, int, int]] | None = None) -> np.ndarray:
    """Draw instances over an image.

    Tags keep clear of one another: the best instances get theirs first, and small objects in a crowd get none.

    Args:
        image: uint8 ``[H, W, 3]``, RGB. Not changed.
        scores: one an instance, in [0, 1]; None to leave them out (ground truth).
        labels: one class name an instance.
        masks: ``[N, H, W]`` or a sequence of ``[H, W]`` arrays (anything but 0 is inside), or COCO RLE dicts.
        boxes: accepted so that a whole result can be passed; what is drawn follows the masks.
        color_by: 'instance' for a colour an instance, 'class' for a colour a class.
        classes: all class names, so that a class has the same colour in every picture; None for those of this image.
        scale: draw at this multiple of the image's size; small images gain from 2 or 3.
        tags: whether to write labels and scores.
        font: TrueType font file for labels in scripts that Pillow's built-in font does not have, such as Chinese.
            Without it such characters become boxes, and a warning says so, once in a process.
        colors: one RGB colour an instance, instead of those of ``color_by``.

    Returns:
        uint8 RGB picture of the image's size times ``scale``.

    Raises:
        ValueError: an image that is not uint8 RGB, numbers of labels, scores, masks or boxes that differ, a mask of
            another size, or an unknown ``color_by``.
    """
    _check(image, scores, labels, masks, boxes, color_by)
    if tags and font is None:
        _warn_of_missing_glyphs(labels)
    height, width = image.shape[:2]
    canvas = _resized(image, scale)
    colors = _colors_of(labels, color_by, classes) if colors is None else colors
    objects = []
    for number, (label, mask) in enumerate(zip(labels, masks, strict=True)):
        mask = _array(mask)
        if mask.shape != (height, width):
            raise ValueError(f'mask {number} is {mask.shape[0]} x {mask.shape[1]} pixels, the image {height} x {width}')
        score = None if scores is None else float(scores[number])
        objects.append(_Object.build(mask, canvas.shape[:2], label, score, colors[number]))
    line = max(1, round(_unit(canvas) * 1.6))
    # Small objects lie on top of large ones.
    for item in sorted(objects, key=lambda item: -item.area):
        _fill(canvas, item)
    for item in sorted(objects, key=lambda item: -item.area):
        _outline(canvas, item, line)
    return _with_tags(canvas, objects, font) if tags else canvas


def side_by_side(pictures: Sequence[np.ndarray], titles: Sequence[str] | None = None) -> np.ndarray:
    """Put pictures (uint8 RGB, any sizes) next to each other on white, with a title above each."""
    from PIL import Image, ImageDraw
    if titles is not None and len(titles) != len(pictures):
        raise ValueError(f'{len(titles)} titles for {len(pictures)} pictures')
    unit = max((_unit(picture) for picture in pictures), default=1.0)
    gap, size = round(10 * unit), round(18 * unit)
    head = gap + round(1.4 * size) if titles else gap
    height = max((picture.shape[0] for picture in pictures), default=0)
    width = sum(picture.shape[1] for picture in pictures)
    sheet = Image.new('RGB', (width + gap * (len(pictures) + 1), head + height + gap), 'white')
    draw = ImageDraw.Draw(sheet)
    left = gap
    for number, picture in enumerate(pictures):
        if titles:
            draw.text((left, head / 2), titles[number], fill=(40, 40, 40), font=_font(None, size), anchor='lm')
        sheet.paste(Image.fromarray(picture), (left, head))
        left += picture.shape[1] + gap
    return np.array(sheet)


def palette(number: int) -> list[tuple[int, int, int]]:
    """``number`` RGB colours that differ, most so those near one another in the list; always the same ones.

    Hues step by the golden angle through OKLCH (https://bottosson.github.io/posts/oklab), where equal steps look equal.
    """
    index = np.arange(number)
    hue = np.deg2rad(25 + index * 137.50776)
    lightness = np.array([0.72, 0.80, 0.64])[index % 3]
    a, b = 0.17 * np.cos(hue), 0.17 * np.sin(hue)
    cone = np.stack([lightness + 0.3963377774 * a + 0.2158037573 * b,
                     lightness - 0.1055613458 * a - 0.0638541728 * b,
                     lightness - 0.0894841775 * a - 1.2914855480 * b]) ** 3
    linear = np.array([[4.0767416621, -3.3077115913, 0.2309699292],
                       [-1.2684380046, 2.6097574011, -0.3413193965],
                       [-0.0041960863, -0.7034186147, 1.7076147010]]) @ cone
    linear = np.clip(linear, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return [tuple(int(value) for value in color) for color in np.rint(encoded.T * 255)]


@dataclass
class _Object:
    """An instance on its way to the canvas; positions in pixels of the canvas."""
    crop: np.ndarray   # bool, the mask within its bounds
    top: int
    left: int
    area: int
    text: tuple[str, str]   # in full, and in short
    color: tuple[int, int, int]

    @classmethod
    def build(cls, mask: np.ndarray, size: tuple[int, int], label: str, score: float | None,
              color: tuple[int, int, int]) -> _Object:
        if size != mask.shape:
            import cv2
            # Linear interpolation gives an enlarged mask smooth edges in place of stairs.
            mask = cv2.resize(mask.astype(np.uint8) * 255, size[::-1], interpolation=cv2.INTER_LINEAR) > 127
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        top, left = (int(rows[0]), int(columns[0])) if len(rows) else (0, 0)
        crop = mask[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1].copy() if len(rows) else mask[:0, :0]
        short = '' if score is None else f'{score:.2f}'
        return cls(crop, top, left, int(crop.sum()), (' '.join(f'{label} {short}'.split()), short), color)

    def window(self, array: np.ndarray) -> np.ndarray:
        """The part of a canvas-sized array that the crop covers."""
        return array[self.top:self.top + self.crop.shape[0], self.left:self.left + self.crop.shape[1]]

    def places(self, width: float, height: float) -> list[tuple[float, float]]:
        """Left top corners for a tag of this size, best first: on the highest point, in the object's middle, under its
        lowest point, and at its sides."""
        tall, wide = self.crop.shape
        high, low = (self.left + np.flatnonzero(self.crop[row]).mean() + 0.5 for row in (0, -1))
        middle = self.left + (wide - width) / 2, self.top + (tall - height) / 2
        return [(high - width / 2, self.top - height), middle, (low - width / 2, self.top + tall),
                (self.left, self.top - height), (self.left + wide - width, self.top - height),
                (self.left - width, middle[1]), (self.left + wide, middle[1])]


def _check(image: np.ndarray, scores: Any, labels: Sequence[str], masks: Any, boxes: Any, color_by: str) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f'the image must be uint8 [H, W, 3]; got {image.dtype} {image.shape}')
    if color_by not in COLOR_BY:
        raise ValueError(f'color_by is {color_by!r}; it must be one of {", ".join(COLOR_BY)}')
    for name, items in (('scores', scores), ('masks', masks), ('boxes', boxes)):
        if items is not None and len(items) != len(labels):
            raise ValueError(f'{len(items)} {name} for {len(labels)} labels')


def _resized(image: np.ndarray, scale: float) -> np.ndarray:
    """A copy of the image, larger by ``scale``."""
    if scale == 1:
        return image.copy()
    import cv2
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)


def _array(mask: Any) -> np.ndarray:
    """A mask as bool ``[H, W]``, from an array or RLE."""
    if isinstance(mask, dict):
        from pycocotools import mask as coco_mask
        mask = coco_mask.decode(mask)
    return np.asarray(mask) != 0


def _unit(canvas: np.ndarray) -> float:
    """What grows with a picture: 1 at about 640 x 480 pixels."""
    return float(np.sqrt(canvas.shape[0] * canvas.shape[1])) / 550


def _colors_of(labels: Sequence[str], color_by: str, classes: Sequence[str] | None) -> list[tuple[int, int, int]]:
    if color_by == 'instance':
        return palette(len(labels))
    names = list(dict.fromkeys([*(classes or ()), *sorted(set(labels))]))
    colors = dict(zip(names, palette(len(names)), strict=True))
    return [colors[label] for label in labels]


def _fill(canvas: np.ndarray, item: _Object) -> None:
    region = item.window(canvas)
    for channel, value in enumerate(item.color):
        # A table keeps large photographs in 8 bits.
        tint = np.rint(np.arange(256) * (1 - _FILL) + value * _FILL).astype(np.uint8)
        plane = region[..., channel]
        plane[item.crop] = tint[plane[item.crop]]


def _outline(canvas: np.ndarray, item: _Object, line: int) -> None:
    import cv2
    # Objects of a few pixels would vanish under a thick line.
    line = min(line, max(1, min(item.crop.shape) // 8))
    contours, _ = cv2.findContours(item.crop.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE,
                                   offset=(item.left, item.top))
    cv2.drawContours(canvas, contours, -1, item.color, line, cv2.LINE_AA)


def _with_tags(canvas: np.ndarray, objects: Sequence[_Object], font_file: str | Path | None) -> np.ndarray:
    """The canvas with tags of the objects, in their order, where there is room."""
    from PIL import Image, ImageDraw
    unit = _unit(canvas)
    font = _font(font_file, max(9, round(13 * unit)))
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


def _font(file: str | Path | None, size: int) -> Any:
    from PIL import ImageFont
    if file is None:
        return ImageFont.load_default(size)
    try:
        return ImageFont.truetype(str(file), size)
    except OSError as error:
        raise ValueError(f'{file}: is no font file that can be read ({error})') from error


def _warn_of_missing_glyphs(labels: Iterable[str]) -> None:
    global _warned
    strange = sorted({character for label in labels for character in label if not character.isascii()})
    if _warned or not strange:
        return
    font = _font(None, 20)
    blank = _glyph(font, '\U0010ffff')   # a noncharacter, for which every font draws its box
    missing = ''.join(character for character in strange if _glyph(font, character) == blank)
    if missing:
        _warned = True
        logger.warning(f'the built-in font cannot draw {missing[:20]!r} of the labels; name a font file that can '
                       '(font= of draw_instances, --font of the command line)')


def _glyph(font: Any, character: str) -> bytes:
    mask = font.getmask(character)
    return bytes(mask)
