"""A folder that appears whole or not at all: it is built beside its place and renamed when it is complete."""
from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

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

    It lies in a temporary folder beside ``target``. After an error or an interrupt nothing of it is left, and what was
    at ``target`` is as it was. An older folder there is removed when the new one is complete.

    Raises:
        OSError: the folder cannot be made or renamed.
    """
    target = target.absolute()
    made = _make_parents(target.parent)
    try:
        workshop = Path(tempfile.mkdtemp(dir=target.parent, prefix=f'.{target.name}.'))
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


def _make_parents(folder: Path) -> list[Path]:
    """Makes a folder and those above it; returns those that were not there, innermost first."""
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _put(building: Path, target: Path, aside: Path) -> None:
    if not target.is_dir():
        os.rename(building, target)
        return
    # a folder cannot be replaced in one step everywhere, so the old one steps aside, and back if that fails
    os.rename(target, aside)
    try:
        os.rename(building, target)
    except BaseException:
        os.rename(aside, target)
        raise
