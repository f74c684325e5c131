"""How long panoptic and semantic maps take from a network's output, and how much memory they need.

    python benchmarks/dense_results.py                   # 1920x1080, 100 queries, 150 classes
    python benchmarks/dense_results.py --queries 200 --repeats 5 --json result.json

*ours* is what the package does; *plain* is the straightforward way, as the authors wrote it: the masks of all queries
are upsampled to full size, and the scores of all classes are kept for the whole image. Both run in turn in one process
on the same output; times are medians, a ratio is the median of the ratios of neighbouring calls. Peak memory is what a
call adds to a process of its own. Two kinds of output: *scene* is like a trained network's (regions that share out the
image, each found by a query that is sure of it, all other queries seeing no object); *noise* is the worst case (random
logits everywhere, so that nothing can be told beforehand).
"""
from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WAYS = ('ours', 'plain')
TASKS = ('panoptic', 'semantic after resizing', 'semantic before resizing')
KINDS = ('scene', 'noise')
THINGS = frozenset(range(100))


def make_output(kind: str, args: argparse.Namespace):
    """A network's output for an image of 1920x1080 (or another size): short side 640, mask logits of stride 4."""
    import torch

    from modelscope_fastinst.data.geometry import resized_size
    from modelscope_fastinst.structures import NetworkOutput, Prediction
    generator = torch.Generator().manual_seed(0)
    size = resized_size(*original_size(args), 640, 2560)
    canvas = tuple(-(-side // 32) * 32 for side in size)
    h, w = (side // args.stride for side in canvas)
    logits = torch.randn(args.queries, args.classes + 1, generator=generator)
    masks = torch.randn(args.queries, h, w, generator=generator)
    if kind == 'scene':
        regions = min(25, args.queries // 2)
        y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing='ij')
        centers = torch.rand(regions, 2, generator=generator) * torch.tensor([h, w])
        distance = ((y - centers[:, :1, None]) ** 2 + (x - centers[:, 1:, None]) ** 2).sqrt()
        others = torch.stack([torch.cat([distance[:k], distance[k + 1:]]).min(0).values for k in range(regions)])
        found = (1.5 * (others - distance)).clamp(-9, 9)
        weak = found[torch.randint(regions, (args.queries - regions,), generator=generator)]
        masks = masks * 0.3 + torch.cat([found, weak * torch.rand(len(weak), 1, 1, generator=generator)])
        logits[torch.arange(regions), torch.randint(args.classes, (regions,), generator=generator)] += 12
        logits[regions:, -1] += 12
    else:
        logits, masks = logits * 5, masks * 4
    return NetworkOutput(Prediction(logits[None], masks[None]), [], canvas, [size])


def original_size(args: argparse.Namespace) -> tuple[int, int]:
    width, height = map(int, args.size.split('x'))
    return height, width


def ours(task: str, output, original: tuple[int, int]):
    """The package's way."""
    from modelscope_fastinst.results.panoptic import PanopticPostprocessor
    from modelscope_fastinst.results.semantic import SemanticPostprocessor
    if task == 'panoptic':
        return PanopticPostprocessor(THINGS)(output, [original])[0].ids
    return SemanticPostprocessor('before' in task)(output, [original])[0].labels


def plain(task: str, output, original: tuple[int, int]):
    """Everything at full size, in one piece."""
    import torch
    from torch.nn import functional as F
    height, width = output.sizes[0]
    classes = output.final.logits[0].softmax(-1)
    masks = F.interpolate(output.final.masks, size=output.canvas, mode='bilinear', align_corners=False)
    if 'before' in task:
        scores = torch.einsum('qc,qhw->chw', classes[:, :-1], masks[0].sigmoid())[None, :, :height, :width]
        return F.interpolate(scores, size=original, mode='bilinear', align_corners=False)[0].argmax(0)
    masks = F.interpolate(masks[..., :height, :width], size=original, mode='bilinear', align_corners=False)[0]
    if task != 'panoptic':
        return torch.einsum('qc,qhw->chw', classes[:, :-1], masks.sigmoid()).argmax(0)
    scores, labels = classes.max(-1)
    keep = (labels != classes.shape[1] - 1) & (scores > 0.8)
    scores, labels, masks = scores[keep], labels[keep], masks[keep].sigmoid()
    ids, number, stuff = torch.zeros(original, dtype=torch.int32), 0, {}
    if not len(scores):
        return ids
    winner = (scores[:, None, None] * masks).argmax(0)
    for query, label in enumerate(labels.tolist()):
        own = masks[query] >= 0.5
        mask = (winner == query) & own
        area, whole = (winner == query).sum().item(), own.sum().item()
        if not (area and whole and mask.any()) or area / whole < 0.8:
            continue
        if label not in THINGS and label in stuff:
            ids[mask] = stuff[label]
            continue
        number += 1
        stuff[label] = number
        ids[mask] = number
    return ids


def compare(task: str, output, original: tuple[int, int], repeats: int) -> dict:
    """Median seconds of both ways, their ratio, and in how many pixels the results differ."""
    import numpy as np
    import torch
    calls = {'ours': ours, 'plain': plain}
    with torch.inference_mode():
        found = {way: np.asarray(call(task, output, original)) for way, call in calls.items()}
        rounds = []
        for _ in range(repeats):
            seconds = {}
            for way, call in calls.items():
                start = time.perf_counter()
                call(task, output, original)
                seconds[way] = time.perf_counter() - start
            rounds.append(seconds)
    return {**{way: statistics.median(seconds[way] for seconds in rounds) for way in WAYS},
            'ratio': statistics.median(seconds['plain'] / seconds['ours'] for seconds in rounds),
            'pixels that differ': int((found['ours'] != found['plain']).sum()), 'values': len(np.unique(found['ours']))}


def resident(field: str) -> int:
    """VmRSS (now) or VmHWM (peak) of this process, in bytes; Linux only."""
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f'/proc/self/status has no {field}: peak memory can be measured on Linux only')


def measure_memory(way: str, task: str, kind: str, args: argparse.Namespace) -> int:
    """Bytes that one call adds at its peak."""
    import torch
    output = make_output(kind, args)
    call = {'ours': ours, 'plain': plain}[way]
    with torch.inference_mode():
        call(task, output, (16, 16))   # loads what is loaded once
        ctypes.CDLL(None).malloc_trim(0)
        Path('/proc/self/clear_refs').write_text('5')   # resets the peak
        before = resident('VmRSS')
        call(task, output, original_size(args))
    return resident('VmHWM') - before


def memory_of(way: str, task: str, kind: str, args: argparse.Namespace) -> int:
    command = [sys.executable, __file__, '--memory-of', way, task, kind, '--size', args.size, '--stride',
               str(args.stride), '--queries', str(args.queries), '--classes', str(args.classes), '--threads',
               str(args.threads)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    if done.returncode:
        raise RuntimeError(f'the {way} way failed: {done.stderr[-2000:]}')
    return int(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--size', default='1920x1080', metavar='WIDTHxHEIGHT')
    parser.add_argument('--stride', type=int, default=4, help='of the mask logits; 4: Mask2Former, 8: FastInst')
    parser.add_argument('--queries', type=int, default=100)
    parser.add_argument('--classes', type=int, default=150)
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--json', type=Path, help='write the figures to this file as well')
    parser.add_argument('--memory-of', nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    import torch
    torch.set_num_threads(args.threads)
    if args.memory_of:
        print(measure_memory(*args.memory_of, args))
        return

    print(f'{args.size}, {args.queries} queries, {args.classes} classes, mask logits of stride {args.stride}, '
          f'{args.threads} thread{"s" * (args.threads > 1)}')
    print(f'{"":7}{"":26}{"ours":>9}{"plain":>10}{"ratio":>8}{"peak ours":>12}{"peak plain":>12}{"differ":>9}')
    report = []
    for kind in KINDS:
        output = make_output(kind, args)
        for task in TASKS:
            row = {'output': kind, 'task': task, **compare(task, output, original_size(args), args.repeats),
                   'peak': {way: memory_of(way, task, kind, args) for way in WAYS}}
            report.append(row)
            print(f'{kind:7}{task:26}{row["ours"] * 1e3:6.0f} ms{row["plain"] * 1e3:7.0f} ms{row["ratio"]:6.1f} x'
                  f'{row["peak"]["ours"] / 1e6:9.0f} MB{row["peak"]["plain"] / 1e6:9.0f} MB'
                  f'{row["pixels that differ"]:6} px', flush=True)
    if args.json:
        args.json.write_text(json.dumps(report, indent=2))


if __name__ == '__main__':
    main()
