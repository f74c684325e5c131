"""Annotated pictures, and writers that put them on disk as labelling tools do."""
from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from modelscope_fastinst.data.coco import CocoInstances


@dataclass
class Picture:
    """A picture and its objects: (class, polygon ``[x0, y0, ...]``) or (class, bool mask ``H x W``).

    With ``file``, the picture is that file instead of an array.
    """
    name: str
    pixels: np.ndarray | None
    objects: list[tuple[str, list[float] | np.ndarray]] = field(default_factory=list)
    file: Path | None = None

    @property
    def size(self) -> tuple[int, int]:
        if self.file is None:
            return self.pixels.shape[:2]
        with Image.open(self.file) as image:
            return image.height, image.width

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.file is not None:
            os.link(self.file, path) if os.stat(self.file).st_dev == os.stat(path.parent).st_dev else \
                path.write_bytes(self.file.read_bytes())
        else:
            Image.fromarray(self.pixels).save(path)

    def masks(self) -> list[tuple[str, dict]]:
        """(class, run-length encoding) of each object."""
        return [(name, encode(shape, self.size)) for name, shape in self.objects]


def encode(shape: list[float] | np.ndarray, size: tuple[int, int]) -> dict:
    if isinstance(shape, np.ndarray):
        rle = coco_mask.encode(np.asfortranarray(shape.astype(np.uint8)))
    else:
        rle = coco_mask.merge(coco_mask.frPyObjects([shape], *size))
    return {'size': list(size), 'counts': rle['counts'].decode('ascii')}


def polygon_pictures(count: int = 3, size: tuple[int, int] = (40, 60), classes: Sequence[str] = ('nut', 'fig'),
                     suffix: str = '.png', seed: int = 0) -> list[Picture]:
    """Pictures of noise with star-shaped polygons, whose coordinates have two digits."""
    rng = np.random.default_rng(seed)
    height, width = size
    pictures = []
    for number in range(count):
        picture = Picture(f'IMG_{number}{suffix}', rng.integers(0, 255, (height, width, 3), np.uint8))
        for index in range(2 + number % 2):
            angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
            radii = rng.uniform(6, 12, 9)
            center = rng.uniform((14, 14), (width - 14, height - 14))
            points = center + radii[:, None] * np.stack((np.cos(angles), np.sin(angles)), 1)
            picture.objects.append((classes[(number + index) % len(classes)], points.round(2).ravel().tolist()))
        pictures.append(picture)
    return pictures


def mask_pictures(count: int = 3, size: tuple[int, int] = (40, 60), classes: Sequence[str] = ('nut', 'fig'),
                  suffix: str = '.png', seed: int = 0) -> list[Picture]:
    """Pictures of noise with rings and blocks that do not overlap, which no polygon draws exactly."""
    rng = np.random.default_rng(seed)
    height, width = size
    y, x = np.mgrid[:height, :width]
    pictures = []
    for number in range(count):
        picture = Picture(f'IMG_{number}{suffix}', rng.integers(0, 255, (height, width, 3), np.uint8))
        distance = np.hypot(x - 13 - number, y - 15)
        picture.objects += [(classes[number % len(classes)], (distance < 11) & (distance > 5)),
                            (classes[-1], distance < 4),
                            (classes[0], (x > 35) & (y > 20) & ((x + y) % 7 > 0))]
        pictures.append(picture)
    return pictures


def truth(data: CocoInstances) -> dict[str, list[tuple[str, str]]]:
    """File name without folder and suffix -> (class, counts) of each object, sorted."""
    found = {}
    for index in range(len(data)):
        name = os.path.splitext(os.path.basename(data[index].file_name))[0]
        found[name] = sorted((data.classes[one['category_id']], one['segmentation']['counts'])
                             for one in data.annotations(index))
    return found


def expected(pictures: Iterable[Picture]) -> dict[str, list[tuple[str, str]]]:
    """The same of what was written."""
    return {os.path.splitext(picture.name)[0]: sorted((name, rle['counts']) for name, rle in picture.masks())
            for picture in pictures}


def write_coco_file(folder: Path, pictures: list[Picture], split: str | None = None, first_category: int = 0) -> None:
    """COCO JSON with gapped, possibly zero-based category ids."""
    classes = sorted({name for picture in pictures for name, _ in picture.objects})
    ids = {name: first_category + 3 * index for index, name in enumerate(classes)}
    content = {'images': [], 'annotations': [], 'categories': [{'id': ids[name], 'name': name} for name in classes]}
    images = folder / 'images' / split if split else folder / 'images'
    for number, picture in enumerate(pictures, 17):
        picture.save(images / picture.name)
        height, width = picture.size
        content['images'].append({'id': number, 'file_name': picture.name, 'height': height, 'width': width})
        for name, shape in picture.objects:
            content['annotations'].append({
                'id': len(content['annotations']) + 100, 'image_id': number, 'category_id': ids[name], 'iscrowd': 0,
                'segmentation': encode(shape, picture.size) if isinstance(shape, np.ndarray) else [shape]})
    file = folder / 'annotations' / f'instances_{split}.json' if split else folder / 'trainval.json'
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding='utf-8')


