"""What is drawn over an image: a mask in a colour, with a text to put beside it."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelscope_fastinst.visualize.colors import opposite
from modelscope_fastinst.visualize.runs import decode_within

FILL = 0.38
_BAND = 64   # rows that are tinted at once: few enough to stay in the processor's cache


@dataclass
class Shape:
    """An object or a region on its way to the canvas; positions in pixels of the canvas."""
    crop: np.ndarray   # bool, the mask within its bounds
    top: int
    left: int
    area: int
    text: tuple[str, str]   # name and score, each may be empty
    color: tuple[int, int, int]
    opacity: float = FILL
    inside: bool = False    # its tag belongs within it, as of a region without a form of its own

    @classmethod
    def build(cls, mask: Any, image_size: tuple[int, int], size: tuple[int, int], label: str, score: float | None,
              color: tuple[int, int, int], opacity: float = FILL, inside: bool = False) -> Shape:
        """A shape of a mask (array, COCO RLE, or what `within_bounds` makes of one) of an image's size, which is
        enlarged to ``size`` of the canvas.

        Raises:
            ValueError: RLE counts that are no encoding.
        """
        crop, top, left = mask if isinstance(mask, tuple) else within_bounds(mask)
        if size != image_size and crop.size:
            crop, top, left = _enlarged(crop, top, left, image_size, size)
        return cls(crop, top, left, int(np.count_nonzero(crop)), (label, '' if score is None else f'{score:.2f}'),
                   color, opacity, inside)

    def window(self, array: np.ndarray) -> np.ndarray:
        """The part of a canvas-sized array that the crop covers."""
        return array[self.top:self.top + self.crop.shape[0], self.left:self.left + self.crop.shape[1]]

    def places(self, width: float, height: float) -> list[tuple[float, float]]:
        """Left top corners for a tag of this size, best first: on the highest point, in the object's middle if it does
        not fill that, under its lowest point, and at its sides. Of a region, only where it is widest, if the tag has
        room there."""
        if self.inside:
            return self._widest(round(width), round(height))
        tall, wide = self.crop.shape
        high, low = (self.left + np.flatnonzero(self.crop[row]).mean() + 0.5 for row in (0, -1))
        middle = self.left + (wide - width) / 2, self.top + (tall - height) / 2
        around = [(high - width / 2, self.top - height), (low - width / 2, self.top + tall),
                  (self.left, self.top - height), (self.left + wide - width, self.top - height),
                  (self.left - width, middle[1]), (self.left + wide, middle[1])]
        around.insert(1 if width <= wide and 2 * height <= tall else len(around), middle)
        return around

    def _widest(self, width: int, height: int) -> list[tuple[float, float]]:
        import cv2
        # Outside the crop is outside the region, at the border of the picture as well.
        step = max(1, min(self.crop.shape) // 256)   # of a large region every so many pixels will do
        depth = cv2.distanceTransform(np.pad(self.crop[::step, ::step], 1).astype(np.uint8), cv2.DIST_L2, 5)
        y, x = (step * (int(place) - 1) for place in np.unravel_index(depth.argmax(), depth.shape))
        top, left = max(0, y - height // 2), max(0, x - width // 2)
        under = self.crop[top:top + height, left:left + width]
        return [(self.left + left, self.top + top)] if under.sum() > 0.85 * width * height else []


def size_of(mask: Any) -> tuple[int, ...]:
    """A mask's shape, whether it is an array or RLE."""
    return tuple(int(side) for side in mask['size']) if isinstance(mask, Mapping) else tuple(np.shape(mask))


def within_bounds(mask: Any) -> tuple[np.ndarray, int, int]:
    """A mask (array or RLE) as bool within its bounds, and the top and left of these in pixels."""
    if isinstance(mask, Mapping):
        return decode_within(mask)
    mask = np.asarray(mask)
    mask = mask.view(np.uint8) if mask.dtype == np.bool_ else mask
    rows = np.flatnonzero(mask.max(1) if mask.dtype == np.uint8 and mask.size else (mask != 0).any(1))
    if not len(rows):
        return np.zeros((0, 0), np.bool_), 0, 0
    top = int(rows[0])
    high = mask[top:int(rows[-1]) + 1]
    columns = np.flatnonzero(high.max(0) if mask.dtype == np.uint8 else (high != 0).any(0))
    left = int(columns[0])
    return high[:, left:int(columns[-1]) + 1] != 0, top, left


