"""What every data set of maps becomes: files, class names, and a way to read the maps one by one."""
from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from modelscope_fastinst.data.maps.label_map import LabelMap
from modelscope_fastinst.data.records import DatasetError, DatasetProblem


class MapReader(Protocol):
    """Reads the map of an image.

    Called with the image's place and a list, to which it adds (code, message) of what is wrong with single segments or
    values, taking such pixels as void. Raises ``MapError`` where the whole map cannot be used.
    """

    def __call__(self, index: int, faults: list[tuple[str, str]]) -> LabelMap: ...


@dataclass
class MapSource:
    """Images with maps of their segments or classes. N images.

    Attributes:
        format: one of ``MAP_FORMATS``, or 'files'.
        name: what to call it in messages: its annotation file or folder.
        classes: names of the classes in the order of the indices of ``LabelMap.labels``.
        things: the names of those that count objects; None where the maps know classes only.
        image_files, map_files: paths, per image.
        image_ids: per image, the data set's own.
        sizes: (height, width) in pixels per image; None where nothing but the pictures says.
        reader: see ``MapReader``.
        labelled: per image, whether it is known to have a segment; None where only the maps say.
        item: what to call image i in messages, as in 'image 4711'.
        problems: what had to be left out.
        notes: what a user may want to know, one sentence each.
        split, splits: see ``formats.Source``.
    """
    format: str
    name: str
    classes: list[str]
    things: list[str] | None
    image_files: list[str]
    map_files: list[str]
    image_ids: list[Any]
    reader: MapReader
    sizes: list[tuple[int, int]] | None = None
    labelled: Sequence[bool] | None = None
    problems: list[DatasetProblem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    split: str | None = None
    splits: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.image_files)

    def keep(self, indices: Sequence[int]) -> MapSource:
        """The part of it with these images."""
        indices = [int(index) for index in indices]

        def chosen(values: Any) -> Any:
            return None if values is None else [values[index] for index in indices]

        return replace(self, image_files=chosen(self.image_files), map_files=chosen(self.map_files),
                       image_ids=chosen(self.image_ids), sizes=chosen(self.sizes), labelled=chosen(self.labelled),
                       reader=Chosen(self.reader, indices))

    def without_missing_files(self) -> MapSource:
        """The part of it whose pictures and maps are there; the others are noted in ``problems``."""
        is_there = _listing()
        kept: list[int] = []
        problems = list(self.problems)
        for index in range(len(self)):
            faults = [(code, f'{file}: no such {what} file') for code, what, file in (
                ('missing-image', 'image', self.image_files[index]), ('missing-map', 'map', self.map_files[index]))
                if not is_there(file)]
            problems += [self.problem(index, *fault) for fault in faults]
            if not faults:
                kept.append(index)
        return replace(self if len(kept) == len(self) else self.keep(kept), problems=problems)

    def problem(self, index: int, code: str, message: str) -> DatasetProblem:
        """Something that is wrong with an image or its map."""
        return DatasetProblem(self.name, f'image {self.image_ids[index]}', message, code)

    def label_of(self, classes: Sequence[str]) -> list[int]:
        """By class index here the index in ``classes``, -1 for the others.

        Raises:
            DatasetError: a class that the data set does not have.
        """
        unknown = [name for name in classes if name not in self.classes]
        if unknown or len(set(classes)) < len(classes):
            raise DatasetError(f'{self.name}: has no classes {unknown}; it has {sorted(self.classes)}' if unknown else
                               f'{self.name}: classes names one twice: {list(classes)}')
        number = {name: index for index, name in enumerate(classes)}
        return [number.get(name, -1) for name in self.classes]


@dataclass
class Chosen:
    """Reads the maps of the chosen images by their place among them."""
    reader: MapReader
    indices: list[int]

    def __call__(self, index: int, faults: list[tuple[str, str]]) -> LabelMap:
        return self.reader(self.indices[index], faults)


def joined(parts: Sequence[MapSource], name: str) -> MapSource:
    """Several splits as one; they have the same classes."""
    first = parts[0]
    if len(parts) == 1:
        return first
    places = [(part, index) for part in parts for index in range(len(part))]
    return replace(
        first, name=name, image_files=[part.image_files[i] for part, i in places],
        map_files=[part.map_files[i] for part, i in places],
        image_ids=[f'{part.split}/{part.image_ids[i]}' for part, i in places],
        sizes=None if any(part.sizes is None for part in parts) else [part.sizes[i] for part, i in places],
        labelled=None if any(part.labelled is None for part in parts) else [part.labelled[i] for part, i in places],
        reader=_Joined(parts), problems=[one for part in parts for one in part.problems],
        notes=list(dict.fromkeys(note for part in parts for note in part.notes)))


class _Joined:
    def __init__(self, parts: Sequence[MapSource]) -> None:
        self.places = [(number, index) for number, part in enumerate(parts) for index in range(len(part))]
        self.readers = [part.reader for part in parts]

    def __call__(self, index: int, faults: list[tuple[str, str]]) -> LabelMap:
        number, place = self.places[index]
        return self.readers[number](place, faults)


def _listing() -> Callable[[str], bool]:
    """Tells whether files exist; lists every folder once."""
    folders: dict[str, set[str]] = {}

    def is_there(file: str) -> bool:
        folder, name = os.path.split(file)
        if folder not in folders:
            folders[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
        return name in folders[folder]

    return is_there
