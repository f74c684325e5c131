"""The command line: ``modelscope-fastinst``, ``python -m modelscope_fastinst`` and ``modelscope fastinst``.

One module a command; a command is imported when it runs, so that ``--help`` loads no network.
"""
from __future__ import annotations

import sys
from collections.abc import Sequence

from modelscope_fastinst.cli.arguments import build_parser
from modelscope_fastinst.cli.run import run

__all__ = ['main']


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit status: 0, 1 (the command failed) or 2 (the line makes no sense).

    Args:
        argv: the arguments without the program's name; default those of the process.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    args = build_parser().parse_args(words)
    args.command_line = ['modelscope-fastinst', *words]   # for records of what was done
    return run(args)
