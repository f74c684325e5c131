"""What can be typed after ``data``, and the options of data sets, which training and evaluation share."""
from __future__ import annotations

import argparse

from modelscope_fastinst.cli.arguments.options import (
    add_font,
    add_revision,
    command,
    count,
    names,
    unit_interval,
    whole,
)
from modelscope_fastinst.structures import TASKS


def add_data(commands) -> None:
    text = 'look for mistakes in a data set, or convert it to COCO'
    group = commands.add_parser('data', help=text, description=text[0].upper() + text[1:] + '.')
    actions = group.add_subparsers(dest='data_command', metavar='ACTION', required=True)
    _add_data_check(actions)
    _add_data_convert(actions)


def _add_data_check(actions) -> None:
    parser = command(actions, 'check', 'data', 'say what is in a data set and what is wrong with it, and draw samples')
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = """\
Say what is in a data set and what is wrong with it, and draw samples.

Every image is decoded once. Nothing of the data set is changed. The exit status is 1 if there
are errors: what would stop a training, or make the measured AP wrong.

  modelscope-fastinst data check my_data
  modelscope-fastinst data check my_data --config fastinst_d3_r50 --json findings.json --strict"""
    parser.add_argument('root', nargs='?', metavar='ROOT', help='folder of the data set')
    add_format(parser)
    parser.add_argument('--task', choices=tuple(TASKS),
                        help='what the data are for (default: instance where ROOT holds outlines of objects, else what '
                             'its maps are good for)')
    parser.add_argument('--train-annotations', metavar='JSON', help='COCO file, instead of ROOT')
    parser.add_argument('--train-images', metavar='DIR')
    parser.add_argument('--val-annotations', metavar='JSON')
    parser.add_argument('--val-images', metavar='DIR')
    add_split_fraction(parser)
    parser.add_argument('--classes', type=names, metavar='A,B', help='only these classes')
    add_label_numbers(parser)
    model = parser.add_argument_group('the model that is to be trained', 'Default: 100 queries, 640 to 853 pixels.')
    source = model.add_mutually_exclusive_group()
    source.add_argument('--config', metavar='FILE_OR_NAME',
                        help='configuration.json, or the name of a published model such as fastinst_d3_r50')
    source.add_argument('--model', metavar='DIR_OR_ID', help='model folder or ModelScope model id')
    add_revision(model)
    model.add_argument('--num-queries', type=count, metavar='N', help='objects in an image that it can find')
    model.add_argument('--min-size', type=count, metavar='PX', help='short side of its input')
    model.add_argument('--max-size', type=count, metavar='PX', help='longest long side of it')
    shown = parser.add_argument_group('what is written')
    shown.add_argument('--output', default='fastinst_check', metavar='DIR',
                       help='where the sheets of samples go (default: %(default)s)')
    shown.add_argument('--samples', type=whole, default=24, metavar='N',
                       help='images on a sheet, more where it takes them to show every class; 0: no sheets (default: '
                            '%(default)s)')
    shown.add_argument('--seed', type=int, default=0, help='another number draws other samples')
    shown.add_argument('--json', metavar='FILE', help='write everything that was found as JSON')
    shown.add_argument('--strict', action='store_true', help='exit status 1 for warnings too')
    add_font(shown)


def _add_data_convert(actions) -> None:
    parser = command(actions, 'convert', 'data', 'write a data set of any known format as COCO')
    parser.add_argument('root', metavar='ROOT', help='folder of the data set')
    parser.add_argument('target', metavar='TARGET_FOLDER', help='the folder to make')
    add_format(parser)
    parser.add_argument('--split', metavar='NAME', help='only this split (default: all that there are)')
    add_split_fraction(parser)
    parser.add_argument('--classes', type=names, metavar='A,B', help='only these classes, in this order')
    add_skip_bad(parser)
    parser.add_argument('--link', action='store_true', help='hard-link the images where the disk can, to save space')
    parser.add_argument('--overwrite', action='store_true', help='replace the folder, if it is a converted data set')


def add_skip_bad(parser) -> None:
    parser.add_argument('--skip-bad', action='store_true',
                        help='leave out what cannot be used, and say so; without it, such items are an error')


def add_format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--format', choices=('coco', 'yolo', 'labelme', 'voc', 'object-masks', 'ade20k', 'cityscapes',
                                             'coco-panoptic', 'semantic-png'),
                        help='of the data set (default: what it looks like)')


def add_label_numbers(parser) -> None:
    parser.add_argument('--label-offset', type=whole, metavar='N',
                        help='of label PNGs, the number of the first class; smaller ones are void (default: 0)')
    parser.add_argument('--void-label', type=whole, metavar='N',
                        help='of label PNGs, the number of pixels without a class (default: 255)')


def add_split_fraction(parser: argparse.ArgumentParser, text: str = (
        'take this share of the images for validation, if the data have no validation split')) -> None:
    parser.add_argument('--val-fraction', type=unit_interval, metavar='F', help=text)
    parser.add_argument('--split-seed', type=int, default=0, metavar='N', help='another number splits differently')
