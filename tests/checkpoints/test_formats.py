"""Bad files: which ones are cut off, which are hostile, which are something else; and nothing in them ever runs."""
from __future__ import annotations

import io
import json
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

from modelscope_fastinst.checkpoints import CheckpointError, read_state_dict, save_weights
from tests.checkpoints.pickles import Calls, list_bomb, tuple_bomb

STATE = {'a.weight': torch.arange(400.0).view(20, 20), 'a.bias': torch.zeros(20)}


def torch_zip(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def torch_legacy(content):
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def pickled(content):
    return pickle.dumps({'model': {key: tensor.numpy() for key, tensor in content['model'].items()}})


def safetensors(content):
    from safetensors.torch import save
    return save(content['model'])


def read(folder, content: bytes, name='weights.pth'):
    (folder / name).write_bytes(content)
    return read_state_dict(folder / name)


def error_of(folder, content: bytes, name='weights.pth') -> str:
    with pytest.raises(CheckpointError) as error:
        read(folder, content, name)
    message = str(error.value)
    assert message.startswith(str(folder / name)) and '\n' not in message
    return message


FORMATS = [pytest.param(torch_zip, id='torch zip'), pytest.param(torch_legacy, id='old torch'),
           pytest.param(pickled, id='pickle of arrays'), pytest.param(safetensors, id='safetensors')]


@pytest.mark.parametrize('zipped', [pytest.param(True, id='torch zip'), pytest.param(False, id='old torch')])
def test_torch_files_of_pickle_protocol_3_are_read_too(zipped, tmp_path):
    torch.save({'model': STATE}, tmp_path / 'weights.pth', pickle_protocol=3, _use_new_zipfile_serialization=zipped)
    assert torch.equal(read_state_dict(tmp_path / 'weights.pth')['a.weight'], STATE['a.weight'])


@pytest.mark.parametrize('write', FORMATS)
def test_a_format_is_known_by_its_content_not_by_its_name(write, tmp_path):
    state = read(tmp_path, write({'model': STATE}), 'weights')
    torch.testing.assert_close(state, STATE, rtol=0, atol=0)


@pytest.mark.parametrize('write', FORMATS)
@pytest.mark.parametrize('part', [0.1, 0.5, 0.999])
def test_a_file_that_was_cut_off_is_said_to_be_so(write, part, tmp_path):
    content = write({'model': STATE})
    name = 'weights.safetensors' if write is safetensors else 'weights.pth'
    message = error_of(tmp_path, content[:int(part * len(content))], name)
    assert 'broken or cut off' in message and 'wants to build' not in message


@pytest.mark.parametrize('write', [torch_zip, torch_legacy])
@pytest.mark.parametrize(('thing', 'name'), [
    pytest.param(Calls(os.system, 'true'), 'posix.system' if os.name == 'posix' else 'nt.system', id='os.system'),
    pytest.param(Calls(os.mkdir, 'hostile-code-ran'), 'mkdir', id='os.mkdir'),
    pytest.param(Calls(eval, '1'), 'eval', id='eval'),
    pytest.param(Calls(getattr, 'text', 'upper'), 'getattr', id='getattr'),
    pytest.param(torch.nn.Linear(1, 1), 'torch.nn.modules.linear.Linear', id='a whole network'),
    pytest.param(np.array([1, None], object), 'an array of Python objects', id='an array of objects'),
    pytest.param(np.zeros(1, [('a', 'i4')]), "an array of dtype 'V4'", id='an array of structures'),
])
def test_a_hostile_torch_file_is_refused_by_name(write, thing, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = error_of(tmp_path, write({'model': STATE, 'extra': [thing]}))
    assert f'{name}; only tensors, numpy arrays and plain containers are read' in message
    assert 'wants to build' in message and 'cut off' not in message
    assert os.listdir(tmp_path) == ['weights.pth']


@pytest.mark.parametrize(('content', 'name', 'message'), [
    pytest.param(pickle.dumps({'model': {'a': Calls(os.system, 'true')}}), 'x.pkl', 'system; only tensors',
                 id='hostile pickle'),
    pytest.param(pickle.dumps({'model': STATE}), 'x.pkl', "for a Swin its authors' .pth",
                 id='tensors through pickle'),
    pytest.param(b'', 'x.pth', 'it is empty', id='empty'),
    pytest.param(b'<!DOCTYPE html><html><body>Not found</body></html>', 'x.pth',
                 "is a text file, not weights; it begins with '<!DOCTYPE html>", id='web page'),
    pytest.param(b'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n', 'x.pkl', 'git-lfs',
                 id='git-lfs pointer'),
    pytest.param(json.dumps({'model': [1]}).encode(), 'x.pth', 'is a text file', id='JSON'),
    pytest.param(b'\x89PNG\r\n\x1a\n' + bytes(64), 'x.pth', 'is no weight file', id='picture'),
    pytest.param(pickle.dumps({'model': {}}), 'x.pkl', 'holds no state dict', id='nothing in it'),
    pytest.param(pickle.dumps([1, 2]), 'x.pkl', 'found a list', id='a list'),
    pytest.param(pickle.dumps({'model': {'a': 1}}), 'x.pkl', "found 'a', which is a int", id='numbers for tensors'),
    pytest.param(pickle.dumps({'model': {'a': np.array(['x'])}}), 'x.pkl', 'numbers are read', id='text for tensors'),
])
def test_other_files_are_named_for_what_they_are(content, name, message, tmp_path):
    assert message in error_of(tmp_path, content, name)


def test_a_damaged_byte_is_found_by_the_checksum(tmp_path):
    content = bytearray(torch_zip({'model': STATE}))
    content[content.index(np.arange(7, 9, dtype=np.float32).tobytes())] ^= 1
    assert 'checksum' in error_of(tmp_path, bytes(content))


def zip_around(pickled_content: bytes) -> bytes:
    """A PyTorch file with somebody's own pickle in it."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(torch_zip(None))) as old, zipfile.ZipFile(file, 'w') as new:
        for entry in old.infolist():
            new.writestr(entry.filename, pickled_content if entry.filename.endswith('data.pkl') else old.read(entry))
    return file.getvalue()


def legacy_around(pickled_content: bytes) -> bytes:
    """The same in the old format."""
    before, after = torch_legacy(None).split(pickle.dumps(None, 2))
    return before + pickled_content + after


@pytest.mark.parametrize(('instructions', 'found'), [
    pytest.param(b'}' + tuple_bomb() + b'K\x01s', 'a tuple of tuples', id='a key'),
    pytest.param(tuple_bomb() + b')R', 'a tuple of tuples', id='a function'),
    pytest.param(b'ccollections\nOrderedDict\n](' + tuple_bomb() + b'K\x01\x86e\x85R', 'a tuple of tuples',
                 id='the key of an OrderedDict'),
    pytest.param(b'(X\x07\0\0\0storagectorch\nFloatStorage\n' + tuple_bomb() + b'X\x03\0\0\0cpuK\x01tQ',
                 'a tuple of tuples', id='the name of a storage'),
    pytest.param(list_bomb() + b')R', 'what a list returns', id='a list as a function'),
    pytest.param(list_bomb() + b')\x81', 'an object of a list', id='a list as a class'),
    pytest.param(b'cnumpy\ndtype\n' + list_bomb() + b'\x85R', 'dtype a list', id='a dtype of numpy'),
    pytest.param(b'cnumpy.core.multiarray\n_reconstruct\n' + list_bomb() + b'NN\x87R', 'kind a list',
                 id='a class of numpy'),
])
@pytest.mark.parametrize('write', [zip_around, legacy_around])
def test_what_takes_an_age_to_print_or_to_hash_is_refused_before(write, instructions, found, tmp_path):
    message = error_of(tmp_path, write(b'\x80\x02' + instructions + b'.'))
    assert 'wants to build' in message and found in message and len(message) < len(str(tmp_path)) + 300


def rezipped(content: bytes, name: str, compression: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w', compression) as archive:
        archive.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize('content', [
    pytest.param(rezipped(b'text', 'readme.txt', zipfile.ZIP_STORED), id='of something else'),
    pytest.param(rezipped(bytes(10 ** 6), 'archive/data.pkl', zipfile.ZIP_DEFLATED), id='that unpacks to a lot'),
])
def test_another_zip_archive_is_not_unpacked(content, tmp_path):
    assert 'not one that torch.save wrote' in error_of(tmp_path, content)


def test_a_folder_without_weights_and_a_missing_file_are_named(tmp_path):
    with pytest.raises(CheckpointError, match='holds no weights; it needs one of model.safetensors'):
        read_state_dict(tmp_path)
    with pytest.raises(CheckpointError, match='no such file or folder'):
        read_state_dict(tmp_path / 'nowhere.pth')


def test_arrays_of_any_byte_order_become_tensors(tmp_path):
    arrays = {'a': np.arange(3, dtype='>f4'), 'b': np.float64(2), 'c': np.array(3), 'd': np.asfortranarray(np.eye(2))}
    state = read(tmp_path, pickle.dumps(arrays))
    assert {key: tensor.tolist() for key, tensor in state.items()} == {
        key: np.asarray(array).tolist() for key, array in arrays.items()}
    assert [tensor.dtype for tensor in state.values()] == [torch.float32, torch.float64, torch.int64, torch.float64]
    state['a'] += 1   # a tensor of its own, not a window on the file
    save_weights(state, tmp_path / 'again.safetensors')
    torch.testing.assert_close(read_state_dict(tmp_path / 'again.safetensors'), state, rtol=0, atol=0)
