"""``studio``: the pages that a visitor tries models with."""
from __future__ import annotations

import argparse
import importlib.util
import sys

from modelscope_fastinst.cli.run import CommandError

# The names that options of the command line have in `studio.limits.Limits`, and what one unit of theirs is.
_LIMITS = {'max_pixels': ('pixels', 1), 'max_upload': ('upload_bytes', 1_000_000),
           'max_video': ('video_bytes', 1_000_000), 'max_seconds': ('video_seconds', 1), 'queue': ('queue', 1),
           'parallel': ('parallel', 1)}


def studio(args: argparse.Namespace) -> int:
    """Loads the models and serves the pages until Ctrl-C; with ``--write`` writes a studio folder instead.

    Returns:
        0.

    Raises:
        CommandError: Gradio is not installed, or any model is offered to the whole network.
        StudioFolderError: see ``studio.folder.write_studio_folder``.
        OSError: the port is taken.
    """
    if args.write is not None:
        return _write(args)
    if importlib.util.find_spec('gradio') is None:
        raise CommandError('the studio needs Gradio: pip install "modelscope-fastinst[demo]"')
    from modelscope_fastinst.studio.addresses import is_loopback
    if args.any_model and not is_loopback(args.host):
        raise CommandError(f'--any-model with --host {args.host}: visitors from elsewhere could make this machine load '
                           'any folder; leave one of the two out, or name the models with --model')
    from modelscope_fastinst.studio.app import launch
    from modelscope_fastinst.studio.limits import Limits
    limits = Limits(**{name: getattr(args, option) * unit for option, (name, unit) in _LIMITS.items()
                       if getattr(args, option) is not None})
    with launch(args.model or (), any_model=args.any_model, host=args.host, port=args.port, device=args.device,
                limits=limits, browser=not args.no_browser) as server:
        print(f'studio: {server.address} (Ctrl-C ends it)', flush=True)
        try:
            server.wait()
        except KeyboardInterrupt:
            print('closing', file=sys.stderr)
    return 0


def _write(args: argparse.Namespace) -> int:
    from modelscope_fastinst.studio.folder import write_studio_folder
    if args.any_model:
        raise CommandError('--write with --any-model: visitors of the hub could make the studio load anything; name '
                           'the models with --model')
    names = write_studio_folder(args.write, args.model or ())
    print(f'{args.write}: {", ".join(names)}')
    print('upload the folder at https://modelscope.cn/studios/create?template=quick')
    return 0
