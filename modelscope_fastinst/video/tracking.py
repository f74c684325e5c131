"""Which object is which, from frame to frame: tracking by the overlap of masks.

Tracking by detection as in SORT (Bewley et al. 2016, https://arxiv.org/abs/1602.00763), with masks in the place of
boxes: each track expects its mask where it last was, moved on at its speed; tracks and masks are paired so that the
squares of their overlaps (intersection over union) add up to the most, and a track that finds no mask waits a while
before it ends.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Region:
    """A mask within its bounds; positions in pixels of the frame."""
    crop: np.ndarray   # bool [h, w]
    top: int
    left: int
    area: int

    @classmethod
    def of(cls, mask: Any) -> Region:
        """The region of a mask ``[H, W]`` or of COCO RLE."""
        if isinstance(mask, Mapping):
            from modelscope_fastinst.visualize.runs import decode_within
            crop, top, left = decode_within(mask)
            return cls(crop, top, left, int(np.count_nonzero(crop)))
        mask = np.asarray(mask) != 0
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            return cls(mask[:0, :0], 0, 0, 0)
        crop = mask[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1].copy()
        return cls(crop, int(rows[0]), int(columns[0]), int(np.count_nonzero(crop)))

    @property
    def center(self) -> np.ndarray:
        """(y, x), of its bounds."""
        return np.array([self.top + self.crop.shape[0] / 2, self.left + self.crop.shape[1] / 2])

    def overlap(self, other: Region, shift: np.ndarray) -> float:
        """Intersection over union with another region, this one moved by ``shift`` (y, x)."""
        top, left = round(self.top + shift[0]), round(self.left + shift[1])
        above, before = max(top, other.top), max(left, other.left)
        below = min(top + self.crop.shape[0], other.top + other.crop.shape[0])
        behind = min(left + self.crop.shape[1], other.left + other.crop.shape[1])
        if above >= below or before >= behind:
            return 0.0
        mine = self.crop[above - top:below - top, before - left:behind - left]
        its = other.crop[above - other.top:below - other.top, before - other.left:behind - other.left]
        both = int(np.count_nonzero(mine & its))
        return both / (self.area + other.area - both)


@dataclass
class _Track:
    id: int
    label: str
    region: Region
    speed: np.ndarray      # (y, x) in pixels a frame
    seen: int              # the frame of its last mask
    times: int = 1         # in how many frames it was seen


class Tracker:
    """Gives each instance an id that stays with its object.

    Args:
        overlap: intersection over union from which a mask may be a track's, 0..1.
        other_class: the same for a mask of another class; higher, for one object that is taken for two things in turn
            nearly covers itself.
        patience: how many frames a track waits for its object to be found again.

    Raises:
        ValueError: an overlap that is not above 0 and at most 1, or a negative patience.
    """

    def __init__(self, overlap: float = 0.3, other_class: float = 0.7, patience: int = 10) -> None:
        for name, value in (('overlap', overlap), ('other_class', other_class)):
            if not 0 < value <= 1:
                raise ValueError(f'{name} is {value}; it must be above 0 and at most 1')
        if patience < 0:
            raise ValueError(f'patience is {patience}; it must be at least 0')
        self.overlap, self.other_class, self.patience = overlap, other_class, patience
        self._tracks: list[_Track] = []
        self._next = 1
        self._now: int | None = None

    def update(self, masks: Sequence[Any], labels: Sequence[str], frame: int | None = None) -> list[int]:
        """The ids of a frame's instances, in their order.

        Args:
            masks: one an instance: arrays ``[H, W]`` (anything but 0 is inside) or COCO RLE.
            labels: their class names.
            frame: the number of the frame, higher each time; default the one after the last. Where some are left out,
                objects are expected to have moved on.

        Returns:
            Whole numbers from 1, each once in a frame; new objects get numbers that no other had before.

        Raises:
            ValueError: numbers of masks and labels that differ, or a frame that is not after the last.
        """
        if len(masks) != len(labels):
            raise ValueError(f'{len(masks)} masks for {len(labels)} labels')
        last = -1 if self._now is None else self._now
        now = last + 1 if frame is None else frame
        if now <= last:
            raise ValueError(f'frame {now} comes after frame {last}; frames are given in their order')
        # What counts as a frame is what is looked at: of every tenth, the patience is for ten times the time.
        step = now - last if self._now is not None else 1
        self._now = now
        regions = [Region.of(mask) for mask in masks]
        ids: list[int] = [0] * len(regions)
        for track, place in self._pairs(regions, labels, now):
            self._go_on(track, regions[place], labels[place], now)
            ids[place] = track.id
        for place, region in enumerate(regions):
            if not ids[place]:
                ids[place] = self._next
                self._next += 1
                if region.area:   # an empty mask cannot be found again
                    self._tracks.append(_Track(ids[place], labels[place], region, np.zeros(2), now))
        self._tracks = [track for track in self._tracks if now - track.seen <= self.patience * step]
        return ids

    def _pairs(self, regions: list[Region], labels: Sequence[str], now: int) -> list[tuple[_Track, int]]:
        from scipy.optimize import linear_sum_assignment
        gains = np.zeros((len(self._tracks), len(regions)))
        shifts = [track.speed * (now - track.seen) for track in self._tracks]
        for row, column in self._neighbors(regions, shifts):
            track = self._tracks[row]
            # Of two tracks that would do, the one that was seen last.
            faded = 0.97 ** (now - track.seen - 1)
            gains[row, column] = faded * self._gain(track, regions[column], labels[column], shifts[row])
        # Squared, so that one good pair is worth more than two poor ones that would take it apart.
        rows, columns = linear_sum_assignment(gains ** 2, maximize=True)
        return [(self._tracks[row], int(column)) for row, column in zip(rows, columns, strict=True)
                if gains[row, column] > 0]

    def _neighbors(self, regions: list[Region], shifts: list[np.ndarray]) -> np.ndarray:
        """Pairs (track, region) that are near enough to look at; int ``[N, 2]``."""
        if not self._tracks or not regions:
            return np.zeros((0, 2), int)
        moved = np.stack([np.abs(shift) for shift in shifts])[:, None]
        mine = np.stack([[track.region.center, track.region.crop.shape] for track in self._tracks])[:, None]
        its = np.stack([[region.center, region.crop.shape] for region in regions])[None]
        reach = 0.8 * (mine[:, :, 1] + its[:, :, 1]) + moved
        return np.argwhere((np.abs(mine[:, :, 0] - its[:, :, 0]) <= reach).all(-1))

    def _gain(self, track: _Track, region: Region, label: str, shift: np.ndarray) -> float:
        """How well a mask goes with a track, 0 for not at all."""
        same = label == track.label
        # Where it is expected, or where it was: what has stopped must not be lost.
        overlap = track.region.overlap(region, shift)
        if shift.any():
            overlap = max(overlap, 0.9 * track.region.overlap(region, np.zeros(2)))
        if overlap >= (self.overlap if same else self.other_class):
            return overlap if same else 0.8 * overlap
        return 0.1 * self.overlap * self._nearness(track, region, shift) if same else 0.0

    def _nearness(self, track: _Track, region: Region, shift: np.ndarray) -> float:
        """Above 0 for a region of like size less than its own length away: small things that jump out of their mask."""
        sizes = sorted((track.region.area, region.area))
        if sizes[0] < 0.5 * sizes[1]:
            return 0.0
        away = np.linalg.norm(track.region.center + shift - region.center)
        return max(0.0, 1 - away / (0.8 * np.sqrt(sizes[1])))

    @staticmethod
    def _go_on(track: _Track, region: Region, label: str, now: int) -> None:
        moved = (region.center - track.region.center) / (now - track.seen)
        # Borders of masks tremble: an average is steadier than the last step. The first step is all there is.
        track.speed = moved if track.times == 1 else 0.6 * track.speed + 0.4 * moved
        track.region, track.label, track.seen = region, label, now
        track.times += 1


class ColorBook:
    """A colour's number for each id, the lowest that no other object in sight has; it stays with the id.

    Args:
        patience: for how many frames a number is kept for an object that is not in sight.
    """

    def __init__(self, patience: int = 30) -> None:
        self.patience = patience
        self._numbers: dict[int, int] = {}
        self._seen: dict[int, int] = {}
        self._now = 0

    def numbers(self, ids: Sequence[int]) -> list[int]:
        """One a given id."""
        self._now += 1
        for known in [known for known, seen in self._seen.items() if self._now - seen > self.patience]:
            del self._seen[known], self._numbers[known]
        for id in ids:
            if id not in self._numbers:
                taken = set(self._numbers.values())
                self._numbers[id] = next(number for number in range(len(taken) + 1) if number not in taken)
            self._seen[id] = self._now
        return [self._numbers[id] for id in ids]
