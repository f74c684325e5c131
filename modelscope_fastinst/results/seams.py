"""Instances of overlapping tiles -> instances of the whole picture.

Where two tiles overlap, both have seen the same pixels, so an object that a seam cuts shows there twice. Three rules
make one of it:

1. *Who sees more decides.* A piece that its tile's border cuts, in a place that another tile sees with its
   surroundings, is dropped: the other tile has the object there as it is, or has good reason to have none.
2. *Pieces that agree are one object.* Pieces of one class in two tiles are joined if, in the pixels that both tiles
   see, they are the same (IoU at least 0.5). This carries on from tile to tile, so an object may be larger than a tile.
   Objects that touch lie side by side there, and are not joined. Where an object leaves both tiles, its parts may be
   compared one by one: of a horseshoe, one tile sees two ends and no more, the other that they are one.
3. *Nothing is told twice.* An instance that mostly lies in a better one of its class is dropped. Where one tile has
   seen both, it is the network that calls them two; then only what is nearly the same (IoU at least 0.7) is dropped:
   networks without suppression of duplicates give some, and whoever cuts a slide into tiles counts.

The mask of an object is the union of its pieces, or what the most certain of the tiles that saw it whole says. Its
score is that tile's; if no tile saw it whole, the mean of its pieces' scores, weighted by their areas.

Masks are kept as bits of their rectangles, and become RLE one by one: memory follows the area of the objects, not
their number times the picture.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelscope_fastinst.results.rle import decode, encode_region
from modelscope_fastinst.results.tiling import Grid
from modelscope_fastinst.structures import Instances

AGREEMENT = 0.5   # the least IoU, in the pixels that two tiles both see, of pieces of one object
# The same where neither how the pieces lie to the borders nor the share of them that is compared speaks for it.
STRONG_AGREEMENT = 0.75
COVERED = 0.5   # an instance of which more than this lies in a better one is not told again
SAME = 0.7   # the least IoU of masks that are one object, whoever says what
# Share of a tile's side within which a mask counts as cut by the border: the network's masks are coarse.
MARGIN = 0.01


@dataclass(frozen=True)
class Region:
    """A mask as 8 pixels a byte of its tight rectangle.

    Attributes:
        box: (left, top, right, bottom) in pixels of the picture, right and bottom exclusive.
        bits: uint8, rows packed one by one.
        area: in pixels.
    """
    box: tuple[int, int, int, int]
    bits: np.ndarray
    area: int

    @classmethod
    def build(cls, mask: np.ndarray, top: int = 0, left: int = 0) -> Region | None:
        """Of a mask ``[h, w]`` whose first pixel lies there in the picture; None if it is empty."""
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            return None
        tight = mask[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1] != 0
        box = (left + int(columns[0]), top + int(rows[0]), left + int(columns[-1]) + 1, top + int(rows[-1]) + 1)
        return cls(box, np.packbits(tight, axis=1), int(np.count_nonzero(tight)))

    def window(self, box: tuple[int, int, int, int]) -> np.ndarray:
        """Bool, the mask in a rectangle that lies within its own."""
        left, top, right, bottom = self.box
        first = (box[0] - left) // 8
        rows = self.bits[box[1] - top:box[3] - top, first:-(-(box[2] - left) // 8)]
        start = box[0] - left - 8 * first
        return np.unpackbits(rows, axis=1, count=start + box[2] - box[0])[:, start:].view(np.bool_)

    def within(self, box: tuple[int, int, int, int]) -> np.ndarray:
        """Bool, the mask in any rectangle."""
        mask = np.zeros((box[3] - box[1], box[2] - box[0]), np.bool_)
        common = _common(self.box, box)
        if common:
            mask[common[1] - box[1]:common[3] - box[1], common[0] - box[0]:common[2] - box[0]] = self.window(common)
        return mask

    def area_within(self, box: tuple[int, int, int, int]) -> int:
        """How many of its pixels lie in a rectangle."""
        common = _common(self.box, box)
        return int(np.count_nonzero(self.window(common))) if common else 0

    def shared(self, other: Region) -> int:
        """How many pixels two masks have in common."""
        common = _common(self.box, other.box)
        return int(np.count_nonzero(self.window(common) & other.window(common))) if common else 0


@dataclass(frozen=True)
class _Piece:
    """What one tile saw of an object.

    Attributes:
        tile: number of the tile.
        cut: at which sides (left, top, right, bottom) of the tile, where the picture goes on, the mask ends.
    """
    tile: int
    score: float
    label: int
    region: Region
    cut: tuple[bool, bool, bool, bool]


@dataclass(frozen=True)
class _Object:
    score: float
    label: int
    region: Region
    whole: bool
    tiles: frozenset[int]


class SeamJoiner:
    """Takes the instances of the tiles of a grid, one tile after the other, and gives those of the picture."""

    def __init__(self, grid: Grid) -> None:
        self._size = grid.size
        self._rows, self._columns = grid.rows, grid.columns
        self._tiles = [(tile.left, tile.top, tile.right, tile.bottom) for tile in grid.tiles]
        self._margin = [max(1, round(MARGIN * side)) for side in
                        (grid.columns[0][1], grid.rows[0][1])]   # along x, along y
        self._pieces: list[list[_Piece]] = [[] for _ in self._tiles]

    def add(self, index: int, found: Instances) -> None:
        """Takes the instances of a tile.

        Args:
            index: number of the tile in the grid.
            found: at the tile's size; masks as arrays or RLE. Empty ones are left out.
        """
        left, top, _, _ = self._tiles[index]
        for score, label, mask in zip(found.scores, found.labels, found.masks, strict=True):
            region = Region.build(decode([mask])[0] if isinstance(mask, dict) else np.asarray(mask), top, left)
            if region is not None:
                self._pieces[index].append(_Piece(index, float(score), int(label), region,
                                                  self._cuts(region.box, self._tiles[index])))

    def joined(self, max_instances: int | None = None, mask_format: str = 'rle') -> Instances:
        """The instances of the picture, best first.

        Args:
            max_instances: at most so many, the best; None for all.
            mask_format: 'rle', or 'array' for a list of uint8 ``[H, W]``.
        """
        pieces = [piece for found in self._pieces for piece in found if not self._seen_better(piece)]
        objects = [self._object([pieces[row] for row in group]) for group in self._groups(pieces)]
        # Python's sort keeps the order of equals: tile by tile.
        found = sorted(_told_once(objects), key=lambda item: -item.score)[:max_instances]
        return Instances(scores=np.array([item.score for item in found], np.float32),
                         labels=np.array([item.label for item in found], np.int64),
                         masks=[self._mask(item.region, mask_format) for item in found],
                         boxes=np.array([item.region.box for item in found], np.float32).reshape(-1, 4))

    def _cuts(self, box: Sequence[int], tile: Sequence[int]) -> tuple[bool, bool, bool, bool]:
        """At which sides of a tile a box ends, or goes on beyond; the picture's own border cuts nothing."""
        height, width = self._size
        across, along = self._margin
        return (tile[0] > 0 and box[0] < tile[0] + across, tile[1] > 0 and box[1] < tile[1] + along,
                tile[2] < width and box[2] > tile[2] - across, tile[3] < height and box[3] > tile[3] - along)

    def _seen_better(self, piece: _Piece) -> bool:
        """Whether another tile sees the place of a piece that was cut, with its surroundings."""
        if not any(piece.cut):
            return False
        # Tiles are rows times columns: one row and one column that do not cut it are enough, and far fewer to look at.
        box, (height, width) = piece.region.box, self._size
        return (any(not any(self._cuts(box, (0, top, width, bottom))) for top, bottom in self._rows)
                and any(not any(self._cuts(box, (left, 0, right, height))) for left, right in self._columns))

    def _groups(self, pieces: Sequence[_Piece]) -> list[list[int]]:
        """Numbers of the pieces of each object, in the order of their first."""
        parent = list(range(len(pieces)))

        def root(row: int) -> int:
            while parent[row] != row:
                parent[row] = row = parent[parent[row]]
            return row

        for one, other in _neighbours(pieces, [piece.region.box for piece in pieces]):
            if root(one) != root(other) and self._agree(pieces[one], pieces[other]):
                first, second = sorted((root(one), root(other)))
                parent[second] = first
        groups: dict[int, list[int]] = {}
        for row in range(len(pieces)):
            groups.setdefault(root(row), []).append(row)
        return list(groups.values())

    def _agree(self, one: _Piece, other: _Piece) -> bool:
        """Whether two pieces, seen by two tiles, are of one object."""
        if one.label != other.label or one.tile == other.tile:
            return False
        shared = one.region.shared(other.region)
        if not shared:
            return False
        both = _common(self._tiles[one.tile], self._tiles[other.tile])
        either = one.region.area_within(both) + other.region.area_within(both) - shared
        crosses = self._goes_on(one, other) and self._goes_on(other, one)
        sure = crosses or shared >= COVERED * min(one.region.area, other.region.area)
        return (shared >= (AGREEMENT if sure else STRONG_AGREEMENT) * either
                or crosses and _parts_agree(one.region.within(both), other.region.within(both)))

    def _goes_on(self, piece: _Piece, other: _Piece) -> bool:
        """Whether a piece is cut where the tile of the other one shows more."""
        tile, beyond = self._tiles[piece.tile], self._tiles[other.tile]
        further = (beyond[0] < tile[0], beyond[1] < tile[1], beyond[2] > tile[2], beyond[3] > tile[3])
        return any(cut and more for cut, more in zip(piece.cut, further, strict=True))

    def _object(self, members: Sequence[_Piece]) -> _Object:
        whole = [piece for piece in members if not any(piece.cut)]
        if whole:
            best = max(whole, key=lambda piece: piece.score)
            rest = [piece for piece in members if not _within(piece.region.box, self._tiles[best.tile])]
            members, score = [best, *rest], best.score
        else:
            score = float(np.average([piece.score for piece in members],
                                     weights=[piece.region.area for piece in members]))
        return _Object(score, members[0].label, _union([piece.region for piece in members]), bool(whole),
                       frozenset(piece.tile for piece in members))

    def _mask(self, region: Region, mask_format: str) -> dict | np.ndarray:
        left, top, right, bottom = region.box
        if mask_format == 'rle':
            return encode_region(region.window(region.box).T, self._size, top, left)
        mask = np.zeros(self._size, np.uint8)   # pages that nobody writes to take no memory
        mask[top:bottom, left:right] = region.window(region.box)
        return mask


