"""From memory to files, whole or not at all: also when the process is killed, or the disk is full."""
from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor, nn

_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, 'EDQUOT', errno.ENOSPC)}
_LEFTOVER = re.compile(r'\..+\.\w+\.tmp')

# Writes the content of one file to a binary stream.
Writer = Callable[[BinaryIO], object]


def save_weights(network: nn.Module | dict[str, Tensor], file: str | Path, *, dtype: torch.dtype | None = None) -> None:
    """Writes weights as safetensors under the published keys.

    The file appears whole or not at all: it is written beside its place, synced, and renamed.

    Args:
        network: the network or its state dict.
        file: the ``.safetensors`` file to write.
        dtype: of the floating-point tensors in the file, e.g. ``torch.float16`` to halve it; None keeps theirs.

    Raises:
        OSError: the file cannot be written; an older one is left as it was.
    """
    write_whole(Path(file), weights_content(network, dtype))


def weights_content(network: nn.Module | dict[str, Tensor], dtype: torch.dtype | None = None) -> bytes:
    """The content of the file that ``save_weights`` writes."""
    from safetensors.torch import save
    state = network.state_dict() if isinstance(network, nn.Module) else network
    tensors = {key: tensor.detach().to('cpu', dtype if tensor.is_floating_point() else None).contiguous()
               for key, tensor in state.items()}
    return save(tensors, metadata={'format': 'pt'})


def write_whole(file: Path, content: bytes) -> None:
    """Writes ``content`` to ``file`` so that a reader sees the old file or the whole new one, never a part.

    Raises:
        OSError: as ``write_together``.
    """
    write_together({file: lambda stream: stream.write(content)}, needed=len(content))


def write_together(files: Mapping[Path, Writer], *, withdraw: Path | None = None, needed: int | None = None) -> None:
    """Writes files that belong together; each appears whole or not at all, and none before all are on the disk.

    They are written beside their places and synced; only then are they renamed, in their order, and the folder is
    synced. A process that is killed leaves at worst the temporary files, which ``remove_leftovers`` knows.

    Args:
        files: what writes each of them, all in one folder.
        withdraw: removed right before the renames, for a set that counts only once its last file is there: an older
            file of that name must not be taken for one that belongs to the new ones.
        needed: about how many bytes they take, for the message where there is no room.

    Raises:
        OSError: a file cannot be written; older ones are left as they were. Where the disk is full the message names
            the file, and free and needed space.
    """
    temporaries = {file: file.with_name(f'.{file.name}.{secrets.token_hex(4)}.tmp') for file in files}
    try:
        for file, write in files.items():
            with _told_if_full(file, needed), open(temporaries[file], 'wb') as stream:
                write(stream)
                stream.flush()
                os.fsync(stream.fileno())
        if withdraw is not None:
            withdraw.unlink(missing_ok=True)
        for file, temporary in temporaries.items():
            os.replace(temporary, file)
        for folder in {file.parent for file in files}:
            sync_folder(folder)
    finally:
        for temporary in temporaries.values():
            temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Makes the renames in a folder survive a power cut, where the system can."""
    if os.name == 'nt':   # no folder can be opened there
        return
    with suppress(OSError):   # a folder may be writable and not readable, or its file system may know no sync of it
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_leftovers(folder: Path) -> list[Path]:
    """Removes the temporary files that a killed process left in a folder, and returns them."""
    leftovers = [file for file in folder.glob('.*.tmp') if _LEFTOVER.fullmatch(file.name) and file.is_file()]
    for file in leftovers:
        file.unlink(missing_ok=True)
    return leftovers


@contextmanager
def _told_if_full(file: Path, needed: int | None) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:   # torch.save makes a RuntimeError of what its stream raises
        cause = error if isinstance(error, OSError) else error.__cause__ or error.__context__
        if not isinstance(cause, OSError):
            raise
        if cause.errno not in _FULL:
            raise cause from None
        free = shutil.disk_usage(file.parent).free
        wanted = f', about {_size(needed)} needed' if needed else ''
        told = OSError(f'{file}: cannot be written ({cause.strerror}; {_size(free)} free on this disk{wanted}); what '
                       'was there before is left as it was. Make room, or give a folder on another disk')
        told.errno = cause.errno
        raise told from error


def _size(count: int) -> str:
    return f'{count / 2 ** 20:.1f} MiB' if count < 2 ** 30 else f'{count / 2 ** 30:.1f} GiB'
