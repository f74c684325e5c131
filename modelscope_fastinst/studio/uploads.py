"""What visitors upload, judged by its content: names and suffixes are not looked at, and nothing is trusted."""
from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from modelscope_fastinst.studio.limits import Limits
from modelscope_fastinst.studio.messages import Refused

# Formats that visitors have, and that Pillow decodes by itself and in proportion to the pixels. Not, above all, EPS,
# for which it starts another program.
PICTURE_FORMATS = ('PNG', 'JPEG', 'MPO', 'WEBP', 'GIF', 'BMP', 'TIFF', 'PPM', 'AVIF')
# What a JPEG file of many scans costs is no matter of its pixels; cameras write one scan, progressive files about ten.
_MOST_SCANS = 40
# Containers by their first bytes. Not the text formats that name other files to read (playlists, lists to concatenate).
_CONTAINERS = (('mp4', 4, b'ftyp'), ('mp4', 4, b'moov'), ('mp4', 4, b'mdat'), ('mp4', 4, b'wide'), ('mp4', 4, b'free'),
               ('mp4', 4, b'skip'), ('matroska', 0, b'\x1aE\xdf\xa3'), ('avi', 0, b'RIFF'), ('gif', 0, b'GIF8'))
# What cameras, phones, browsers and editors write. FFmpeg knows hundreds more, of games and of the nineties.
_COMPRESSIONS = ('h264', 'hevc', 'av1', 'vp8', 'vp9', 'mpeg4', 'mpeg2video', 'mpeg1video', 'mjpeg', 'prores', 'theora',
                 'msmpeg4v2', 'msmpeg4v3', 'wmv2', 'h263', 'ffv1', 'png', 'gif', 'rawvideo')


@dataclass(frozen=True)
class VideoFacts:
    """What a video's header says; a lie is found out when its frames are read.

    Attributes:
        width, height: of a frame, in pixels.
        seconds: its length; None where the file does not say.
        frames: how many there are; None where that is not known.
        fps: frames a second.
        container: 'mp4', 'matroska', 'avi' or 'gif'; the first two of their kin.
    """
    width: int
    height: int
    seconds: float | None
    frames: int | None
    fps: float
    container: str


def read_picture(source: Any, limits: Limits) -> np.ndarray:
    """A visitor's picture.

    Of an animation the first frame; upright by its EXIF orientation; transparency dropped; 16 bits, gray, CMYK and
    palettes converted.

    Args:
        source: path of the uploaded file, or its bytes; or an array ``H x W``, ``H x W x 3`` or ``x 4`` in RGB order
            (as browsers' parts of Gradio have it), uint8.
        limits: of a file's size and of a picture's.

    Returns:
        uint8 ``[H, W, 3]``, RGB.

    Raises:
        Refused: 'nothing_uploaded', 'file_too_large', 'file_empty', 'not_a_picture', 'picture_damaged',
            'too_many_pixels', 'side_too_long', 'expired' where the file is gone.
    """
    if source is None:
        raise Refused('nothing_uploaded')
    if isinstance(source, np.ndarray):
        return _from_array(source, limits)
    if isinstance(source, (bytes, bytearray)):
        content = bytes(source)
        _check_bytes(len(content), limits.upload_bytes)
    elif isinstance(source, (str, os.PathLike)):
        content = _content(source, limits.upload_bytes)
    else:
        raise Refused('not_a_picture')
    return _decoded(content, limits)


def check_video(path: str | os.PathLike, limits: Limits) -> VideoFacts:
    """What a visitor's video is, after one frame of it was decoded.

    Args:
        path: of the uploaded file.
        limits: of a file's size, of a video's length and of its frames.

    Raises:
        Refused: 'nothing_uploaded', 'file_too_large', 'file_empty', 'not_a_video', 'video_damaged', 'video_too_long',
            'video_too_many_frames', 'video_frame_too_large', 'video_unavailable'.
    """
    if not path:
        raise Refused('nothing_uploaded')
    try:
        import av
    except ImportError:
        raise Refused('video_unavailable') from None
    with _opened(path, limits.video_bytes, 'not_a_video') as file:
        container = _container(file.read(16))
        if container is None:
            raise Refused('not_a_video')
        file.seek(0)
        try:
            # By its content's kind and through the open file: FFmpeg then opens nothing by any name.
            with av.open(file, format=container, metadata_errors='replace') as video:
                return _facts(video, container, limits)
        except Refused:
            raise
        except (av.FFmpegError, ValueError, OSError, EOFError, IndexError, ZeroDivisionError, OverflowError):
            raise Refused('video_damaged') from None


