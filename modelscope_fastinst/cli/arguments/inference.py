"""What can be typed after the commands that look at pictures."""
from __future__ import annotations

import argparse

from modelscope_fastinst.cli.arguments.options import (
    DEFAULT_MODEL,
    add_device,
    add_font,
    add_revision,
    command,
    count,
    magnification,
    names,
    overlap,
    positive,
    tile_side,
    unit_interval,
)


def add_predict(commands) -> None:
    parser = command(commands, 'predict', 'predict', 'outline the objects in pictures, or map all of their pixels')
    parser.add_argument('images', nargs='+', metavar='IMAGE_OR_FOLDER', help='picture files, or folders of them')
    parser.add_argument('--model', metavar='DIR_OR_ID', help=f'model folder or ModelScope model id ({DEFAULT_MODEL})')
    add_revision(parser)
    parser.add_argument('--output', default='fastinst_out', metavar='DIR',
                        help='where the outlined pictures go (default: %(default)s)')
    parser.add_argument('--json', action='store_true',
                        help='beside each picture, a JSON file with scores, labels, boxes and COCO RLE masks')
    parser.add_argument('--task', choices=('instance', 'semantic', 'panoptic'),
                        help='what to find, if the model can (default: what it was trained for); semantic and panoptic '
                             'maps are written as PNG files too, with a JSON file beside their folder')
    add_choice(parser)
    add_tiles(parser)
    parser.add_argument('--color-by', choices=('instance', 'class'), default='instance',
                        help='of instances: give every instance or every class its colour (default: %(default)s)')
    parser.add_argument('--scale', type=magnification, default=1.0, metavar='X',
                        help='enlarge the outlined pictures this many times; small ones gain from 2 or 3')
    add_font(parser)
    add_device(parser)


def add_choice(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('which instances', 'Defaults are those of the model.')
    group.add_argument('--score-thr', type=unit_interval, metavar='S',
                       help='leave out instances and segments below this score, 0..1')
    group.add_argument('--max-instances', type=count, metavar='N', help='at most this many of a picture, the best')
    group.add_argument('--classes', type=names, metavar='A,B', help='only these classes')
    group.add_argument('--min-size', type=count, metavar='PX', help='short side of the input of the network')
    group.add_argument('--max-size', type=count, metavar='PX', help='longest long side of it')
    group.add_argument('--object-mask-threshold', type=unit_interval, metavar='S',
                       help='panoptic: queries that are less sure of their class take no part, 0..1')
    group.add_argument('--overlap-threshold', type=unit_interval, metavar='S',
                       help='panoptic: drop segments that keep less than this share of their mask, 0..1')


def add_tiles(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('large pictures', 'Instances and semantic maps of pictures far larger than what '
                                                        'the network sees, as of slides or from the air.')
    group.add_argument('--tile', type=tile_side, nargs='?', const='auto', metavar='PX',
                       help='cut pictures into overlapping tiles with this side in pixels and join what the seams cut; '
                            'without PX (the pictures then come before it) as large as the input of the network')
    group.add_argument('--tile-overlap', type=overlap, metavar='F',
                       help='the least share of its side that a tile has in common with the next, above 0 and at most '
                            '0.5 (default: 0.25); best more than the objects that are to be seen whole')
    group.add_argument('--max-megapixels', type=positive, metavar='M',
                       help='read pictures of up to so many million pixels; without it those of 179 and more are taken '
                            'for decompression bombs')


def add_demo(commands) -> None:
    parser = command(commands, 'demo', 'demo',
                     'outline the nuclei in a drawn microscope image; needs no file, no network')
    parser.add_argument('--output', default='fastinst_demo', metavar='DIR',
                        help='where the pictures go (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='another number draws another image')
    add_font(parser)
    add_device(parser)
