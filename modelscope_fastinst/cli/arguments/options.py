"""The kinds of values that can be typed, and the options that several commands share."""
from __future__ import annotations

import argparse
from typing import Any

from modelscope_fastinst.structures import TASKS

DEFAULT_MODEL = 'default: the embedded model, which finds cell nuclei'


def command(commands, name: str, module: str, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + '.')
    parser.add_argument('--debug', action='store_true', help='show the library log and the traceback of an error')
    parser.set_defaults(function=f'modelscope_fastinst.cli.{module}:{name}')
    return parser


def add_revision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--revision', metavar='NAME',
                        help='branch, tag or commit of a ModelScope model id (default: master)')


def add_font(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--font', metavar='FILE',
                        help='TrueType font of the labels; what it lacks, and all without it, comes from built-in '
                             'fonts (Latin, Greek, Cyrillic, Chinese, Japanese and more), then from the system')


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--device', help='cpu, gpu, cuda:1, ... (default: the GPU if there is one)')


def tasks(text: str) -> list[str]:
    tasks = names(text)
    for task in tasks:
        if task not in TASKS:
            raise argparse.ArgumentTypeError(f'{task!r} is none of {", ".join(TASKS)}')
    return tasks


def names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(',')]
    if not all(names):
        raise argparse.ArgumentTypeError(f'{text!r}: class names, separated by commas')
    return names


def _number(text: str, kind: type, low: float, high: float, wanted: str) -> Any:
    try:
        number = kind(text)
    except ValueError:
        number = float('nan')
    if not low <= number <= high:
        raise argparse.ArgumentTypeError(f'{text!r}: {wanted}')
    return number


def count(text: str) -> int:
    return _number(text, int, 1, float('inf'), 'a whole number, at least 1')


def whole(text: str) -> int:
    return _number(text, int, 0, float('inf'), 'a whole number, at least 0')


def magnification(text: str) -> float:
    return _number(text, float, 0.1, 16, 'a number between 0.1 and 16')


def positive(text: str) -> float:
    return _number(text, float, 1e-6, 1e9, 'a number above 0')


def unit_interval(text: str) -> float:
    return _number(text, float, 0, 1, 'a number between 0 and 1')


def overlap(text: str) -> float:
    return _number(text, float, 1e-6, 0.5, 'a number above 0 and at most 0.5')


def tile_side(text: str) -> int | str:
    if text == 'auto':
        return text
    return _number(text, int, 32, float('inf'), 'a side in pixels, at least 32 (pictures come before a bare --tile)')
