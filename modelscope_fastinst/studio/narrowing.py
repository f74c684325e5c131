"""Which results follow from one that is there: fewer instances of it, exactly as a new inference would choose them.

A pipeline puts other classes aside, chooses candidates by class probability, scores them, and keeps the best that reach
the threshold. So with the same classes and the same number of candidates, a higher threshold or a smaller number leaves
the first of the instances that are there. With other classes or another number of candidates, others may come up that
were crowded out before; that is for the network's output to say. Maps are made first and what is not wanted is taken
out then, so of them everything narrower follows.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelscope_fastinst.results.instances import CANDIDATES
from modelscope_fastinst.studio.segmentation import Segmentation


@dataclass(frozen=True)
class Asked:
    """What options mean for a model: what is asked for explicitly, or holds by its configuration.

    Attributes:
        thresholds: float32 ``[K]``, the least score by class.
        classes: indices of the classes to look for.
        most: the most instances; None for no limit.
        candidates: how many pairs of query and class are considered.
    """
    thresholds: np.ndarray
    classes: frozenset[int]
    most: int | None
    candidates: int

    @classmethod
    def of(cls, options: Mapping[str, Any], task: str, classes: tuple[str, ...], postprocessor: Any) -> Asked | None:
        """None where the postprocessor is not this package's and may mean anything."""
        from modelscope_fastinst.plugin.postprocessor import FastInstPostprocessor
        if type(postprocessor) is not FastInstPostprocessor:
            return None
        settings = postprocessor.instances
        names = options.get('classes')
        chosen = settings.classes if names is None else [
            label for label, name in enumerate(classes) if name in names]
        threshold = options.get('score_thr', settings.score_thr if task == 'instance' else 0.0)
        # In tiles each tile has the configuration's number of candidates, and the picture no limit of its own.
        most = options.get('max_instances', None if 'tile' in options else settings.max_instances)
        return cls(np.broadcast_to(np.asarray(threshold, np.float32), (len(classes),)),
                   frozenset(range(len(classes)) if chosen is None else chosen), most,
                   settings.candidates or (0 if 'tile' in options else max(CANDIDATES, most or 0)))


def narrowed(segmentation: Segmentation, before: Asked, after: Asked) -> dict[str, Any] | None:
    """The result for what is asked now, if it follows from the one that is there; else None.

    Args:
        before: what was asked for when that was made.
        after: what is asked now, of the same picture, model and task.
    """
    if not after.classes <= before.classes:
        return None
    if any(after.thresholds[label] < before.thresholds[label] for label in after.classes):
        return None
    result = segmentation.result
    if segmentation.task == 'instance':
        # In tiles, the instances of a higher threshold are others: what would be joined with them is missing.
        if 'tile' in segmentation.options and (before.thresholds != after.thresholds).any():
            return None
        if after.classes != before.classes or after.candidates != before.candidates:
            return None
        cut = before.most is not None and len(segmentation) >= before.most
        if cut and (after.most is None or after.most > before.most):
            return None
    labels = _labels(segmentation)
    kept = [index for index, (label, score) in enumerate(zip(labels, result['scores'], strict=True))
            if label in after.classes and (segmentation.task == 'semantic'
                                           or np.float32(score) >= after.thresholds[label])]
    if segmentation.task == 'instance' and after.most is not None:
        kept = kept[:after.most]
    found = {name: [values[index] for index in kept] for name, values in result.items()}
    if segmentation.task == 'panoptic':
        found['segments'] = [{**segment, 'id': number} for number, segment in enumerate(found['segments'], start=1)]
    return found


def _labels(segmentation: Segmentation) -> list[int]:
    """Class indices of what was found; where classes share a name, they are asked for together, and the first will
    do."""
    if 'indices' in segmentation.result:
        return segmentation.result['indices']
    by_name = {name: label for label, name in reversed(list(enumerate(segmentation.classes)))}
    return [by_name[name] for name in segmentation.result['labels']]
