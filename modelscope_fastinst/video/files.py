"""Video files and streams, read through PyAV."""
from __future__ import annotations

import math
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from modelscope_fastinst.video.frames import Broken, Facts, Raw, VideoError

# The containers that a file may be. FFmpeg would take more for a video: playlists, which name other files and
# addresses, and text.
_CONTAINERS = ('mov', 'mp4', 'm4a', '3gp', 'matroska', 'webm', 'avi', 'mpegts', 'mpeg', 'mpegvideo', 'flv', 'asf',
               'ogg', 'gif', 'apng', 'h264', 'hevc', 'av1', 'obu', 'ivf', 'mxf', 'dv', 'rm', 'wtv', 'nut', 'm4v',
               'mjpeg', 'yuv4mpegpipe')
# Streams of these do not wait for who reads them.
_LIVE = ('rtsp', 'rtsps', 'rtmp', 'rtmps', 'rtp', 'udp', 'srt')
_PATIENCE = 15.0      # seconds without an answer, of a stream
_JUMP = 1.0           # time stamps that go back by more seconds than this begin anew
_FASTEST = 1000       # frames per second; more is no frame rate but the unit of the time stamps


def need_av() -> Any:
    """PyAV.

    Raises:
        VideoError: it is not installed; names what to install.
    """
    try:
        import av
    except ImportError as error:
        raise VideoError('videos are read and written with PyAV, which is not installed: '
                         'pip install "modelscope-fastinst[video]"') from error
    return av


def local(path: str | os.PathLike) -> tuple[str, dict[str, str]]:
    """A file's address for FFmpeg, and the options with which it opens this file alone."""
    # Without a prefix a name with a colon would be taken for a protocol.
    return (f'file:{Path(path).absolute()}',
            {'protocol_whitelist': 'file', 'format_whitelist': ','.join(_CONTAINERS)})


