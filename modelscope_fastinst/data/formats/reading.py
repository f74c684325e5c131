"""Which format a folder is in, and its images and objects as a Source."""
from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType

from modelscope_fastinst.data.records import DatasetError

from . import coco, labelme, object_masks, voc, yolo
from .listing import Listing
from .partition import check_fraction, split_of_name
from .source import Source

_MODULES: dict[str, ModuleType] = {'yolo': yolo, 'labelme': labelme, 'voc': voc, 'object-masks': object_masks}
FORMATS = ('coco', *_MODULES)
_REMEMBERED: ContextVar[dict[tuple[str, str], Listing] | None] = ContextVar('listings', default=None)


@contextmanager
def looking_once() -> Iterator[None]:
    """Within it the files of a folder are found, and those of LabelMe parsed, once for all splits that are read."""
    token = _REMEMBERED.set({})
    try:
        yield
    finally:
        _REMEMBERED.reset(token)


def recognise(folder: str | os.PathLike) -> str:
    """The format of a data set's folder, one of ``FORMATS``.

    Raises:
        DatasetError: none of them, or more than one; says what was looked for and what is there.
    """
    root = _folder(folder)
    if coco.find(root):
        return 'coco'
    found = [name for name, module in _MODULES.items() if module.matches(root)]
    if len(found) > 1:
        raise DatasetError(f'{root}: may be {" or ".join(found)}; give the format (--format)')
    if not found:
        there = sorted(name for name in os.listdir(root) if not name.startswith('.'))
        shown = f'There are {", ".join(there[:10])}{", ..." if len(there) > 10 else ""}' if there else 'It is empty'
        looked_for = '; '.join(module.LOOKED_FOR for module in (coco, *_MODULES.values()))
        raise DatasetError(f'{root}: no data set of a known format; looked for {looked_for}. {shown}')
    return found[0]


def find_splits(root: str | os.PathLike, format: str | None = None) -> tuple[str, ...]:
    """The splits (``train``, ``val``, ``test``) that a data set has by itself; empty where it has none.

    Raises:
        DatasetError: see ``read_source``.
    """
    root, format = _known(root, format)
    if format == 'coco':
        return coco.order_splits(coco.find(root))
    return _find(root, format).splits


def read_source(root: str | os.PathLike, split: str | None = None, format: str | None = None, *,
                classes: Sequence[str] | None = None, val_fraction: float | None = None, seed: int = 0,
                or_all: bool = False) -> Source:
    """Reads a data set of any known format, without decoding images.

    Args:
        root: its folder.
        split: ``train``, ``val``, or another one that it has; None for everything there is.
        format: one of ``FORMATS``; None to see from the folder.
        classes: only objects of these, which are numbered in this order.
        val_fraction: where the data set has no validation split of its own, the share of its images (or of its training
            images) that becomes one: the same for the same seed and file names, identical images on the same side.
            Without it, ``train`` is everything there and ``val`` is an error.
        seed: of that partition.
        or_all: take everything where the data set has no splits and none are to be made.

    Raises:
        DatasetError: no such folder, format, split or class; or a file without which nothing can be read. Single bad
            items are in the source's ``problems`` instead, or are found by ``CocoInstances``.
        ValueError: val_fraction is not between 0 and 1.
    """
    if val_fraction is not None:
        check_fraction(val_fraction)
    root, format = _known(root, format)
    if format == 'coco':
        source = coco.read(root, split, val_fraction, seed, or_all)
    else:
        module = _MODULES[format]
        listing = _find(root, format)
        if split not in (None, *listing.splits):
            split = split_of_name(split) or split
        if or_all and not listing.splits and val_fraction is None:
            split = None
        entries = listing.choose(split, val_fraction, seed)
        if not entries:
            raise DatasetError(f'{root}: no annotated images{"" if split is None else f" in the split {split!r}"}; '
                               f'looked for {module.LOOKED_FOR}')
        source = module.read(listing, entries)
        source.split, source.splits = split, listing.splits
        source.observed_classes = listing.observed_classes
        source.problems[:0] = listing.problems
        source.notes[:0] = [*listing.notes, *listing.left_out(split)]
    return source if classes is None else source.keep_classes(classes)


def _find(root: str, format: str) -> Listing:
    remembered = _REMEMBERED.get()
    if remembered is None:
        return _MODULES[format].find(root)
    key = os.path.abspath(root), format
    if key not in remembered:
        remembered[key] = _MODULES[format].find(root)
    return remembered[key]


def _folder(folder: str | os.PathLike) -> str:
    root = os.fspath(folder)
    if os.path.isfile(root):
        raise DatasetError(f'{root}: is a file; give the folder of the data set')
    if not os.path.isdir(root):
        raise DatasetError(f'{root}: no such folder; give the folder of a data set')
    return root


def _known(root: str | os.PathLike, format: str | None) -> tuple[str, str]:
    root = _folder(root)
    if format is None:
        return root, recognise(root)
    if format not in FORMATS:
        raise DatasetError(f'{root}: unknown format {format!r}; known are {", ".join(FORMATS)}')
    if format == 'coco' and not coco.find(root):
        raise DatasetError(f'{root}: no COCO data set; looked for {coco.LOOKED_FOR}')
    return root, format
