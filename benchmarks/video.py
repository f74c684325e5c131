"""How long ``video.render`` takes when reading, inference, and drawing with encoding overlap, and one after the other.

    python benchmarks/video.py                       # the embedded model, 1280x720, 60 frames, 5 rounds
    python benchmarks/video.py --size 640x480 --frames 30 --repeats 3 --threads 1 --json result.json
    python benchmarks/video.py --device cuda --batch 8 --frames 300

A microscope's field of view that drifts, drawn by the project, is the video. Both ways run in turn in one process, so
that a machine that speeds up or slows down does not show in the ratio, which is the median of the ratios of
neighbouring runs. What overlapping can win is the time of all but the slowest stage: the stages are timed alone as
well. On a CPU the network is by far the slowest, and its threads and the other stages share the cores. Peak memory is
that of a process of its own, over 60 frames and over five times as many, without the network.
"""
from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
WAYS = {'overlapped': True, 'in turn': False}


def write_video(path: Path, size: tuple[int, int], frames: int) -> None:
    """A drifting field of nuclei, 25 frames a second."""
    import av

    from modelscope_fastinst.data.microscope import draw_nuclei
    width, height = size
    margin = min(width, height) // 6
    field = draw_nuclei(height + margin, width + margin, 60, 7).image
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('mpeg4', rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, 'yuv420p', 8_000_000
        for index in range(frames):
            top = round((1 + np.sin(index / 17)) / 2 * margin)
            left = round((1 + np.cos(index / 23)) / 2 * margin)
            image = np.ascontiguousarray(field[top:top + height, left:left + width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format='rgb24')))
        container.mux(stream.encode(None))


def stages(source: Path, output: Path, segment, batch: int) -> dict[str, float]:
    """Seconds a frame of each stage alone."""
    from modelscope_fastinst import video
    from modelscope_fastinst.video.drawing import Drawer
    from modelscope_fastinst.video.encoders import choose
    from modelscope_fastinst.video.writing import VideoWriter, even
    start = time.perf_counter()
    frames = list(video.read(source, max_frames=16))
    read = time.perf_counter()
    for place in range(0, len(frames), batch):
        some = frames[place:place + batch]
        found = segment([frame.image[:, :, ::-1] for frame in some], batch_size=batch, mask_format='rle')
        for frame, result in zip(some, found, strict=True):
            frame.result = result
    segmented = time.perf_counter()
    tracker = video.Tracker()
    for frame in frames:
        frame.ids = tracker.update(frame.result['masks'], frame.result['labels'])
    tracked = time.perf_counter()
    drawer = Drawer()
    drawn = [drawer.draw(frame) for frame in frames]
    finished = time.perf_counter()
    size = even((frames[0].image.shape[1], frames[0].image.shape[0]))
    writer = VideoWriter(output, choose(output, size, Fraction(25)))
    begun = time.perf_counter()
    for frame, image in zip(frames, drawn, strict=True):
        writer.write(image, frame.time)
    writer.close()
    ends = {'reading': read - start, 'inference': segmented - read, 'tracking': tracked - segmented,
            'drawing': finished - tracked, 'encoding': time.perf_counter() - begun}
    return {stage: seconds / len(frames) for stage, seconds in ends.items()}


def compare(source: Path, folder: Path, segment, batch: int, repeats: int) -> dict:
    """Medians of frames per second of each way, and of the ratios of neighbouring runs."""
    from modelscope_fastinst import video
    output = folder / 'out.mp4'
    alone = [stages(source, output, segment, batch) for _ in range(3)]
    rounds = []
    for number in range(repeats):
        speeds = {}
        for way in sorted(WAYS, reverse=bool(number % 2)):   # who comes first changes
            done = video.render(source, output, segment, batch=batch, overlap=WAYS[way])
            speeds[way] = done.frames / done.elapsed
        rounds.append(speeds)
    return {'stages': {stage: statistics.median(run[stage] for run in alone) for stage in alone[0]},
            'frames per second': {way: statistics.median(run[way] for run in rounds) for way in WAYS},
            'ratio': statistics.median(run['overlapped'] / run['in turn'] for run in rounds)}


def measure_memory(source: Path, frames: int) -> int:
    """Bytes: the peak of this process after that many frames, of a video that is read again and again."""
    from modelscope_fastinst import video
    from modelscope_fastinst.results.rle import encode

    def bright(images, **_):
        masks = [image[:, :, 1] > 40 for image in images]
        return [{'scores': [1.0], 'labels': ['bright'], 'masks': encode(mask[None]), 'boxes': [[0, 0, 1, 1]]}
                for mask in masks]

    with tempfile.TemporaryDirectory() as folder:
        video.render(source, Path(folder) / 'out.mp4', bright, max_frames=frames)
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith('VmHWM'):
            return int(line.split()[1]) * 1024
    raise OSError('/proc/self/status has no VmHWM: peak memory can be measured on Linux only')


def memory_of(source: Path, frames: int) -> int:
    command = [sys.executable, __file__, '--memory-of', str(source), '--frames', str(frames)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return int(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--size', default='1280x720', metavar='WIDTHxHEIGHT')
    parser.add_argument('--frames', type=int, default=60)
    parser.add_argument('--batch', type=int, default=1)
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--threads', type=int, default=2, help='of the network, on a CPU')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--json', type=Path, help='write the figures to this file as well')
    parser.add_argument('--memory-of', type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if args.memory_of:
        print(measure_memory(args.memory_of, args.frames))
        return
    import torch

    from modelscope_fastinst.plugin.build import build_segmenter
    torch.set_num_threads(args.threads)
    segment = build_segmenter(device=args.device)
    width, height = map(int, args.size.split('x'))
    with tempfile.TemporaryDirectory() as folder:
        clip, long = Path(folder) / 'clip.mp4', Path(folder) / 'long.mp4'
        write_video(clip, (width, height), args.frames)
        report = compare(clip, Path(folder), segment, args.batch, args.repeats)
        write_video(long, (width, height), 300)
        report['peak memory'] = {f'{frames} frames': memory_of(long, frames) for frames in (60, 300)}
    print(f'{args.size}, {args.frames} frames, batch {args.batch}, {args.device}, {args.threads} threads')
    print('alone, ms a frame: ' + ', '.join(f'{stage} {seconds * 1e3:.1f}'
                                            for stage, seconds in report['stages'].items()))
    speeds = report['frames per second']
    print('frames per second: ' + ', '.join(f'{way} {speeds[way]:.2f}' for way in WAYS)
          + f'; overlapped is {report["ratio"]:.2f} x as fast')
    print('peak memory without the network: ' + ', '.join(f'{name} {peak / 1e6:.0f} MB'
                                                          for name, peak in report['peak memory'].items()))
    if args.json:
        args.json.write_text(json.dumps(report, indent=1))


if __name__ == '__main__':
    main()
