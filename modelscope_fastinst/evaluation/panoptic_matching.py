"""Which segments of a panoptic map are right: the COCO panoptic API's rules, for one image."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modelscope_fastinst.evaluation.joint_areas import joint_areas
from modelscope_fastinst.structures import PanopticMap

# A class of one image: the sum of IoU over its pairs, and how many pairs, false and missed segments it has.
CLASS = np.dtype([('label', '<i4'), ('iou', '<f8'), ('tp', '<i4'), ('fp', '<i4'), ('fn', '<i4')])
# A segment of the ground truth, of the result, or both lying on each other: classes; -1 where there is none.
PAIR = np.dtype([('truth', '<i4'), ('found', '<i4')])
_VOID = 0


@dataclass
class PanopticEvidence:
    """What evaluation keeps of an image.

    Attributes:
        classes: of type ``CLASS``, by rising class; only classes that have a segment which counts.
        pairs: of type ``PAIR``: every segment that counts, with what lies on it whatever its class (IoU above 0.5).
    """
    classes: np.ndarray
    pairs: np.ndarray

    @property
    def nbytes(self) -> int:
        """Bytes that are kept."""
        return self.classes.nbytes + self.pairs.nbytes

    @property
    def quality(self) -> float:
        """PQ of this image alone: the mean over its classes; 1 where nothing counts."""
        part = self.classes
        return float((part['iou'] / (part['tp'] + part['fp'] / 2 + part['fn'] / 2)).mean()) if len(part) else 1.0


@dataclass
class Matched:
    """How the segments of one image fare.

    Attributes:
        pairs: (id in the ground truth, id in the result, IoU) of every two that match: same class, IoU above 0.5.
        missed: ids in the ground truth without a match; crowds are not among them.
        false: ids in the result without a match that count as such.
        ignored: ids in the result without a match that lie on void or on a crowd of their class for the most part.
        others: (id in the ground truth, id in the result) of two of different classes with an IoU above 0.5.
    """
    pairs: list[tuple[int, int, float]]
    missed: list[int]
    false: list[int]
    ignored: list[int]
    others: list[tuple[int, int]]


def match(truth: PanopticMap, found: PanopticMap, where: str = 'this image') -> Matched:
    """Matches the segments of a result with those of the ground truth.

    A pair matches if both have the same class and an IoU above 0.5, which no second pair can have then; void pixels of
    the ground truth (id 0) do not count in the union. Crowds match nothing. A segment of the result without a match is
    false, unless more than half of its pixels are void or lie in the crowd of its class. (Of several crowds of one
    class in an image the API regards the last; published ground truth has at most one.)

    Args:
        where: what to call the image in an error.

    Raises:
        ValueError: maps of different size, or a found map whose ids and segments are not the same.
    """
    try:
        truth_ids, found_ids, pixels = joint_areas(truth.ids, found.ids)
    except ValueError as error:
        raise ValueError(f'{where}: ground truth and result: {error}') from error
    objects = {segment.id: segment for segment in truth.segments}
    results = {segment.id: segment for segment in found.segments}
    there = set(np.unique(found_ids).tolist()) - {_VOID}
    if there != set(results):
        number = min(there ^ set(results))
        raise ValueError(f'{where}: the result\'s segment {number} is ' + (
            'in the map, but not in the list of segments' if number in there else
            'in the list of segments, but has no pixel in the map'))
    shared = {(one, other): area for one, other, area in
              zip(truth_ids.tolist(), found_ids.tolist(), pixels.tolist(), strict=True)}
    truth_areas, found_areas = _sums(truth_ids, pixels), _sums(found_ids, pixels)
    crowds = {segment.label: segment.id for segment in truth.segments if segment.iscrowd}

    pairs, others = [], []
    for (one, other), area in shared.items():
        if one not in objects or other not in results or objects[one].iscrowd:
            continue
        union = truth_areas[one] + found_areas[other] - area - shared.get((_VOID, other), 0)
        if 2 * area > union:   # IoU above 0.5
            if objects[one].label == results[other].label:
                pairs.append((one, other, area / union))
            else:
                others.append((one, other))
    matched, claimed = {one for one, _, _ in pairs}, {other for _, other, _ in pairs}
    false, ignored = [], []
    for other in results.keys() - claimed:
        aside = shared.get((_VOID, other), 0)
        crowd = crowds.get(results[other].label)
        if crowd is not None:
            aside += shared.get((crowd, other), 0)
        (ignored if 2 * aside > found_areas[other] else false).append(other)
    missed = [one for one, segment in objects.items() if one not in matched and not segment.iscrowd]
    return Matched(pairs, missed, sorted(false), sorted(ignored), others)


def compare(truth: PanopticMap, found: PanopticMap, where: str = 'this image') -> PanopticEvidence:
    """What evaluation keeps of an image; see ``match``."""
    matched = match(truth, found, where)
    objects = {segment.id: segment.label for segment in truth.segments}
    results = {segment.id: segment.label for segment in found.segments}
    sums: dict[int, list] = {}
    for one, _, iou in matched.pairs:
        own = sums.setdefault(objects[one], [0.0, 0, 0, 0])
        own[0] += iou
        own[1] += 1
    for label in (results[other] for other in matched.false):
        sums.setdefault(label, [0.0, 0, 0, 0])[2] += 1
    for label in (objects[one] for one in matched.missed):
        sums.setdefault(label, [0.0, 0, 0, 0])[3] += 1
    classes = np.array([(label, *sums[label]) for label in sorted(sums)], CLASS)
    swapped = [(one, other) for one, other in matched.others if other in matched.false]
    taken = {one for one, _ in swapped}, {other for _, other in swapped}
    pairs = [*((objects[one], objects[one]) for one, _, _ in matched.pairs),
             *((objects[one], results[other]) for one, other in swapped),
             *((objects[one], -1) for one in matched.missed if one not in taken[0]),
             *((-1, results[other]) for other in matched.false if other not in taken[1])]
    return PanopticEvidence(classes, np.array(pairs, PAIR))


def _sums(ids: np.ndarray, pixels: np.ndarray) -> dict[int, int]:
    values, places = np.unique(ids, return_inverse=True)
    areas = np.zeros(len(values), np.int64)
    np.add.at(areas, places.reshape(-1), pixels)
    return dict(zip(values.tolist(), areas.tolist(), strict=True))
