"""What can be typed: the commands and their options. Imports nothing to speak of but argparse."""
from __future__ import annotations

import argparse

from modelscope_fastinst.cli.arguments.data import add_data
from modelscope_fastinst.cli.arguments.inference import add_demo, add_predict
from modelscope_fastinst.cli.arguments.models import add_convert, add_info, add_publish
from modelscope_fastinst.cli.arguments.studio import add_studio
from modelscope_fastinst.cli.arguments.training import add_evaluate, add_train
from modelscope_fastinst.cli.arguments.video import add_video
from modelscope_fastinst.version import __version__


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``modelscope-fastinst``."""
    parser = argparse.ArgumentParser(
        prog='modelscope-fastinst', description='Instance segmentation with FastInst through ModelScope.')
    parser.add_argument('--version', action='version', version=f'modelscope-fastinst {__version__}')
    add_commands(parser)
    return parser


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Adds the commands to a parser; ``modelscope fastinst`` brings one of its own."""
    commands = parser.add_subparsers(dest='fastinst_command', metavar='COMMAND', required=True)
    add_predict(commands)
    add_video(commands)
    add_train(commands)
    add_evaluate(commands)
    add_demo(commands)
    add_studio(commands)
    add_info(commands)
    add_convert(commands)
    add_publish(commands)
    add_data(commands)
