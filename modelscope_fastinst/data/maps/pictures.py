"""PNG files whose pixels are numbers: ids of segments in three channels, or class indices in one."""
from __future__ import annotations

import numpy as np

from modelscope_fastinst.data.formats.instance_maps import read_map
from modelscope_fastinst.data.image import ImageError


class MapError(ImageError):
    """A map that cannot be used; the message names the file, ``code`` says how."""


def read_ids(file: str) -> np.ndarray:
    """The segment ids of a panoptic PNG, R + 256 G + 65536 B as COCO has it.

    Returns:
        int32 ``[H, W]``.

    Raises:
        MapError: no such file, one that cannot be read, or one without three channels.
    """
    values = _read(file)
    if values.ndim != 3 or values.dtype != np.uint8:
        raise MapError(f'{file}: is a picture of one channel; a panoptic PNG has three, with the segments\' ids as '
                       'R + 256 G + 65536 B', 'wrong-map')
    red, green, blue = np.moveaxis(values, 2, 0).astype(np.int32)
    return red + 256 * green + 65536 * blue


def read_indices(file: str) -> np.ndarray:
    """The numbers in a PNG of one channel, or with a palette.

    Returns:
        int32 ``[H, W]``.

    Raises:
        MapError: no such file, one that cannot be read, or one in colour.
    """
    values = _read(file)
    if values.ndim == 3:
        if not (values == values[:, :, :1]).all():   # grey saved as RGB is clear enough
            raise MapError(f'{file}: is a colour picture; a label PNG has one channel with the classes\' numbers: save '
                           'the numbers, not their colours', 'wrong-map')
        values = values[:, :, 0]
    if values.dtype.kind not in 'bui' or values.min(initial=0) < 0:
        raise MapError(f'{file}: has values of type {values.dtype}; a label PNG has whole numbers of at least 0',
                       'wrong-map')
    return values.astype(np.int32)


def read_channels(file: str) -> np.ndarray:
    """A picture of three channels, uint8 ``[H, W, 3]``. MapError: as ``read_ids``."""
    values = _read(file)
    if values.ndim != 3 or values.dtype != np.uint8:
        raise MapError(f'{file}: is a picture of one channel; three are needed', 'wrong-map')
    return values


def _read(file: str) -> np.ndarray:
    try:
        return read_map(file, file)
    except ImageError as error:
        missing = error.code == 'missing-image'
        raise MapError(str(error), 'missing-map' if missing else 'unreadable-map') from error
