"""What a data set's folder holds, before its annotations are read."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from modelscope_fastinst.data.records import DatasetError, DatasetProblem

from .files import relative_name
from .partition import file_digest, file_size, partition


@dataclass
class Entry:
    """An image and where its annotations are.

    Attributes:
        image: path of the image's file.
        annotation: what its format's reader needs.
    """
    image: str
    annotation: Any = None


@dataclass
class Listing:
    """All images of a data set.

    Attributes:
        root: its folder.
        parts: the images by split; under None those of no split.
        classes: names of the classes in order.
        observed_classes: see ``Source``.
        problems, notes: see ``Source``.
        extra: what else the format's reader needs.
    """
    root: str
    parts: dict[str | None, list[Entry]] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    observed_classes: bool = False
    problems: list[DatasetProblem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    extra: Any = None

    def add(self, split: str | None, entry: Entry) -> None:
        self.parts.setdefault(split, []).append(entry)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits there are, ``train`` first."""
        return order_splits(self.parts)

    def choose(self, split: str | None, val_fraction: float | None, seed: int) -> list[Entry]:
        """The images of a split; see ``read_source``."""
        own, side = which_part(self.splits, split, val_fraction, self.root)
        if own is None:
            entries = [entry for name in (*self.splits, None) for entry in self.parts.get(name, [])]
        else:
            entries = self.parts.get(own, [])
        if side is None:
            return entries
        names = [relative_name(entry.image, self.root) for entry in entries]
        chosen = partition(names, val_fraction, seed, lambda index: file_size(entries[index].image),
                           lambda index: file_digest(entries[index].image))
        check_sides(len(entries), chosen, self.root)
        return [entry for index, entry in enumerate(entries) if (index in chosen) == (side == 'val')]

    def left_out(self, split: str | None) -> list[str]:
        """What to tell with the training split of images that are in none."""
        if split != 'train' or not self.splits or None not in self.parts:
            return []
        return [f'{self.root}: {len(self.parts[None])} images are in no folder or list of a split, and left out']


def order_splits(names: Any) -> tuple[str, ...]:
    """Names of splits, ``train``, ``val`` and ``test`` first; None is no split."""
    first = ('train', 'val', 'test')
    return tuple(sorted((name for name in names if name is not None),
                        key=lambda name: (first.index(name) if name in first else len(first), name)))


def which_part(splits: Sequence[str], split: str | None, val_fraction: float | None, name: str,
               ) -> tuple[str | None, str | None]:
    """-> (the data set's own split to take, None: everything; the side of a partition of it, None: all of it)

    Raises:
        DatasetError: the split is neither there nor made by ``val_fraction``.
    """
    if split is None or split in splits:
        own = split
        side = 'train' if split == 'train' and val_fraction and 'val' not in splits else None
        return own, side
    if split in ('train', 'val') and ('train' in splits or not splits):
        own = 'train' if splits else None
        if val_fraction:
            return own, split
        if split == 'train':
            return own, None
        raise DatasetError(f'{name}: has no validation split{_there(splits)}; give val_fraction '
                           '(--val-fraction), for instance 0.2, to set a part of the images aside')
    raise DatasetError(f'{name}: has no split {split!r}{_there(splits)}')


def check_sides(count: int, chosen: set[int], name: str) -> None:
    """Raises a DatasetError if nothing could be chosen for validation."""
    if not chosen:
        raise DatasetError(f'{name}: {count} image{"" if count == 1 else "s"} cannot be divided into training and '
                           f'validation{": all have the same content" if count > 1 else ""}; add images, or train '
                           'without val_fraction')


def _there(splits: Sequence[str]) -> str:
    return f' (only {", ".join(splits)})' if splits else ''
