"""The file formats of weights: safetensors, PyTorch's two, and pickles of numpy arrays.

Nothing in a file is ever run. A file that was cut off is told from one that asks for something to be built that is
neither a tensor nor a plain container.
"""
from __future__ import annotations

import pickle
import re
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from .torch_pickles import look_through_archive, look_through_legacy
from .unpickling import BrokenPickleError, ForeignObjectError, load_arrays, numpy_stand_ins

# torch.save's format before 1.6 begins with a pickled magic number, after the pickle protocol (2, or 3 if asked for).
_LEGACY = b'\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19'
# How torch's own restricted unpickler names what it refuses.
_REFUSED = re.compile(r'(?:unsupported GLOBAL|Unsupported global: GLOBAL|unrecognized function) (\S+)')
# The list of names that torch takes besides its own is the process's, so one file at a time.
_NAMES_OF_THE_PROCESS = threading.Lock()


class CheckpointError(ValueError):
    """Weights that are missing, unreadable, or of another network."""


def read_content(path: Path) -> Any:
    """What a weight file holds: for safetensors the tensors by name, else whatever was pickled.

    Raises:
        CheckpointError: the file is none of these, is broken or cut off, or holds more than tensors, arrays and plain
            containers; the message names the first such thing.
    """
    try:
        size = path.stat().st_size
        with open(path, 'rb') as file:
            head = file.read(16)
    except OSError as error:
        raise CheckpointError(f'{path}: cannot be read ({error.strerror})') from error
    # a safetensors file begins with the length of its JSON header
    if path.suffix == '.safetensors' or (head[8:9] == b'{' and int.from_bytes(head[:8], 'little') < size):
        return _read_safetensors(path)
    if not head:
        raise _broken(path, 'it is empty')
    if head.startswith(b'PK'):
        _check_archive(path)
        return _read_torch(path, look_through_archive)
    legacy = head[:2] in (b'\x80\x02', b'\x80\x03') and head[2:].startswith(_LEGACY)
    return _read_torch(path, look_through_legacy) if legacy else _read_arrays(path)


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f'{path}: cannot be read as safetensors ({error}); '
                              f'the file is broken or cut off: fetch it again') from error


def _read_arrays(path: Path) -> Any:
    content = path.read_bytes()
    try:
        return load_arrays(content)
    except ForeignObjectError as error:
        raise _foreign(path, str(error), 'tensors are written by torch.save, not by pickle: give the file that this '
                                         'one was converted from (for a Swin its authors\' .pth)') from error
    except BrokenPickleError as error:
        if content[:64].isascii() and not set(content[:64]) & set(range(9)) and content[:1] != b'(':
            raise CheckpointError(f'{path}: is a text file, not weights; it begins with {_shown(content)}. A web page '
                                  f'or a git-lfs pointer looks like this: fetch the file itself') from error
        if content[:1] not in b'\x80(}':
            raise CheckpointError(f'{path}: is no weight file, or a broken or cut-off one; it begins with '
                                  f'{_shown(content)}. Known are safetensors, PyTorch files and pickles') from error
        raise _broken(path, f'as a pickle: {error}') from error


def _check_archive(path: Path) -> None:
    """The checksums of a PyTorch file, which is a zip archive; torch itself does not look at them."""
    try:
        with zipfile.ZipFile(path) as archive:
            # torch stores; a compressed entry could unpack to any size
            packed = next((entry.filename for entry in archive.infolist() if entry.compress_type), None)
            damaged = None if packed else archive.testzip()
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise _broken(path, f'as a PyTorch file: {error}') from error
    if packed or not any(name.endswith('/data.pkl') for name in names):
        raise CheckpointError(f'{path}: is a zip archive, but not one that torch.save wrote; give the file of weights')
    if damaged:
        raise _broken(path, f'its checksum of {damaged} is wrong')


def _read_torch(path: Path, look_through: Callable[[Path], None]) -> Any:
    try:
        look_through(path)
        return _load(path)
    except ForeignObjectError as error:
        raise _foreign(path, str(error), '') from error
    except pickle.UnpicklingError as error:
        refused = _REFUSED.search(str(error))
        ours = error.__context__   # torch puts every reason into an error of its own
        if refused or isinstance(ours, ForeignObjectError):
            raise _foreign(path, refused[1] if refused else str(ours),
                           'save the state_dict() of a network, not the network') from error
        # torch's first lines advise to switch the protection off, the reason comes after them
        reason = str(error).partition('WeightsUnpickler error: ')[2] or str(error)
        raise CheckpointError(f'{path}: is no PyTorch file of tensors and plain containers only, or a broken or cut-'
                              f'off one ({_first_line(reason)}); files that hold other objects are not loaded, because '
                              f'they can run code') from error
    # The bytes are a stranger's, and torch meets nonsense in them with errors of a dozen kinds.
    except Exception as error:
        raise _broken(path, f'as a PyTorch file: {_first_line(str(error)) or type(error).__name__}') from error


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        refused = _REFUSED.search(str(error))
        if not refused or refused[1] not in numpy_stand_ins():
            raise
    # Training states hold numbers of numpy.
    with _NAMES_OF_THE_PROCESS, _numpy_allowed():
        return torch.load(path, map_location='cpu', weights_only=True)


@contextmanager
def _numpy_allowed() -> Iterator[None]:
    """Lets torch build what our careful versions of numpy's functions build.

    What the program itself has allowed under these names steps aside and comes back; other entries are not touched. The
    list is the process's: while the file is read, another thread's ``torch.load`` finds our entries in it, and builds
    arrays of plain numbers with them; what it reads is the same, but it may do so where it would have refused.
    """
    stand_ins = numpy_stand_ins()
    aside = [entry for entry in torch.serialization.get_safe_globals() if _full_name(entry) in stand_ins]
    with torch.serialization.safe_globals(aside):
        pass   # what was allowed in such a block is not allowed after it
    try:
        with torch.serialization.safe_globals([(function, name) for name, function in stand_ins.items()]):
            yield
    finally:
        torch.serialization.add_safe_globals(aside)


def _full_name(entry: Any) -> str:
    return entry[1] if isinstance(entry, tuple) else f'{entry.__module__}.{entry.__qualname__}'


def _foreign(path: Path, name: str, advice: str) -> CheckpointError:
    hint = f'; {advice}' if name.startswith('torch.') else ''
    return CheckpointError(f'{path}: wants to build {name}; only tensors, numpy arrays and plain containers are read, '
                           f'because other objects can run code{hint}')


def _broken(path: Path, how: str) -> CheckpointError:
    return CheckpointError(f'{path}: cannot be read ({how}); the file is broken or cut off: fetch it again')


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or [''])[0][:200]


def _shown(content: bytes) -> str:
    return repr(content[:24].decode('latin1'))
