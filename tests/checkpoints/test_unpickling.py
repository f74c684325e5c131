"""The restricted unpickler: arrays come back, and nothing else is ever built."""
from __future__ import annotations

import builtins
import io
import os
import pickle
import struct
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelscope_fastinst.checkpoints.unpickling import BrokenPickleError, ForeignObjectError, load_arrays
from tests.checkpoints.pickles import Calls, list_bomb, python2_pickle, tuple_bomb

ARRAYS = {
    'float32': np.arange(6, dtype=np.float32).reshape(2, 3),
    'float16': np.ones((2, 2), np.float16),
    'columns first': np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    'a view': np.arange(24, dtype=np.int64).reshape(4, 6)[::2, ::3],
    'big-endian': np.arange(3, dtype='>i4'),
    'bool': np.array([True, False]),
    'no dimension': np.array(7, np.int64),
    'no value': np.zeros((0, 3), np.float32),
    'text': np.array(['ab', 'c']),
    'a number': np.float64(3.5),
    'a truth': np.bool_(True),
}
CONTENT = {'model': OrderedDict(ARRAYS), '__author__': 'torchvision', 'matching_heuristics': True,
           'others': [1, (2.5, None), {'deep': [b'bytes']}]}


def assert_arrays(read):
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(read[name], array, strict=False)
        assert np.asarray(read[name]).dtype.newbyteorder('=') == np.asarray(array).dtype.newbyteorder('=')


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_plain_containers_come_back(protocol):
    read = load_arrays(pickle.dumps(CONTENT, protocol))
    assert_arrays(read['model'])
    assert {key: value for key, value in read.items() if key != 'model'} == {
        key: value for key, value in CONTENT.items() if key != 'model'}


@pytest.mark.parametrize('protocol', [0, 1, 2])
def test_files_of_python_2_are_read(protocol):
    content = python2_pickle({'model': dict(ARRAYS), '__author__': 'somebody'}, protocol)
    assert b'_codecs' not in content and b'numpy.core.multiarray' in content
    read = load_arrays(content)
    assert_arrays(read['model'])
    assert read['__author__'] == 'somebody'


@pytest.mark.parametrize('core', ['numpy.core', 'numpy._core'])
def test_files_of_numpy_1_and_2_are_read(core):
    content = pickle.dumps(ARRAYS['float32'], 2).replace(b'numpy._core', b'numpy.core')
    read = load_arrays(content.replace(b'numpy.core', core.encode()))
    np.testing.assert_array_equal(read, ARRAYS['float32'])


def test_the_attributes_of_a_state_dict_are_left_out():
    state = torch.nn.Linear(2, 2).state_dict()   # an OrderedDict with _metadata
    state = type(state)(state)
    state._metadata = {'version': 1}
    for key in state:
        state[key] = state[key].numpy()
    read = load_arrays(pickle.dumps(state))
    assert list(read) == ['weight', 'bias'] and not hasattr(read, '_metadata')


class Slots:
    __slots__ = ('value',)


def extension(code: int) -> bytes:
    return b'\x80\x02\x82' + bytes([code]) + b'.'


class PersistentPickler(pickle.Pickler):
    def persistent_id(self, value):
        return 'elsewhere' if value == 'outside' else None


def persistent(protocol: int) -> bytes:
    file = io.BytesIO()
    PersistentPickler(file, protocol).dump(['outside'])
    return file.getvalue()


def structured() -> np.ndarray:
    return np.zeros(2, [('a', 'i4'), ('b', 'f4')])


