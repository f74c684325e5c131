"""How long panoptic quality takes, here and word by word.

    python benchmarks/panoptic_quality.py                          # 640 x 480 pixels, 30 segments, some seconds
    python benchmarks/panoptic_quality.py --segments 100 --images 5

Panoptic maps with void are drawn, and results beside them that are shifted, partly of another class, partly missing.
Each image is compared by this package's evaluator and by the plain reading of the definition that the tests use (a mask
for every segment, and every pair of one class compared), in turn; the program prints the medians of both, their ratio,
and the largest difference of any value.
"""
from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from modelscope_fastinst.evaluation.panoptic import PanopticEvaluator  # noqa: E402
from modelscope_fastinst.structures import PanopticMap, Segment  # noqa: E402
from tests.evaluation.literal_maps import panoptic_counts, panoptic_quality  # noqa: E402

CLASSES = [f'class {number}' for number in range(20)]
THINGS = range(12)


def draw(rng: np.random.Generator, size: tuple[int, int], number: int) -> tuple[PanopticMap, PanopticMap]:
    """Ground truth and result: ragged regions around random points, one of 20 void."""
    points = rng.random((number, 2)) * size
    rows, columns = np.mgrid[:size[0], :size[1]]
    wave = 6 * np.sin(columns / 17) + 6 * np.cos(rows / 23)
    distances = np.stack([(rows - y + wave) ** 2 + (columns - x - wave) ** 2 for y, x in points])
    ids = (distances.argmin(0) + 1).astype(np.int32)
    labels = rng.integers(0, len(CLASSES), number)
    truth = np.where(np.isin(ids, rng.choice(number, max(1, number // 20), replace=False) + 1), 0, ids)
    found = np.roll(ids, int(rng.integers(1, 12)), axis=1)
    found[np.isin(found, rng.choice(number, max(1, number // 10), replace=False) + 1)] = 0
    other = np.where(rng.random(number) < 0.1, (labels + 1) % len(CLASSES), labels)
    return _map(truth, labels), _map(found, other)


def _map(ids: np.ndarray, labels: np.ndarray) -> PanopticMap:
    areas = zip(*(part.tolist() for part in np.unique(ids, return_counts=True)), strict=True)
    there = [(number, area) for number, area in areas if number]
    return PanopticMap(ids, [Segment(number, int(labels[number - 1]), 1.0, labels[number - 1] in THINGS, area,
                                     (0, 0, 1, 1)) for number, area in there])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=20)
    parser.add_argument('--segments', type=int, default=30)
    parser.add_argument('--size', type=int, nargs=2, default=(480, 640), metavar=('HEIGHT', 'WIDTH'))
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    evaluator = PanopticEvaluator(CLASSES, THINGS)
    ours, plain, counts = [], [], np.zeros((len(CLASSES), 4))
    for number in range(args.images):
        truth, found = draw(rng, tuple(args.size), args.segments)
        start = time.perf_counter()
        evaluator.add(number, truth, found)
        ours.append(time.perf_counter() - start)
        start = time.perf_counter()
        counts += np.array(panoptic_counts([(truth, found)], len(CLASSES)))
        plain.append(time.perf_counter() - start)
    values = evaluator.evaluate()
    expected = panoptic_quality(counts.tolist(), range(len(CLASSES)))
    difference = max(abs(values[name] - one) for name, one in zip(('PQ', 'SQ', 'RQ'), expected, strict=True))
    own, other = (1000 * statistics.median(times) for times in (ours, plain))
    print(f'{args.images} images of {args.size[1]} x {args.size[0]} pixels, {args.segments} segments each: '
          f'PQ {values["PQ"]:.4f}, largest difference {difference:.1e}')
    print(f'median of an image: {own:.2f} ms here, {other:.1f} ms word by word: {other / own:.1f} times')


if __name__ == '__main__':
    main()
