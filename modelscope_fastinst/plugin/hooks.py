"""What happens around a training step; a file each, gathered here under one name.

They replace the library's hooks for the same configuration keys. Order within a stage follows their priorities:
optimise, average, evaluate, log, save a checkpoint (`checkpoint_hook`).
"""
from .ema_hook import EmaHook
from .evaluation_hook import EvaluationHook, ends_within_epoch
from .optimize_hook import OptimizeHook, largest
from .progress_hook import ProgressHook, memory_mb
from .training_log import LOG_FILE, forget_log_after, write_log

__all__ = ['LOG_FILE', 'EmaHook', 'EvaluationHook', 'OptimizeHook', 'ProgressHook', 'ends_within_epoch',
           'forget_log_after', 'largest', 'memory_mb', 'write_log']
