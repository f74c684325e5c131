"""How many pixels two maps of one image have in common, value by value."""
from __future__ import annotations

import numpy as np


def joint_areas(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every pair of values that occurs at one place, and at how many.

    Maps have long runs of equal pixels, so that only the runs are sorted, which is many times faster than sorting the
    pixels.

    Args:
        first, second: integer ``[H, W]``, values that fit 32 bits.

    Returns:
        The values of ``first``, those of ``second``, and the number of pixels, int64 ``[P]`` each; by rising value of
        ``first``, then of ``second``.

    Raises:
        ValueError: the maps differ in size.
    """
    first, second = np.asarray(first), np.asarray(second)
    if first.shape != second.shape:
        raise ValueError(f'the maps must have the same size; got {_size(first)} and {_size(second)}')
    first, second = first.reshape(-1), second.reshape(-1)
    if not len(first):
        return (np.zeros(0, np.int64),) * 3
    starts = np.flatnonzero((first[1:] != first[:-1]) | (second[1:] != second[:-1])) + 1
    starts = np.concatenate([[0], starts])
    lengths = np.diff(starts, append=len(first))
    # Both values in one number; a shift keeps the order of the first, and the second is made not negative.
    keys = first[starts].astype(np.int64) * 2 ** 32 + (second[starts].astype(np.int64) + 2 ** 31)
    keys, places = np.unique(keys, return_inverse=True)
    pixels = np.zeros(len(keys), np.int64)
    np.add.at(pixels, places.reshape(-1), lengths)
    return keys >> 32, (keys & 0xFFFFFFFF) - 2 ** 31, pixels


def _size(values: np.ndarray) -> str:
    return ' x '.join(str(side) for side in values.shape)
