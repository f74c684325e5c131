"""How long one call of ``pipeline('image-segmentation')`` takes and how much memory it needs, part by part.

    python benchmarks/pipeline.py                   # FastInst-D3 R50 at 640x480, 1920x1080 and 12 megapixels
    python benchmarks/pipeline.py --sizes 640x480 --repeats 5 --json result.json

Two ways run in turn in the same process, on the same weights and image: *lean* is what the pipeline does by default;
*plain* is the straightforward one: no folding of batch norm, all masks upsampled to full size, then thresholded and
kept as float64, as ModelScope's own FastInst returns them. Times are medians; a ratio is the median of the ratios of
neighbouring calls, so that a machine that speeds up or slows down does not show in it. Peak memory is measured in a
process of its own for each way. Weights and image are made by the rules of ``tests/golden/fill.py``: masks and scores
are then as mixed as a trained network's.
"""
from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
WAYS = ('lean', 'plain')
KEPT = 10
# The plain way holds several float copies of 100 full-size masks: 4.8 GB each at 12 megapixels.
PLAIN_LIMIT = 4_000_000

MODEL = {
    'type': 'fastinst',
    'pretrained': True,
    'classes': [f'class {index}' for index in range(80)],
    'backbone': {'depth': 50, 'norm': 'FrozenBN', 'out_features': ['res3', 'res4', 'res5']},
    'encoder': {'in_features': ['res3', 'res4', 'res5'], 'convs_dim': 256, 'mask_dim': 256, 'norm': 'GN'},
    'decoder': {'num_classes': 80, 'hidden_dim': 256, 'num_queries': 100, 'num_aux_queries': 8, 'nheads': 8,
                'dim_feedforward': 1024, 'dec_layers': 3, 'mask_dim': 256},
}


def golden_rules():
    spec = importlib.util.spec_from_file_location('fill', ROOT / 'tests' / 'golden' / 'fill.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_model(folder: Path) -> None:
    """A model folder of FastInst-D3 R50 with the sizes of the paper."""
    import torch

    from modelscope_fastinst.checkpoints import save_weights
    from modelscope_fastinst.models.fastinst import build_fastinst
    rules = golden_rules()
    network = build_fastinst({key: MODEL[key] for key in ('backbone', 'encoder', 'decoder')})
    save_weights({key: torch.from_numpy(rules.fill_value(key, tuple(value.shape)))
                  for key, value in network.state_dict().items()}, folder / 'model.safetensors')
    (folder / 'configuration.json').write_text(json.dumps({
        'framework': 'pytorch', 'task': 'image-segmentation', 'pipeline': {'type': 'fast-instance-segmentation'},
        'model': MODEL, 'preprocessor': {'type': 'fastinst-preprocessor', 'min_size': 640, 'max_size': 853},
        'postprocessor': {'score_thr': 0.0, 'max_instances': KEPT}}))


class PlainPostprocessor:
    """Upsamples all masks twice (to the canvas, to the image), scores and thresholds them, keeps float64 masks."""

    def __call__(self, output, original_sizes, **_):
        import torch
        from torch.nn import functional as F

        from modelscope_fastinst.structures import Instances
        masks = F.interpolate(output.final.masks, size=output.canvas, mode='bilinear', align_corners=False)
        results = []
        for logits, mask, (h, w), size in zip(output.final.logits, masks, output.sizes, original_sizes, strict=True):
            mask = F.interpolate(mask[None, :, :h, :w], size=tuple(size), mode='bilinear', align_corners=False)[0]
            probabilities = logits.softmax(-1)[:, :-1].flatten()
            scores, picked = probabilities.topk(min(100, len(probabilities)), sorted=False)
            queries, labels = picked // (logits.shape[1] - 1), picked % (logits.shape[1] - 1)
            mask = mask[queries]
            binary = (mask > 0).float()
            quality = (mask.sigmoid().flatten(1) * binary.flatten(1)).sum(1) / (binary.flatten(1).sum(1) + 1e-6)
            scores = scores * quality
            arrays = binary.double().numpy()
            best = torch.argsort(scores, descending=True)[:KEPT]
            results.append(Instances(scores[best].numpy(), labels[best].numpy(), [arrays[i] for i in best],
                                     np.zeros((len(best), 4), np.float32)))
        return results


def build(way: str, folder: Path, mask_format: str = 'array'):
    """The pipeline of one way."""
    from modelscope.pipelines import pipeline

    import modelscope_fastinst  # noqa: F401  registers the pipeline
    if way == 'lean':
        return pipeline('image-segmentation', model=str(folder), device='cpu', mask_format=mask_format)
    return pipeline('image-segmentation', model=str(folder), device='cpu', optimize=False,
                    postprocessor=PlainPostprocessor())


def timed_call(pipe, image: np.ndarray) -> dict[str, float]:
    """Seconds of the parts of one call and of the whole."""
    import torch
    start = time.perf_counter()
    sample = pipe.preprocess(image)
    preprocessed = time.perf_counter()
    with torch.inference_mode():
        output = pipe.forward([sample])
        forwarded = time.perf_counter()
        pipe.postprocess(output, [sample.original_size])
        postprocessed = time.perf_counter()
    pipe(image)
    return {'preprocess': preprocessed - start, 'forward': forwarded - preprocessed,
            'postprocess': postprocessed - forwarded, 'call': time.perf_counter() - postprocessed}


def compare(folder: Path, image: np.ndarray, ways: tuple[str, ...], repeats: int) -> dict:
    """Medians of each way and of the ratios of neighbouring calls (plain / lean)."""
    pipes = {way: build(way, folder) for way in ways}
    for pipe in pipes.values():
        pipe(image)
    rounds = [{way: timed_call(pipe, image) for way, pipe in pipes.items()} for _ in range(repeats)]
    parts = rounds[0]['lean'].keys()
    report = {way: {part: statistics.median(r[way][part] for r in rounds) for part in parts} for way in ways}
    if 'plain' in ways:
        report['ratio'] = {part: statistics.median(r['plain'][part] / r['lean'][part] for r in rounds)
                           for part in parts}
    return report


def resident(field: str) -> int:
    """VmRSS (now) or VmHWM (peak) of this process, in bytes; Linux only."""
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f'/proc/self/status has no {field}: peak memory can be measured on Linux only')


