"""COCO's run-length encoding of masks, on pycocotools.

An encoded mask is ``{'size': [H, W], 'counts': str}``: runs of zeros and ones in column-major order, compressed. The
counts are text, not bytes, so that results go into JSON as they are.
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def encode(masks: np.ndarray) -> list[dict]:
    """Encode masks.

    Args:
        masks: bool or uint8 ``[N, H, W]``; anything but 0 is inside.

    Returns:
        N dicts ``{'size': [H, W], 'counts': str}``.

    Raises:
        ValueError: not three-dimensional.
    """
    masks = np.asarray(masks)
    if masks.ndim != 3:
        raise ValueError(f'masks to encode must be [N, H, W]; got {masks.shape}')
    height, width = masks.shape[1:]
    # One at a time: pycocotools wants column-major copies, which for many large masks are many megabytes.
    return [encode_region(mask.T != 0, (height, width)) for mask in masks]


def encode_region(columns: np.ndarray, size: tuple[int, int], top: int = 0, left: int = 0) -> dict:
    """Encode a mask that is zero outside a rectangle, from that rectangle alone.

    Args:
        columns: bool ``[w, h]``, the rectangle, **transposed**: RLE runs down the columns.
        size: (H, W) of the whole mask in pixels.
        top, left: where in the whole mask the rectangle lies.

    Returns:
        ``{'size': [H, W], 'counts': str}``, equal to pycocotools' encoding of the whole mask.
    """
    from pycocotools import mask as coco_mask
    height, width = size
    counts = _run_lengths(columns, height, width, top, left)
    encoded = coco_mask.frPyObjects({'size': [height, width], 'counts': counts}, height, width)
    return {'size': [height, width], 'counts': encoded['counts'].decode('ascii')}


def decode(encoded: Sequence[dict]) -> np.ndarray:
    """Decode ``{'size': [H, W], 'counts': str or bytes}`` dicts of one size into uint8 masks ``[N, H, W]`` of 0 and 1.

    No masks give an array of shape ``[0, 0, 0]``, for nothing then tells their size.
    """
    from pycocotools import mask as coco_mask
    if not len(encoded):
        return np.zeros((0, 0, 0), np.uint8)
    sizes = {tuple(item['size']) for item in encoded}
    if len(sizes) > 1:
        raise ValueError(f'masks to decode together must have one size; got {sorted(sizes)}')
    masks = np.empty((len(encoded), *sizes.pop()), np.uint8)
    for mask, item in zip(masks, encoded, strict=True):
        mask[:] = coco_mask.decode(item)
    return masks


def _run_lengths(columns: np.ndarray, height: int, width: int, top: int, left: int) -> list[int]:
    """Lengths of the alternating runs of zeros and ones, zeros first, over the whole mask in column-major order."""
    count, length = columns.shape
    # A zero after every column ends each run within its column, so that positions map to the whole mask by a formula.
    padded = np.zeros((count, length + 1), np.bool_)
    padded[:, :length] = columns
    flat = padded.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    if flat.size and flat[0]:
        changes = np.concatenate(([0], changes))
    column, row = np.divmod(changes, length + 1)
    edges = (left + column) * height + top + row
    # A run that reaches the bottom and goes on at the top of the next column was cut in two: join it again.
    joined = edges[1:] == edges[:-1]
    keep = np.ones(len(edges), np.bool_)
    keep[1:] &= ~joined
    keep[:-1] &= ~joined
    edges = np.concatenate(([0], edges[keep], [height * width]))
    runs = np.diff(edges)
    if len(runs) > 1 and runs[-1] == 0:
        runs = runs[:-1]
    return runs.tolist()
