"""What every choice of pixel decoder, transformer decoder and queries costs: parameters, GFLOPs, time on one core.

    python benchmarks/variants.py                          # ResNet-50, 640 x 853 pixels; half an hour or more
    python benchmarks/variants.py --no-training --format json > variants.json
    python benchmarks/variants.py --size 320 426 --rounds 3

The decoders are those of the published models: the dual path has 3 layers with feed-forward blocks of 1024
(FastInst-D3), the single path is the same without the pixels' half, masked attention has 9 layers of 2048
(Mask2Former). The pixel decoders as well: PPM-FPN reads the backbone's three coarser maps, MSDeformAttn has 6 layers
and gives masked attention mask features at stride 4; PPM-FPN gives them at stride 8. Weights are random.

*Parameters* are the trainable ones, millions. *GFLOPs* count multiply-adds, see ``models/complexity.py``. *Inference*
is one image through the network as the pipeline runs it, batch norms folded; *training* is one image's forward pass,
losses and backward pass, without and with ground-truth guidance. Times are the processor's, of one thread, so that
other programs at work hardly show in them. Every measurement of a variant stands between two of the published
FastInst-D3 in the same process: the ratio is the median over the rounds of its time to the mean of its neighbours, so
that a machine that speeds up or slows down does not show in it either.
"""
from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from modelscope_fastinst.models.build import build_network
from modelscope_fastinst.models.complexity import count_multiply_adds
from modelscope_fastinst.models.optimize import optimize_for_inference
from modelscope_fastinst.objective.criterion import build_criterion
from modelscope_fastinst.structures import Target

PIXEL_DECODERS = {'PPM-FPN': 'ppm-fpn', 'MSDeformAttn': 'msdeformattn'}
DECODERS = {'dual path': {'type': 'dual-path', 'path': 'dual'}, 'single path': {'type': 'dual-path', 'path': 'query'},
            'masked attention': {'type': 'masked-attention'}}
QUERIES = ('activation-guided', 'static')
PUBLISHED = ('PPM-FPN', 'dual path', 'activation-guided')   # FastInst-D3; with guidance
VARIANTS = tuple(itertools.product(PIXEL_DECODERS, DECODERS, QUERIES))
NAMES = {PUBLISHED: 'FastInst', ('MSDeformAttn', 'masked attention', 'static'): 'Mask2Former'}


def model_section(variant: tuple[str, str, str], options: argparse.Namespace) -> dict[str, Any]:
    """The ``model`` section of a variant's configuration."""
    pixel_decoder, decoder, queries = variant
    width = {'hidden_dim': options.width, 'mask_dim': options.width}
    stages = ['res2', 'res3', 'res4', 'res5']
    encoder = {'type': PIXEL_DECODERS[pixel_decoder], 'convs_dim': options.width,
               'in_features': stages if pixel_decoder == 'MSDeformAttn' else stages[1:]}
    return {'backbone': {'depth': options.depth, 'norm': 'FrozenBN', 'out_features': stages}, 'encoder': encoder,
            'decoder': {**DECODERS[decoder], **width, 'num_classes': options.classes, 'num_queries': options.queries,
                        'queries': queries}}


