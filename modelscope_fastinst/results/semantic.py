"""A semantic map from class and mask logits, as the authors make it.

Follows FastInst's and Mask2Former's semantic inference (https://github.com/facebookresearch/Mask2Former): a class's
score at a pixel is the sum over the queries of class probability times mask probability; the highest score is the
pixel's class. A model that was trained for semantics alone sums on the padded canvas and resizes the scores; a panoptic
one resizes the masks and sums then.

The authors keep the scores of all classes for the whole image; here it is done in tiles (see `results.tiles`), in each
of which only the classes that can be the highest there are computed. The map is the same.
"""
from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from modelscope_fastinst.results.dense import checked_images, logits_of, probabilities_of
from modelscope_fastinst.results.tiles import Tile, in_order, in_stripes, logit_ranges, tiles, upsample
from modelscope_fastinst.results.upsample import Axis
from modelscope_fastinst.structures import VOID, NetworkOutput, SemanticMap

if TYPE_CHECKING:
    from torch import Tensor

# Scores nearer than this may be in another order after rounding.
_ROUNDING = 1e-5
# What may be missing from a score because queries that vary too little within a tile to matter are taken as constant.
_NEGLECTED = 1e-6
# How many classes, the likeliest of a tile, are computed before it is asked what the others could still reach.
_FEW = 8


@dataclass(frozen=True)
class SemanticPostprocessor:
    """Turns a network's output into the semantic map of each image.

    Attributes:
        before_resize: True: sum up class scores on the canvas, then crop and resize them (a semantic model); False:
            resize the masks first (a panoptic model).
    """
    before_resize: bool

    def __call__(self, output: NetworkOutput, original_sizes: Sequence[tuple[int, int]]) -> list[SemanticMap]:
        """The semantic map of every image of a batch.

        Args:
            output: of the network; ``final`` holds class logits ``[B, Q, K + 1]`` and mask logits ``[B, Q, h, w]`` in
                any floating-point type, on any device.
            original_sizes: (height, width) in pixels of each of the B images, at which the maps are given.

        Returns:
            One `SemanticMap` an image; of equal scores the first class has the pixel.

        Raises:
            ValueError: sizes that do not fit the batch, or logits that are not finite.
        """
        with torch.no_grad(), torch.autocast(output.final.masks.device.type, enabled=False):
            return [self._scores(*image).map() for image in checked_images(output, original_sizes)]

    def class_scores(self, output: NetworkOutput, original_sizes: Sequence[tuple[int, int]], index: int,
                     window: tuple[int, int, int, int] | None = None) -> Tensor:
        """Scores of all classes, in full.

        Args:
            output, original_sizes: as of a call.
            index: which image of the batch.
            window: (top, bottom, left, right) in pixels; None for the whole image, which takes ``4 K H W`` bytes and
                more.

        Returns:
            float32 ``[K, bottom - top, right - left]``.
        """
        with torch.no_grad(), torch.autocast(output.final.masks.device.type, enabled=False):
            image = list(checked_images(output, original_sizes))[index]
            height, width = image[-1]
            return self._scores(*image).of(Tile(*(window or (0, height, 0, width))))

    def _scores(self, index: int, logits: Tensor, masks: Tensor, canvas: tuple[int, int], size: tuple[int, int],
                original: tuple[int, int]) -> _Scores:
        masks = logits_of(masks, index)
        classes = torch.from_numpy(probabilities_of(logits, index)[:, :-1]).to(masks.device)
        lengths = list(zip(masks.shape[1:], canvas, size, original, strict=True))
        if not self.before_resize:
            return _Scores(classes, masks, original,
                           [Axis.build(*length, masks.device) for length in lengths], None)
        return _Scores(classes, masks, original,
                       [Axis.build(logit, whole, part, part, masks.device) for logit, whole, part, _ in lengths],
                       [Axis.build(part, part, part, wanted, masks.device) for _, _, part, wanted in lengths])


def keep_classes(semantic: SemanticMap, classes: Collection[int] | None) -> SemanticMap:
    """The map without the pixels of other classes than these (indices; None for all), which become ``VOID``."""
    if classes is None:
        return semantic
    known = np.zeros(len(semantic.scores), bool)
    known[list(classes)] = True
    # Results have no void yet, so that every label is an index.
    return SemanticMap(np.where(known[semantic.labels], semantic.labels, np.int16(VOID)),
                       np.where(known, semantic.scores, np.float32(0)))


