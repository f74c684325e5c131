"""Whose turn it is: a fair queue with an end."""
from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from modelscope_fastinst.studio.messages import Refused

Told = Callable[[int], object]
_TELL_SECONDS = 0.5   # how often somebody who waits looks whether the visitor is still there


class Turns:
    """Lets ``parallel`` threads work at once, in the order in which they came; others wait, if there are not too many.

    Args:
        parallel: how many work at once.
        queue: how many may wait.
        seconds: how long one waits at most.
    """

    def __init__(self, parallel: int, queue: int, seconds: float) -> None:
        self.parallel, self.queue, self.seconds = parallel, queue, seconds
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._working = 0

    @property
    def waiting(self) -> int:
        """How many wait now."""
        return len(self._waiting)

    @contextmanager
    def turn(self, told: Told | None = None, patient: bool = False) -> Iterator[None]:
        """Waits for a turn and holds it.

        Args:
            told: called, while waiting, with how many are before this one, itself not included, each time that changes.
                What it raises ends the waiting.
            patient: wait however many wait and however long it takes: for work that is already begun.

        Raises:
            Refused: 'busy' when too many wait already, 'timeout' when it took too long.
        """
        self._wait(told, patient)
        try:
            yield
        finally:
            with self._changed:
                self._working -= 1
                self._changed.notify_all()

    def give_way(self) -> None:
        """Lets whoever waits go first, in the middle of a turn; called by who holds one."""
        with self._changed:
            if not self._waiting:
                return
            self._working -= 1
            self._changed.notify_all()
        self._wait(None, patient=True)

    def _wait(self, told: Told | None, patient: bool) -> None:
        me = object()
        with self._changed:
            if not self._waiting and self._working < self.parallel:
                self._working += 1
                return
            if len(self._waiting) >= self.queue and not patient:
                raise Refused('busy', waiting=len(self._waiting))
            self._waiting.append(me)
        end, last = time.monotonic() + (float('inf') if patient else self.seconds), None
        try:
            while True:
                with self._changed:
                    if self._waiting[0] is me and self._working < self.parallel:
                        self._working += 1
                        return
                    before = self._waiting.index(me)
                    if before == last:
                        self._changed.wait(min(_TELL_SECONDS, max(0.0, end - time.monotonic())))
                        before = self._waiting.index(me)
                if before != last and told is not None:
                    told(before)   # outside the lock: it may take its time
                last = before
                if time.monotonic() >= end:
                    raise Refused('timeout', seconds=self.seconds)
        finally:
            with self._changed:
                self._waiting.remove(me)
                self._changed.notify_all()
