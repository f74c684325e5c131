"""Tables with pictures inside, as ``datasets`` and ModelScope's MsDataset hold them.

A column ``image``, and beside it either ``objects`` with a segmentation and a class each (the lists of a mapping, or a
list of mappings, or the same as columns of lists), or a picture of instances: ``annotation`` with the class in the
first and the object's number in the second channel (the convention of the ``transformers`` examples), or a grey one
with the numbers, beside ``label``. Class names come from a ``ClassLabel`` feature, from ``semantic_class_to_id``, or
are the labels met, sorted; numbers without names are ``class 3``. EXIF: a picture is upright, as ``datasets`` decodes
it.
"""
from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelscope_fastinst.data.image import ImageError, image_size, read_annotated
from modelscope_fastinst.data.records import DatasetError

from .listing import check_sides, order_splits, which_part
from .partition import check_fraction, partition, split_of_name
from .source import Collector, Source
from .table_rows import CATEGORIES, MAPS, SEGMENTATIONS, Found, objects_of, objects_of_map

_IMAGES = ('image', 'img', 'pixel_values', 'picture')


def table_source(table: Any, name: str = 'table', split: str | None = None, *, val_fraction: float | None = None,
                 seed: int = 0, or_all: bool = False) -> Source:
    """A table, or the tables of the splits, as a Source; pictures stay in the table until they are drawn.

    Args:
        table: a Hugging Face ``datasets.Dataset`` (an MsDataset's ``ds_instance``), or a mapping of splits to such.
        name: what to call it in messages.
        split: which of them, or which side of a partition; None for all rows.
        val_fraction, seed, or_all: as of ``read_source``.

    Raises:
        DatasetError: no rows, a split that is not there, or columns that say nothing about images or objects.
    """
    if val_fraction is not None:
        check_fraction(val_fraction)
    tables = {split_of_name(key) or key: one for key, one in table.items()} if isinstance(table, Mapping) else {
        None: table}
    for one in tables.values():
        if not hasattr(one, 'features') or not hasattr(one, '__len__'):
            raise DatasetError(f'{name}: is a {type(one).__name__}, which cannot be read row by row in any order; load '
                               'it without streaming')
    splits = order_splits(tables)
    wanted = split if split in (None, *splits) else split_of_name(split) or split
    if or_all and not splits and val_fraction is None:
        wanted = None
    own, side = which_part(splits, wanted, val_fraction, name)
    keys = [own] if own is not None else list(splits) or [None]
    parts = [_Part(tables[key], name if key is None or len(tables) == 1 else f'{name}[{key}]') for key in keys]
    others = [_Part(one, name) for key, one in tables.items() if key not in keys and side is None]
    source = _collect(parts, others, name)
    source.split, source.splits = wanted, splits
    if side is None:
        return source
    pictures = source.open_image
    names = [image['file_name'] for image in source.content['images']]
    chosen = partition(names, val_fraction, seed, lambda index: len(pictures.content(index)) or None,
                       lambda index: hashlib.sha256(pictures.content(index)).hexdigest())
    check_sides(len(names), chosen, name)
    numbers = {index + 1 for index in chosen}
    return source.keep_images(lambda image: (image['id'] in numbers) == (side == 'val'))


