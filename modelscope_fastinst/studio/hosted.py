"""The studio where a hub runs it: what ``app.py`` of a studio folder does."""
from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """What a platform's environment says.

    Attributes:
        models: folder or hub id of the models that visitors may choose from; none for the embedded one.
        host: address to listen on.
        port: None for the first free one from 7860 on.
    """
    models: tuple[str, ...] = ()
    host: str = '127.0.0.1'
    port: int | None = None


def settings(folder: str | os.PathLike, environment: Mapping[str, str], models: Sequence[str] = ()) -> Settings:
    """Reads FASTINST_MODEL, GRADIO_SERVER_NAME and GRADIO_SERVER_PORT.

    Args:
        folder: where app.py lies; a model that is named by a folder in it is that folder.
        environment: such as ``os.environ``. FASTINST_MODEL may name several models, separated by commas.
        models: those that are meant without FASTINST_MODEL.

    Raises:
        ValueError: the port is none.
    """
    named = [name.strip() for name in environment.get('FASTINST_MODEL', '').split(',') if name.strip()] or models
    chosen = tuple(str(Path(folder) / name) if (Path(folder) / name).is_dir() else name for name in named)
    port = environment.get('GRADIO_SERVER_PORT', '').strip()
    if port and not (port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError(f'GRADIO_SERVER_PORT is {port!r}; it must be a number from 1 to 65535')
    return Settings(chosen, environment.get('GRADIO_SERVER_NAME', '').strip() or '127.0.0.1',
                    int(port) if port else None)


def run(folder: str | os.PathLike, models: Sequence[str] = ()) -> None:
    """Serves the studio until the process is ended; arguments as of `settings`.

    Visitors may choose the models that are named, and no other. SIGTERM, with which platforms end a studio, closes it
    as Ctrl-C does: what visitors left is removed.
    """
    from modelscope_fastinst.studio.app import launch
    chosen = settings(folder, os.environ, models)
    signal.signal(signal.SIGTERM, _end)
    with launch(chosen.models, host=chosen.host, port=chosen.port) as server:
        print(f'studio: {server.address}', flush=True)
        try:
            server.wait()
        except KeyboardInterrupt:   # somebody tries it on a machine of their own
            print('closing', file=sys.stderr)


def _end(number: int, _: object) -> None:
    raise SystemExit(128 + number)
