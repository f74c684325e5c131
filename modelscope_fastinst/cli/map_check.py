"""``data check`` of panoptic and semantic data: figures of their maps, what is wrong with them, and samples."""
from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from modelscope_fastinst.cli.data_report import LISTED, kind_lines, total_line
from modelscope_fastinst.cli.run import CommandError
from modelscope_fastinst.cli.train import check_folder, label_numbers

if TYPE_CHECKING:
    import numpy as np

    from modelscope_fastinst.data.checking import MapReport, MapSplit
    from modelscope_fastinst.data.maps import MapSource


def maps_task(args: argparse.Namespace) -> str | None:
    """'panoptic' or 'semantic' where the folder is to be checked for that; None where its objects are.

    Raises:
        CommandError: no such folder, or options that are not for maps.
        DatasetError: no data of a known kind.
    """
    if args.root is None:
        if args.task not in (None, 'instance'):
            raise CommandError(f'--task {args.task} is for ROOT; --train-annotations and its like are files of objects')
        return None
    check_folder(args.root)
    from modelscope_fastinst.data.maps import task_of_folder
    task = args.task or task_of_folder(args.root, args.format)
    if task == 'instance' and label_numbers(args):
        raise CommandError('--label-offset and --void-label are for label PNGs, which are checked with --task semantic')
    return None if task == 'instance' else task


def check_maps_of(args: argparse.Namespace, task: str, num_queries: int, output: Path) -> int:
    """Checks the maps of a folder and prints what it found; see ``data.check``."""
    from itertools import groupby

    from modelscope_fastinst.cli.data import Progress
    from modelscope_fastinst.cli.predict import write_json
    from modelscope_fastinst.data.checking import check_maps
    sources = _sources(args, task)
    report = check_maps(sources, task, num_queries=num_queries, name=args.root,
                        progress=Progress() if sys.stderr.isatty() else None)
    print('\n'.join(_lines(report)))
    for code, findings in groupby(report.findings, key=lambda finding: finding.code):
        print('\n' + '\n'.join(kind_lines(code, list(findings), args.root)))
    print(f'\n{total_line(report)}')
    if args.json is not None:
        write_json(Path(args.json), report.to_json())
        print(f'all of it: {args.json}')
    for sheet in _sheets(sources, task, output, args):
        print(f'samples: {sheet}')
    return 1 if report.count('error') or args.strict and report.count('warning') else 0


def _sources(args: argparse.Namespace, task: str) -> dict[str, MapSource]:
    """The splits of a folder by name: its own, those that ``--val-fraction`` makes, or 'all'."""
    from modelscope_fastinst.data.maps import find_tree, read_maps
    tree = find_tree(args.root, task, args.format)
    if args.classes is not None and tree.format != 'semantic-png':
        raise CommandError('--classes: only for label PNGs, whose classes it names; maps are checked for all classes')
    names: list[str | None] = list(tree.splits[task]) or [None]
    if args.val_fraction is not None and 'val' not in names:
        names = ['train', 'val', *(name for name in names if name not in (None, 'train'))]
    return {name or 'all': read_maps(args.root, task, name, tree.format, classes=args.classes, **label_numbers(args),
                                     val_fraction=args.val_fraction, seed=args.split_seed) for name in names}


def _lines(report: MapReport) -> Iterator[str]:
    yield f'{report.name}: format {report.format}'
    yield f'checked for model.task "{report.task}" and a model with {report.num_queries} queries'
    yield from (f'remark: {note}' for note in report.notes)
    for split in report.splits:
        yield ''
        yield f'{split.name}: {split.images:,} image{"" if split.images == 1 else "s"}'
        yield '  (least / median / greatest)'
        yield f'  width of an image          {split.widths} pixels'
        yield f'  height of an image         {split.heights} pixels'
        what = 'segments of an image ' if report.task == 'panoptic' else 'classes of an image  '
        yield f'  {what}      {split.segments}'
        yield f'  void                       {split.void:.1%} of all pixels' + (
            f'; {split.crowd:.1%} in crowd regions' if split.crowd else '')
    yield ''
    yield from _class_lines(report)


def _class_lines(report: MapReport) -> Iterator[str]:
    """A table of segments, images and pixels per class, those with most pixels first."""
    names = list(dict.fromkeys(name for split in report.splits for name in split.classes))

    def total(name: str) -> int:
        return sum(split.classes[name].pixels for split in report.splits)

    names.sort(key=lambda name: -total(name))
    shown = [name for name in names if total(name)][:LISTED]
    width = max(len('class'), *map(len, shown)) if shown else len('class')
    panoptic = report.task == 'panoptic'
    heads = [f'{split.name}: {"segments in " if panoptic else ""}images, pixels' for split in report.splits]
    yield '  '.join([f'{"class":<{width}}', *(f'{head:>33}' for head in heads)])
    for name in shown:
        yield '  '.join([f'{name:<{width}}', *(f'{_cell(split, name, panoptic):>33}' for split in report.splits)])
    rest = sum(1 for name in names if total(name)) - len(shown)
    if rest:
        yield f'and {rest} more classes with fewer pixels'


def _cell(split: MapSplit, name: str, panoptic: bool) -> str:
    """'12 5 3.1%': segments of a class, images with it, share of all pixels that have a class."""
    one = split.classes[name]
    pixels = max(sum(figures.pixels for figures in split.classes.values()), 1)
    segments = f'{one.segments:>9,} ' if panoptic else ''
    return f'{segments}{one.images:>9,} {one.pixels / pixels:>8.1%}'


def _sheets(sources: Mapping[str, MapSource], task: str, output: Path, args: argparse.Namespace) -> Iterator[Path]:
    """Draws samples of each split with their maps laid over them."""
    if not args.samples:
        return
    import numpy as np

    from modelscope_fastinst.cli.predict import write_picture
    from modelscope_fastinst.cli.sample_sheet import grid
    from modelscope_fastinst.data.maps import SegmentationMaps
    from modelscope_fastinst.data.records import DatasetError
    output.mkdir(parents=True, exist_ok=True)
    for split, source in sources.items():
        try:
            data = SegmentationMaps(source, task, on_problem='skip', with_targets=False)
        except DatasetError:   # nothing can be shown, which the report has said
            continue
        chosen = sorted(np.random.default_rng(args.seed).permutation(len(data))[:args.samples].tolist())
        tiles, titles = [], []
        for index in chosen:
            sample = data[index]
            tiles.append(_tile(data, sample, args.font))
            titles.append(f'{Path(sample.file_name).name}')
        file = output / f'samples_{split}.png'
        write_picture(file, grid(tiles, titles, args.font))
        yield file


def _tile(data: object, sample: object, font: str | None) -> np.ndarray:
    import numpy as np

    from modelscope_fastinst.cli.sample_sheet import tile_plan
    from modelscope_fastinst.visualize import draw_panoptic, draw_semantic
    image = np.ascontiguousarray(sample.image.permute(1, 2, 0).numpy())
    plan = tile_plan(*image.shape[:2])
    if data.task == 'semantic':
        return draw_semantic(plan.image(image), plan.masks(sample.truth.labels[None])[0], data.classes, font=font)
    segments = [{'id': one.id, 'label': data.classes[one.label], 'isthing': one.isthing, 'score': None,
                 'bbox': one.bbox, 'area': one.area} for one in sample.truth.segments]
    return draw_panoptic(plan.image(image), plan.masks(sample.truth.ids[None])[0], segments, classes=data.classes,
                         font=font)
