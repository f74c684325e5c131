"""How long `visualize.draw_instances` takes for many instances on large pictures, beside a plain implementation.

    python benchmarks/drawing.py                          # 100 instances at 640x480 and at 12 megapixels
    python benchmarks/drawing.py --sizes 4000x3000 --instances 20 100 --repeats 7 --json result.json

Two ways run in turn in the same process on the same masks: *ours*; and *plain*, as one would write it first: every mask
decoded at the size of the picture, tinted and outlined there, one after the other, with a label at its top left. The
plain way draws less (one line, labels on top of each other). Masks come as COCO RLE, as from ``mask_format='rle'``, and
as arrays. Times are medians; a ratio is the median of the ratios of neighbouring calls, so that a machine that speeds
up or slows down does not show in it.
"""
from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


def scene(height: int, width: int, instances: int, seed: int = 0) -> tuple[np.ndarray, list[np.ndarray]]:
    """A colourful picture and the masks of round objects, a fifth of its shorter side wide, all over it."""
    import cv2
    chance = np.random.default_rng(seed)
    coarse = chance.integers(0, 256, (max(2, height // 40), max(2, width // 40), 3), dtype=np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    turn = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    masks = []
    for _ in range(instances):
        radius = chance.uniform(0.04, 0.14) * min(height, width)
        bumps = 1 + 0.15 * np.sin(3 * turn + chance.uniform(0, 6)) + 0.08 * np.sin(7 * turn + chance.uniform(0, 6))
        points = np.stack([chance.uniform(0, width) + radius * bumps * np.cos(turn) * chance.uniform(0.6, 1),
                           chance.uniform(0, height) + radius * bumps * np.sin(turn)], 1)
        mask = np.zeros((height, width), np.uint8)
        cv2.fillPoly(mask, [np.rint(points).astype(np.int32)], 1)
        masks.append(mask)
    return image, masks


def draw_plainly(image: np.ndarray, scores: list[float], labels: list[str], masks: list[Any],
                 boxes: np.ndarray) -> np.ndarray:
    """Each instance at the size of the picture."""
    import cv2
    from PIL import Image, ImageDraw, ImageFont
    from pycocotools import mask as coco_mask

    from modelscope_fastinst.visualize import palette
    canvas = image.copy()
    unit = np.sqrt(image.shape[0] * image.shape[1]) / 550
    font = ImageFont.load_default(max(9, round(13 * unit)))
    for mask, color in zip(masks, palette(len(masks)), strict=True):
        whole = (coco_mask.decode(mask) if isinstance(mask, dict) else mask) > 0
        canvas[whole] = (0.62 * canvas[whole] + 0.38 * np.array(color)).astype(np.uint8)
        contours, _ = cv2.findContours(whole.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(canvas, contours, -1, color, max(1, round(1.6 * unit)), cv2.LINE_AA)
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    for box, label, score in zip(boxes.tolist(), labels, scores, strict=True):
        draw.text(box[:2], f'{label} {score:.2f}', fill='white', font=font)
    return np.asarray(picture)


def measure(size: tuple[int, int], instances: int, repeats: int) -> list[dict[str, Any]]:
    """Seconds of either way, and their ratio, for masks of either kind."""
    from pycocotools import mask as coco_mask

    from modelscope_fastinst.visualize import draw_instances
    width, height = size
    image, arrays = scene(height, width, instances)
    runs = [coco_mask.encode(np.asfortranarray(mask)) for mask in arrays]
    boxes = np.array([coco_mask.toBbox(run) for run in runs])
    boxes[:, 2:] += boxes[:, :2]
    scores, labels = np.linspace(0.99, 0.3, instances).tolist(), ['nucleus'] * instances
    rows = []
    for kind, masks in (('rle', runs), ('array', arrays)):
        seconds: dict[str, list[float]] = {'ours': [], 'plain': []}
        for turn in range(repeats + 1):
            for name, draw in (('ours', draw_instances), ('plain', draw_plainly)):
                start = time.perf_counter()
                draw(image, scores, labels, masks, boxes)
                if turn:   # the first one warms up
                    seconds[name].append(time.perf_counter() - start)
        ratio = statistics.median(plain / ours for plain, ours in zip(seconds['plain'], seconds['ours'], strict=True))
        rows.append({'size': f'{width}x{height}', 'instances': instances, 'masks': kind,
                     **{name: statistics.median(values) for name, values in seconds.items()}, 'ratio': ratio})
        print('{size:>10} {instances:4d} instances, {masks:5}: ours {ours:6.3f} s, plain {plain:6.3f} s, '
              '{ratio:4.1f} times as fast'.format(**rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--sizes', nargs='+', default=['640x480', '4000x3000'], metavar='WxH')
    parser.add_argument('--instances', nargs='+', type=int, default=[100])
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--json', type=Path, help='write the figures to this file')
    arguments = parser.parse_args()
    print(f'{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}' if hasattr(os, 'getloadavg') else '', flush=True)
    rows = [row for size in arguments.sizes for number in arguments.instances
            for row in measure(tuple(int(side) for side in size.split('x')), number, arguments.repeats)]
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + '\n', 'utf-8')


if __name__ == '__main__':
    sys.exit(main())
