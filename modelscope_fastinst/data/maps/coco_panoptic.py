"""COCO panoptic in a folder: ``annotations/panoptic_{split}.json``, ``panoptic_{split}/`` and the images.

As COCO publishes it (``annotations/panoptic_train2017.json`` with ``train2017/``; the PNGs unpacked beside either), and
as its API's sample lies: a JSON, a folder of PNGs of its name, and ``input_images/``.
"""
from __future__ import annotations

import os

from modelscope_fastinst.data.formats.partition import split_of_name
from modelscope_fastinst.data.maps.panoptic_json import read_panoptic
from modelscope_fastinst.data.maps.source import MapSource
from modelscope_fastinst.data.maps.tree import Tree, first_folder, images_below
from modelscope_fastinst.data.records import DatasetError

LOOKED_FOR = 'coco-panoptic: annotations/panoptic_{split}.json with panoptic_{split}/'
_FILES = ('annotations/panoptic_{split}.json', 'annotations/panoptic_{split}2017.json', 'panoptic_{split}.json',
          'panoptic_{split}2017.json')
_SPLITS = {'train': ('train', 'training'), 'val': ('val', 'valid', 'validation'), 'test': ('test',)}
_OTHERS = ('ade20k_panoptic', 'cityscapes_panoptic')   # files of the other formats
_HEAD = 1 << 16


def find(root: str) -> Tree | None:
    """The folder as a tree; None where no panoptic JSON is in it."""
    files: dict[str | None, str] = {}
    for split, names in _SPLITS.items():
        found = [file for name in names for file in [_by_layout(root, name)] if file is not None]
        if found:
            files[split] = found[0]
    if not {'train', 'val'} & set(files):
        for file in _others(root):
            split = split_of_name(os.path.splitext(os.path.basename(file))[0])
            if split in files and files[split] != file:
                raise DatasetError(f'{root}: {os.path.relpath(files[split], root)} and {os.path.relpath(file, root)} '
                                   'are both panoptic files; name one of them as annotation_file, with its image_dir '
                                   'and panoptic_dir')
            files[split] = file
    if not files:
        return None

    def load(task: str, split: str | None) -> MapSource:
        file = files.get(split) or (_by_layout(root, split) if split is not None else None)
        if file is None:
            raise DatasetError(f'{root}: no panoptic annotation file for the split {split!r}; looked for '
                               f'{", ".join(name.format(split=split) for name in _FILES)}')
        return read_panoptic(file, _image_dir(root, file, split), _panoptic_dir(root, file), format='coco-panoptic')

    tree = Tree('coco-panoptic', root, load)
    for task in ('panoptic', 'semantic', 'instance'):
        tree.serve(task, files, '')
    return tree


def _by_layout(root: str, split: str) -> str | None:
    files = (os.path.join(root, *name.format(split=split).split('/')) for name in _FILES)
    return next((file for file in files if os.path.isfile(file)), None)


def _others(root: str) -> list[str]:
    """Panoptic files of other names, with a folder of their name."""
    found = []
    for folder in (root, os.path.join(root, 'annotations')):
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
            file, (base, suffix) = os.path.join(folder, name), os.path.splitext(name)
            if suffix.lower() == '.json' and not base.startswith(_OTHERS) and _has_segments(file) and \
                    first_folder(os.path.join(root, base), os.path.join(folder, base)) is not None:
                found.append(file)
    return found


def _has_segments(file: str) -> bool:
    """Whether it looks like a panoptic file, by its name or its first bytes."""
    if 'panoptic' in os.path.basename(file).lower():
        return True
    with open(file, 'rb') as stream:
        return b'"segments_info"' in stream.read(_HEAD)


def _panoptic_dir(root: str, file: str) -> str:
    base = os.path.splitext(os.path.basename(file))[0]
    expected = os.path.join(root, base)
    found = first_folder(expected, os.path.join(os.path.dirname(file), base), os.path.join(root, 'panoptic', base))
    if found is None:
        raise DatasetError(f'{expected}: no such folder; the panoptic PNGs of {os.path.relpath(file, root)} were '
                           f'expected there: unpack {base}.zip, or give annotation_file, image_dir and panoptic_dir')
    return found


def _image_dir(root: str, file: str, split: str | None) -> str:
    base = os.path.splitext(os.path.basename(file))[0].removeprefix('panoptic_')
    names = [base, f'images/{base}', *([split, f'images/{split}'] if split else []), 'input_images', 'images']
    folders = [os.path.join(root, *name.split('/')) for name in names]
    # The sample's folder of PNGs has the name that the images' would have.
    found = next((folder for folder in folders if images_below(folder)), None)
    if found is None:
        raise DatasetError(f'{root}: {os.path.relpath(file, root)} is there, but no folder with its images; looked for '
                           f'{", ".join(dict.fromkeys(names))}')
    return found
