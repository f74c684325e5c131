"""Which encoder and which container a video is written with: the first of those that would do that really works here.

PyAV itself is BSD-licensed, but the FFmpeg in its wheels may have parts under the GPL (x264); another build may have
none of them. So no encoder is required: what is there is tried, on a few black frames.
"""
from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from modelscope_fastinst.video.files import need_av
from modelscope_fastinst.video.frames import VideoError

# A piece of the file is finished each so many seconds: what a process that is killed leaves is playable up to there.
_PIECE = 0.5
_HYBRID = 'hybrid_fragmented+frag_keyframe+default_base_moof'   # becomes a plain MP4 at its end; FFmpeg 7.1 and later
_FRAGMENTED = 'frag_keyframe+empty_moov+default_base_moof'


@dataclass(frozen=True)
class Encoder:
    """A way to compress a video.

    Attributes:
        name: FFmpeg's.
        codec: what it writes, by the name that users know.
        options: its settings: good quality, little delay (frames that wait in it are lost to a kill).
        finest: the largest denominator of its time base.
        bits: of those without a setting for quality, how many bits a pixel gets.
    """
    name: str
    codec: str
    options: dict[str, str] = field(default_factory=dict)
    finest: int = 10 ** 6
    bits: float | None = None


_X26 = {'preset': 'veryfast', 'tune': 'zerolatency'}
_VPX = {'deadline': 'realtime', 'cpu-used': '5', 'b': '0', 'lag-in-frames': '0', 'row-mt': '1'}
ENCODERS = (
    Encoder('libx264', 'h264', {**_X26, 'crf': '20'}),
    Encoder('libopenh264', 'h264', bits=0.15),
    Encoder('libvpx-vp9', 'vp9', {**_VPX, 'crf': '28'}),
    Encoder('libvpx', 'vp8', {**_VPX, 'crf': '10', 'b': '4M'}),
    Encoder('mpeg4', 'mpeg4', {'flags': '+qscale', 'global_quality': '354'}, finest=65535),
    Encoder('libx265', 'hevc', {**_X26, 'crf': '24', 'x265-params': 'log-level=error'}),
    Encoder('libsvtav1', 'av1', {'preset': '10', 'crf': '30'}),
    Encoder('ffv1', 'ffv1', {'level': '3', 'slicecrc': '1'}),
)
# By suffix: FFmpeg's name of the container, and the codecs that go into it, best first.
CONTAINERS = {
    '.mp4': ('mp4', ('h264', 'vp9', 'mpeg4', 'hevc', 'av1')),
    '.m4v': ('mp4', ('h264', 'mpeg4', 'hevc')),
    '.mov': ('mov', ('h264', 'mpeg4', 'hevc')),
    '.mkv': ('matroska', ('h264', 'vp9', 'mpeg4', 'vp8', 'hevc', 'av1', 'ffv1')),
    '.webm': ('webm', ('vp9', 'vp8', 'av1')),
}
CODECS = tuple(dict.fromkeys(encoder.codec for encoder in ENCODERS))


@dataclass(frozen=True)
class Recipe:
    """What a video is written with: an encoder that was tried at this size, and the container's settings."""
    encoder: Encoder
    container: str
    options: dict[str, str]
    width: int
    height: int
    rate: Fraction
    time_base: Fraction
    aspect: Fraction

    def open(self, file: Any) -> tuple[Any, Any]:
        """PyAV's container, opened for writing, and its video stream."""
        av = need_av()
        container = av.open(file, 'w', format=self.container, options=self.options)
        try:
            stream = container.add_stream(self.encoder.name, rate=self.rate)
            stream.width, stream.height, stream.pix_fmt = self.width, self.height, 'yuv420p'
            stream.time_base = self.time_base
            context = stream.codec_context
            context.time_base = self.time_base
            context.gop_size = max(1, min(round(self.rate * 2), 60))
            context.max_b_frames = 0     # else a damage or an end takes more frames with it
            context.options = dict(self.encoder.options)
            context.sample_aspect_ratio = self.aspect
            # Untagged colours are guessed from the size of the picture.
            context.colorspace = context.color_primaries = context.color_trc = 1   # BT.709
            context.color_range = 1   # 16..235
            if self.encoder.bits is not None:
                context.bit_rate = round(self.width * self.height * min(float(self.rate), 60) * self.encoder.bits)
        except BaseException:
            container.close()
            raise
        return container, stream


