"""An object's outline as COCO writes it: checked once, kept as a few bytes, drawn when it is needed.

Checked segmentations are ``bytes``: ``b'r'`` and compressed run-length counts, or ``b'c'``/``b'd'`` and polygons. COCO
writes coordinates in hundredths of a pixel, and as such ``b'c'`` keeps them, in half the space of the floats (``b'd'``)
that all other coordinates need.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modelscope_fastinst.data.geometry import Plan

_LONGEST_RUN_CODE = 12  # characters of 5 bits; pycocotools' own integers hold no more


class OutlineError(ValueError):
    """An outline that cannot be drawn. ``code`` is the kind of fault that ``DatasetProblem.code`` names."""
    code = 'bad-outline'


class OutsideError(OutlineError):
    """An outline that reaches out of its image."""
    code = 'outside-image'


def check_segmentation(segmentation: Any, height: int, width: int, tolerance: float) -> bytes:
    """Checks a segmentation without decoding it.

    Args:
        segmentation: polygons (list of ``[x0, y0, x1, y1, ...]`` in pixels), or a run-length encoding
            ``{'size': [height, width], 'counts': list of int | str | bytes}``.
        height, width: of the image in pixels.
        tolerance: how far outside of the image a polygon may reach, in pixels; what is outside is never drawn.

    Returns:
        The packed form that ``draw`` and ``to_rle`` take.

    Raises:
        OutlineError: says what is wrong with it.
    """
    if isinstance(segmentation, Mapping):
        return b'r' + _check_rle(segmentation, height, width)
    if not isinstance(segmentation, (list, tuple)):
        raise OutlineError(f'segmentation must be a list of polygons or a run-length encoding, '
                           f'got {type(segmentation).__name__}')
    if not segmentation:
        raise OutlineError('segmentation is empty')
    polygons = [_check_polygon(polygon, height, width, tolerance) for polygon in segmentation]
    if not any(map(_has_area, polygons)):
        raise OutlineError('polygon has no area: all its points lie on one line')
    return _pack_polygons(polygons)


def draw(packed: Sequence[bytes], plan: Plan) -> np.ndarray:
    """Draws objects at the plan's size: polygons are moved, then filled; run-length masks are filled, then moved.

    This is what detectron2 does, and what keeps a polygon's border smooth when the image is enlarged.

    Args:
        packed: N results of ``check_segmentation``.
        plan: the geometry, for an image of the size they were checked with; ``Plan(height, width)`` leaves all where
            it is.

    Returns:
        bool ``N x H x W``, contiguous.
    """
    masks = np.zeros((len(packed), *plan.size), bool)
    moved = plan.lines()
    for mask, item in zip(masks, packed):
        if item[:1] == b'r':
            _paint(mask, {'size': list(plan.source), 'counts': item[1:]}, *moved)
        else:
            _fill_in(mask, [plan.points(part) for part in _unpack_polygons(item)])
    return masks


def to_rle(packed: bytes, height: int, width: int) -> dict:
    """The compressed run-length encoding ``{'size': [height, width], 'counts': str}`` at the image's own size."""
    if packed[:1] == b'r':
        return {'size': [height, width], 'counts': packed[1:].decode('ascii')}
    rle = _fill(_unpack_polygons(packed), height, width)
    return {'size': [height, width], 'counts': rle['counts'].decode('ascii')}


def run_lengths(counts: bytes) -> np.ndarray:
    """Compressed counts -> int64 lengths of the alternating runs, background first.

    pycocotools' decoder trusts its input; this one, of the same format (LEB128-like groups of five bits, lengths from
    the fourth on as differences to the one before last), does not.

    Raises:
        OutlineError: for counts that no encoder writes.
    """
    codes = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    if not len(codes):
        return codes
    if ((codes < 0) | (codes > 63)).any():
        raise OutlineError(f'RLE counts hold a character that does not belong there (number '
                           f'{np.flatnonzero((codes < 0) | (codes > 63))[0]})')
    ends = np.flatnonzero(codes & 32 == 0)
    if not len(ends) or ends[-1] != len(codes) - 1:
        raise OutlineError('RLE counts are cut off')
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > _LONGEST_RUN_CODE:
        raise OutlineError('RLE counts hold a number that is too large')
    shifts = 5 * (np.arange(len(codes)) - np.repeat(starts, lengths))
    runs = np.add.reduceat((codes & 31) << shifts, starts)
    runs -= ((codes[ends] & 16) >> 4) << (5 * lengths)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def _check_rle(rle: Mapping, height: int, width: int) -> bytes:
    if 'size' not in rle or 'counts' not in rle:
        raise OutlineError('a run-length encoding needs "size" and "counts"')
    size, counts = rle['size'], rle['counts']
    if not isinstance(size, (list, tuple)) or len(size) != 2 or list(size) != [height, width]:
        raise OutlineError(f'RLE of size {size} (height, width), but its image is {height} x {width}')
    if isinstance(counts, (list, tuple)):
        if not all(type(count) is int or isinstance(count, np.integer) for count in counts):
            raise OutlineError('RLE counts must be whole numbers')
        if any(abs(count) >= 2 ** 62 for count in counts):
            raise OutlineError('RLE counts hold a number that is too large')
        runs = np.array(counts, np.int64) if counts else np.zeros(0, np.int64)
    elif isinstance(counts, (str, bytes)):
        try:
            counts = counts.encode('ascii') if isinstance(counts, str) else counts
        except UnicodeEncodeError as error:
            raise OutlineError('RLE counts hold a character that does not belong there') from error
        runs = run_lengths(counts)
    else:
        raise OutlineError(f'RLE counts must be a list or a string, got {type(counts).__name__}')
    if (runs < 0).any():
        raise OutlineError(f'RLE counts hold a negative length ({runs.min()})')
    if (runs > height * width).any() or runs.sum() != height * width:   # a sum of huge ones wraps around
        raise OutlineError(f'RLE counts sum to {sum(runs.tolist())} pixels, but its image has {height} x {width} = '
                           f'{height * width}')
    if not runs[1::2].any():
        raise OutlineError('RLE mask has no pixel')
    if isinstance(counts, bytes):
        return counts
    from pycocotools import mask as coco_mask
    return coco_mask.frPyObjects({'size': [height, width], 'counts': runs.tolist()}, height, width)['counts']


