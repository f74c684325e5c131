"""From a video to the same video with what was found drawn over it."""
from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

from modelscope_fastinst.video.drawing import Drawer
from modelscope_fastinst.video.encoders import Recipe, check_suffix, choose
from modelscope_fastinst.video.frames import Facts, Frame, Progress, Summary, VideoError
from modelscope_fastinst.video.records import RecordWriter
from modelscope_fastinst.video.sources import Source, kind_of, mean_rate
from modelscope_fastinst.video.streaming import Limits, Reported, check_numbers, segmented
from modelscope_fastinst.video.tracking import Tracker
from modelscope_fastinst.video.writing import VideoWriter, even, output_rate


def render(source: str | int | os.PathLike, output: str | os.PathLike | None, segment: Callable[..., Any], *,
           every: int = 1, batch: int = 1, options: Mapping[str, Any] | None = None, look: Any = None,
           track: bool | Tracker = True, json: str | os.PathLike | None = None, codec: str | None = None,
           sound: bool = True, fps: float | None = None, progress: Callable[[Progress], None] | None = None,
           stop: threading.Event | None = None, max_frames: int | None = None, max_seconds: float | None = None,
           max_pixels: int | None = None, overlap: bool = True) -> Summary:
    """Segments a video and writes it with the results drawn over its frames.

    All frames are written, with the time stamps that they had, so that the length stays; of those that ``every`` passes
    over, each is drawn with the last result. A broken frame is left out, and the one before it is shown for longer.
    Reading, inference, and drawing with encoding run at the same time; memory does not grow with the length. The file
    can be played at any time, also if the process is killed; an error or ``stop`` finishes it at the last frame.

    Args:
        source, segment, every, batch, options, track, fps, stop, max_frames, max_seconds, max_pixels, overlap: see
            `streaming.segment` and `streaming.read`.
        output: the file to write: .mp4, .m4v, .mov, .mkv or .webm; its folder is made. None to draw nothing, for
            ``json`` alone.
        look: arguments of `visualize.draw_instances` and its like for maps, as a mapping or a dataclass: ``color_by``,
            ``classes``, ``font``, ``scale``, ``tags``. Instances that are tracked have colours of their tracks.
        json: a file for JSON lines, one for each frame that was segmented; see `records.as_record`.
        codec: how to compress: 'h264', 'vp9', 'mpeg4', 'hevc', 'av1', 'vp8' or 'ffv1'; default the first of those
            that fit the output and work here.
        sound: copy the sound of a video file, where the output can hold it.
        progress: is called after each frame that was written.

    Raises:
        VideoError: a source that cannot be read; an output that cannot be written, or is the source. Before anything is
            segmented.
        ValueError: an option out of range.
    """
    check_numbers(every=every, batch=batch, max_frames=max_frames, max_seconds=max_seconds, fps=fps)
    output, json = (None if path is None else Path(path) for path in (output, json))
    check_outputs(source, output, json, codec)
    began = time.monotonic()
    report = Reported(str(source))
    opened = Source(source, fps, max_pixels)
    with ExitStack() as stack:
        stack.callback(opened.close)
        facts = opened.facts
        drawer = Drawer(look)
        recipe = None if output is None else _recipe(output, facts, drawer, codec)
        audible = facts.audio and facts.kind == 'file' and sound and output is not None
        frames = segmented(opened, segment, report, every=every, batch=batch, options=options, track=track,
                           between=output is not None, overlap=overlap, stop=stop,
                           limits=Limits(max_frames, max_seconds))
        stack.callback(frames.close)
        meter = _Meter(expected_frames(facts, max_frames, max_seconds, every if output is None else 1), began)
        work = _Work(output, json, recipe, drawer, source if audible else None, facts.seconds)
        # Last in, first out: the files are whole before the threads are waited for.
        stack.callback(work.close)
        for frame in frames:
            work.add(frame)
            del frame
            done = meter.count(work.frames)
            if progress is not None:
                progress(done)
    notes = list(work.notes)
    if facts.audio and not audible and sound and output is not None:
        notes.append('the sound of a stream is not copied')
    return Summary(work.frames, report.count + report.dropped, work.seconds, float(mean_rate(facts)),
                   output if work.frames else None, report.kept, stop is not None and stop.is_set(),
                   time.monotonic() - began, recipe.encoder.name if recipe else '', notes)


