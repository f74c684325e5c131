"""Where the time of a training step goes, how many images a second are trained, and how much memory it takes.

    python benchmarks/training.py               # for the machine at hand; some minutes on one core, see CASES
    python benchmarks/training.py --cases nuclei d1 --steps 9 --json result.json
    PYTHONPATH=EARLIER python benchmarks/training.py     # another version, whose sources are in the folder EARLIER

Two ways run in turn in the same process, from the same weights on the same images: *lean* is what the trainer does;
*plain* is the straightforward one (``plain_objective.py``; masks drawn at the photograph's size and then resized; the
default optimiser and memory layout; every loss asked for by itself). Times are medians over the steps; a ratio is the
median of the ratios of neighbouring steps, so that a machine that speeds up or slows down does not show in it. Peak
memory is measured in a process of its own for each way.

The step's phases: *load* (one batch read, moved and drawn, in this process; a training does it in workers beside
the step), *forward*, *match* (in the forward pass and in the objective), *loss*, *backward*, *step* (the optimiser's),
*log* (losses to the host). On a GPU each phase ends when the device is done, which a training does not wait for.

With CUDA the case ``gpu`` runs batch 16 at 640 pixels in bfloat16 and float32.
"""
from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
from plain_objective import PlainObjective

ROOT = Path(__file__).resolve().parents[1]
PHASES = ('load', 'forward', 'match', 'loss', 'backward', 'step', 'log')
WAYS = ('lean', 'plain')
# name: (configuration, amp, batch, photograph's height and width, objects in it, training size)
CASES = {
    'nuclei': ('nuclei_r18', 'bf16', 6, (520, 696), (40, 100), None),
    'd1': ('fastinst_d1_r50', None, 2, (480, 640), (4, 12), 640),
    'd3': ('fastinst_d3_r50', None, 2, (480, 640), (4, 12), 640),
    'gpu': ('fastinst_d3_r50', 'bf16', 16, (480, 640), (4, 12), 640),
    'gpu fp32': ('fastinst_d3_r50', None, 16, (480, 640), (4, 12), 640),
}


def write_data(folder: Path, count: int, size: tuple[int, int], objects: tuple[int, int], classes: list[str]) -> None:
    """Pictures of filled blobs with outlines of 40 points, as COCO."""
    from PIL import Image, ImageDraw
    random = np.random.default_rng(0)
    height, width = size
    content = {'images': [], 'annotations': [],
               'categories': [{'id': i + 1, 'name': name} for i, name in enumerate(classes)]}
    (folder / 'images').mkdir(parents=True)
    for index in range(count):
        picture = Image.fromarray(random.integers(0, 60, (height, width, 3), dtype=np.uint8))
        pen = ImageDraw.Draw(picture)
        number = int(random.integers(objects[0], objects[1] + 1))
        for _ in range(number):
            radius = random.uniform(0.25, 0.75) * min(height, width) / number ** 0.5
            angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
            outline = radius * (1 + 0.1 * np.sin(3 * angles)) * np.stack([np.cos(angles), np.sin(angles)])
            points = (outline.T + random.uniform(0, (width, height))).clip(0, (width, height)).round(2)
            pen.polygon([tuple(point) for point in points], fill=tuple(random.integers(80, 255, 3).tolist()))
            content['annotations'].append({
                'id': len(content['annotations']) + 1, 'image_id': index + 1, 'iscrowd': 0, 'area': 1.0,
                'category_id': int(random.integers(len(classes))) + 1, 'bbox': [0, 0, width, height],
                'segmentation': [points.ravel().tolist()]})
        picture.save(folder / 'images' / f'{index}.jpg', quality=90)
        content['images'].append({'id': index + 1, 'file_name': f'{index}.jpg', 'height': height, 'width': width})
    (folder / 'annotations.json').write_text(json.dumps(content))


class Clock:
    """Seconds by phase; time within an inner phase does not count for the outer one."""

    def __init__(self, device: torch.device):
        self.device, self.seconds, self._open = device, dict.fromkeys(PHASES, 0.0), []
        self._since = 0.0

    def _turn(self) -> None:
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now

    @contextmanager
    def phase(self, name: str):
        self._turn()
        self._open.append(name)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    def wrap(self, owner, attribute: str, name: str) -> None:
        """Times a method or a callable attribute, where the owner has it."""
        function = getattr(owner, attribute, None)
        if function is None:
            return

        def timed(*args, **kwargs):
            with self.phase(name):
                return function(*args, **kwargs)
        # past nn.Module's own bookkeeping: what is put here is no submodule
        object.__setattr__(owner, attribute, timed)


