"""Mask logits at the image's original size, computed only where a mask can be positive.

The authors interpolate every query's logits bilinearly to the padded canvas, crop the padding away and interpolate
again to the original size. Each step is linear and treats rows and columns apart, so both together are one small
matrix per axis: ``upsampled = rows @ logits @ columns.T``. The matrices hold no negative weights and only a few
neighbouring non-zeros per row, so a pixel can be positive only near a positive logit: everything else need not be
computed at all, without any approximation.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from torch import Tensor

# On the CPU, pixels are computed in tiles that stay in the cache from the first product to the sum; narrow ones, so
# that the products have few zeros to multiply. Both limits keep torch and BLAS from spreading a tile over threads: for
# so little work, waiting for one another costs more than it gains, and on a busy machine a hundred times more.
_TILE_COLUMNS = 64
_TILE_PIXELS = 2 ** 15 - 1
_TILE_PRODUCTS = 2 ** 18


@dataclass(frozen=True)
class Axis:
    """The composed interpolation (logits to canvas, crop, to original size) along one axis.

    Attributes:
        matrix: float32 ``[original, logits]``, non-negative, rows sum to 1.
        first, last: int64 numpy ``[original]``, non-decreasing: the first and last logit that a pixel depends on.
    """
    matrix: Tensor
    first: np.ndarray
    last: np.ndarray

    @classmethod
    def build(cls, logits: int, canvas: int, size: int, original: int, device: torch.device | str = 'cpu') -> Axis:
        """The axis for ``logits`` values that cover ``canvas`` pixels, of which the first ``size`` are the image, which
        was ``original`` pixels long."""
        lower, upper, share = _taps(canvas, logits)
        on_canvas = np.zeros((canvas, logits), np.float32)
        np.add.at(on_canvas, (np.arange(canvas), lower), 1 - share)
        np.add.at(on_canvas, (np.arange(canvas), upper), share)
        lower, upper, share = _taps(original, size)
        weights = on_canvas[lower] * (1 - share)[:, None] + on_canvas[upper] * share[:, None]
        used = weights > 0
        first = used.argmax(1)
        last = logits - 1 - used[:, ::-1].argmax(1)
        # Both are monotone but for weights that round to zero; being generous by a cell is always right.
        first = np.minimum.accumulate(first[::-1])[::-1]
        return cls(torch.from_numpy(weights).to(device), first, np.maximum.accumulate(last))

    def reach(self, start: int, stop: int) -> tuple[int, int]:
        """The range of pixels that depend on any logit in ``[start, stop)``; may be empty."""
        return (int(np.searchsorted(self.last, start, side='left')),
                int(np.searchsorted(self.first, stop - 1, side='right')))

    def support(self, start: int, stop: int) -> tuple[int, int]:
        """The range of logits that the pixels in ``[start, stop)`` depend on."""
        return int(self.first[start]), int(self.last[stop - 1]) + 1


def _taps(target: int, source: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bilinear interpolation of ``source`` values to ``target``, as ``F.interpolate(align_corners=False)`` has it: the
    two values that each comes from, and the share of the second."""
    position = (np.arange(target, dtype=np.float32) + np.float32(0.5)) * np.float32(source / target) - np.float32(0.5)
    position = np.clip(position, 0, source - 1)
    lower = position.astype(np.int64)
    return lower, np.minimum(lower + 1, source - 1), position - lower.astype(np.float32)


@dataclass
class Region:
    """The rectangle of an upsampled mask outside which it is zero.

    Attributes:
        mask: bool ``[rows, columns]``.
        top, left: where the rectangle lies, in pixels of the whole mask.
        area: number of positive pixels.
        confidence: sum over the positive pixels of the sigmoid of their logits.
    """
    mask: Tensor
    top: int
    left: int
    area: int
    confidence: float


def positive_extent(logits: np.ndarray) -> tuple[int, int, int, int]:
    """Where a query's mask logits ``[h, w]`` are positive: (top, bottom, left, right), exclusive at the end, all zeros
    if nowhere."""
    positive = logits > 0
    rows, columns = np.flatnonzero(positive.any(1)), np.flatnonzero(positive.any(0))
    if not len(rows):
        return 0, 0, 0, 0
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def upsample_region(logits: Tensor, rows: Axis, columns: Axis, extent: tuple[int, int, int, int]) -> Region:
    """Interpolate one query's mask logits to the original size and threshold them at 0 (probability 0.5).

    Args:
        logits: float32 ``[h, w]``.
        rows: the axis of the first dimension.
        columns: the axis of the second dimension.
        extent: where ``logits`` is positive, from `positive_extent`.

    Returns:
        The mask on a rectangle that holds all its positive pixels (and possibly a margin).
    """
    top, bottom = rows.reach(*extent[:2])
    left, right = columns.reach(*extent[2:])
    if extent[1] == extent[0] or top >= bottom or left >= right:
        return Region(torch.zeros((0, 0), dtype=torch.bool, device=logits.device), 0, 0, 0, 0.0)
    row_start, row_stop = rows.support(top, bottom)
    column_start, column_stop = columns.support(left, right)
    logits = logits[row_start:row_stop, column_start:column_stop]
    if logits.device.type == 'cpu':
        return _upsample_in_tiles(logits.numpy(), rows, columns, (top, bottom, left, right), (row_start, column_start))
    upsampled = (rows.matrix[top:bottom, row_start:row_stop] @ logits
                 @ columns.matrix[left:right, column_start:column_stop].T)
    mask = upsampled > 0
    return Region(mask, top, left, int(torch.count_nonzero(mask)),
                  float(torch.where(mask, upsampled.sigmoid_(), 0).sum(dtype=torch.float64)))


def _upsample_in_tiles(logits: np.ndarray, rows: Axis, columns: Axis, window: tuple[int, int, int, int],
                       origin: tuple[int, int]) -> Region:
    """The pixels ``window`` (top, bottom, left, right) from the logits that they depend on, which start at ``origin``
    (row, column) of the query's."""
    top, bottom, left, right = window
    row_matrix, column_matrix = rows.matrix.numpy(), columns.matrix.numpy()
    mask = np.zeros((bottom - top, right - left), np.bool_)
    area, confidence = 0, 0.0
    for x in range(left, right, _TILE_COLUMNS):
        x_stop = min(x + _TILE_COLUMNS, right)
        start, stop = columns.support(x, x_stop)
        strip = logits[:, start - origin[1]:stop - origin[1]]
        expand = np.ascontiguousarray(column_matrix[x:x_stop, start:stop].T)
        height = max(1, min(_TILE_PIXELS // (x_stop - x), _TILE_PRODUCTS // expand.size))
        for y in range(top, bottom, height):
            y_stop = min(y + height, bottom)
            first, last = rows.support(y, y_stop)
            part = strip[first - origin[0]:last - origin[0]]
            if part.max() <= 0:
                continue
            tile = row_matrix[y:y_stop, first:last] @ part @ expand
            inside = mask[y - top:y_stop - top, x - left:x_stop - left]
            # numpy compares and counts several times as fast as torch, which in turn has the faster sigmoid.
            np.greater(tile, 0, out=inside)
            count = int(np.count_nonzero(inside))
            # sigmoid(max(x, 0)) is 0.5 outside the mask: cheaper to subtract than to select.
            total = torch.from_numpy(tile).clamp_(min=0).sigmoid_().sum().item()
            confidence += total - 0.5 * (tile.size - count)
            area += count
    return Region(torch.from_numpy(mask), top, left, area, confidence)
