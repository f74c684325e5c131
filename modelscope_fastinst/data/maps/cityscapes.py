"""Cityscapes as it is published: ``leftImg8bit/{split}/{city}`` and ``gtFine/{split}/{city}``.

Classes from ``*_gtFine_labelIds.png`` (or ``labelTrainIds``), objects from ``*_gtFine_instanceIds.png``, segments from
``gtFine/cityscapes_panoptic_{split}.json`` with its PNGs where cityscapesScripts made them, or from the instance ids.

Source: https://github.com/mcordts/cityscapesScripts
"""
from __future__ import annotations

import os
from dataclasses import replace

from modelscope_fastinst.data.label_sets import CITYSCAPES
from modelscope_fastinst.data.maps.label_files import CityscapesReader, LabelReader
from modelscope_fastinst.data.maps.panoptic_json import read_panoptic
from modelscope_fastinst.data.maps.source import MapReader, MapSource
from modelscope_fastinst.data.maps.tree import Tree
from modelscope_fastinst.data.records import DatasetError

LOOKED_FOR = 'cityscapes: leftImg8bit/ and gtFine/, each with {split}/{city}/'
_SPLITS = ('train', 'val', 'test')
_IMAGE = '_leftImg8bit.png'
_KINDS = ('labelIds', 'labelTrainIds', 'instanceIds')


def find(root: str) -> Tree | None:
    """The folder as a tree; None where it has neither ``leftImg8bit`` nor ``gtFine``."""
    base = next((folder for folder in (root, os.path.join(root, 'cityscapes'))
                 if any(os.path.isdir(os.path.join(folder, name)) for name in ('leftImg8bit', 'gtFine'))), None)
    if base is None:
        return None
    images = {split: found for split in _SPLITS if (found := _images(base, split))}
    maps = {kind: [split for split in images if _has(base, split, kind)] for kind in _KINDS}
    panoptic = {split: file for split in images if (file := _panoptic_file(base, split)) is not None}

    def load(task: str, split: str | None) -> MapSource:
        if split not in images:
            raise DatasetError(f'{base}: has no images for the split {split!r} in leftImg8bit/{split}/; it has '
                               f'{", ".join(images) or "none"}')
        kinds = [kind for kind in (_KINDS if task == 'semantic' else ('instanceIds',)) if split in maps[kind]]
        if split in panoptic and (task == 'panoptic' or not kinds):
            return _from_json(base, split, panoptic[split])
        return _from_files(base, split, images[split], kinds[0])

    tree = Tree('cityscapes', base, load)
    lacking = 'leftImg8bit/{split}/{city}/*_leftImg8bit.png and ' if not images else ''
    where = 'gtFine/{split}/{city}/*_gtFine_'
    with_ids = [*maps['instanceIds'], *panoptic]
    tree.serve('semantic', dict.fromkeys([*maps['labelIds'], *maps['labelTrainIds'], *with_ids]),
               f'{lacking}{where}labelIds.png')
    tree.serve('panoptic', dict.fromkeys(with_ids),
               f'{lacking}{where}instanceIds.png, or gtFine/cityscapes_panoptic_{{split}}.json with its folder')
    tree.serve('instance', dict.fromkeys(with_ids), f'{lacking}{where}instanceIds.png')
    return tree


def _images(base: str, split: str) -> list[str]:
    """The images of all cities."""
    folder = os.path.join(base, 'leftImg8bit', split)
    cities = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    return [os.path.join(folder, city, name) for city in cities if os.path.isdir(os.path.join(folder, city))
            for name in sorted(os.listdir(os.path.join(folder, city))) if name.endswith(_IMAGE)]


def _has(base: str, split: str, kind: str) -> bool:
    """Whether a split has a map of this kind."""
    folder = os.path.join(base, 'gtFine', split)
    return os.path.isdir(folder) and any(
        name.endswith(f'_gtFine_{kind}.png') for city in sorted(os.listdir(folder))
        if os.path.isdir(os.path.join(folder, city)) for name in os.listdir(os.path.join(folder, city)))


def _panoptic_file(base: str, split: str) -> str | None:
    files = (os.path.join(base, *folder, f'cityscapes_panoptic_{split}{kind}.json')
             for folder in (('gtFine',), ()) for kind in ('', '_trainId'))
    return next((file for file in files if os.path.isfile(file)), None)


def _from_files(base: str, split: str, images: list[str], kind: str) -> MapSource:
    ids = [os.path.basename(file).removesuffix(_IMAGE) for file in images]
    maps = [os.path.join(base, 'gtFine', split, os.path.basename(os.path.dirname(image)), f'{one}_gtFine_{kind}.png')
            for image, one in zip(images, ids, strict=True)]
    reader: MapReader
    if kind == 'instanceIds':
        reader = CityscapesReader(maps, CITYSCAPES)
    elif kind == 'labelIds':   # of the ids 0 to 33 those that no class has are void; so is the licence plate, -1
        table = {number: CITYSCAPES.index_of.get(number, -1) for number in range(34)}
        reader = LabelReader(maps, {**table, 255: -1}, what='Cityscapes has the label ids 0 to 33')
    else:
        table = {**{index: index for index in range(len(CITYSCAPES))}, 255: -1, 254: -1}
        reader = LabelReader(maps, table, what='Cityscapes has the train ids 0 to 18, and 255 for none')
    things = list(CITYSCAPES.things) if kind == 'instanceIds' else None
    return MapSource('cityscapes', os.path.join(base, 'leftImg8bit', split), list(CITYSCAPES.names), things, images,
                     maps, ids, reader)


def _from_json(base: str, split: str, file: str) -> MapSource:
    folder = os.path.join(base, 'leftImg8bit', split)
    source = read_panoptic(file, folder, file.removesuffix('.json'), format='cityscapes')
    # The file names the images otherwise than they are: they lie by city, under their ids.
    return replace(source, image_files=[os.path.join(folder, str(one).split('_')[0], f'{one}{_IMAGE}')
                                        for one in source.image_ids])