def write_yolo(folder: Path, pictures: list[Picture], split: str | None = None, split_first: bool = False,
               yaml: str | None = '') -> None:
    """Ultralytics' text files, six digits; ``yaml`` is what data.yaml says besides the names, None: no such file."""
    classes = sorted({name for picture in pictures for name, _ in picture.objects})
    parts = [split, '{}'] if split_first else ['{}', split]
    place = '/'.join(part for part in parts if part)
    for picture in pictures:
        height, width = picture.size
        picture.save(folder / place.format('images') / picture.name)
        rows = [f'{classes.index(name)} ' + ' '.join(f'{value / (height if at % 2 else width):.6f}'
                                                     for at, value in enumerate(shape))
                for name, shape in picture.objects]
        label = folder / place.format('labels') / (os.path.splitext(picture.name)[0] + '.txt')
        label.parent.mkdir(parents=True, exist_ok=True)
        if rows:
            label.write_text('\n'.join(rows) + '\n', encoding='utf-8')
    if yaml is not None:
        (folder / 'data.yaml').write_text(f'{yaml}\nnames: {json.dumps(classes)}\n', encoding='utf-8')


def labelme_content(picture: Picture, embed: bool = False) -> dict:
    """What LabelMe 5 writes for a picture of polygons or masks."""
    height, width = picture.size
    content = {'version': '5.4.1', 'flags': {}, 'shapes': [], 'imagePath': picture.name, 'imageData': None,
               'imageHeight': height, 'imageWidth': width}
    for name, shape in picture.objects:
        record = {'label': name, 'points': None, 'group_id': None, 'description': '', 'shape_type': 'polygon',
                  'flags': {}, 'mask': None}
        if isinstance(shape, np.ndarray):
            rows, columns = np.flatnonzero(shape.any(1)), np.flatnonzero(shape.any(0))
            (top, bottom), (left, right) = rows[[0, -1]].tolist(), columns[[0, -1]].tolist()
            record |= {'shape_type': 'mask', 'points': [[float(left), float(top)], [float(right), float(bottom)]],
                       'mask': png_text(shape[top:bottom + 1, left:right + 1])}
        else:
            record['points'] = np.array(shape).reshape(-1, 2).tolist()
        content['shapes'].append(record)
    if embed:
        content['imageData'] = png_text(picture.pixels)
    return content


def png_text(values: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, 'PNG')
    return base64.b64encode(stream.getvalue()).decode('ascii')


def write_labelme(folder: Path, pictures: list[Picture], split: str | None = None, embed: bool = False) -> None:
    folder = folder / split if split else folder
    folder.mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        if not embed:
            picture.save(folder / picture.name)
        (folder / (os.path.splitext(picture.name)[0] + '.json')).write_text(
            json.dumps(labelme_content(picture, embed), ensure_ascii=False, indent=2), encoding='utf-8')


def write_voc(folder: Path, pictures: list[Picture], lists: dict[str, Sequence[str]] | None = None,
              classes: str | None = 'class_names.txt', deep: bool = False) -> None:
    """Palette PNGs as VOC's own and LabelMe's converter; ``classes`` says what names them: a file, ``xml`` or None.

    ``deep`` writes 16-bit object maps, for more than 254 objects.
    """
    names = sorted({name for picture in pictures for name, _ in picture.objects})
    palette = np.random.default_rng(0).integers(0, 255, 768).tolist()
    for picture in pictures:
        stem = os.path.splitext(picture.name)[0]
        picture.save(folder / 'JPEGImages' / picture.name)
        objects = np.zeros(picture.size, np.uint16)
        kinds = np.zeros(picture.size, np.uint8)
        for number, (name, shape) in enumerate(picture.objects, 1):
            objects[shape], kinds[shape] = number, names.index(name) + 1
        for kind, values in (('SegmentationObject', objects if deep else objects.astype(np.uint8)),
                             ('SegmentationClass', kinds)):
            if kind == 'SegmentationClass' and classes in ('xml', None):
                continue
            (folder / kind).mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(values)
            if values.dtype == np.uint8:
                image = image.convert('P')
                image.putpalette(palette)
                image.putdata(values.ravel().tolist())
            image.save(folder / kind / f'{stem}.png')
        if classes == 'xml':
            (folder / 'Annotations').mkdir(exist_ok=True)
            objects_text = ''.join(f'<object><name>{name}</name></object>' for name, _ in picture.objects)
            (folder / 'Annotations' / f'{stem}.xml').write_text(f'<annotation>{objects_text}</annotation>', 'utf-8')
    if classes == 'class_names.txt':
        (folder / classes).write_text('\n'.join(['__ignore__', '_background_', *names]) + '\n', encoding='utf-8')
    for split, stems in (lists or {}).items():
        file = folder / 'ImageSets' / 'Segmentation' / f'{split}.txt'
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text('\n'.join(stems) + '\n', encoding='utf-8')


def write_object_masks(folder: Path, pictures: list[Picture], split: str | None = None, by_class: bool = True) -> None:
    """Folders as the nuclei of the Data Science Bowl come; with classes as folders in masks/."""
    for picture in pictures:
        home = folder / split if split else folder
        home = home / os.path.splitext(picture.name)[0]
        picture.save(home / 'images' / picture.name)
        (home / 'masks').mkdir(exist_ok=True)
        for number, (name, shape) in enumerate(picture.objects):
            place = home / 'masks' / name if by_class else home / 'masks'
            place.mkdir(exist_ok=True)
            Image.fromarray(shape.astype(np.uint8) * 255).save(place / f'{number:04d}.png')
