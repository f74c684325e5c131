"""ModelScope's client in the test's own process, pointed at a hub and a cache."""
from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from modelscope_hub.config import HubConfig, set_default_config

from tests.plugin.loopback_hub import Hub


@contextmanager
def client_of(hub: Hub, cache: Path) -> Iterator[None]:
    """What a process with ``hub.environment(cache)`` would use, here and now; also after the hub was switched off."""
    with patch.dict(os.environ, hub.environment(cache)):
        set_default_config(HubConfig())   # the client reads the environment once
        try:
            yield
        finally:
            set_default_config(None)


def write_model(folder: Path, weights: bytes = bytes(3000), kind: str = 'fastinst') -> Path:
    """Files of a model in name only: enough for a hub and its client, which do not look into weights."""
    folder.mkdir(parents=True)
    (folder / 'configuration.json').write_text(f'{{"framework": "pytorch", "task": "image-segmentation", '
                                               f'"pipeline": {{"type": "fast-instance-segmentation"}}, '
                                               f'"model": {{"type": "{kind}"}}}}', 'utf-8')
    (folder / 'pytorch_model.pt').write_bytes(weights)
    return folder


def files_of(folder: Path | str) -> dict[str, bytes]:
    """Name and content of the files in a folder that are not hidden."""
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in Path(folder).rglob('*')
            if file.is_file() and not file.name.startswith('.')}
