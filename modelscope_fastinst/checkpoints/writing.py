"""From a network to a file, whole or not at all."""
from __future__ import annotations

import os
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn


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
    from safetensors.torch import save
    state = network.state_dict() if isinstance(network, nn.Module) else network
    tensors = {key: tensor.detach().to('cpu', dtype if tensor.is_floating_point() else None).contiguous()
               for key, tensor in state.items()}
    write_whole(Path(file), save(tensors, metadata={'format': 'pt'}))


def write_whole(file: Path, content: bytes) -> None:
    """Writes ``content`` to ``file`` so that a reader sees the old file or the whole new one, never a part."""
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f'.{file.name}.')
    try:
        with os.fdopen(handle, 'wb') as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)  # mkstemp's files are private
        os.replace(temporary, file)
    except BaseException:
        os.unlink(temporary)
        raise
