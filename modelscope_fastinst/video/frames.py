"""What travels through this room: frames, what is known of a source, and what became of it."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class VideoError(ValueError):
    """A source that cannot be read or an output that cannot be written; the message names it and says why."""


class Broken(NamedTuple):
    """A frame that could not be read and was passed over.

    Attributes:
        index: its number in the source, from 0.
        time: in seconds since the first frame; an estimate where the damage hides it.
        reason: what was wrong.
    """
    index: int
    time: float
    reason: str


@dataclass(frozen=True)
class Facts:
    """What a source says of itself; what it says need not be true.

    Attributes:
        name: what messages call it.
        kind: 'file', 'folder', 'stream' (a URL) or 'camera'.
        width, height: in pixels, upright (rotation applied).
        fps: frames per second, the mean where they vary; None where unknown.
        frames: how many, an estimate for most files; None where unknown, as of a camera.
        seconds: its length; None where unknown.
        codec: of a file: the name of its compression, such as 'h264'.
        audio: whether it has sound.
        aspect: width of a pixel over its height.
        time_base: what its time stamps count, in seconds; None where it has none.
        live: whether it goes on whether or not anyone looks, as a camera does.
    """
    name: str
    kind: str
    width: int
    height: int
    fps: float | None = None
    frames: int | None = None
    seconds: float | None = None
    codec: str | None = None
    audio: bool = False
    aspect: Fraction = Fraction(1)
    time_base: Fraction | None = None
    live: bool = False


@dataclass
class Frame:
    """A frame, and what was found in it.

    Attributes:
        index: its number in the source, from 0; broken frames count.
        time: in seconds since the first frame of the source, as its time stamps say.
        image: uint8 ``[H, W, 3]``, RGB, upright.
        result: what the pipeline gives for an image, masks as COCO RLE; None where nothing was segmented yet.
        ids: the track of each entry of the result: whole numbers from 1 that stay with an object; empty without
            tracking.
        fresh: False for a frame that was passed over by ``every``: its result and ids are those of the last frame
            before it that was segmented.
    """
    index: int
    time: float
    image: np.ndarray
    result: Mapping[str, Any] | None = None
    ids: list[int] = field(default_factory=list)
    fresh: bool = True


@dataclass(frozen=True)
class Progress:
    """How far the work is.

    Attributes:
        done: frames written.
        total: frames that there are, as far as is known.
        elapsed: seconds since the work began.
        fps: frames written in a second of work, since the first.
        left: seconds of work that remain; None where unknown.
    """
    done: int
    total: int | None
    elapsed: float
    fps: float
    left: float | None


@dataclass(frozen=True)
class Summary:
    """What was written.

    Attributes:
        frames: how many were written.
        skipped: how many were not: broken ones, and those that a camera gave while the network was busy.
        seconds: the length of the video written.
        fps: its frame rate.
        output: the file; None if no frame could be written.
        broken: the broken frames, each (index, time, reason); of very many, the first 1000.
        stopped: whether it ended before the source did because it was asked to.
        elapsed: seconds of work.
        codec: the encoder, by FFmpeg's name.
        notes: what else a user should know, a sentence each: sound that could not be copied, frames of another size.
    """
    frames: int
    skipped: int
    seconds: float
    fps: float
    output: Path | None
    broken: list[Broken]
    stopped: bool = False
    elapsed: float = 0.0
    codec: str = ''
    notes: list[str] = field(default_factory=list)


class Raw(NamedTuple):
    """A frame that is not an image yet: what ``every`` passes over never becomes one.

    Attributes:
        index, time: as of a `Frame`.
        image: gives uint8 RGB ``[H, W, 3]``; raises an error for a frame that is broken.
    """
    index: int
    time: float
    image: Callable[[], np.ndarray]
