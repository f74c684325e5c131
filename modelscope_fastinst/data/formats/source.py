"""What every format becomes: COCO content that remembers where each of its items came from."""
from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from modelscope_fastinst.data.records import DatasetError, DatasetProblem


@dataclass
class Source:
    """A data set, or a split of one, as COCO content.

    Attributes:
        format: one of ``FORMATS``, or ``table``.
        name: what to call it in messages: its folder, annotation file or table.
        content: ``images``, ``annotations`` and ``categories`` as in a COCO file. Of other formats than COCO, ids count
            from 1; of COCO, they and everything else are as the file has them, unchecked.
        image_dir: the folder that ``file_name`` is relative to.
        origins: of each annotation, by id, where it came from: ``'photos/IMG_3.json: shape 2'``. One without an origin
            is in the file ``name``, under its own id.
        image_origins: the same for images, by id: ``'photos/IMG_3.json: image'``.
        problems: what the reader had to leave out.
        notes: what a user may want to know and is no fault, one sentence each.
        split: which split this is; None for all there is.
        splits: the splits that the data set has by itself.
        open_image: gives image i of ``content['images']`` (uint8 ``H x W x 3``, RGB), where pictures are not, or not
            all, files in ``image_dir``; else None.
        observed_classes: the class names are those that were met in the annotations, for nothing lists them; a class
            may then have no object, and so be missing, in a part of the data.
    """
    format: str
    name: str
    content: dict[str, Any]
    image_dir: str
    origins: dict[Any, str] = field(default_factory=dict)
    image_origins: dict[Any, str] = field(default_factory=dict)
    problems: list[DatasetProblem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    split: str | None = None
    splits: tuple[str, ...] = ()
    open_image: Callable[[int], np.ndarray] | None = None
    observed_classes: bool = False

    @property
    def classes(self) -> list[str]:
        """The names of the categories in the order of the content."""
        return [category['name'] for category in self.content['categories']]

    def has_split(self, name: str) -> bool:
        """Whether the data set itself says which images belong to this split."""
        return name in self.splits

    def origin(self, annotation_id: Any) -> tuple[str, str]:
        """(file, item) of an annotation, for a ``DatasetProblem``."""
        return place(self.origins.get(annotation_id), self.name, f'annotation {annotation_id}')

    def image_origin(self, image_id: Any) -> tuple[str, str]:
        """(file, item) of an image, for a ``DatasetProblem``."""
        return place(self.image_origins.get(image_id), self.name, f'image {image_id}')

    def image_path(self, index: int) -> str:
        """Where image ``index`` of the content lies; with ``open_image``, possibly only where it would."""
        return os.path.join(self.image_dir, self.content['images'][index]['file_name'])

    def keep_images(self, wanted: Callable[[Mapping], bool]) -> Source:
        """The part of it with the images (entries of ``content['images']``) that are wanted, and their annotations."""
        images = self.content['images']
        indices = [index for index, image in enumerate(images) if wanted(image)]
        ids = {images[index].get('id') for index in indices if isinstance(images[index], Mapping)}
        known = {image.get('id') for image in images if isinstance(image, Mapping)}
        annotations = [one for one in self.content['annotations']
                       if not isinstance(one, Mapping) or one.get('image_id') in ids
                       or one.get('image_id') not in known]    # faulty ones stay, for the reader to report
        opener = None if self.open_image is None else Chosen(self.open_image, indices)
        return replace(self, content={**self.content, 'images': [images[index] for index in indices],
                                      'annotations': annotations}, open_image=opener)

    def keep_classes(self, classes: Sequence[str]) -> Source:
        """The part of it with objects of these classes, which are numbered in this order.

        Raises:
            DatasetError: a class that the data set does not have.
        """
        found = {one['name']: one for one in self.content['categories']
                 if isinstance(one, Mapping) and isinstance(one.get('name'), str)}
        unknown = [name for name in classes if name not in found]
        if unknown:
            raise DatasetError(f'{self.name}: has no classes {unknown}; it has {sorted(found)}')
        categories = [{**found[name], 'id': number} for number, name in enumerate(classes, 1)]
        number_of = {found[name]['id']: number for number, name in enumerate(classes, 1)}
        dropped = {one.get('id') for one in found.values()} - set(number_of)
        annotations = [{**one, 'category_id': number_of[one['category_id']]}
                       if isinstance(one, Mapping) and one.get('category_id') in number_of else one
                       for one in self.content['annotations']
                       if not isinstance(one, Mapping) or one.get('category_id') not in dropped]
        return replace(self, content={**self.content, 'categories': categories, 'annotations': annotations})

    def add_classes(self, classes: Iterable[str]) -> None:
        """Adds the classes that are not there; for a part of a data set with ``observed_classes``."""
        categories = self.content['categories']
        for name in classes:
            if name not in self.classes:
                categories.append({'id': 1 + max((one['id'] for one in categories), default=0), 'name': name})


@dataclass
class Chosen:
    """Opens images by their place among those chosen."""
    opener: Callable[[int], np.ndarray]
    indices: list[int]

    def __call__(self, index: int) -> np.ndarray:
        return self.opener(self.indices[index])


def place(origin: str | None, file: str, item: str) -> tuple[str, str]:
    """The (file, item) that an origin names, or the given ones where there is none."""
    if origin is None:
        return file, item
    named, _, what = origin.rpartition(': ')
    return (named, what) if named else (file, origin)


def problem_of(file: str, item: str, error: str | Exception) -> DatasetProblem:
    """What an error, or a message, says of an item; the file is not named again in the message."""
    return DatasetProblem(file, item, str(error).removeprefix(f'{file}: '), getattr(error, 'code', ''))


class Collector:
    """Builds a Source image by image, object by object.

    Args:
        format: of the source.
        root: the folder of the data set; image files are named relative to it.
        classes: the names of the classes, in order; they get the category ids 1..
    """

    def __init__(self, format: str, root: str, classes: Iterable[str]) -> None:
        classes = list(classes)
        self.source = Source(format, root, {
            'images': [], 'annotations': [],
            'categories': [{'id': number, 'name': name} for number, name in enumerate(classes, 1)]}, root)
        self._number_of = {name: number for number, name in enumerate(classes, 1)}

    def image(self, path: str, size: tuple[int, int], origin: str) -> int:
        """Adds an image of (height, width) pixels; ``origin`` is ``'file: item'``. -> its id"""
        images = self.source.content['images']
        images.append({'id': len(images) + 1, 'file_name': os.path.relpath(path, self.source.image_dir).replace(
            os.sep, '/'), 'height': int(size[0]), 'width': int(size[1])})
        self.source.image_origins[len(images)] = origin
        return len(images)

    def object(self, image_id: int, name: str, segmentation: list | dict, origin: str, crowd: bool = False,
               **more: Any) -> None:
        """Adds an object of the class ``name`` to an image; ``segmentation`` is COCO's."""
        annotations = self.source.content['annotations']
        annotations.append({'id': len(annotations) + 1, 'image_id': image_id, 'category_id': self._number_of[name],
                            'segmentation': segmentation, 'iscrowd': int(crowd), **more})
        self.source.origins[len(annotations)] = origin

    def problem(self, file: str, item: str, error: str | Exception) -> None:
        """Notes something that had to be left out, and why."""
        self.source.problems.append(problem_of(file, item, error))
