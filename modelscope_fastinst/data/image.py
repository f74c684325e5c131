"""Whatever a user may hold an image in -> uint8 RGB."""
from __future__ import annotations

import io
import logging
import os
from typing import Any

import numpy as np

logger = logging.getLogger(__name__)

EXIF_ORIENTATION = 0x0112


class ImageError(ValueError):
    """An image that cannot be read; the message names it and says why.

    Attributes:
        code: the kind of fault, as ``DatasetProblem.code`` names it.
    """
    code = 'unreadable-image'

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code or self.code


def read_image(source: Any, *, name: str | None = None, orient: bool = True) -> np.ndarray:
    """Reads an image from a file or takes it from memory.

    Args:
        source: a path; the bytes of an image file; a PIL image of any mode; or an array ``H x W``, ``H x W x 1``,
            ``H x W x 3`` (BGR, as OpenCV and ModelScope have it) or ``H x W x 4`` (BGRA). Transparency is dropped.
            uint16 covers 0..65535 and is scaled linearly to 0..255; floats are 0..1, or 0..255 where any value exceeds
            1; other integers are 0..255; booleans are black and white. Of an animation or a stack, the first frame.
        name: what to call the image in messages; a path is called by itself.
        orient: turn the image upright as its EXIF orientation says.

    Returns:
        uint8 ``H x W x 3``, RGB, contiguous, memory of its own or the array's.

    Raises:
        ImageError: for anything that is not such an image: no file, an empty, cut off or foreign file, more pixels than
            PIL allows (decompression bomb), an array of another shape, type or range.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, name or 'array')
    from PIL import Image
    if isinstance(source, Image.Image):
        return _from_pil(source, name or getattr(source, 'filename', '') or f'PIL image ({source.mode})', orient)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode(bytes(source), name or 'bytes', orient)
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        name = name or str(path)
        if str(path).startswith(('http://', 'https://')):
            raise ImageError(f'{name}: is a URL, not a path; fetch it and pass the bytes')
        try:
            with open(path, 'rb') as file:
                content = file.read()
        except (OSError, ValueError) as error:
            reason = getattr(error, 'strerror', None) or error
            raise ImageError(f'{name}: cannot be opened ({reason})') from error
        return _decode(content, name, orient)
    raise ImageError(f'{name or "image"}: expected a path, bytes, PIL image or array, got {type(source).__name__}')


def read_annotated(source: Any, size: tuple[int, int], *, name: str | None = None) -> np.ndarray:
    """``read_image`` for an image whose annotations were made at a size, (height, width).

    Upright as its EXIF orientation says; as it is stored where only so it has that size, for then whoever annotated it
    saw it without its orientation. Of another size either way, it is returned as it is.
    """
    pixels = read_image(source, name=name)
    if pixels.shape[:2] != tuple(size) and pixels.shape[1::-1] == tuple(size):
        return read_image(source, name=name, orient=False)
    return pixels


def image_size(path: str | os.PathLike | bytes, *, name: str | None = None,
               ) -> tuple[tuple[int, int], tuple[int, int]]:
    """An image file's (height, width) in pixels, read from its header alone: as stored, and upright by its EXIF data.

    Args:
        path: the file, or its bytes.
        name: what to call it in messages; a path is called by itself.

    Raises:
        ImageError: as ``read_image``; a damage behind the header is not seen.
    """
    from PIL import Image
    source, path = (io.BytesIO(path), name or 'bytes') if isinstance(path, bytes) else (path, name or path)
    try:
        with Image.open(source) as image:
            stored = image.height, image.width
            return stored, stored[::-1] if _orientation(image, str(path)) >= 5 else stored
    except Image.DecompressionBombError as error:
        raise ImageError(f'{path}: {_bomb(error)}') from error
    except Exception as error:
        code = 'missing-image' if isinstance(error, FileNotFoundError) else None
        raise ImageError(f'{path}: {_unreadable(path, error)}', code) from error


def _decode(content: bytes, name: str, orient: bool) -> np.ndarray:
    from PIL import Image
    if not content:
        raise ImageError(f'{name}: is empty (0 bytes)')
    try:
        image = Image.open(io.BytesIO(content))
    except Image.DecompressionBombError as error:
        raise ImageError(f'{name}: {_bomb(error)}') from error
    except Exception as error:  # PIL's decoders raise SyntaxError, struct.error, IndexError ... on foreign bytes
        raise ImageError(f'{name}: {_unreadable(name, error)}') from error
    with image:
        return _from_pil(image, name, orient)


def _from_pil(image: Any, name: str, orient: bool) -> np.ndarray:
    from PIL import Image
    try:
        image.load()
        orientation = _orientation(image, name) if orient else 1
        if image.mode.startswith('I;16'):
            rgb = _gray_to_rgb(_to_uint8(np.asarray(image).astype(np.uint16), name))
        elif image.mode == 'I':
            values = np.asarray(image)
            sixteen_bit = values.size and values.max() > 255 and values.min() >= 0 and values.max() <= 65535
            rgb = _gray_to_rgb(_to_uint8(values.astype(np.uint16) if sixteen_bit else values, name))
        elif image.mode == 'F':
            rgb = _gray_to_rgb(_to_uint8(np.asarray(image), name))
        else:
            rgb = np.asarray(_to_rgb(image))
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f'{name}: {_bomb(error)}') from error
    except MemoryError:
        raise
    except Exception as error:
        raise ImageError(f'{name}: is damaged ({error})') from error
    return _checked(np.ascontiguousarray(_upright(rgb, orientation)), name)


def _to_rgb(image: Any) -> Any:
    if image.mode in ('PA', 'La', 'RGBa'):  # PIL converts these in two steps only
        image = image.convert({'PA': 'RGBA', 'La': 'LA', 'RGBa': 'RGBA'}[image.mode])
    elif image.mode == 'P' and 'transparency' in image.info:
        image = image.convert('RGBA')  # else PIL warns that it drops what we drop on purpose
    elif image.mode == 'LAB':
        from PIL import ImageCms
        profiles = ImageCms.createProfile('LAB'), ImageCms.createProfile('sRGB')
        return ImageCms.profileToProfile(image, *profiles, outputMode='RGB')
    return image if image.mode == 'RGB' else image.convert('RGB')


def _from_array(array: np.ndarray, name: str) -> np.ndarray:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (3, 4)):
        raise ImageError(f'{name}: an array must be H x W, H x W x 1, H x W x 3 (BGR) or H x W x 4 (BGRA), '
                         f'got shape {array.shape}')
    _checked(array, name)
    array = _to_uint8(array, name)
    return _gray_to_rgb(array) if array.ndim == 2 else np.ascontiguousarray(array[:, :, 2::-1])


def _checked(array: np.ndarray, name: str) -> np.ndarray:
    if not array.size:
        raise ImageError(f'{name}: has no pixels (shape {array.shape})')
    return array


def _gray_to_rgb(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[:, :, None], 3, axis=2)


def _to_uint8(array: np.ndarray, name: str) -> np.ndarray:
    """Values of any number type -> uint8, by the ranges that ``read_image`` documents."""
    kind = array.dtype.kind
    if array.dtype == np.uint8:
        return array
    if kind == 'b':
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if kind not in 'iuf':
        raise ImageError(f'{name}: cannot use an array of type {array.dtype}; pass uint8, uint16, float or bool')
    low, high = array.min(), array.max()  # NaN wins in both, and then fails the comparison
    if not (low >= 0 and high <= 255):
        raise ImageError(f'{name}: values of a {array.dtype} array must lie in 0..255 (or 0..1 for floats), '
                         f'got {low}..{high}')
    if kind == 'f':
        array = np.rint(array.astype(np.float32) * (255 if high <= 1 else 1))
    return array.astype(np.uint8)


def _orientation(image: Any, name: str) -> int:
    try:
        orientation = int(image.getexif().get(EXIF_ORIENTATION, 1))
    except Exception as error:  # a damaged EXIF block does not damage the picture
        logger.warning('%s: EXIF data cannot be read (%s); the image is taken as upright', name, error)
        return 1
    return orientation if 1 <= orientation <= 8 else 1


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return image


def _bomb(error: Exception) -> str:
    return (f'has too many pixels ({error}); shrink it, or, if you trust it, raise PIL.Image.MAX_IMAGE_PIXELS '
            '(predict: --max-megapixels)')


def _unreadable(path: Any, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return 'no such file'
    from PIL import UnidentifiedImageError
    if isinstance(error, UnidentifiedImageError):
        if os.path.isfile(path) and not os.path.getsize(path):
            return 'is empty (0 bytes)'
        return 'is not an image of a known format'
    return f'is damaged ({error})'
