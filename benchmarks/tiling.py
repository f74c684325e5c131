"""What tiles find in a picture far larger than the network's input, how long they take and how much memory they need.

    python benchmarks/tiling.py                                   # 6000x4000, 200 nuclei, tiles of 480 pixels
    python benchmarks/tiling.py --size 2400x1600 --nuclei 100 --tiles 480 auto --json result.json

A slide is drawn with nuclei at known places, three quarters of them across the borders of the tiles of 480 pixels, and
segmented by the embedded model: in one piece, with the network's input as it is configured (*whole*), and in tiles, for
each side and overlap named. Each way runs in a process of its own, so that the peak of its memory is its own; the part
of it that holds the picture, the model and PyTorch is measured before the network runs and shown beside it.

``found`` instances, ``once`` nuclei that exactly one instance fits (IoU at least 0.5), ``AP`` as COCO has it (IoU 0.50
to 0.95; pycocotools), ``seams`` and ``others`` mean IoU of the nuclei on seams and of the others.
"""
from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
DRAWN_FOR = (480, 0.25)   # the tiles on whose seams nuclei lie


def slides():
    sys.path.insert(0, str(ROOT))
    spec = importlib.util.spec_from_file_location('slides', ROOT / 'tests' / 'slides.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module   # where its dataclasses look for themselves
    spec.loader.exec_module(module)
    return module


def average_precision(scene, result) -> float:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    from scipy.ndimage import find_objects

    from modelscope_fastinst.results.rle import encode_region
    labels = scene.slide.labels
    truth = []
    for number, place in enumerate(find_objects(labels), 1):
        inside = labels[place] == number
        truth.append({'id': number, 'image_id': 1, 'category_id': 1, 'iscrowd': 0, 'area': int(inside.sum()),
                      'bbox': [place[1].start, place[0].start, inside.shape[1], inside.shape[0]],
                      'segmentation': encode_region(inside.T, labels.shape, place[0].start, place[1].start)})
    found = [{'image_id': 1, 'category_id': 1, 'score': score, 'segmentation': mask}
             for score, mask in zip(result['scores'], result['masks'], strict=True)]
    if not found:
        return 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {'images': [{'id': 1, 'height': labels.shape[0], 'width': labels.shape[1]}],
                        'categories': [{'id': 1}], 'annotations': truth}
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), 'segm')
        evaluation.params.maxDets = [1, 10, 100 * len(truth)]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval['precision'][:, :, 0, 0, -1]
    return float(precision[precision > -1].mean())


def peak() -> float:
    """MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2 ** 20 if sys.platform == 'darwin' else 2 ** 10)


def measure(way: str, arguments) -> dict:
    """One way, in this process."""
    import torch

    import modelscope_fastinst
    from modelscope_fastinst.plugin.build import build_segmenter
    torch.set_num_threads(arguments.threads)
    width, height = arguments.size
    module = slides()
    scene = module.seam_scene((height, width), *DRAWN_FOR, arguments.nuclei, arguments.seed)
    segment = build_segmenter(modelscope_fastinst.default_model(), arguments.device)
    image = np.ascontiguousarray(scene.bgr)
    segment(image[:64, :64])   # what is loaded with the first call is not the tiles' doing
    before, start = peak(), time.perf_counter()
    options = {}
    if way != 'whole':
        side, overlap = way.split('/')
        options = {'tile': side if side == 'auto' else int(side), 'tile_overlap': float(overlap)}
    result = segment(image, mask_format='rle', **options)
    seconds, after = time.perf_counter() - start, peak()
    fits = module.fit(scene, result) if result['masks'] else None
    on_seams = module.KINDS[:3]
    return {'way': way, 'found': len(result['masks']), 'of': arguments.nuclei,
            'once': 0 if fits is None else int((fits.matches == 1).sum()), 'AP': average_precision(scene, result),
            'seams': 0.0 if fits is None else fits.mean(*on_seams),
            'others': 0.0 if fits is None else fits.mean('anywhere'),
            'seconds': seconds, 'before_mib': before, 'peak_mib': after}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--size', type=lambda text: tuple(map(int, text.split('x'))), default=(6000, 4000))
    parser.add_argument('--nuclei', type=int, default=200)
    parser.add_argument('--tiles', nargs='+', default=['480'], help="sides in pixels, or 'auto'")
    parser.add_argument('--overlaps', nargs='+', type=float, default=[0.25])
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--threads', type=int, default=os.cpu_count())
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--json', type=Path)
    parser.add_argument('--way', help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(measure(arguments.way, arguments)))
        return
    print(f'{arguments.size[0]}x{arguments.size[1]}, {arguments.nuclei} nuclei, {arguments.threads} threads, '
          f'{arguments.device}')
    print(f'{"way":>10} {"found":>6} {"once":>5} {"AP":>6} {"seams":>6} {"others":>6} {"s":>7} {"peak MiB":>9} '
          f'{"before":>7}')
    rows = []
    for way in ['whole', *(f'{tile}/{overlap}' for tile in arguments.tiles for overlap in arguments.overlaps)]:
        run = subprocess.run([sys.executable, __file__, *sys.argv[1:], '--way', way], capture_output=True, text=True)
        if run.returncode:
            sys.exit(f'{way}: {run.stderr}')
        rows.append(row := json.loads(run.stdout.splitlines()[-1]))
        print(f'{row["way"]:>10} {row["found"]:>6} {row["once"]:>5} {row["AP"]:>6.3f} {row["seams"]:>6.3f} '
              f'{row["others"]:>6.3f} {row["seconds"]:>7.1f} {row["peak_mib"]:>9.0f} {row["before_mib"]:>7.0f}',
              flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + '\n')


if __name__ == '__main__':
    main()
