"""ADE20K as its scene parsing challenge publishes it, with what Mask2Former's preparation scripts add.

``images/{training,validation}``; ``annotations/`` (class numbers 1 to 150, 0 is "other", hence void),
``annotations_instance/`` (objects); from the scripts ``ade20k_panoptic_{train,val}.json`` with their PNGs,
``ade20k_instance_{train,val}.json`` and ``annotations_detectron2/`` (numbers 0 to 149, 255 void).

Sources: http://sceneparsing.csail.mit.edu, https://github.com/facebookresearch/Mask2Former (datasets/).
"""
from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from modelscope_fastinst.data.label_sets import ADE20K, ADE20K_INSTANCE, ADE20K_PANOPTIC
from modelscope_fastinst.data.maps.label_files import AdeInstanceReader, LabelReader, check_map_size
from modelscope_fastinst.data.maps.label_map import LabelMap
from modelscope_fastinst.data.maps.panoptic_json import read_panoptic
from modelscope_fastinst.data.maps.source import MapSource
from modelscope_fastinst.data.maps.tree import Tree, images_below, stem
from modelscope_fastinst.data.records import DatasetError

LOOKED_FOR = 'ade20k: ADEChallengeData2016/ with images/ and annotations/, each with training/ and validation/'
_FOLDER = 'ADEChallengeData2016'
_PARTS = {'train': 'training', 'val': 'validation'}


def find(root: str) -> Tree | None:
    """The folder as a tree; None where it does not look like ADE20K."""
    base = next((folder for folder in (os.path.join(root, _FOLDER), root) if _looks_like(folder)), None)
    if base is None:
        return None

    def there(name: str) -> list[str]:
        return [split for split, part in _PARTS.items() if images_below(_at(base, name, split))]

    images, semantic, old, objects = map(there, ('images', 'annotations', 'annotations_detectron2',
                                                 'annotations_instance'))
    panoptic = [split for split in _PARTS if os.path.isfile(_panoptic_file(base, split))]
    composed = [split for split in semantic if split in objects]
    files = {split: (os.path.join(base, f'ade20k_instance_{split}.json'), _at(base, 'images', split))
             for split in _PARTS if os.path.isfile(os.path.join(base, f'ade20k_instance_{split}.json'))}

    def load(task: str, split: str | None) -> MapSource:
        if split not in _PARTS:
            raise DatasetError(f'{base}: has no split {split!r}, only train and val')
        if task == 'semantic' and split in semantic:
            return _labels(base, split, 'annotations', {**ADE20K.index_of, 0: -1}, '1 to 150, and 0 for none')
        if task == 'semantic' and split in old:
            return _labels(base, split, 'annotations_detectron2', {**ADE20K_PANOPTIC.index_of, 255: -1},
                           '0 to 149, and 255 for none')
        if task == 'panoptic' and split not in panoptic and split in composed:
            return _composed(base, split)
        if task == 'instance' and split in objects:
            return _objects(base, split)
        return read_panoptic(_panoptic_file(base, split), _at(base, 'images', split),
                             _panoptic_file(base, split).removesuffix('.json'), format='ade20k',
                             labels=ADE20K_PANOPTIC, pasted_over=True)   # stuff, by objects: see `_composed`

    def those(*lists: Sequence[str]) -> list[str]:
        return [split for split in images if any(split in one for one in lists)]

    tree = Tree('ade20k', base, load)
    tree.object_files = files
    no_images = '' if images else 'images/training and images/validation, and '
    tree.serve('semantic', those(semantic, old, panoptic),
               f'{no_images}annotations/training and annotations/validation')
    tree.serve('panoptic', those(panoptic, composed),
               f'{no_images}ade20k_panoptic_train.json with ade20k_panoptic_train/ (and the same for val) of '
               "Mask2Former's prepare_ade20k_pan_seg.py, or annotations_instance/ beside annotations/")
    tree.serve('instance', those(objects, list(files), panoptic),
               f"{no_images}ade20k_instance_train.json (and the same for val) of Mask2Former's "
               'prepare_ade20k_ins_seg.py, or annotations_instance/')
    return tree


def _looks_like(folder: str) -> bool:
    """Whether a folder is the challenge's: by its name, a file that only it has, or the names of its images."""
    if not os.path.isdir(folder):
        return False
    if any(os.path.exists(os.path.join(folder, name)) for name in (
            'objectInfo150.txt', 'sceneCategories.txt', *(f'ade20k_{kind}_{split}.json' for split in _PARTS
                                                          for kind in ('panoptic', 'instance')))):
        return True
    if os.path.basename(os.path.abspath(folder)) == _FOLDER:
        return any(os.path.isdir(os.path.join(folder, name)) for name in ('images', 'annotations'))
    return any(stem(file).startswith('ADE_') for split in _PARTS for file in images_below(_at(folder, 'images', split)))


def _at(base: str, name: str, split: str) -> str:
    return os.path.join(base, name, _PARTS[split])


def _panoptic_file(base: str, split: str) -> str:
    return os.path.join(base, f'ade20k_panoptic_{split}.json')


def _source(base: str, split: str, name: str, labels: object, reader: object, things: list[str] | None) -> MapSource:
    images = images_below(_at(base, 'images', split))
    maps = [os.path.join(_at(base, name, split), f'{stem(image)}.png') for image in images]
    return MapSource('ade20k', _at(base, 'images', split), list(labels.names), things, images, maps,
                     [stem(image) for image in images], reader(maps))


def _labels(base: str, split: str, name: str, table: dict[int, int], what: str) -> MapSource:
    return _source(base, split, name, ADE20K, lambda maps: LabelReader(
        maps, table, what=f'ADE20K has the values {what}'), None)


def _objects(base: str, split: str) -> MapSource:
    return _source(base, split, 'annotations_instance', ADE20K_INSTANCE, lambda maps: AdeInstanceReader(
        maps, len(ADE20K_INSTANCE)), list(ADE20K_INSTANCE.things))


def _composed(base: str, split: str) -> MapSource:
    """Panoptic as Mask2Former's script makes it: the stuff of ``annotations``, over it ``annotations_instance``."""
    return _source(base, split, 'annotations', ADE20K, lambda maps: _ComposedReader(
        maps, [os.path.join(_at(base, 'annotations_instance', split), os.path.basename(file)) for file in maps]),
        list(ADE20K.things))


class _ComposedReader:
    """Stuff by its class number, 1 to 150; objects by red * 256 + green."""

    def __init__(self, labels: list[str], objects: list[str]) -> None:
        self.labels, self.objects = labels, objects
        self.stuff = LabelReader(labels, {**ADE20K.index_of, 0: -1}, what='ADE20K has the values 1 to 150, 0 for none')
        self.things = AdeInstanceReader(objects, len(ADE20K_INSTANCE))

    def __call__(self, index: int, faults: list[tuple[str, str]]) -> LabelMap:
        below, above = self.stuff(index, faults), self.things(index, faults)
        check_map_size(self.objects[index], above.size, self.labels[index], below.size)
        things = np.array(sorted(ADE20K.thing_indices), np.int64)
        is_thing = np.append(np.isin(below.labels, things), False)
        places = np.where(is_thing[below.places], -1, below.places)
        places = np.where(above.places >= 0, above.places + len(below.numbers), places).astype(np.int32)
        numbers = np.concatenate((below.numbers, above.numbers))   # ascending: those of objects are above 256
        found = LabelMap(places, numbers, np.concatenate((below.labels, things[above.labels])),
                         np.zeros(len(numbers), bool))
        return found.present()
