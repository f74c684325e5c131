"""Mean intersection over union as a ModelScope metric."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelscope.metrics.builder import METRICS

from modelscope_fastinst.evaluation.semantic import SemanticEvaluator, semantic_metric_names, semantic_truth
from modelscope_fastinst.evaluation.semantic_report import SemanticReport
from modelscope_fastinst.structures import PanopticMap, Sample, SemanticMap

from .metric_gathering import GatheringMetric
from .metric_settings import class_names, no_more_settings, section_of, worst_images

NAME = 'fastinst-semantic-metric'


@METRICS.register_module(group_key='default', module_name=NAME, force=True)
class FastInstSemanticMetric(GatheringMetric):
    """Intersection over union and accuracies (``mIoU``, ``fwIoU``, ``mACC``, ``pACC``, ``IoU/<class>``), by image id.

    Args:
        classes: names in the order of the class indices; default the model's of the trainer that uses the metric.

    Raises:
        TypeError: a setting that the metric does not have.
    """

    task = 'semantic'

    def __init__(self, classes: Sequence[str] | None = None, **kwargs: Any):
        super().__init__()
        no_more_settings(kwargs, NAME, 'classes')
        self.classes = list(classes) if classes is not None else None
        self._evaluator: SemanticEvaluator | None = None

    @property
    def evaluator(self) -> SemanticEvaluator:
        """What gathers the results."""
        if self._evaluator is None:
            self.classes = class_names(self.classes, self.trainer)
            self._evaluator = SemanticEvaluator(self.classes, worst_images(section_of(self.trainer)))
        return self._evaluator

    def add(self, outputs: Sequence[SemanticMap], inputs: Mapping[str, Any]) -> None:
        """Takes in one batch.

        Args:
            outputs: the batch's label maps at the images' original sizes.
            inputs: the batch as ``data.collate`` makes it; its ``samples`` carry ids and ``truth``, label maps or
                panoptic ones, whose segments' classes count then.

        Raises:
            ValueError: an image without ground truth of this kind.
        """
        samples: list[Sample] = inputs['samples']
        evaluator = self.evaluator
        for sample, found in zip(samples, outputs, strict=True):
            truth = semantic_truth(sample.truth) if isinstance(sample.truth, PanopticMap) else sample.truth
            if truth is None:
                raise ValueError(f'{sample.file_name or sample.image_id}: {NAME} needs semantic or panoptic ground '
                                 'truth (Sample.truth), which this image does not have')
            evaluator.add(sample.image_id, truth, found, sample.image, sample.file_name)

    def report(self, values: Mapping[str, float] | None = None) -> SemanticReport:
        """Numbers by class, confusion, worst images of everything added; ``values`` are what ``evaluate`` gave."""
        names = semantic_metric_names(self.evaluator.classes)
        return self.evaluator.report({name: values[name] for name in names} if values is not None else None)
