"""One split of a data set while it is checked: its records, and where each of them came from."""
from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from modelscope_fastinst.data.checking.findings import Finding
from modelscope_fastinst.data.checking.pictures import Picture
from modelscope_fastinst.data.formats.source import Chosen, Source
from modelscope_fastinst.data.records import Records, read_records


class Part:
    """A split: the source's records and what was found in them.

    Args:
        name: 'train', 'val' or 'all'.
        source: where it is.

    Attributes:
        records: all that can be used; what cannot is in ``findings`` already.
        pictures: one an image, once they were decoded.
        open_image: gives image i of the records, where the pictures are not files; else None.

    Raises:
        DatasetError: where there is nothing to go on with: no images, or no categories.
    """

    def __init__(self, name: str, source: Source) -> None:
        self.name, self.source = name, source
        places = {'annotation': source.origin, 'image': source.image_origin}
        self.records: Records = read_records(source.content, name=source.name,
                                             place=lambda kind, one: places[kind](one))
        self.pictures: list[Picture] = []
        self.findings: list[Finding] = []
        self.open_image: Callable[[int], np.ndarray] | None = None
        if source.open_image is not None:   # it counts all images of the content, also those that cannot be used
            place_of = {image['id']: index for index, image in enumerate(source.content['images'])
                        if isinstance(image, Mapping) and 'id' in image}
            self.open_image = Chosen(source.open_image, [place_of[one] for one in self.records.image_ids])
        problems = list(dict.fromkeys([*source.problems, *self.records.problems]))
        names = self._image_names({(problem.file, problem.item) for problem in problems})
        for problem in problems:
            self.findings.append(Finding(problem.code or 'bad-record', name, problem.file, problem.item,
                                         problem.message, names.get((problem.file, problem.item), '')))

    def __len__(self) -> int:
        return len(self.records.image_ids)

    def path(self, image: int) -> str:
        """The file of an image."""
        return os.path.join(self.source.image_dir, self.records.file_names[image])

    def at_object(self, code: str, image: int, index: int, message: str) -> None:
        """Notes something about annotation ``index``, which is in this image."""
        self._note(code, image, *self.source.origin(_plain(self.records.ids[index])), message)

    def at_image(self, code: str, image: int, message: str) -> None:
        """Notes something about an image's record, or about what is drawn in it."""
        self._note(code, image, *self.source.image_origin(self.records.image_ids[image]), message)

    def at_picture(self, code: str, image: int, message: str) -> None:
        """Notes something about an image's file."""
        item = self.source.image_origin(self.records.image_ids[image])[1]
        self._note(code, image, self.path(image), item, message)

    def at_class(self, code: str, name: str, message: str) -> None:
        """Notes something about a class."""
        self.findings.append(Finding(code, self.name, self.source.name, f'category {name!r}', message))

    def object_name(self, index: int) -> str:
        """What to call annotation ``index`` in a message about another one of its image."""
        return self.source.origin(_plain(self.records.ids[index]))[1]

    def image_name(self, image: int) -> str:
        """What to call an image in a message about another."""
        name, one = self.records.file_names[image], self.records.image_ids[image]
        return name if one in self.source.image_origins else f'{name} (image {one})'

    def _note(self, code: str, image: int, file: str, item: str, message: str) -> None:
        self.findings.append(Finding(code, self.name, file, item, message, self.records.file_names[image]))

    def _image_names(self, wanted: set[tuple[str, str]]) -> dict[tuple[str, str], str]:
        """(file, item) of a broken annotation or image -> the image's file name, as far as the content says it."""
        if not wanted:
            return {}
        content = self.source.content
        names = {one: image.get('file_name') for one, image in _with_ids(content['images'])}
        found = {self.source.image_origin(one): name for one, name in names.items()}
        for one, annotation in _with_ids(content['annotations']):
            place = self.source.origin(one)
            if place in wanted and isinstance(annotation.get('image_id'), (int, str)):
                found[place] = names.get(annotation['image_id'])
        return {place: name for place, name in found.items() if place in wanted and isinstance(name, str)}


def _with_ids(records: Iterable[Any]) -> Iterable[tuple[int | str, Mapping]]:
    return ((record['id'], record) for record in records
            if isinstance(record, Mapping) and isinstance(record.get('id'), (int, str)))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
