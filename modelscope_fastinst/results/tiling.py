"""Where to cut a picture that is far larger than the network's input.

Tiles of one picture have one size, so that they can go through the network together, and are spread evenly, so that
neighbours share at least what was asked for. What two tiles both see is what `seams.py` joins objects by. (The tiles
of ``tiles.py`` are others: pieces in which the results of one pass are computed.)
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from numbers import Integral, Real
from typing import Any

import numpy as np

from modelscope_fastinst.results.tiles import Tile
from modelscope_fastinst.structures import VOID, SemanticMap

OVERLAP = 0.25
SMALLEST = 32   # pixels: below it, a tile shows a network nothing


def checked_tile(tile: Any) -> tuple[int, int] | str | None:
    """(height, width) of a tile for what a user gave: a side in pixels, both sides, 'auto' or None.

    Raises:
        ValueError: something else, or sides of less than 32 pixels.
    """
    if tile is None or isinstance(tile, str) and tile == 'auto':
        return tile
    sides = (tile, tile) if isinstance(tile, Integral) else tile
    if (isinstance(sides, str) or not isinstance(sides, Sequence) or len(sides) != 2
            or not all(isinstance(side, Integral) and not isinstance(side, bool) and side >= SMALLEST
                       for side in sides)):
        raise ValueError(f'tile is {tile!r}; it must be a side in pixels, at least {SMALLEST}, or (height, width), '
                         "or 'auto', or None for no tiles")
    return int(sides[0]), int(sides[1])


def checked_overlap(overlap: Any) -> float:
    """The share of a tile's side that neighbours have in common; None for the default.

    Raises:
        ValueError: not above 0 and at most 0.5.
    """
    if overlap is None:
        return OVERLAP
    if isinstance(overlap, bool) or not isinstance(overlap, Real) or not 0 < overlap <= 0.5:
        raise ValueError(f'tile_overlap is {overlap!r}; it must be a number above 0 and at most 0.5: objects on a seam '
                         'are joined by what two tiles both see')
    return float(overlap)


@dataclass(frozen=True)
class Grid:
    """The tiles of a picture.

    Attributes:
        rows, columns: first and last (exclusive) pixel of each row and each column of tiles.
    """
    rows: tuple[tuple[int, int], ...]
    columns: tuple[tuple[int, int], ...]

    @classmethod
    def build(cls, size: tuple[int, int], tile: tuple[int, int], overlap: float = OVERLAP) -> Grid:
        """Tiles for a picture.

        Args:
            size: (height, width) of the picture in pixels.
            tile: (height, width) of a tile; where the picture is smaller, tiles are as small.
            overlap: the least share of a tile's side that it has in common with the next, in (0, 0.5].
        """
        return cls(*(_spread(length, side, overlap) for length, side in zip(size, tile, strict=True)))

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the picture in pixels."""
        return self.rows[-1][1], self.columns[-1][1]

    @property
    def tiles(self) -> list[Tile]:
        """All tiles, row by row."""
        return [Tile(*row, *column) for row in self.rows for column in self.columns]

    @property
    def cores(self) -> list[Tile]:
        """For each tile the part that it answers for alone, up to the middle of what it shares; they fill the
        picture."""
        return [Tile(*row, *column) for row in _middles(self.rows) for column in _middles(self.columns)]


def _spread(length: int, side: int, overlap: float) -> tuple[tuple[int, int], ...]:
    if length <= side:
        return ((0, length),)
    shared = max(2, round(side * overlap))
    count = -(-(length - shared) // (side - shared))
    starts = [round(Fraction(index * (length - side), count - 1)) for index in range(count)]
    return tuple((start, start + side) for start in starts)


def _middles(spans: tuple[tuple[int, int], ...]) -> list[tuple[int, int]]:
    edges = [spans[0][0], *((one[1] + other[0]) // 2 for one, other in zip(spans, spans[1:])), spans[-1][1]]
    return list(zip(edges, edges[1:]))


class SemanticMosaic:
    """A semantic map put together from those of the tiles: each answers for its core.

    A class's score is the mean over its pixels, as in a map of one piece; within a tile its mean there stands for each
    pixel.
    """

    def __init__(self, grid: Grid, num_classes: int) -> None:
        self._grid = grid
        self._labels = np.full(grid.size, VOID, np.int16)
        self._sums = np.zeros(num_classes)
        self._areas = np.zeros(num_classes, np.int64)

    def add(self, index: int, found: SemanticMap) -> None:
        """Takes over the core of a tile, the ``index``-th of the grid."""
        tile, core = self._grid.tiles[index], self._grid.cores[index]
        labels = found.labels[core.top - tile.top:core.bottom - tile.top, core.left - tile.left:core.right - tile.left]
        self._labels[core.window] = labels
        areas = np.bincount(labels[labels >= 0].ravel(), minlength=len(self._areas))
        self._areas += areas
        self._sums += areas * found.scores

    def finished(self) -> SemanticMap:
        """The map of the picture."""
        return SemanticMap(self._labels, (self._sums / np.maximum(self._areas, 1)).astype(np.float32))
