"""Where a visitor's files lie: folders whose names nobody can guess, removed after a time."""
from __future__ import annotations

import logging
import re
import secrets
import shutil
import threading
import time
from pathlib import Path

from modelscope_fastinst.studio.messages import Refused

logger = logging.getLogger(__name__)

_NAME = re.compile(r'visit-[0-9a-f]{32}')


class Visits:
    """One folder a result. Names are 128 random bits and come from nothing that a visitor sends.

    Args:
        folder: in which they are made; whatever else lies in it is left alone.
        seconds: how long one is kept after it was last used.
        count: how many are kept at most; the longest unused go first.
        size: how many bytes they may hold together.
    """

    def __init__(self, folder: Path, seconds: float, count: int, size: int) -> None:
        self.folder, self.seconds, self.count, self.size = Path(folder), seconds, count, size
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._used: dict[str, float] = {}
        self._left: set[str] = set()   # could not be removed yet
        # A studio that was killed left its visitors' folders behind.
        for path in self.folder.iterdir():
            if _NAME.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
                self._used[path.name] = time.monotonic()

    def new(self) -> str:
        """Makes a folder, after those that have had their time were removed, and returns its name."""
        self.clean(room=1)
        name = f'visit-{secrets.token_hex(16)}'
        (self.folder / name).mkdir(mode=0o700)
        with self._lock:
            self._used[name] = time.monotonic()
        return name

    def path(self, name: str) -> Path:
        """The folder of this name, which is used now.

        Raises:
            Refused: 'expired', also for what never was a name.
        """
        with self._lock:
            if name not in self._used:
                raise Refused('expired')
            self._used[name] = time.monotonic()
        path = self.folder / name
        if not path.is_dir():
            raise Refused('expired')
        return path

    def holds(self, name: str) -> bool:
        """Whether there is a folder of this name; asking is no use of it."""
        with self._lock:
            return name in self._used

    def remove(self, name: str) -> None:
        """Removes a folder with all that is in it; one that is gone already is no error."""
        with self._lock:
            known = self._used.pop(name, None) is not None
        if known:
            self._remove(name)

    def clean(self, room: int = 0) -> list[str]:
        """Removes the folders that have had their time, and the longest unused of too many; returns their names.

        Args:
            room: how many are about to come.
        """
        now = time.monotonic()
        for name in list(self._left):
            self._remove(name)
        with self._lock:
            by_use = sorted(self._used.items(), key=lambda item: -item[1])
        kept, size, removed = 0, 0, []
        for name, used in by_use:
            size += _size(self.folder / name)
            # The very latest stays whatever its size: somebody looks at it.
            fits = kept < max(self.count - room, 1) and (size <= self.size or not kept)
            if fits and now - used <= self.seconds:
                kept += 1
            else:
                self.remove(name)
                removed.append(name)
        return removed

    def clear(self) -> None:
        """Removes them all."""
        for name in list(self._used):
            self.remove(name)

    def _remove(self, name: str) -> None:
        """Removes a folder; one that will not go (a file is open, on Windows) is tried again each time."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        if not (self.folder / name).exists():
            self._left.discard(name)
        elif name not in self._left:
            self._left.add(name)
            logger.warning('%s: cannot be removed; this is tried again', self.folder / name)


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob('*'):
        try:
            total += path.stat().st_size
        except FileNotFoundError:   # another visitor's call removed it just now
            continue
    return total
