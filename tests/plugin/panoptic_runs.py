"""Small runs and results of panoptic and of semantic segmentation, for tests."""
from __future__ import annotations

from typing import Any

import numpy as np

from modelscope_fastinst.data.shapes_panoptic import PanopticShapes, semantic_map
from modelscope_fastinst.plugin.metric_panoptic import FastInstPanopticMetric
from modelscope_fastinst.plugin.metric_semantic import FastInstSemanticMetric
from modelscope_fastinst.structures import PanopticMap, Segment

from .trainer_runs import trainer_for

QUIET = {'evaluation': {'report': False}}
# With these a network that has learnt nothing yet finds segments.
LOW = {'object_mask_threshold': 0.1, 'overlap_threshold': 0.1}


def drawn(number=3, task='panoptic', **options):
    return PanopticShapes(number, **{'size': 64, 'num_classes': 2, 'seed': 1, 'objects': (2, 3), 'radius': (0.2, 0.3),
                                     'void': True, 'task': task, **options})


def trainer_of(folder, task='panoptic', changes=None, data=None, **arguments):
    data = drawn(task=task) if data is None else data
    return trainer_for(folder, {'model.task': task, **QUIET, **(changes or {})},
                       **{'train_dataset': data, 'eval_dataset': data, **arguments})


def moved(truth, by=3):
    """A panoptic map as a result: moved to the right, things by twice as much, with scores."""
    ids = np.roll(truth.ids, by, axis=1)
    for segment in truth.segments:
        if segment.isthing:
            ids[np.roll(truth.ids == segment.id, 2 * by, axis=1)] = segment.id
    return PanopticMap(ids, [Segment(one.id, one.label, 0.9, one.isthing, int((ids == one.id).sum()), one.bbox)
                             for one in truth.segments if (ids == one.id).any()])


def metrics_on(numbers) -> list[Any]:
    """Both metrics of maps, with results of some of four images."""
    data = drawn(4)
    samples = [data[number] for number in numbers]
    found = [moved(sample.truth, sample.image_id) for sample in samples]
    metrics = [FastInstPanopticMetric(data.classes, data.things), FastInstSemanticMetric(data.classes)]
    metrics[0].add(found, {'samples': samples})
    metrics[1].add([semantic_map(one) for one in found], {'samples': samples})
    return metrics
