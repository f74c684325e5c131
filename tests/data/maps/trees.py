"""Small pictures with the class and the object of each pixel, and writers that lay them out as data sets are published.
"""
from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from modelscope_fastinst.data.label_sets import ADE20K, CITYSCAPES, LabelSet

VOID, CROWD = -1, 99
HEIGHT, WIDTH = 24, 36


@dataclass
class Scene:
    """A picture; of each pixel the class index (-1: void) and the number of its object (0: none, CROWD: a group)."""
    name: str
    image: np.ndarray
    labels: np.ndarray
    objects: np.ndarray

    def segments(self, labels: LabelSet) -> list[tuple[int, int, bool, np.ndarray]]:
        """(class index, number of the object or 0, crowd, mask) of each segment: an object, or a kind of stuff."""
        found = []
        for label in np.unique(self.labels[self.labels != VOID]).tolist():
            inside = self.labels == label
            numbers = np.unique(self.objects[inside]).tolist() if label in labels.thing_indices else [None]
            for number in numbers:
                mask = inside if number is None else inside & (self.objects == number)
                found.append((label, number or 0, number == CROWD, mask))
        return found


def scenes(labels: LabelSet, names: Sequence[str], things: Sequence[str], stuff: Sequence[str], *, void: bool = True,
           crowd: bool = False, seed: int = 0) -> list[Scene]:
    """Noise over two kinds of stuff, with two objects of the first thing and one of the second, which lies over them.

    Args:
        names: of the pictures, without suffix.
        things, stuff: two classes each.
        void: a strip at the bottom has no class.
        crowd: a block at the right is a group of the first thing.
    """
    rng = np.random.default_rng(seed)
    found = []
    for index, name in enumerate(names):
        one, other = (labels.names.index(thing) for thing in things)
        classes = np.full((HEIGHT, WIDTH), labels.names.index(stuff[0]), np.int64)
        classes[HEIGHT // 2:] = labels.names.index(stuff[1])
        objects = np.zeros((HEIGHT, WIDTH), np.int64)
        for number, (rows, columns, label) in enumerate((((2, 9), (2, 9), one), ((12, 20), (10, 16), one),
                                                         ((6, 14), (6, 12 + index), other)), 1):
            classes[slice(*rows), slice(*columns)] = label
            objects[slice(*rows), slice(*columns)] = number
        if crowd:
            classes[3:15, 28:34], objects[3:15, 28:34] = one, CROWD
        if void:
            classes[-3:], objects[-3:] = VOID, 0
        found.append(Scene(name, rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8), classes, objects))
    return found


def save(path: Path, pixels: np.ndarray) -> None:
    """Writes a picture; uint16 as 16 bits a pixel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def ids_picture(ids: np.ndarray) -> np.ndarray:
    """Ids as COCO stores them, uint8 ``[H, W, 3]``."""
    return np.stack((ids % 256, ids // 256 % 256, ids // 65536), -1).astype(np.uint8)


def write_panoptic(file: Path, maps: Path, pictures: Iterable[Scene], labels: LabelSet, categories: list[dict],
                   category_ids: Sequence[int], *, suffix: str = '.jpg', names: Any = None, number: Any = None) -> dict:
    """Writes a panoptic JSON and its PNGs; returns the content.

    Args:
        category_ids: by class index.
        names: gives (file name of the image, of the map) of a scene.
        number: gives the id of a segment out of (class index, object, crowd); default counts by 70,000, which needs all
            three channels.
    """
    content: dict[str, Any] = {'images': [], 'annotations': [], 'categories': categories}
    for index, scene in enumerate(pictures):
        image, picture = names(scene) if names else (scene.name + suffix, scene.name + '.png')
        ids, segments = np.zeros((HEIGHT, WIDTH), np.int64), []
        for place, (label, one, crowd, mask) in enumerate(scene.segments(labels), 1):
            key = number(label, one, crowd) if number else 70_000 * place + 300 * index + 5
            ids[mask] = key
            rows, columns = np.nonzero(mask)
            segments.append({'id': key, 'category_id': category_ids[label], 'area': int(mask.sum()),
                             'bbox': [int(columns.min()), int(rows.min()), int(np.ptp(columns)) + 1,
                                      int(np.ptp(rows)) + 1], 'iscrowd': int(crowd)})
        save(maps / picture, ids_picture(ids))
        image_id = scene.name if names or suffix == '.jpg' else int(scene.name)
        content['images'].append({'id': image_id, 'file_name': image, 'height': HEIGHT, 'width': WIDTH})
        content['annotations'].append({'image_id': image_id, 'file_name': picture, 'segments_info': segments})
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), 'utf-8')
    return content


def write_coco(root: Path, pictures: Sequence[Scene], labels: LabelSet, split: str = 'train',
               year: str = '2017') -> dict:
    """COCO's own layout: ``annotations/panoptic_train2017.json``, ``panoptic_train2017/``, ``train2017/``."""
    for scene in pictures:
        save(root / f'{split}{year}' / f'{scene.name}.png', scene.image)
    categories = [{'id': one, 'name': name, 'isthing': int(name in labels.things), 'color': [1, 2, 3],
                   'supercategory': 'x'} for one, name in zip(labels.ids, labels.names, strict=True)]
    return write_panoptic(root / 'annotations' / f'panoptic_{split}{year}.json', root / f'panoptic_{split}{year}',
                          pictures, labels, categories, labels.ids, suffix='.png')


ADE_PARTS = {'train': 'training', 'val': 'validation'}


def ade_scenes(split: str = 'train', count: int = 2) -> list[Scene]:
    return scenes(ADE20K, [f'ADE_{split}_{index:08d}' for index in range(1, count + 1)], ('person', 'flag'),
                  ('wall', 'sky'), seed=len(split))


