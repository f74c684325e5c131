"""A table's cells -> the objects of an image."""
from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelscope_fastinst.data.image import ImageError
from modelscope_fastinst.data.segmentation import OutlineError

from .instance_maps import encode_map, read_map

SEGMENTATIONS = ('segmentation', 'segmentations', 'segments', 'mask', 'masks', 'polygon', 'polygons')
CATEGORIES = ('category', 'categories', 'category_id', 'label', 'labels', 'class', 'class_id')
_CROWDS = ('iscrowd', 'is_crowd')
MAPS = ('annotation', 'instance', 'instances', 'instance_map', 'mask', 'label_map')


@dataclass
class Found:
    """An object in a row: its class as the row has it, its COCO segmentation, and what it is called."""
    category: Any
    segmentation: Any
    item: str
    crowd: bool = False


def objects_of(cell: Any, size: tuple[int, int]) -> Iterator[Found | tuple[str, ValueError]]:
    """The objects of a list of mappings, or of a mapping of lists; of a faulty one (item, what is wrong with it)."""
    if isinstance(cell, Mapping):
        keys = [key for key in cell if isinstance(cell[key], (list, tuple))]
        count = max((len(cell[key]) for key in keys), default=0)
        cell = [{key: cell[key][index] for key in keys if index < len(cell[key])} for index in range(count)]
    for index, one in enumerate(cell or ()):
        item = f'object {index}'
        try:
            segmentation = as_segmentation(_first(one, SEGMENTATIONS), size)
            category = _first(one, CATEGORIES)
            if category is None:
                raise ValueError(f'has no class ({", ".join(CATEGORIES[:4])})')
        except ValueError as error:
            yield item, error
        else:
            yield Found(category, segmentation, item, bool(_first(one, _CROWDS)))


def objects_of_map(cell: Any, label: Any, names: Mapping[int, str] | None, name: str) -> tuple[
        tuple[int, int], list[Found]]:
    """The objects of a picture of instances.

    Args:
        cell: the picture. Of three channels, the first holds the class and the second the number of the object, as in
            the ``transformers`` example of instance segmentation; a grey one holds the number. 0 is no object.
        label: the class of all objects of a grey one, or of each by its number; None: they are of one class.
        names: of the classes of a coloured one; class 0 is background unless it bears another name.
        name: what to call it in messages.

    Returns:
        ((height, width) in pixels, objects)

    Raises:
        ImageError: it cannot be read.
    """
    values = read_map(as_picture(cell), name)
    size = values.shape[:2]
    if values.ndim == 3:
        pairs = values[:, :, 0].astype(np.int32) << 16 | values[:, :, 1]
        pairs[values[:, :, 1] == 0] = 0
        background = names is None or names.get(0, 'background').lower().strip('_') in ('background', 'bg')
        return size, [Found(value >> 16, rle, f'object {value & 0xffff} of class {value >> 16}')
                      for value, rle in encode_map(pairs).items() if value >> 16 or not background]
    encoded = encode_map(values)
    if isinstance(label, (list, tuple)):
        by_number = max(encoded, default=0) <= len(label)
        labels = {value: label[value - 1] if by_number else label[rank] if rank < len(label) else None
                  for rank, value in enumerate(encoded)}
    else:
        labels = dict.fromkeys(encoded, 'object' if label is None else label)
    return size, [Found(labels[value], rle, f'object {value}') for value, rle in encoded.items()]


def as_segmentation(value: Any, size: tuple[int, int]) -> list | dict:
    """What tables hold for an outline -> COCO's polygons or run-length encoding.

    Args:
        value: polygons as COCO's or as lists of points, one polygon, a run-length encoding, either as JSON text, or a
            picture of the mask.
        size: (height, width) of the image in pixels.

    Raises:
        OutlineError: nothing of these.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise OutlineError(f'its segmentation is text that is no JSON ({error})') from error
    if value is None or isinstance(value, (list, tuple)) and not value:
        raise OutlineError('has no segmentation')
    if isinstance(value, Mapping) and value.get('counts') is not None:
        return {'size': list(value.get('size') or size), 'counts': value['counts']}
    if isinstance(value, (list, tuple)):
        return _polygons(value)
    try:
        mask = read_map(as_picture(value), 'its mask')
    except ImageError as error:
        raise OutlineError(str(error)) from error
    mask = mask.max(2) if mask.ndim == 3 else mask
    if mask.shape != size:
        raise OutlineError(f'its mask is {mask.shape[1]} x {mask.shape[0]} pixels (width x height), the image '
                           f'{size[1]} x {size[0]}')
    encoded = encode_map(mask if mask.dtype == bool else mask > mask.max() / 2)
    if not encoded:
        raise OutlineError('its mask has no pixel')
    return encoded[1]


def as_picture(cell: Any) -> Any:
    """A cell with a picture -> what PIL opens, or the PIL image that it is.

    Raises:
        ImageError: no picture.
    """
    if isinstance(cell, Mapping) and cell.get('bytes') is not None:
        return io.BytesIO(cell['bytes'])
    if isinstance(cell, Mapping) and cell.get('path'):
        return cell['path']
    if isinstance(cell, (bytes, bytearray)):
        return io.BytesIO(cell)
    if isinstance(cell, str) or hasattr(cell, 'getchannel'):
        return cell
    if isinstance(cell, np.ndarray):
        from PIL import Image
        return Image.fromarray(cell)
    raise ImageError(f'expected a picture, got {type(cell).__name__}')


def _first(record: Any, keys: Sequence[str]) -> Any:
    if not isinstance(record, Mapping):
        raise ValueError(f'must be a mapping with a segmentation and a class, got {type(record).__name__}')
    return next((record[key] for key in keys if record.get(key) is not None), None)


def _polygons(value: Sequence) -> list[list[float]]:
    if _numbers(value):
        return [list(value)]
    if all(_numbers(one) for one in value):
        if len(value) > 2 and all(len(one) == 2 for one in value):    # a list of points
            return [[number for point in value for number in point]]
        return [list(one) for one in value]
    if all(isinstance(one, (list, tuple)) and all(_numbers(point) and len(point) == 2 for point in one)
           for one in value):
        return [[number for point in one for number in point] for one in value]
    raise OutlineError('its segmentation is neither a list of polygons [x0, y0, x1, y1, ...] nor a run-length encoding')


def _numbers(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(
        isinstance(one, (int, float)) and not isinstance(one, bool) for one in value)
