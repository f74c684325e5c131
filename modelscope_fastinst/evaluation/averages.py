"""COCO's averages from what was kept of the images, by pycocotools' own arithmetic."""
from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from modelscope_fastinst.evaluation.evidence import AREAS, IOU_TYPES, MAX_DETECTIONS, ClassEvidence, Gathered

# How pycocotools names its object sizes, and how ModelScope's metrics do.
_SIZES = {'small': 's', 'medium': 'm', 'large': 'l'}
_LIMITS = (1, 10, MAX_DETECTIONS)
# So many pairs of a result and an IoU threshold are looked at together: it bounds the memory for a class with very many
# results, for which pycocotools makes several float64 arrays.
_PAIRS = 500_000


def average_precision(gathered: Gathered, classes: Sequence[str]) -> dict[str, float]:
    """All values that ``metric_names`` names; see ``coco.CocoEvaluator.evaluate``."""
    metrics: dict[str, float] = {}
    accumulated = {kind: [] for kind in gathered.kinds}
    for label in gathered.present:   # the others count in no average
        evidence = gathered.of_class(label)
        for kind in gathered.kinds:
            accumulated[kind].append(_accumulated(evidence, kind))
    for kind in gathered.kinds:
        # [IoU threshold, recall, class, object size] and [IoU threshold, class, object size, limit]
        precision = np.stack([entry[0] for entry in accumulated[kind]], 2) if gathered.present else np.full(
            (10, 101, 1, len(AREAS)), -1.0)
        recall = np.stack([entry[1] for entry in accumulated[kind]], 1) if gathered.present else np.full(
            (10, 1, len(AREAS), len(_LIMITS)), -1.0)
        whole = precision[..., 0]
        metrics |= {f'{kind}_mAP': _mean(whole), f'{kind}_mAP_50': _mean(whole[0]), f'{kind}_mAP_75': _mean(whole[5])}
        metrics |= {f'{kind}_mAP_{short}': _mean(precision[..., AREAS.index(name)]) for name, short in _SIZES.items()}
        metrics |= {f'{kind}_mAR_{limit}': _mean(recall[:, :, 0, index]) for index, limit in enumerate(_LIMITS)}
        metrics |= {f'{kind}_mAR_{short}': _mean(recall[:, :, AREAS.index(name), -1])
                    for name, short in _SIZES.items()}
        position = {label: index for index, label in enumerate(gathered.present)}
        metrics |= {f'{kind}_AP/{name}': _mean(whole[:, :, position[label]]) if label in position else -1.0
                    for label, name in enumerate(classes)}
    return {name: metrics[name] for name in metric_names(classes, gathered.kinds)}


def metric_names(classes: Sequence[str], kinds: Sequence[str] = IOU_TYPES) -> list[str]:
    """The names of all values that evaluation gives for these classes and IoU types: averages first."""
    suffixes = ('', '_50', '_75', *(f'_{short}' for short in _SIZES.values()))
    recalls = (*(f'_{limit}' for limit in _LIMITS), *(f'_{short}' for short in _SIZES.values()))
    return [*(f'{kind}_mAP{suffix}' for kind in kinds for suffix in suffixes),
            *(f'{kind}_mAR{suffix}' for kind in kinds for suffix in recalls),
            *(f'{kind}_AP/{name}' for kind in kinds for name in classes)]


def precision_curves(evidence: ClassEvidence, kind: str = 'segm') -> np.ndarray:
    """Interpolated precision at recalls 0, 0.01, ... 1, by IoU threshold: float64 ``[10, 101]``; -1 without truth."""
    return _accumulated(evidence, kind, limits=(MAX_DETECTIONS,), areas=1)[0][..., 0]


def _accumulated(evidence: ClassEvidence, kind: str, limits: Sequence[int] = _LIMITS,
                 areas: int = len(AREAS)) -> tuple[np.ndarray, np.ndarray]:
    """pycocotools' precision ``[10, 101, areas]`` at the last limit, and recall ``[10, areas, limits]``."""
    from pycocotools.cocoeval import COCOeval, Params
    precisions, recalls = [], []
    step = max(1, _PAIRS // max(1, len(evidence.scores)))
    with contextlib.redirect_stdout(io.StringIO()):
        for limit in limits:
            chosen = evidence.ranks < limit
            parts = []
            for start in range(0, 10, step):
                measure = 'bbox' if kind == 'bbox' else 'segm'   # which the arithmetic does not ask
                evaluation = COCOeval(iouType=measure)
                # All images in one, for the limit of results an image has been seen to.
                evaluation.params = params = _parameters(Params(measure), slice(start, start + step), areas, chosen)
                evaluation._paramsEval = params
                evaluation.evalImgs = [
                    {'dtScores': evidence.scores[chosen],
                     'dtMatches': evidence.match[kind][area, start:start + step][:, chosen],
                     'dtIgnore': evidence.ignore[kind][area, start:start + step][:, chosen],
                     'gtIgnore': np.zeros(evidence.counts[area], np.int64)} for area in range(areas)]
                evaluation.accumulate()
                parts.append((evaluation.eval['precision'][:, :, 0, :, 0], evaluation.eval['recall'][:, 0, :, 0]))
            precisions.append(np.concatenate([part[0] for part in parts]))
            recalls.append(np.concatenate([part[1] for part in parts]))
    return precisions[-1], np.stack(recalls, -1)


def _parameters(params: Any, thresholds: slice, areas: int, chosen: np.ndarray) -> Any:
    params.imgIds, params.catIds = [1], [1]
    params.maxDets = [max(1, len(chosen))]
    params.iouThrs = params.iouThrs[thresholds]
    params.areaRng, params.areaRngLbl = params.areaRng[:areas], params.areaRngLbl[:areas]
    return params


def _mean(values: np.ndarray) -> float:
    """The mean over what has ground truth; pycocotools marks the rest with -1."""
    valid = values[values > -1]
    return float(valid.mean()) if valid.size else -1.0
