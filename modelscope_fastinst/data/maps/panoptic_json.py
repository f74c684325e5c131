"""A panoptic annotation file as COCO defines it: JSON with the segments of each image, and a PNG an image.

Source: https://cocodataset.org/#format-data, "Panoptic Segmentation"; ADE20K and Cityscapes are converted to it by
Mask2Former's and Cityscapes' own scripts.
"""
from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from modelscope_fastinst.data.label_sets import LabelSet
from modelscope_fastinst.data.maps.label_map import LabelMap, locate
from modelscope_fastinst.data.maps.pictures import read_ids
from modelscope_fastinst.data.maps.source import MapSource
from modelscope_fastinst.data.records import (
    DatasetError,
    DatasetProblem,
    identifier,
    list_problems,
    load_annotations,
    member,
    pixel_count,
)

_LARGEST_ID = (1 << 24) - 1


def read_panoptic(file: str, image_dir: str, panoptic_dir: str, *, format: str = 'files',
                  labels: LabelSet | None = None, pasted_over: bool = False) -> MapSource:
    """Reads and checks a panoptic annotation file; no picture is opened.

    Args:
        file: the JSON.
        image_dir, panoptic_dir: the folders that the images' and the annotations' ``file_name`` are relative to.
        format: of the source.
        labels: the names of the classes by category id, in the place of the file's own; the file's categories must be
            among them.
        pasted_over: a segment of which the PNG has no pixel is no fault and left out: other segments were laid over it.

    Raises:
        DatasetError: nothing to go on with: no such file or folder, no panoptic JSON, no usable category.
    """
    content = load_annotations(file)
    check_panoptic(content, file)
    for what, folder in (('images', image_dir), ('panoptic PNGs', panoptic_dir)):
        if not os.path.isdir(folder):
            raise DatasetError(f'{folder}: no such folder; the {what} of {file} were expected there')
    problems: list[DatasetProblem] = []
    names, things, label_of = _categories(content['categories'], file, labels, problems)
    annotations = _by_image(content['annotations'], content['images'], file, problems)
    table = _Table()
    images: list[str] = []
    maps: list[str] = []
    ids: list[Any] = []
    sizes: list[tuple[int, int]] = []
    seen: set = set()
    for position, image in enumerate(content['images']):
        try:
            image_id = identifier(member(image, 'id'))
            if image_id in seen:
                raise ValueError('id is used by more than one image')
            seen.add(image_id)
            name = _file_name(image)
            size = pixel_count(image, 'height'), pixel_count(image, 'width')
            if image_id not in annotations:
                raise ValueError('"annotations" has no entry with its id as image_id')
            annotation = annotations[image_id]
            segments = _segments(annotation, label_of)
            picture = _file_name(annotation) if annotation.get('file_name') is not None else \
                os.path.splitext(name)[0] + '.png'
        except (ValueError, OverflowError) as error:
            problems.append(DatasetProblem(file, _item('image', image, position), str(error),
                                           getattr(error, 'code', '')))
            continue
        table.add(segments)
        images.append(os.path.join(image_dir, name))
        maps.append(os.path.join(panoptic_dir, picture))
        ids.append(image_id)
        sizes.append(size)
    reader = _PanopticReader(file, maps, *table.arrays(), pasted_over)
    return MapSource(format, file, names, things, images, maps, ids, reader, sizes, reader.labelled(), problems)


def check_panoptic(content: Any, file: str) -> None:
    """Raises a DatasetError where the lists of a panoptic annotation file are not there."""
    wanted = 'a COCO panoptic file has the lists "images", "annotations" and "categories"'
    if not isinstance(content, Mapping):
        raise DatasetError(f'{file}: {wanted}; this one holds a {type(content).__name__}')
    for key in ('images', 'annotations', 'categories'):
        if not isinstance(content.get(key), list):
            raise DatasetError(f'{file}: {wanted}; "{key}" {"is no list" if key in content else "is missing"}')
    if any(isinstance(one, Mapping) and 'segmentation' in one and 'segments_info' not in one
           for one in content['annotations'][:20]):
        raise DatasetError(f'{file}: is an annotation file of objects ("segmentation"), no panoptic one '
                           '("segments_info"); give it with model.task "instance", or give the panoptic file')


class _Table:
    """The segments of all images, packed as they come."""

    def __init__(self) -> None:
        self.counts: list[int] = []
        self.numbers: list[np.ndarray] = []
        self.labels: list[np.ndarray] = []
        self.crowds: list[np.ndarray] = []

    def add(self, segments: list[tuple[int, int, bool]]) -> None:
        segments.sort()
        self.counts.append(len(segments))
        self.numbers.append(np.array([one[0] for one in segments], np.int32))
        self.labels.append(np.array([one[1] for one in segments], np.int16))
        self.crowds.append(np.array([one[2] for one in segments], bool))

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        starts = np.concatenate(([0], np.cumsum(self.counts))).astype(np.int64)
        return (starts, *(np.concatenate([np.zeros(0, kind), *parts]) for kind, parts in (
            (np.int32, self.numbers), (np.int16, self.labels), (bool, self.crowds))))