class _Part:
    """A table and the meaning of its columns."""

    def __init__(self, table: Any, name: str) -> None:
        self.table, self.name = table.with_format(None), name
        columns = dict(table.features)
        self.image = next((key for key in _IMAGES if key in columns), None)
        if self.image is None:
            self.image = next((key for key, one in columns.items() if type(one).__name__ == 'Image'), None)
        if self.image is None:
            raise DatasetError(f'{name}: no column of pictures; there are {", ".join(columns)}; call it "image"')
        if type(columns[self.image]).__name__ == 'Image':
            from datasets import Image
            self.table = self.table.cast_column(self.image, Image(decode=False))
        self.map = self.label = self.objects = None
        self.lists: list[str] = []
        self._find_objects(columns)

    def _find_objects(self, columns: dict[str, Any]) -> None:
        if 'objects' in columns:
            self.objects = 'objects'
            self.kind = _inner(columns['objects'], CATEGORIES)
            return
        self.map = next((key for key in MAPS if type(columns.get(key)).__name__ == 'Image' and key != self.image), None)
        label = next((key for key in CATEGORIES if key in columns), None)
        if self.map is not None:
            self.label = label
            self.kind = None if label is None else _leaf(columns[label])
            return
        outline = next((key for key in SEGMENTATIONS if key in columns), None)
        if outline is None or label is None:
            raise DatasetError(
                f'{self.name}: the columns {", ".join(columns)} do not say where the objects are; needed beside '
                f'{self.image!r}: "objects" with "segmentation" and "category", or a picture of instances "annotation"')
        self.lists = [key for key in (outline, label, 'iscrowd') if key in columns]
        self.kind = _leaf(columns[label])

    def class_names(self) -> list[str] | None:
        """All classes in order, where the table lists them."""
        names = getattr(self.kind, 'names', None)
        return list(names) if names else None

    def named(self, category: Any, names: Mapping[int, str] | None) -> str:
        """The name of a class as a row has it."""
        if isinstance(category, str) and category.strip():
            return category
        if isinstance(category, bool) or not isinstance(category, int):
            raise ValueError(f'class must be a name or a number, got {category!r}')
        known = self.class_names()
        if known is not None:
            names = dict(enumerate(known))
        if names is None:
            return f'class {category}'
        if category not in names:
            raise ValueError(f'unknown class {category}; there are {len(names)}')
        return names[category]

    def row_names(self, row: Mapping) -> dict[int, str] | None:
        """Names of the classes that a row brings along, as scene parsing sets do."""
        known = row.get('semantic_class_to_id')
        return {int(number): str(name) for name, number in known.items() if number is not None} \
            if isinstance(known, Mapping) else None

    def found(self, row: Mapping, size: tuple[int, int], item: str) -> list[Found | tuple[str, ValueError]]:
        """The objects of a row."""
        if self.objects is not None:
            return list(objects_of(row[self.objects], size))
        if self.map is None:
            return list(objects_of({key: row[key] for key in self.lists}, size))
        names = self.row_names(row)
        if names is None and self.class_names() is not None:
            names = dict(enumerate(self.class_names()))
        found_size, objects = objects_of_map(row[self.map], row.get(self.label), names, f'{self.name}: {item}')
        if found_size != size:
            raise ImageError(f'the picture of instances is {found_size[1]} x {found_size[0]} pixels (width x height), '
                             f'the image {size[1]} x {size[0]}', 'size-mismatch')
        return objects

    def categories(self) -> set[str]:
        """The classes that are met in the rows."""
        met = set()
        columns = [key for key in (self.objects, self.map, self.label, 'semantic_class_to_id', *self.lists)
                   if key is not None and key in self.table.column_names]
        rows = self.table.select_columns(columns)
        for index in range(len(rows)):
            row = rows[index]
            if self.map is not None:
                objects = objects_of_map(row[self.map], row.get(self.label), self.row_names(row), self.name)[1]
                met.update(self.named(one.category, self.row_names(row)) for one in objects)
            else:
                cell = row[self.objects] if self.objects is not None else {key: row[key] for key in self.lists}
                records = cell if isinstance(cell, list) else [cell]
                for record in records:
                    value = next((record[key] for key in CATEGORIES if record.get(key) is not None), None)
                    values = value if isinstance(value, list) else [] if value is None else [value]
                    met.update(self.named(one, None) for one in values)
        return met


@dataclass
class Pictures:
    """Opens image i out of a table's cell; ``places`` says which table, row and column, and the size as annotated."""
    tables: list[Any]
    columns: list[str]
    places: list[tuple[int, int, tuple[int, int]]]
    names: list[str]

    def __call__(self, index: int) -> np.ndarray:
        number, row, size = self.places[index]
        picture = _picture(self.tables[number][row][self.columns[number]])
        return read_annotated(picture, size, name=f'{self.names[number]}: row {row}')

    def content(self, index: int) -> bytes:
        """The bytes of image i's file; none where it is no file."""
        number, row, _ = self.places[index]
        picture = _picture(self.tables[number][row][self.columns[number]])
        if isinstance(picture, str):
            with open(picture, 'rb') as stream:
                return stream.read()
        return picture if isinstance(picture, bytes) else b''


