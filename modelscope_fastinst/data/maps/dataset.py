"""Panoptic and semantic segmentation as a torch data set; pictures and maps stay encoded until a sample is drawn."""
from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from modelscope_fastinst.data.geometry import Plan, to_tensor
from modelscope_fastinst.data.image import ImageError, image_size, read_annotated
from modelscope_fastinst.data.maps.label_files import check_map_size
from modelscope_fastinst.data.maps.label_map import LabelMap
from modelscope_fastinst.data.maps.source import MapSource
from modelscope_fastinst.data.records import DatasetError, DatasetProblem, list_problems
from modelscope_fastinst.structures import TASKS, Sample, Target

logger = logging.getLogger(__name__)


class SegmentationMaps(Dataset):
    """Images with maps of their segments or classes.

    What a sample holds follows from ``task``: 'panoptic' one mask a segment and a ``PanopticMap``, 'semantic' one mask
    a class and a ``SemanticMap``, 'instance' one mask an object of a thing class. Void pixels are in no mask, crowd
    regions neither, but for their class in 'semantic'.

    Args:
        source: see ``maps.reading.read_maps``.
        task: one of ``structures.TASKS``; 'panoptic' and 'instance' need a source that knows segments.
        classes: only these, in this order; the pixels of the others become void. None for all (of 'instance': all
            things).
        transform: ``InferenceTransform``, ``TrainTransform``, or any ``Sample -> Sample``.
        skip_empty: leave out images that are known to have nothing to learn from.
        on_problem: with bad items, ``raise`` a DatasetError that lists them, or ``skip`` them: images without their
            files, or with broken ones, are left out, and pixels that mean nothing are void; all is logged and noted in
            ``problems``. An image that turns out to be broken when it is drawn is replaced by the next one.
        with_targets: give ``Sample.target``.
        with_truth: give ``Sample.truth``, and the objects as ``Sample.annotations``.

    Attributes:
        classes: the names of the classes, in the order of their indices.
        things: the names of the thing classes; None where ``task`` is not 'panoptic'.
        image_ids: the data set's own ids, in the order of the samples.
        problems: the bad items that were left out, ``DatasetProblem``.

    Raises:
        DatasetError: for bad items (see ``on_problem``), unknown classes, and where nothing is left to use.
    """

    def __init__(self, source: MapSource, task: str, classes: Sequence[str] | None = None,
                 transform: Callable[[Sample], Sample] | None = None, skip_empty: bool = False,
                 on_problem: str = 'raise', *, with_targets: bool = True, with_truth: bool = True) -> None:
        if on_problem not in ('raise', 'skip'):
            raise ValueError(f"on_problem must be 'raise' or 'skip', got {on_problem!r}")
        if task not in TASKS:
            raise ValueError(f'task is {task!r}; it must be one of {", ".join(TASKS)}')
        if task != 'semantic' and source.things is None:
            raise DatasetError(f'{source.name}: knows the class of each pixel, but no segments; it can be used for '
                               f'model.task "semantic", not for "{task}"')
        if classes is None:
            classes = source.things if task == 'instance' else source.classes
        self.classes = list(classes)
        if not self.classes:
            raise DatasetError(f'{source.name}: none of its classes is a thing, so that it has no instances; set '
                               'model.task (--task) to "panoptic" or "semantic", or isthing of the classes that count '
                               'objects to 1')
        self._label_of = np.array(source.label_of(self.classes), np.int64)
        self.things = [name for name in self.classes if name in source.things] if task == 'panoptic' else None
        self._thing_indices = frozenset(index for index, name in enumerate(self.classes)
                                        if name in (source.things or ()))
        if task == 'instance' and len(self._thing_indices) < len(self.classes):
            stuff = [name for name in self.classes if name not in source.things]
            raise DatasetError(f'{source.name}: {stuff} are stuff, of which there are no instances; leave them out of '
                               'the classes, or set model.task to "panoptic"')
        self.task, self.transform, self.on_problem = task, transform, on_problem
        self.with_targets, self.with_truth = with_targets, with_truth
        self._source = source = source.without_missing_files()
        self.problems: list[DatasetProblem] = source.problems
        if self.problems:
            self._report()
        if skip_empty and source.labelled is not None:
            self._source = source.keep(np.flatnonzero(source.labelled))
        if not len(self._source):
            raise DatasetError(f'{source.name}: nothing to use: no image with '
                               f'{"a segment" if len(source) else "its files"}', self.problems)
        self._sizes = self._source.sizes

    @property
    def image_ids(self) -> list[Any]:
        return self._source.image_ids

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) in pixels of each image; read from the pictures' headers at the first call where nothing else
        says."""
        if self._sizes is None:
            self._sizes = [image_size(file)[1] for file in self._source.image_files]
        return self._sizes

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Sample:
        """Reads, draws and transforms one sample.

        Raises:
            DatasetError: for a picture or map that is damaged, of another size, or whose pixels mean nothing.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f'{self._source.name}: sample {index} of {len(self)}')
        if self.on_problem == 'raise':
            return self._draw(index % len(self))
        for attempt in range(len(self)):
            try:
                return self._draw((index + attempt) % len(self))
            except DatasetError as error:
                self._note(error.problems, 'the next image takes its place')
        raise DatasetError(f'{self._source.name}: not one image can be read', self.problems)

    def read_map(self, index: int) -> LabelMap:
        """The map of a sample with this data set's class indices, at the image's size.

        Raises:
            DatasetError: it cannot be used; with ``on_problem='raise'`` also for pixels that mean nothing.
        """
        faults: list[tuple[str, str]] = []
        source = self._source
        try:
            found = source.reader(index, faults)
            if source.sizes is not None:   # first, for pixels of another picture mean nothing
                check_map_size(source.map_files[index], found.size, f'in {source.name}', source.sizes[index])
        except ImageError as error:
            raise self._error(index, [(error.code, str(error))]) from error
        if faults:
            if self.on_problem == 'raise':
                raise self._error(index, faults)
            self._note([source.problem(index, *fault) for fault in faults], 'these pixels are void')
        return found.relabelled(self._label_of)

    def _draw(self, index: int) -> Sample:
        source = self._source
        found = self.read_map(index)
        pixels = self._read_image(index, found.size)
        height, width = found.size
        planned = hasattr(self.transform, 'plan')
        plan = self._plan(found) if planned else Plan(height, width)
        sample = Sample(to_tensor(plan.image(pixels)), self._target(found, plan) if self.with_targets else None,
                        source.image_ids[index], source.image_files[index], (height, width))
        if self.with_truth:
            if self.task != 'semantic':
                sample.annotations = found.annotations(self._thing_indices)
            if self.task != 'instance':
                sample.truth = found.semantic() if self.task == 'semantic' else found.panoptic(self._thing_indices)
        if planned:
            return self.transform.finish(sample)
        return sample if self.transform is None else self.transform(sample)

    def _plan(self, found: LabelMap) -> Plan:
        return self.transform.plan(*found.size)

    def _target(self, found: LabelMap, plan: Plan) -> Target:
        return found.classes_target(plan) if self.task == 'semantic' else found.segments_target(plan)

    def _read_image(self, index: int, size: tuple[int, int]) -> np.ndarray:
        """The image as its map sees it, uint8 ``H x W x 3`` RGB."""
        source = self._source
        file = source.image_files[index]
        try:
            pixels = read_annotated(file, size)
            check_map_size(source.map_files[index], size, file, pixels.shape[:2])
        except ImageError as error:
            raise self._error(index, [(error.code, str(error))]) from error
        return pixels

    def _error(self, index: int, faults: list[tuple[str, str]]) -> DatasetError:
        problems = [self._source.problem(index, *fault) for fault in faults]
        return DatasetError(f"{list_problems(problems)}; correct it, or pass on_problem='skip' (--skip-bad)", problems)

    def _note(self, problems: list[DatasetProblem], what: str) -> None:
        for problem in problems:
            if problem not in self.problems:
                self.problems.append(problem)
                logger.warning('skipped: %s; %s', problem, what)

    def _report(self) -> None:
        count = len(self.problems)
        bad = f'{count} bad item{"s" if count > 1 else ""}'
        if self.on_problem == 'raise':
            raise DatasetError(f'{self._source.name}: {bad}:\n{list_problems(self.problems)}\n'
                               "Correct them, or leave them out with on_problem='skip' (--skip-bad).", self.problems)
        logger.warning('%s: %s skipped:\n%s', self._source.name, bad, list_problems(self.problems))
