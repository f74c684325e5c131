"""A training that is asked to stop saves its state first."""
from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

from modelscope.trainers.hooks.hook import Hook

from .optimize_hook import largest
from .processes import is_first, under_torchrun, wait_for_all

# Ctrl-C reaches every process, and torchrun passes it on to every process: that is one request.
_SAME_REQUEST_SECONDS = 3.0


class StopHook(Hook):
    """Saves the state and leaves when the process is asked to stop, by SIGTERM or Ctrl-C; the second time at once."""

    PRIORITY = 80

    def __init__(self) -> None:
        self._asked: int | None = None
        self._asked_at = 0.0
        self._process = 0
        self._previous: dict[int, Any] = {}

    def before_run(self, trainer: Any) -> None:
        self._asked, self._process = None, os.getpid()
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}

    def _ask(self, number: int, frame: Any) -> None:
        if os.getpid() != self._process:   # a loader's worker, which inherits the handler: its parent sees to it
            if number == signal.SIGTERM:
                os._exit(128 + number)
        elif self._asked is None:
            self._asked, self._asked_at = number, time.monotonic()
            if is_first():   # not through a stream, in whose midst the signal may have come
                os.write(2, f'\n{signal.Signals(number).name}: the training saves its state after this step (and '
                            'evaluation) and leaves; once more, and it leaves at once, without\n'.encode())
        elif not under_torchrun() or time.monotonic() - self._asked_at > _SAME_REQUEST_SECONDS:
            self._leave(number)

    def after_train_iter(self, trainer: Any) -> None:
        # A signal may reach one of several processes only; they leave together.
        asked = int(largest(self._asked or 0, trainer.train_outputs['loss'].device))
        if asked and trainer.stepped:
            trainer.checkpoint_hook.save_within_epoch(trainer)
            trainer.logger.info(f'stopped by {signal.Signals(asked).name}; to go on: resume_from=\'latest\'')
            wait_for_all()   # torchrun ends the first process, which writes, soon after another one has left
            self._leave(asked)

    @staticmethod
    def _leave(number: int) -> None:
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    def release(self) -> None:
        """Puts the signals' handlers back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