def _collect(parts: list[_Part], others: list[_Part], name: str) -> Source:
    """All rows of some tables; those of the others count for the names of the classes."""
    rows: list[tuple[int, int, str, tuple[int, int], list]] = []
    problems, taken = [], set()
    for number, part in enumerate(parts):
        for row in range(len(part.table)):
            cells = part.table[row]
            item = f'row {row}'
            try:
                picture = _picture(cells[part.image])
                size = _size(picture, f'{part.name}: {item}')
                found = part.found(cells, size, item)
            except ImageError as error:
                problems.append((part.name, item, ImageError(
                    str(error).removeprefix(f'{part.name}: {item}: '), error.code)))
                continue
            named = []
            for one in found:
                try:
                    if isinstance(one, tuple):
                        raise one[1]
                    named.append((part.named(one.category, part.row_names(cells)), one))
                except ValueError as error:
                    problem_item = one[0] if isinstance(one, tuple) else one.item
                    problems.append((part.name, f'{item}, {problem_item}', error))
            rows.append((number, row, _file_name(cells[part.image], part, row, taken), size, named))
    listed = [part.class_names() for part in (*parts, *others)]
    observed = any(names is None for names in listed)
    if observed:
        met = {name for *_, named in rows for name, _ in named}
        for part in others:
            met |= part.categories()
        classes = sorted(met, key=_by_number)
    else:
        classes = list(dict.fromkeys(one for names in listed for one in names))
    if not rows and not problems:
        raise DatasetError(f'{name}: has no rows')
    collector = Collector('table', name, classes)
    collector.source.image_dir = ''
    for number, row, file_name, size, named in rows:
        origin = f'{parts[number].name}: row {row}'
        image_id = collector.image(file_name, size, origin)
        collector.source.content['images'][-1]['file_name'] = file_name
        for kind, one in named:
            collector.object(image_id, kind, one.segmentation, f'{origin}, {one.item}', one.crowd)
    for problem in problems:
        collector.problem(*problem)
    collector.source.observed_classes = observed
    collector.source.open_image = Pictures([part.table for part in parts], [part.image for part in parts],
                                           [(number, row, size) for number, row, _, size, _ in rows],
                                           [part.name for part in parts])
    return collector.source


def _picture(cell: Any) -> Any:
    """A cell -> bytes, a path, or a PIL image."""
    if isinstance(cell, Mapping):
        cell = cell.get('bytes') if cell.get('bytes') is not None else cell.get('path')
    if cell is None:
        raise ImageError('has no picture')
    if isinstance(cell, (list, np.ndarray)):
        array = np.asarray(cell, np.uint8)
        cell = np.ascontiguousarray(array[:, :, ::-1]) if array.ndim == 3 else array     # tables are RGB, arrays BGR
    return cell


def _size(picture: Any, name: str) -> tuple[int, int]:
    """(height, width) of a picture, upright."""
    if isinstance(picture, (str, bytes)):
        return image_size(picture, name=name)[1]
    if isinstance(picture, np.ndarray):
        return picture.shape[:2]
    if hasattr(picture, 'getexif'):
        return picture.height, picture.width
    raise ImageError(f'expected a picture, got {type(picture).__name__}')


def _file_name(cell: Any, part: _Part, row: int, taken: set[str]) -> str:
    """The name that a picture had as a file, or one made of the number of its row."""
    path = cell.get('path') if isinstance(cell, Mapping) else cell if isinstance(cell, str) else None
    name = os.path.basename(path.replace('\\', '/')) if path else f'{row:08d}.png'
    if name in taken:
        name = f'{row:08d}_{name}'
    while name in taken:
        name = f'{part.name}_{name}'.replace('/', '_')
    taken.add(name)
    return name


def _leaf(feature: Any) -> Any:
    """The feature of the values in lists."""
    while hasattr(feature, 'feature'):
        feature = feature.feature
    return feature


def _inner(feature: Any, keys: tuple[str, ...]) -> Any:
    """The feature of one of some members of a mapping, or of the mappings of a list."""
    members = _leaf(feature)
    found = next((members[key] for key in keys if key in members), None) if isinstance(members, Mapping) else None
    return _leaf(found)


def _by_number(name: str) -> tuple:
    """Sorts ``class 10`` behind ``class 9``."""
    word, _, number = name.rpartition(' ')
    return (word, int(number), '') if word == 'class' and number.isdecimal() else (name, -1, name)
