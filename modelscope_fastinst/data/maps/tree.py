"""A data set of maps as it lies in a folder: which tasks it serves, and what is missing for the others."""
from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from modelscope_fastinst.data.formats.files import is_image
from modelscope_fastinst.data.formats.listing import order_splits
from modelscope_fastinst.data.maps.source import MapSource


@dataclass
class Tree:
    """A folder in one of the published layouts.

    Attributes:
        format: one of ``MAP_FORMATS``.
        root: the folder.
        load: reads a split (None: of data without splits) for a task; nothing of the pictures.
        splits: by task that the folder serves, its splits; empty for data without splits.
        missing: by task that it does not serve, what of the layout is not there.
        object_files: for 'instance', by split the COCO annotation file of objects and the folder of its images, where
            the layout has one.
    """
    format: str
    root: str
    load: Callable[[str, str | None], MapSource]
    splits: dict[str, tuple[str, ...]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    object_files: dict[str, tuple[str, str]] = field(default_factory=dict)

    def serve(self, task: str, splits: Iterable[str | None], otherwise: str) -> None:
        """Notes the splits for a task, or what is missing where there is none."""
        splits = list(splits)
        if splits:
            self.splits[task] = order_splits(splits)
        else:
            self.missing[task] = otherwise


def first_folder(*folders: str) -> str | None:
    """The first that exists."""
    return next((folder for folder in folders if os.path.isdir(folder)), None)


def images_below(folder: str) -> list[str]:
    """The image files of a folder, sorted; none where there is no folder."""
    return [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if is_image(name)] \
        if os.path.isdir(folder) else []


def stem(file: str) -> str:
    """'a/b.c.png' -> 'b.c'"""
    return os.path.splitext(os.path.basename(file))[0]
