"""COCO instance segmentation as a torch data set."""
from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from modelscope_fastinst.data.augment import to_tensor
from modelscope_fastinst.data.formats.source import Chosen, Source, place
from modelscope_fastinst.data.geometry import Plan
from modelscope_fastinst.data.image import ImageError, image_size, read_annotated
from modelscope_fastinst.data.records import DatasetError, DatasetProblem, list_problems, read_records
from modelscope_fastinst.data.segmentation import draw
from modelscope_fastinst.structures import Sample, Target

__all__ = ['CocoInstances', 'DatasetError', 'DatasetProblem']

logger = logging.getLogger(__name__)


class CocoInstances(Dataset):
    """Images with outlined objects, from a COCO annotation file; images and masks are decoded when a sample is drawn.

    The whole annotation file is checked at construction, which decodes nothing: ids that are unknown or used twice,
    missing keys, polygons and run-length encodings that cannot be drawn, image files that are not there.

    Args:
        annotation_file: the JSON file (or its content, a mapping).
        image_dir: the folder that ``file_name`` is relative to.
        classes: names of the classes to keep, in the order in which they are to be numbered; None for all of the file's
            categories, by ascending id. Annotations of other classes are left out.
        transform: ``InferenceTransform``, ``TrainTransform``, or any ``Sample -> Sample``.
        skip_empty: leave out images without an object to learn from (crowd regions are none). For training; evaluation
            needs every image.
        on_problem: with bad items, ``raise`` a DatasetError that lists them, or ``skip`` them: they are left out,
            logged and noted in ``problems``. An image that turns out to be damaged when it is drawn is then replaced
            by the next one, logged and noted too (by a worker process, in its own copy of ``problems``).
        outside_tolerance: how far outside of its image a polygon may reach, in pixels, before it is taken for an error;
            what is outside is never drawn. Half a pixel is normal where tools count from pixel centres.
        with_targets: give ``Sample.target``; evaluation does not need it.
        with_annotations: give ``Sample.annotations``; training does not need it.
        check_images: also open every image file's header at construction, and compare the sizes.

    Attributes:
        classes: the names of the classes, in the order of their indices.
        category_ids: the annotation file's ids of these classes.
        image_ids: the annotation file's ids of the images, in the order of the samples.
        sizes: (height, width) in pixels of each sample's image as stored, without reading it.
        problems: the bad items that were left out, ``DatasetProblem``.

    Raises:
        DatasetError: for bad items (see ``on_problem``), and where nothing is left to use.
    """

    def __init__(self, annotation_file: str | os.PathLike | Mapping, image_dir: str | os.PathLike,
                 classes: Sequence[str] | None = None, transform: Callable[[Sample], Sample] | None = None,
                 skip_empty: bool = True, on_problem: str = 'raise', *, outside_tolerance: float = 1.0,
                 with_targets: bool = True, with_annotations: bool = True, check_images: bool = False) -> None:
        self._open(annotation_file, image_dir, classes, transform, skip_empty, on_problem, outside_tolerance,
                   with_targets, with_annotations, check_images)

    @classmethod
    def from_source(cls, source: Source, classes: Sequence[str] | None = None,
                    transform: Callable[[Sample], Sample] | None = None, skip_empty: bool = True,
                    on_problem: str = 'raise', *, outside_tolerance: float = 1.0, with_targets: bool = True,
                    with_annotations: bool = True, check_images: bool = False, take_apart: bool = False,
                    ) -> CocoInstances:
        """The data set of a ``formats.Source``; messages name the user's own files and items.

        Args:
            source: what ``formats.read_source`` or ``formats.table_source`` gave.
            take_apart: empty the source's content on the way, which saves memory.

        The other arguments, and what is raised, are those of the class.
        """
        self = cls.__new__(cls)
        self._open(source.content, source.image_dir, classes, transform, skip_empty, on_problem, outside_tolerance,
                   with_targets, with_annotations, check_images, source, take_apart)
        return self

    def _open(self, annotations: str | os.PathLike | Mapping, image_dir: str | os.PathLike,
              classes: Sequence[str] | None, transform: Callable[[Sample], Sample] | None, skip_empty: bool,
              on_problem: str, outside_tolerance: float, with_targets: bool, with_annotations: bool,
              check_images: bool, source: Source | None = None, take_apart: bool = False) -> None:
        if on_problem not in ('raise', 'skip'):
            raise ValueError(f"on_problem must be 'raise' or 'skip', got {on_problem!r}")
        self.image_dir = os.fspath(image_dir)
        self.transform = transform
        self.on_problem = on_problem
        self.with_targets, self.with_annotations = with_targets, with_annotations
        self._image_origins = source.image_origins if source is not None else {}
        opener = source.open_image if source is not None else None
        if opener is None and not os.path.isdir(self.image_dir):
            raise DatasetError(f'{self.image_dir}: no such image folder')
        if source is None:
            self._records = records = read_records(annotations, classes, outside_tolerance)
        else:
            places = {'annotation': source.origin, 'image': source.image_origin}
            self._records = records = read_records(
                annotations, classes, outside_tolerance, name=source.name,
                place=lambda kind, one: places[kind](one), take_apart=take_apart)
            records.problems[:0] = source.problems
        self._opener = None
        if opener is not None:   # by id: images that could not be used are no longer among the records
            place_of = {image['id']: index for index, image in enumerate(source.content['images'])}
            self._opener = Chosen(opener, [place_of[one] for one in records.image_ids])
        self.problems = records.problems
        good = self._present_images(check_images) if opener is None else np.ones(len(records.image_ids), bool)
        if self.problems:
            self._report()
        objects = np.add.reduceat(np.append(~records.crowds, False), records.starts[:-1]) \
            if len(records.image_ids) else np.zeros(0)
        objects[records.starts[:-1] == records.starts[1:]] = 0  # reduceat gives an empty range its next element
        self._indices = np.flatnonzero(good & (objects > 0 if skip_empty else True))
        if not len(self._indices):
            reason = 'annotated object' if skip_empty and good.any() else 'image'
            raise DatasetError(f'{records.file}: nothing to use: {len(records.image_ids)} images, none with an '
                               f'{reason} of the classes {records.classes}', self.problems)

    @property
    def classes(self) -> list[str]:
        return self._records.classes

    @property
    def category_ids(self) -> list:
        return self._records.category_ids

    @property
    def image_ids(self) -> list:
        return [self._records.image_ids[index] for index in self._indices]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        return [tuple(size) for size in self._records.sizes[self._indices].tolist()]

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        """Reads, draws and transforms one sample.

        Raises:
            DatasetError: for an image that is damaged or of another size than the annotation file says, naming it.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f'{self._records.file}: sample {index} of {len(self)}')
        if self.on_problem == 'raise':
            return self._draw(int(self._indices[index]))
        for attempt in range(len(self)):
            image = int(self._indices[(index + attempt) % len(self)])
            try:
                return self._draw(image)
            except DatasetError as error:
                self._note(error.problems)
        raise DatasetError(f'{self._records.file}: not one image can be read', self.problems)

    def annotations(self, index: int) -> list[dict]:
        """The ground truth of a sample, crowds included, as in ``Sample.annotations``; does not read the image."""
        return self._records.annotations(int(self._indices[index]))

    def _draw(self, image: int) -> Sample:
        records = self._records
        pixels = self._read(image)
        height, width = pixels.shape[:2]
        plan = self.transform.plan(height, width) if hasattr(self.transform, 'plan') else Plan(height, width)
        target = None
        if self.with_targets:
            objects = [index for index in range(records.starts[image], records.starts[image + 1])
                       if not records.crowds[index]]
            masks = draw([records.segmentation(index) for index in objects], plan)
            target = Target(torch.from_numpy(records.labels[objects]), torch.from_numpy(masks))
        sample = Sample(to_tensor(plan.image(pixels)), target, records.image_ids[image], self._path(image),
                        (height, width), records.annotations(image) if self.with_annotations else [])
        if hasattr(self.transform, 'plan'):
            return self.transform.finish(sample)
        return sample if self.transform is None else self.transform(sample)

    def _read(self, image: int) -> np.ndarray:
        """The image as its annotations see it, uint8 ``H x W x 3`` RGB."""
        path, size = self._path(image), tuple(self._records.sizes[image].tolist())
        try:
            pixels = read_annotated(path, size) if self._opener is None else self._opener(image)
        except ImageError as error:
            raise self._error(image, error) from error
        if pixels.shape[:2] != size:
            raise self._error(image, self._size_fault(path, pixels.shape[:2], size))
        return pixels

    def _path(self, image: int) -> str:
        return os.path.join(self.image_dir, self._records.file_names[image])

    def _present_images(self, check_headers: bool) -> np.ndarray:
        """-> bool ``[N]``: the image's file is there, and as large as it should be if that is to be checked."""
        folders: dict[str, set[str]] = {}
        good = np.ones(len(self._records.image_ids), bool)
        for image in range(len(good)):
            path = self._path(image)
            folder, name = os.path.split(path)
            if folder not in folders:
                folders[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
            fault = None if name in folders[folder] else ImageError(f'{path}: no such image file', 'missing-image')
            if fault is None and check_headers:
                fault = self._header_fault(path, tuple(self._records.sizes[image].tolist()))
            if fault is not None:
                good[image] = False
                self.problems.append(self._problem(image, fault))
        return good

    def _header_fault(self, path: str, size: tuple[int, int]) -> ImageError | None:
        try:
            stored, upright = image_size(path)
        except ImageError as error:
            return error
        return None if size in (stored, upright) else self._size_fault(path, upright, size)

    @staticmethod
    def _size_fault(path: str, actual: Iterable[int], expected: Iterable[int]) -> ImageError:
        (height, width), (other_height, other_width) = actual, expected
        return ImageError(f'{path}: is {width} x {height} pixels (width x height), the annotation file says '
                          f'{other_width} x {other_height}', 'size-mismatch')

    def _problem(self, image: int, fault: ImageError) -> DatasetProblem:
        image_id = self._records.image_ids[image]
        return DatasetProblem(*place(self._image_origins.get(image_id), self._records.file, f'image {image_id}'),
                              str(fault), fault.code)

    def _error(self, image: int, fault: ImageError) -> DatasetError:
        problem = self._problem(image, fault)
        return DatasetError(f"{problem}; correct or remove it, or pass on_problem='skip' (--skip-bad)", [problem])

    def _note(self, problems: list[DatasetProblem]) -> None:
        for problem in problems:
            if problem not in self.problems:
                self.problems.append(problem)
                logger.warning('skipped: %s; the next image takes its place', problem)

    def _report(self) -> None:
        count = len(self.problems)
        bad = f'{count} bad item{"s" if count > 1 else ""}'
        if self.on_problem == 'raise':
            raise DatasetError(f'{self._records.file}: {bad}:\n{list_problems(self.problems)}\n'
                               f"Correct them, or leave them out with on_problem='skip' (--skip-bad).", self.problems)
        logger.warning('%s: %s skipped:\n%s', self._records.file, bad, list_problems(self.problems))
