"""Publishing from the command line, and looking at what it did."""
from __future__ import annotations

from pathlib import Path

from modelscope_fastinst.checkpoints import read_state_dict, save_weights
from modelscope_fastinst.cli import main
from tests.plugin.loopback_hub import Hub
from tests.plugin.loopback_uploads import TOKEN

LICENCE = 'Apache License 2.0'
ID = 'me/nuclei'


def publish(folder: Path, *words: str, id: str = ID, token: str | None = TOKEN) -> int:
    """The exit status of the command; the licence is given where no card names one."""
    given = [] if token is None else ['--token', token]
    licence = [] if (folder / 'README.md').is_file() or '--license' in words else ['--license', LICENCE]
    return main(['publish', str(folder), '--id', id, *given, *licence, *words])


def error_of(capsys) -> str:
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith('error: '), captured
    assert TOKEN not in captured.err + captured.out
    return lines[0]


def change_weights(folder: Path) -> None:
    weights = read_state_dict(folder)
    name = next(name for name in weights if name.endswith('.bias'))
    save_weights(weights | {name: weights[name] + 1}, folder / 'model.safetensors')


def writes(hub: Hub) -> list[str]:
    return [request for request in hub.requests if not request.startswith(('GET', 'HEAD'))]
