"""Small videos made for a test, and a network that finds what is bright in them."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from modelscope_fastinst.results.rle import encode

SIZE = (64, 48)   # width, height


def ball(index: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A frame, uint8 RGB: on dark ground a bright disc that moves to the right."""
    width, height = size
    rows, columns = np.mgrid[0:height, 0:width]
    inside = (columns - (10 + index % (width - 20))) ** 2 + (rows - height // 2) ** 2 < 64
    image = np.full((height, width, 3), (20, 30, 60), np.uint8)
    image[inside] = (230, 220, 90)
    return image


def find_bright(images: Sequence[np.ndarray], batch_size: int = 1, mask_format: str = 'rle', **_: object) -> list[dict]:
    """What `pipeline` would give: a disc where pixels (BGR) are bright, nothing where none are."""
    results = []
    for image in images:
        mask = image[:, :, 1] > 130
        rows, columns = np.nonzero(mask)
        found = bool(len(rows))
        box = [float(columns.min()), float(rows.min()), columns.max() + 1.0, rows.max() + 1.0] if found else []
        results.append({'scores': [0.9] * found, 'labels': ['disc'] * found, 'masks': encode(mask[None][:found]),
                        'boxes': [box] * found})
    return results


def write_video(path: Path, count: int = 20, *, stamps: Iterable[int] | None = None, codec: str = 'mpeg4',
                time_base: Fraction = Fraction(1, 1000), step: int = 40, size: tuple[int, int] = SIZE,
                pix_fmt: str = 'yuv420p', draw: Callable[[int, tuple[int, int]], np.ndarray] = ball,
                sound: bool = False, **options: str) -> Path:
    """A video of ``count`` frames at these time stamps, in units of ``time_base``; default one each 40 ms."""
    import av
    stamps = list(range(0, count * step, step)) if stamps is None else list(stamps)
    with av.open(str(path), 'w') as container:
        stream = container.add_stream(codec, rate=Fraction(1) / (step * time_base))
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.time_base = stream.codec_context.time_base = time_base
        stream.codec_context.options = options
        tone = container.add_stream('aac', rate=44100) if sound else None
        for index, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(draw(index, size), format='rgb24').reformat(format=pix_fmt)
            frame.pts, frame.time_base = stamp, time_base
            for packet in stream.encode(frame):
                packet.duration = step
                container.mux(packet)
        for packet in stream.encode(None):
            packet.duration = step
            container.mux(packet)
        if tone is not None:
            samples = np.zeros((1, round(44100 * len(stamps) * step * time_base)), np.float32)
            for start in range(0, samples.shape[1] - 1024, 1024):
                frame = av.AudioFrame.from_ndarray(samples[:, start:start + 1024], format='fltp', layout='mono')
                frame.sample_rate, frame.pts = 44100, start
                container.mux(tone.encode(frame))
            container.mux(tone.encode(None))
    return path


def stamps_of(path: Path) -> list[float]:
    """The times of a file's frames, in seconds."""
    import av
    with av.open(str(path)) as container:
        return [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]


def images_of(path: Path) -> list[np.ndarray]:
    """A file's frames, uint8 RGB."""
    import av
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format='rgb24') for frame in container.decode(video=0)]


def length_of(path: Path) -> float:
    """In seconds, as the container says."""
    import av
    with av.open(str(path)) as container:
        return container.duration / 1e6


def turned(path: Path, matrix: Sequence[int]) -> Path:
    """The same MP4 with a display matrix (a, b, c, d) in its track header, as telephones write it."""
    content = bytearray(path.read_bytes())
    at = content.index(b'tkhd') + 4 + 40
    a, b, c, d = (value << 16 for value in matrix)
    for place, value in enumerate((a, b, 0, c, d, 0, 0, 0, 1 << 30)):
        content[at + 4 * place:at + 4 * place + 4] = value.to_bytes(4, 'big', signed=True)
    target = path.with_name(f'turned-{path.name}')
    target.write_bytes(content)
    return target


def with_damage(path: Path, *numbers: int) -> Path:
    """The same file with zeros in the place of these packets."""
    import av
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    for number in numbers:
        at = content.index(packets[number])
        content[at:at + len(packets[number])] = bytes(len(packets[number]))
    target = path.with_name(f'damaged-{path.name}')
    target.write_bytes(content)
    return target