class Lean:
    """The trainer's own step."""

    def __init__(self, config: dict, folder: Path, device: torch.device, amp: str | None, transform):
        from modelscope_fastinst.plugin.optimizer import build_optimizer
        self.device, self.amp, self.clock = device, amp, Clock(device)
        self.transform = transform
        self.model = self.build(config).to(device).train()
        self.data = self.open(folder, config['model']['classes'])
        self.optimizer = build_optimizer(self.model.network, self.optimizer_settings(config))
        self.clock.wrap(self.model.network, 'forward', 'forward')
        self.clock.wrap(self.model.criterion, 'forward', 'loss')
        for name in ('match', 'matchings', 'match_proposal', 'query_matcher', 'proposal_matcher'):
            self.clock.wrap(self.model.criterion, name, 'match')

    def build(self, config: dict):
        from modelscope_fastinst.plugin.model import FastInstModel
        torch.manual_seed(0)
        model = FastInstModel(**{key: value for key, value in config['model'].items() if key != 'type'})
        model.network.to(memory_format=torch.channels_last)
        return model

    def optimizer_settings(self, config: dict) -> dict:
        return config['train']['optimizer']

    def open(self, folder: Path, classes: list[str]):
        from modelscope_fastinst.data.coco import CocoInstances
        return CocoInstances(str(folder / 'annotations.json'), str(folder / 'images'), classes=classes,
                             transform=self.transform)

    def draw(self, index: int):
        return self.data[index]

    def move(self, batch: dict) -> dict:
        """What the trainer does with a batch before the step."""
        try:
            from modelscope_fastinst.data.collate import to_device
        except ImportError:   # an earlier version, measured by this file
            from modelscope.utils.data_utils import to_device
        return to_device(batch, self.device)

    def log(self, losses) -> None:
        """The model has done it already."""

    def step(self, indices: list[int], seed: int) -> None:
        from modelscope_fastinst.data.collate import collate
        torch.manual_seed(seed)   # both ways draw the same augmentation
        with self.clock.phase('load'):
            batch = collate([self.draw(index) for index in indices])
        with self.clock.phase('log'):
            batch = self.move(batch)
            dtype = {'bf16': torch.bfloat16, None: None}[self.amp]
            with torch.autocast(self.device.type, dtype) if dtype else nullcontext():
                outputs = self.model(**batch)
            self.log(outputs)
        with self.clock.phase('backward'):
            outputs['loss'].backward()
        with self.clock.phase('step'):
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)

    def take(self) -> dict[str, float]:
        seconds, self.clock.seconds = self.clock.seconds, dict.fromkeys(PHASES, 0.0)
        return seconds


class Plain(Lean):
    """The straightforward step on the same network."""

    def build(self, config: dict):
        model = super().build(config)
        model.network.to(memory_format=torch.contiguous_format)
        model.criterion = PlainObjective(model.criterion.num_classes, model.criterion.num_points)
        return model

    def optimizer_settings(self, config: dict) -> dict:
        return {**config['train']['optimizer'], 'fused': False}

    def open(self, folder: Path, classes: list[str]):
        return json.loads((folder / 'annotations.json').read_text()), folder / 'images'

    def draw(self, index: int):
        from PIL import Image
        from pycocotools import mask as coco_mask

        from modelscope_fastinst.structures import Sample, Target
        content, folder = self.data
        record = content['images'][index]
        picture = np.array(Image.open(folder / record['file_name']).convert('RGB'))
        annotations = [a for a in content['annotations'] if a['image_id'] == record['id']]
        size = record['height'], record['width']
        masks = [coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(a['segmentation'], *size)))
                 for a in annotations]
        target = Target(torch.tensor([a['category_id'] - 1 for a in annotations]),
                        torch.from_numpy(np.stack(masks)).bool())
        return self.transform(Sample(torch.from_numpy(picture).permute(2, 0, 1).contiguous(), target))

    def log(self, outputs) -> None:
        for value in outputs['log_vars'].values():
            float(torch.tensor(value, device=self.device))


def prepare(case: str, device: torch.device, ways: tuple[str, ...], folder: Path):
    name, amp, batch, size, objects, side = CASES[case]
    from modelscope_fastinst.data.augment import TrainTransform
    config = json.loads((ROOT / 'configs' / f'{name}.json').read_text())
    settings = {key: value for key, value in config['preprocessor']['train'].items() if key != 'type'}
    if side:
        settings |= {'min_sizes': side, 'crop': None}
    if not (folder / 'annotations.json').exists():
        write_data(folder, 12, size, objects, config['model']['classes'])
    kinds = {'lean': Lean, 'plain': Plain}
    return {way: kinds[way](config, folder, device, amp, TrainTransform(**settings)) for way in ways}, batch


