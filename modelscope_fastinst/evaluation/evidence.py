"""What evaluation keeps of an image: how each result fared, in some 36 bytes a result, whatever the image's size."""
from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

IOU_TYPES = ('segm', 'bbox')
BOUNDARY = 'boundary'   # the third type, where it is asked for; see `boundary`
IOU_THRESHOLDS = 10   # 0.5, 0.55, ... 0.95
AREAS = ('all', 'small', 'medium', 'large')
MAX_DETECTIONS = 100
BACKGROUND, IGNORED = -1, -2

_BITS = len(AREAS) * IOU_THRESHOLDS // 8


def result_type(kinds: Sequence[str] = IOU_TYPES) -> np.dtype:
    """What is kept of a result, for these IoU types.

    Its class; its score; by IoU type, for each object size and IoU threshold, one bit each for "matched" and "counts
    neither as right nor as wrong"; and the class of the object it lies on, whichever that is (see `confusion`).
    """
    return np.dtype([('label', '<i4'), ('score', '<f8'),
                     *((f'{kind}_{part}', 'u1', _BITS) for kind in kinds for part in ('match', 'ignore')),
                     ('lies_on', '<i4')])


RESULT = result_type()
# A class of the image's ground truth: how many objects of each size count, and how many there are at all.
TRUTH = np.dtype([('label', '<i4'), ('counts', '<i4', len(AREAS)), ('objects', '<i4')])


@dataclass
class Evidence:
    """One image.

    Attributes:
        results: of a ``result_type``, by rising class, the best of a class first, at most 100 of a class.
        truth: of type ``TRUTH``, one entry a class that the image has, by rising class.
    """
    results: np.ndarray
    truth: np.ndarray

    @property
    def nbytes(self) -> int:
        """Bytes that are kept."""
        return self.results.nbytes + self.truth.nbytes

    def to_text(self) -> list[str]:
        """Both arrays as text, for JSON."""
        return [base64.b64encode(part.tobytes()).decode('ascii') for part in (self.results, self.truth)]

    @classmethod
    def from_text(cls, texts: Sequence[str], kinds: Sequence[str] = IOU_TYPES) -> Evidence:
        """What ``to_text`` was given, of these IoU types."""
        results, truth = (np.frombuffer(base64.b64decode(text), kind)
                          for text, kind in zip(texts, (result_type(kinds), TRUTH), strict=True))
        return cls(results, truth)


@dataclass
class ClassEvidence:
    """All images' results of one class, image after image.

    Attributes:
        scores: float64 ``[D]``.
        ranks: int ``[D]``, 0 for an image's best result of the class.
        match, ignore: by IoU type, bool ``[4, 10, D]``: object size, IoU threshold, result.
        counts: int ``[4]``, the objects that count, by size.
    """
    scores: np.ndarray
    ranks: np.ndarray
    match: dict[str, np.ndarray]
    ignore: dict[str, np.ndarray]
    counts: np.ndarray


class Gathered:
    """The evidence of many images together, to be asked class by class.

    Args:
        images: in the order in which pycocotools would go through them.
        num_classes: K.
        kinds: the IoU types of the evidence.

    Attributes:
        results: all images' results.
        counts: int64 ``[K, 4]``, objects that count, by class and size.
    """

    def __init__(self, images: Iterable[Evidence], num_classes: int, kinds: Sequence[str] = IOU_TYPES) -> None:
        images = list(images)
        self.kinds = tuple(kinds)
        self.results = np.concatenate([image.results for image in images] or [np.empty(0, result_type(kinds))])
        truth = np.concatenate([image.truth for image in images] or [np.empty(0, TRUTH)])
        self.counts = np.zeros((num_classes, len(AREAS)), np.int64)
        np.add.at(self.counts, truth['label'], truth['counts'])
        objects = np.zeros(num_classes, np.int64)
        np.add.at(objects, truth['label'], truth['objects'])
        self.present = np.flatnonzero(objects).tolist()
        number = np.repeat(np.arange(len(images)), [len(image.results) for image in images])
        labels = self.results['label']
        # A class's results of an image lie together: a result's rank is its distance from the first of them.
        first = np.ones(len(labels), bool)
        first[1:] = (labels[1:] != labels[:-1]) | (number[1:] != number[:-1])
        starts = np.flatnonzero(first)
        self._ranks = np.arange(len(labels)) - np.repeat(starts, np.diff([*starts, len(labels)]))
        # Stable, so that a class's results stay in the images' order.
        self._order = np.argsort(labels, kind='stable')
        self._limits = np.searchsorted(labels[self._order], np.arange(num_classes + 1))

    def of_class(self, label: int) -> ClassEvidence:
        """Everything about one class."""
        chosen = self._order[self._limits[label]:self._limits[label + 1]]
        results = self.results[chosen]
        return ClassEvidence(results['score'], self._ranks[chosen],
                             {kind: _bits(results[f'{kind}_match']) for kind in self.kinds},
                             {kind: _bits(results[f'{kind}_ignore']) for kind in self.kinds}, self.counts[label])


def packed(flags: np.ndarray) -> np.ndarray:
    """bool ``[4, 10, D]`` as uint8 ``[D, 5]``."""
    return np.packbits(np.asarray(flags, bool).reshape(len(AREAS) * IOU_THRESHOLDS, -1).T, axis=1)


def _bits(content: np.ndarray) -> np.ndarray:
    flags = np.unpackbits(content, axis=1).T.astype(bool)
    return flags.reshape(len(AREAS), IOU_THRESHOLDS, len(content))


def rising(image_id: Any) -> tuple[bool, Any]:
    """Sorts numbers by value, before any other ids by their text."""
    number = isinstance(image_id, (int, float))
    return (not number, image_id if number else str(image_id))