def _parts_agree(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether those connected parts of two masks that meet are the same."""
    from scipy.ndimage import label
    meeting = []
    for mask, against in ((one, other), (other, one)):
        parts, _ = label(mask, np.ones((3, 3), int))
        meeting.append(mask & np.isin(parts, np.unique(parts[mask & against])))
    first, second = meeting
    return np.count_nonzero(first & second) >= AGREEMENT * np.count_nonzero(first | second)


def _told_once(objects: Sequence[_Object]) -> list[_Object]:
    """Without those that say again what a better one of their class says."""
    # What a tile saw whole is better than what was put together.
    order = sorted(range(len(objects)), key=lambda row: (not objects[row].whole, -objects[row].score))
    near: dict[int, list[int]] = {}
    for one, other in _neighbours(objects, [item.region.box for item in objects]):
        near.setdefault(one, []).append(other)
        near.setdefault(other, []).append(one)
    kept: set[int] = set()
    for row in order:
        item = objects[row]
        if not any(other in kept and _same(item, objects[other]) for other in near.get(row, ())):
            kept.add(row)
    return [objects[row] for row in sorted(kept)]


def _same(one: _Object, other: _Object) -> bool:
    if one.label != other.label:
        return False
    shared = one.region.shared(other.region)
    if shared >= SAME * (one.region.area + other.region.area - shared):
        return True
    return not one.tiles & other.tiles and shared > COVERED * min(one.region.area, other.region.area)


def _neighbours(items: Sequence[Any], boxes: Sequence[tuple[int, int, int, int]]) -> Iterator[tuple[int, int]]:
    """Pairs of numbers of items whose boxes overlap, first number first."""
    if not items:
        return
    corners = np.array(boxes, np.int64)
    # From left to right: who begins after a box ends does not meet it.
    order = np.argsort(corners[:, 0], kind='stable')
    sorted_corners = corners[order]
    ends = np.searchsorted(sorted_corners[:, 0], sorted_corners[:, 2], side='left')
    for place, end in enumerate(ends):
        later = sorted_corners[place + 1:end]
        meets = (later[:, 1] < sorted_corners[place, 3]) & (later[:, 3] > sorted_corners[place, 1])
        for other in place + 1 + np.flatnonzero(meets):
            pair = int(order[place]), int(order[other])
            yield min(pair), max(pair)


def _union(regions: Sequence[Region]) -> Region:
    if len(regions) == 1:
        return regions[0]
    boxes = np.array([region.box for region in regions])
    left, top = boxes[:, :2].min(0).tolist()
    right, bottom = boxes[:, 2:].max(0).tolist()
    mask = np.zeros((bottom - top, right - left), np.bool_)
    for region in regions:
        place = (slice(region.box[1] - top, region.box[3] - top), slice(region.box[0] - left, region.box[2] - left))
        mask[place] |= region.window(region.box)
    return Region((left, top, right, bottom), np.packbits(mask, axis=1), int(np.count_nonzero(mask)))


def _common(one: Sequence[int], other: Sequence[int]) -> tuple[int, int, int, int] | None:
    """What two boxes share; None if nothing."""
    box = (max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3]))
    return box if box[0] < box[2] and box[1] < box[3] else None


def _within(box: Sequence[int], outer: Sequence[int]) -> bool:
    return outer[0] <= box[0] and outer[1] <= box[1] and box[2] <= outer[2] and box[3] <= outer[3]
