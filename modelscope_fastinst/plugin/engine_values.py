"""Values of the settings that say how a training runs: averages, early stopping, frozen parts, its log."""
from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from typing import Any

from .configuration import plain
from .ema_hook import RAW
from .measured_tasks import metrics_of, value_names
from .trainer_keys import ConfigurationError

_SWITCHES = ('train.ema.evaluate_raw', 'train.tensorboard', 'train.compile', 'train.sync_batchnorm',
             'train.logging.curves')


def check_engine(cfg: Any, *, has_train: bool, file: str) -> None:
    """Raises a ConfigurationError for values that cannot be, or that ask for something that is not installed."""
    get = cfg.safe_get
    for path in _SWITCHES:
        if get(path) not in (None, True, False):
            raise ConfigurationError(f'{file}: {path} must be true or false; got {get(path)!r}')
    for path in ('train.optimizer.options.max_bad_steps', 'train.early_stopping.patience'):
        value = get(path)
        if value is not None and (not _is_number(value) or int(value) != value or value < 1):
            raise ConfigurationError(f'{file}: {path} must be a whole number of at least 1; got {value!r}')
    decay, clip = get('train.ema.decay'), get('train.optimizer.options.grad_clip.max_norm')
    if decay is not None and not (_is_number(decay) and 0 < decay < 1):
        raise ConfigurationError(f'{file}: train.ema.decay must lie in (0, 1); got {decay!r}')
    if get('train.optimizer.options.grad_clip') and clip is None:
        raise ConfigurationError(f'{file}: train.optimizer.options.grad_clip needs "max_norm"')
    if clip is not None and not (_is_number(clip) and clip > 0):
        raise ConfigurationError(f'{file}: train.optimizer.options.grad_clip.max_norm must be a number above 0; '
                                 f'got {clip!r}')
    _check_freeze(plain(get('train.freeze')), file)
    if has_train and get('train.tensorboard'):
        try:
            import tensorboard  # noqa: F401
        except ImportError as error:
            raise ConfigurationError(f'{file}: train.tensorboard is true, but TensorBoard is not installed: pip '
                                     'install tensorboard, or set it to false') from error
    if get('train.early_stopping') is not None:
        _check_early_stopping(cfg, file)


def check_metric_key(cfg: Any, setting: str, key: Any, file: str) -> None:
    """Raises a ConfigurationError for a metric that no evaluation of this training gives.

    Args:
        setting: the key's place, for the message.
        key: such as 'segm_mAP', 'segm_AP/cat', or 'raw/segm_mAP' where the raw weights are evaluated as well.
    """
    raw = bool(cfg.safe_get('train.ema.evaluate_raw'))
    name = str(key)
    if name.startswith(RAW) and not raw:
        raise ConfigurationError(f'{file}: {setting} is {key!r}, but the raw weights are evaluated with averaged ones '
                                 'beside them only: add "ema": {"evaluate_raw": true} to train')
    names = value_names(cfg)
    if names is not None and name.removeprefix(RAW) not in names:   # else only the metrics know what they give
        near = difflib.get_close_matches(name, [*names, *(RAW + other for other in names if raw)], 1)
        hint = f'did you mean {near[0]!r}?' if near else f'it gives {", ".join(names[:12])}'
        kinds = ' and '.join(metric if isinstance(metric, str) else metric['type'] for metric in metrics_of(cfg))
        raise ConfigurationError(f'{file}: {setting} is {key!r}, which {kinds} does not give; {hint}')


def _check_freeze(setting: int | str | Sequence[str] | None, file: str) -> None:
    names = [setting] if isinstance(setting, str) else setting
    is_count = isinstance(setting, int) and not isinstance(setting, bool) and 0 <= setting <= 5
    is_list = isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)
    if not (setting is None or is_count or is_list):
        raise ConfigurationError(f'{file}: train.freeze must be the number of leading parts of the backbone (1: stem, '
                                 f'2: stem and res2, ... 5), or a list of names; got {setting!r}')


def _check_early_stopping(cfg: Any, file: str) -> None:
    section = plain(cfg.safe_get('train.early_stopping'))
    if section.get('patience') is None:
        raise ConfigurationError(f'{file}: train.early_stopping needs "patience", the number of evaluations without '
                                 'progress after which the training ends')
    delta = section.get('min_delta', 0.0)
    if not (_is_number(delta) and 0 <= delta < math.inf):
        raise ConfigurationError(f'{file}: train.early_stopping.min_delta must be a number of at least 0; '
                                 f'got {delta!r}')
    if section.get('rule', 'max') not in ('max', 'min'):
        raise ConfigurationError(f'{file}: train.early_stopping.rule must be "max" or "min"; got {section["rule"]!r}')
    if cfg.safe_get('evaluation.period') is None:
        raise ConfigurationError(f'{file}: train.early_stopping waits for evaluations, but nothing is evaluated: add '
                                 '"evaluation": {"period": {"interval": 1}}')
    if section.get('metric_key') is not None:
        check_metric_key(cfg, 'train.early_stopping.metric_key', section['metric_key'], file)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)
