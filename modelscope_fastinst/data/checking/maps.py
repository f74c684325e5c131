"""The check of panoptic and semantic data: every map and every picture is looked at once."""
from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from modelscope_fastinst.data.checking.findings import KINDS, SEVERITIES, Finding
from modelscope_fastinst.data.checking.pictures import Picture, read_pictures
from modelscope_fastinst.data.checking.report import Spread
from modelscope_fastinst.data.image import ImageError
from modelscope_fastinst.data.maps import MapSource
from modelscope_fastinst.data.maps.label_map import LabelMap
from modelscope_fastinst.data.records import DatasetProblem

_LISTED = 10
_MANY_VOID = 0.5   # share of an image's pixels without a class from which on it is remarked


@dataclass
class MapClass:
    """Of a class: segments that are learned from (one an image of stuff), crowd regions, images with it, pixels."""
    segments: int = 0
    crowds: int = 0
    images: int = 0
    pixels: int = 0


@dataclass
class MapSplit:
    """The figures of a split.

    Attributes:
        name, file: as in ``report.SplitSummary``.
        images: whose maps could be read.
        heights, widths: in pixels.
        segments: of an image: objects and regions of stuff; of semantic data, classes.
        void: share of all pixels that have no class, 0..1.
        crowd: share of all pixels in crowd regions.
        classes: by name.
    """
    name: str
    file: str
    images: int
    heights: Spread
    widths: Spread
    segments: Spread
    void: float
    crowd: float
    classes: dict[str, MapClass]


