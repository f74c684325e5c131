"""Axis-aligned geometry that moves an image, its masks and its polygons together.

A ``Plan`` is drawn once for an image and then applied to whatever belongs to it, so that nothing can be transformed
with other random numbers than its neighbour. Coordinates are continuous pixels as in detectron2: pixel (0, 0) covers
the square from 0 to 1, and flipping sends x to ``width - x``.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Resize:
    """To ``height x width`` pixels: images bilinear, masks nearest, points scaled."""
    height: int
    width: int

    def size(self, height: int, width: int) -> tuple[int, int]:
        return self.height, self.width

    def image(self, image: np.ndarray) -> np.ndarray:
        return resize_image(image, self.height, self.width)

    def points(self, points: np.ndarray, height: int, width: int) -> np.ndarray:
        return points * (self.width / width, self.height / height)

    def lines(self, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return rows[_nearest(len(rows), self.height)], columns[_nearest(len(columns), self.width)]


@dataclass(frozen=True)
class Crop:
    """To the ``height x width`` pixels from (top, left) on, all of them inside the image."""
    top: int
    left: int
    height: int
    width: int

    def fits(self, height: int, width: int) -> bool:
        return 0 <= self.top <= height - self.height and 0 <= self.left <= width - self.width and \
            min(self.height, self.width) >= 1

    def size(self, height: int, width: int) -> tuple[int, int]:
        return self.height, self.width

    def image(self, image: np.ndarray) -> np.ndarray:
        return image[self.top:self.top + self.height, self.left:self.left + self.width]

    def points(self, points: np.ndarray, height: int, width: int) -> np.ndarray:
        return points - (self.left, self.top)

    def lines(self, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return rows[self.top:self.top + self.height], columns[self.left:self.left + self.width]


@dataclass(frozen=True)
class Flip:
    """Mirrored left to right, or top to bottom where ``vertical``."""
    vertical: bool = False

    def size(self, height: int, width: int) -> tuple[int, int]:
        return height, width

    def image(self, image: np.ndarray) -> np.ndarray:
        return image[::-1] if self.vertical else image[:, ::-1]

    def points(self, points: np.ndarray, height: int, width: int) -> np.ndarray:
        if self.vertical:
            return points * (1, -1) + (0, height)
        return points * (-1, 1) + (width, 0)

    def lines(self, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return (rows[::-1], columns) if self.vertical else (rows, columns[::-1])


@dataclass(frozen=True)
class Transpose:
    """Rows become columns; with a flip before or after it, a rotation by 90 degrees."""

    def size(self, height: int, width: int) -> tuple[int, int]:
        return width, height

    def image(self, image: np.ndarray) -> np.ndarray:
        return image.swapaxes(0, 1)

    def points(self, points: np.ndarray, height: int, width: int) -> np.ndarray:
        return points[:, ::-1]

    def lines(self, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return columns, rows


class Plan:
    """A sequence of operations for one image of ``height x width`` pixels.

    Attributes:
        source: (height, width) before.
        size: (height, width) after.
        operations: what happens, in this order.
    """

    def __init__(self, height: int, width: int, operations: Sequence = ()) -> None:
        self.source = self.size = (height, width)
        self.operations: list = []
        for operation in operations:
            self.add(operation)

    def add(self, operation: Resize | Crop | Flip | Transpose) -> None:
        """Appends an operation; one that changes nothing is left out."""
        height, width = self.size
        if isinstance(operation, Crop) and not operation.fits(height, width):
            raise ValueError(f'{operation} does not lie inside an image of {height} x {width} pixels')
        if isinstance(operation, (Resize, Crop)) and operation.size(height, width) == self.size:
            return
        self.operations.append(operation)
        self.size = operation.size(height, width)

    def image(self, image: np.ndarray) -> np.ndarray:
        """uint8 ``H x W`` or ``H x W x C`` -> the same, contiguous, at the plan's size."""
        if image.shape[:2] != self.source:
            raise ValueError(f'the plan is for an image of {self.source}, not {image.shape[:2]}')
        skip = False
        for operation, following in zip(self.operations, [*self.operations[1:], None]):
            if skip:
                skip = False
            elif isinstance(operation, Resize) and isinstance(following, Crop):
                # Only the crop's pixels are ever computed: enlarging a 1 x 4000 image for a crop must not allocate 1.6
                # million columns.
                image, skip = resize_image(image, operation.height, operation.width, following), True
            else:
                image = operation.image(image)
        return np.ascontiguousarray(image)

    def lines(self) -> tuple[np.ndarray, np.ndarray, bool]:
        """Where the pixels come from: every operation is separable, so that is one row for each row of the result.

        Returns:
            rows int64 ``[h]``, columns int64 ``[w]``, swapped; by nearest neighbour, the result's pixel (i, j) is pixel
            (rows[i], columns[j]) of the source, or of the source's transpose where ``swapped``.
        """
        rows, columns = np.arange(self.source[0]), np.arange(self.source[1])
        swapped = False
        for operation in self.operations:
            rows, columns = operation.lines(rows, columns)
            swapped ^= isinstance(operation, Transpose)
        return rows, columns, swapped

    def masks(self, masks: np.ndarray) -> np.ndarray:
        """``N x H x W`` of any dtype -> the same, contiguous, at the plan's size, by nearest neighbour."""
        if masks.shape[1:] != self.source:
            raise ValueError(f'the plan is for masks of {self.source}, not {masks.shape[1:]}')
        rows, columns, swapped = self.lines()
        masks = masks.swapaxes(1, 2) if swapped else masks
        for axis, index in ((1, rows), (2, columns)):
            if len(index) != masks.shape[axis] or (np.diff(index) != 1).any():
                masks = masks.take(index, axis=axis)
        return np.ascontiguousarray(masks)

    def points(self, points: np.ndarray) -> np.ndarray:
        """Float ``N x 2`` (x, y) in pixels -> where they are at the plan's size; points outside stay outside."""
        height, width = self.source
        for operation in self.operations:
            points = operation.points(points, height, width)
            height, width = operation.size(height, width)
        return points


