"""``modelscope fastinst ...``: the commands of ``modelscope-fastinst`` under ModelScope's own command line.

ModelScope's command line finds the class below through the entry-point group ``modelscope_hub.cli_plugins``, see
setup.py.
"""
from __future__ import annotations

import argparse
from typing import Any

from modelscope_hub.cli.base import CLICommand

from modelscope_fastinst.cli.arguments import add_commands
from modelscope_fastinst.cli.run import run


class FastInstCommand(CLICommand):
    """ModelScope's protocol of a command: it is given the subparsers, later the parsed arguments, then executed."""

    name = 'fastinst'

    @staticmethod
    def register(subparsers: Any) -> None:
        """Adds ``fastinst`` with its commands to ModelScope's parser."""
        text = 'Instance segmentation with FastInst: predict, train, evaluate, convert, publish, data, demo, info.'
        parser: argparse.ArgumentParser = subparsers.add_parser(FastInstCommand.name, help=text, description=text)
        add_commands(parser)
        parser.set_defaults(_command=FastInstCommand)

    def execute(self) -> None:
        """Runs the command; ends with its exit status.

        Raises:
            SystemExit: the command failed.
        """
        status = run(self.args)
        if status:
            raise SystemExit(status)
