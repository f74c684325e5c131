"""Frames, and what the network finds in them, one after the other."""
from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from modelscope_fastinst.video.ahead import Ahead
from modelscope_fastinst.video.frames import Broken, Frame
from modelscope_fastinst.video.sources import Source
from modelscope_fastinst.video.tracking import Tracker

logger = logging.getLogger('modelscope_fastinst')

_LISTED = 1000               # of very many broken frames, so many are kept
_LOGGED = 5                  # and so many get a line in the log
_WAITING = 256 * 2 ** 20     # bytes of frames that may wait for a batch to fill


def read(source: str | int | os.PathLike, *, every: int = 1, fps: float | None = None, max_frames: int | None = None,
         max_seconds: float | None = None, max_pixels: int | None = None,
         broken: list[Broken] | None = None) -> Iterator[Frame]:
    """The frames of a video file, a stream, a folder of pictures or a camera, upright, as RGB.

    Args:
        source: path of a file or of a folder, URL, or a camera's number or device. Pictures of a folder come in the
            order of the numbers in their names.
        every: give each ``every``-th frame, beginning with the first.
        fps: of a folder: how many of its pictures make a second; default 25.
        max_frames, max_seconds: end before the frame of this number (from 0), or this time.
        max_pixels: refuse frames of more pixels, before one is decoded.
        broken: gets what is passed over because it cannot be read; without it, the log says so.

    Raises:
        VideoError: a source that cannot be opened, or none of whose frames can be read; at once.
        ValueError: an option out of range; at once.
    """
    check_numbers(every=every, max_frames=max_frames, max_seconds=max_seconds, fps=fps)
    opened = Source(source, fps, max_pixels)
    return _read(opened, every, Limits(max_frames, max_seconds), Reported(opened.facts.name, broken))


def segment(source: str | int | os.PathLike, segment: Callable[..., list[Mapping[str, Any]]], *, every: int = 1,
            batch: int = 1, options: Mapping[str, Any] | None = None, track: bool | Tracker = True,
            between: bool = False, overlap: bool = True, stop: threading.Event | None = None,
            fps: float | None = None, max_frames: int | None = None, max_seconds: float | None = None,
            max_pixels: int | None = None, broken: list[Broken] | None = None) -> Iterator[Frame]:
    """Segments a video, frame by frame, in constant memory.

    Reading, inference and whatever is done with the frames run at the same time: the first two in threads of their own,
    a few frames ahead. Of a camera, and of live streams, frames that come while the network is busy are dropped.

    Args:
        source, fps, max_frames, max_seconds, max_pixels, broken: see `read`.
        segment: ``pipeline('image-segmentation', ...)``, or anything that is called like it: with a list of BGR arrays,
            ``batch_size=``, ``mask_format='rle'`` and ``options``, it gives a list of results.
        every: segment each ``every``-th frame, beginning with the first.
        batch: how many frames go through the network together.
        options: of each call, such as ``score_thr``.
        track: give instances ids that stay with their objects; or a tracker with settings of its own.
        between: give the frames that ``every`` passes over as well, with the last result (``Frame.fresh`` is False).
        overlap: False to do one thing after the other, in this thread.
        stop: ends the frames when it is set, from any thread.

    Raises:
        VideoError, ValueError: as `read`, at once. What ``segment`` raises comes where its frame would.
    """
    check_numbers(every=every, batch=batch, max_frames=max_frames, max_seconds=max_seconds, fps=fps)
    opened = Source(source, fps, max_pixels)
    report = Reported(opened.facts.name, broken)
    return segmented(opened, segment, report, every=every, batch=batch, options=options, track=track, between=between,
                     overlap=overlap, stop=stop, limits=Limits(max_frames, max_seconds))


def segmented(opened: Source, segment: Callable[..., Any], report: Reported, *, every: int, batch: int,
              options: Mapping[str, Any] | None, track: bool | Tracker, between: bool, overlap: bool,
              stop: threading.Event | None, limits: Limits) -> Iterator[Frame]:
    """What `segment` gives of a source that is open; closes it."""
    frames = _read(opened, 1 if between else every, limits, report)
    tracker = Tracker() if track is True else track or None
    chain = Chain(overlap)
    frames = chain.add(frames, batch + 1, newest=opened.facts.live)
    results = chain.add(_batches(frames, segment, every, batch, dict(options or {}),
                                 opened.facts.live), 2, stop)
    try:
        ids: list[int] = []
        for frame in results:
            if stop is not None and stop.is_set():
                break
            if tracker is not None and frame.result is not None and 'label_map' not in frame.result:
                if frame.fresh:
                    ids = tracker.update(frame.result['masks'], frame.result['labels'], frame.index)
                frame.ids = list(ids)
            report.dropped = chain.dropped
            yield frame
            del frame
    finally:
        chain.close()