def _check_polygon(polygon: Any, height: int, width: int, tolerance: float) -> np.ndarray:
    """-> float64 ``n x 2``"""
    if not isinstance(polygon, (list, tuple)):
        raise OutlineError(f'a polygon must be a list [x0, y0, x1, y1, ...], got {type(polygon).__name__}')
    for kind in set(map(type, polygon)):
        if kind is bool or not issubclass(kind, (int, float, np.integer, np.floating)):
            raise OutlineError('a polygon must be a flat list of numbers [x0, y0, x1, y1, ...], this one holds a '
                               f'{kind.__name__}')
    try:
        points = np.array(polygon, np.float64)
    except OverflowError as error:
        raise OutlineError('polygon has a coordinate that is not a finite number of 64 bits') from error
    if len(points) % 2:
        raise OutlineError(f'polygon has an odd number of coordinates ({len(points)})')
    if len(points) < 6:
        raise OutlineError(f'polygon has {len(points) // 2} points, needs at least 3')
    points = points.reshape(-1, 2)
    if not np.isfinite(points).all():
        raise OutlineError('polygon has a coordinate that is not a finite number')
    outside = ((points < -tolerance) | (points > (width + tolerance, height + tolerance))).any(1)
    if outside.any():
        x, y = points[outside][0]
        raise OutsideError(f'polygon has a point at ({x:g}, {y:g}), outside of its image of {width} x {height} '
                           f'(width x height) by more than {tolerance:g} (outside_tolerance)')
    return points


def _has_area(points: np.ndarray) -> bool:
    """Whether the points (float64 ``n x 2``) do not lie on one line. The area would not do: that of an 8 may be 0."""
    (left, top), (x, y), (u, v) = points[:3].tolist()
    if abs((x - left) * (v - top) - (u - left) * (y - top)) > 1e-6:
        return True  # nearly all polygons, at little cost
    offsets = points - points[0]
    squares = (offsets ** 2).sum(1)
    a, b = offsets[squares.argmax()]
    return bool(np.abs(a * offsets[:, 1] - b * offsets[:, 0]).max() > 1e-9 * squares.max())


def _pack_polygons(polygons: list[np.ndarray]) -> bytes:
    lengths = np.array([len(polygons), *map(len, polygons)], np.int32)
    points = np.concatenate(polygons)
    hundredths = np.rint(points * 100)
    if (hundredths / 100 == points).all() and np.abs(hundredths).max() < 2 ** 31:
        return b'c' + lengths.tobytes() + hundredths.astype(np.int32).tobytes()
    return b'd' + lengths.tobytes() + points.tobytes()


def _unpack_polygons(packed: bytes) -> list[np.ndarray]:
    number = int(np.frombuffer(packed, np.int32, 1, 1)[0])
    lengths = np.frombuffer(packed, np.int32, number, 5)
    start = 5 + 4 * number
    if packed[:1] == b'c':
        points = np.frombuffer(packed, np.int32, -1, start) / 100
    else:
        points = np.frombuffer(packed, np.float64, -1, start)
    return np.split(points.reshape(-1, 2), np.cumsum(lengths)[:-1])


def _fill(polygons: list[np.ndarray], height: int, width: int) -> dict:
    from pycocotools import mask as coco_mask
    return coco_mask.merge(coco_mask.frPyObjects([polygon.ravel() for polygon in polygons], height, width))


def _fill_in(mask: np.ndarray, polygons: list[np.ndarray]) -> None:
    """Fills polygons in an empty bool ``h x w`` mask: the same bits as ``_fill``, but nothing is drawn right of them or
    below. (Drawn from their top left corner, some pixels of their borders would round otherwise.)
    """
    from pycocotools import mask as coco_mask
    points = np.concatenate(polygons)
    left, top = np.maximum(np.floor(points.min(0)).astype(int) - 1, 0)
    right, bottom = np.minimum(np.ceil(points.max(0)).astype(int) + 2, mask.shape[::-1])
    if left < right and top < bottom:
        mask[top:bottom, left:right] = coco_mask.decode(_fill(polygons, bottom, right))[top:, left:]


def _paint(mask: np.ndarray, rle: dict, rows: np.ndarray, columns: np.ndarray, swapped: bool) -> None:
    """Draws an object into an empty bool ``h x w`` mask, given the lines of ``Plan.lines``.

    Only what lies in the object's box is touched, and an object that the plan leaves out is not even decoded: images
    with hundreds of small objects are drawn many times faster than by moving hundreds of full masks.
    """
    from pycocotools import mask as coco_mask
    left, top, width, height = coco_mask.toBbox(rle).astype(int)
    if swapped:
        left, top, width, height = top, left, height, width
    inside_rows = np.flatnonzero((rows >= top) & (rows < top + height))
    inside_columns = np.flatnonzero((columns >= left) & (columns < left + width))
    if not len(inside_rows) or not len(inside_columns):
        return
    pixels = coco_mask.decode(rle)
    pixels = pixels.T if swapped else pixels
    mask[inside_rows[0]:inside_rows[-1] + 1, inside_columns[0]:inside_columns[-1] + 1] = \
        pixels[rows[inside_rows]][:, columns[inside_columns]]