class VideoFile:
    """A video file or a stream.

    Args:
        address: a path, or a URL.
        max_pixels: refuse frames of more pixels, before one is decoded.

    Attributes:
        facts: what it says of itself; complete once the first frame was read.

    Raises:
        VideoError: no such file, an empty one, none that holds a video, frames that are too large.
    """

    def __init__(self, address: str, max_pixels: int | None = None) -> None:
        self.name = address
        self._av = need_av()
        scheme = address.split('://')[0].lower() if '://' in address else None
        self._container = self._open(scheme)
        try:
            self._stream = self._video_stream()
            context = self._stream.codec_context
            if max_pixels is not None:
                context.options = {'max_pixels': str(max_pixels)}   # a stream may change its size on its way
            if max_pixels is not None and context.width * context.height > max_pixels:
                raise VideoError(f'{self.name}: frames of {context.width} x {context.height} pixels; at most '
                                 f'{max_pixels} pixels are taken')
        except BaseException:
            self._container.close()
            raise
        self.facts = self._facts('stream' if scheme else 'file', scheme in _LIVE)

    def _open(self, scheme: str | None) -> Any:
        address, options, timeout = self.name, {}, _PATIENCE
        if scheme is None:
            path = Path(self.name)
            if not path.is_file():
                raise VideoError(f'{self.name}: {"is a folder" if path.is_dir() else "no such file"}')
            if path.stat().st_size == 0:
                raise VideoError(f'{self.name}: is empty (0 bytes)')
            address, options = local(path)
            timeout = None
        elif scheme in ('rtsp', 'rtsps'):
            options = {'rtsp_transport': 'tcp'}   # of UDP packets, too many are lost
        try:
            return self._av.open(address, options=options, timeout=timeout, metadata_errors='replace')
        except (self._av.FFmpegError, OSError, ValueError) as error:
            raise VideoError(f'{self.name}: {self._why_not(error, scheme)}') from error

    def _why_not(self, error: Exception, scheme: str | None) -> str:
        reason = getattr(error, 'strerror', None) or str(error)
        if scheme is not None:
            return f'cannot be opened ({reason})'
        if isinstance(error, PermissionError):
            return f'cannot be read ({reason})'
        return f'is no video, or damaged ({reason}); pictures go to predict, several of them in a folder'

    def _video_stream(self) -> Any:
        # The cover of a record is a video of one frame to FFmpeg.
        streams = [stream for stream in self._container.streams.video
                   if 'attached_pic' not in str(getattr(stream, 'disposition', ''))]
        if not streams:
            raise VideoError(f'{self.name}: holds no video (only {self._held()})')
        if streams[0].codec_context is None:
            raise VideoError(f'{self.name}: its compression is unknown to the installed FFmpeg')
        return streams[0]

    def _held(self) -> str:
        return ', '.join(sorted({stream.type for stream in self._container.streams})) or 'nothing'

    def _facts(self, kind: str, live: bool) -> Facts:
        stream, container = self._stream, self._container
        fps = next((rate for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate)
                    if rate and 0 < rate <= _FASTEST), None)
        seconds = None
        if stream.duration and stream.time_base:
            seconds = float(stream.duration * stream.time_base)
        elif container.duration:
            seconds = container.duration / 1e6
        frames = stream.frames or (round(seconds * fps) if seconds and fps else None)
        aspect = stream.sample_aspect_ratio or Fraction(1)
        return Facts(self.name, kind, stream.codec_context.width, stream.codec_context.height,
                     float(fps) if fps else None, frames, seconds if seconds and seconds > 0 else None,
                     stream.codec_context.name, bool(container.streams.audio), aspect if aspect > 0 else Fraction(1),
                     stream.time_base, live)

    def items(self) -> Iterator[Raw | Broken]:
        """Frames in the order of time, and those that cannot be decoded."""
        clock = _Clock(self._stream, self.facts.fps or 25.0)
        matrix = None
        index, damaged = 0, []
        for frame in self._decoded(damaged):
            time = None if frame is None else clock.time(frame.pts if frame.pts is not None else frame.dts)
            # The decoder holds frames back to put them in order; a damage is told when its turn has come.
            for stamp, reason in sorted(damaged, key=lambda item: -math.inf if item[0] is None else item[0]):
                moment = clock.guess(stamp)
                if time is None or moment <= time:
                    damaged.remove((stamp, reason))
                    yield Broken(index, moment, reason)
                    index += 1
            if frame is None:
                break
            if matrix is None:
                # Of the first alone: it is the stream's, and a frame whose side data was looked at refers to itself, so
                # that its memory stays taken until Python looks for such circles.
                matrix = display_matrix(frame)
            if frame.is_corrupt:
                yield Broken(index, time, 'is damaged')
            else:
                yield Raw(index, time, _Image(frame, matrix))
            index += 1
            del frame
        announced, seconds = self._stream.frames, self.facts.seconds or 0.0
        # Some containers count pauses as frames: the time must be missing as well.
        if announced - index > max(2, announced // 50) and clock.next < 0.98 * seconds:
            yield Broken(index, clock.next, f'the file ends here, and {announced} frames were announced')

    def _decoded(self, damaged: list[tuple[int | None, str]]) -> Iterator[Any]:
        """The decoder's frames, and None after the last; what cannot be decoded is added to ``damaged``."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except self._av.FFmpegError as error:
                damaged.append((None, f'reading ends here ({error.strerror})'))
                packet = None
            if packet is None:
                break
            try:
                frames = packet.decode()
            except self._av.FFmpegError as error:
                stamp = packet.pts if packet.pts is not None else packet.dts
                damaged.append((stamp, f'cannot be decoded ({error.strerror})'))
                continue
            yield from frames
        yield None

    def close(self) -> None:
        """Closes the file; nothing can be read of it after that."""
        self._container.close()


class _Clock:
    """Time stamps -> seconds since the first frame, strictly rising."""

    def __init__(self, stream: Any, fps: float) -> None:
        self._unit = float(stream.time_base or 1 / fps)
        self._origin = stream.start_time
        self._step = 1 / fps
        self._last = -math.inf

    @property
    def next(self) -> float:
        """When the next frame is due if there is no telling."""
        return max(0.0, self._last + self._step)

    def guess(self, stamp: int | None) -> float:
        """The time of a stamp, without the clock's going on."""
        if stamp is None:
            return self.next
        return max(0.0, (stamp - (stamp if self._origin is None else self._origin)) * self._unit)

    def time(self, stamp: int | None) -> float:
        if stamp is None:
            now = self.next
        else:
            if self._origin is None:
                self._origin = stamp
            now = (stamp - self._origin) * self._unit
            if now < self._last - _JUMP:   # two recordings in one file: the second goes on where the first ends
                self._origin = stamp - round(self.next / self._unit)
                now = self.next
        now = max(now, 0.0) if math.isinf(self._last) else now if now > self._last else self._last + self._unit
        self._last = now
        return now


class _Image:
    """A decoded frame on its way to an image; most of the work is done when it is called."""

    def __init__(self, frame: Any, matrix: tuple[int, int, int, int]) -> None:
        self._frame, self._matrix = frame, matrix

    def __call__(self) -> np.ndarray:
        frame = self._frame
        # 1 is BT.709, which is meant where a large picture does not say what its colours are (2); FFmpeg takes BT.601.
        meant = {'src_colorspace': 1} if frame.colorspace == 2 and frame.height >= 720 else {}
        return upright(frame.to_ndarray(format='rgb24', **meant), self._matrix)


def display_matrix(frame: Any) -> tuple[int, int, int, int]:
    """How a frame wants to be shown: (a, b, c, d), with which the pixel at (x, y) goes to (ax + cy, bx + dy); each is
    -1, 0 or 1, and what is no turn by right angles counts as none."""
    plain = (1, 0, 0, 1)
    data = next((bytes(item) for item in frame.side_data if 'DISPLAYMATRIX' in str(item.type)), None) \
        if len(frame.side_data) else None
    if data is None or len(data) < 36:
        return plain
    values = np.frombuffer(data[:36], np.int32).astype(float).reshape(3, 3)[:2, :2].ravel() / 65536
    turn = tuple(int(value) for value in np.rint(values))
    exact = np.allclose(values, turn, atol=0.01) and abs(turn[0] * turn[3] - turn[1] * turn[2]) == 1
    return turn if exact and sum(map(abs, turn)) == 2 else plain


def upright(image: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """An image as ``display_matrix`` says; contiguous."""
    a, b, c, d = matrix
    if a == 0:      # x' follows y
        image = image.swapaxes(0, 1)
        a, d = c, b
    return np.ascontiguousarray(image[::d, ::a])
