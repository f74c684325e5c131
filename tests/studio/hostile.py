"""Files that a hostile or unlucky visitor sends."""
from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np


def encoded(image: np.ndarray, kind: str = 'PNG', mode: str | None = None, **options: Any) -> bytes:
    """A picture file of an array, converted to a mode of PIL's."""
    from PIL import Image
    content = io.BytesIO()
    picture = Image.fromarray(image)
    (picture if mode is None else picture.convert(mode)).save(content, kind, **options)
    return content.getvalue()


def png(width: int, height: int, data: bytes, *, bits: int = 8, color: int = 0) -> bytes:
    """A PNG file that promises a size, with any data."""
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack('>I', len(content)) + name + content + struct.pack('>I', zlib.crc32(name + content))
    header = struct.pack('>IIBBBBB', width, height, bits, color, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(data)) + chunk(b'IEND', b'')


def video(frames: int = 3, size: tuple[int, int] = (96, 128), kind: str = 'mp4') -> bytes:
    """A video file of drawn frames; (height, width) in pixels, 10 frames a second."""
    import av
    content = io.BytesIO()
    with av.open(content, 'w', format=kind) as container:
        stream = container.add_stream('mpeg4', rate=10)
        stream.height, stream.width, stream.pix_fmt = *size, 'yuv420p'
        for number in range(frames):
            image = np.full((*size, 3), 20 + 40 * (number % 5), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, 'rgb24')))
        container.mux(stream.encode())
    return content.getvalue()
