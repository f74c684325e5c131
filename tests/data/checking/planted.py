"""A small, faultless COCO data set, and one way to plant each kind of fault in it.

The check is to run with the sizes of ``MODEL``, at which the images are looked at as they are.
"""
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from modelscope_fastinst.data.image import EXIF_ORIENTATION

MODEL = {'num_queries': 6, 'min_size': 72, 'max_size': 96}
HEIGHT, WIDTH = 72, 96
BOLT, NUT = (4, 4, 20, 20), (60, 40, 20, 24)   # x, y, width, height

# (code, split, file relative to the data set, item)
Expected = tuple[str, str, str, str]


class Planted:
    """The data set under ``root``; ``save()`` writes what it has become."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rng = np.random.default_rng(7)
        self.content: dict[str, dict] = {}
        for split, number in (('train', 4), ('val', 2)):
            self.content[split] = {'images': [], 'annotations': [],
                                   'categories': [{'id': 1, 'name': 'bolt'}, {'id': 2, 'name': 'nut'}]}
            (root / 'images' / split).mkdir(parents=True)
            for _ in range(number):
                self.image(split, [(1, BOLT), (2, NUT)])

    def save(self) -> Path:
        (self.root / 'annotations').mkdir(exist_ok=True)
        for split, content in self.content.items():
            (self.root / self.file(split)).write_text(json.dumps(content), 'utf-8')
        return self.root

    @staticmethod
    def file(split: str) -> str:
        return f'annotations/instances_{split}.json'

    def picture(self, height: int = HEIGHT, width: int = WIDTH) -> Image.Image:
        return Image.fromarray(self.rng.integers(0, 255, (height, width, 3), np.uint8))

    def image(self, split: str, objects=((1, BOLT),), picture: Image.Image | None = None, suffix: str = '.png',
              size: tuple[int, int] | None = None, **options) -> int:
        """Adds an image with objects (category, box); returns its id."""
        images = self.content[split]['images']
        one = 100 + len(images)
        picture = self.picture() if picture is None else picture
        picture.save(self.path(split, one, suffix), **options)
        height, width = (picture.height, picture.width) if size is None else size
        images.append({'id': one, 'file_name': f'{one}{suffix}', 'height': height, 'width': width})
        for category, box in objects:
            self.object(split, one, category, box)
        return one

    def object(self, split: str, image: int, category: int, box: tuple[float, ...], **changes) -> str:
        """Adds a rectangle to an image; returns its name in the findings."""
        annotations = self.content[split]['annotations']
        x, y, width, height = box
        annotations.append({'id': 1000 + len(annotations), 'image_id': image, 'category_id': category, 'iscrowd': 0,
                            'segmentation': [[x, y, x + width, y, x + width, y + height, x, y + height]],
                            'bbox': list(box), 'area': width * height, **changes})
        return f'annotation {annotations[-1]["id"]}'

    def category(self, name: str, splits=('train', 'val')) -> int:
        one = 1 + max(category['id'] for split in self.content.values() for category in split['categories'])
        for split in splits:
            self.content[split]['categories'].append({'id': one, 'name': name})
        return one

    def path(self, split: str, image: int, suffix: str = '.png') -> Path:
        return self.root / 'images' / split / f'{image}{suffix}'

    def place(self, split: str, image: int, suffix: str = '.png') -> str:
        return f'images/{split}/{image}{suffix}'


def unknown_category(data: Planted) -> Expected:
    return 'bad-record', 'train', data.file('train'), data.object('train', data.image('train'), 77, NUT)


def two_points(data: Planted) -> Expected:
    item = data.object('train', data.image('train'), 2, NUT, segmentation=[[60, 40, 80, 60]])
    return 'bad-outline', 'train', data.file('train'), item


def out_of_image(data: Planted) -> Expected:
    item = data.object('val', data.image('val'), 2, (85, 40, 20, 20))
    return 'outside-image', 'val', data.file('val'), item


def thinner_than_a_pixel(data: Planted) -> Expected:
    item = data.object('train', data.image('train'), 2, (60.1, 40, 0.2, 20), area=4)
    return 'no-pixels', 'train', data.file('train'), item


def file_missing(data: Planted) -> Expected:
    image = data.image('train')
    data.path('train', image).unlink()
    return 'missing-image', 'train', data.place('train', image), f'image {image}'


def file_cut_off(data: Planted) -> Expected:
    image = data.image('val')
    file = data.path('val', image)
    file.write_bytes(file.read_bytes()[:5000])
    return 'unreadable-image', 'val', data.place('val', image), f'image {image}'


def scaled_picture(data: Planted) -> Expected:
    image = data.image('train', size=(HEIGHT + 10, WIDTH))
    return 'size-mismatch', 'train', data.place('train', image), f'image {image}'


def leaked(data: Planted) -> Expected:
    """The copy is compressed otherwise: the bytes differ, the pixels do not."""
    picture = data.picture()
    data.image('train', picture=picture, compress_level=9)
    image = data.image('val', picture=picture, suffix='.bmp')
    return 'leakage', 'val', data.place('val', image, '.bmp'), f'image {image}'


def class_missing_in_val(data: Planted) -> Expected:
    rivet = data.category('rivet', splits=['train'])
    data.image('train', [(rivet, BOLT)] * 1 + [(rivet, NUT)] + [(rivet, (30, 4, 12, 12))])
    return 'class-missing-in-val', 'val', data.file('val'), "category 'rivet'"


def class_only_in_val(data: Planted) -> Expected:
    data.image('val', [(data.category('hook'), BOLT)])
    return 'class-only-in-val', 'val', data.file('val'), "category 'hook'"


def class_only_in_train(data: Planted) -> Expected:
    ring = data.category('ring')
    data.image('train', [(ring, BOLT), (ring, NUT), (ring, (30, 4, 12, 12))])
    return 'class-only-in-train', 'train', data.file('train'), "category 'ring'"


def two_spellings(data: Planted) -> Expected:
    nut = data.category('Nut ')
    data.image('train', [(nut, BOLT), (nut, NUT), (nut, (30, 4, 12, 12))])
    data.image('val', [(nut, BOLT)])
    return 'similar-names', '', '.', "category 'Nut '"


def never_used(data: Planted) -> Expected:
    data.category('washer')
    return 'unused-class', '', '.', "category 'washer'"


def listed_twice(data: Planted) -> Expected:
    picture = data.picture()
    data.image('train', picture=picture)
    image = data.image('train', picture=picture, compress_level=9)
    return 'image-twice', 'train', data.place('train', image), f'image {image}'


def outlined_twice(data: Planted) -> Expected:
    return 'duplicate-object', 'train', data.file('train'), data.object('train', data.image('train'), 1, BOLT)


def bolt_and_nut(data: Planted) -> Expected:
    return 'two-classes', 'train', data.file('train'), data.object('train', data.image('train'), 2, BOLT)


def overlapping(data: Planted) -> Expected:
    """An IoU of 15 / 25."""
    x, y, width, height = BOLT
    item = data.object('val', data.image('val'), 1, (x + 5, y, width, height))
    return 'overlapping-objects', 'val', data.file('val'), item


def part_of_a_group(data: Planted) -> Expected:
    image = data.image('train', [(1, (2, 2, 60, 60))])
    return 'nested-object', 'train', data.file('train'), data.object('train', image, 1, (10, 10, 30, 30))


def corners_for_box(data: Planted) -> Expected:
    """x, y, right, bottom in place of x, y, width, height."""
    item = data.object('train', data.image('train'), 2, NUT, bbox=[60, 40, 80, 64])
    return 'box-mismatch', 'train', data.file('train'), item


def area_of_another_scale(data: Planted) -> Expected:
    item = data.object('train', data.image('train'), 2, NUT, area=4 * 480)
    return 'area-mismatch', 'train', data.file('train'), item


def seven_objects(data: Planted) -> Expected:
    image = data.image('train', [(1, (2 + 13 * number, 30, 10, 10)) for number in range(7)])
    return 'too-many-objects', 'train', data.file('train'), f'image {image}'


def upside_down(data: Planted) -> Expected:
    image = data.image('train', suffix='.jpg', exif=_exif(3))
    return 'exif-ambiguous', 'train', data.place('train', image, '.jpg'), f'image {image}'


def turned(data: Planted) -> Expected:
    image = data.image('train', suffix='.jpg', exif=_exif(6))
    return 'exif-rotated', 'train', data.place('train', image, '.jpg'), f'image {image}'


def nothing_in_it(data: Planted) -> Expected:
    return 'empty-image', 'val', data.file('val'), f'image {data.image("val", [])}'


def not_listed(data: Planted) -> Expected:
    data.picture().save(data.root / 'images' / 'train' / 'extra.png')
    return 'unlisted-image', 'train', 'images/train/extra.png', 'file'


def seven_by_seven(data: Planted) -> Expected:
    return 'tiny-object', 'train', data.file('train'), data.object('train', data.image('train'), 2, (60, 40, 7, 7))


def small_image(data: Planted) -> Expected:
    image = data.image('train', [(2, (2, 2, 12, 12))], data.picture(24, 32))
    return 'odd-size', 'train', data.file('train'), f'image {image}'


def rare_class(data: Planted) -> Expected:
    """One object among more than 20 of another class, but no more than 20 times as many as any planted class has."""
    shim = data.category('shim')
    data.image('train', [(shim, NUT)])
    data.image('val', [(shim, NUT)])
    for _ in range(4):
        data.image('train', [(1, (2 + 15 * number, 30, 10, 10)) for number in range(5)])
    return 'class-imbalance', 'train', data.file('train'), "category 'shim'"


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    return exif


FAULTS: list[Callable[[Planted], Expected]] = [
    unknown_category, two_points, out_of_image, thinner_than_a_pixel, file_missing, file_cut_off, scaled_picture,
    leaked, class_missing_in_val, class_only_in_val, class_only_in_train, two_spellings, never_used, listed_twice,
    outlined_twice, bolt_and_nut, overlapping, part_of_a_group, corners_for_box, area_of_another_scale, seven_objects,
    upside_down, turned, nothing_in_it, not_listed, seven_by_seven, small_image, rare_class]
