"""A folder that appears whole or not at all: it is built beside its place and renamed when it is complete."""
from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .configuration import CONFIGURATION_FILE


def check_target(target: Path, overwrite: bool, source: Path | None = None) -> None:
    """Whether a model folder may be put at ``target``.

    Args:
        overwrite: an existing model folder may be replaced.
        source: what the model is made from; it must not be lost with the folder.

    Raises:
        FileExistsError: it may not; the message says why.
    """
    if target.exists() and not target.is_dir():
        raise FileExistsError(f'{target}: is a file; give the name of a folder')
    if source is not None and target.resolve() in (source.resolve(), *source.resolve().parents) and target.is_dir():
        raise FileExistsError(f'{target}: is the folder of what is to be converted; give another one')
    if not target.is_dir() or not any(target.iterdir()):
        return
    if not overwrite:
        raise FileExistsError(f'{target}: exists and is not empty; give another folder, or --overwrite to replace it')
    if not (target / CONFIGURATION_FILE).is_file():
        raise FileExistsError(f'{target}: is no model folder (it has no {CONFIGURATION_FILE}) and is not replaced; '
                              f'give another one')


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Gives an empty folder of the same name that takes the place of ``target`` when the block ends.

    It lies in a temporary folder beside ``target``. After an error, an interrupt or SIGTERM (in the main thread it ends
    the block with ``SystemExit(143)``) nothing of it is left, and what was at ``target`` is as it was. An older folder
    there is removed when the new one is complete.

    Raises:
        OSError: the folder cannot be made or renamed.
    """
    with _termination_as_exit():
        yield from _new_folder(target)


def _new_folder(target: Path) -> Iterator[Path]:
    asked, target = target, target.absolute()
    made = _make_parents(target.parent, asked)
    try:
        try:
            workshop = Path(tempfile.mkdtemp(dir=target.parent, prefix=f'.{target.name}.'))
        except OSError as error:
            raise _no_place(asked, target.parent, error) from error
        try:
            building = workshop / target.name
            building.mkdir()
            yield building
            _put(building, target, workshop / 'old')
        finally:
            shutil.rmtree(workshop, ignore_errors=True)
    except BaseException:
        for folder in made:
            with suppress(OSError):   # somebody else put something into it
                folder.rmdir()
        raise


@contextmanager
def _termination_as_exit() -> Iterator[None]:
    """Lets SIGTERM unwind the program as Ctrl-C does; another handler, and other threads, are left alone."""
    if threading.current_thread() is not threading.main_thread() or (
            signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL):
        yield
        return

    def end(number: int, _: Any) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _make_parents(folder: Path, asked: Path) -> list[Path]:
    """Makes a folder and those above it; returns those that were not there, innermost first."""
    missing: list[Path] = []
    try:
        missing += [parent for parent in (folder, *folder.parents) if not parent.exists()]
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        for parent in missing:
            with suppress(OSError):   # it was not made
                parent.rmdir()
        raise _no_place(asked, folder, error) from error
    return missing


def _no_place(asked: Path, folder: Path, error: OSError) -> OSError:
    return OSError(f'{asked}: cannot be made in {folder} ({error.strerror}); give a folder in a place that can be '
                   f'written to')


def _put(building: Path, target: Path, aside: Path) -> None:
    if not target.is_dir():
        os.rename(building, target)
        return
    # a folder cannot be replaced in one step everywhere, so the old one steps aside, and back if that fails
    try:
        os.rename(target, aside)
        os.rename(building, target)
    except BaseException:
        if aside.is_dir() and not target.exists():
            os.rename(aside, target)
        raise