def _facts(video: Any, container: str, limits: Limits) -> VideoFacts:
    if not video.streams.video:
        raise Refused('not_a_video')
    stream = video.streams.video[0]
    if stream.codec_context is None or stream.codec_context.codec.canonical_name not in _COMPRESSIONS:
        raise Refused('not_a_video')
    # Before anything is decoded: a small file may promise a frame of any size.
    _check_frame(stream.width or 0, stream.height or 0, limits)
    seconds = float(video.duration) / 1e6 if video.duration else None
    if seconds is None and stream.duration and stream.time_base:
        seconds = float(stream.duration * stream.time_base)
    frames = int(stream.frames) or None
    if seconds is not None and not 0 <= seconds < 1e9:
        raise Refused('video_damaged')
    if seconds is not None and seconds > limits.video_seconds:
        raise Refused('video_too_long', seconds=round(seconds, 1), limit=limits.video_seconds)
    if frames is not None and frames > limits.video_frames:
        raise Refused('video_too_many_frames', frames=frames, limit=limits.video_frames)
    frame = next(iter(video.decode(stream)), None)
    if frame is None:
        raise Refused('video_damaged')
    _check_frame(frame.width, frame.height, limits)
    rate = stream.average_rate or stream.guessed_rate
    return VideoFacts(frame.width, frame.height, seconds, frames, float(rate) if rate else 0.0, container)


def _check_frame(width: int, height: int, limits: Limits) -> None:
    if width * height > limits.video_pixels:
        raise Refused('video_frame_too_large', width=width, height=height, limit=limits.video_pixels)


def _container(head: bytes) -> str | None:
    for name, start, magic in _CONTAINERS:
        if head[start:start + len(magic)] == magic and (name != 'avi' or head[8:12] == b'AVI '):
            return name
    return None


def _content(path: str | os.PathLike, limit: int) -> bytes:
    with _opened(path, limit, 'not_a_picture') as file:
        content = file.read(limit + 1)
    _check_bytes(len(content), limit)   # it may have grown
    return content


def _opened(path: str | os.PathLike, limit: int, otherwise: str) -> BinaryIO:
    """The file, which is one, not empty, and not too large; what is no file is not opened (a pipe would block)."""
    try:
        facts = os.stat(path)
        if not stat.S_ISREG(facts.st_mode):
            raise Refused(otherwise)
        _check_bytes(facts.st_size, limit)
        return open(path, 'rb')   # closed by who asked
    except FileNotFoundError:   # a page that was open longer than uploads are kept
        raise Refused('expired') from None
    except (OSError, ValueError):   # a zero byte in a name, one that is too long
        raise Refused(otherwise) from None


def _check_bytes(size: int, limit: int) -> None:
    if not size:
        raise Refused('file_empty')
    if size > limit:
        raise Refused('file_too_large', bytes=size, limit=limit)


def _check_size(height: int, width: int, limits: Limits) -> None:
    if height * width > limits.pixels:
        raise Refused('too_many_pixels', width=width, height=height, limit=limits.pixels)
    if max(height, width) > limits.side:
        raise Refused('side_too_long', width=width, height=height, limit=limits.side)


def _from_array(array: np.ndarray, limits: Limits) -> np.ndarray:
    if array.dtype != np.uint8 or not (array.ndim == 2 or array.ndim == 3 and array.shape[2] in (1, 3, 4)):
        raise Refused('not_a_picture')
    if not array.size:
        raise Refused('nothing_uploaded')
    _check_size(*array.shape[:2], limits)
    if array.ndim == 2 or array.shape[2] == 1:
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(array[:, :, :3])


def _decoded(content: bytes, limits: Limits) -> np.ndarray:
    import io
    import warnings

    from PIL import Image, UnidentifiedImageError

    from modelscope_fastinst.data.image import ImageError, read_image
    known = [name for name in PICTURE_FORMATS if name in _formats()]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', Image.DecompressionBombWarning)   # the limits are ours, and stricter
        try:
            picture = Image.open(io.BytesIO(content), formats=known)
        except Image.DecompressionBombError:
            raise _bomb(content, known, limits) from None
        except UnidentifiedImageError:
            raise Refused('not_a_picture') from None
        except MemoryError:
            raise
        except Exception:   # decoders raise SyntaxError, struct.error, IndexError ... on foreign bytes
            raise Refused('picture_damaged') from None
        with picture:
            _check_size(picture.height, picture.width, limits)
            if picture.format in ('JPEG', 'MPO') and content.count(b'\xff\xda') > _MOST_SCANS:
                raise Refused('picture_damaged')
            try:
                rgb = read_image(picture, name='upload')
            except ImageError:
                raise Refused('picture_damaged') from None
    _check_size(*rgb.shape[:2], limits)   # what was decoded, not what was promised
    return rgb


def _formats() -> set[str]:
    from PIL import Image
    Image.init()
    return set(Image.OPEN)


def _bomb(content: bytes, known: list[str], limits: Limits) -> Refused:
    """What is said of a picture of more pixels than Pillow opens: it keeps their number to itself, its parts do not."""
    import io

    from PIL import Image
    for name in known:
        factory, accepts = Image.OPEN[name]
        if accepts is None or accepts(content[:16]):
            try:
                width, height = factory(io.BytesIO(content), '').size
            except Exception:   # another format with the same first bytes
                continue
            return Refused('too_many_pixels', width=width, height=height, limit=limits.pixels)
    return Refused('not_a_picture')