def _enlarged(crop: np.ndarray, top: int, left: int, image_size: tuple[int, int],
              size: tuple[int, int]) -> tuple[np.ndarray, int, int]:
    """A crop of a mask at the size of the canvas: linear interpolation gives smooth edges in place of stairs."""
    import cv2
    scale = [target / found for target, found in zip(size, image_size, strict=True)]
    starts = [max(0, int(np.floor((start - 1) * factor))) for start, factor in zip((top, left), scale, strict=True)]
    stops = [min(target, int(np.ceil((start + length + 1) * factor)))
             for target, start, length, factor in zip(size, (top, left), crop.shape, scale, strict=True)]
    # Outside the picture a mask goes on as it is at the border, or objects there would get thinner.
    at_border = [top == 0, left == 0, top + crop.shape[0] == image_size[0], left + crop.shape[1] == image_size[1]]
    source = np.pad(crop.view(np.uint8) * 255, 1)
    if at_border[0]:
        source[0] = source[1]
    if at_border[1]:
        source[:, 0] = source[:, 1]
    if at_border[2]:
        source[-1] = source[-2]
    if at_border[3]:
        source[:, -1] = source[:, -2]
    # From the centre of a pixel of the canvas to that of one of the padded crop.
    to_source = [[1 / factor, 0, (start + 0.5) / factor - 0.5 - (begin - 1)]
                 for factor, start, begin in zip(scale, starts, (top, left), strict=True)]
    matrix = np.array([to_source[1], [0, *to_source[0][::2]]])
    drawn = cv2.warpAffine(source, matrix, (stops[1] - starts[1], stops[0] - starts[0]),
                           flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_CONSTANT)
    inside, more_top, more_left = within_bounds(drawn > 127)
    return np.ascontiguousarray(inside), starts[0] + more_top, starts[1] + more_left


def resized(image: np.ndarray, scale: float) -> np.ndarray:
    """A copy of the image, larger by ``scale``."""
    if scale == 1:
        return np.array(image, order='C')
    import cv2
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)


def unit_of(canvas: np.ndarray) -> float:
    """What grows with a picture: 1 at about 640 x 480 pixels."""
    return float(np.sqrt(canvas.shape[0] * canvas.shape[1])) / 550


def fill(canvas: np.ndarray, item: Shape) -> None:
    """Tints the canvas inside a shape."""
    if not item.area or item.opacity <= 0:
        return
    import cv2
    region, mask = item.window(canvas), item.crop.view(np.uint8)
    solid = np.empty((min(_BAND, len(region)), *region.shape[1:]), np.uint8)
    solid[0] = item.color
    solid[1:] = solid[0]   # row by row, not pixel by pixel
    tinted = np.empty_like(solid)
    for start in range(0, len(region), _BAND):
        rows = region[start:start + _BAND]
        cv2.addWeighted(rows, 1 - item.opacity, solid[:len(rows)], item.opacity, 0, tinted[:len(rows)])
        cv2.copyTo(tinted[:len(rows)], mask[start:start + _BAND], rows)


def widths_of(canvas: np.ndarray) -> tuple[int, int]:
    """How wide outlines are on a canvas, in pixels: the coloured line, and the edge to either side of it."""
    unit = unit_of(canvas)
    return max(1, round(unit * 1.6)), max(1, round(unit * 0.7))


def outline(canvas: np.ndarray, item: Shape, line: int, edge: int = 0) -> None:
    """Draws a shape's border on the canvas: a line in its colour, so many pixels wide, upon a dark or light one that
    stands out from it and is wider by ``edge`` to either side. On any background one of the two shows."""
    if not item.area:
        return
    import cv2
    # Objects of a few pixels would vanish under a thick line.
    line = min(line, max(1, min(item.crop.shape) // 8))
    edge = min(edge, max(1, line // 2))
    if _is_speckled(item.crop):
        _outline_pixels(canvas, item)
        return
    contours, _ = cv2.findContours(item.crop.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE,
                                   offset=(item.left, item.top))
    if line > 2:   # what a thick line covers need not be followed pixel by pixel
        contours = [cv2.approxPolyDP(contour, line / 6, True) for contour in contours]
    if edge:
        # An odd width has its full colour up to its sides, an even one is half transparent there.
        cv2.polylines(canvas, contours, True, opposite(item.color), line + 2 * edge | 1, cv2.LINE_AA)
    cv2.polylines(canvas, contours, True, item.color, line, cv2.LINE_AA)


def frame(canvas: np.ndarray, box: tuple[float, float, float, float], color: tuple[int, int, int], line: int,
          edge: int) -> None:
    """Draws a box (xyxy in pixels of the canvas) in the manner of an outline."""
    import cv2
    height, width = canvas.shape[:2]
    left, top, right, bottom = (int(round(value)) for value in np.clip(np.nan_to_num(box), 0, [width, height] * 2))
    if right <= left or bottom <= top:
        return
    for shown, thick in ((opposite(color), line + 2 * edge), (color, line)):
        cv2.rectangle(canvas, (left, top), (right - 1, bottom - 1), shown, thick)


def _is_speckled(crop: np.ndarray) -> bool:
    """Whether a mask is noise, whose border would be contours by the hundred thousand."""
    rows = crop[::max(1, len(crop) // 64)]
    return bool(np.count_nonzero(rows[:, 1:] != rows[:, :-1]) > 100 * len(rows))


def _outline_pixels(canvas: np.ndarray, item: Shape) -> None:
    import cv2
    mask = item.crop.view(np.uint8)
    item.window(canvas)[(mask > cv2.erode(mask, np.ones((3, 3), np.uint8))) != 0] = item.color
