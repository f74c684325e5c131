"""Running a parsed command line: which function does it, and how its failures reach the terminal."""
from __future__ import annotations

import argparse
import importlib
import os
import sys


class CommandError(Exception):
    """Something the user can mend; the message says what."""


def run(args: argparse.Namespace) -> int:
    """Runs the command of a parsed command line.

    Errors become one line on stderr; with ``--debug`` they come with their traceback.

    Args:
        args: what ``cli.arguments`` parsed; ``args.function`` is the command's ``'module:function'``.

    Returns:
        The exit status.
    """
    module, function = args.function.split(':')
    try:
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
        print(f'error: {_one_line(error)}', file=sys.stderr)
        return 1


def _one_line(error: Exception) -> str:
    text = ' '.join(str(error).split())
    if isinstance(error, (CommandError, ValueError, OSError)) and text:
        return text
    # not one of the errors written for users, so say what it is and how to see more
    return f'{type(error).__name__}: {text} (--debug shows where)'
