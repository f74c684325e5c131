"""Pickles as other programs write them, and as nobody should."""
from __future__ import annotations

import io
import pickle
import struct
from typing import Any


class _Python2Pickler(pickle._Pickler):
    """Writes byte strings and ASCII text as Python 2 did: as one kind of string, without a word on what is in it."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_string(self, text: bytes | str) -> None:
        content = text.encode('ascii') if isinstance(text, str) else text
        if self.proto == 0:
            escaped = ''.join(f'\\x{byte:02x}' for byte in content)
            self.write(b"S'" + escaped.encode() + b"'\n")
        else:
            self.write(b'T' + struct.pack('<i', len(content)) + content)
        self.memoize(text)

    dispatch[bytes] = save_string
    dispatch[str] = save_string


def python2_pickle(content: Any, protocol: int = 2) -> bytes:
    """What Python 2 with the numpy of its days would have written."""
    file = io.BytesIO()
    _Python2Pickler(file, protocol, fix_imports=True).dump(content)
    return file.getvalue().replace(b'numpy._core.', b'numpy.core.')


class Calls:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any):
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


def tuple_bomb(levels: int = 60) -> bytes:
    """Instructions for a tuple of twice the same tuple of twice the same tuple, and so on."""
    return b')' + b''.join(b'q%ch%c\x86' % (level, level) for level in range(levels))


def list_bomb(levels: int = 60) -> bytes:
    """The same of lists."""
    return b'](' * levels + b']' + b''.join(b'q%ch%ce' % (level, level) for level in range(levels))
