"""From a file or a model folder to a state dict."""
from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

# In a model folder the first of these that exists holds the weights.
WEIGHT_FILES = ('model.safetensors', 'pytorch_model.pt', 'pytorch_model.bin')
# Wrappers around a state dict: detectron2 and ModelScope write 'model', others 'state_dict'.
WRAPPERS = ('model', 'state_dict')


class CheckpointError(ValueError):
    """Weights that are missing, unreadable, or of another network."""


def find_weights(source: str | Path) -> Path:
    """The weight file of a model folder, or the file itself.

    Raises:
        CheckpointError: the folder or file does not exist, or the folder holds no weights.
    """
    source = Path(source)
    if source.is_file():
        return source
    if not source.is_dir():
        raise CheckpointError(f'{source}: no such file or folder; weights were asked for')
    for name in WEIGHT_FILES:
        if (source / name).is_file():
            return source / name
    raise CheckpointError(f'{source}: the model folder holds no weights; it needs one of {", ".join(WEIGHT_FILES)}')


def read_state_dict(source: str | Path) -> dict[str, Tensor]:
    """Reads the tensors of a weight file or of a model folder, on the CPU.

    ``.safetensors`` files, and PyTorch files with a bare state dict or one under ``'model'`` or ``'state_dict'``. The
    constant ``*criterion.empty_weight`` entries of the authors' files are left out.

    Raises:
        CheckpointError: nothing to read, a broken or cut-off file, a pickle that holds more than tensors and plain
            containers, or a file without a state dict.
    """
    path = find_weights(source)
    state = _read_safetensors(path) if path.suffix == '.safetensors' else _read_pickle(path)
    return {key: tensor for key, tensor in state.items() if not key.endswith('criterion.empty_weight')}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f'{path}: cannot be read as safetensors ({error}); '
                              f'the file is broken or cut off: fetch it again') from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        reason = _first_line(error)  # torch's further lines advise to switch the protection off
        raise CheckpointError(f'{path}: is no PyTorch file of tensors and plain containers only ({reason}); files that '
                              f'hold other objects are not loaded, because they can run code') from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f'{path}: cannot be read as a PyTorch file ({_first_line(error)}); the file is '
                              f'broken or cut off: fetch it again') from error
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping) or not content or not all(
            isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()):
        raise CheckpointError(f'{path}: holds no state dict; expected tensors by name, bare or under '
                              f'{" or ".join(repr(name) for name in WRAPPERS)}')
    return dict(content)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
