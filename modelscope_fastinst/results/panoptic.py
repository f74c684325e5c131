"""A panoptic map from class and mask logits, as the authors make it.

Follows FastInst's and Mask2Former's panoptic inference (https://github.com/facebookresearch/Mask2Former): the queries
that are sure of a class compete for every pixel with class probability times mask probability; a winner keeps the
pixels of its own mask, unless it lost most of that mask to others; the segments of one stuff class are one.

The authors upsample the masks of all queries; here queries are selected first, and the image is then done in tiles
(see `results.tiles`), in each of which only the queries that can win there are computed. The map is the same.
"""
from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
import torch

from modelscope_fastinst.results.dense import checked_images, logits_of, probabilities_of
from modelscope_fastinst.results.tiles import Tile, in_order, in_stripes, logit_ranges, tiles, upsample
from modelscope_fastinst.results.upsample import Axis
from modelscope_fastinst.structures import NetworkOutput, PanopticMap, Segment

if TYPE_CHECKING:
    from torch import Tensor

# Values nearer than this may be in another order after rounding.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class PanopticPostprocessor:
    """Turns a network's output into the panoptic map of each image.

    Attributes:
        things: indices of the classes that are things; all others are stuff.
        object_mask_threshold: queries whose class probability is not above this take no part, in [0, 1].
        overlap_threshold: a segment is dropped if it won less than this share of its own mask, in [0, 1].

    Raises:
        ValueError: a threshold that is no number between 0 and 1.
    """
    things: frozenset[int]
    object_mask_threshold: float = 0.8
    overlap_threshold: float = 0.8

    def __post_init__(self) -> None:
        for name in ('object_mask_threshold', 'overlap_threshold'):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value <= 1:
                raise ValueError(f'{name} is {value!r}; it must be a number between 0 and 1')

    def __call__(self, output: NetworkOutput, original_sizes: Sequence[tuple[int, int]]) -> list[PanopticMap]:
        """The panoptic map of every image of a batch.

        Args:
            output: of the network; ``final`` holds class logits ``[B, Q, K + 1]`` and mask logits ``[B, Q, h, w]`` in
                any floating-point type, on any device.
            original_sizes: (height, width) in pixels of each of the B images, at which the maps are given.

        Returns:
            One `PanopticMap` an image: ids 1, 2, ... in the order of the queries; the score of merged stuff is the best
            of its parts'.

        Raises:
            ValueError: sizes that do not fit the batch, or logits that are not finite.
        """
        with torch.no_grad(), torch.autocast(output.final.masks.device.type, enabled=False):
            return [self._one_image(*image) for image in checked_images(output, original_sizes)]

    def _one_image(self, index: int, logits: Tensor, masks: Tensor, canvas: tuple[int, int], size: tuple[int, int],
                   original: tuple[int, int]) -> PanopticMap:
        probabilities = probabilities_of(logits, index)
        labels = probabilities.argmax(1)
        scores = probabilities[np.arange(len(labels)), labels]
        nothing = probabilities.shape[1] - 1
        kept = np.flatnonzero((labels != nothing) & (scores > np.float32(self.object_mask_threshold)))
        labels, scores = labels[kept], scores[kept]
        masks = logits_of(masks[torch.from_numpy(kept).to(masks.device)], index)
        rows, columns = (Axis.build(*lengths, masks.device)
                         for lengths in zip(masks.shape[1:], canvas, size, original, strict=True))
        contest = _Contest(scores, original)
        if len(kept):
            contest.hold(masks, rows, columns)
        return self._segments(contest, labels, scores)

    def _segments(self, contest: _Contest, labels: np.ndarray, scores: np.ndarray) -> PanopticMap:
        """The map of the winners that may keep what they won."""
        kept_area = np.bincount(contest.winners.ravel(), minlength=len(labels) + 1)[1:]
        ids = np.zeros(len(labels) + 1, np.int32)
        found: dict[int, list[int]] = {}   # the queries of every id
        stuff: dict[int, int] = {}         # the id of every stuff class
        for query, label in enumerate(labels.tolist()):
            won, own = int(contest.won[query]), int(contest.own[query])
            if not (won and own and kept_area[query]) or won / own < self.overlap_threshold:
                continue
            number = len(found) + 1
            if label not in self.things:
                number = stuff.setdefault(label, number)
            ids[query + 1] = number
            found.setdefault(number, []).append(query)
        from scipy.ndimage import find_objects
        image = ids[contest.winners]
        segments = []
        for (number, queries), place in zip(found.items(), find_objects(image), strict=True):
            label = int(labels[queries[0]])
            segments.append(Segment(
                id=number, label=label, score=float(scores[queries].max()), isthing=label in self.things,
                area=int(kept_area[queries].sum()),
                bbox=(place[1].start, place[0].start, place[1].stop - place[1].start, place[0].stop - place[0].start)))
        return PanopticMap(image, segments)


