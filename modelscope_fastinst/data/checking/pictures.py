"""Every image file of a data set, decoded once: is it whole, how large, which way up, and is it there twice."""
from __future__ import annotations

import hashlib
import io
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from modelscope_fastinst.data.formats.files import is_image
from modelscope_fastinst.data.image import EXIF_ORIENTATION, ImageError, read_image


@dataclass(frozen=True)
class Picture:
    """What is kept of an image after it was decoded.

    Attributes:
        stored: (height, width) in pixels as in the file; ``upright``: after the EXIF orientation. (0, 0) after
            an error.
        orientation: EXIF orientation 1..8, 1 is upright.
        content: hash of the upright pixels, the same for every lossless copy of a picture; b'' after an error.
        missing: there is no such file.
        error: why it cannot be read, or ''.
    """
    stored: tuple[int, int] = (0, 0)
    upright: tuple[int, int] = (0, 0)
    orientation: int = 1
    content: bytes = b''
    missing: bool = False
    error: str = ''


def read_pictures(paths: Sequence[str], open_image: Callable[[int], np.ndarray] | None = None,
                  threads: int | None = None) -> Iterator[Picture]:
    """Decodes images one after the other, a few at a time; of each only a ``Picture`` stays in memory.

    Args:
        paths: the files.
        open_image: instead of files, gives image ``index`` as uint8 ``H x W x 3`` RGB.
        threads: how many to decode at a time; None for one a processor, at most 8.
    """
    def decode(index: int) -> Picture:
        return read_picture(paths[index]) if open_image is None else _from_table(open_image, index)
    threads = threads or min(8, os.cpu_count() or 1)
    if open_image is not None or threads == 1:   # tables need not be safe for threads
        yield from map(decode, range(len(paths)))
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Picture]] = deque()   # few at a time, so that an interrupt need not wait for all of them
        for index in range(len(paths)):
            waiting.append(pool.submit(decode, index))
            if len(waiting) > 4 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def read_picture(path: str) -> Picture:
    """Decodes one file; what is wrong with it is in ``error``."""
    try:
        with open(path, 'rb') as file:
            content = file.read()
    except FileNotFoundError:
        return Picture(missing=True, error='no such image file')
    except OSError as error:
        return Picture(error=f'cannot be opened ({error.strerror or error})')
    try:
        pixels = read_image(content, name=path)
        orientation = _orientation(content)
    except ImageError as error:
        return Picture(error=str(error).removeprefix(f'{path}: '))
    upright = pixels.shape[:2]
    return Picture(upright[::-1] if orientation >= 5 else upright, upright, orientation, _digest(pixels))


def pictures_beside(folder: str, names: Sequence[str]) -> list[str]:
    """The image files in the folders that hold the named ones, as names relative to ``folder``; sorted."""
    found = []
    for part in sorted({os.path.dirname(name) for name in names}):
        where = os.path.join(folder, part)
        for name in sorted(os.listdir(where)) if os.path.isdir(where) else ():
            if is_image(name) and os.path.isfile(os.path.join(where, name)):
                found.append(os.path.join(part, name))
    return found


def _from_table(open_image: Callable[[int], np.ndarray], index: int) -> Picture:
    try:
        pixels = open_image(index)
    except (ValueError, OSError) as error:
        return Picture(error=' '.join(str(error).split()))
    return Picture(pixels.shape[:2], pixels.shape[:2], 1, _digest(pixels))


def _digest(pixels: np.ndarray) -> bytes:
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def _orientation(content: bytes) -> int:
    from PIL import Image
    with Image.open(io.BytesIO(content)) as image:
        try:
            orientation = int(image.getexif().get(EXIF_ORIENTATION, 1))
        except Exception:   # PIL raises anything on a damaged EXIF block; such an image is read as upright
            return 1
    return orientation if 1 <= orientation <= 8 else 1
