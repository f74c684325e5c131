"""A COCO annotation file -> checked records that take little memory."""
from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from modelscope_fastinst.data.segmentation import OutlineError, check_segmentation, to_rle

_LISTED = 20  # bad items that an error message lists; all of them are in its .problems


@dataclass(frozen=True)
class DatasetProblem:
    """One bad item of a data set.

    Attributes:
        file: the annotation file.
        item: what and which, e.g. ``annotation 4711``.
        message: what is wrong with it.
        code: the kind of fault, a key of ``data.checking.KINDS``; '' for a record that cannot be used otherwise.
    """
    file: str
    item: str
    message: str
    code: str = ''

    def __str__(self) -> str:
        return f'{self.file}: {self.item}: {self.message}'


class DatasetError(ValueError):
    """A data set that cannot be used as it is.

    Attributes:
        problems: all bad items, where single items are the reason.
    """

    def __init__(self, message: str, problems: Iterable[DatasetProblem] = ()) -> None:
        super().__init__(message)
        self.problems = list(problems)


def list_problems(problems: list[DatasetProblem]) -> str:
    """The first bad items, one in a line."""
    lines = [str(problem) for problem in problems[:_LISTED]]
    if len(problems) > _LISTED:
        lines.append(f'... and {len(problems) - _LISTED} more')
    return '\n'.join(lines)


@dataclass
class Records:
    """All images and annotations of a file, in the file's order, annotations grouped by image. N images, M annotations.

    Few and large arrays: they cost no Python object per annotation, and worker processes share them.

    Attributes:
        file: the annotation file.
        classes: the names of the classes, and ``category_ids``: the file's ids for them.
        image_ids, file_names: per image.
        sizes: int64 ``[N, 2]``, (height, width) in pixels.
        starts: int64 ``[N + 1]``; image i has the annotations ``starts[i]`` up to ``starts[i + 1]``.
        ids: per annotation, the file's id.
        labels: int64 ``[M]``, class indices.
        crowds: bool ``[M]``.
        areas: float64 ``[M]``, pixels; NaN where the file has none.
        boxes: float64 ``[M, 4]``, xywh in pixels; NaN where the file has none.
    """
    file: str
    classes: list[str]
    category_ids: list
    image_ids: list
    file_names: list[str]
    sizes: np.ndarray
    starts: np.ndarray
    ids: np.ndarray
    labels: np.ndarray
    crowds: np.ndarray
    areas: np.ndarray
    boxes: np.ndarray
    problems: list[DatasetProblem] = field(default_factory=list)
    _segmentations: bytes = b''
    _ends: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))

    def segmentation(self, index: int) -> bytes:
        """Annotation ``index``'s segmentation, packed (see ``segmentation.py``)."""
        return self._segmentations[self._ends[index]:self._ends[index + 1]]

    def annotations(self, image: int) -> list[dict]:
        """The ground truth of an image, crowds included, as ``Sample.annotations`` has it."""
        from pycocotools import mask as coco_mask
        records = []
        for index in range(self.starts[image], self.starts[image + 1]):
            rle = to_rle(self.segmentation(index), *map(int, self.sizes[image]))
            area, box = float(self.areas[index]), self.boxes[index].tolist()
            records.append({'id': self.ids[index].item() if isinstance(self.ids[index], np.generic)
                            else self.ids[index],
                            'category_id': int(self.labels[index]), 'segmentation': rle,
                            'area': float(coco_mask.area(rle)) if math.isnan(area) else area,
                            'bbox': coco_mask.toBbox(rle).tolist() if math.isnan(box[0]) else box,
                            'iscrowd': int(self.crowds[index])})
        return records


def read_records(source: str | os.PathLike | Mapping, classes: list[str] | None = None, tolerance: float = 1.0, *,
                 name: str = 'annotations', place: Callable[[str, Any], tuple[str, str]] | None = None,
                 take_apart: bool = False) -> Records:
    """Reads and checks an annotation file in one pass; bad items are left out and noted in ``problems``.

    Args:
        source: the file, or its content.
        classes: names of the categories to keep, in the order in which they are to be numbered; None for all, by id.
        tolerance: how far outside of its image a polygon may reach, in pixels.
        name: what to call a content that is in no file.
        place: gives the (file, item) that a problem with ``('annotation' or 'image', its id)`` is to name.
        take_apart: empty a given content's list of annotations on the way, which saves memory.

    Raises:
        DatasetError: where there is nothing to go on with: no such file, no JSON, no images, no categories, a class
            that is not in the file.
    """
    if isinstance(source, Mapping):
        return _Reader(name, dict(source), classes, tolerance, take_apart, place).records()
    file = os.fspath(source)
    return _Reader(file, load_annotations(file), classes, tolerance, owned=True).records()