HOSTILE = [
    pytest.param(lambda p: pickle.dumps(Calls(os.system, 'true'), p), r'(posix|nt)\.system', id='os.system'),
    pytest.param(lambda p: pickle.dumps(Calls(os.mkdir, 'hostile-code-ran'), p), r'(posix|nt)\.mkdir', id='os.mkdir'),
    pytest.param(lambda p: pickle.dumps(Calls(eval, '1'), p), r'builtin.*\.eval', id='eval'),
    pytest.param(lambda p: pickle.dumps(Calls(getattr, Calls(__import__, 'os'), 'system'), p),
                 r'builtin.*\.(getattr|__import__)', id='a chain of getattr'),
    pytest.param(lambda p: pickle.dumps({'good': np.ones(2), 'bad': [Calls(exec, '1')]}, p), r'builtin.*\.exec',
                 id='deep among arrays'),
    pytest.param(lambda p: pickle.dumps(torch.ones(2), p), r'torch\._utils\._rebuild_tensor', id='a tensor of torch'),
    pytest.param(lambda p: pickle.dumps(Slots(), max(p, 2)), r'Slots|__newobj__', id='a class of somebody\'s'),
    pytest.param(lambda p: pickle.dumps(np.array([1, 'a', None], object), p), 'array of Python objects',
                 id='an array of objects'),
    pytest.param(lambda p: pickle.dumps(np.dtype('O'), p), 'array of Python objects', id='the dtype of objects'),
    pytest.param(lambda p: pickle.dumps(structured(), p), 'dtype', id='an array of structures'),
    pytest.param(lambda p: pickle.dumps(np.ma.zeros(2), p), r'numpy\.ma\.core', id='a masked array'),
    pytest.param(lambda p: pickle.dumps(np.recarray((2,), formats=['i4']), p), r'numpy\.(rec|recarray|record)',
                 id='a subclass of arrays'),
    pytest.param(lambda p: pickle.dumps(Calls(builtins.bytes, 10 ** 12), p), 'bytes', id='a terabyte of zeros'),
    pytest.param(lambda p: pickle.dumps(Calls(bytearray, 10 ** 12), p), r'builtin.*\.bytearray',
                 id='a changeable terabyte'),
    pytest.param(persistent, 'outside the file', id='a reference out of the file'),
]


@pytest.mark.parametrize('protocol', [0, 2, pickle.HIGHEST_PROTOCOL])
@pytest.mark.parametrize(('write', 'name'), HOSTILE)
def test_anything_else_is_refused_by_name(write, name, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ForeignObjectError, match=name):
        load_arrays(write(protocol))
    assert os.listdir(tmp_path) == []


def reconstruct(tail: bytes) -> bytes:
    """An array that is begun, on the stack, and then ``tail``."""
    return b'\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R' + tail


@pytest.mark.parametrize(('content', 'name'), [
    pytest.param(b'\x80\x04\x8c\x05numpy\x8c\x0bos.system.x\x93.', r'numpy\.os\.system\.x', id='a name with dots'),
    pytest.param(b'\x80\x04\x8c\x05numpy\x8c\x08__dict__\x93.', r'numpy\.__dict__', id='the inside of a module'),
    pytest.param(b'cmodelscope_fastinst.checkpoints.unpickling\npickle\n.', r'unpickling\.pickle',
                 id='the unpickler\'s own module'),
    pytest.param(extension(1), 'extension registry', id='a number of the extension registry'),
    pytest.param(b'\x80\x02c_codecs\nencode\n}U\x0b__globals__}sb.', 'a changed function', id='a change to a function'),
    pytest.param(b'\x80\x02]]\x85R.', 'what a list returns', id='a call of no function'),
    pytest.param(b'\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.', 'rot13',
                 id='another text encoding'),
    pytest.param(b'\x80\x02cnumpy\nndarray\nK\x05\x85R.', 'without content', id='memory that nobody filled'),
    pytest.param(b'\x80\x02cnumpy\nndarray\nK\x05\x85\x81.', 'without a function', id='the same as a new object'),
    pytest.param(b'(cnumpy\nndarray\nK\x05o.', 'without a function', id='the same in an older form'),
    pytest.param(b'(K\x05inumpy\nndarray\n.', 'numpy.ndarray', id='the same in the oldest form'),
    pytest.param(b'(ios\nsystem\n.', 'os.system', id='an instance by name'),
    pytest.param(b'\x80\x02' + b'}' + b')' + b'\x85' * 100000 + b'K\x01s.', 'a tuple as a key',
                 id='a key too deep to be hashed'),
    pytest.param(b'\x80\x04\x8f(K\x01\x90.', 'a set', id='a set'),
    pytest.param(b'\x80\x02cnumpy\nndarray\n}X\x01\x00\x00\x00a]sb.', 'a changed', id='a change to a class'),
    pytest.param(b'\x80\x02]K\x01K\x02s.', 'a changed list', id='an item of no dict'),
    pytest.param(b'\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\ndtype\nK\x00\x85U\x01b\x87R.',
                 'array of the kind', id='an array of another class'),
    pytest.param(b'\x80\x02cnumpy\ndtype\nU\x04V100\x85R.', 'V100', id='raw memory'),
    pytest.param(reconstruct(b'(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4\x85R\x89]tb.'), 'array of Python objects',
                 id='a list instead of bytes'),
    pytest.param(reconstruct(b'(K\x01J\xff\xff\xff\xff\x85cnumpy\ndtype\nU\x02f4\x85R\x89U\x00tb.'), 'shape',
                 id='a negative shape'),
])
def test_handwritten_tricks_are_refused(content, name):
    with pytest.raises(ForeignObjectError, match=name):
        load_arrays(content)


