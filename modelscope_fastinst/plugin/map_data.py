"""Training and evaluation data whose ground truth are maps: which of a user's files are read for which task."""
from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from modelscope.utils.logger import get_logger

from modelscope_fastinst.data.coco import CocoInstances
from modelscope_fastinst.data.formats import FORMATS, find_splits, recognise
from modelscope_fastinst.data.maps import (
    SegmentationMaps,
    find_tree,
    find_trees,
    published_tree,
    read_label_folder,
    read_maps,
    read_panoptic,
)
from modelscope_fastinst.data.records import DatasetError

from .trainer_keys import ConfigurationError

logger = get_logger()


@dataclass
class Where:
    """Where data are, as ``FastInstDataset`` was told; its arguments of the same names.

    Attributes:
        or_all: take everything where there are no splits.
    """
    annotation_file: str | None = None
    image_dir: str | None = None
    panoptic_dir: str | None = None
    label_dir: str | None = None
    root: str | None = None
    table: Any = None
    split: str | None = None
    format: str | None = None
    val_fraction: float | None = None
    split_seed: int = 0
    or_all: bool = False
    label_offset: int | None = None
    void_label: int | None = 255
    label_classes: Sequence[str] | None = None

    def whole(self, split: str | None) -> Any:
        """The folder or table, if what was read of it is no split but all; else None."""
        if split is not None or self.root is None and self.table is None:
            return None
        return os.path.realpath(self.root) if self.table is None else id(self.table)


def open_maps(where: Where, task: str | None, *, classes: Sequence[str] | None, training: bool,
              **options: Any) -> tuple[SegmentationMaps | CocoInstances, Any] | None:
    """The data set of maps that is asked for.

    Args:
        where: the files.
        task: ``model.task``; None where the configuration does not say, which is an instance model.
        classes: of the model; None: the data set's own.
        training: samples get targets, in evaluation the truth.
        options: further arguments of ``SegmentationMaps``.

    Returns:
        The data set and ``Where.whole`` of it; None where the data are outlines of objects for an instance model.

    Raises:
        ConfigurationError: keys that do not go with the task.
        DatasetError: broken or missing files, or data for other tasks only.
    """
    instance = task in (None, 'instance')
    if where.label_offset is not None and task != 'semantic':
        raise ConfigurationError(f'label_offset {where.label_offset} is for label PNGs, which are for model.task '
                                 f'"semantic" (--task semantic); the task is {task or "not set, which is instance"}')
    if where.table is not None:
        if not instance:
            raise ConfigurationError(f'a table holds instances, but model.task is "{task}"; give a folder, files, or a '
                                     'torch data set of Sample')
        return None
    if where.label_dir is not None:
        if task != 'semantic':
            raise ConfigurationError(f'{where.label_dir}: label_dir holds the class of each pixel, which is for '
                                     f'model.task "semantic" (--task semantic); the task is '
                                     f'{"not set, which is instance" if task is None else task}')
        source = read_label_folder(where.image_dir or '', where.label_dir, where.label_classes or classes,
                                   offset=where.label_offset or 0, void=where.void_label)
    elif where.annotation_file is not None:
        if where.panoptic_dir is None and instance:
            return None
        if where.panoptic_dir is None:
            raise ConfigurationError(f'{where.annotation_file}: for model.task "{task}" also give panoptic_dir, the '
                                     'folder of the panoptic PNGs that the file names')
        if task is None:
            raise ConfigurationError(f'{where.panoptic_dir}: {_choose(("panoptic", "semantic"))}')
        source = read_panoptic(where.annotation_file, where.image_dir or '', where.panoptic_dir)
    else:
        if instance and _has_outlines(where, task):
            return None
        if instance and (objects := _object_files(where)) is not None:
            return CocoInstances(*objects, classes, **options, with_targets=training,
                                 with_annotations=not training), None
        source = read_maps(where.root or '', task or 'instance', where.split, where.format,
                           classes=where.label_classes or classes, label_offset=where.label_offset,
                           void_label=where.void_label, val_fraction=where.val_fraction, seed=where.split_seed,
                           or_all=where.or_all)
    for note in source.notes:
        logger.info('%s', note)
    data = SegmentationMaps(source, task or 'instance', classes, **options, with_targets=training,
                            with_truth=not training)
    return data, where.whole(source.split)


def find_splits_for(root: str, task: str | None, format: str | None = None) -> tuple[str, ...]:
    """The splits that a folder has by itself for a task; see ``open_maps`` for the arguments and what is raised."""
    where = Where(root=root, format=format)
    if task in (None, 'instance') and _has_outlines(where, task):
        return find_splits(root, format)
    return find_tree(root, task or 'instance', format).splits[task or 'instance']


def _has_outlines(where: Where, task: str | None) -> bool:
    """Whether a folder holds outlines of objects, in a format of ``data.formats``, for an instance model.

    Raises:
        DatasetError: it holds neither these nor maps that such a model may be trained with.
    """
    if where.format is not None:
        return where.format in FORMATS
    root = os.fspath(where.root or '')
    if not os.path.isdir(root):   # whose message is as ever
        return True
    tree = published_tree(root)
    if tree is not None and 'instance' in tree.splits:
        return False
    try:
        recognise(root)
        return True
    except DatasetError:
        trees = find_trees(root)
        if not trees:
            raise
        if task is None and trees[0].format == 'coco-panoptic':
            raise DatasetError(f'{root}: {_choose(trees[0].splits)}') from None
        find_tree(root, 'instance')
        return False


def _object_files(where: Where) -> tuple[str, str] | None:
    """The COCO file of objects that belongs to a published data set of maps, and the folder of its images."""
    tree = find_tree(where.root or '', 'instance', where.format)
    return tree.object_files.get(where.split or '')


def _choose(tasks: Sequence[str]) -> str:
    others = ' or '.join(f'"{one}"' for one in tasks if one != 'instance')
    return ('holds panoptic ground truth (maps of segments), and the configuration does not say what to learn from '
            f'it: set model.task to {others} (--task), or to "instance" for its things alone')

