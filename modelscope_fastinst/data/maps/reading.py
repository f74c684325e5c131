"""Which data set of maps a folder holds, which tasks it serves, and its images and maps as a source."""
from __future__ import annotations

import os
from collections.abc import Sequence

from modelscope_fastinst.data.formats import FORMATS, recognise
from modelscope_fastinst.data.formats.listing import check_sides, which_part
from modelscope_fastinst.data.formats.partition import check_fraction, file_digest, file_size, partition, split_of_name
from modelscope_fastinst.data.maps import ade20k, cityscapes, coco_panoptic, semantic_png
from modelscope_fastinst.data.maps.semantic_png import read_class_names, read_label_folder
from modelscope_fastinst.data.maps.source import MapSource, joined
from modelscope_fastinst.data.maps.tree import Tree
from modelscope_fastinst.data.records import DatasetError
from modelscope_fastinst.structures import TASKS

_MODULES = {'ade20k': ade20k, 'cityscapes': cityscapes, 'coco-panoptic': coco_panoptic, 'semantic-png': semantic_png}
MAP_FORMATS = tuple(_MODULES)


def find_tree(root: str | os.PathLike, task: str, format: str | None = None) -> Tree:
    """The data set of maps in a folder that serves a task.

    Args:
        root: the folder.
        task: one of ``structures.TASKS``.
        format: one of ``MAP_FORMATS``; None to see from the folder.

    Raises:
        DatasetError: there is none, or there are several: says what the folder has, and what is missing for the task.
    """
    root = _folder(root)
    trees = find_trees(root, format)
    serving = [tree for tree in trees if task in tree.splits]
    if len(serving) > 1:
        raise DatasetError(f'{root}: may be {" or ".join(tree.format for tree in serving)}; give the format (--format)')
    if serving:
        return serving[0]
    if not trees and format is not None:
        raise DatasetError(f'{root}: no {format} data set; looked for {_MODULES[format].LOOKED_FOR}')
    raise DatasetError(f'{root}: nothing for model.task "{task}". {_contents(root, trees, task)}')


def find_trees(root: str | os.PathLike, format: str | None = None) -> list[Tree]:
    """All data sets of maps in a folder, whatever they serve. DatasetError: no such folder, an unknown format."""
    root = _folder(root)
    if format is not None and format not in _MODULES:
        raise DatasetError(f'{root}: unknown format {format!r}; known are {", ".join(MAP_FORMATS)}')
    found: list[Tree] = []
    for name in MAP_FORMATS if format is None else (format,):
        if format is None and name == 'semantic-png' and found:
            break   # a published data set looks like images beside PNGs as well
        tree = _MODULES[name].find(root)
        if tree is not None:
            found.append(tree)
    return found


def published_tree(root: str | os.PathLike) -> Tree | None:
    """The data set in a folder, where it is one that cannot be taken for another: ADE20K or Cityscapes."""
    root = _folder(root)
    trees = (_MODULES[name].find(root) for name in ('ade20k', 'cityscapes'))
    return next((tree for tree in trees if tree is not None), None)


