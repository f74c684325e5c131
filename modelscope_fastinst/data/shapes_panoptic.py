"""Shapes (things) over textured ground (stuff): a data set out of a seed for panoptic and semantic segmentation.

An image's ground is divided into regions of different patterns; what a pattern is called depends on its form alone, not
on its colours. Over it lie the shapes of ``data.shapes``. Every pixel belongs to a shape or to a pattern, but for a
void margin of two pixels between patterns if one is asked for.
"""
from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence

import numpy as np
import torch

from modelscope_fastinst.data.augment import to_tensor
from modelscope_fastinst.data.shapes import ShapesDataset
from modelscope_fastinst.structures import VOID, PanopticMap, Sample, Segment, SemanticMap, Target

PATTERNS = ('stripes', 'checks', 'dots')
_TASKS = ('panoptic', 'semantic')
_LEAST_SHARE = 0.01   # of the image: a smaller rest of a pattern is void
_LEAST_CONTRAST = 45   # grey values between the two colours of a pattern


class PanopticShapes(ShapesDataset):
    """Images of shapes on ground of several patterns, with their panoptic or semantic ground truth.

    Classes are the shapes and then the patterns; the shapes are the things.

    Args:
        num_images, size, num_classes, seed, objects, radius, transform: as in ``ShapesDataset``; ``num_classes`` counts
            the shapes.
        task: what samples hold: 'panoptic' (a mask a segment and a ``PanopticMap``) or 'semantic' (a mask a class and a
            ``SemanticMap``).
        void: leave pixels close to a border between patterns without a class.

    Attributes:
        things: names of the thing classes.
    """

    def __init__(self, num_images: int, size: int | Sequence[int] = (160, 192), num_classes: int = 4, seed: int = 0,
                 objects: Sequence[int] = (2, 7), radius: Sequence[float] = (0.1, 0.25),
                 transform: Callable[[Sample], Sample] | None = None, *, task: str = 'panoptic',
                 void: bool = False) -> None:
        super().__init__(num_images, size, num_classes, seed, objects, radius, transform)
        if task not in _TASKS:
            raise ValueError(f'task is {task!r}; it must be one of {", ".join(_TASKS)}')
        self.task, self.void = task, void
        self.things = list(self.shapes)
        self.classes = [*self.things, *PATTERNS]

    def __getitem__(self, index: int) -> Sample:
        if not -self.num_images <= index < self.num_images:
            raise IndexError(f'sample {index} of {self.num_images}')
        index %= self.num_images
        image, truth = self.draw_map(index)
        if self.task == 'panoptic':
            labels = [segment.label for segment in truth.segments]
            masks = [truth.ids == segment.id for segment in truth.segments]
        else:
            truth = semantic_map(truth)
            labels = [int(label) for label in np.unique(truth.labels) if label != VOID]
            masks = [truth.labels == label for label in labels]
        target = Target(torch.tensor(labels, dtype=torch.int64), torch.from_numpy(np.stack(masks)))
        sample = Sample(to_tensor(image), target, index + 1, f'{index:06d}.png', self.size, truth=truth)
        return sample if self.transform is None else self.transform(sample)

    def draw_map(self, index: int) -> tuple[np.ndarray, PanopticMap]:
        """-> uint8 ``H x W x 3`` RGB and its ground truth; segment ids count from 1, shapes first."""
        rng = np.random.default_rng([self.seed, index])
        ground, patterns = _ground(rng, *self.size)
        image, labels, masks = self._draw_shapes(rng, ground)
        if self.void:
            patterns = _without_borders(patterns)
        ids = np.zeros(self.size, np.int32)
        segments = []

        def add(mask: np.ndarray, label: int) -> None:
            ids[mask] = len(segments) + 1
            segments.append(Segment(len(segments) + 1, label, 1.0, label < len(self.things), int(mask.sum()),
                                    _box(mask)))

        for label, mask in zip(labels.tolist(), masks, strict=True):
            add(mask, label)
        free = ~masks.any(0)
        for pattern in range(len(PATTERNS)):
            mask = free & (patterns == pattern)
            if mask.mean() >= _LEAST_SHARE:
                add(mask, len(self.things) + pattern)
        return image, PanopticMap(ids, segments)

    def write_coco_panoptic(self, folder: str | os.PathLike, split: str = 'train') -> tuple[str, str, str]:
        """Writes all images, without the transform, and their ground truth in the layout of COCO panoptic.

        Returns:
            (annotation file, folder of the panoptic PNGs, image folder): ``annotations/panoptic_{split}.json``,
            ``panoptic_{split}/`` and ``{split}/``.
        """
        from PIL import Image
        annotation_file = os.path.join(os.fspath(folder), 'annotations', f'panoptic_{split}.json')
        panoptic_dir, image_dir = (os.path.join(os.fspath(folder), name) for name in (f'panoptic_{split}', split))
        for one in (os.path.dirname(annotation_file), panoptic_dir, image_dir):
            os.makedirs(one, exist_ok=True)
        content: dict = {'images': [], 'annotations': [],
                         'categories': [{'id': label + 1, 'name': name, 'isthing': int(name in self.things)}
                                        for label, name in enumerate(self.classes)]}
        for index in range(self.num_images):
            image, truth = self.draw_map(index)
            name = f'{index:06d}.png'
            Image.fromarray(image).save(os.path.join(image_dir, name))
            # As COCO does it: red + 256 * green + 256 ** 2 * blue is the segment's id.
            Image.fromarray(np.stack([truth.ids % 256, truth.ids // 256 % 256, truth.ids // 65536],
                                     axis=-1).astype(np.uint8)).save(os.path.join(panoptic_dir, name))
            content['images'].append({'id': index + 1, 'file_name': name, 'height': self.size[0],
                                      'width': self.size[1]})
            content['annotations'].append({'image_id': index + 1, 'file_name': name, 'segments_info': [
                {'id': one.id, 'category_id': one.label + 1, 'area': one.area, 'bbox': list(one.bbox), 'iscrowd': 0}
                for one in truth.segments]})
        with open(annotation_file + '.part', 'w', encoding='utf-8') as file:
            json.dump(content, file)
        os.replace(annotation_file + '.part', annotation_file)
        return annotation_file, panoptic_dir, image_dir


def semantic_map(truth: PanopticMap) -> SemanticMap:
    """The class of each pixel of a panoptic map."""
    table = np.full(max((one.id for one in truth.segments), default=0) + 1, VOID, np.int16)
    for one in truth.segments:
        table[one.id] = one.label
    return SemanticMap(table[truth.ids])


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The tight box of a mask with at least one pixel: (x, y, width, height)."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (int(columns[0]), int(rows[0]), int(columns[-1] - columns[0]) + 1, int(rows[-1] - rows[0]) + 1)


def _ground(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """-> float32 ``H x W x 3`` and the index of each pixel's pattern, ``H x W``: two or three regions.

    Each pixel belongs to the nearest of a few random points, which gives regions with straight borders.
    """
    y, x = np.mgrid[:height, :width].astype(np.float32) + 0.5
    count = int(rng.integers(2, 4))
    points = rng.uniform(0, 1, (count, 2)) * (height, width)
    nearest = ((y[..., None] - points[:, 0]) ** 2 + (x[..., None] - points[:, 1]) ** 2).argmin(-1)
    kinds = rng.permutation(len(PATTERNS))[:count]
    image = np.zeros((height, width, 3), np.float32)
    for region, kind in enumerate(kinds):
        inside = nearest == region
        image[inside] = _pattern(rng, PATTERNS[kind], y, x)[inside]
    return image, kinds[nearest]


def _pattern(rng: np.random.Generator, kind: str, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """-> float32 ``H x W x 3``: a pattern of two colours, turned at random, with a period of 8 to 16 pixels."""
    while True:
        dark, light = rng.uniform(20, 235, (2, 3))
        if np.abs(dark - light).max() >= _LEAST_CONTRAST:
            break
    angle, period = rng.uniform(0, np.pi), rng.uniform(8, 16)
    u = (np.cos(angle) * x + np.sin(angle) * y) / period + rng.uniform()
    v = (np.cos(angle) * y - np.sin(angle) * x) / period + rng.uniform()
    if kind == 'stripes':
        share = (u % 1 < 0.5).astype(np.float32)
    elif kind == 'checks':
        share = ((u % 1 < 0.5) ^ (v % 1 < 0.5)).astype(np.float32)
    else:
        share = (np.hypot(u % 1 - 0.5, v % 1 - 0.5) < 0.3).astype(np.float32)
    return (dark + share[..., None] * (light - dark)).astype(np.float32)


def _without_borders(patterns: np.ndarray) -> np.ndarray:
    """The patterns with -1 at pixels that have a pixel of another pattern beside them."""
    out = patterns.astype(np.int64)
    for axis in (0, 1):
        change = np.diff(patterns, axis=axis) != 0
        before = [slice(None), slice(None)]
        after = [slice(None), slice(None)]
        before[axis], after[axis] = slice(None, -1), slice(1, None)
        out[tuple(before)][change] = -1
        out[tuple(after)][change] = -1
    return out