def choose(path: Path, size: tuple[int, int], rate: Fraction, time_base: Fraction | None = None,
           codec: str | None = None, aspect: Fraction = Fraction(1)) -> Recipe:
    """What a file is to be written with.

    Args:
        path: of the file; its suffix says which container.
        size: (width, height) in pixels; even numbers.
        rate: frames per second.
        time_base: what time stamps should count, in seconds.
        codec: one of `CODECS`; None for the best that works.
        aspect: width of a pixel over its height.

    Raises:
        VideoError: a suffix of no container that is written, a codec that does not go into it, or none that works.
    """
    container, codecs = _container(path)
    if codec is not None:
        if codec not in codecs:
            raise VideoError(f'{path}: {codec} does not go into {path.suffix.lower()}; {_fitting(codec, codecs)}')
        codecs = (codec,)
    failed = []
    for encoder in (encoder for wanted in codecs for encoder in ENCODERS if encoder.codec == wanted):
        for options in _container_options(container):
            recipe = Recipe(encoder, container, options, *size, rate, _time_base(time_base, rate, encoder), aspect)
            reason = _try(recipe)
            if reason is None:
                return recipe
        failed.append(f'{encoder.name}: {reason}')
    raise VideoError(f'{path}: no encoder for {", ".join(codecs)} at {size[0]} x {size[1]} pixels works here '
                     f'({"; ".join(failed)})')


def check_suffix(path: Path, codec: str | None = None) -> None:
    """Raises VideoError for a file that cannot be written by its name, or not with this codec."""
    _, codecs = _container(path)
    if codec is not None and codec not in codecs:
        raise VideoError(f'{path}: {codec} does not go into {path.suffix.lower()}; {_fitting(codec, codecs)}')


def _container(path: Path) -> tuple[str, tuple[str, ...]]:
    found = CONTAINERS.get(path.suffix.lower())
    if found is None:
        raise VideoError(f'{path}: {path.suffix or "a name without suffix"} is no kind of video that is written; use '
                         f'{", ".join(CONTAINERS)}')
    return found


def _fitting(codec: str, codecs: Sequence[str]) -> str:
    others = [suffix for suffix, (_, fitting) in CONTAINERS.items() if codec in fitting]
    return f'use {", ".join(codecs)}' + (f', or a file of the kind {", ".join(others)}' if others else '')


def _container_options(container: str) -> list[dict[str, str]]:
    """Settings with which what is on disk is playable at any time, best first."""
    flushed = {'flush_packets': '1', 'max_interleave_delta': str(round(_PIECE * 1e6))}
    if container in ('mp4', 'mov'):
        pieces = {'frag_duration': str(round(_PIECE * 1e6)), **flushed}
        return [{'movflags': _HYBRID, **pieces}, {'movflags': _FRAGMENTED, **pieces}]
    return [{'cluster_time_limit': str(round(_PIECE * 1000)), **flushed}]


def _time_base(wanted: Fraction | None, rate: Fraction, encoder: Encoder) -> Fraction:
    """What time stamps count: the source's own unit where it can be, else a fine one."""
    if wanted is not None and wanted.denominator <= encoder.finest and wanted.numerator <= wanted.denominator:
        return wanted
    fine = 90000 if encoder.finest >= 90000 else 60000
    return 1 / rate if wanted is None and rate.numerator <= encoder.finest else Fraction(1, fine)


def _try(recipe: Recipe) -> str | None:
    """Why a recipe does not work; None if it does: two black frames are written to memory."""
    av = need_av()
    try:
        container, stream = recipe.open(io.BytesIO())
        try:
            for stamp in range(2):
                frame = av.VideoFrame(recipe.width, recipe.height, 'yuv420p')
                for plane in frame.planes:
                    plane.update(bytes(plane.buffer_size))
                frame.pts, frame.time_base = stamp, recipe.time_base
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        finally:
            container.close()
    except (av.FFmpegError, OSError, ValueError, MemoryError) as error:
        return getattr(error, 'strerror', None) or ' '.join(str(error).split()) or type(error).__name__
    return None