class _Scores:
    """The scores of one image's classes.

    Args:
        classes: float32 ``[Q, K]``, class probabilities.
        masks: float32 ``[Q, h, w]``, mask logits.
        size: (height, width) in pixels of the original.
        axes: of rows and columns, for mask logits.
        resize: the same for class scores, where those are resized after they were summed.
    """

    def __init__(self, classes: Tensor, masks: Tensor, size: tuple[int, int], axes: list[Axis],
                 resize: list[Axis] | None) -> None:
        self.classes, self.masks, self.size, self.axes, self.resize = classes, masks, size, axes, resize

    def of(self, tile: Tile, queries: np.ndarray | None = None, classes: Tensor | None = None) -> Tensor:
        """float32 ``[K, height, width]`` within a tile: sums over these queries, with ``classes`` for their rows."""
        classes = self.classes if classes is None else classes
        source = self._source(tile)
        masks = upsample(self.masks, *self.axes, source, queries).sigmoid_()
        scores = (classes.T @ masks.flatten(1)).unflatten(1, masks.shape[1:])
        if self.resize is None:
            return scores
        rows = self.resize[0].matrix[tile.top:tile.bottom, source.top:source.bottom]
        columns = self.resize[1].matrix[tile.left:tile.right, source.left:source.right]
        return rows @ (scores @ columns.T)

    def map(self) -> SemanticMap:
        """Every pixel's class, and the mean scores of the classes."""
        labels = np.zeros(self.size, np.int16)
        number = self.classes.shape[1]
        sums = torch.zeros(number, dtype=torch.float64, device=self.classes.device)
        if number and len(self.masks):
            self._fill(labels, sums)
        areas = np.bincount(labels.ravel(), minlength=number)
        return SemanticMap(labels, (sums.cpu().numpy() / np.maximum(areas, 1)).astype(np.float32))

    def _fill(self, labels: np.ndarray, sums: Tensor) -> None:
        top, left = tiles(self.size, self.masks.device, sum(self.classes.shape))
        if in_stripes(self.masks.device):
            for tile in in_order(top, left):
                best, label = self.of(tile).max(0)
                sums.index_add_(0, label.flatten(), best.flatten().double())
                labels[tile.window] = label.to(torch.int16).cpu().numpy()
            return
        least, most = self._ranges(top, left)
        probabilities = self.classes.numpy()
        upper = probabilities.T @ most
        possible = upper >= (probabilities.T @ least).max(0) - _ROUNDING
        for number, tile in enumerate(in_order(top, left)):
            classes = np.flatnonzero(possible[:, number])
            classes = classes[np.argsort(-upper[classes, number], kind='stable')]
            low, high = least[:, number], most[:, number]
            best, label = self._highest(tile, np.sort(classes[:_FEW]), low, high)
            # Where classes meet, no bound says much; what the likely ones reach together does.
            others = np.sort([one for one in classes[_FEW:] if upper[one, number] >= float(best.min()) - _ROUNDING])
            if len(others):
                score, other = self._highest(tile, others, low, high)
                label = torch.where((score > best) | (score == best) & (other < label), other, label)
                best = torch.maximum(best, score)
            sums.index_add_(0, label.flatten(), best.flatten().double() * (tile.area / label.numel()))
            labels[tile.window] = label.numpy()

    def _highest(self, tile: Tile, classes: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[Tensor, Tensor]:
        """The highest score of these classes and whose it is, at every pixel of a tile or, where they are the same
        everywhere, once.

        Args:
            low, high: the smallest and the largest mask probability of each query in the tile.
        """
        chosen = self.classes.numpy()[:, classes]
        # Queries that hardly vary within the tile add what they add in its middle.
        varies = chosen.max(1) * (high - low)
        order = np.argsort(varies)
        steady = order[:np.searchsorted(np.cumsum(varies[order]), _NEGLECTED, side='right')]
        queries = np.sort(order[len(steady):])
        scores = torch.from_numpy((low[steady] + high[steady]) / 2 @ chosen[steady])[:, None, None]
        if len(queries):
            scores = scores + self.of(tile, queries, torch.from_numpy(chosen[queries]))
        best, label = scores.max(0)
        return best, torch.from_numpy(classes)[label]

    def _ranges(self, top: list[int], left: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """The smallest and the largest mask probabilities of the queries in each tile, float32 ``[Q, T]``."""
        cuts = []
        for number, starts in enumerate((top, left)):
            spans = list(zip(starts[:-1], starts[1:], strict=True))
            for axis in (*(() if self.resize is None else (self.resize[number],)), self.axes[number]):
                spans = [axis.support(*span) for span in spans]
            cuts.append(spans)
        return tuple(torch.from_numpy(bound).sigmoid().numpy() for bound in logit_ranges(self.masks.numpy(), *cuts))

    def _source(self, tile: Tile) -> Tile:
        """The pixels whose masks are summed up for a tile."""
        if self.resize is None:
            return tile
        return Tile(*self.resize[0].support(tile.top, tile.bottom), *self.resize[1].support(tile.left, tile.right))