@dataclass
class MapReport:
    """All that a check of maps found; see ``report.Report``.

    Attributes:
        task: 'panoptic' or 'semantic', what the maps were checked for.
        num_queries: of the model that it was checked for.
    """
    format: str
    name: str
    task: str
    num_queries: int
    splits: list[MapSplit]
    findings: list[Finding]
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        order = {code: number for number, code in enumerate(KINDS)}
        self.findings.sort(key=lambda finding: order[finding.code])

    def count(self, severity: str) -> int:
        """How many findings of this severity there are."""
        return sum(finding.severity == severity for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Everything, as what JSON can hold."""
        return {'format': self.format, 'name': self.name, 'task': self.task, 'num_queries': self.num_queries,
                'counts': {severity: self.count(severity) for severity in SEVERITIES},
                'codes': dict(Counter(finding.code for finding in self.findings)),
                'splits': [asdict(split) for split in self.splits], 'notes': self.notes,
                'findings': [finding.to_json() for finding in self.findings]}


def check_maps(sources: Mapping[str, MapSource], task: str, *, num_queries: int = 100, name: str | None = None,
               threads: int | None = None, progress: Callable[[str, int, int], None] | None = None) -> MapReport:
    """Looks for all that may be wrong with panoptic or semantic data.

    Args:
        sources: by the name of the split, as ``check.check_data`` has them.
        task: 'panoptic' or 'semantic'.
        num_queries: of the model that is to be trained; more segments than that in an image cannot all be found.
        name, threads, progress: see ``check.check_data``.

    Raises:
        ValueError: no split.
    """
    if not sources:
        raise ValueError('there is no split to check')
    parts = [_Part(split, source, task) for split, source in sources.items()]
    for part in parts:
        part.check(num_queries, threads, progress)
    findings = [finding for part in parts for finding in part.findings]
    first = next(iter(sources.values()))
    where = first.name if name is None else name
    return MapReport(first.format, where, task, num_queries, [part.summary() for part in parts],
                     [*findings, *_copies(parts), *_classes(parts, where)],
                     list(dict.fromkeys(note for source in sources.values() for note in source.notes)))


class _Part:
    """A split while it is checked; of an image only figures and a hash stay in memory."""

    def __init__(self, name: str, source: MapSource, task: str) -> None:
        self.name, self.task, self.whole = name, task, source
        self.source = source.without_missing_files()
        self.findings = [self._finding(problem) for problem in self.source.problems]
        self.pictures: list[Picture] = []
        self.sizes: list[tuple[int, int]] = []
        self.counts: list[int] = []
        self.classes = {one: MapClass() for one in source.classes}
        self.void = self.crowd = 0

    def check(self, num_queries: int, threads: int | None, progress: Callable[[str, int, int], None] | None) -> None:
        source = self.source
        for index, picture in enumerate(read_pictures(source.image_files, None, threads)):
            self.pictures.append(picture)
            if picture.error:
                self._note(index, 'unreadable-image', f'{source.image_files[index]}: {picture.error}')
            found = self._map(index)
            if found is not None:
                self._count(index, found, num_queries)
                if not picture.error and found.size not in (picture.upright, picture.stored):
                    self._note(index, 'size-mismatch', f'{source.map_files[index]}: is {_size(found.size)} pixels '
                                                       f'(width x height), its image {_size(picture.upright)}')
            if progress is not None:
                progress(self.name, index + 1, len(source))

    def _map(self, index: int) -> LabelMap | None:
        faults: list[tuple[str, str]] = []
        found = None
        try:
            found = self.source.reader(index, faults)
        except ImageError as error:
            self._note(index, error.code, str(error))
        for fault in faults:
            self._note(index, *fault)
        return found

    def _count(self, index: int, found: LabelMap, num_queries: int) -> None:
        areas = np.bincount(found.places.ravel() + 1, minlength=len(found.numbers) + 1)
        void, areas = int(areas[0]), areas[1:]
        self.sizes.append(found.size)
        self.void += void
        self.crowd += int(areas[found.crowds].sum())
        used = areas > 0
        for label in np.unique(found.labels[used]).tolist():
            one, inside = self.classes[self.source.classes[label]], used & (found.labels == label)
            learned = int((inside & ~found.crowds).sum())
            one.segments += learned if self.task == 'panoptic' else 1
            one.crowds += int((inside & found.crowds).sum())
            one.images += 1
            one.pixels += int(areas[inside].sum())
            name = self.source.classes[label]
            if learned > 1 and self.task == 'panoptic' and name not in (self.source.things or ()):
                self._note(index, 'stuff-in-parts', f'{learned} segments of {name!r}, which is stuff')
        count = int((used & ~found.crowds).sum()) if self.task == 'panoptic' else len(np.unique(found.labels[used]))
        self.counts.append(count)
        if count > num_queries:
            self._note(index, 'too-many-objects', f'{count} segments, {num_queries} queries')
        if not count:
            self._note(index, 'empty-image', 'every pixel is void, or in a crowd region')
        elif void > _MANY_VOID * found.places.size:
            self._note(index, 'much-void', f'{void / found.places.size:.0%} of the pixels have no class')

    def _note(self, index: int, code: str, message: str) -> None:
        self.findings.append(self._finding(self.source.problem(index, code, message), self.source.image_files[index]))

    def _finding(self, problem: DatasetProblem, image: str = '') -> Finding:
        return Finding(problem.code or 'bad-record', self.name, problem.file, problem.item, problem.message,
                       os.path.basename(image))

    def summary(self) -> MapSplit:
        pixels = max(sum(height * width for height, width in self.sizes), 1)
        return MapSplit(self.name, self.source.name, len(self.sizes), Spread.of([size[0] for size in self.sizes]),
                        Spread.of([size[1] for size in self.sizes]), Spread.of(self.counts), self.void / pixels,
                        self.crowd / pixels, self.classes)

    def copy(self, code: str, index: int, message: str) -> Finding:
        """A finding about a picture that is there twice."""
        return self._finding(self.source.problem(index, code, message), self.source.image_files[index])


def _copies(parts: list[_Part]) -> list[Finding]:
    """Pictures with the same pixels, in a split and across splits."""
    first: dict[bytes, tuple[_Part, int]] = {}
    found = []
    for part in parts:
        for index, picture in enumerate(part.pictures):
            if picture.error:
                continue
            other, number = first.setdefault(picture.content, (part, index))
            if (other, number) != (part, index):
                code = 'image-twice' if other is part else 'leakage'
                where = '' if other is part else f' of the {other.name} split'
                message = f'the same picture as image {other.source.image_ids[number]}{where}'
                found.append(part.copy(code, index, message))
    return found


def _classes(parts: list[_Part], name: str) -> list[Finding]:
    """Classes without a pixel, and those of one split only."""
    counts = {part.name: {one: figures.images for one, figures in part.classes.items()} for part in parts}
    found = []
    names = list(dict.fromkeys(one for part in parts for one in part.classes))
    unused = [one for one in names if not any(split.get(one) for split in counts.values())]
    if unused:   # in one, for a part of a published data set lacks a hundred
        shown = ', '.join(unused[:_LISTED]) + (', ...' if len(unused) > _LISTED else '')
        found.append(Finding('unused-class', '', name, 'classes', f'{len(unused)} of {len(names)}: no pixel is of '
                                                                  f'{shown}'))
    for one in names:
        learned, measured = counts.get('train', {}).get(one, 0), counts.get('val', {}).get(one, 0)
        if {'train', 'val'} <= counts.keys() and bool(learned) != bool(measured):
            code, split = ('class-only-in-train', 'train') if learned else ('class-only-in-val', 'val')
            found.append(Finding(code, split, name, f'class {one!r}', f'in {learned} training and {measured} '
                                                                      'validation images'))
    return found


def _size(size: tuple[int, int]) -> str:
    return f'{size[1]} x {size[0]}'
