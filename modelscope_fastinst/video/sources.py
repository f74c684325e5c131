"""Where frames come from: one way to open files, streams, folders and cameras, and to go through them."""
from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from modelscope_fastinst.video.files import VideoFile, local, need_av
from modelscope_fastinst.video.folders import Camera, FrameFolder
from modelscope_fastinst.video.frames import Broken, Facts, Frame, Raw, VideoError

_DEVICE = re.compile(r'/dev/video\d+')
_URL = re.compile(r'[a-z][a-z0-9+.-]+://', re.IGNORECASE)


def kind_of(source: str | int | os.PathLike) -> str:
    """'camera' for a number, also as text, or a device; 'stream' for a URL; 'folder' for one that exists; else
    'file'."""
    text = str(source)
    if isinstance(source, int) or text.isdecimal() and not Path(text).exists() or _DEVICE.fullmatch(text):
        return 'camera'
    if _URL.match(text):
        return 'stream'
    return 'folder' if Path(text).is_dir() else 'file'


def probe(source: str | int | os.PathLike, *, fps: float | None = None, max_pixels: int | None = None) -> Facts:
    """What a source says of itself, its first frame read.

    Args:
        source: path of a video file or of a folder of frames, URL, or a camera's number or device.
        fps: of a folder: how many of its pictures make a second; default 25.
        max_pixels: refuse frames of more pixels, before one is decoded.

    Raises:
        VideoError: it cannot be opened, or none of its frames can be read.
    """
    opened = Source(source, fps, max_pixels)
    opened.close()
    return opened.facts


class Source:
    """An opened source, at its first frame.

    Args:
        source, fps, max_pixels: see `probe`.

    Attributes:
        facts: what is known of it.

    Raises:
        VideoError: see `probe`.
    """

    def __init__(self, source: str | int | os.PathLike, fps: float | None = None,
                 max_pixels: int | None = None) -> None:
        kind = kind_of(source)
        if kind == 'camera':
            text = str(source)
            self._reader: Any = Camera(int(text) if text.isdecimal() else text)
        elif kind == 'folder':
            self._reader = FrameFolder(Path(source), fps, max_pixels)
        else:
            self._reader = VideoFile(str(source), max_pixels)
        self._items = self._reader.items()
        self._first: list[Frame | Broken] = []
        try:
            self.facts = self._look()
        except BaseException:
            self._reader.close()
            raise

    def _look(self) -> Facts:
        """Reads up to the first frame, whose size is the source's."""
        for item in self._items:
            read = _developed(item)
            self._first.append(read)
            if isinstance(read, Frame):
                height, width = read.image.shape[:2]
                facts = self._reader.facts
                turned = (width, height) == (facts.height, facts.width) != (facts.width, facts.height)
                return replace(facts, width=width, height=height, aspect=1 / facts.aspect if turned else facts.aspect)
            if len(self._first) >= 100:
                break
        reason = f' ({self._first[0].reason})' if self._first else ''
        raise VideoError(f'{self._reader.name}: none of its frames can be read{reason}')

    def frames(self, every: int = 1) -> Iterator[Frame | Broken]:
        """Every ``every``-th frame, beginning with the first, and all that are known to be broken; once."""
        for item in self._all():
            if isinstance(item, Broken) or item.index % every == 0:
                yield _developed(item)

    def _all(self) -> Iterator[Frame | Raw | Broken]:
        while self._first:
            yield self._first.pop(0)
        yield from self._items

    def close(self) -> None:
        """Closes what is open."""
        self._items.close()
        self._reader.close()


def _developed(item: Frame | Raw | Broken) -> Frame | Broken:
    """A frame with its image, or why it has none."""
    if not isinstance(item, Raw):
        return item
    from modelscope_fastinst.data.image import ImageError
    try:
        return Frame(item.index, item.time, item.image())
    except (ImageError, VideoError, OSError) as error:
        return Broken(item.index, item.time, str(error))


def sound_of(source: str | int | os.PathLike) -> Any:
    """A second look into a video file, for its sound alone: PyAV's container."""
    address, options = local(source)
    return need_av().open(address, options=options, metadata_errors='replace')


def mean_rate(facts: Facts) -> Fraction:
    """A source's frame rate as a fraction, 25 where it is unknown."""
    from modelscope_fastinst.video.folders import DEFAULT_FPS
    return Fraction(facts.fps or DEFAULT_FPS).limit_denominator(1001)