def measure_memory(way: str, folder: Path, image_file: Path, mask_format: str) -> dict[str, int]:
    """Bytes: peak of the process over a call, and what postprocessing alone adds at its peak."""
    import torch
    pipe = build(way, folder, mask_format)
    pipe(np.zeros((64, 64, 3), np.uint8))
    image = np.load(image_file, mmap_mode='r')
    Path('/proc/self/clear_refs').write_text('5')  # resets the peak
    pipe(image)
    peak = resident('VmHWM')
    with torch.inference_mode():
        sample = pipe.preprocess(image)
        output = pipe.forward([sample])
        ctypes.CDLL(None).malloc_trim(0)  # what the forward pass freed would hide what postprocessing takes
        Path('/proc/self/clear_refs').write_text('5')
        before = resident('VmRSS')
        pipe.postprocess(output, [sample.original_size])
    return {'process': peak, 'postprocess': resident('VmHWM') - before}


def memory_of(way: str, folder: Path, image_file: Path, mask_format: str, threads: int) -> dict[str, int]:
    command = [sys.executable, __file__, '--memory-of', way, str(folder), str(image_file), mask_format,
               '--threads', str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    if done.returncode:
        raise RuntimeError(f'the {way} way failed: {done.stderr[-2000:]}')
    return json.loads(done.stdout.splitlines()[-1])


def show(size: str, report: dict) -> None:
    print(f'\n{size}: D3 R50, {KEPT} masks out')
    print(f'{"":8}{"preprocess":>12}{"forward":>12}{"postprocess":>13}{"call":>12}'
          f'{"peak process":>15}{"peak postprocess":>18}')
    for way in WAYS:
        if way not in report:
            print(f'{way:8}  not run: 100 full-size float masks would not fit')
            continue
        times = ''.join(f'{report[way][part] * 1e3:{width - 3}.0f} ms'
                        for part, width in (('preprocess', 12), ('forward', 12), ('postprocess', 13), ('call', 12)))
        memory = report['memory'][way]
        print(f'{way:8}{times}{memory["process"] / 1e6:12.0f} MB{memory["postprocess"] / 1e6:15.0f} MB')
    if 'ratio' in report:
        times = ''.join(f'{report["ratio"][part]:{width - 2}.1f} x'
                        for part, width in (('preprocess', 12), ('forward', 12), ('postprocess', 13), ('call', 12)))
        lean, plain = (report['memory'][way] for way in WAYS)
        print(f'{"ratio":8}{times}{plain["process"] / lean["process"]:13.1f} x'
              f'{plain["postprocess"] / max(lean["postprocess"], 1e6):16.1f} x')
    rle = report['memory']['lean, rle']
    print(f'lean with all masks as RLE: peak process {rle["process"] / 1e6:.0f} MB, '
          f'postprocess {rle["postprocess"] / 1e6:.0f} MB')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--sizes', nargs='+', default=['640x480', '1920x1080', '4000x3000'], metavar='WIDTHxHEIGHT')
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--json', type=Path, help='write the figures to this file as well')
    parser.add_argument('--memory-of', nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    import torch
    torch.set_num_threads(args.threads)
    if args.memory_of:
        way, folder, image_file, mask_format = args.memory_of
        print(json.dumps(measure_memory(way, Path(folder), Path(image_file), mask_format)))
        return

    reports = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder)
        rules = golden_rules()
        for size in args.sizes:
            width, height = (int(number) for number in size.split('x'))
            image = rules.make_scene(height, width, 103, 8)[0]
            image_file = folder / 'image.npy'
            np.save(image_file, image)
            ways = WAYS if height * width <= PLAIN_LIMIT else ('lean',)
            report = compare(folder, image, ways, args.repeats)
            report['memory'] = {way: memory_of(way, folder, image_file, 'array', args.threads) for way in ways}
            report['memory']['lean, rle'] = memory_of('lean', folder, image_file, 'rle', args.threads)
            reports[size] = report
            show(size, report)
    if args.json:
        args.json.write_text(json.dumps(reports, indent=2))


if __name__ == '__main__':
    main()
