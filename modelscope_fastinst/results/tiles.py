"""Many queries' mask logits at the image's original size, one small rectangle of the image at a time.

Panoptic and semantic maps compare queries pixel by pixel, so that a query's mask cannot be finished before the next one
is begun as instances allow; but pixels do not depend on each other, so that the image can be done in pieces. For most
pieces little has to be computed, too: interpolated values lie between the smallest and the largest of the logits that
they come from, and inside an object or far from it both say the same.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from modelscope_fastinst.results.upsample import Axis

if TYPE_CHECKING:
    from torch import Tensor

# Side of a tile in pixels on the CPU: large enough that a step in Python is worth its while, small enough that most
# tiles lie inside one segment and that what is computed of one stays in the cache.
_SIDE = 64
# On a GPU, where asking for a tile's range costs more than computing it: the values that are made at a time.
_GPU_VALUES = 2 ** 25


@dataclass(frozen=True)
class Tile:
    """A rectangle of the image, in pixels at the original size; bottom and right are exclusive."""
    top: int
    bottom: int
    left: int
    right: int

    @property
    def area(self) -> int:
        """In pixels."""
        return (self.bottom - self.top) * (self.right - self.left)

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns, to index an array of the whole image with."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


def in_stripes(device: torch.device) -> bool:
    """Whether a device does better with stripes as wide as the image, of which everything is computed."""
    return device.type != 'cpu'


def tiles(size: tuple[int, int], device: torch.device, values: int) -> tuple[list[int], list[int]]:
    """Where to cut an image into tiles.

    Args:
        size: (height, width) of the image in pixels.
        device: that computes.
        values: how many numbers will be made for each pixel.

    Returns:
        The first row of every row of tiles and the first column of every column of them, each followed by the end.
    """
    height, width = size
    if not in_stripes(device):
        return [*range(0, height, _SIDE), height], [*range(0, width, _SIDE), width]
    step = max(1, _GPU_VALUES // max(1, width * values))
    return [*range(0, height, step), height], [0, width]


def in_order(top: Sequence[int], left: Sequence[int]) -> list[Tile]:
    """The tiles between these cuts, row by row."""
    return [Tile(top[y], top[y + 1], left[x], left[x + 1]) for y in range(len(top) - 1) for x in range(len(left) - 1)]


def logit_ranges(logits: np.ndarray, rows: Sequence[tuple[int, int]],
                 columns: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest of the logits that each tile depends on.

    Args:
        logits: float32 ``[Q, h, w]``.
        rows: for each row of tiles, the logits ``[start, stop)`` that its pixels depend on.
        columns: the same for each column of tiles.

    Returns:
        Two float32 arrays ``[Q, T]``, tiles row by row.
    """
    found = []
    for reduce in (np.min, np.max):
        strips = np.stack([reduce(logits[:, start:stop], axis=1) for start, stop in rows], axis=1)
        found.append(np.stack([reduce(strips[:, :, start:stop], axis=2) for start, stop in columns], axis=2)
                     .reshape(len(logits), -1))
    return found[0], found[1]


def upsample(logits: Tensor, rows: Axis, columns: Axis, tile: Tile, queries: np.ndarray | None = None) -> Tensor:
    """Interpolate mask logits within a tile.

    Args:
        logits: float32 ``[Q, h, w]``.
        rows, columns: of the second and the third dimension.
        queries: which of the first dimension; None for all.

    Returns:
        float32 ``[N, bottom - top, right - left]``.
    """
    first, last = rows.support(tile.top, tile.bottom)
    start, stop = columns.support(tile.left, tile.right)
    part = logits[:, first:last, start:stop]
    if queries is not None:
        part = part[torch.from_numpy(queries)]
    wide = part @ columns.matrix[tile.left:tile.right, start:stop].T
    return rows.matrix[tile.top:tile.bottom, first:last] @ wide
