"""Drawn slides whose nuclei lie on the seams between tiles on purpose, and how well a result fits them."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from modelscope_fastinst.data.slide import Slide, draw_slide
from modelscope_fastinst.results.rle import encode_region
from modelscope_fastinst.results.tiling import Grid

# Where a nucleus lies: across a vertical border of a tile, a horizontal one, the corner of a tile, or anywhere.
KINDS = ('vertical seam', 'horizontal seam', 'crossing', 'anywhere')


@dataclass
class Scene:
    """A slide, and for each of its nuclei the kind of its place."""
    slide: Slide
    kinds: list[str]

    @property
    def bgr(self) -> np.ndarray:
        return self.slide.image[:, :, ::-1]


@dataclass
class Fit:
    """How a result fits a scene: for each nucleus the best IoU, and the number of instances that fit it."""
    ious: np.ndarray
    matches: np.ndarray
    kinds: np.ndarray

    def mean(self, *kinds: str) -> float:
        return float(self.ious[np.isin(self.kinds, kinds)].mean())


def seam_scene(size: tuple[int, int], tile: int, overlap: float, count: int, seed: int = 0) -> Scene:
    """A slide of ``count`` nuclei, a quarter of them of each kind of place, that do not touch."""
    grid = Grid.build(size, (tile, tile), overlap)
    random = np.random.default_rng(seed)
    vertical, horizontal = ([edge for span in spans for edge in span if 0 < edge < length]
                            for spans, length in ((grid.columns, size[1]), (grid.rows, size[0])))
    places: list[tuple[float, float, float]] = []
    while len(places) < count:
        kind, radius = KINDS[len(places) % len(KINDS)], random.uniform(12, 20)
        y, x = random.uniform(20, size[0] - 20), random.uniform(20, size[1] - 20)
        if kind in ('horizontal seam', 'crossing'):
            y = random.choice(horizontal) + random.uniform(-8, 8)
        if kind in ('vertical seam', 'crossing'):
            x = random.choice(vertical) + random.uniform(-8, 8)
        inside = 20 < y < size[0] - 20 and 20 < x < size[1] - 20
        if inside and all((y - b) ** 2 + (x - a) ** 2 > (1.3 * (radius + other) + 3) ** 2 for b, a, other in places):
            places.append((y, x, radius))
    return Scene(draw_slide(*size, places, seed), [KINDS[number % len(KINDS)] for number in range(count)])


def fit(scene: Scene, result: dict[str, Any]) -> Fit:
    """Compares a result with masks as RLE with what was drawn."""
    from pycocotools import mask as coco_mask
    from scipy.ndimage import find_objects
    labels = scene.slide.labels
    truth = [encode_region((labels[place] == number).T, labels.shape, place[0].start, place[1].start)
             for number, place in enumerate(find_objects(labels), 1)]
    ious = np.asarray(coco_mask.iou(result['masks'], truth, [0] * len(truth))).reshape(-1, len(truth))
    return Fit(ious.max(0), (ious >= 0.5).sum(0), np.array(scene.kinds))
