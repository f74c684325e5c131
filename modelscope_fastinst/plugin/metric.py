"""COCO average precision as a ModelScope metric."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from modelscope.metrics.base import Metric
from modelscope.metrics.builder import METRICS
from torch import Tensor

from modelscope_fastinst.evaluation.averages import metric_names
from modelscope_fastinst.evaluation.matching import ENGINES, check_engine
from modelscope_fastinst.evaluation.report import EvaluationReport
from modelscope_fastinst.structures import Instances, NetworkOutput, Sample

from .configuration import plain
from .evaluation_settings import worst_of


@METRICS.register_module(group_key='default', module_name='fastinst-coco-metric', force=True)
class FastInstCocoMetric(Metric):
    """Segmentation and box AP (``segm_mAP``, ``segm_mAP_50``, ``bbox_mAP``, ...), by image id.

    Args:
        classes: names in the order of the class indices; default the model's of the trainer that uses the metric.
        max_instances: so many of an image's best instances count; COCO's AP takes at most 100.
        engine: what matches results and objects, 'pycocotools' or 'faster-coco-eval'; default ``evaluation.engine`` of
            the trainer that uses the metric, else 'pycocotools'.

    Raises:
        TypeError: a setting that the metric does not have.
        ValueError: ``max_instances`` is not a whole number from 1 to 100, or an unknown engine.
        ImportError: the engine is not installed.
    """

    def __init__(self, classes: Sequence[str] | None = None, max_instances: int = 100, engine: str | None = None,
                 **kwargs: Any):
        super().__init__()
        kwargs.pop('trust_remote_code', None)   # which ModelScope's registry may add
        if kwargs:
            raise TypeError(f'fastinst-coco-metric has no setting {", ".join(map(repr, kwargs))}; known are classes, '
                            'max_instances, engine')
        if isinstance(max_instances, bool) or not isinstance(max_instances, int) or not 1 <= max_instances <= 100:
            raise ValueError(f'fastinst-coco-metric: max_instances must be a whole number from 1 to 100; got '
                             f'{max_instances!r}')
        if engine is not None:
            check_engine(engine)
        self.engine = engine
        self.trainer: Any = None
        self.classes = list(classes) if classes is not None else None
        self.max_instances = max_instances
        self._evaluator: Any = None

    @property
    def evaluator(self) -> Any:
        """The ``CocoEvaluator`` that gathers the results."""
        if self._evaluator is None:
            from modelscope_fastinst.evaluation.coco import CocoEvaluator
            if self.classes is None:
                if self.trainer is None:
                    raise ValueError('the metric needs the class names: classes=[...]')
                self.classes = list(self.trainer.model_classes)
            cfg = getattr(self.trainer, 'cfg', None)
            section = plain(cfg.safe_get('evaluation') or {}) if cfg is not None else {}
            self._evaluator = CocoEvaluator(self.classes, self.engine or section.get('engine') or ENGINES[0],
                                            worst=(worst_of(section) or 0) if cfg is not None else 0)
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
            best = Instances(*(part[:self.max_instances] for part in (instances.scores, instances.labels,
                                                                      instances.masks, instances.boxes)))
            self.evaluator.add(sample.image_id, sample.original_size, sample.annotations, best, sample.image,
                               sample.file_name)

    def evaluate(self) -> dict[str, Any]:
        """The averages over everything added; see ``evaluation.coco.CocoEvaluator.evaluate``."""
        return self.evaluator.evaluate()

    def report(self, values: Mapping[str, float] | None = None) -> EvaluationReport:
        """Curves, best thresholds and worst images of everything added; ``values`` are those that ``evaluate`` gave."""
        names = metric_names(self.evaluator.classes)
        return self.evaluator.report({name: values[name] for name in names} if values is not None else None)

    def merge(self, other: FastInstCocoMetric) -> None:
        """Takes in what another process's metric has gathered; an image that both have counts once."""
        self.evaluator.merge(other.evaluator)

    def __getstate__(self) -> dict[str, Any]:
        # The trainer stays where it is when a metric travels to another process; the evaluator takes what it needs of
        # it first, also where no image was added.
        if self.trainer is not None:
            _ = self.evaluator
        return {**self.__dict__, 'trainer': None}


def find_instances(model: Any, images: Sequence[Tensor], original_sizes: Sequence[tuple[int, int]],
                   size_divisor: int, max_instances: int = 100) -> list[Instances]:
    """The instances in each image, with masks as RLE.

    Images go through the model together only where their canvases are equal: padding changes an image's result.

    Args:
        model: gives a ``NetworkOutput`` for ``forward(images=...)``.
        images: ``[3, H, W]`` tensors of any sizes.
        original_sizes: (height, width) in pixels at which results are wanted.
        size_divisor: the network's.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, image in enumerate(images):
        groups.setdefault(tuple(-(-side // size_divisor) for side in image.shape[-2:]), []).append(index)
    postprocess = evaluation_postprocessor(max_instances)
    found: dict[int, Instances] = {}
    for indices in groups.values():
        output = model.forward(images=[images[index] for index in indices])
        found.update(zip(indices, postprocess(output, [original_sizes[index] for index in indices]), strict=True))
    return [found[index] for index in range(len(images))]


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


def metrics_table(values: Mapping[str, Any], classes: Sequence[str]) -> str:
    """Metrics as text: the averages, a line for each kind, and then one for every class (``segm_AP/<class>``)."""
    averages: dict[str, list[str]] = {}
    for name, value in values.items():
        if '/' not in name:
            averages.setdefault('_'.join(name.split('_')[:2]), []).append(
                f'{name} {value:.4f}' if isinstance(value, float) else f'{name} {value}')
    lines = [('evaluation: ' if not number else '  ') + ' '.join(shown)
             for number, shown in enumerate(averages.values())]
    kinds = list(dict.fromkeys(name.partition('/')[0] for name in values if '/' in name))
    if kinds:
        width = max(len(label) for label in [*classes, 'class'])
        lines.append(f'  {"class":<{width}} ' + ' '.join(f'{kind:>8}' for kind in kinds))
        lines += [f'  {label:<{width}} ' + ' '.join(f'{values.get(f"{kind}/{label}", -1.0):>8.4f}' for kind in kinds)
                  for label in classes]
    return '\n'.join(lines)


def evaluation_postprocessor(max_instances: int = 100) -> Any:
    """Network output to instances as COCO counts them: no score threshold, masks as RLE."""
    from modelscope_fastinst.results.instances import InstancePostprocessor
    return InstancePostprocessor(score_thr=0.0, max_instances=max_instances, mask_format='rle')
