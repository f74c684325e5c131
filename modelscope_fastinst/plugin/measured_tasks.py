"""Which metrics measure which task, and what of the evaluation's settings goes with a model's task."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelscope_fastinst.evaluation.averages import metric_names
from modelscope_fastinst.evaluation.evidence import BOUNDARY, IOU_TYPES
from modelscope_fastinst.evaluation.panoptic import panoptic_metric_names
from modelscope_fastinst.evaluation.semantic import semantic_metric_names
from modelscope_fastinst.structures import TASKS

from .configuration import plain
from .trainer_keys import ConfigurationError

# The metric of each task, and the value that says which of several models is the best.
METRIC_OF = {'instance': 'fastinst-coco-metric', 'semantic': 'fastinst-semantic-metric',
             'panoptic': 'fastinst-panoptic-metric'}
BEST_OF = {'instance': 'segm_mAP', 'semantic': 'mIoU', 'panoptic': 'PQ'}


def task_of_metric(metric: str | Mapping[str, Any]) -> str | None:
    """The task that a metric of ``evaluation.metrics`` measures; None for a metric of the user's own."""
    kind = metric if isinstance(metric, str) else metric.get('type')
    return next((task for task, name in METRIC_OF.items() if name == kind), None)


def metrics_of(cfg: Any) -> list:
    """``evaluation.metrics`` as a list, default the metric of the model's task."""
    metrics = plain(cfg.safe_get('evaluation.metrics'))
    if metrics is None:
        return [METRIC_OF.get(cfg.safe_get('model.task') or 'instance', METRIC_OF['instance'])]
    return [metrics] if isinstance(metrics, (str, Mapping)) else list(metrics)


def forget_other_task(cfg: Any, before: Any) -> None:
    """Takes the metrics of another task out of a configuration, where they are those of the model to start from.

    Args:
        cfg: the configuration with the caller's changes; changed where its ``model.task`` is another than ``before``'s.
        before: the model's own.
    """
    task, old = (one.safe_get('model.task') or 'instance' for one in (cfg, before))
    if task == old or task not in METRIC_OF or old not in METRIC_OF:
        return
    metrics = cfg.safe_get('evaluation.metrics')
    if metrics is not None and plain(metrics) == plain(before.safe_get('evaluation.metrics')):
        del cfg.evaluation['metrics']
    for path in ('train.checkpoint.best', 'train.early_stopping'):
        key = cfg.safe_get(f'{path}.metric_key')
        if key == BEST_OF[old] and key == before.safe_get(f'{path}.metric_key'):
            cfg.safe_get(path)['metric_key'] = BEST_OF[task]


def check_measured(cfg: Any, file: str = 'configuration.json') -> None:
    """Raises a ConfigurationError for a metric that the model's task does not allow, or settings of another task."""
    task = cfg.safe_get('model.task') or 'instance'
    measured = [task_of_metric(metric) for metric in metrics_of(cfg)]
    for other in measured:
        if other is not None and other not in TASKS[task]:
            raise ConfigurationError(f'{file}: evaluation.metrics has {METRIC_OF[other]!r}, but model.task is '
                                     f'"{task}", whose weights give {_shown(TASKS[task])} results only; use '
                                     f'{METRIC_OF[task]!r}, or train a model for it')
    others = [other for other in measured if other not in ('instance', None)] or ([task] if None in measured else [])
    if cfg.safe_get('evaluation.tta') not in (None, False) and set(others) - {'instance'}:
        raise ConfigurationError(f'{file}: evaluation.tta: test-time augmentation fuses instances; the results of the '
                                 f'task "{others[0]}" are measured without it: remove evaluation.tta')
    if cfg.safe_get('evaluation.boundary') and 'instance' not in measured:
        raise ConfigurationError(f'{file}: evaluation.boundary is true, but boundary AP is of instances, which are not '
                                 f'measured: remove it, or add {METRIC_OF["instance"]!r} to evaluation.metrics')


def value_names(cfg: Any) -> list[str] | None:
    """The names of all values that the evaluation gives; None where a metric is not of this package."""
    classes = cfg.safe_get('model.classes')
    names: list[str] = []
    for metric in metrics_of(cfg):
        task = task_of_metric(metric)
        if task is None:
            return None
        if task == 'instance':
            own = metric.get('boundary') if isinstance(metric, Mapping) else None
            boundary = cfg.safe_get('evaluation.boundary') if own is None else own
            names += metric_names(classes, (*IOU_TYPES, BOUNDARY) if boundary else IOU_TYPES)
        else:
            names += (panoptic_metric_names if task == 'panoptic' else semantic_metric_names)(classes)
    return names


def _shown(tasks: tuple[str, ...]) -> str:
    return tasks[0] if len(tasks) == 1 else f'{", ".join(tasks[:-1])} and {tasks[-1]}'
