"""Pickles that hold numpy arrays and plain containers, read without running anything that is in them.

A pickle is a program: it names functions and calls them. This unpickler knows a few names, those of numpy's arrays, and
puts its own careful versions in their place, so that nothing outside this file is ever called. The opcodes are looked
through first: a file that was cut off, or that asks for more bytes than it has, is refused before anything is built.
"""
from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable
from typing import Any

import numpy as np

# numpy 1 calls its private parts ``core``, numpy 2 ``_core``; files of either are read with either.
_CORES = ('numpy.core', 'numpy._core')
# Plain numbers and text of any byte order: no objects, no structures, no subclasses.
_DTYPE = re.compile(r'[<>|=]?([biufc](1|2|4|8|16)|[SU]\d{1,6})')
_OPCODES = {opcode.code.encode('latin1'): opcode for opcode in pickletools.opcodes}
_BY_NAME = {opcode.name: opcode for opcode in pickletools.opcodes}
_MOST_DIMENSIONS = 64   # numpy's own limit
# Ways to make objects that neither arrays nor plain containers need, by what they make.
_REFUSED = {
    'an object that lies outside the file': ('PERSID', 'BINPERSID', 'NEXT_BUFFER', 'READONLY_BUFFER'),
    'an object of the extension registry': ('EXT1', 'EXT2', 'EXT4'),
    'an object without a function that arrays need': ('OBJ', 'NEWOBJ', 'NEWOBJ_EX'),
    'a set': ('EMPTY_SET', 'ADDITEMS', 'FROZENSET'),
}


class ForeignObjectError(pickle.UnpicklingError):
    """The file wants something built that is neither a numpy array nor a plain container; the message names it."""


class BrokenPickleError(pickle.UnpicklingError):
    """The file was cut off, or is no pickle at all."""


def load_arrays(content: bytes) -> Any:
    """Unpickles numpy arrays, numpy scalars, and dicts, lists, tuples, text and numbers.

    Files of Python 2 are read as well (text as latin-1, as in detectron2's ``.pkl`` files). ``OrderedDict`` comes back
    as a plain ``dict``.

    Args:
        content: the whole file.

    Raises:
        ForeignObjectError: anything else is in it; nothing of that was built or called.
        BrokenPickleError: it was cut off, or is no pickle.
    """
    _look_through(content)
    try:
        return _Unpickler(io.BytesIO(content)).load()
    except ForeignObjectError:
        raise
    # The bytes are a stranger's, and an instruction in the wrong place fails in as many ways as there are.
    except Exception as error:
        raise BrokenPickleError(f'{type(error).__name__}: {error}') from error


def named(value: Any) -> str:
    """A stranger's value for an error message: short text and numbers as they are, of everything else the type.

    A list of twice the same list, sixty times over, would be printed without end.
    """
    if type(value) is str and len(value) <= 60 or type(value) is int and abs(value) < 2 ** 63:
        return repr(value)
    return f'a {type(value).__name__}'


def numpy_stand_ins() -> dict[str, Any]:
    """The careful versions of numpy's functions by the full names under which pickles know them."""
    found: dict[str, Any] = {'numpy.ndarray': _Array, 'numpy.dtype': _DType}
    for core in _CORES:
        found[f'{core}.multiarray._reconstruct'] = _Function(_reconstruct)
        found[f'{core}.multiarray.scalar'] = _Function(_scalar)
        found[f'{core}.numeric._frombuffer'] = _Function(_from_buffer)
    return found


def _look_through(content: bytes) -> None:
    """Reads the opcodes to the end without following them."""
    stream = io.BytesIO(content)
    name = ''
    try:
        while name != 'STOP':
            code = stream.read(1)
            opcode = _OPCODES.get(code)
            if opcode is None:
                raise BrokenPickleError(f'byte {stream.tell() - 1} is no instruction' if code else 'it ends early')
            name = opcode.name
            _read_argument(opcode, stream)
    except (ValueError, IndexError, OverflowError) as error:
        raise BrokenPickleError(str(error)) from error


