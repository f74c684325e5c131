"""COCO average precision as a ModelScope metric."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from modelscope.metrics.base import Metric
from modelscope.metrics.builder import METRICS
from torch import Tensor

from modelscope_fastinst.evaluation.averages import metric_names
from modelscope_fastinst.evaluation.masks import thing_annotations
from modelscope_fastinst.evaluation.matching import ENGINES, check_engine
from modelscope_fastinst.evaluation.report import EvaluationReport
from modelscope_fastinst.structures import Instances, NetworkOutput, PanopticMap, Sample

from .evaluation_results import MAX_INSTANCES, evaluation_postprocessor, find_results
from .metric_gathering import GatheringMetric
from .metric_settings import class_names, no_more_settings, section_of, worst_images
from .metrics_text import metrics_table

__all__ = ['FastInstCocoMetric', 'find_instances', 'gathered_values', 'metrics_table']

NAME = 'fastinst-coco-metric'


@METRICS.register_module(group_key='default', module_name='fastinst-coco-metric', force=True)
class FastInstCocoMetric(GatheringMetric):
    """Segmentation and box AP (``segm_mAP``, ``segm_mAP_50``, ``bbox_mAP``, ...), by image id.

    Args:
        classes: names in the order of the class indices; default the model's of the trainer that uses the metric.
        max_instances: so many of an image's best instances count; COCO's AP takes at most 100.
        engine: what matches results and objects, 'pycocotools' or 'faster-coco-eval'; default ``evaluation.engine`` of
            the trainer that uses the metric, else 'pycocotools'.
        boundary: boundary AP as well (``boundary_mAP``, ...); default ``evaluation.boundary`` of that trainer, else no.

    Raises:
        TypeError: a setting that the metric does not have.
        ValueError: ``max_instances`` is not a whole number from 1 to 100, or an unknown engine,
            or ``boundary`` is not true or false.
        ImportError: the engine is not installed.
    """

    task = 'instance'

    def __init__(self, classes: Sequence[str] | None = None, max_instances: int = MAX_INSTANCES,
                 engine: str | None = None, boundary: bool | None = None, **kwargs: Any):
        super().__init__()
        no_more_settings(kwargs, NAME, 'classes, max_instances, engine, boundary')
        if isinstance(max_instances, bool) or not isinstance(max_instances, int) or not 1 <= max_instances <= 100:
            raise ValueError(f'{NAME}: max_instances must be a whole number from 1 to 100; got {max_instances!r}')
        if boundary not in (None, True, False):
            raise ValueError(f'{NAME}: boundary must be true or false; got {boundary!r}')
        if engine is not None:
            check_engine(engine)
        self.engine = engine
        self.boundary = boundary
        self.classes = list(classes) if classes is not None else None
        self.max_instances = max_instances
        self._evaluator: Any = None

    @property
    def evaluator(self) -> Any:
        """The ``CocoEvaluator`` that gathers the results."""
        if self._evaluator is None:
            from modelscope_fastinst.evaluation.coco import CocoEvaluator
            self.classes = class_names(self.classes, self.trainer)
            section = section_of(self.trainer) or {}
            boundary = self.boundary if self.boundary is not None else bool(section.get('boundary'))
            self._evaluator = CocoEvaluator(self.classes, self.engine or section.get('engine') or ENGINES[0],
                                            worst=worst_images(section_of(self.trainer)), boundary=boundary)
        return self._evaluator

    def add(self, outputs: NetworkOutput | Sequence[Instances], inputs: Mapping[str, Any]) -> None:
        """Takes in one batch.

        Args:
            outputs: the network's output, or the batch's instances, best first, with masks as RLE.
            inputs: the batch as ``data.collate`` makes it; its ``samples`` carry ids, sizes and ground truth.
        """
        samples: list[Sample] = inputs['samples']
        if isinstance(outputs, NetworkOutput):
            outputs = evaluation_postprocessor(self.max_instances)(outputs, [s.original_size for s in samples])
        for sample, instances in zip(samples, outputs, strict=True):
            # Panoptic data say what their things are by the map.
            annotations = (thing_annotations(sample.truth) if isinstance(sample.truth, PanopticMap)
                           else sample.annotations)
            best = Instances(*(part[:self.max_instances] for part in (instances.scores, instances.labels,
                                                                      instances.masks, instances.boxes)))
            self.evaluator.add(sample.image_id, sample.original_size, annotations, best, sample.image,
                               sample.file_name)

    def report(self, values: Mapping[str, float] | None = None) -> EvaluationReport:
        """Curves, best thresholds and worst images of everything added; ``values`` are those that ``evaluate`` gave."""
        names = metric_names(self.evaluator.classes, self.evaluator.kinds)
        return self.evaluator.report({name: values[name] for name in names} if values is not None else None)


def find_instances(model: Any, images: Sequence[Tensor], original_sizes: Sequence[tuple[int, int]],
                   size_divisor: int, max_instances: int = MAX_INSTANCES) -> list[Instances]:
    """The instances in each image, with masks as RLE; see ``evaluation_results.find_results``."""
    postprocess = {'instance': evaluation_postprocessor(max_instances)}
    return find_results(model, images, original_sizes, size_divisor, postprocess)['instance']


def gathered_values(metrics: Sequence[Metric], group: Any = None) -> dict[str, Any]:
    """The values of all metrics; those of several processes are merged first, and every process gets the same values.

    Args:
        group: the processes' group, None for a single process.
    """
    values: dict[str, Any] = {}
    for metric in metrics:
        if group is not None or torch.distributed.is_available() and torch.distributed.is_initialized():
            parts: list = [None] * torch.distributed.get_world_size(group)
            torch.distributed.all_gather_object(parts, metric, group=group)
            for rank, part in enumerate(parts):
                if rank != torch.distributed.get_rank(group):
                    metric.merge(part)
        values.update(metric.evaluate() or {})
    return values
