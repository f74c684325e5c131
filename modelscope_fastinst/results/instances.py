"""Instances from class and mask logits, with the authors' scores.

Follows FastInst's instance inference (https://github.com/junjiehe96/FastInst): a candidate is a pair of query and
class; its score is the class probability times the mean mask probability inside the mask. The authors upsample all
queries' masks and select then; here queries are selected first, and of those only the rectangle in which a mask can be
positive is upsampled, which gives the same result.
"""
from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from modelscope_fastinst.results.rle import encode_region
from modelscope_fastinst.results.upsample import Axis, Region, positive_extent, upsample_region
from modelscope_fastinst.structures import Instances, NetworkOutput

if TYPE_CHECKING:
    from torch import Tensor

MASK_FORMATS = ('array', 'rle')
CANDIDATES = 100  # the authors' DETECTIONS_PER_IMAGE


@dataclass(frozen=True)
class InstancePostprocessor:
    """Turns a network's output into the instances of each image.

    It keeps no state: one object serves any number of threads, and ``dataclasses.replace`` gives one with other
    settings.

    Attributes:
        score_thr: keep instances whose final score is at least this, in [0, 1]; one number for all classes, or a tuple
            with one for each.
        max_instances: keep at most this many instances, the best; None for all candidates.
        classes: class indices to look for, None for all. Other classes are put aside before candidates are chosen, so
            that they cannot crowd out the ones asked for.
        mask_format: 'array' for uint8 masks ``[N, H, W]``, 'rle' for a list of COCO RLE dicts, which need next to no
            memory however large the image is.
        candidates: how many pairs of query and class, of highest class probability, are considered (the authors'
            ``DETECTIONS_PER_IMAGE``); fewer where there are fewer pairs. None for the authors' 100, or
            ``max_instances`` where that is more.
        things: indices of the classes that are objects, None for all. A panoptic model's candidates of other classes
            are dropped after they were chosen, as the authors do.

    Raises:
        ValueError: a setting of the wrong type or out of range; names it and its value.
    """
    score_thr: float | tuple[float, ...] = 0.5
    max_instances: int | None = 100
    classes: Sequence[int] | None = None
    mask_format: str = 'array'
    candidates: int | None = None
    things: frozenset[int] | None = None

    def __post_init__(self) -> None:
        for score_thr in self.score_thr if isinstance(self.score_thr, tuple) else (self.score_thr,):
            if isinstance(score_thr, bool) or not isinstance(score_thr, Real) or not 0 <= score_thr <= 1:
                raise ValueError(f'score_thr is {score_thr!r}; it must be a number between 0 and 1')
        if self.max_instances is not None and not _whole(self.max_instances, 0):
            raise ValueError(f'max_instances is {self.max_instances!r}; it must be a whole number, at least 0, or None '
                             'for no limit')
        if self.mask_format not in MASK_FORMATS:
            raise ValueError(f'mask_format is {self.mask_format!r}; it must be one of {", ".join(MASK_FORMATS)}')
        if self.candidates is not None and not _whole(self.candidates, 1):
            raise ValueError(f'candidates is {self.candidates!r}; it must be a whole number, at least 1, or None')

    def __call__(self, output: NetworkOutput, original_sizes: Sequence[tuple[int, int]]) -> list[Instances]:
        """The instances of every image of a batch, best first.

        Args:
            output: of the network; ``final`` holds class logits ``[B, Q, K + 1]`` and mask logits ``[B, Q, h, w]`` in
                any floating-point type, on any device.
            original_sizes: (height, width) in pixels of each of the B images, at which masks and boxes are given.

        Returns:
            One `Instances` an image, of numpy arrays; arrays of length 0 where nothing was found.

        Raises:
            ValueError: sizes that do not fit the batch, a class index that the network does not have, or logits that
                are not finite.
        """
        logits, masks = output.final.logits.detach(), output.final.masks.detach()
        if not len(logits) == len(masks) == len(output.sizes) == len(original_sizes):
            raise ValueError(f'{len(original_sizes)} original sizes and {len(output.sizes)} input sizes were given for '
                             f'{len(masks)} images')
        with torch.no_grad(), torch.autocast(masks.device.type, enabled=False):
            return [self._one_image(index, logits[index], masks[index], output.canvas, size, original)
                    for index, (size, original) in enumerate(zip(output.sizes, original_sizes, strict=True))]

    def _one_image(self, index: int, logits: Tensor, masks: Tensor, canvas: tuple[int, int], size: tuple[int, int],
                   original: tuple[int, int]) -> Instances:
        height, width = int(original[0]), int(original[1])
        if height < 1 or width < 1:
            raise ValueError(f'image {index} has the original size {height} x {width}; it needs at least 1 x 1 pixels')
        masks = masks.float()
        axes = [Axis.build(masks.shape[1 + axis], canvas[axis], size[axis], (height, width)[axis], masks.device)
                for axis in (0, 1)]
        if self.mask_format == 'rle':
            # RLE runs down the columns: transposed masks have those in one piece of memory.
            masks, axes = masks.transpose(1, 2), axes[::-1]

        selection = _Selection(self.max_instances)
        thresholds = self._thresholds(logits.shape[-1] - 1)
        on_cpu = masks.cpu().numpy()
        for probability, query, label in self._candidates(index, logits.float().cpu().numpy(), thresholds):
            if not selection.accepts(probability):
                break
            if query not in selection.quality:
                if not np.isfinite(on_cpu[query]).all():
                    raise ValueError(f'mask logits of image {index} are not finite: the network diverged, or '
                                     'overflowed in half precision')
                region = upsample_region(masks[query], *axes, positive_extent(on_cpu[query]))
                selection.quality[query] = np.float32(region.confidence / (region.area + 1e-6))
            score = probability * selection.quality[query]
            if score >= thresholds[label] and selection.accepts(score):
                # A query that was turned away or fell out never comes back, so `region` is this query's here: its
                # later candidates have smaller class probabilities.
                if query not in selection.masks:
                    selection.masks[query] = self._finish(region, (height, width))
                selection.add(score, query, label)
        return self._assemble(selection, (height, width))

    def _thresholds(self, num_classes: int) -> np.ndarray:
        """The score threshold of each class, in the scores' own type."""
        if isinstance(self.score_thr, tuple) and len(self.score_thr) != num_classes:
            raise ValueError(f'score_thr has {len(self.score_thr)} numbers; the network has {num_classes} classes')
        return np.broadcast_to(np.asarray(self.score_thr, np.float32), (num_classes,))

    def _candidates(self, index: int, logits: np.ndarray,
                    thresholds: np.ndarray) -> Iterator[tuple[np.float32, int, int]]:
        """Class probability, query and label of the candidates that can reach the threshold, most probable first."""
        if not np.isfinite(logits).all():
            raise ValueError(f'class logits of image {index} are not finite: the network diverged, or overflowed in '
                             'half precision')
        num_classes = logits.shape[1] - 1
        labels = np.arange(num_classes)
        if self.classes is not None:
            labels = np.unique(np.asarray(list(self.classes), dtype=np.int64))
            unknown = labels[(labels < 0) | (labels >= num_classes)]
            if len(unknown):
                raise ValueError(f'classes holds {unknown.tolist()}; the network knows 0 to {num_classes - 1}')
        exponentials = np.exp(logits - logits.max(1, keepdims=True))
        probabilities = (exponentials / exponentials.sum(1, keepdims=True))[:, labels]
        # A mask's quality is at most 1, so no candidate scores more than its class probability.
        likely = np.flatnonzero(probabilities >= thresholds[labels])
        probabilities = probabilities.ravel()
        limit = max(CANDIDATES, self.max_instances or 0) if self.candidates is None else self.candidates
        likely = likely[np.argsort(-probabilities[likely], kind='stable')[:limit]]
        for pair in likely:
            label = int(labels[pair % len(labels)])
            if self.things is None or label in self.things:
                yield probabilities[pair], int(pair // len(labels)), label

    def _finish(self, region: Region, size: tuple[int, int]) -> _Mask:
        """What is kept of an upsampled mask."""
        crop = region.mask.cpu().numpy()
        rows, columns = np.flatnonzero(crop.any(1)), np.flatnonzero(crop.any(0))
        if not len(rows):
            crop, top, left = crop[:0, :0], 0, 0
        else:
            top, left = region.top + int(rows[0]), region.left + int(columns[0])
            crop = crop[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]
        if self.mask_format == 'rle':
            top, left = left, top
            box = (left, top, left + crop.shape[0], top + crop.shape[1])
            return _Mask(encode_region(crop, size, top, left), box)
        # In bits: until the last candidate is judged, it is open how many masks will be kept.
        return _Mask(np.packbits(crop, axis=1), (left, top, left + crop.shape[1], top + crop.shape[0]))

    def _assemble(self, selection: _Selection, size: tuple[int, int]) -> Instances:
        kept = selection.best_first()
        found = [selection.masks[query] for _, query, _ in kept]
        if self.mask_format == 'rle':
            masks = [dict(mask.content) for mask in found]
        else:
            masks = np.zeros((len(kept), *size), np.uint8)
            for canvas, mask in zip(masks, found, strict=True):
                left, top, right, bottom = mask.box
                canvas[top:bottom, left:right] = np.unpackbits(mask.content, axis=1, count=right - left)
        return Instances(scores=np.array([score for score, _, _ in kept], np.float32),
                         labels=np.array([label for _, _, label in kept], np.int64),
                         masks=masks,
                         boxes=np.array([mask.box for mask in found], np.float32).reshape(-1, 4))


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and value >= least


@dataclass
class _Mask:
    """A kept mask: its tight rectangle, 8 pixels a byte, or its RLE; and its box (xyxy in pixels)."""
    content: np.ndarray | dict
    box: tuple[int, int, int, int]


class _Selection:
    """The best instances so far; holds no more than ``limit`` masks (plus one) at any time.

    Attributes:
        quality: mean mask probability of every query looked at.
        masks: the masks of the queries that are kept.
    """

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.quality: dict[int, np.float32] = {}
        self.masks: dict[int, _Mask] = {}
        self._heap: list[tuple[np.float32, int, int, int]] = []
        self._count = 0

    def accepts(self, score: np.float32) -> bool:
        """Whether an instance of this score would be among the best. Among equals the first to come stays."""
        if self.limit is None or len(self._heap) < self.limit:
            return True
        return bool(self._heap) and bool(self._heap[0][0] < score)

    def add(self, score: np.float32, query: int, label: int) -> None:
        """Keep an instance, in place of the worst if there are too many."""
        self._count -= 1
        heapq.heappush(self._heap, (score, self._count, query, label))
        if self.limit is not None and len(self._heap) > self.limit:
            dropped = heapq.heappop(self._heap)[2]
            if all(entry[2] != dropped for entry in self._heap):
                del self.masks[dropped]

    def best_first(self) -> list[tuple[np.float32, int, int]]:
        """(score, query, label) of what is kept."""
        return [(score, query, label) for score, _, query, label in sorted(self._heap, reverse=True)]
