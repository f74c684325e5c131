"""Which results match which objects of an image, by pycocotools or by faster-coco-eval."""
from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from modelscope_fastinst.evaluation.boundary import combined, with_boundaries
from modelscope_fastinst.evaluation.confusion import lies_on
from modelscope_fastinst.evaluation.evidence import (
    AREAS,
    BOUNDARY,
    IOU_THRESHOLDS,
    IOU_TYPES,
    MAX_DETECTIONS,
    TRUTH,
    Evidence,
    packed,
    result_type,
)
from modelscope_fastinst.evaluation.masks import overlaps

ENGINES = ('pycocotools', 'faster-coco-eval')


def check_engine(engine: str) -> None:
    """Raises ValueError for an engine that is unknown, or ImportError for one that is not installed."""
    if engine not in ENGINES:
        raise ValueError(f'evaluation engine {engine!r} is unknown; known are {", ".join(ENGINES)}')
    if importlib.util.find_spec(engine.replace('-', '_')) is None:
        raise ImportError(f'the evaluation engine {engine} is not installed: pip install {engine}'
                          + (', or use "pycocotools"' if engine != 'pycocotools' else ''))


def evidence_of(size: tuple[int, int], truth: list[dict], found: list[dict], engine: str = ENGINES[0],
                kinds: Sequence[str] = IOU_TYPES) -> Evidence:
    """Matches an image's results with its objects, separately for each class, object size and IoU threshold.

    Args:
        size: (height, width) in pixels.
        truth: COCO records with ``category_id``, ``segmentation`` (RLE), ``area``, ``bbox`` and ``iscrowd``.
        found: the same with ``score`` for ``iscrowd``.
        engine: one of ``ENGINES``; both give the same.
        kinds: by which IoU: of masks, of boxes, and where asked for of boundaries.
    """
    rows = np.lexsort((-np.array([record['score'] for record in found], np.float64),
                       np.array([record['category_id'] for record in found], np.int64)))
    labels = np.array([found[row]['category_id'] for row in rows], np.int64)
    keep = np.arange(len(rows)) - np.searchsorted(labels, labels) < MAX_DETECTIONS
    rows, labels = rows[keep], labels[keep]
    results = np.zeros(len(rows), result_type(kinds))
    results['label'] = labels
    results['score'] = [found[row]['score'] for row in rows]
    # Pairs of a crowd and a result count as pycocotools has them, so all overlaps come from it.
    results['lies_on'] = lies_on(overlaps([found[row] for row in rows], truth), results['score'], labels,
                                 np.array([record['category_id'] for record in truth], np.int64),
                                 np.array([record['iscrowd'] for record in truth], bool))
    classes = sorted({record['category_id'] for record in truth})
    summary = np.zeros(len(classes), TRUTH)
    summary['label'] = classes
    summary['objects'] = [sum(record['category_id'] == label for record in truth) for label in classes]
    if classes or len(rows):
        seen = sorted({*classes, *labels.tolist()})
        if BOUNDARY in kinds:
            truth, found = with_boundaries(truth), with_boundaries(found)
        for iou_type in kinds:
            match = np.zeros((len(AREAS), IOU_THRESHOLDS, len(rows)), bool)
            ignore = np.zeros_like(match)
            for label, area, matched, ignored, objects_ignored in _MATCHERS[engine](size, truth, found, seen, iou_type):
                columns = slice(*np.searchsorted(labels, [label, label + 1]))
                match[area, :, columns], ignore[area, :, columns] = matched, ignored
                summary['counts'][summary['label'] == label, area] = np.count_nonzero(~objects_ignored)
            results[f'{iou_type}_match'], results[f'{iou_type}_ignore'] = packed(match), packed(ignore)
    return Evidence(results, summary)


# class, index of the object size, matched and ignored results (bool [10, D], best first), ignored objects (bool [G])
Matched = tuple[int, int, np.ndarray, np.ndarray, np.ndarray]