def keep_segments(panoptic: PanopticMap, classes: Collection[int] | None, thresholds: Sequence[float]) -> PanopticMap:
    """The map without the segments of other classes and of low scores; their pixels become void.

    Args:
        classes: indices of the classes to keep; None for all.
        thresholds: one for each class, which its segments' scores must reach.

    Returns:
        A map whose ids run from 1 again, or the same one if nothing was dropped.
    """
    kept = [segment for segment in panoptic.segments
            if (classes is None or segment.label in classes)
            and np.float32(segment.score) >= np.float32(thresholds[segment.label])]
    if len(kept) == len(panoptic.segments):
        return panoptic
    ids = np.zeros(max(segment.id for segment in panoptic.segments) + 1, np.int32)
    for number, segment in enumerate(kept, start=1):
        ids[segment.id] = number
    return PanopticMap(ids[panoptic.ids], [replace(segment, id=int(ids[segment.id])) for segment in kept])


class _Contest:
    """Which query wins each pixel.

    Attributes:
        winners: int16 ``[H, W]``: 1 + the query that wins a pixel of its own mask; 0 where the winner's mask is not.
        won: int64 ``[N]``, the pixels that each query wins, inside its mask or not.
        own: int64 ``[N]``, the pixels of each query's mask.
    """

    def __init__(self, scores: np.ndarray, size: tuple[int, int]) -> None:
        self.scores = scores
        self.winners = np.zeros(size, np.int16)
        self.won = np.zeros(len(scores), np.int64)
        self.own = np.zeros(len(scores), np.int64)

    def hold(self, masks: Tensor, rows: Axis, columns: Axis) -> None:
        """Fill in everything from mask logits ``[N, h, w]``."""
        top, left = tiles(self.winners.shape, masks.device, len(masks))
        scores = torch.from_numpy(self.scores).to(masks.device)[:, None, None]
        if in_stripes(masks.device):
            everybody = np.arange(len(masks))
            for tile in in_order(top, left):
                self._fight(tile, upsample(masks, rows, columns, tile), scores, everybody)
            return
        low, high = logit_ranges(masks.numpy(), [rows.support(*cut) for cut in zip(top, top[1:])],
                                 [columns.support(*cut) for cut in zip(left, left[1:])])
        least, most = (self.scores[:, None] * torch.from_numpy(bound).sigmoid().numpy() for bound in (low, high))
        contends = most >= least.max(0) - _ROUNDING
        undecided = (low < _ROUNDING) & (high > -_ROUNDING)
        for number, tile in enumerate(in_order(top, left)):
            contenders, unsure = np.flatnonzero(contends[:, number]), np.flatnonzero(undecided[:, number])
            surely_inside = (low[:, number] > 0) & ~undecided[:, number]
            self.own[surely_inside] += tile.area
            if len(contenders) > 1:
                # What cannot win is looked at only for its own area, and needs no probabilities.
                self._fight(tile, upsample(masks, rows, columns, tile, contenders), scores[contenders], contenders,
                            undecided[contenders, number])
                unsure = unsure[~contends[unsure, number]]
            else:
                winner = int(contenders[0])
                self.won[winner] += tile.area
                if surely_inside[winner]:
                    self.winners[tile.window] = winner + 1
            if len(unsure):
                inside = (upsample(masks, rows, columns, tile, unsure) >= 0).numpy()
                self.own[unsure] += inside.sum((1, 2))
                if len(contenders) == 1 and undecided[contenders[0], number]:
                    self.winners[tile.window][inside[np.searchsorted(unsure, contenders[0])]] = contenders[0] + 1

    def _fight(self, tile: Tile, logits: Tensor, scores: Tensor, contenders: np.ndarray,
               count: np.ndarray | None = None) -> None:
        """Let these queries fight for a tile, where their upsampled logits are ``[n, height, width]``."""
        inside = logits >= 0
        owns = inside.sum((1, 2)).cpu().numpy()
        self.own[contenders] += owns if count is None else np.where(count, owns, 0)
        best = (logits.sigmoid_() * scores).argmax(0)
        self.won[contenders] += torch.bincount(best.flatten(), minlength=len(contenders)).cpu().numpy()
        best = torch.where(inside.gather(0, best[None])[0], best, -1).cpu().numpy()
        self.winners[tile.window] = np.concatenate((contenders + 1, [0]))[best]