class _PanopticReader:
    """Reads the PNGs of a panoptic file and compares their ids with its own."""

    def __init__(self, file: str, maps: list[str], starts: np.ndarray, numbers: np.ndarray, labels: np.ndarray,
                 crowds: np.ndarray, pasted_over: bool) -> None:
        self.file, self.maps, self.pasted_over = file, maps, pasted_over
        self.starts, self.numbers, self.labels, self.crowds = starts, numbers, labels, crowds

    def labelled(self) -> list[bool]:
        """Per image, whether it has a segment that is no crowd."""
        return [bool((~self.crowds[start:end]).any()) for start, end in zip(self.starts[:-1], self.starts[1:])]

    def __call__(self, index: int, faults: list[tuple[str, str]]) -> LabelMap:
        span = slice(int(self.starts[index]), int(self.starts[index + 1]))
        numbers = self.numbers[span].astype(np.int64)
        values = read_ids(self.maps[index])
        places = locate(values, numbers)
        strange = np.unique(values[(places < 0) & (values != 0)]).tolist()
        if strange:
            faults.append(('unlisted-id', f'{self.maps[index]}: has pixels of the ids {_short(strange)}, which '
                                          f'{self.file} does not list for this image; add them to its segments_info, '
                                          'or make the pixels 0 (void)'))
        absent = numbers[np.bincount(places.ravel() + 1, minlength=len(numbers) + 1)[1:] == 0].tolist()
        if absent and not self.pasted_over:
            faults.append(('absent-id', f'{self.maps[index]}: has no pixel of the ids {_short(absent)}, which '
                                        f'{self.file} lists for this image; remove them from its segments_info'))
        found = LabelMap(places, numbers, self.labels[span].astype(np.int64), self.crowds[span])
        return found.present() if absent else found


def _categories(categories: list, file: str, labels: LabelSet | None, problems: list[DatasetProblem],
                ) -> tuple[list[str], list[str], dict]:
    """-> class names in the order of their ids, the things among them, class index by category id."""
    found: dict[int | str, tuple[str, bool]] = {}
    for position, category in enumerate(categories):
        try:
            one, name = identifier(member(category, 'id')), member(category, 'name')
            if not isinstance(name, str) or not name.strip():
                raise ValueError(f'name must be a non-empty string, got {name!r}')
            if one in found:
                raise ValueError('id is used twice')
            if labels is not None:
                if one not in labels.index_of:
                    raise ValueError(f'id {one!r} ({name!r}) is none of {labels.name}')
                name = labels.names[labels.index_of[one]]
            isthing = category.get('isthing')
            if isthing not in (0, 1) and labels is None:
                raise ValueError(f'isthing must be 1 (a thing) or 0 (stuff), got {isthing!r}')
            if name in (other for other, _ in found.values()):
                raise ValueError(f'name {name!r} is used twice')
            found[one] = name, bool(isthing) if labels is None else name in labels.things
        except ValueError as error:
            problems.append(DatasetProblem(file, _item('category', category, position), str(error)))
    if not found:
        raise DatasetError(f'{file}: "categories" holds no usable category\n{list_problems(problems)}')
    if labels is not None:   # all of them, for a part of the data may list a part
        return list(labels.names), list(labels.things), dict(labels.index_of)
    order = sorted(found, key=lambda one: (isinstance(one, str), one))
    return ([found[one][0] for one in order], [found[one][0] for one in order if found[one][1]],
            {one: index for index, one in enumerate(order)})


def _by_image(annotations: list, images: list, file: str, problems: list[DatasetProblem]) -> dict:
    """The annotation of each image id."""
    known = {image['id'] for image in images if isinstance(image, Mapping) and isinstance(image.get('id'), (int, str))}
    found: dict = {}
    for position, annotation in enumerate(annotations):
        try:
            image_id = identifier(member(annotation, 'image_id'), 'image_id')
            if image_id in found:
                raise ValueError(f'image {image_id} has more than one annotation')
            if image_id not in known:
                raise ValueError(f'unknown image_id {image_id!r}')
            found[image_id] = annotation
        except ValueError as error:
            problems.append(DatasetProblem(file, f'annotation number {position} (from 0)', str(error)))
    return found


def _segments(annotation: Mapping, label_of: Mapping) -> list[tuple[int, int, bool]]:
    """(id, class index, crowd) of each segment. ValueError: one that cannot be used, which makes void of its pixels."""
    listed = annotation.get('segments_info')
    if not isinstance(listed, list):
        raise ValueError('its annotation has no list "segments_info"')
    segments, seen = [], set()
    for one in listed:
        number = identifier(member(one, 'id'))
        if not isinstance(number, int) or not 1 <= number <= _LARGEST_ID:
            raise ValueError(f'a segment\'s id must be a whole number of 1 to {_LARGEST_ID}, got {number!r}')
        if number in seen:
            raise ValueError(f'segment {number} is listed twice')
        seen.add(number)
        category = identifier(member(one, 'category_id'), 'category_id')
        if category not in label_of:
            raise ValueError(f'segment {number}: unknown category_id {category!r}')
        crowd = one.get('iscrowd')
        if crowd not in (None, 0, 1):
            raise ValueError(f'segment {number}: iscrowd must be 0 or 1, got {crowd!r}')
        segments.append((number, label_of[category], bool(crowd)))
    return segments


def _file_name(record: Mapping) -> str:
    name = member(record, 'file_name')
    if not isinstance(name, str) or not name or '\0' in name:
        raise ValueError(f'file_name must be a non-empty string, got {name!r}')
    return name


def _item(kind: str, record: Any, position: int) -> str:
    if isinstance(record, Mapping) and 'id' in record:
        return f'{kind} {record["id"]}'
    return f'{kind} without id (number {position} in the list, from 0)'


def _short(numbers: list[int]) -> str:
    return f'{numbers[:6]} and {len(numbers) - 6} more' if len(numbers) > 6 else str(numbers)
