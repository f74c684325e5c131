"""Coloured shapes that overlap: a data set out of a seed, for tests, smoke runs and a look at whether training works.

What a shape is called depends on its outline alone; place, size, rotation, colour and texture are random, and shapes
hide parts of those drawn before them, so that a model has to tell instances apart and to look at form.
"""
from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from modelscope_fastinst.data.augment import to_tensor
from modelscope_fastinst.structures import Sample, Target

SHAPES = ('ellipse', 'rectangle', 'triangle', 'star', 'ring', 'cross')
_LEAST_VISIBLE = 0.3    # share of a shape that must stay in sight: what would hide more of it is not drawn
_LEAST_PIXELS = 12
_LEAST_CONTRAST = 60    # grey values between a shape and the background's mean


class ShapesDataset(Dataset):
    """Images of coloured shapes on a textured, noisy background.

    Args:
        num_images: length of the data set.
        size: (height, width) of the images in pixels, or one number for both.
        num_classes: how many of ``SHAPES`` appear, 1 to 6.
        seed: sample i depends on (seed, i) and the arguments below alone, whatever ``num_images`` is; let validation
            have another seed than training.
        objects: (least, most) shapes to try to draw into an image; one that would hide too much of another is left out.
        radius: (least, most) radius of a shape, as a share of the image's short side.
        transform: ``InferenceTransform``, ``TrainTransform``, or any ``Sample -> Sample``.

    Attributes:
        classes: the names of the classes.
        sizes: (height, width) of each image in pixels, before the transform.
    """

    def __init__(self, num_images: int, size: int | Sequence[int] = (160, 192), num_classes: int = 4, seed: int = 0,
                 objects: Sequence[int] = (2, 7), radius: Sequence[float] = (0.1, 0.25),
                 transform: Callable[[Sample], Sample] | None = None) -> None:
        if not 1 <= num_classes <= len(SHAPES):
            raise ValueError(f'num_classes must be 1 to {len(SHAPES)}, got {num_classes}')
        if num_images < 1 or not 1 <= objects[0] <= objects[1]:
            raise ValueError(f'need at least one image and one object, got num_images={num_images}, objects={objects}')
        self.num_images = num_images
        self.size = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        if min(self.size) < 32:
            raise ValueError(f'size must be at least 32 pixels, got {self.size}')
        self.shapes = SHAPES[:num_classes]
        self.classes = list(self.shapes)
        self.seed, self.objects, self.radius = seed, tuple(objects), tuple(radius)
        self.transform = transform

    @property
    def sizes(self) -> list[tuple[int, int]]:
        return [self.size] * self.num_images

    def __len__(self) -> int:
        return self.num_images

    def __getitem__(self, index: int) -> Sample:
        if not -self.num_images <= index < self.num_images:
            raise IndexError(f'sample {index} of {self.num_images}')
        index %= self.num_images
        image, labels, masks = self.draw(index)
        sample = Sample(to_tensor(image), Target(torch.from_numpy(labels), torch.from_numpy(masks)), index + 1,
                        _file_name(index), self.size, _annotations(labels, masks))
        return sample if self.transform is None else self.transform(sample)

    def draw(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """-> uint8 ``H x W x 3`` RGB, int64 labels ``[N]``, bool ``N x H x W`` of what is visible; N at least 1."""
        rng = np.random.default_rng([self.seed, index])
        return self._draw_shapes(rng, _background(rng, *self.size))

    def _draw_shapes(self, rng: np.random.Generator,
                     image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draws shapes onto ``image``, float32 ``H x W x 3``, which becomes noisy; -> as ``draw``."""
        height, width = self.size
        mean = image.mean((0, 1))
        labels: list[int] = []
        masks = np.zeros((0, height, width), bool)
        areas = np.zeros(0)
        wanted = rng.integers(self.objects[0], self.objects[1] + 1)
        tries = 0
        while tries < wanted or not labels:
            tries += 1
            label = int(rng.integers(len(self.shapes)))
            drawn = _outline(rng, SHAPES[label], height, width, self.radius)
            color = _texture(rng, mean, drawn)
            visible = masks & ~drawn
            hidden = visible.sum((1, 2)) < np.maximum(_LEAST_VISIBLE * areas, _LEAST_PIXELS)
            if drawn.sum() < _LEAST_PIXELS or hidden.any():
                continue
            image[drawn] = color
            masks, areas = np.concatenate((visible, drawn[None])), np.append(areas, drawn.sum())
            labels.append(label)
        image += 5 * rng.standard_normal(image.shape, np.float32)
        return np.clip(np.rint(image), 0, 255).astype(np.uint8), np.array(labels, np.int64), masks

    def write_coco(self, folder: str | os.PathLike, split: str = 'train') -> tuple[str, str]:
        """Writes all images and a COCO annotation file, without the transform, in ModelScope's folder layout.

        Returns:
            (annotation file, image folder), as ``find_coco(folder, split)`` finds them.
        """
        from PIL import Image
        image_dir = os.path.join(os.fspath(folder), 'images', split)
        annotation_file = os.path.join(os.fspath(folder), 'annotations', f'instances_{split}.json')
        os.makedirs(image_dir, exist_ok=True)
        os.makedirs(os.path.dirname(annotation_file), exist_ok=True)
        content: dict = {'images': [], 'annotations': [],
                         'categories': [{'id': label + 1, 'name': name} for label, name in enumerate(self.classes)]}
        for index in range(self.num_images):
            image, labels, masks = self.draw(index)
            Image.fromarray(image).save(os.path.join(image_dir, _file_name(index)))
            content['images'].append({'id': index + 1, 'file_name': _file_name(index), 'height': self.size[0],
                                      'width': self.size[1]})
            for record in _annotations(labels, masks):
                content['annotations'].append({**record, 'id': len(content['annotations']) + 1, 'image_id': index + 1,
                                               'category_id': record['category_id'] + 1})
        with open(annotation_file + '.part', 'w', encoding='utf-8') as file:
            json.dump(content, file)
        os.replace(annotation_file + '.part', annotation_file)
        return annotation_file, image_dir


def _file_name(index: int) -> str:
    return f'{index:06d}.png'


def _annotations(labels: np.ndarray, masks: np.ndarray) -> list[dict]:
    from pycocotools import mask as coco_mask
    records = []
    for index, (label, mask) in enumerate(zip(labels, masks)):
        rle = coco_mask.encode(np.asfortranarray(mask.view(np.uint8)))
        rle['counts'] = rle['counts'].decode('ascii')
        records.append({'id': index + 1, 'category_id': int(label), 'segmentation': rle, 'area': float(mask.sum()),
                        'bbox': coco_mask.toBbox(rle).tolist(), 'iscrowd': 0})
    return records


def _outline(rng: np.random.Generator, shape: str, height: int, width: int, radii: Sequence[float]) -> np.ndarray:
    """-> bool ``H x W``; the centre lies inside the image, the border may not."""
    radius = float(rng.uniform(*radii)) * min(height, width)
    center_y, center_x = float(rng.uniform(0.05, 0.95)) * height, float(rng.uniform(0.05, 0.95)) * width
    angle, aspect = float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(0.6, 1))
    cosine, sine = math.cos(angle) / radius, math.sin(angle) / radius
    y, x = _pixel_centers(height, width)
    y, x = y - center_y, x - center_x
    x, y = cosine * x + sine * y, cosine * y - sine * x
    distance = np.hypot(x, y)
    if shape == 'ellipse':
        return np.hypot(x, y / aspect) <= 1
    if shape == 'rectangle':
        return (np.abs(x) <= 0.9) & (np.abs(y) <= 0.9 * aspect)
    if shape == 'triangle':
        return (y <= 0.6) & (np.abs(x) * math.sqrt(3) - y <= 1.1)
    if shape == 'star':
        ray = 2 * np.abs(np.arctan2(y, x) * (5 / (2 * math.pi)) % 1 - 0.5)  # 1 at a point of the star, 0 in between
        return distance <= 0.45 + 0.7 * ray * ray
    if shape == 'ring':
        return (distance <= 1) & (distance >= 0.55)
    return (np.minimum(np.abs(x), np.abs(y)) <= 0.25) & (np.maximum(np.abs(x), np.abs(y)) <= 1)


def _background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """-> float32 ``H x W x 3``: soft clouds of little contrast around one random colour."""
    from PIL import Image
    base = rng.uniform(40, 215, 3)
    image = np.tile(base.astype(np.float32), (height, width, 1))
    for cells, strength in ((3, 25), (12, 12)):
        clouds = Image.fromarray(rng.uniform(-strength, strength, (cells, cells)).astype(np.float32))
        clouds = np.asarray(clouds.resize((width, height), Image.Resampling.BICUBIC))
        image += clouds[..., None] * rng.uniform(0.6, 1, 3).astype(np.float32)
    return image


def _texture(rng: np.random.Generator, background: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """-> float32 ``n x 3``, for each drawn pixel: a colour that stands out from the background, with faint stripes."""
    while True:
        color = rng.uniform(10, 245, 3)
        if np.abs(color - background).max() >= _LEAST_CONTRAST:
            break
    y, x = np.nonzero(drawn)
    angle, period, strength = rng.uniform(0, np.pi), rng.uniform(4, 12), rng.uniform(0, 18)
    stripes = np.sin((np.cos(angle) * x + np.sin(angle) * y) * (2 * np.pi / period)) * strength
    return (color + stripes[:, None]).astype(np.float32)


def _pixel_centers(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """-> float32 y ``H x 1`` and x ``1 x W``."""
    return np.arange(height, dtype=np.float32)[:, None] + 0.5, np.arange(width, dtype=np.float32)[None] + 0.5
