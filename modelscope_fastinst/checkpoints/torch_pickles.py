"""The pickles inside PyTorch's files, looked through before PyTorch follows them.

PyTorch builds nothing that it does not know, but it hashes and prints whatever a file puts together. A tuple of twice
the same tuple, sixty times over, takes a hundred bytes in a file and an age to hash. Here the instructions are followed
with placeholders: nothing is called, built, hashed or printed, and such tuples are refused.
"""
from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

from .unpickling import ForeignObjectError

# What PyTorch's own unpickler understands; it refuses the others by their number.
_KNOWN = {
    'PROTO', 'GLOBAL', 'NEWOBJ', 'REDUCE', 'BUILD', 'APPEND', 'APPENDS', 'SETITEM', 'SETITEMS', 'MARK', 'TUPLE',
    'TUPLE1', 'TUPLE2', 'TUPLE3', 'NONE', 'NEWFALSE', 'NEWTRUE', 'EMPTY_TUPLE', 'EMPTY_LIST', 'EMPTY_DICT', 'EMPTY_SET',
    'BININT', 'BININT1', 'BININT2', 'BINFLOAT', 'BINUNICODE', 'SHORT_BINSTRING', 'BINPERSID', 'BINGET', 'LONG_BINGET',
    'BINPUT', 'LONG_BINPUT', 'LONG1', 'STOP'}
# Honest files nest tuples three or four deep.
_DEEPEST = 50
# A tuple that a file spells out has fewer parts than the file has bytes; small ones may be repeated.
_MANY = 100_000
# The old format: a magic number, a version, the system, the content, the names of the storages.
_LEGACY_PICKLES = 5


def look_through_archive(path: Path) -> None:
    """Looks through the pickles of a zip archive that ``torch.save`` wrote.

    Raises:
        ForeignObjectError: one of them puts something together that takes an age to hash or to print.
        Exception: of any kind, where a pickle is broken.
    """
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.filename.lower().endswith('.pkl'):
                content = archive.read(entry)
                _LookingThrough(io.BytesIO(content), len(content)).load()


def look_through_legacy(path: Path) -> None:
    """The same for a file as ``torch.save`` wrote them before PyTorch 1.6: several pickles, then the numbers."""
    size = path.stat().st_size
    with open(path, 'rb') as file:
        for _ in range(_LEGACY_PICKLES):
            _LookingThrough(file, size).load()


class _Name:
    """What a global name stands for; PyTorch decides whether it is one that it knows."""

    __slots__ = ()


class _Made:
    """What a call would give."""

    __slots__ = ()


class _Measured(tuple):
    """A tuple that knows how deep it goes and how many parts it has, those that are shared counted every time."""

    depth: int
    parts: int


class _LookingThrough(pickle._Unpickler):
    """Follows the instructions of a pickle with placeholders."""

    def __init__(self, file: BinaryIO, size: int):
        super().__init__(file, encoding='latin1')
        self._most = max(size, _MANY)

    def find_class(self, module: str, name: str) -> _Name:
        """A placeholder, whatever the name is."""
        return _Name()

    def load_persid_of_storage(self) -> None:
        """Takes what stands for a storage, gives a placeholder; what else may stand there PyTorch refuses by name."""
        described = self.stack[-1]
        self.stack[-1] = _Name() if isinstance(described, tuple) and described[:1] == ('module',) else _Made()

    def load_reduce(self) -> None:
        """A call: of a name, nothing else."""
        self.stack.pop()
        self._replace_name('what a {} returns')

    def load_newobj(self) -> None:
        """A new object: of a name, nothing else."""
        self.stack.pop()
        self._replace_name('an object of a {}')

    def load_build(self) -> None:
        """A state that is put into an object."""
        self.stack.pop()

    def load_append(self) -> None:
        """An item for a list; what is in lists is hashed by nobody."""
        self.stack.pop()

    def load_appends(self) -> None:
        """Several items for a list."""
        self.pop_mark()

    def load_setitem(self) -> None:
        """A key and its value for a dict; of keys only tuples can be large, and those are measured."""
        del self.stack[-2:]

    def load_setitems(self) -> None:
        """Several of them."""
        self.pop_mark()

    def load_tuple(self) -> None:
        """A tuple of everything since the mark."""
        items = self.pop_mark()
        self.append(self._measured(items))

    def load_tuple1(self) -> None:
        """A tuple of one."""
        self.stack[-1:] = [self._measured(self.stack[-1:])]

    def load_tuple2(self) -> None:
        """A tuple of two."""
        self.stack[-2:] = [self._measured(self.stack[-2:])]

    def load_tuple3(self) -> None:
        """A tuple of three."""
        self.stack[-3:] = [self._measured(self.stack[-3:])]

    def load_unknown(self) -> None:
        """An instruction that PyTorch does not know either."""
        raise pickle.UnpicklingError('it has an instruction that torch.save does not write')

    def _replace_name(self, otherwise: str) -> None:
        if type(self.stack[-1]) is not _Name:
            raise ForeignObjectError(otherwise.format(type(self.stack[-1]).__name__.strip('_').lower()))
        self.stack[-1] = _Made()

    def _measured(self, items: list[Any]) -> _Measured:
        inner = [item for item in items if type(item) is _Measured]
        made = _Measured(items)
        made.depth = 1 + max((item.depth for item in inner), default=0)
        made.parts = 1 + len(items) + sum(item.parts for item in inner)
        if made.depth > _DEEPEST or made.parts > self._most:
            raise ForeignObjectError(f'a tuple of tuples, {made.depth} deep and too large')
        return made


_HANDLERS = {'REDUCE': _LookingThrough.load_reduce, 'NEWOBJ': _LookingThrough.load_newobj,
             'BUILD': _LookingThrough.load_build, 'APPEND': _LookingThrough.load_append,
             'APPENDS': _LookingThrough.load_appends, 'SETITEM': _LookingThrough.load_setitem,
             'SETITEMS': _LookingThrough.load_setitems, 'TUPLE': _LookingThrough.load_tuple,
             'TUPLE1': _LookingThrough.load_tuple1, 'TUPLE2': _LookingThrough.load_tuple2,
             'TUPLE3': _LookingThrough.load_tuple3, 'BINPERSID': _LookingThrough.load_persid_of_storage}
_LookingThrough.dispatch = {
    ord(opcode.code): _HANDLERS.get(opcode.name, pickle._Unpickler.dispatch[ord(opcode.code)])
    if opcode.name in _KNOWN else _LookingThrough.load_unknown for opcode in pickletools.opcodes}