def load_annotations(file: str) -> Any:
    """The content of a JSON file.

    Raises:
        DatasetError: it cannot be opened, or is no JSON.
    """
    try:
        with open(file, encoding='utf-8-sig') as stream:
            return json.load(stream)
    except OSError as error:
        raise DatasetError(f'{file}: annotation file cannot be opened ({error.strerror or error})') from error
    except json.JSONDecodeError as error:
        empty = os.path.getsize(file) == 0
        reason = 'is empty (0 bytes)' if empty else f'is not valid JSON, or is cut off ({error})'
        raise DatasetError(f'{file}: {reason}') from error
    except (ValueError, RecursionError) as error:  # not UTF-8, or a number of thousands of digits
        raise DatasetError(f'{file}: is not valid JSON ({error})') from error


def check_content(content: Any, file: str) -> None:
    """Raises a DatasetError where the three lists of a COCO annotation file are not there."""
    if not isinstance(content, dict):
        raise DatasetError(f'{file}: a COCO annotation file holds an object with "images", "annotations" and '
                           f'"categories", this one a {type(content).__name__}')
    for key in ('images', 'annotations', 'categories'):
        if not isinstance(content.get(key), list):
            state = f'is a {type(content[key]).__name__}, not a list' if key in content else 'is missing'
            raise DatasetError(f'{file}: "{key}" {state}')


class _Reader:
    """The pass over one file, whose content it may take apart where it is ``owned``."""

    def __init__(self, file: str, content: Any, classes: list[str] | None, tolerance: float, owned: bool,
                 place: Callable[[str, Any], tuple[str, str]] | None = None) -> None:
        self.file, self.tolerance, self.owned, self.place = file, tolerance, owned, place
        self.problems: list[DatasetProblem] = []
        check_content(content, file)
        self.content = content
        self.classes = classes

    def records(self) -> Records:
        names, category_ids, label_of = self._categories()
        ids, file_names, sizes, skipped = self._images()
        image_of = {image_id: index for index, image_id in enumerate(ids)}
        kept: list[list[tuple]] = [[] for _ in ids]
        seen: set = set()
        annotations = self.content['annotations']
        for position, annotation in enumerate(annotations):
            if self.owned:
                annotations[position] = None  # freed one by one: the packed form grows while the parsed file shrinks
            try:
                found = self._annotation(annotation, image_of, skipped, label_of, sizes, seen)
            except (ValueError, OverflowError) as error:
                self._note('annotation', annotation, position, error)
                continue
            if found is not None:
                kept[found[0]].append(found[1:])
        flat = [record for records in kept for record in records]
        columns = list(zip(*flat)) if flat else [()] * 6
        annotation_ids = list(columns[0])
        return Records(
            self.file, names, category_ids, ids, file_names, np.array(sizes, np.int64).reshape(-1, 2),
            np.concatenate(([0], np.cumsum([len(records) for records in kept]))).astype(np.int64),
            np.array(annotation_ids, np.int64 if all(map(_fits_int64, annotation_ids)) else object),
            np.array(columns[1], np.int64), np.array(columns[2], bool), np.array(columns[3], np.float64),
            np.array(columns[4], np.float64).reshape(-1, 4), self.problems, b''.join(columns[5]),
            np.concatenate(([0], np.cumsum([len(packed) for packed in columns[5]]))).astype(np.int64))

    def _categories(self) -> tuple[list[str], list, dict]:
        """-> class names, their category ids, and category id -> class index (None: not one of the chosen classes)."""
        name_of: dict = {}
        for position, category in enumerate(self.content['categories']):
            try:
                category_id, name = identifier(member(category, 'id')), member(category, 'name')
                if not isinstance(name, str) or not name.strip():
                    raise ValueError(f'name must be a non-empty string, got {name!r}')
                if category_id in name_of:
                    raise ValueError(f'id is used twice, for {name_of[category_id]!r} and {name!r}')
                if name in name_of.values():
                    raise ValueError(f'name {name!r} is used twice')
                name_of[category_id] = name
            except ValueError as error:
                self._note('category', category, position, error)
        if not name_of:
            raise DatasetError(f'{self.file}: "categories" holds no usable category\n{list_problems(self.problems)}')
        ids = sorted(name_of, key=lambda one: (isinstance(one, str), one))
        if self.classes is not None:
            id_of = {name: one for one, name in name_of.items()}
            if isinstance(self.classes, str) or not self.classes or len(set(self.classes)) != len(self.classes):
                raise DatasetError(f'{self.file}: classes must be a list of different names, got {self.classes!r}')
            unknown = [name for name in self.classes if name not in id_of]
            if unknown:
                raise DatasetError(f'{self.file}: has no classes {unknown}; it has {sorted(id_of)}')
            ids = [id_of[name] for name in self.classes]
        label_of = {**dict.fromkeys(name_of), **{one: label for label, one in enumerate(ids)}}
        return [name_of[one] for one in ids], ids, label_of

    def _images(self) -> tuple[list, list[str], list[tuple[int, int]], set]:
        """-> ids, file names, sizes, and the ids of images left out, whose annotations go with them."""
        ids, file_names, sizes, skipped, seen = [], [], [], set(), set()
        for position, image in enumerate(self.content['images']):
            image_id = None
            try:
                image_id = identifier(member(image, 'id'))
                if image_id in seen:
                    raise ValueError('id is used by more than one image')
                seen.add(image_id)
                skipped.add(image_id)
                file_name = member(image, 'file_name')
                if not isinstance(file_name, str) or not file_name or '\0' in file_name:
                    raise ValueError(f'file_name must be a non-empty string, got {file_name!r}')
                sizes.append((pixel_count(image, 'height'), pixel_count(image, 'width')))
            except ValueError as error:
                self._note('image', image, position, error)
                continue
            skipped.discard(image_id)
            ids.append(image_id)
            file_names.append(file_name)
        return ids, file_names, sizes, skipped

    def _annotation(self, annotation: Any, image_of: dict, skipped: set, label_of: dict, sizes: list,
                    seen: set) -> tuple | None:
        """-> (image index, id, label, crowd, area, box, packed segmentation), or None if it does not belong here."""
        annotation_id = identifier(member(annotation, 'id'))
        if annotation_id in seen:
            raise ValueError('id is used by more than one annotation')
        seen.add(annotation_id)
        image_id = identifier(member(annotation, 'image_id'), 'image_id')
        category_id = identifier(member(annotation, 'category_id'), 'category_id')
        if image_id in skipped:
            return None
        if image_id not in image_of:
            raise ValueError(f'unknown image_id {image_id!r}')
        if category_id not in label_of:
            raise ValueError(f'unknown category_id {category_id!r}')
        if label_of[category_id] is None:
            return None
        index = image_of[image_id]
        crowd = annotation.get('iscrowd')
        if crowd not in (None, 0, 1):
            raise ValueError(f'iscrowd must be 0 or 1, got {crowd!r}')
        if annotation.get('segmentation') is None:
            raise OutlineError('"segmentation" is missing')
        packed = check_segmentation(annotation['segmentation'], *sizes[index], self.tolerance)
        return (index, annotation_id, label_of[category_id], bool(crowd), _area(annotation.get('area')),
                _box(annotation.get('bbox')), packed)

    def _note(self, kind: str, record: Any, position: int, error: Exception) -> None:
        if not isinstance(record, dict) or 'id' not in record:
            file, item = self.file, f'{kind} without id (number {position} in the list, from 0)'
        elif self.place is None or kind == 'category':
            file, item = self.file, f'{kind} {record["id"]}'
        else:
            file, item = self.place(kind, record['id'])
        self.problems.append(DatasetProblem(file, item, str(error), getattr(error, 'code', '')))


