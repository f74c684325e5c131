"""A recipe written for one batch size, trained with another: ``train.batch_scaling``.

The learning rate goes with the number of images that make a step (the linear rule of Goyal et al. 2017), and what is
counted in iterations goes against the number of images of an iteration, so that the training sees as many images as
the recipe says. What is counted in epochs, and shares of the training, need no change.
"""
from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

from .configuration import plain
from .default_recipe import with_defaults
from .trainer_keys import ConfigurationError, section_at

_PATH = 'train.batch_scaling'
# What counts iterations, and where that it may count epochs instead is said.
_LENGTHS = {'train.max_iters': None, 'train.train_iters_per_epoch': None, 'train.lr_scheduler.milestones':
            'train.lr_scheduler.options', 'train.lr_scheduler.options.warmup.warmup_iters': None,
            'train.checkpoint.period.interval': 'train.checkpoint.period',
            'evaluation.period.interval': 'evaluation.period', 'evaluation.period.start_idx': 'evaluation.period'}


def scale_to_batch(cfg: Any, before: Any, asked: Collection[str], processes: int, file: str) -> str | None:
    """Scales the recipe of a configuration with ``train.batch_scaling`` to the batch size that it is trained with.

    ``base_batch_size`` is the number of images that one step of the recipe is made of. The recipe's own values are
    scaled: what the caller has set or changed stays as it is. Afterwards ``batch_scaling`` in ``cfg`` says what the
    scaled values are for (``images_per_iteration`` beside it, where steps gather several iterations), so that the
    written configuration scales rightly again.

    Args:
        cfg: the configuration (a ``modelscope`` Config) to train with; changed.
        before: the same before the caller's changes.
        asked: dotted keys that the caller set, whatever their values.
        processes: how many train together.
        file: for messages.

    Returns:
        One line that says what was scaled, or None without ``batch_scaling``.

    Raises:
        ConfigurationError: ``base_batch_size`` or a number that the scaling needs is not a whole one of at least 1.
    """
    settings = plain(cfg.safe_get(_PATH))
    if not settings:
        return None
    if not isinstance(settings, dict) or 'base_batch_size' not in settings:
        raise ConfigurationError(f'{file}: {_PATH} must be {{"base_batch_size": N}}, the images of one step for which '
                                 f'the recipe is written, or null; got {settings!r}')
    base = _whole(settings['base_batch_size'], f'{_PATH}.base_batch_size', file)
    base_images = _whole(settings.get('images_per_iteration', base), f'{_PATH}.images_per_iteration', file)
    values = plain(cfg._cfg_dict)
    batch = _whole(_at(values, 'train.dataloader.batch_size_per_gpu', 1), 'train.dataloader.batch_size_per_gpu', file)
    gathered = _whole(_at(values, 'train.optimizer.options.cumulative_iters', 1),
                      'train.optimizer.options.cumulative_iters', file)
    images, total = batch * processes, batch * processes * gathered

    recipe = copy.deepcopy(before)
    with_defaults(recipe)
    recipe = plain(recipe._cfg_dict)
    scaled, kept = [], []
    for path in ('train.optimizer.lr', 'train.ema.decay', *_LENGTHS):
        value = section_at(values, path)
        new = _scaled(path, value, values, total / base, base_images / images)
        if new is None or new == value:
            continue
        if section_at(recipe, path) != value or any(path == key or path.startswith(f'{key}.') for key in asked):
            kept.append(f'{path} {value}')
            continue
        section, key = path.rsplit('.', 1)
        cfg.safe_get(section)[key] = new
        scaled.append(f'{path} {value} -> {new}')
    cfg.train['batch_scaling'] = {'base_batch_size': total} if images == total else \
        {'base_batch_size': total, 'images_per_iteration': images}
    return (f'{_PATH}: {total} images a step (batch {batch}, processes {processes}, iterations {gathered}) instead of '
            f'{base}: {", ".join(scaled) or "nothing changes"}'
            + (f'; as the caller set them: {", ".join(kept)}' if kept else ''))


def _scaled(path: str, value: Any, values: dict, steps: float, iterations: float) -> Any:
    """The scaled value; None where there is nothing to scale (or where the value is wrong, which is found later)."""
    if path == 'train.optimizer.lr':
        # Twelve digits: 1e-4 / 16 is to be read, and floats have more than that.
        return float(f'{value * steps:.12g}') if _is_number(value) else None
    if path == 'train.ema.decay':   # an average over as many images
        return value ** steps if _is_number(value) and 0 < value < 1 else None
    strategy = section_at(values, _LENGTHS[path]) if _LENGTHS[path] else None
    if _LENGTHS[path] and not _counts_iterations(strategy):
        return None
    if isinstance(value, list):
        return [_length(item, iterations) for item in value] if all(map(_is_number, value)) else None
    return _length(value, iterations) if _is_number(value) else None


def _length(value: float, factor: float) -> float:
    return max(int(value * factor + 0.5), 1) if value >= 1 else value   # below 1 it is a share, or nothing at all


def _counts_iterations(section: Any) -> bool:
    if not isinstance(section, dict):
        return False
    return section.get('by_epoch', section.get('save_strategy', section.get('eval_strategy'))) in (False, 'by_step')


def _at(values: dict, path: str, default: Any) -> Any:
    value = section_at(values, path)
    return default if value is None else value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _whole(value: Any, path: str, file: str) -> int:
    if not _is_number(value) or value < 1 or int(value) != value:
        raise ConfigurationError(f'{file}: {path} must be a whole number of at least 1; got {value!r}')
    return int(value)
