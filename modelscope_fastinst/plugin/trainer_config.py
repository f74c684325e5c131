"""The trainer's configuration: a check that finds misspelt keys before anything starts, and what of it goes
into the result folder.
"""
from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .configuration import BY_CLASS, CONFIGURATION_FILE, plain, read_configuration
from .engine_values import check_engine, check_metric_key
from .evaluation_settings import check_evaluation
from .huggingface import is_huggingface_folder
from .measured_tasks import check_measured
from .optimizer import check_rates, lr_factor
from .trainer_keys import ConfigurationError, section_at

AMP = ('bf16', 'fp16')

# Sections of the result folder's configuration that would tell where things lay on the machine that trained.
_NOT_PORTABLE = {'dataset', 'backbone_weights', 'work_dir', 'save_dir', 'out_dir', 'output_dir', 'model_dir', 'device',
                 'hooks', 'trust_remote_code', 'load_from', 'resume_from'}


def freeze_stock_norms(cfg: Any, before: Any, asked: Iterable[str] = ()) -> bool:
    """Freezes the batch norms of a model from ModelScope's own library, as the authors train them.

    That library knows no frozen norm, so its models say "BN", which is the same as long as they only run.

    Args:
        cfg: the configuration to train with; changed.
        before: the model's own. One without ``preprocessor`` was written for that library.
        asked: keys that the caller set; ``model.backbone.norm`` among them stays.

    Returns:
        Whether the norms are frozen now and were not.
    """
    stock = not before.safe_get('preprocessor') and before.safe_get('model.backbone.norm') == 'BN'
    if not stock or cfg.safe_get('model.backbone.norm') != 'BN' or 'model.backbone.norm' in asked:
        return False
    cfg.model['backbone'] = {**cfg.model['backbone'], 'norm': 'FrozenBN'}
    return True


def check_values(cfg: Any, *, has_train: bool, has_eval: bool, file: str = 'configuration.json') -> None:
    """Raises a ConfigurationError for settings that contradict each other or the data given."""
    get = cfg.safe_get
    amp = get('train.amp')
    if amp not in (None, False, *AMP):
        raise ConfigurationError(f'{file}: train.amp is {amp!r}; known are {", ".join(AMP)} and null')
    for path in ('train.max_epochs', 'train.max_iters', 'train.dataloader.batch_size_per_gpu',
                 'evaluation.dataloader.batch_size_per_gpu', 'train.checkpoint.period.interval',
                 'evaluation.period.interval', 'train.logging.interval', 'train.optimizer.options.cumulative_iters'):
        value = get(path)
        if value is not None and (isinstance(value, (bool, str)) or int(value) != value or value < 1):
            raise ConfigurationError(f'{file}: {path} must be a whole number of at least 1; got {value!r}')
    grouping = get('train.dataloader.aspect_ratio_grouping')
    if grouping not in (None, True, False):
        raise ConfigurationError(f'{file}: train.dataloader.aspect_ratio_grouping must be true or false; '
                                 f'got {grouping!r}')
    backbone = get('train.backbone_weights')
    if backbone is not None and not isinstance(backbone, (str, os.PathLike)):
        raise ConfigurationError(f'{file}: train.backbone_weights must name weights, or be "none"; got {backbone!r}')
    if has_train and get('train.max_epochs') is None and get('train.max_iters') is None:
        raise ConfigurationError(f'{file}: train has neither max_epochs nor max_iters: how long is the training to be?')
    rate = get('train.optimizer.lr')
    if rate is not None and (isinstance(rate, bool) or not isinstance(rate, (int, float))
                             or not 0 <= rate < math.inf):
        raise ConfigurationError(f'{file}: train.optimizer.lr must be a number of at least 0; got {rate!r}')
    if has_train:
        try:
            lr_factor(plain(get('train.lr_scheduler')), 1)
            check_rates(plain(get('train.optimizer')) or {})
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f'{file}: {error}') from error
    if get('train.checkpoint.best') is not None:
        if not get('train.checkpoint.best.metric_key'):
            raise ConfigurationError(f'{file}: train.checkpoint.best needs a metric_key, for instance "segm_mAP"')
        if get('train.checkpoint.best.rule', 'max') not in ('max', 'min'):
            raise ConfigurationError(f'{file}: train.checkpoint.best.rule must be "max" or "min"; '
                                     f'got {get("train.checkpoint.best.rule")!r}')
        if get('evaluation.period') is None:
            raise ConfigurationError(f'{file}: train.checkpoint.best keeps the best model by '
                                     f'{get("train.checkpoint.best.metric_key")!r}, but nothing is evaluated: add '
                                     '"evaluation": {"period": {"interval": 1}}')
        check_metric_key(cfg, 'train.checkpoint.best.metric_key', get('train.checkpoint.best.metric_key'), file)
    check_engine(cfg, has_train=has_train, file=file)
    check_evaluation(plain(get('evaluation') or {}), file)
    check_measured(cfg, file)
    if has_train and not has_eval and get('evaluation.period') is not None:
        raise ConfigurationError(f'{file}: evaluation.period asks for evaluation during the training, but there is no '
                                 'evaluation set: give eval_dataset= or dataset.val, or remove evaluation.period')


def inherited_evaluation(cfg: Any, before: Any) -> list[str]:
    """Which settings of evaluation during the training are a pretrained model's own.

    In a training without an evaluation set they are to be left out: the model was trained with one, which says nothing
    about this training.

    Args:
        cfg: the configuration with the caller's changes, before anything is scaled.
        before: the model's own.

    Returns:
        Dotted keys.
    """
    return [path for path in ('evaluation.period', 'train.checkpoint.best', 'train.early_stopping')
            if cfg.safe_get(path) is not None and plain(cfg.safe_get(path)) == plain(before.safe_get(path))]