class Chain:
    """Stages that work at the same time, or, for comparison, one after the other."""

    def __init__(self, overlap: bool) -> None:
        self._overlap = overlap
        self._ended = threading.Event()
        self._stages: list[Any] = []

    def add(self, items: Iterator[Any], depth: int, stop: threading.Event | None = None,
            newest: bool = False) -> Iterator[Any]:
        """The items, made ahead; see `Ahead`."""
        stage = Ahead(items, depth, self._ended, stop, newest) if self._overlap else items
        self._stages.append(stage)
        return iter(stage)

    @property
    def dropped(self) -> int:
        return sum(getattr(stage, 'dropped', 0) for stage in self._stages)

    def close(self) -> None:
        """Ends every stage and waits for it."""
        self._ended.set()
        for stage in reversed(self._stages):
            stage.join() if isinstance(stage, Ahead) else stage.close()


class Limits:
    """Where to end."""

    def __init__(self, frames: int | None, seconds: float | None) -> None:
        self.frames, self.seconds = frames, seconds

    def reached(self, item: Frame | Broken) -> bool:
        return (self.frames is not None and item.index >= self.frames
                or self.seconds is not None and item.time >= self.seconds)


class Reported:
    """Broken frames: collected, and told in the log.

    Args:
        name: of the source.
        kept: the list to collect them in.
    """

    def __init__(self, name: str, kept: list[Broken] | None = None) -> None:
        self._name = name
        self.kept = [] if kept is None else kept
        self.count = 0
        self.dropped = 0

    def add(self, item: Broken) -> None:
        self.count += 1
        if len(self.kept) < _LISTED:
            self.kept.append(item)
        if self.count <= _LOGGED:
            more = '; more follow' if self.count == _LOGGED else ''
            logger.warning(f'{self._name}: frame {item.index} at {item.time:.3f} s is passed over: '
                           f'{item.reason}{more}')


def _read(opened: Source, every: int, limits: Limits, report: Reported) -> Iterator[Frame]:
    with _closing(opened):
        for item in opened.frames(every):
            if limits.reached(item):
                break
            if isinstance(item, Broken):
                report.add(item)
                continue
            yield item
            del item


@contextmanager
def _closing(opened: Source) -> Iterator[None]:
    try:
        yield
    finally:
        opened.close()


def _batches(frames: Iterator[Frame], segment: Callable[..., Any], every: int, batch: int,
             options: dict[str, Any], live: bool) -> Iterator[Frame]:
    """The frames in their order with results; those between with that of the last before them that was segmented."""
    due = 0
    last: Any = None
    waiting: list[Frame] = []
    fresh = 0

    def flush() -> Iterator[Frame]:
        nonlocal last
        chosen = [frame.image[:, :, ::-1] for frame in waiting if frame.fresh]
        found = iter(segment(chosen, batch_size=batch, mask_format='rle', **options) if chosen else ())
        while waiting:
            frame = waiting.pop(0)
            last = next(found) if frame.fresh else last
            frame.result = last
            yield frame
            del frame

    for frame in frames:
        # Of a live source, the one whose turn it is may have been dropped.
        frame.fresh = frame.index >= due if live else frame.index % every == 0
        if frame.fresh:
            due = frame.index + every
        waiting.append(frame)
        fresh += frame.fresh
        size = frame.image.nbytes
        del frame
        # Between two that are segmented there is nothing to wait for, unless a batch is not full.
        if fresh == batch or not fresh or len(waiting) * size > _WAITING:
            yield from flush()
            fresh = 0
    yield from flush()


def check_numbers(**values: Any) -> None:
    """Raises ValueError for an option of `segment` that is out of range."""
    for name, value in values.items():
        if value is None:
            continue
        whole = name in ('every', 'batch', 'max_frames')
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not value > 0:
            wanted = 'a whole number, at least 1' if whole else 'a number above 0'
            raise ValueError(f'{name} is {value!r}; it must be {wanted}')