@pytest.mark.parametrize(('content', 'shown'), [
    pytest.param(b'\x80\x02cnumpy\ndtype\n' + tuple_bomb() + b'\x85R.', 'dtype a tuple', id='a dtype'),
    pytest.param(b'\x80\x02cnumpy.core.multiarray\n_reconstruct\n(' + tuple_bomb() + b'NNtR.', 'kind a tuple',
                 id='a class'),
    pytest.param(b'\x80\x02cnumpy.core.numeric\n_frombuffer\n(NNN' + tuple_bomb() + b'tR.', 'order a tuple',
                 id='an order'),
    pytest.param(reconstruct(b'(K\x01' + tuple_bomb() + b'cnumpy\ndtype\nU\x02f4\x85R\x89U\x00tb.'),
                 'a tuple in its shape', id='a shape'),
    pytest.param(reconstruct(b'(K\x01' + list_bomb() + b'cnumpy\ndtype\nU\x02f4\x85R\x89U\x00tb.'),
                 'the shape is a list', id='a shape of lists'),
    pytest.param(reconstruct(b'(K\x01(' + b'K\x01' * 65 + b'tcnumpy\ndtype\nU\x02f4\x85R\x89U\x04abcdtb.'),
                 'the shape is a tuple', id='a shape of too many sides'),
    pytest.param(b'\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00a' + tuple_bomb() + b'\x86R.', 'encoding a tuple',
                 id='an encoding'),
    pytest.param(b'\x80\x02}' + tuple_bomb() + b'K\x01s.', 'a tuple as a key', id='a key'),
    pytest.param(b'\x80\x02' + tuple_bomb() + b')R.', 'what a tuple returns', id='a function'),
    pytest.param(b'c' + b'a' * 10 ** 5 + b'\nb\n.', 'aaaa', id='a long name'),
])
def test_what_takes_an_age_to_print_or_to_hash_is_named_by_its_type(content, shown):
    # each of these doubles sixty times: whoever prints, compares or hashes one never comes back
    with pytest.raises(ForeignObjectError, match=shown) as error:
        load_arrays(content)
    assert len(str(error.value)) <= 200 and '\n' not in str(error.value)


@pytest.mark.parametrize('content', [
    pytest.param(b'\x80\x04\x8e' + struct.pack('<Q', 2 ** 40) + b'abc.', id='a terabyte of bytes that are not there'),
    pytest.param(b'\x80\x05\x96' + struct.pack('<Q', 2 ** 40) + b'abc.', id='the same, changeable'),
    pytest.param(reconstruct(b'(K\x01K\x7fK\x7f\x86cnumpy\ndtype\nU\x02f8\x85R\x89U\x08\0\0\0\0\0\0\0\0tb.'),
                 id='an array larger than its bytes'),
    pytest.param(b'\x80\x02R.', id='a call of nothing'),
    pytest.param(b'', id='nothing'),
    pytest.param(b'hello', id='text'),
])
def test_nonsense_is_broken_and_takes_no_memory(content):
    with pytest.raises(BrokenPickleError):
        load_arrays(content)


def test_a_high_object_number_takes_no_memory():
    assert load_arrays(b'\x80\x02]r\xff\xff\xff\x7f.') == []


@pytest.mark.parametrize('protocol', [0, 2, pickle.HIGHEST_PROTOCOL])
def test_a_file_cut_off_anywhere_is_broken_and_not_hostile(protocol):
    content = pickle.dumps({'model': {'a': np.arange(3.0), 'b': np.float32(1)}, '__author__': 'me'}, protocol)
    for length in range(len(content)):
        with pytest.raises(BrokenPickleError):
            load_arrays(content[:length])


@given(position=st.integers(0, 300), byte=st.integers(0, 255), protocol=st.sampled_from([0, 2, 5]))
def test_a_changed_byte_gives_arrays_or_one_of_the_two_errors(position, byte, protocol):
    content = bytearray(pickle.dumps({'model': {'a': np.arange(3.0)}, 'n': np.float32(1)}, protocol))
    content[position % len(content)] = byte
    try:
        load_arrays(bytes(content))
    except (BrokenPickleError, ForeignObjectError) as error:
        assert str(error)


@given(st.binary(max_size=60))
def test_any_bytes_give_something_plain_or_one_of_the_two_errors(content):
    try:
        read = load_arrays(content)
    except (BrokenPickleError, ForeignObjectError) as error:
        assert str(error)
    else:
        assert not callable(read) or type(read).__module__.endswith('unpickling')