def scene(options: argparse.Namespace) -> tuple[torch.Tensor, Target]:
    """An image of noise and rectangles on it, always the same."""
    generator = torch.Generator().manual_seed(0)
    height, width = options.size
    masks = torch.zeros(options.objects, height, width, dtype=torch.bool)
    for mask in masks:
        top, left = (int(torch.randint(0, side // 2, (), generator=generator)) for side in (height, width))
        mask[top:top + height // 3, left:left + width // 3] = True
    labels = torch.randint(0, options.classes, (options.objects,), generator=generator)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator), Target(labels, masks)


class Network:
    """One variant and the two things that are timed."""

    def __init__(self, variant: tuple[str, str, str], options: argparse.Namespace):
        torch.manual_seed(0)
        self.network = build_network(model_section(variant, options))
        self.predictor = self.network.sem_seg_head.predictor
        self.parameters = sum(p.numel() for p in self.network.parameters() if p.requires_grad)
        self.multiply_adds = count_multiply_adds(self.network, *options.size)
        self.fast = optimize_for_inference(self.network)
        self.network.train()
        self.criterion = build_criterion({'num_points': options.points}, options.classes)
        self.image, self.target = scene(options)

    @torch.no_grad()
    def infer(self) -> None:
        self.fast([self.image])

    def train(self, guidance: bool) -> None:
        self.predictor.guidance = guidance
        output = self.network([self.image], targets=[self.target], match=self.criterion.match)
        sum(self.criterion(output, [self.target]).values()).backward()
        self.network.zero_grad(set_to_none=True)


def seconds(call: Callable[[], None]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def timed(calls: Sequence[Callable[[], None]], reference: Callable[[], None], rounds: int) -> list[dict[str, float]]:
    """Median milliseconds of each call and the median of its ratios to the reference before and after it."""
    for call in (reference, *calls):   # the first time warms up
        call()
    found: list[list[tuple[float, float]]] = [[] for _ in calls]
    for _ in range(rounds):
        before = seconds(reference)
        for call, results in zip(calls, found, strict=True):
            own, after = seconds(call), seconds(reference)
            results.append((own, 2 * own / (before + after)))
            before = after
    return [{'ms': round(1000 * statistics.median(own for own, _ in results), 1),
             'ratio': round(statistics.median(ratio for _, ratio in results), 3)} for results in found]


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a variant."""
    published, rows = Network(PUBLISHED, options), []
    chosen = [variant for variant in VARIANTS
              if variant[0] in options.pixel_decoders and variant[1] in options.decoders]
    for variant in chosen:
        network = published if variant == PUBLISHED else Network(variant, options)
        pixel_decoder, decoder, queries = variant
        row: dict[str, Any] = {
            'pixel_decoder': pixel_decoder, 'decoder': decoder, 'queries': queries, 'name': NAMES.get(variant, ''),
            'parameters_m': round(network.parameters / 1e6, 2), 'gflops': round(network.multiply_adds / 1e9, 1)}
        row['inference'], = timed([network.infer], published.infer, options.rounds)
        if not options.no_training:
            row['training'], row['training_guided'] = timed(
                [lambda network=network: network.train(False), lambda network=network: network.train(True)],
                lambda: published.train(True), options.train_rounds)
        rows.append(row)
        print(f'{len(rows)} of {len(chosen)}: {json.dumps(row)}', file=sys.stderr, flush=True)
    return rows


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a table; in brackets the ratio to FastInst-D3."""
    columns = {'inference': 'inference, ms', 'training': 'training step, ms', 'training_guided': 'with guidance, ms'}
    columns = {key: title for key, title in columns.items() if key in rows[0]}
    heads = ['pixel decoder', 'decoder', 'queries', 'parameters, M', 'GFLOPs', *columns.values(), '']
    lines = [f'| {" | ".join(heads)} |', '|' + '---|' * len(heads)]
    for row in rows:
        cells = [row['pixel_decoder'], row['decoder'], row['queries'], f'{row["parameters_m"]:.2f}',
                 f'{row["gflops"]:.1f}']
        cells += [f'{row[key]["ms"]:.0f} ({row[key]["ratio"]:.2f})' for key in columns]
        lines.append(f'| {" | ".join([*cells, row["name"]])} |')
    return '\n'.join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--pixel-decoders', nargs='+', choices=PIXEL_DECODERS, default=list(PIXEL_DECODERS))
    parser.add_argument('--decoders', nargs='+', choices=DECODERS, default=list(DECODERS))
    parser.add_argument('--size', type=int, nargs=2, default=(640, 853), metavar=('HEIGHT', 'WIDTH'))
    parser.add_argument('--rounds', type=int, default=5, help='of inference')
    parser.add_argument('--train-rounds', type=int, default=3, help='of training')
    parser.add_argument('--no-training', action='store_true', help='do not time training steps')
    parser.add_argument('--format', choices=('markdown', 'json'), default='markdown')
    parser.add_argument('--depth', type=int, default=50, help='of the ResNet')
    parser.add_argument('--width', type=int, default=256, help='of queries, maps and masks')
    parser.add_argument('--queries', type=int, default=100)
    parser.add_argument('--classes', type=int, default=80)
    parser.add_argument('--objects', type=int, default=8, help='in the training image')
    parser.add_argument('--points', type=int, default=12544, help='at which masks are compared')
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = measure(options)
    print(markdown(rows) if options.format == 'markdown' else
          json.dumps({'options': vars(options), 'torch': torch.__version__,
                      'variants': rows}, indent=1))


if __name__ == '__main__':
    main()
