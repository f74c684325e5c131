"""Trainings that are killed at a chosen moment: ``-m tests.plugin.killed_work THREADS``, a line of JSON for each.

A line is ``{"folder": ..., "changes": ..., "event": ..., "moment": ...}``. A fork of this process, which has everything
imported, trains and kills itself before, in the middle of, or after an event such as "replace iter_3.pth"; the exit
status comes back as a line. So many deaths cost one start.
"""
from __future__ import annotations

import io
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.plugin.trainer_runs import shapes, trainer_for


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def watched(function: Callable, name_of: Callable[..., str], event: str, moment: str) -> Callable:
    """``function``, which dies around the call for which ``name_of`` gives the event."""
    def call(*args: Any, **kwargs: Any) -> Any:
        if name_of(*args, **kwargs) != event:
            return function(*args, **kwargs)
        if moment == 'before':
            die()
        if moment == 'middle':   # torch.save: half of the file is on the disk
            content, stream = args
            whole = io.BytesIO()
            function(content, whole)
            stream.write(whole.getvalue()[:len(whole.getvalue()) // 2])
            stream.flush()
            die()
        result = function(*args, **kwargs)
        die()
        return result
    return call


def train(folder: str, changes: dict, event: str, moment: str) -> None:
    seen: dict[str, int] = {}

    def numbered(name: str) -> str:
        """'replace model.safetensors', and the second time 'replace model.safetensors 2'."""
        seen[name] = seen.get(name, 0) + 1
        return name if seen[name] == 1 else f'{name} {seen[name]}'

    def renamed(source: Any, target: Any) -> str:
        aside = str(target).endswith('.tmp')
        return numbered(f'set aside {Path(source).name}' if aside else f'replace {Path(target).name}')

    os.replace = watched(os.replace, renamed, event, moment)
    torch.save = watched(torch.save, lambda content, stream: numbered(
        'save ' + Path(stream.name).name[1:].rsplit('.', 2)[0]), event, moment)
    Path.unlink = watched(Path.unlink, lambda file, **options: numbered(f'unlink {file.name}'), event, moment)
    trainer_for(Path(folder), changes, train_dataset=shapes(7)).train()


if __name__ == '__main__':
    torch.set_num_threads(int(sys.argv[1]))
    print('ready', flush=True)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            try:
                train(**json.loads(line))
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
