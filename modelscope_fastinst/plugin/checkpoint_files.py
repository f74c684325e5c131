"""The files of saved states in a work folder: which are there, which are whole, what a killed process left over.

Of every state there are two files, named as the library names them: ``epoch_N.pth`` (or ``iter_N.pth``), the network's
state dict with its published keys, and ``epoch_N_trainer_state.pth`` with everything else. A state counts only once
both are there.
"""
from __future__ import annotations

import logging
import os
import re
import secrets
import zipfile
import zlib
from pathlib import Path

import torch

from modelscope_fastinst.checkpoints import CheckpointError
from modelscope_fastinst.checkpoints.writing import remove_leftovers, write_together

from .processes import from_first

STATE_SUFFIX = '_trainer_state.pth'
_NAME = re.compile(r'(epoch|iter)_(\d+)')


def write_state(work_dir: str | os.PathLike, name: str, network: dict, state: dict) -> Path:
    """Writes the two files of a state; an older one of this name counts no longer as soon as one of them is there.

    Returns:
        The model file.

    Raises:
        OSError: no room, or no right to write; other states are left as they were.
    """
    model_file, state_file = _files(Path(work_dir, name))
    write_together({model_file: lambda stream: torch.save(network, stream),
                    state_file: lambda stream: torch.save(state, stream)},
                   withdraw=state_file, needed=_bytes_in(network) + _bytes_in(state))
    return model_file


def saved_states(work_dir: str | os.PathLike) -> list[str]:
    """Names (``epoch_3``) of the complete states in a folder, oldest first."""
    folder = Path(work_dir)
    names = [file.name.removesuffix(STATE_SUFFIX) for file in folder.glob(f'*{STATE_SUFFIX}')
             if _NAME.fullmatch(file.name.removesuffix(STATE_SUFFIX))]
    names = [name for name in names if (folder / f'{name}.pth').exists()]
    return sorted(names, key=lambda name: (folder / f'{name}{STATE_SUFFIX}').stat().st_mtime_ns)


def remove_state(work_dir: str | os.PathLike, name: str) -> None:
    """Removes both files of a state; killed at any moment it leaves nothing that ``remove_remains`` does not find."""
    model_file, state_file = _files(Path(work_dir, name))
    aside = model_file.with_name(f'.{model_file.name}.{secrets.token_hex(4)}.tmp')
    os.replace(model_file, aside)
    state_file.unlink()
    aside.unlink()


def remove_remains(work_dir: str | os.PathLike) -> list[Path]:
    """Removes what a killed process left in a work folder, and returns it: temporary files, and halves of states."""
    removed = remove_leftovers(Path(work_dir))
    for file in list(removed):
        name = file.name[1:].rsplit('.', 2)[0].removesuffix(STATE_SUFFIX).removesuffix('.pth')
        files = _files(Path(work_dir, name))
        if _NAME.fullmatch(name) and not all(half.exists() for half in files):
            for half in files:
                if half.exists():
                    half.unlink()
                    removed.append(half)
    return removed


def find_state(checkpoint: str | os.PathLike, work_dir: str | os.PathLike) -> tuple[Path, Path] | None:
    """The model and the trainer-state file of a checkpoint.

    Args:
        checkpoint: 'latest', a path to either file, or that path without its suffix (``.../epoch_3``).
        work_dir: where 'latest' looks.

    Returns:
        (model file, state file), or None if 'latest' finds nothing.

    Raises:
        FileNotFoundError: one of the two files is not there.
    """
    if checkpoint == 'latest':
        names = saved_states(work_dir)
        return _files(Path(work_dir, names[-1])) if names else None
    files = _files(Path(os.fspath(checkpoint).removesuffix(STATE_SUFFIX).removesuffix('.pth')))
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise FileNotFoundError(f'cannot resume from {checkpoint}: there is no {" and no ".join(missing)}')
    return files


def find_whole_state(checkpoint: str | os.PathLike, work_dir: str | os.PathLike,
                     logger: logging.Logger) -> tuple[Path, Path] | None:
    """As ``find_state``, of undamaged files; for 'latest' an older state takes the place of a damaged one.

    With several processes the first one looks, and all take what it has found.

    Raises:
        CheckpointError: the files that were asked for are damaged, or all that there are.
    """
    return from_first(lambda: _find_whole(checkpoint, work_dir, logger))


def _find_whole(checkpoint: str | os.PathLike, work_dir: str | os.PathLike,
                logger: logging.Logger) -> tuple[Path, Path] | None:
    if checkpoint != 'latest':
        files = find_state(checkpoint, work_dir)
        damages = _damages(files)
        if damages:
            raise CheckpointError(f'cannot resume from {checkpoint}: {"; ".join(damages)}. Resume from another '
                                  'checkpoint, or from "latest", which takes the latest one that is whole')
        return files
    found = []
    for name in reversed(saved_states(work_dir)):
        files = _files(Path(work_dir, name))
        damages = _damages(files)
        if not damages:
            if found:
                logger.warning(f'{"; ".join(found)}: going back to {name}')
            return files
        found += damages
    if found:
        raise CheckpointError(f'cannot resume in {work_dir}: {"; ".join(found)}, and there is no other checkpoint. '
                              'Delete them to start from the beginning')
    return None


def _damages(files: tuple[Path, Path]) -> list[str]:
    found = []
    for file in files:
        try:
            with zipfile.ZipFile(file) as archive:
                broken = archive.testzip()
            if broken is not None:
                found.append(f'{file} is damaged (the checksum of {broken} is wrong)')
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            found.append(f'{file} is damaged ({error or "cut short"})')
    return found


def _files(prefix: Path) -> tuple[Path, Path]:
    return prefix.with_name(f'{prefix.name}.pth'), prefix.with_name(f'{prefix.name}{STATE_SUFFIX}')


def _bytes_in(content: object) -> int:
    """About how much room a state takes: that of its tensors."""
    if isinstance(content, torch.Tensor):
        return content.numel() * content.element_size()
    parts = content.values() if isinstance(content, dict) else content if isinstance(content, (list, tuple)) else ()
    return sum(_bytes_in(part) for part in parts)
