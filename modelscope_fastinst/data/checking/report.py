"""What a check found: figures of each split, findings, and what the data ask of the model."""
from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from modelscope_fastinst.data.checking.findings import KINDS, SEVERITIES, Finding
from modelscope_fastinst.data.checking.part import Part


@dataclass(frozen=True)
class Spread:
    """The least, the middle and the greatest of some numbers; zeros where there are none."""
    least: float
    median: float
    greatest: float

    @classmethod
    def of(cls, values: Sequence[float] | np.ndarray) -> Spread:
        if not len(values):
            return cls(0, 0, 0)
        return cls(float(np.min(values)), float(np.median(values)), float(np.max(values)))

    def __str__(self) -> str:
        return f'{self.least:g} / {self.median:g} / {self.greatest:g}'


@dataclass(frozen=True)
class ClassSummary:
    """Objects, crowd regions and images with an object of a class."""
    objects: int
    crowds: int
    images: int


@dataclass(frozen=True)
class SplitSummary:
    """The figures of a split.

    Attributes:
        name: 'train', 'val' or 'all'.
        file: the annotation file or folder.
        images, objects, crowds: how many there are.
        empty: images without an object.
        heights, widths: in pixels.
        objects_per_image: over all images, the empty ones too.
        object_sides: square roots of the objects' areas in pixels at the network's input size.
        coverage: mean share of an image that belongs to objects, 0..1, over the images that have some.
        classes: by name.
    """
    name: str
    file: str
    images: int
    objects: int
    crowds: int
    empty: int
    heights: Spread
    widths: Spread
    objects_per_image: Spread
    object_sides: Spread
    coverage: float
    classes: dict[str, ClassSummary]


@dataclass(frozen=True)
class Advice:
    """What the data ask for that the model does not have.

    Attributes:
        setting: the key in the configuration.
        value: the value to give it; None where no value mends it.
        reason: why, in a sentence.
    """
    setting: str
    value: Any
    reason: str


@dataclass
class Report:
    """All that a check found.

    Attributes:
        format: of the data set, as ``data.formats`` calls it.
        name: its folder or file.
        num_queries, min_size, max_size: of the model that it was checked for.
        splits: their figures.
        findings: in the order of ``KINDS``, then of the splits and their files.
        advice: settings that would suit the data better.
        notes: what the reader of the format remarked.
        parts: the splits' records and pictures, to draw samples of them.
    """
    format: str
    name: str
    num_queries: int
    min_size: int
    max_size: int | None
    splits: list[SplitSummary]
    findings: list[Finding]
    advice: list[Advice] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        order = {code: number for number, code in enumerate(KINDS)}
        self.findings.sort(key=lambda finding: order[finding.code])   # stable: within a kind as they were found

    def count(self, severity: str) -> int:
        """How many findings of this severity there are."""
        return sum(finding.severity == severity for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Everything, as what JSON can hold."""
        return {'format': self.format, 'name': self.name, 'num_queries': self.num_queries, 'min_size': self.min_size,
                'max_size': self.max_size, 'counts': {severity: self.count(severity) for severity in SEVERITIES},
                'codes': dict(Counter(finding.code for finding in self.findings)),
                'splits': [asdict(split) for split in self.splits], 'advice': [asdict(one) for one in self.advice],
                'notes': self.notes, 'findings': [finding.to_json() for finding in self.findings]}