def run(case: str, steps: int, device: torch.device, ways: tuple[str, ...]) -> dict:
    """-> {way: {phase: [seconds of each step]}}"""
    seconds = {way: {phase: [] for phase in PHASES} for way in ways}
    with tempfile.TemporaryDirectory() as folder:
        runners, batch = prepare(case, device, ways, Path(folder) / 'data')
        for step in range(steps + 1):
            for way in ways if step % 2 else ways[::-1]:
                runners[way].step([(step * batch + i) % 12 for i in range(batch)], seed=step)
                taken = runners[way].take()
                if step:   # the first one only warms up
                    for phase in PHASES:
                        seconds[way][phase].append(taken[phase])
    return {'seconds': seconds, 'batch': batch}


def peak_megabytes(case: str, way: str, device: torch.device) -> int:
    """Most memory that three steps of one way need, measured in a process of its own."""
    answer = subprocess.run([sys.executable, __file__, '--memory-of', way, '--cases', case], check=True, text=True,
                            capture_output=True, env={**os.environ, 'BENCHMARK_DEVICE': str(device)})
    return int(answer.stdout.split()[-1])


def memory_of(case: str, way: str, device: torch.device) -> None:
    with tempfile.TemporaryDirectory() as folder:
        runners, batch = prepare(case, device, (way,), Path(folder) / 'data')
        for step in range(3):
            runners[way].step([(step * batch + i) % 12 for i in range(batch)], seed=step)
    if device.type == 'cuda':
        print(torch.cuda.max_memory_allocated() // 2 ** 20)
    else:
        print(peak_mb())


def peak_mb() -> int:
    """Most memory that this process has had, MiB."""
    status = Path('/proc/self/status')
    if status.exists():   # Linux counts the parent's memory into ru_maxrss
        lines = status.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith('VmHWM')) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (2 ** 20 if sys.platform == 'darwin' else 2 ** 10)


def report(case: str, result: dict, ways: tuple[str, ...]) -> dict:
    """Prints the table of one case; -> its numbers."""
    seconds, batch = result['seconds'], result['batch']
    name, amp, _, _, objects, _ = CASES[case]
    print(f'\n{case}: {name}, batch {batch}, {amp or "float32"}, {objects[0]} to {objects[1]} objects an image, '
          f'medians of {len(seconds[ways[0]]["load"])} steps, ms')
    rows = {phase: {way: seconds[way][phase] for way in ways} for phase in PHASES}
    rows['without load'] = {way: [sum(values) for values in zip(*(seconds[way][p] for p in PHASES[1:]), strict=True)]
                            for way in ways}
    rows['all'] = {way: [sum(values) for values in zip(*(seconds[way][p] for p in PHASES), strict=True)]
                   for way in ways}
    numbers: dict = {'milliseconds': {}, 'images_per_second': {}}
    print(f'{"":14}' + ''.join(f'{way:>10}' for way in ways) + ('   plain / lean' if len(ways) == 2 else ''))
    for label, row in rows.items():
        medians = {way: 1000 * statistics.median(row[way]) for way in ways}
        numbers['milliseconds'][label] = medians
        line = f'{label:14}' + ''.join(f'{medians[way]:10.1f}' for way in ways)
        if len(ways) == 2:
            ratios = [plain / max(lean, 1e-9) for lean, plain in zip(row['lean'], row['plain'], strict=True)]
            line += f'{statistics.median(ratios):10.2f}'
        print(line)
    for label in ('without load', 'all'):
        rates = {way: batch / statistics.median(rows[label][way]) for way in ways}
        numbers['images_per_second'][label] = rates
        print(f'images/s, {label}: ' + ', '.join(f'{way} {rate:.3f}' for way, rate in rates.items()))
    if 'peak_mb' in result:
        numbers['peak_mb'] = result['peak_mb']
        print('peak memory, MB: ' + ', '.join(f'{way} {value}' for way, value in result['peak_mb'].items()))
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cuda = torch.cuda.is_available()
    parser.add_argument('--cases', nargs='+', choices=CASES, default=['gpu', 'gpu fp32'] if cuda else ['nuclei', 'd1'])
    parser.add_argument('--steps', type=int, default=7)
    parser.add_argument('--ways', nargs='+', choices=WAYS, default=list(WAYS))
    parser.add_argument('--no-memory', action='store_true', help='do not measure peak memory')
    parser.add_argument('--json', type=Path, help='also write the numbers here')
    parser.add_argument('--memory-of', choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    device = torch.device(os.environ.get('BENCHMARK_DEVICE') or ('cuda' if cuda else 'cpu'))
    if options.memory_of:
        memory_of(options.cases[0], options.memory_of, device)
        return
    ways = tuple(options.ways)
    numbers = {}
    for case in options.cases:
        result = run(case, options.steps, device, ways)
        if not options.no_memory:
            result['peak_mb'] = {way: peak_megabytes(case, way, device) for way in ways}
        numbers[case] = report(case, result, ways)
    if options.json:
        options.json.write_text(json.dumps(numbers, indent=1))


if __name__ == '__main__':
    main()
