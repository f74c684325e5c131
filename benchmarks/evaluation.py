"""How much memory a validation takes, and how long its end.

    python benchmarks/evaluation.py                                     # 5,000 images, some minutes on one core
    python benchmarks/evaluation.py --objects 20 100 --images 1000      # crowded ones
    python benchmarks/evaluation.py --network --images 500              # the trainer around a small network

Ground truth and results of images of 640 x 640 pixels are drawn, with as many objects as validation data have, and
evaluated as they come. After every 500 images the program prints the memory of the process for this package's
evaluator, and for the plain way beside it in the same run: keeping every mask as RLE and giving all of them to the
engine at the end. Each way runs in a process of its own. ``--network`` puts a small random network and the trainer's
own loader and evaluation loop in the place of drawn results.
"""
from __future__ import annotations

import argparse
import contextlib
import gc
import io
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from modelscope_fastinst.results.rle import encode_region  # noqa: E402
from modelscope_fastinst.structures import Instances  # noqa: E402

SIZE = (640, 640)
CLASSES = [f'class {number}' for number in range(10)]


def memory() -> float:
    """MiB of the process that are in memory."""
    gc.collect()
    return int(Path('/proc/self/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 2 ** 20


def ellipse(box: np.ndarray) -> tuple[dict, list[float]]:
    """A mask as RLE and its box (xyxy)."""
    left, top, right, bottom = (int(value) for value in box)
    x = (np.arange(left, right) + 0.5 - (left + right) / 2) / ((right - left) / 2)
    y = (np.arange(top, bottom) + 0.5 - (top + bottom) / 2) / ((bottom - top) / 2)
    return encode_region(x[:, None] ** 2 + y[None] ** 2 <= 1, SIZE, top, left), [left, top, right, bottom]


def draw(number: int, objects: tuple[int, int]) -> tuple[list[dict], Instances]:
    """Ground truth and results of one image: shifted, missed, of another class, out of the blue."""
    rng = np.random.default_rng(number)
    truth, found = [], []
    for _ in range(rng.integers(objects[0], objects[1] + 1)):
        corner, sides = rng.integers(0, 560, 2), rng.integers(8, 80, 2)
        box, label = np.concatenate([corner, corner + sides]), int(rng.integers(len(CLASSES)))
        truth.append({'category_id': label, 'segmentation': ellipse(box)[0]})
        if rng.random() < 0.9:
            moved = np.clip(box + rng.integers(-4, 5, 4), 0, 640)
            moved[2:] = np.maximum(moved[2:], moved[:2] + 2)
            found.append((rng.random(), label if rng.random() < 0.9 else int(rng.integers(len(CLASSES))),
                          *ellipse(np.minimum(moved, 640))))
    return truth, Instances(np.array([item[0] for item in found], np.float32),
                            np.array([item[1] for item in found], np.int64), [item[2] for item in found],
                            np.array([item[3] for item in found], np.float32).reshape(-1, 4))


def here(images: int, step: int, engine: str, objects: tuple[int, int]) -> Iterator[tuple[str, Any]]:
    """This package's evaluator."""
    from modelscope_fastinst.evaluation.coco import CocoEvaluator
    evaluator = CocoEvaluator(CLASSES, engine)
    busy = 0.0
    for number in range(images):
        truth, found = draw(number, objects)
        start = time.perf_counter()
        evaluator.add(number, SIZE, truth, found)
        busy += time.perf_counter() - start
        if number == 0 or (number + 1) % step == 0:
            yield 'memory', (number + 1 if number else 0, memory())
    start = time.perf_counter()
    value = evaluator.evaluate()['segm_mAP']
    yield 'end', (value, busy, time.perf_counter() - start, memory())


def plain(images: int, step: int, engine: str, objects: tuple[int, int]) -> Iterator[tuple[str, Any]]:
    """Every mask kept to the end; then pycocotools (or faster-coco-eval), masks and boxes."""
    from pycocotools import mask as coco_mask
    truths: list[dict] = []
    founds: list[dict] = []
    for number in range(images):
        truth, found = draw(number, objects)
        for record in truth:
            truths.append({**record, 'id': len(truths) + 1, 'image_id': number, 'iscrowd': 0,
                           'area': float(coco_mask.area(record['segmentation'])),
                           'bbox': coco_mask.toBbox(record['segmentation']).tolist()})
        for score, label, mask, box in zip(found.scores, found.labels, found.masks, found.boxes, strict=True):
            left, top, right, bottom = box.tolist()
            founds.append({'id': len(founds) + 1, 'image_id': number, 'category_id': int(label), 'score': float(score),
                           'segmentation': mask, 'area': float(coco_mask.area(mask)), 'iscrowd': 0,
                           'bbox': [left, top, right - left, bottom - top]})
        if number == 0 or (number + 1) % step == 0:
            yield 'memory', (number + 1 if number else 0, memory())
    start = time.perf_counter()
    if engine == 'pycocotools':
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    else:
        from faster_coco_eval.core.coco import COCO
        from faster_coco_eval.core.faster_eval_api import COCOeval_faster as COCOeval
    value = 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        for kind in ('bbox', 'segm'):
            pair = []
            for records in (truths, founds):
                dataset = COCO()
                dataset.dataset = {
                    'images': [{'id': number, 'height': SIZE[0], 'width': SIZE[1]} for number in range(images)],
                    'annotations': records,
                    'categories': [{'id': index, 'name': name} for index, name in enumerate(CLASSES)]}
                dataset.createIndex()
                pair.append(dataset)
            evaluation = COCOeval(*pair, kind)
            evaluation.evaluate()
            evaluation.accumulate()
            precision = evaluation.eval['precision'][..., 0, 2]
            value = float(precision[precision > -1].mean())
    yield 'end', (value, 0.0, time.perf_counter() - start, memory())


def network(images: int, step: int, engine: str, objects: tuple[int, int]) -> Iterator[tuple[str, Any]]:
    """The trainer's loader and evaluation loop around a small random network, with this package's evaluator."""
    import torch
    from modelscope.utils.logger import get_logger

    from modelscope_fastinst.data.shapes import ShapesDataset
    from modelscope_fastinst.plugin.metric import FastInstCocoMetric
    from tests.plugin.trainer_runs import trainer_for
    get_logger().setLevel('ERROR')
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_for(Path(folder), {'preprocessor.min_size': 640, 'preprocessor.max_size': 640},
                              train_dataset=None,
                              eval_dataset=ShapesDataset(images, size=640, num_classes=2, objects=objects,
                                                         radius=(0.01, 0.05)), classes=['ellipse', 'rectangle'])
        metric = FastInstCocoMetric(engine=engine)
        metric.trainer = trainer
        add, rows = metric.add, []

        def counted(outputs: Any, batch: Any) -> None:
            add(outputs, batch)
            done = len(metric.evaluator)
            if done == 1 or done % step == 0:
                rows.append((done if done > 1 else 0, memory()))
        metric.add = counted
        start = time.perf_counter()
        values = trainer.evaluation_loop(trainer.get_eval_data_loader(), [metric])
        for row in rows:
            yield 'memory', row
        yield 'end', (values['segm_mAP'], time.perf_counter() - start, 0.0, memory())


def _run(way: str, options: tuple, connection: Any) -> None:
    for item in {'here': here, 'plain': plain, 'network': network}[way](*options):
        connection.send(item)


def measured(way: str, images: int, step: int, engine: str, objects: tuple[int, int]) -> None:
    """Runs one way in a new process and prints what it says."""
    context = multiprocessing.get_context('spawn')
    connection, far_end = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(way, (images, step, engine, objects), far_end))
    process.start()
    far_end.close()   # so that the end of the process is the end of what it says
    first = None
    print(f'{way}, {engine}, {objects[0]} to {objects[1]} objects an image')
    while True:
        try:
            kind, values = connection.recv()
        except EOFError:
            raise SystemExit(f'{way}, {engine}: the process ended with an error') from None
        if kind == 'end':
            break
        first = values[1] if first is None else first
        print(f'  {values[0]:>6} images  {values[1]:8.1f} MiB  (+{values[1] - first:.1f})', flush=True)
    process.join()
    print(f'  segm AP {values[0]:.12f}; {values[1]:.1f} s in all while images came, {values[2]:.1f} s at the end; '
          f'{values[3]:.1f} MiB after it (+{values[3] - first:.1f})', flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', type=int, default=5000)
    parser.add_argument('--step', type=int, default=500, help='images between two lines')
    parser.add_argument('--objects', type=int, nargs=2, default=(2, 12), metavar=('LEAST', 'MOST'),
                        help='objects in an image (COCO has 7 on average)')
    parser.add_argument('--engines', nargs='+', default=['pycocotools', 'faster-coco-eval'])
    parser.add_argument('--ways', nargs='+', default=['here', 'plain'], choices=['here', 'plain'])
    parser.add_argument('--network', action='store_true', help='the trainer around a small network instead')
    args = parser.parse_args()
    for engine in args.engines:
        for way in ['network'] if args.network else args.ways:
            measured(way, args.images, args.step, engine, tuple(args.objects))


if __name__ == '__main__':
    main()
