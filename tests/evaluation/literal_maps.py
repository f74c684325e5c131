"""Panoptic quality, mean IoU and boundary IoU word by word: a mask for every segment, and every pair of them compared.

Written from Kirillov et al. 2019 (matching, PQ, void and group regions) and, where the paper leaves it open, from what
the COCO panoptic API does; nothing is shared with the package.
"""
from __future__ import annotations

import math

import numpy as np


def panoptic_counts(images, num_classes):
    """By class [sum of IoU, TP, FP, FN] over pairs of (truth, result), both ``PanopticMap``s."""
    counts = [[0.0, 0, 0, 0] for _ in range(num_classes)]
    for truth, found in images:
        void = truth.ids == 0
        objects = [(segment, truth.ids == segment.id) for segment in truth.segments]
        results = [(segment, found.ids == segment.id) for segment in found.segments]
        for label in {segment.label for segment in [*truth.segments, *found.segments]}:
            own = [pixels for segment, pixels in objects if segment.label == label and not segment.iscrowd]
            crowds = [pixels for segment, pixels in objects if segment.label == label and segment.iscrowd]
            claimed = [pixels for segment, pixels in results if segment.label == label]
            hit, right = set(), set()
            for row, one in enumerate(own):
                for column, other in enumerate(claimed):
                    iou = (one & other).sum() / max((one | (other & ~void)).sum(), 1)
                    if iou > 0.5:
                        counts[label][0] += iou
                        counts[label][1] += 1
                        hit.add(row)
                        right.add(column)
            counts[label][3] += len(own) - len(hit)
            aside = void | crowds[-1] if crowds else void   # the API keeps one crowd a class: the last
            for column, other in enumerate(claimed):
                if column not in right and not (other & aside).sum() / other.sum() > 0.5:
                    counts[label][2] += 1
    return counts


def panoptic_quality(counts, members):
    """(PQ, SQ, RQ), the means over those of the classes ``members`` that have anything; None where none has."""
    every = []
    for label in members:
        iou, right, false, missed = counts[label]
        if right + false + missed:
            every.append((iou / (right + false / 2 + missed / 2), iou / right if right else 0.0,
                          right / (right + false / 2 + missed / 2)))
    return tuple(sum(values) / len(every) for values in zip(*every)) if every else None


def semantic_values(images, num_classes):
    """(mIoU, fwIoU, mACC, pACC, IoU by class, accuracy by class) over pairs of (truth, result) label maps."""
    truth, found = [], []
    for one, other in images:
        for a, b in zip(np.asarray(one).reshape(-1).tolist(), np.asarray(other).reshape(-1).tolist()):
            if a != -1:
                truth.append(a)
                found.append(b)
    ious, accuracies, weighted = {}, {}, 0.0
    for label in range(num_classes):
        own = {place for place, value in enumerate(truth) if value == label}
        claimed = {place for place, value in enumerate(found) if value == label}
        if own:
            ious[label] = len(own & claimed) / len(own | claimed)
            accuracies[label] = len(own & claimed) / len(own)
            weighted += ious[label] * len(own) / len(truth)
    right = sum(a == b for a, b in zip(truth, found))
    return (sum(ious.values()) / len(ious), weighted, sum(accuracies.values()) / len(accuracies), right / len(truth),
            ious, accuracies)


def boundary_of(mask, ratio=0.02):
    """Of a 0/1 mask ``[H, W]`` the pixels in whose square, ``ratio`` of the diagonal to each side, there is a place
    that is not in the mask or not in the image."""
    reach = max(1, int(round(ratio * math.sqrt(mask.shape[0] ** 2 + mask.shape[1] ** 2))))
    wide = np.pad(mask, reach)
    result = np.zeros_like(mask)
    for row, column in np.argwhere(mask):
        result[row, column] = not wide[row:row + 2 * reach + 1, column:column + 2 * reach + 1].all()
    return result
