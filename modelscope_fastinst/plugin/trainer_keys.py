"""The keys of a training's configuration: a misspelt one is found before anything starts."""
from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from modelscope_fastinst.data.augment import TrainTransform
from modelscope_fastinst.data.input_size import build_inference_transform

PREPROCESSOR = 'fastinst-preprocessor'

_LOADER_KEYS = ('batch_size_per_gpu', 'workers_per_gpu', 'persistent_workers', 'drop_last', 'shuffle', 'pin_memory',
                'prefetch_factor')
_COUNT_KEYS = ('interval', 'by_epoch', 'save_dir', 'output_dir', 'output_sub_dir')
# Known keys by section. None stands for any.
_KNOWN: dict[str, Sequence[str] | None] = {
    'model': ('type', 'pretrained', 'classes', 'backbone', 'encoder', 'decoder', 'criterion', 'task', 'things'),
    'preprocessor': ('type', 'train', 'val', 'mode', *inspect.signature(build_inference_transform).parameters),
    'preprocessor.train': ('type', 'mode', *inspect.signature(TrainTransform).parameters),
    'preprocessor.val': ('type', 'mode', *inspect.signature(build_inference_transform).parameters),
    'dataset': ('train', 'val'),
    'train': ('work_dir', 'max_epochs', 'max_iters', 'backbone_weights', 'train_iters_per_epoch', 'dataloader',
              'optimizer', 'lr_scheduler', 'batch_scaling', 'checkpoint', 'logging', 'hooks', 'amp', 'ema', 'seed',
              'early_stopping',
              'tensorboard', 'compile', 'freeze', 'sync_batchnorm'),
    'train.dataloader': (*_LOADER_KEYS, 'aspect_ratio_grouping'),
    'train.optimizer': None,
    'train.optimizer.options': ('cumulative_iters', 'grad_clip', 'max_bad_steps'),
    'train.optimizer.options.grad_clip': ('max_norm', 'norm_type'),
    'train.batch_scaling': ('base_batch_size', 'images_per_iteration'),
    'train.lr_scheduler': ('type', 'milestones', 'gamma', 'power', 'min_factor', 'options'),
    'train.lr_scheduler.options': ('by_epoch', 'warmup'),
    'train.lr_scheduler.options.warmup': ('type', 'warmup_iters', 'warmup_ratio'),
    'train.checkpoint': ('period', 'best'),
    'train.checkpoint.period': (*_COUNT_KEYS, 'save_strategy', 'max_checkpoint_num', 'save_last'),
    'train.checkpoint.best': ('metric_key', 'rule', 'save_best', *_COUNT_KEYS),
    'train.logging': (*_COUNT_KEYS, 'out_dir', 'curves'),
    'train.ema': ('decay', 'evaluate_raw'),
    'train.early_stopping': ('patience', 'metric_key', 'min_delta', 'rule'),
    'evaluation': ('dataloader', 'metrics', 'period', 'amp', 'val_iters_per_epoch', 'engine', 'tta', 'thresholds',
                   'report', 'boundary'),
    'evaluation.dataloader': _LOADER_KEYS,
    'evaluation.period': ('interval', 'by_epoch', 'eval_strategy', 'start_idx'),
}
_TOP = ('framework', 'task', 'pipeline', 'model', 'preprocessor', 'postprocessor', 'dataset', 'train', 'evaluation')


class ConfigurationError(ValueError):
    """A setting that cannot be right, with its place, its value and the mend."""


def check_keys(cfg: Mapping[str, Any], file: str = 'configuration.json') -> None:
    """Raises a ConfigurationError for the first key that no part of the trainer reads, with the nearest known one."""
    for key in cfg:
        near = difflib.get_close_matches(key, _TOP, 1, 0.8)
        if key not in _TOP and near:
            raise ConfigurationError(f'{file}: unknown section {key!r}; did you mean {near[0]!r}?')
    for path, known in _KNOWN.items():
        section = section_at(cfg, path)
        if section is None or known is None:
            continue
        if not isinstance(section, Mapping):
            raise ConfigurationError(f'{file}: {path} must be a section; got {section!r}')
        if path.startswith('preprocessor') and section.get('type', PREPROCESSOR) != PREPROCESSOR:
            continue
        check_names(section, known, f'{file}: {path}')
    _check_optimizer(section_at(cfg, 'train.optimizer') or {}, file)


def check_names(names: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raises a ConfigurationError for the first name that is not known."""
    known = list(known)
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f'did you mean {near[0]!r}?' if near else f'known are {", ".join(sorted(known))}'
            raise ConfigurationError(f'{where} has the unknown key {name!r}; {hint}')


def section_at(cfg: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted key, None where there is none."""
    for key in path.split('.'):
        if not isinstance(cfg, Mapping) or cfg.get(key) is None:
            return None
        cfg = cfg[key]
    return cfg


def _check_optimizer(section: Mapping[str, Any], file: str) -> None:
    import torch
    cls = getattr(torch.optim, section.get('type', 'AdamW'), None)
    if not (isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer)):
        raise ConfigurationError(f'{file}: train.optimizer.type is {section["type"]!r}; torch.optim has no such class')
    taken = set(inspect.signature(cls).parameters) - {'params'}
    check_names(section, taken | {'type', 'options', 'backbone_multiplier', 'weight_decay_norm', 'weight_decay_embed',
                                 'layer_decay', 'paramwise'},
                f'{file}: train.optimizer')