def remove(cfg: Any, paths: Iterable[str]) -> None:
    """Takes dotted keys out of a configuration."""
    for path in paths:
        section, key = path.rsplit('.', 1)
        del cfg.safe_get(section)[key]


def classes_of_weights(folder: str, configuration: Any) -> list[str] | None:
    """The class names of the weights in a folder, None where they are not named.

    Args:
        folder: holds the weights; a recipe given beside it says nothing of them.
        configuration: what counts where the folder has no ``configuration.json``.
    """
    file = os.path.join(folder, CONFIGURATION_FILE)
    if is_huggingface_folder(folder):
        names = read_configuration(folder)['model']['classes']
    elif os.path.isfile(file):
        with open(file, encoding='utf-8') as text:
            names = section_at(json.load(text), 'model.classes')
    else:
        names = configuration.safe_get('model.classes')
    return [str(name) for name in names] if names else None


def hook_settings(hooks: Sequence[Mapping[str, Any]]) -> tuple[dict[str, dict], list[dict]]:
    """Sorts the library's hook list into settings of this trainer's own hooks and the user's further hooks.

    Returns:
        Settings by 'checkpoint', 'best', 'progress' and 'evaluation', and the rest of the list.

    Raises:
        ConfigurationError: a hook that would step the optimiser or the schedule a second time.
    """
    names = {'CheckpointHook': 'checkpoint', 'BestCkptSaverHook': 'best', 'TextLoggerHook': 'progress',
             'EvaluationHook': 'evaluation', 'IterTimerHook': '', 'DDPHook': ''}
    own: dict[str, dict] = {}
    rest = []
    for hook in hooks:
        hook = dict(hook)
        kind = hook.get('type')
        if str(kind).endswith(('OptimizerHook', 'LrSchedulerHook')):
            raise ConfigurationError(f'train.hooks has {kind!r}, but the trainer steps optimiser and schedule itself: '
                                     'remove the hook; train.optimizer.options and train.lr_scheduler.options have '
                                     'its settings')
        if kind not in names:
            rest.append(hook)
        elif names[kind]:
            hook.pop('type')
            for strategy in ('save_strategy', 'eval_strategy'):
                if strategy in hook:
                    hook.setdefault('by_epoch', hook.pop(strategy) != 'by_step')
            own[names[kind]] = hook
    keep = {'checkpoint': ('interval', 'by_epoch', 'max_checkpoint_num'), 'best': ('metric_key', 'rule'),
            'progress': ('interval',), 'evaluation': ('interval', 'by_epoch', 'start_idx')}
    return {name: {key: value for key, value in settings.items() if key in keep[name]}
            for name, settings in own.items()}, rest


def portable(section: Any) -> Any:
    """A configuration as plain data for another machine: no paths, no data set, no device."""
    if isinstance(section, Mapping):
        return {str(key): plain(value) if key == BY_CLASS else portable(value) for key, value in section.items()
                if key not in _NOT_PORTABLE and not (isinstance(value, str) and os.path.isabs(value))}
    if isinstance(section, (list, tuple)):
        return [portable(item) for item in section]
    return section


def settle_classes(configured: Sequence[str] | None, num_classes: int | None, data: Sequence[str] | None, *,
                   asked_for: Sequence[str] | None, replaceable: Sequence[str] = (),
                   file: str = 'configuration.json') -> list[str]:
    """Which classes the model is to have.

    Args:
        configured: ``model.classes``.
        num_classes: ``model.decoder.num_classes``.
        data: the training set's classes, None where it does not say.
        asked_for: the trainer's ``classes=``.
        replaceable: 'classes' and 'decoder.num_classes' where they are a pretrained model's own: the data's count.

    Raises:
        ConfigurationError: they contradict each other.
    """
    if asked_for is not None:
        asked_for = [str(name) for name in asked_for]
        if not asked_for or len(set(asked_for)) < len(asked_for):
            raise ConfigurationError(f'classes= must name at least one class and none twice; got {asked_for}')
        if data is not None and list(data) != asked_for:
            raise ConfigurationError(f'classes= are {asked_for}, but the training set has {list(data)}')
        return asked_for
    if 'classes' in replaceable and data is not None:
        configured = None
    if configured and data is not None and list(configured) != list(data):
        raise ConfigurationError(f'{file}: model.classes are {shown(configured)}, but the training set has '
                                 f'{shown(data)}: correct model.classes; or set it and model.decoder.num_classes to '
                                 'null to take the data\'s; or start from a model, whose classes give way')
    classes = list(configured or data or [])
    if not classes:
        raise ConfigurationError(f'{file}: no class names: give classes=, model.classes, or a training set with a '
                                 '`classes` attribute')
    if 'decoder.num_classes' not in replaceable and num_classes is not None and num_classes != len(classes):
        raise ConfigurationError(f'{file}: model.decoder.num_classes is {num_classes}, but there are {len(classes)} '
                                 f'classes ({shown(classes)}): make them agree, or remove num_classes')
    return classes


def shown(names: Sequence[str]) -> str:
    """Class names for a message, shortened where they are many."""
    names = [str(name) for name in names]
    return str(names) if len(names) <= 8 else f'{names[:6]} and {len(names) - 6} more'


def metric_settings(metrics: Any, file: str) -> list:
    """``evaluation.metrics`` as a list.

    Raises:
        ConfigurationError: one cannot be built, which otherwise showed at the first evaluation, after hours.
    """
    from modelscope.metrics.builder import build_metric
    metrics = [metrics] if isinstance(metrics, (str, Mapping)) else list(metrics)
    for metric in metrics:
        try:
            build_metric(metric)
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(f'{file}: evaluation.metrics: {metric!r}: {error}') from error
    return metrics
