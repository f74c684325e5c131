"""A video file that grows frame by frame and can be played at any time, also when its writing was cut short."""
from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from modelscope_fastinst.video.encoders import Recipe
from modelscope_fastinst.video.files import need_av
from modelscope_fastinst.video.frames import VideoError
from modelscope_fastinst.video.sources import sound_of


class VideoWriter:
    """Writes frames with their time stamps.

    Args:
        path: is overwritten.
        recipe: see `encoders.choose`.
        sound: a video file whose sound is copied, as it is compressed, up to the last frame.
        ends: when the source ends, in seconds, where it says so: its last frame is shown for no longer.

    Attributes:
        frames: how many were written.
        seconds: the length of the video so far.
        notes: what did not go as wished, a sentence each.

    Raises:
        VideoError: the file cannot be opened.
    """

    def __init__(self, path: Path, recipe: Recipe, sound: str | os.PathLike | None = None,
                 ends: float | None = None) -> None:
        self._av = need_av()
        self.path, self.frames, self.notes = path, 0, []
        self._ends = None if ends is None else round(ends / recipe.time_base)
        self._recipe, self._last = recipe, -1
        self._usual = self._step = max(1, round(1 / (recipe.rate * recipe.time_base)))
        self._sound: _Sound | None = None
        try:
            self._container, self._stream = recipe.open(str(path.absolute()))
            if sound is not None:
                self._sound = self._open_sound(sound)
        except (self._av.FFmpegError, OSError) as error:
            raise self._failed(error) from error

    @property
    def seconds(self) -> float:
        return float((self._last + self._step) * self._recipe.time_base) if self.frames else 0.0

    def write(self, image: np.ndarray, time: float) -> None:
        """Adds a frame.

        Args:
            image: uint8 RGB. One of another size than the video's is made to fit, with black beside it; a row or
                column that is missing to an even number is repeated.
            time: in seconds; later than that of the frame before.
        """
        stamp = max(round(time / self._recipe.time_base), self._last + 1)
        frame = self._av.VideoFrame.from_ndarray(self._fitted(image), format='rgb24')
        # FFmpeg's numbers: 1 is BT.709, and 16..235.
        frame = frame.reformat(format='yuv420p', dst_colorspace=1, dst_color_range=1)
        frame.pts, frame.time_base = stamp, self._recipe.time_base
        if self._ends is not None and stamp < self._ends:
            # Of a variable frame rate the mean says little: a pause would make the last frame as long as itself.
            self._step = min(self._usual, self._ends - stamp)
        try:
            self._mux(self._stream.encode(frame))
            self._last = stamp
            self.frames += 1
            if self._sound is not None:
                self._sound.copy(self._container, self.seconds)
        except (self._av.FFmpegError, OSError) as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Finishes the file."""
        try:
            if self.frames:
                self._mux(self._stream.encode(None))
            self._container.close()
        except (self._av.FFmpegError, OSError) as error:
            raise self._failed(error) from error
        finally:
            if self._sound is not None:
                self._sound.close()

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            packet.duration = self._step     # counts for the last frame; of the others, the next one's time
            self._container.mux(packet)

    def _fitted(self, image: np.ndarray) -> np.ndarray:
        width, height = self._recipe.width, self._recipe.height
        missing = height - image.shape[0], width - image.shape[1]
        if missing != (0, 0):
            if not all(0 <= side <= 1 for side in missing):
                image = letterboxed(image, width, height)
                self._note('some frames have another size than the first; they were made to fit')
            else:
                image = np.pad(image, ((0, missing[0]), (0, missing[1]), (0, 0)), mode='edge')
        return np.ascontiguousarray(image)

    def _open_sound(self, source: str | os.PathLike) -> _Sound | None:
        try:
            return _Sound(source, self._container)
        except (self._av.FFmpegError, OSError, ValueError) as error:
            reason = getattr(error, 'strerror', None) or ' '.join(str(error).split())
            self._note(f'the sound was not copied: it does not go into {self.path.suffix} ({reason})')
            return None

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _failed(self, error: Exception) -> VideoError:
        reason = getattr(error, 'strerror', None) or ' '.join(str(error).split())
        return VideoError(f'{self.path}: cannot be written ({reason})')


class _Sound:
    """The sound of a file, copied as it is compressed, as far as the picture has come."""

    def __init__(self, source: str | os.PathLike, output: Any) -> None:
        self._input = sound_of(source)
        try:
            stream = self._input.streams.audio[0]
            codec = stream.codec_context.name
            if codec not in output.supported_codecs:
                raise ValueError(f'{codec}')
            video = next((stream for stream in self._input.streams.video), None)
            # Both count from the first frame.
            self._origin = float(video.start_time * video.time_base) if video is not None and video.start_time else 0.0
            self._target = output.add_stream_from_template(stream)
            self._packets = self._input.demux(stream)
            self._next: Any = next(self._packets, None)
        except BaseException:
            self._input.close()
            raise

    def copy(self, output: Any, until: float) -> None:
        """Copies what is heard before a time, in seconds."""
        while self._next is not None and self._next.dts is not None:
            packet = self._next
            begin = float(packet.dts * packet.time_base) - self._origin
            if begin >= until:
                return
            self._next = next(self._packets, None)
            if begin < 0:
                continue
            shift = round(self._origin / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts - shift
            packet.dts -= shift
            packet.stream = self._target
            output.mux(packet)

    def close(self) -> None:
        self._input.close()


def letterboxed(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """An image in the middle of black, as large as it fits."""
    import cv2
    scale = min(width / image.shape[1], height / image.shape[0])
    size = max(1, min(width, round(image.shape[1] * scale))), max(1, min(height, round(image.shape[0] * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    canvas = np.zeros((height, width, 3), np.uint8)
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    canvas[top:top + size[1], left:left + size[0]] = small
    return canvas


def even(size: tuple[int, int]) -> tuple[int, int]:
    """(width, height), each the next even number: what most encoders want, whose colours have half the resolution."""
    return size[0] + size[0] % 2, size[1] + size[1] % 2


def output_rate(fps: Fraction) -> Fraction:
    """A rate that encoders take."""
    return min(max(fps, Fraction(1, 100)), Fraction(1000))
