"""What can be typed after ``studio``."""
from __future__ import annotations

import argparse

from modelscope_fastinst.cli.arguments.options import add_device, command, count


def add_studio(commands) -> None:
    parser = command(commands, 'studio', 'studio',
                     'try models in the browser, with pictures and videos, in English and Chinese')
    parser.add_argument('--model', action='append', metavar='DIR_OR_ID',
                        help='model folder or ModelScope model id to offer; again for more, the first is loaded at the '
                             'start (default: the embedded model, which finds cell nuclei)')
    parser.add_argument('--any-model', action='store_true',
                        help='let visitors type the folder or id of any model; allowed on this machine only, that is, '
                             'with a loopback --host')
    parser.add_argument('--write', metavar='FOLDER',
                        help="write a folder that can be uploaded to ModelScope's hub as a studio, with these models "
                             'and the sources of this package, and start nothing')
    add_device(parser)
    server = parser.add_argument_group('server')
    server.add_argument('--host', default='127.0.0.1', metavar='ADDRESS',
                        help='address to listen on (default: %(default)s, which only this machine can reach; 0.0.0.0 '
                             'for all)')
    server.add_argument('--port', type=port, metavar='N', help='default: the first free one from 7860 on; 0: any')
    server.add_argument('--no-browser', action='store_true', help='do not open a browser window')
    limits = parser.add_argument_group('limits', 'What a visitor may ask for.')
    limits.add_argument('--max-pixels', type=count, metavar='N', help='of a picture: width times height')
    limits.add_argument('--max-upload', type=count, metavar='MB', help='size of a picture file')
    limits.add_argument('--max-video', type=count, metavar='MB', help='size of a video file')
    limits.add_argument('--max-seconds', type=count, metavar='N', help='length of a video')
    limits.add_argument('--queue', type=count, metavar='N', help='visitors that may wait at the same time')
    limits.add_argument('--parallel', type=count, metavar='N', help='runs of the network at the same time')


def port(text: str) -> int:
    """A port number."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f'{text!r}: a port, a whole number from 0 to 65535')
    return int(text)
