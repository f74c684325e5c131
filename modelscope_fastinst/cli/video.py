"""``video``: a video in, the same video with outlined objects (and JSON lines) out."""
from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelscope_fastinst.cli.predict import OPTIONS, check_font
from modelscope_fastinst.cli.run import CommandError

FOLDER = 'fastinst_out'   # where predict writes as well


def video(args: argparse.Namespace) -> int:
    """Segments a video; broken frames are reported and passed over.

    Ctrl-C and SIGTERM end the video at the last frame that is done; a second time they end the command at once.

    Returns:
        0; 128 plus the signal's number if it was ended by one.

    Raises:
        CommandError: options that do not go together.
        VideoError: an input that cannot be read or an output that cannot be written; before any model is loaded, as far
            as can be seen without one.
    """
    from modelscope_fastinst.video import probe, render
    from modelscope_fastinst.video.rendering import check_outputs
    if args.no_video and not args.json:
        raise CommandError('--no-video: leaves nothing to write; give --json as well')
    if args.no_video and args.output and Path(args.output).suffix != '.jsonl':
        raise CommandError(f'--output {args.output}: with --no-video the name of the JSON lines, *.jsonl')
    check_font(args.font)
    output, json = _outputs(args)
    check_outputs(args.input, output, json, args.codec)
    if not _is_camera(args.input):    # which some cannot open twice in a row
        probe(args.input, fps=args.fps)
    from modelscope_fastinst.plugin.build import build_segmenter
    segment = build_segmenter(args.model, args.device, verbose=args.debug, revision=args.revision, task=args.task)
    options = {name: getattr(args, name) for name in OPTIONS if getattr(args, name, None) is not None}
    segment([], **options)   # refuses options that will not do before anything is written
    look = {'color_by': args.color_by, 'classes': list(segment.model.classes), 'font': args.font, 'scale': args.scale}
    with _stoppable() as (stop, caught), _Bar() as bar:
        try:
            done = render(args.input, output, segment, every=args.every, batch=args.batch, options=options, look=look,
                          track=not args.no_track, json=json, codec=args.codec, sound=not args.no_sound, fps=args.fps,
                          progress=bar.show, stop=stop, max_frames=args.max_frames, max_seconds=args.max_seconds)
        except KeyboardInterrupt:
            if len(caught) < 2:
                raise
            # Files are closed by now. A thread may be in the midst of the network, and Python's own way out, which
            # does not wait for it, would end in an abort.
            print('interrupted', file=sys.stderr, flush=True)
            os._exit(128 + caught[-1])
    _report(args.input, done, [path for path in (output, json) if path is not None])
    return 128 + caught[0] if caught else 0


def _outputs(args: argparse.Namespace) -> tuple[Path | None, Path | None]:
    """The files to write: the video and the JSON lines."""
    from modelscope_fastinst.video.sources import kind_of
    if args.output:
        named = Path(args.output)
        return (None, named) if args.no_video else (named, named.with_suffix('.jsonl') if args.json else None)
    name = {'camera': f'camera{"".join(filter(str.isdigit, args.input))}', 'stream': 'stream'}.get(
        kind_of(args.input), Path(args.input).absolute().stem or 'video')
    source, target, number = Path(args.input).resolve(), Path(FOLDER) / f'{name}.mp4', 1
    while source in (target.resolve(), target.with_suffix('.jsonl').resolve()):
        number += 1
        target = Path(FOLDER) / f'{name}-{number}.mp4'
    return None if args.no_video else target, target.with_suffix('.jsonl') if args.json else None


def _is_camera(source: str) -> bool:
    from modelscope_fastinst.video.sources import kind_of
    return kind_of(source) == 'camera'


def _report(source: str, done: Any, files: list[Path]) -> None:
    for note in done.notes:
        print(f'note: {note}', file=sys.stderr)
    if done.broken:
        first = ', '.join(str(item.index) for item in done.broken[:10])
        more = ', ...' if len(done.broken) > 10 else ''
        print(f'warning: frames of {source} that cannot be read and were passed over: {len(done.broken)} '
              f'({first}{more})', file=sys.stderr)
    dropped = done.skipped - len(done.broken)
    if dropped > 0:
        print(f'note: frames that came while the network was busy and were passed over: {dropped}', file=sys.stderr)
    if not done.frames:
        print(f'{source}: stopped before the first frame was done; nothing is written')
        return
    speed = done.frames / max(done.elapsed, 1e-9)
    print(f'{source}: {done.frames} frames{" (stopped early)" if done.stopped else ""}, {done.seconds:.2f} s of video, '
          f'in {done.elapsed:.1f} s ({speed:.1f} frames/s) -> {", ".join(map(str, files))}')


class _Bar:
    """The bar of progress on a terminal, with frames per second and the time that is left; nothing elsewhere."""

    def __enter__(self) -> _Bar:
        self._bar: Any = None
        return self

    def show(self, progress: Any) -> None:
        """Moves the bar on."""
        if not sys.stderr.isatty():
            return
        if self._bar is None:
            from tqdm import tqdm
            self._bar = tqdm(total=progress.total, file=sys.stderr, unit=' frames', **_width())
        self._bar.update(progress.done - self._bar.n)

    def __exit__(self, *_: Any) -> None:
        if self._bar is not None:
            self._bar.close()


def _width() -> dict[str, Any]:
    """tqdm's options for a bar as wide as the terminal. That of a container may say that it has no columns, and tqdm
    would then draw nothing."""
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    except OSError:   # what only says that it is a terminal
        columns = 0
    return {'dynamic_ncols': True} if columns else {'ncols': 80}


@contextmanager
def _stoppable() -> Iterator[tuple[threading.Event, list[int]]]:
    """An event that SIGINT and SIGTERM set, and the list of those that came; the second one interrupts."""
    stop, caught = threading.Event(), []
    if threading.current_thread() is not threading.main_thread():   # where Python allows no handlers
        yield stop, caught
        return

    def handle(number: int, _: Any) -> None:
        caught.append(number)
        if len(caught) > 1:
            raise KeyboardInterrupt
        stop.set()
        print('\nstopping; the video is finished at the last frame that is done', file=sys.stderr)

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop, caught
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
