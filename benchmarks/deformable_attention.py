"""How fast deformable attention samples, in three formulations of the same sums.

    python benchmarks/deformable_attention.py                        # one image of 640 x 896, some minutes on one core
    python benchmarks/deformable_attention.py --size 800 1216 --rounds 9 --threads 4

One layer of Mask2Former's pixel decoder (8 heads of 32 channels, 4 points in each of the maps of strides 32, 16 and 8),
without its linear layers: ``stacked`` is the textbook's way (grid_sample for every map, all samples kept, weighted and
summed at the end), ``grid`` this package's for GPUs and exports (``sample_by_grid``: points before queries, map by map)
and ``bags`` this package's on a CPU (``sample_by_bags``). The ways take turns in one process; printed are medians of
seconds, for inference and for forward and backward pass, and how many times as long as ``bags`` a way takes.
"""
from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from modelscope_fastinst.models.deformable_attention import sample_by_bags, sample_by_grid  # noqa: E402

HEADS, WIDTH, POINTS, STRIDES = 8, 32, 4, (32, 16, 8)


def stacked(value: Tensor, shapes: Sequence[tuple[int, int]], pixels: Tensor, weights: Tensor) -> Tensor:
    """The textbook's way: every sample is kept, and the points are the last axis."""
    batch, count = pixels.shape[:2]
    samples = []
    for level, (plane, (h, w)) in enumerate(zip(value.split([h * w for h, w in shapes], dim=1), shapes, strict=True)):
        plane = plane.permute(0, 2, 3, 1).reshape(batch * HEADS, WIDTH, h, w)
        grid = (2 * pixels[:, :, :, level] + 1) / pixels.new_tensor([w, h]) - 1
        samples.append(F.grid_sample(plane, grid.transpose(1, 2).flatten(0, 1), align_corners=False))
    weights = weights.transpose(1, 2).flatten(3).flatten(0, 1)[:, None]
    return (torch.cat(samples, dim=-1) * weights).sum(-1).view(batch, HEADS * WIDTH, count).transpose(1, 2)


WAYS: dict[str, Callable] = {'stacked': stacked, 'grid': sample_by_grid, 'bags': sample_by_bags}


def scene(height: int, width: int) -> tuple[Tensor, list[tuple[int, int]], Tensor, Tensor]:
    """Values, shapes, places around each pixel as in a trained network (some pixels away), and weights."""
    torch.manual_seed(0)
    shapes = [(-(-height // stride), -(-width // stride)) for stride in STRIDES]
    centres = torch.cat([torch.cartesian_prod((torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w).flip(1)
                         for h, w in shapes])
    sizes = torch.tensor([[w, h] for h, w in shapes])
    count = len(centres)
    places = (centres[:, None] * sizes - 0.5)[None, :, None, :, None]
    offsets = torch.randn(1, count, HEADS, len(shapes), POINTS, 2) * 3
    weights = torch.randn(1, count, HEADS, len(shapes) * POINTS).softmax(-1).view(offsets.shape[:-1])
    return torch.randn(1, count, HEADS, WIDTH), shapes, places + offsets, weights


def seconds(way: Callable, value: Tensor, shapes: Sequence[tuple[int, int]], pixels: Tensor, weights: Tensor,
            backward: bool) -> float:
    inputs = [x.clone().requires_grad_(backward) for x in (value, pixels, weights)]
    start = time.perf_counter()
    with torch.set_grad_enabled(backward):
        result = way(inputs[0], shapes, *inputs[1:])
        if backward:
            result.square().sum().backward()
    return time.perf_counter() - start


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--size', type=int, nargs=2, default=(640, 896), metavar=('HEIGHT', 'WIDTH'),
                        help='of the image in pixels (default %(default)s)')
    parser.add_argument('--rounds', type=int, default=5, help='measurements of each way (default %(default)s)')
    parser.add_argument('--threads', type=int, default=1, help='of torch (default %(default)s)')
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    value, shapes, pixels, weights = scene(*options.size)
    with torch.inference_mode():
        results = {name: way(value, shapes, pixels, weights) for name, way in WAYS.items()}   # and a round to warm up
    apart = max((result - results['stacked']).abs().max().item() for result in results.values())
    print(f'torch {torch.__version__}, {options.threads} thread(s); maps {shapes}, {value.shape[1]} pixels; results '
          f'differ by {apart:.1e} at most')
    print(f'| {"pass":8} | {"way":7} | seconds | times bags |\n| -------- | ------- | ------- | ---------- |')
    for name, backward in (('forward', False), ('training', True)):
        taken = {way: [] for way in WAYS}
        for _ in range(options.rounds):
            for way, function in WAYS.items():
                taken[way].append(seconds(function, value, shapes, pixels, weights, backward))
        medians = {way: statistics.median(times) for way, times in taken.items()}
        for way, median in medians.items():
            print(f'| {name:8} | {way:7} | {median:7.3f} | {median / medians["bags"]:10.2f} |')


if __name__ == '__main__':
    main()
