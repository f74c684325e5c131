"""What can be typed after the command that looks at videos."""
from __future__ import annotations

import argparse

from modelscope_fastinst.cli.arguments.inference import add_choice
from modelscope_fastinst.cli.arguments.options import (
    DEFAULT_MODEL,
    add_device,
    add_font,
    add_revision,
    command,
    count,
    magnification,
    positive,
)

CODECS = ('h264', 'vp9', 'mpeg4', 'vp8', 'hevc', 'av1', 'ffv1')


def add_video(commands) -> None:
    parser = command(commands, 'video', 'video',
                     'outline the objects in a video, a folder of frames, or what a camera sees')
    parser.add_argument('input', metavar='INPUT',
                        help='video file; folder of pictures, taken in the order of the numbers in their names; number '
                             'of a camera (0) or its device; or a URL (rtsp://, http://)')
    parser.add_argument('--model', metavar='DIR_OR_ID', help=f'model folder or ModelScope model id ({DEFAULT_MODEL})')
    add_revision(parser)
    _add_output(parser)
    _add_extent(parser)
    parser.add_argument('--task', choices=('instance', 'semantic', 'panoptic'),
                        help='what to find, if the model can (default: what it was trained for)')
    add_choice(parser)
    parser.add_argument('--color-by', choices=('instance', 'class'), default='instance',
                        help='give every object or every class its colour (default: %(default)s)')
    parser.add_argument('--no-track', action='store_true',
                        help='do not follow objects from frame to frame; their colours then change')
    parser.add_argument('--scale', type=magnification, default=1.0, metavar='X',
                        help='enlarge the outlined video this many times')
    add_font(parser)
    add_device(parser)


def _add_output(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('what is written')
    group.add_argument('--output', metavar='FILE',
                       help='the outlined video: .mp4, .m4v, .mov, .mkv or .webm (default: an .mp4 of the name of the '
                            'input in fastinst_out)')
    group.add_argument('--json', action='store_true',
                       help='beside the video, a .jsonl file with a line for each segmented frame: scores, labels, '
                            'boxes, COCO RLE masks and the numbers of the tracks')
    group.add_argument('--no-video', action='store_true', help='with --json: only that file')
    group.add_argument('--codec', choices=CODECS,
                       help='how the video is compressed (default: the first that works here: H.264, VP9 or MPEG-4, '
                            'VP9 for .webm)')
    group.add_argument('--no-sound', action='store_true', help='leave out the sound, which is copied else')


def _add_extent(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('which frames')
    group.add_argument('--every', type=count, default=1, metavar='N',
                       help='segment every Nth frame; the others are written too, with the last result drawn over '
                            'them, so that length and frame rate stay (default: %(default)s)')
    group.add_argument('--batch', type=count, default=1, metavar='N',
                       help='frames that go through the network together; more is faster on a GPU '
                            '(default: %(default)s)')
    group.add_argument('--fps', type=positive, metavar='F',
                       help='of a folder: pictures that make a second (default: 25)')
    group.add_argument('--max-frames', type=count, metavar='N', help='end after this many frames of the input')
    group.add_argument('--max-seconds', type=positive, metavar='S', help='end after so many seconds of it')