def resize_image(image: np.ndarray, height: int, width: int, crop: Crop | None = None) -> np.ndarray:
    """Resizes as the authors do (detectron2's ResizeTransform): PIL's bilinear filter on uint8, antialiased.

    Args:
        image: uint8 ``H x W`` or ``H x W x C``.
        height, width: the new size in pixels, at least 1.
        crop: the part of the resized image to compute; the filter still sees what lies outside of it.

    Returns:
        uint8 ``height x width (x C)``, or of the crop's size; the input itself where nothing changes.
    """
    from PIL import Image
    if crop is None:
        if image.shape[:2] == (height, width):
            return image
        size, box = (width, height), None
    else:
        size = crop.width, crop.height
        across, down = image.shape[1] / width, image.shape[0] / height
        # min(): the product may exceed the image's edge by rounding, which PIL refuses.
        box = (crop.left * across, crop.top * down, min((crop.left + crop.width) * across, image.shape[1]),
               min((crop.top + crop.height) * down, image.shape[0]))
    source = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(source.resize(size, Image.Resampling.BILINEAR, box=box))


def resized_size(height: int, width: int, min_size: int, max_size: int | None = None) -> tuple[int, int]:
    """The size at which an image goes into the network (detectron2's ResizeShortestEdge).

    Args:
        height, width: the image's size in pixels.
        min_size: what the short side becomes ...
        max_size: ... unless the long side would then exceed this; None for no limit.

    Returns:
        (height, width), rounded half up, at least one pixel each.
    """
    scale = min_size / min(height, width)
    new_height, new_width = (min_size, scale * width) if height < width else (scale * height, min_size)
    if max_size is not None and max(new_height, new_width) > max_size:
        scale = max_size / max(new_height, new_width)
        new_height, new_width = new_height * scale, new_width * scale
    return max(int(new_height + 0.5), 1), max(int(new_width + 0.5), 1)


def to_tensor(image: np.ndarray) -> torch.Tensor:
    """uint8 ``H x W x 3`` array -> contiguous uint8 ``[3, H, W]`` tensor of its own memory."""
    return torch.from_numpy(np.array(image.transpose(2, 0, 1), order='C'))


def _nearest(source: int, target: int) -> np.ndarray:
    """The source index of each target index: the pixel that holds the target pixel's centre."""
    return np.minimum(((np.arange(target) + 0.5) * (source / target)).astype(np.int64), source - 1)