def read_maps(root: str | os.PathLike, task: str, split: str | None = None, format: str | None = None, *,
              classes: Sequence[str] | None = None, label_offset: int | None = None, void_label: int | None = 255,
              val_fraction: float | None = None, seed: int = 0, or_all: bool = False) -> MapSource:
    """Reads a data set of maps for a task, without opening a picture.

    Args:
        root: its folder.
        task: one of ``structures.TASKS``.
        split: 'train', 'val', or another one that it has; None for everything there is.
        format: one of ``MAP_FORMATS``; None to see from the folder.
        classes, label_offset, void_label: of 'semantic-png', see ``semantic_png.read_label_folder``; ``classes`` counts
            where no file names them.
        val_fraction, seed, or_all: see ``formats.read_source``.

    Raises:
        DatasetError: see ``find_tree``; and what is missing for the split.
        ValueError: val_fraction is not between 0 and 1.
    """
    if val_fraction is not None:
        check_fraction(val_fraction)
    tree = find_tree(root, task, format)
    splits = tree.splits[task]
    if tree.format != 'semantic-png' and label_offset is not None:
        raise DatasetError(f'{tree.root}: label_offset is for label PNGs of your own; what the values of {tree.format} '
                           'mean is known')
    if split is not None and split not in splits:
        split = split_of_name(split) or split
        if or_all and not splits and val_fraction is None:
            split = None
    try:
        own, side = which_part(splits, split, val_fraction, tree.root)
    except DatasetError as error:
        raise DatasetError(f'{error} (for model.task "{task}")') from error

    def load(name: str | None) -> MapSource:
        if tree.format == 'semantic-png':
            part = semantic_png.parts(tree.root)[name]
            names = read_class_names(tree.root) or classes
            source = read_label_folder(*part, names, offset=label_offset or 0, void=void_label, format=tree.format)
        else:
            source = tree.load(task, name)
        source.split, source.splits = name, splits
        return source

    source = load(own) if own is not None else joined([load(name) for name in splits or (None,)], tree.root)
    source.split = split
    if side is None:
        return source
    names = [os.path.relpath(file, tree.root).replace(os.sep, '/') for file in source.image_files]
    chosen = partition(names, val_fraction, seed, lambda index: file_size(source.image_files[index]),
                       lambda index: file_digest(source.image_files[index]))
    check_sides(len(names), chosen, tree.root)
    return source.keep([index for index in range(len(names)) if (index in chosen) == (side == 'val')])


def what_is_there(root: str | os.PathLike) -> dict[str, list[str]]:
    """By task, the formats in which a folder holds data for it."""
    found: dict[str, list[str]] = {task: [tree.format for tree in find_trees(root) if task in tree.splits]
                                   for task in TASKS}
    try:
        found['instance'].insert(0, recognise(root))
    except DatasetError:   # it holds no outlines of objects
        return found
    return found


def task_of_folder(root: str | os.PathLike, format: str | None = None) -> str:
    """The task that a folder is likely to be for: 'instance' where it holds outlines of objects, else the first of
    'panoptic', 'semantic' and 'instance' that its maps serve.

    Raises:
        DatasetError: no such folder, or no data that is known.
    """
    if format in FORMATS:
        return 'instance'
    trees = find_trees(root, format)
    if format is None:
        try:
            recognise(root)
            return 'instance'
        except DatasetError:
            if not trees:
                raise
    served = [task for task in ('panoptic', 'semantic', 'instance') if any(task in tree.splits for tree in trees)]
    if not trees:
        raise DatasetError(f'{root}: no {format} data set; looked for {_MODULES[format].LOOKED_FOR}')
    if not served:
        raise DatasetError(f'{root}: nothing for any task. {_contents(os.fspath(root), trees, "semantic")}')
    return served[0]


def _contents(root: str, trees: Sequence[Tree], task: str) -> str:
    """What a folder has instead, and what is missing."""
    has = {name: formats for name, formats in what_is_there(root).items() if formats and name != task}
    said = []
    if has:
        served = '; '.join(f'"{name}" ({", ".join(formats)})' for name, formats in has.items())
        said.append(f'It has data for {served}: set model.task (--task) to one of these, or add what is missing.')
    lacking = [f'{tree.format}: {tree.missing[task]}' for tree in trees if tree.missing.get(task)]
    if lacking:
        said.append(f'Missing are, for {"; for ".join(lacking)}')
    elif not has:
        there = sorted(name for name in os.listdir(root) if not name.startswith('.'))
        shown = f'There are {", ".join(there[:10])}{", ..." if len(there) > 10 else ""}' if there else 'It is empty'
        said.append(f'Looked for {"; ".join(module.LOOKED_FOR for module in _MODULES.values())}. {shown}')
    return ' '.join(said)


def _folder(folder: str | os.PathLike) -> str:
    root = os.fspath(folder)
    if not os.path.isdir(root):
        raise DatasetError(f'{root}: {"is a file" if os.path.isfile(root) else "no such folder"}; give the folder of '
                           'a data set')
    return root
