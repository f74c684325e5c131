"""The trainer's own hooks, as its configuration asks for them."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .checkpoint_hook import CheckpointHook
from .configuration import plain
from .ema_hook import EmaHook
from .evaluation_hook import EarlyStoppingHook, EvaluationHook
from .log_hook import LogHook
from .measured_tasks import BEST_OF
from .processes import ProcessesHook
from .progress_hook import ProgressHook
from .stop_hook import StopHook


def build_hooks(cfg: Any, settings: Mapping[str, dict]) -> dict[str, Any]:
    """The hooks by name, less the one that steps the optimiser.

    Args:
        cfg: the configuration.
        settings: what ``trainer_config.hook_settings`` found in the library's hook list.
    """
    hooks: dict[str, Any] = {
        'processes': ProcessesHook(),
        'checkpoint': CheckpointHook(**settings.get('checkpoint', {}), best=settings.get('best')),
        'stop': StopHook(), 'progress': ProgressHook(**settings.get('progress', {})),
        'log': LogHook(cfg.safe_get('train.logging.curves') is not False)}
    if 'evaluation' in settings:
        hooks['evaluation'] = EvaluationHook(**settings['evaluation'])
    if cfg.safe_get('train.ema') is not None:   # an empty section has the defaults
        hooks['ema'] = EmaHook(**plain(cfg.train['ema']))
    if cfg.safe_get('train.early_stopping'):
        best = settings.get('best') or {}
        usual = BEST_OF[cfg.safe_get('model.task') or 'instance']
        hooks['early_stopping'] = EarlyStoppingHook(
            **{'metric_key': best.get('metric_key', usual), **plain(cfg.train['early_stopping'])})
    return hooks
