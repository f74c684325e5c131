"""Running a parsed command line: which function does it, and how its failures reach the terminal."""
from __future__ import annotations

import argparse
import importlib
import os
import sys
from contextlib import nullcontext, redirect_stdout


class CommandError(Exception):
    """Something the user can mend; the message says what."""


def run(args: argparse.Namespace) -> int:
    """Runs the command of a parsed command line.

    Errors become one line on stderr, and one more for each bad item of a data set; with ``--debug`` they come with
    their traceback.

    Args:
        args: what ``cli.arguments`` parsed; ``args.function`` is the command's ``'module:function'``.

    Returns:
        The exit status.
    """
    module, function = args.function.split(':')
    number = _process_number()
    try:
        with open(os.devnull, 'w') as nowhere, redirect_stdout(nowhere) if number else nullcontext():
            return getattr(importlib.import_module(module), function)(args)
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        return 130
    except BrokenPipeError:   # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if args.debug:
            raise
        where = '' if number is None else f' (process {number})'
        print(f'error{where}: {_text(error)}', file=sys.stderr, flush=True)
        return 1


def _process_number() -> int | None:
    """The number of this process among several that torchrun started, of which the first alone writes; else None."""
    return int(os.environ.get('RANK', 0)) if int(os.environ.get('LOCAL_WORLD_SIZE', 1)) > 1 else None


def _text(error: Exception) -> str:
    from modelscope_fastinst.data.records import DatasetError
    if isinstance(error, DatasetError):    # may list bad items, each in its line
        return '\n  '.join(' '.join(line.split()) for line in str(error).splitlines())
    text = ' '.join(str(error).split())
    if isinstance(error, (CommandError, ValueError, OSError)) and text:
        return text
    # not one of the errors written for users, so say what it is and how to see more
    return f'{type(error).__name__}: {text} (--debug shows where)'