def check_outputs(source: str | int | os.PathLike, output: Path | None, json: Path | None,
                  codec: str | None = None) -> None:
    """Raises VideoError for files that cannot be written, by their names and places, or that would overwrite the
    source or each other; nothing is written."""
    if output is None and json is None:
        raise VideoError('nothing to write: give an output, or a file for JSON lines')
    for path in (output, json):
        if path is None:
            continue
        if path.is_dir():
            raise VideoError(f'{path}: is a folder; name a file')
        if kind_of(source) in ('file', 'folder') and _is_of(path, Path(source)):
            raise VideoError(f'{path}: is the input, which is never overwritten; give another name')
        parent = next((parent for parent in path.absolute().parents if parent.exists()), path.absolute().parent)
        if not parent.is_dir():
            raise VideoError(f'{path}: {parent} is a file, not a folder')
        if not os.access(path if path.exists() else parent, os.W_OK):
            raise VideoError(f'{path}: cannot be written (no permission)')
    if output is not None:
        check_suffix(output, codec)
        if json is not None and _same(output, json):
            raise VideoError(f'{json}: is the output of the video as well; give another name')


def _is_of(path: Path, source: Path) -> bool:
    """Whether a file is the source, or one of its frames."""
    if source.is_dir():
        return path.exists() and any(_same(path, file) for file in source.iterdir())
    return _same(path, source)


def _same(one: Path, other: Path) -> bool:
    if one.exists() and other.exists():
        return one.samefile(other)   # by another name as well
    return one.resolve() == other.resolve()


def _recipe(output: Path, facts: Facts, drawer: Drawer, codec: str | None) -> Recipe:
    size = even(drawer.size(facts.width, facts.height))
    # A camera's times are those of a clock.
    base = facts.time_base if facts.kind != 'camera' else Fraction(1, 90000)
    return choose(output, size, output_rate(mean_rate(facts)), base, codec, facts.aspect)


def expected_frames(facts: Facts, max_frames: int | None, max_seconds: float | None, every: int = 1) -> int | None:
    """How many frames there will be; None where nobody knows."""
    limits = [facts.frames, max_frames,
              None if max_seconds is None or not facts.fps else max(1, round(max_seconds * facts.fps))]
    known = [limit for limit in limits if limit is not None]
    return -(-min(known) // every) if known else None


class _Work:
    """What is done with the frames: drawn, written, recorded. Files are opened when the first frame is there, so that
    what fails before leaves what was there before."""

    def __init__(self, output: Path | None, json: Path | None, recipe: Recipe | None, drawer: Drawer,
                 sound: str | os.PathLike | None, ends: float | None) -> None:
        self._output, self._json, self._recipe, self._drawer, self._sound = output, json, recipe, drawer, sound
        self._ends = ends
        self._writer: VideoWriter | None = None
        self._records: RecordWriter | None = None
        self.frames = 0
        self.seconds = 0.0

    @property
    def notes(self) -> Iterator[str]:
        return iter(self._writer.notes if self._writer is not None else ())

    def add(self, frame: Frame) -> None:
        drawn = self._drawer.draw(frame) if self._output is not None else None
        if not self.frames:
            self._open()
        if self._records is not None:
            self._records.write(frame)
        if self._writer is not None:
            self._writer.write(drawn, frame.time)
        self.frames += 1
        self.seconds = self._writer.seconds if self._writer is not None else frame.time

    def _open(self) -> None:
        for path in (self._output, self._json):
            if path is not None:
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                except OSError as error:
                    raise VideoError(f'{path.parent}: cannot be made ({error.strerror})') from error
        if self._json is not None:
            self._records = RecordWriter(self._json)
        if self._output is not None:
            self._writer = VideoWriter(self._output, self._recipe, self._sound, self._ends)

    def close(self) -> None:
        try:
            if self._writer is not None:
                self._writer.close()
        finally:
            if self._records is not None:
                self._records.close()


class _Meter:
    """Frames per second, and what is left, as of the last while: the first frames take longer than the others."""

    def __init__(self, total: int | None, began: float) -> None:
        self._total, self._began, self._first = total, began, None

    def count(self, done: int) -> Progress:
        now = time.monotonic()
        if self._first is None:
            self._first = now
        elapsed = now - self._began
        fps = (done - 1) / (now - self._first) if now > self._first else done / max(elapsed, 1e-9)
        left = None if self._total is None else max(0, self._total - done) / max(fps, 1e-9)
        return Progress(done, self._total, elapsed, fps, left)