def member(record: Any, key: str) -> Any:
    """What a record has under a key. ValueError: nothing, or it is no record."""
    if not isinstance(record, dict):
        raise ValueError(f'must be an object, got {type(record).__name__}')
    if record.get(key) is None:
        raise ValueError(f'"{key}" is missing')
    return record[key]


def identifier(value: Any, key: str = 'id') -> int | str:
    """An id, which is a whole number or a string. ValueError: it is neither."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError(f'{key} must be a whole number or a string, got {value!r}')
    return value


def _fits_int64(one: int | str) -> bool:
    return type(one) is int and -2 ** 63 <= one < 2 ** 63


def _finite(value: Any) -> bool:
    """Whether this is a number that a float64 holds; JSON has larger ones."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def pixel_count(image: Mapping, key: str) -> int:
    """An image record's ``height`` or ``width``. ValueError: it is missing, or no number of pixels."""
    value = member(image, key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 1 or value != value // 1 or \
            value > 2 ** 31:
        raise ValueError(f'{key} must be a whole number of pixels, at least 1; got {_short(value)}')
    return int(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f'{text[:77]}...'


def _area(value: Any) -> float:
    """NaN where the file has none: it is then counted in the mask."""
    if value is None or value == 0:
        return math.nan
    if not _finite(value) or value < 0:
        raise ValueError(f'area must be a positive number of pixels, got {_short(value)}')
    return float(value)


def _box(value: Any) -> tuple[float, ...]:
    """NaNs where the file has none, or one without extent as some converters write: it is then taken from the mask."""
    if value is None or value == []:
        return (math.nan,) * 4
    numbers = isinstance(value, (list, tuple)) and len(value) == 4 and \
        all(map(_finite, value))
    if not numbers or value[2] < 0 or value[3] < 0:
        raise ValueError(f'bbox must be four finite numbers [x, y, width, height], got {_short(value)}')
    return tuple(map(float, value)) if value[2] and value[3] else (math.nan,) * 4