def _read_argument(opcode: pickletools.OpcodeInfo, stream: io.BytesIO) -> None:
    if opcode.name == 'STRING':   # pickletools takes these for ASCII; Python 2 wrote the bytes of arrays so
        if not stream.readline().endswith(b'\n'):
            raise BrokenPickleError('it ends early')
    elif opcode.arg:
        opcode.arg.reader(stream)


class _Function:
    """A function that a pickle may call, and can do nothing else with."""

    __slots__ = ('_function',)

    def __init__(self, function: Callable):
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)


class _Dict(dict):
    """What an ``OrderedDict`` becomes; the attributes that PyTorch gives its state dicts are left out."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise ForeignObjectError('an OrderedDict with slots')


class _DType:
    """A pickled ``numpy.dtype``."""

    __slots__ = ('dtype',)
    __hash__ = None

    def __init__(self, code: Any, align: Any = False, copy: Any = True):
        if not isinstance(code, str) or not _DTYPE.fullmatch(code):
            objects = code in ('O', 'O8', 'O4', '|O')
            raise ForeignObjectError(f'an array of {"Python objects" if objects else f"dtype {named(code)}"}')
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        version, order, subarray, names, fields = state[:5]
        if order not in ('<', '>', '|', '=') or (subarray, names, fields) != (None, None, None):
            raise ForeignObjectError('an array of structures')
        self.dtype = self.dtype.newbyteorder(order)


class _Array(np.ndarray):
    """A numpy array whose content comes after it: ``_reconstruct`` makes it, ``__setstate__`` fills it."""

    def __new__(cls, *args: Any) -> _Array:
        raise ForeignObjectError('numpy.ndarray without content')

    def __setstate__(self, state: Any) -> None:
        *_, shape, dtype, fortran_order, data = state
        if isinstance(data, list):
            raise ForeignObjectError('an array of Python objects')
        content = _checked_bytes(data, dtype, shape)
        super().__setstate__((1, shape, dtype.dtype, bool(fortran_order), content))


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    if kind is not _Array:
        raise ForeignObjectError(f'an array of the kind {named(kind)}')
    return np.ndarray.__new__(_Array, (0,), np.int8)


def _scalar(dtype: Any, data: Any = None) -> np.generic:
    return np.frombuffer(_checked_bytes(data, dtype, ()), dtype.dtype)[0]


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> np.ndarray:
    if order not in ('C', 'F'):
        raise ForeignObjectError(f'an array in the order {named(order)}')
    return np.frombuffer(_checked_bytes(data, dtype, shape), dtype.dtype).reshape(shape, order=order)


def _checked_bytes(data: Any, dtype: Any, shape: Any) -> bytes:
    """The bytes of an array, after checking that they are all there and no more."""
    if isinstance(data, str):
        data = data.encode('latin1')   # how Python 3 reads the byte strings of Python 2
    if not isinstance(dtype, _DType) or not isinstance(data, (bytes, bytearray)):
        raise ForeignObjectError(f'an array of {type(data).__name__} instead of bytes')
    if not isinstance(shape, tuple) or len(shape) > _MOST_DIMENSIONS:
        raise ForeignObjectError(f'an array of which the shape is a {type(shape).__name__}')
    wrong = [side for side in shape if type(side) is not int or not 0 <= side < 2 ** 63]
    if wrong:
        raise ForeignObjectError(f'an array with {named(wrong[0])} in its shape')
    if math.prod(shape) * dtype.dtype.itemsize != len(data):
        raise BrokenPickleError(f'an array of shape {shape} and dtype {dtype.dtype} with {len(data)} bytes')
    return bytes(data)


def _encode(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding not in ('latin1', 'latin-1', 'iso-8859-1'):
        raise ForeignObjectError(f'_codecs.encode with the encoding {named(encoding)}')
    return text.encode('latin1')


def _no_bytes(*args: Any) -> bytes:
    if args:   # bytes(10 ** 12) would be a lot of zeros
        raise ForeignObjectError('bytes of something else')
    return b''


def _dict(pairs: Any = ()) -> _Dict:
    if not isinstance(pairs, (list, tuple)):
        raise ForeignObjectError('an OrderedDict of something else than pairs')
    return _Dict((_checked_key(key), value) for key, value in pairs)


def _checked_key(key: Any) -> Any:
    # a tuple of tuples of tuples, deep enough, brings Python down when it is hashed
    if not isinstance(key, (str, int, float, bytes, type(None))):
        raise ForeignObjectError(f'a dict with a {type(key).__name__} as a key')
    return key


# pickle's own unpickler is written in C; of this one, in Python, every instruction can be replaced.
class _Unpickler(pickle._Unpickler):
    """Finds the names it knows, and no others; nothing is imported or looked up."""

    def __init__(self, file: io.BytesIO):
        super().__init__(file, encoding='latin1')
        self._known = {
            **numpy_stand_ins(),
            '_codecs.encode': _Function(_encode),
            '__builtin__.bytes': _Function(_no_bytes),
            'builtins.bytes': _Function(_no_bytes),
            'collections.OrderedDict': _Function(_dict),
        }

    def find_class(self, module: str, name: str) -> Any:
        """What stands in the place of a global name."""
        full_name = f'{module}.{name}'
        if full_name not in self._known:
            raise ForeignObjectError(' '.join(full_name[:200].split()))
        return self._known[full_name]

    def load_reduce(self) -> None:
        """Calls a function."""
        args = self.stack.pop()
        function = self.stack[-1]
        if function is _Array:
            raise ForeignObjectError('numpy.ndarray without content')
        if function is not _DType and not isinstance(function, _Function):
            raise ForeignObjectError(f'what a {type(function).__name__} returns')
        self.stack[-1] = function(*args)

    def load_build(self) -> None:
        """Fills an object with its state."""
        state = self.stack.pop()
        if not isinstance(self.stack[-1], (_Array, _DType, _Dict)):
            raise ForeignObjectError(f'a changed {type(self.stack[-1]).__name__.strip("_").lower()}')
        self.stack[-1].__setstate__(state)

    def load_setitems(self) -> None:
        """Adds keys and values to a dict."""
        items = self.pop_mark()
        self._add(self.stack[-1], items)

    def load_setitem(self) -> None:
        """Adds one key and its value to a dict."""
        value, key = self.stack.pop(), self.stack.pop()
        self._add(self.stack[-1], [key, value])

    def load_dict(self) -> None:
        """Makes a dict, in the oldest form."""
        items = self.pop_mark()
        self.append(self._add({}, items))

    def load_inst(self) -> None:
        """Makes an object of a class, in the oldest form; none are known, so the class is named."""
        module, name = (self.readline()[:-1].decode('latin1') for _ in range(2))
        raise ForeignObjectError(f'{module}.{name}')

    @staticmethod
    def _add(target: Any, items: list[Any]) -> dict:
        if not isinstance(target, dict):
            raise ForeignObjectError(f'a changed {type(target).__name__}')
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_checked_key(key)] = value
        return target


def _refuser(what: str) -> Callable[[_Unpickler], None]:
    def refuse(_: _Unpickler) -> None:
        raise ForeignObjectError(what)
    return refuse


_HANDLERS = {'REDUCE': _Unpickler.load_reduce, 'BUILD': _Unpickler.load_build, 'INST': _Unpickler.load_inst,
             'SETITEM': _Unpickler.load_setitem, 'SETITEMS': _Unpickler.load_setitems, 'DICT': _Unpickler.load_dict,
             **{name: _refuser(what) for what, names in _REFUSED.items() for name in names}}
_Unpickler.dispatch = {**pickle._Unpickler.dispatch, **{ord(_BY_NAME[name].code): handler
                                                       for name, handler in _HANDLERS.items()}}
