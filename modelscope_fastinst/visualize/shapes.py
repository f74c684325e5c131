"""What is drawn over an image: a mask in a colour, with a text to put beside it."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

FILL = 0.38


@dataclass
class Shape:
    """An object or a region on its way to the canvas; positions in pixels of the canvas."""
    crop: np.ndarray   # bool, the mask within its bounds
    top: int
    left: int
    area: int
    text: tuple[str, str]   # in full, and in short
    color: tuple[int, int, int]
    opacity: float = FILL
    inside: bool = False    # its tag belongs within it, as of a region without a form of its own

    @classmethod
    def build(cls, mask: np.ndarray, size: tuple[int, int], label: str, score: float | None,
              color: tuple[int, int, int], opacity: float = FILL, inside: bool = False) -> Shape:
        """A shape of a mask (bool), which is enlarged to ``size`` of the canvas."""
        if size != mask.shape:
            import cv2
            # Linear interpolation gives an enlarged mask smooth edges in place of stairs.
            mask = cv2.resize(mask.astype(np.uint8) * 255, size[::-1], interpolation=cv2.INTER_LINEAR) > 127
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        top, left = (int(rows[0]), int(columns[0])) if len(rows) else (0, 0)
        crop = mask[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1].copy() if len(rows) else mask[:0, :0]
        short = '' if score is None else f'{score:.2f}'
        return cls(crop, top, left, int(crop.sum()), (' '.join(f'{label} {short}'.split()), short), color, opacity,
                   inside)

    def window(self, array: np.ndarray) -> np.ndarray:
        """The part of a canvas-sized array that the crop covers."""
        return array[self.top:self.top + self.crop.shape[0], self.left:self.left + self.crop.shape[1]]

    def places(self, width: float, height: float) -> list[tuple[float, float]]:
        """Left top corners for a tag of this size, best first: on the highest point, in the object's middle, under its
        lowest point, and at its sides. Of a region, only where it is widest, if the tag has room there."""
        if self.inside:
            return self._widest(round(width), round(height))
        tall, wide = self.crop.shape
        high, low = (self.left + np.flatnonzero(self.crop[row]).mean() + 0.5 for row in (0, -1))
        middle = self.left + (wide - width) / 2, self.top + (tall - height) / 2
        return [(high - width / 2, self.top - height), middle, (low - width / 2, self.top + tall),
                (self.left, self.top - height), (self.left + wide - width, self.top - height),
                (self.left - width, middle[1]), (self.left + wide, middle[1])]

    def _widest(self, width: int, height: int) -> list[tuple[float, float]]:
        import cv2
        # Outside the crop is outside the region, at the border of the picture as well.
        depth = cv2.distanceTransform(np.pad(self.crop, 1).astype(np.uint8), cv2.DIST_L2, 5)
        y, x = np.unravel_index(depth.argmax(), depth.shape)
        top, left = max(0, y - 1 - height // 2), max(0, x - 1 - width // 2)
        under = self.crop[top:top + height, left:left + width]
        return [(self.left + left, self.top + top)] if under.sum() > 0.85 * width * height else []


def resized(image: np.ndarray, scale: float) -> np.ndarray:
    """A copy of the image, larger by ``scale``."""
    if scale == 1:
        return image.copy()
    import cv2
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)


def as_mask(mask: Any) -> np.ndarray:
    """A mask as bool ``[H, W]``, from an array or RLE."""
    if isinstance(mask, dict):
        from pycocotools import mask as coco_mask
        mask = coco_mask.decode(mask)
    return np.asarray(mask) != 0


def unit_of(canvas: np.ndarray) -> float:
    """What grows with a picture: 1 at about 640 x 480 pixels."""
    return float(np.sqrt(canvas.shape[0] * canvas.shape[1])) / 550


def fill(canvas: np.ndarray, item: Shape) -> None:
    """Tints the canvas inside a shape."""
    region = item.window(canvas)
    for channel, value in enumerate(item.color):
        # A table keeps large photographs in 8 bits.
        tint = np.rint(np.arange(256) * (1 - item.opacity) + value * item.opacity).astype(np.uint8)
        plane = region[..., channel]
        plane[item.crop] = tint[plane[item.crop]]


def outline(canvas: np.ndarray, item: Shape, line: int) -> None:
    """Draws a shape's border on the canvas, with lines of so many pixels."""
    import cv2
    # Objects of a few pixels would vanish under a thick line.
    line = min(line, max(1, min(item.crop.shape) // 8))
    contours, _ = cv2.findContours(item.crop.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE,
                                   offset=(item.left, item.top))
    cv2.drawContours(canvas, contours, -1, item.color, line, cv2.LINE_AA)
