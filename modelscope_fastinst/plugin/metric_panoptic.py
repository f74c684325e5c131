"""Panoptic quality as a ModelScope metric."""
from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from modelscope.metrics.builder import METRICS

from modelscope_fastinst.evaluation.panoptic import PanopticEvaluator, panoptic_metric_names
from modelscope_fastinst.evaluation.panoptic_report import PanopticReport
from modelscope_fastinst.structures import PanopticMap, Sample

from .metric_gathering import GatheringMetric
from .metric_settings import class_names, no_more_settings, section_of, worst_images

NAME = 'fastinst-panoptic-metric'


@METRICS.register_module(group_key='default', module_name=NAME, force=True)
class FastInstPanopticMetric(GatheringMetric):
    """Panoptic, segmentation and recognition quality (``PQ``, ``SQ``, ``RQ``, ``PQ_th``, ``PQ_st``, ...), by image id.

    Args:
        classes: names in the order of the class indices; default the model's of the trainer that uses the metric.
        things: names of the thing classes; default the model's likewise.

    Raises:
        TypeError: a setting that the metric does not have.
    """

    task = 'panoptic'

    def __init__(self, classes: Sequence[str] | None = None, things: Collection[str] | None = None, **kwargs: Any):
        super().__init__()
        no_more_settings(kwargs, NAME, 'classes, things')
        self.classes = list(classes) if classes is not None else None
        self.things = list(things) if things is not None else None
        self._evaluator: PanopticEvaluator | None = None

    @property
    def evaluator(self) -> PanopticEvaluator:
        """What gathers the results."""
        if self._evaluator is None:
            self.classes = class_names(self.classes, self.trainer)
            unknown = sorted(set(self.things or ()) - set(self.classes))
            if unknown:
                raise ValueError(f'{NAME}: things names {unknown}, which are not among the classes')
            if self.things is not None:
                things = {index for index, name in enumerate(self.classes) if name in self.things}
            elif self.trainer is not None:
                things = self.trainer.thing_classes
            else:
                raise ValueError('the metric needs the names of the thing classes: things=[...]')
            self._evaluator = PanopticEvaluator(self.classes, things, worst_images(section_of(self.trainer)))
        return self._evaluator

    def add(self, outputs: Sequence[PanopticMap], inputs: Mapping[str, Any]) -> None:
        """Takes in one batch.

        Args:
            outputs: the batch's panoptic maps at the images' original sizes.
            inputs: the batch as ``data.collate`` makes it; its ``samples`` carry ids and ``truth``.

        Raises:
            ValueError: an image without panoptic ground truth.
        """
        samples: list[Sample] = inputs['samples']
        evaluator = self.evaluator
        for sample, found in zip(samples, outputs, strict=True):
            if not isinstance(sample.truth, PanopticMap):
                raise ValueError(f'{sample.file_name or sample.image_id}: {NAME} needs panoptic ground truth '
                                 '(Sample.truth), which this image does not have')
            evaluator.add(sample.image_id, sample.truth, found, sample.image, sample.file_name)

    def report(self, values: Mapping[str, float] | None = None) -> PanopticReport:
        """Numbers by class, confusion, worst images of everything added; ``values`` are what ``evaluate`` gave."""
        names = panoptic_metric_names(self.evaluator.classes)
        return self.evaluator.report({name: values[name] for name in names} if values is not None else None)