def write_ade(root: Path, pictures: Sequence[Scene], split: str = 'train', *,
              parts: Sequence[str] = ('annotations', 'annotations_instance', 'panoptic', 'instance')) -> None:
    """ADEChallengeData2016 with what the challenge publishes and what Mask2Former's scripts add."""
    base, part = root / 'ADEChallengeData2016', ADE_PARTS[split]
    thing_place = {label: place for place, label in enumerate(sorted(ADE20K.thing_indices), 1)}
    instances: dict[str, Any] = {'images': [], 'annotations': [], 'categories': [
        {'id': label, 'name': ADE20K.names[label]} for label in sorted(ADE20K.thing_indices)]}
    for scene in pictures:
        save(base / 'images' / part / f'{scene.name}.jpg', scene.image)
        if 'annotations' in parts:
            save(base / 'annotations' / part / f'{scene.name}.png', (scene.labels + 1).astype(np.uint8))
        if 'annotations_detectron2' in parts:
            save(base / 'annotations_detectron2' / part / f'{scene.name}.png', scene.labels.astype(np.uint8))
        channels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        instances['images'].append({'id': scene.name, 'file_name': f'{scene.name}.jpg', 'height': HEIGHT,
                                    'width': WIDTH})
        for label, number, _, mask in scene.segments(ADE20K):
            if number:
                channels[mask] = thing_place[label], number, 0
                instances['annotations'].append({
                    'id': len(instances['annotations']) + 1, 'image_id': scene.name, 'category_id': label, 'iscrowd': 0,
                    'segmentation': _rle(mask), 'area': int(mask.sum())})
        if 'annotations_instance' in parts:
            save(base / 'annotations_instance' / part / f'{scene.name}.png', channels)
    if 'panoptic' in parts:
        # The script's names are not those of the challenge; ids count from 0.
        categories = [{'id': label, 'name': f'{name}, and so on', 'isthing': int(name in ADE20K.things)}
                      for label, name in enumerate(ADE20K.names)]
        write_panoptic(base / f'ade20k_panoptic_{split}.json', base / f'ade20k_panoptic_{split}', pictures, ADE20K,
                       categories, range(150))
    if 'instance' in parts:
        (base / f'ade20k_instance_{split}.json').write_text(json.dumps(instances), 'utf-8')


def city_scenes(split: str = 'train', count: int = 2) -> list[Scene]:
    names = [f'{city}_{index:06d}_000019' for index, city in enumerate(('aachen', 'bochum')[:count])]
    return scenes(CITYSCAPES, names, ('person', 'bicycle'), ('road', 'sky'), crowd=True, seed=len(split))


def instance_ids(scene: Scene) -> np.ndarray:
    """Cityscapes' ids: of objects label * 1000 + number, of stuff and groups the label, of void 3 (out of roi)."""
    ids = np.full((HEIGHT, WIDTH), 3, np.int64)
    for label, number, crowd, mask in scene.segments(CITYSCAPES):
        ids[mask] = city_number(label, number, crowd)
    return ids


def city_number(label: int, number: int, crowd: bool) -> int:
    one = CITYSCAPES.ids[label]
    return one if crowd or not number else one * 1000 + number - 1


def write_cityscapes(root: Path, pictures: Sequence[Scene], split: str = 'train', *, train_ids: bool = False,
                     parts: Sequence[str] = ('labelIds', 'labelTrainIds', 'instanceIds', 'panoptic')) -> None:
    """``leftImg8bit`` and ``gtFine``, with the panoptic files that cityscapesScripts makes."""
    for scene in pictures:
        city = scene.name.split('_')[0]
        save(root / 'leftImg8bit' / split / city / f'{scene.name}_leftImg8bit.png', scene.image)
        labels = np.append(CITYSCAPES.ids, 3)[scene.labels]
        kinds = {'labelIds': labels.astype(np.uint8), 'instanceIds': instance_ids(scene).astype(np.uint16),
                 'labelTrainIds': np.where(scene.labels == VOID, 255, scene.labels).astype(np.uint8)}
        for kind, pixels in kinds.items():
            if kind in parts:
                save(root / 'gtFine' / split / city / f'{scene.name}_gtFine_{kind}.png', pixels)
    if 'panoptic' in parts:
        base = f'cityscapes_panoptic_{split}' + ('_trainId' if train_ids else '')
        ids = range(len(CITYSCAPES)) if train_ids else CITYSCAPES.ids
        categories = [{'id': one, 'name': name, 'isthing': int(name in CITYSCAPES.things), 'supercategory': 'x'}
                      for one, name in zip(ids, CITYSCAPES.names, strict=True)]
        write_panoptic(root / 'gtFine' / f'{base}.json', root / 'gtFine' / base, pictures, CITYSCAPES, categories,
                       list(ids), number=city_number,
                       names=lambda scene: (f'{scene.name}_gtFine_leftImg8bit.png',
                                            f'{scene.name}_gtFine_panoptic.png'))


def write_semantic(images: Path, labels: Path, pictures: Sequence[Scene], *, offset: int = 0, void: int = 255) -> None:
    """Pictures in one folder, their class indices in the other."""
    for scene in pictures:
        save(images / f'{scene.name}.png', scene.image)
        save(labels / f'{scene.name}.png', np.where(scene.labels == VOID, void, scene.labels + offset).astype(np.uint8))


def _rle(mask: np.ndarray) -> dict:
    from pycocotools import mask as coco_mask
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {'size': list(mask.shape), 'counts': rle['counts'].decode('ascii')}
