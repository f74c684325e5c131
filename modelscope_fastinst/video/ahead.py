"""Work that overlaps: a stage runs in a thread of its own, a few items ahead of who takes them."""
from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any

# How often a waiting thread looks whether it is still wanted, in seconds.
_GLANCE = 0.05


class Ended(Exception):
    """Raised to a stage whose items nobody wants any more, so that it does not begin another."""


class Ahead:
    """The items of an iterable, made in a background thread.

    At most ``depth`` items wait, so that a fast stage does not fill the memory before a slow one. What the iterable
    raises is raised to who takes the items, after those that came before.

    Args:
        items: is iterated, and closed if it is a generator, in the thread.
        depth: how many items may wait.
        ended: set by who no longer wants any items; shared by the stages of a chain, so that none waits for another.
        stop: set by who wants the items to end where they are.
        newest: where there is no room, the oldest waiting item goes: for cameras, which do not wait.

    Attributes:
        dropped: how many items went like this.
    """

    def __init__(self, items: Iterable[Any], depth: int, ended: threading.Event, stop: threading.Event | None = None,
                 newest: bool = False) -> None:
        self.dropped = 0
        self._items, self._ended, self._stop, self._newest = items, ended, stop, newest
        self._waiting: queue.Queue = queue.Queue(max(1, depth))
        self._thread = threading.Thread(target=self._work, name='modelscope-fastinst video', daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Any]:
        """The items, until ``stop``; raises Ended where ``ended`` is set."""
        while self._stop is None or not self._stop.is_set():
            if self._ended.is_set():
                raise Ended
            try:
                kind, value = self._waiting.get(timeout=_GLANCE)
            except queue.Empty:
                continue
            if kind == 'end':
                return
            if kind == 'error':
                raise value
            yield value
            del value   # a large array, which would live until the next is there

    def join(self) -> None:
        """Waits for the thread, once ``ended`` is set; at most as long as it takes over an item."""
        self._thread.join()

    def _work(self) -> None:
        last: tuple[str, Any] = ('end', None)
        try:
            for item in self._items:
                if not self._put(('item', item)):
                    return
                del item
        except Ended:
            return
        except BaseException as error:   # whatever it is, it belongs to who waits for the items
            last = ('error', error)
        finally:
            if hasattr(self._items, 'close'):
                self._items.close()
            self._newest = False
            self._put(last)

    def _put(self, message: tuple[str, Any]) -> bool:
        while not self._ended.is_set():
            try:
                self._waiting.put(message, timeout=_GLANCE if not self._newest else 0)
                return True
            except queue.Full:
                self._drop()
        return False

    def _drop(self) -> None:
        if self._newest:
            try:
                self._waiting.get_nowait()
            except queue.Empty:   # just taken
                return
            self.dropped += 1
