"""Who reads a page and types what it says: commands in a shell, Python in one session, both in one folder.

Run as a program this file is that session: it takes programs as lines of JSON and answers each with what it printed.
"""
from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any

from tests.docs_pages import SERVER, Block

LONGEST = 900   # seconds for one block
MASKED = re.compile(r'\d+(\.\d+)?')


class Reader:
    """Types the blocks of a page, in their order, in a folder.

    Python blocks share one interpreter, as in a notebook, so that a block may use what one before it made. An error
    ends the reading, with the block's place and what was printed.

    Args:
        folder: where everything is typed.
        environment: variables beside those of this process.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        places = os.pathsep.join((str(Path(sys.executable).parent), os.environ['PATH']))
        self.environment = {**os.environ, **environment, 'PATH': places, 'OMP_NUM_THREADS': '1',
                            'BROWSER': 'true'}   # the program that opens pages: one that does nothing
        self.python: subprocess.Popen | None = None
        self.printed = ''   # by the last block

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: Any) -> None:
        if self.python is not None:
            self.python.communicate(timeout=60)   # the end of its input ends it

    def type(self, block: Block) -> None:
        """Types one block, unless it is excused; a block of text has to be what the one before it printed."""
        if block.excuse:
            return
        if block.language == 'bash':
            self.printed = self._serve(block) if block.marker == SERVER else self._shell(block)
        elif block.language == 'python':
            self.printed = self._program(block)
        elif block.language == 'text':
            assert masked(block.text) == masked(self.printed), \
                f'{block.where} shows\n{block.text}\nwhere this was printed:\n{self.printed}'

    def _shell(self, block: Block) -> str:
        done = subprocess.run(['bash', '-e', '-o', 'pipefail', '-c', block.text], cwd=self.folder, env=self.environment,
                              capture_output=True, text=True, timeout=LONGEST, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, f'{block.where}\n{block.text}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}'
        return done.stdout

    def _program(self, block: Block) -> str:
        if self.python is None:
            root = str(Path(__file__).resolve().parents[1])
            self.python = subprocess.Popen(
                [sys.executable, '-m', 'tests.docs_session'], cwd=self.folder, text=True, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, env={**self.environment, 'PYTHONPATH': root})
        self.python.stdin.write(json.dumps({'text': block.text, 'name': block.where}) + '\n')
        self.python.stdin.flush()
        answer = json.loads(self.python.stdout.readline() or '{"error": "the interpreter ended", "printed": ""}')
        assert not answer['error'], f'{block.where}\n{block.text}\n{answer["printed"][-3000:]}\n{answer["error"]}'
        return answer['printed']

    def _serve(self, block: Block) -> str:
        """Starts what serves pages, asks for one at the address that it prints, and stops it as Ctrl-C does."""
        # a group of its own, because the signal goes to the shell and what it started; and the signal is heard, also
        # where this process was started in the background, which ignores it
        server = subprocess.Popen(['bash', '-e', '-c', block.text], cwd=self.folder, env=self.environment, text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
                                  preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        watch = threading.Timer(LONGEST, os.killpg, (server.pid, signal.SIGKILL))
        watch.start()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))   # it is on this machine
        printed, rest, status = '', '', None
        try:
            for line in server.stdout:
                printed += line
                if address := re.search(r'http://[\w.]+:\d+\S*', line):
                    with opener.open(address[0], timeout=60) as page:
                        status = page.status
                    break
            os.killpg(server.pid, signal.SIGINT)
            rest, _ = server.communicate(timeout=120)
        finally:
            watch.cancel()
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGKILL)
                server.communicate()
        assert status == 200, f'{block.where}\n{block.text}\n{printed}{rest}'
        assert 'Traceback' not in printed + rest, printed + rest
        return printed + rest


def masked(text: str) -> str:
    """A text without its numbers and line ends, for what is printed on two machines."""
    return MASKED.sub('#', ' '.join(text.split()))


def serve_programs() -> None:
    """The session: one program a line of JSON in, one answer a line out."""
    import contextlib
    import io
    import traceback
    import types
    # A module of its own name, as where the programs were a script: classes and functions in it can be pickled.
    module = types.ModuleType('__main__')
    sys.modules['__main__'] = module
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)   # what libraries print past Python is no answer
    for line in sys.stdin:
        program, printed, error = json.loads(line), io.StringIO(), ''
        try:
            with contextlib.redirect_stdout(printed):
                exec(compile(program['text'], program['name'], 'exec'), module.__dict__)
        except BaseException:   # reported to whoever sent the program
            error = traceback.format_exc()
        answers.write(json.dumps({'printed': printed.getvalue(), 'error': error}) + '\n')
        answers.flush()


if __name__ == '__main__':
    serve_programs()