def _by_pycocotools(size: tuple[int, int], truth: list[dict], found: list[dict], classes: list[int],
                    iou_type: str) -> Iterator[Matched]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    measure = 'bbox' if iou_type == 'bbox' else 'segm'
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(_dataset(COCO(), size, truth, classes, iou_type, found=False),
                              _dataset(COCO(), size, found, classes, iou_type, found=True), measure)
        if iou_type == BOUNDARY:
            evaluation.computeIoU = combined(evaluation.computeIoU, truth, found, MAX_DETECTIONS)
        evaluation.params.maxDets = [MAX_DETECTIONS]
        evaluation.evaluate()
    for number, entry in enumerate(evaluation.evalImgs):
        if entry is not None:
            yield (classes[number // len(AREAS)], number % len(AREAS), entry['dtMatches'] > 0,
                   np.asarray(entry['dtIgnore'], bool), np.asarray(entry['gtIgnore'], bool))


def _by_faster(size: tuple[int, int], truth: list[dict], found: list[dict], classes: list[int],
               iou_type: str) -> Iterator[Matched]:
    from faster_coco_eval.core.coco import COCO
    from faster_coco_eval.core.faster_eval_api import COCOeval_faster
    evaluation = COCOeval_faster(_dataset(COCO(print_function=_silent), size, truth, classes, iou_type, found=False),
                                 _dataset(COCO(print_function=_silent), size, found, classes, iou_type, found=True),
                                 'bbox' if iou_type == 'bbox' else 'segm', print_function=_silent, separate_eval=True,
                                 rle_iou_max_workers=1)
    if iou_type == BOUNDARY:
        evaluation.computeIoU = combined(evaluation.computeIoU, truth, found, MAX_DETECTIONS)
    evaluation.params.maxDets = [MAX_DETECTIONS]
    evaluation.evaluate()
    for number, entry in enumerate(evaluation._evalImgs_cpp):
        matches, scores, objects_ignored, ignored = _parts(entry)
        if len(scores) or len(objects_ignored):
            shape = (IOU_THRESHOLDS, len(scores))
            yield (classes[number // len(AREAS)], number % len(AREAS), np.array(matches, np.int64).reshape(shape) > 0,
                   np.array(ignored, bool).reshape(shape), np.array(objects_ignored, bool))


def _parts(entry: Any) -> tuple[Sequence, Sequence, Sequence, Sequence]:
    """Matches, scores, ignored objects and ignored results of one of faster-coco-eval's evaluated images.

    The package shows them in their pickled form only, which another version may change.
    """
    with contextlib.suppress(AttributeError, TypeError, ValueError):   # of another form, see below
        matches, _, scores, objects_ignored, ignored, *_ = entry.__getstate__()
        if len(matches) == len(ignored) == IOU_THRESHOLDS * len(scores):
            return matches, scores, objects_ignored, ignored
    raise ImportError(f'faster-coco-eval {version("faster-coco-eval")} gives its matches in a form that is not known '
                      'here; use evaluation engine "pycocotools", or a version from 1.6 to 1.8')


_MATCHERS: dict[str, Callable[..., Iterator[Matched]]] = {'pycocotools': _by_pycocotools,
                                                          'faster-coco-eval': _by_faster}


def _dataset(dataset: Any, size: tuple[int, int], records: list[dict], classes: list[int], iou_type: str, *,
             found: bool) -> Any:
    """An image's objects or results as either package's ``COCO``."""
    own = []
    for number, record in enumerate(records, start=1):
        # Ids start at 1: pycocotools takes a match with id 0 for none. It also writes into the records.
        record = {**record, 'id': number, 'image_id': 1}
        if found and iou_type == 'bbox':
            record['area'] = record['bbox'][2] * record['bbox'][3]
        own.append(record)
    dataset.dataset = {'images': [{'id': 1, 'height': size[0], 'width': size[1]}], 'annotations': own,
                       'categories': [{'id': label, 'name': str(label)} for label in classes]}
    dataset.createIndex()
    return dataset


def _silent(*_: Any) -> None:
    """In the place of ``print``."""
