"""Masks in COCO's run-length encoding, decoded where they are and nowhere else.

A picture of 12 megapixels with 100 objects has 1.2 gigabytes of masks, nearly all of it zeros. What a drawing needs is
each object within its bounds, which follow from the runs.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def decode_within(encoded: Mapping[str, Any]) -> tuple[np.ndarray, int, int]:
    """A mask within its bounds.

    Args:
        encoded: ``{'size': [H, W], 'counts': ...}``, counts as text or bytes (compressed) or as a list of run lengths.

    Returns:
        bool ``[h, w]``, tight around the mask (``[0, 0]`` for an empty one), and the top and the left of it in pixels.

    Raises:
        ValueError: counts that are no encoding, or of more pixels than the size has.
    """
    height, width = (int(side) for side in encoded['size'])
    counts = encoded['counts']
    lengths = _lengths_of(counts) if isinstance(counts, (str, bytes)) else _listed(counts)
    edges = np.cumsum(lengths)
    if (lengths < 0).any() or (len(edges) and edges[-1] > height * width):
        raise ValueError(f'RLE counts that do not make {height} x {width} pixels')
    starts, ends = edges[0::2], edges[1::2]
    starts = starts[:len(ends)]
    filled = ends > starts
    starts, ends = starts[filled], ends[filled]
    if not len(starts):
        return np.zeros((0, 0), np.bool_), 0, 0
    first, last = starts // height, (ends - 1) // height
    left, right = int(first[0]), int(last[-1]) + 1
    if (first == last).all():
        top, bottom = int((starts % height).min()), int(((ends - 1) % height).max()) + 1
    else:   # a run that goes on in the next column touches the bottom and the top
        top, bottom = 0, height
    # The same runs in the columns of the crop, one after the other.
    places = (first - left) * (bottom - top) + starts % height - top
    size = (right - left) * (bottom - top)
    changes = np.stack([places, places + ends - starts], 1).ravel()
    pieces = np.diff(changes, prepend=0, append=size)
    values = np.zeros(len(pieces), np.uint8)
    values[1::2] = 1
    import cv2
    columns = np.repeat(values, pieces).reshape(right - left, bottom - top)
    return cv2.transpose(columns).reshape(bottom - top, right - left).view(np.bool_), top, left


def _listed(counts: Sequence[int]) -> np.ndarray:
    lengths = np.asarray(counts)
    if lengths.ndim != 1 or (len(lengths) and lengths.dtype.kind not in 'iu'):
        raise ValueError('RLE counts that are neither text nor a list of run lengths')
    return lengths.astype(np.int64)


def _lengths_of(counts: str | bytes) -> np.ndarray:
    """Run lengths of compressed counts: five bits a character, lowest first, a sixth where more follow; signed; from
    the fourth run on the difference to the run before the last (https://github.com/cocodataset/cocoapi)."""
    text = counts.encode('latin-1', 'replace') if isinstance(counts, str) else counts
    digits = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(digits & 0x20 == 0)
    if not len(digits):
        return np.zeros(0, np.int64)
    if digits.min() < 0 or digits.max() > 63 or not len(ends) or ends[-1] != len(digits) - 1:
        raise ValueError('RLE counts that are no compressed encoding')
    starts = np.concatenate(([0], ends[:-1] + 1))
    size = ends - starts + 1
    if size.max() > 7:   # pictures have fewer than 2 ** 35 pixels
        raise ValueError('RLE counts that are no compressed encoding')
    shift = 5 * (np.arange(len(digits)) - np.repeat(starts, size))
    lengths = np.add.reduceat((digits & 0x1f) << shift, starts)
    lengths -= np.where(digits[ends] & 0x10, 1 << 5 * size, 0)
    lengths[1::2] = np.cumsum(lengths[1::2])
    lengths[2::2] = np.cumsum(lengths[2::2])
    return lengths
