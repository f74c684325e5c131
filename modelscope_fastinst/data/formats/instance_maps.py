"""Pictures whose pixels say to which object they belong -> run-length encodings, without a stack of masks."""
from __future__ import annotations

from typing import Any

import numpy as np

from modelscope_fastinst.data.image import ImageError


def encode_map(numbers: np.ndarray, background: int = 0) -> dict[int, dict]:
    """Encodes all objects of a map in one pass over its pixels.

    Args:
        numbers: int or bool ``[H, W]``; pixels of one value are one object.
        background: the value that is no object.

    Returns:
        {value: COCO run-length encoding ``{'size': [H, W], 'counts': str}``}, by ascending value.
    """
    from pycocotools import mask as coco_mask
    height, width = numbers.shape
    flat = np.ascontiguousarray(numbers.T).ravel()   # run-length encodings go down the columns
    if flat.dtype == bool:
        flat = (flat.view(np.uint8) != 0).view(np.uint8)    # PIL's True is 255
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    ends = np.append(starts[1:], flat.size)
    values = flat[starts]
    order = np.argsort(values, kind='stable')
    order = order[values[order] != background]
    if not len(order):
        return {}
    cuts = np.flatnonzero(np.diff(values[order])) + 1
    encoded = {}
    for runs in np.split(order, cuts):
        edges = np.stack((starts[runs], ends[runs]), 1).ravel()
        counts = np.diff(np.concatenate(([0], edges, [flat.size])))
        counts = counts[:-1] if counts[-1] == 0 else counts
        rle = coco_mask.frPyObjects({'size': [height, width], 'counts': counts.tolist()}, height, width)
        encoded[int(values[runs[0]])] = {'size': [height, width], 'counts': rle['counts'].decode('ascii')}
    return encoded


def read_map(source: Any, name: str) -> np.ndarray:
    """A picture's values as they are stored: palette indices, not their colours; 16 and 32 bits stay what they are.

    Args:
        source: a path, a file object, or a PIL image.
        name: what to call it in messages.

    Returns:
        ``[H, W]`` or ``[H, W, 3]`` (transparency is dropped), of the type in the file.

    Raises:
        ImageError: it cannot be read.
    """
    from PIL import Image
    try:
        image = source if isinstance(source, Image.Image) else Image.open(source)
        with image:
            image.load()
            if image.mode in ('LA', 'PA'):
                image = image.getchannel(0)
            elif image.mode == 'CMYK':
                image = image.convert('RGB')
            values = np.asarray(image)
    except FileNotFoundError as error:
        raise ImageError(f'{name}: no such file', 'missing-image') from error
    except MemoryError:
        raise
    except Exception as error:  # PIL's decoders raise SyntaxError, struct.error, IndexError ... on foreign bytes
        raise ImageError(f'{name}: is damaged, or no image ({error})') from error
    if values.ndim == 3:
        values = values[:, :, :3]
    return values


def merge_colors(colors: np.ndarray) -> np.ndarray:
    """``[H, W, 3]`` -> int32 ``[H, W]``, one number a colour (0xRRGGBB)."""
    parts = colors.astype(np.int32)
    return parts[:, :, 0] << 16 | parts[:, :, 1] << 8 | parts[:, :, 2]


def values_inside(rle: dict, values: np.ndarray) -> np.ndarray:
    """The values ``[H, W]`` under an encoded object, flat."""
    from pycocotools import mask as coco_mask
    left, top, width, height = coco_mask.toBbox(rle).astype(int)
    box = slice(top, top + height), slice(left, left + width)
    return values[box][coco_mask.decode(rle)[box] != 0]
