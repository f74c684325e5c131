"""From a file or a model folder to a state dict."""
from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .formats import CheckpointError, read_content
from .unpickling import named

__all__ = ['CheckpointError', 'INDEX_FILES', 'WEIGHT_FILES', 'WeightFile', 'find_weights', 'read_state_dict',
           'read_weights', 'shards']

# In a model folder the first of these that exists holds the weights.
WEIGHT_FILES = ('model.safetensors', 'pytorch_model.pt', 'pytorch_model.bin')
# Where there is none of them, one of these says in which files the weights are: how Hugging Face stores large ones.
INDEX_FILES = ('model.safetensors.index.json', 'pytorch_model.bin.index.json')
# Wrappers around a state dict: detectron2 and ModelScope write 'model', others 'state_dict'.
WRAPPERS = ('model', 'state_dict')


@dataclass
class WeightFile:
    """What a weight file holds.

    Attributes:
        path: the file.
        state: its tensors by name, on the CPU.
        wrapper: the entry that they lay under (``'model'``, ``'state_dict'``), or None.
        author: who wrote the file, where it says so (detectron2's ``__author__``).
        others: names of the other entries beside the state dict, such as an optimizer's.
    """
    path: Path
    state: dict[str, Tensor]
    wrapper: str | None = None
    author: str | None = None
    others: list[str] = field(default_factory=list)


def find_weights(source: str | Path) -> Path:
    """The weight file of a model folder, or the file itself; the index where the weights are in several files.

    Raises:
        CheckpointError: the folder or file does not exist, or the folder holds no weights.
    """
    source = Path(source)
    if source.is_file():
        return source
    if not source.is_dir():
        raise CheckpointError(f'{source}: no such file or folder; weights were asked for')
    for name in (*WEIGHT_FILES, *INDEX_FILES):
        if (source / name).is_file():
            return source / name
    raise CheckpointError(f'{source}: the model folder holds no weights; it needs one of {", ".join(WEIGHT_FILES)}')


def read_weights(source: str | Path) -> WeightFile:
    """Reads a weight file or a model folder's, whatever network it is of.

    ``.safetensors`` files, PyTorch files, and pickles of numpy arrays (detectron2's ``.pkl``); the tensors bare, or
    under ``'model'`` or ``'state_dict'``.

    Raises:
        CheckpointError: nothing to read, a broken or cut-off file, a pickle that holds more than tensors, arrays and
            plain containers, or a file without a state dict.
    """
    path = find_weights(source)
    if path.name in INDEX_FILES:
        return _joined(path)
    content = read_content(path)
    if not isinstance(content, Mapping):
        raise _no_state_dict(path, f'a {type(content).__name__}')
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), Mapping):
            author = content.get('__author__')
            return WeightFile(path, _tensors(content[wrapper], path), wrapper,
                              author if isinstance(author, str) else None,
                              [key for key in content if isinstance(key, str) and key != wrapper])
    return WeightFile(path, _tensors(content, path))


def shards(index: Path) -> list[Path]:
    """The files that an index names, each once.

    Raises:
        CheckpointError: it cannot be read, names a file outside of its folder, or one that is not there.
    """
    files = {index.parent / name for name in _weight_map(index).values()}
    missing = sorted(file.name for file in files if not file.is_file())
    if missing:
        raise CheckpointError(f'{index}: names {", ".join(missing)}, which the folder does not have; fetch the whole '
                              'folder')
    return sorted(files)


def _weight_map(index: Path) -> dict[str, str]:
    """File names by the names of the tensors."""
    try:
        names = json.loads(index.read_text('utf-8')).get('weight_map')
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f'{index}: cannot be read as the index of a model\'s files ({error})') from error
    if not isinstance(names, dict) or not names or not all(
            isinstance(name, str) and name == Path(name).name and name not in ('', '.', '..')
            for name in names.values()):
        raise CheckpointError(f'{index}: its weight_map must name a file of the same folder for every tensor')
    return names


def _joined(index: Path) -> WeightFile:
    """The tensors of all files of an index."""
    names = _weight_map(index)
    state: dict[str, Tensor] = {}
    for file in shards(index):
        for key, tensor in read_weights(file).state.items():
            if names.get(key) != file.name or key in state:
                raise CheckpointError(f'{file}: has the tensor {key}, which {index.name} looks for in '
                                      f'{names.get(key, "no file")}')
            state[key] = tensor
    missing = sorted(names.keys() - state.keys())
    if missing:
        raise CheckpointError(f'{index}: {len(missing)} tensors are not where it says, such as {missing[0]} in '
                              f'{names[missing[0]]}')
    return WeightFile(index, state)


def read_state_dict(source: str | Path) -> dict[str, Tensor]:
    """Reads the tensors of a weight file or of a model folder, on the CPU; see ``read_weights``.

    The constant ``*criterion.empty_weight`` entries of the authors' files are left out.

    Raises:
        CheckpointError: as ``read_weights``.
    """
    return {key: tensor for key, tensor in read_weights(source).state.items()
            if not key.endswith('criterion.empty_weight')}


def _tensors(content: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    if not content:
        raise _no_state_dict(path, 'nothing')
    state = {}
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, (Tensor, np.ndarray, np.generic)):
            raise _no_state_dict(path, f'{named(key)}, which is a {type(value).__name__}')
        state[key] = _tensor(key, value, path)
    return state


def _tensor(key: str, value: Tensor | np.ndarray | np.generic, path: Path) -> Tensor:
    if isinstance(value, Tensor):
        if value.layout != torch.strided or value.is_quantized or value.is_meta:
            raise CheckpointError(f'{path}: {key} is sparse, quantised or without data; plain tensors are read')
        return value.detach()
    if value.dtype.kind not in 'biuf':
        raise CheckpointError(f'{path}: {key} is an array of {value.dtype}; numbers are read')
    array = np.asarray(value)   # arrays from a file are read-only, in its byte order
    return torch.from_numpy(array.astype(array.dtype.newbyteorder('='), copy=True))


def _no_state_dict(path: Path, found: str) -> CheckpointError:
    return CheckpointError(f'{path}: holds no state dict; expected tensors by name, bare or under '
                           f'{" or ".join(repr(name) for name in WRAPPERS)}, found {found}')
