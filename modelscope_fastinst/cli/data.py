"""``data check`` and ``data convert``: what is wrong with a data set, and any known format as COCO."""
from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelscope_fastinst.cli.run import CommandError
from modelscope_fastinst.cli.train import check_folder

if TYPE_CHECKING:
    from modelscope_fastinst.data.checking import Report
    from modelscope_fastinst.data.formats import Source

_PAUSE = 1.0   # seconds between two lines of progress
_LISTED = 20


def check(args: argparse.Namespace) -> int:
    """Checks a data set and prints what it found; 1 if there are errors, or with ``--strict`` warnings.

    Raises:
        CommandError: options that contradict each other, or files that are not there.
        DatasetError: the data cannot be read at all.
    """
    from modelscope_fastinst.cli.data_report import report_lines
    from modelscope_fastinst.cli.predict import check_font, write_json
    check_font(args.font)
    output = Path(args.output)
    if output.exists() and not output.is_dir():
        raise CommandError(f'--output {output}: is a file; give a folder')
    if args.json is not None and not Path(args.json).absolute().parent.is_dir():
        raise CommandError(f'--json {args.json}: there is no folder {Path(args.json).absolute().parent}')
    model = _model(args)
    from modelscope_fastinst.cli.map_check import check_maps_of, maps_task
    task = maps_task(args)
    if task is not None:
        return check_maps_of(args, task, model['num_queries'], output)
    sources = _given_files(args) if args.root is None else _splits(args)
    from modelscope_fastinst.data.checking import check_data
    report = check_data(sources, **model, name=args.root, progress=Progress() if sys.stderr.isatty() else None)
    print('\n'.join(report_lines(report, args.root)))
    if args.json is not None:
        write_json(Path(args.json), report.to_json())
        print(f'all of it: {args.json}')
    for sheet in _sheets(report, output, args):
        print(f'samples: {sheet}')
    return 1 if report.count('error') or args.strict and report.count('warning') else 0


def convert(args: argparse.Namespace) -> int:
    """Writes a data set as COCO, whole or not at all, and says what was written and what was left out.

    Raises:
        CommandError: a target that may not be written to.
        DatasetError: the data cannot be read, or hold bad items and ``--skip-bad`` was not given.
        OSError: the target cannot be written.
    """
    target = Path(args.target)
    _check_target(target, Path(args.root), args.overwrite)
    sources = {'train' if split == 'all' else split: source for split, source in _splits(args, args.split).items()}
    missing = list(_missing_images(sources))
    if missing and not args.skip_bad:
        raise CommandError(f'{missing[0]}: no such image file ({len(missing)} in all); put it there, or leave out what '
                           'is missing with --skip-bad')
    chosen = {split: source.keep_images(partial(_is_there, source)) for split, source in sources.items()}
    from modelscope_fastinst.data.formats import write_coco
    from modelscope_fastinst.data.records import DatasetError
    from modelscope_fastinst.plugin.new_folder import new_folder
    try:
        with new_folder(target) as folder:
            written = {split: write_coco(source, folder, split, link=args.link,
                                         on_problem='skip' if args.skip_bad else 'raise')
                       for split, source in chosen.items()}
            counts = {split: _counts(file) for split, (file, _) in written.items()}
    except DatasetError as error:   # the user has an option, no argument of a function
        raise DatasetError(str(error).replace("on_problem='skip'", '--skip-bad'), error.problems) from error
    for split, source in sources.items():
        whole = ' (the data have no splits; --val-fraction makes two)' if source.split is None else ''
        print(f'{split}: {counts[split]} of format {source.format}{whole}')
    print('\n'.join(_left_out(sources, missing)))
    print(f'the COCO data set: {target}')
    return 0


def _model(args: argparse.Namespace) -> dict[str, Any]:
    """Queries and input size of the model that is meant."""
    from modelscope_fastinst.data.augment import InferenceTransform
    size = vars(InferenceTransform())
    found = {'num_queries': 100, 'min_size': size['min_size'], 'max_size': size['max_size']}
    named = args.config if args.config is not None else args.model
    if named is not None:
        from modelscope_fastinst.cli.info import read
        _, configuration = read(named, args.revision)
        decoder = configuration['model'].get('decoder') or {}
        section = configuration.get('preprocessor') or {}
        section = section.get('val') or section
        found['num_queries'] = decoder.get('num_queries', found['num_queries'])
        found |= {key: section[key] for key in ('min_size', 'max_size') if key in section}
    found |= {key: getattr(args, key) for key in found if getattr(args, key) is not None}
    if found['max_size'] is not None and found['max_size'] < found['min_size']:
        raise CommandError(f'--min-size {found["min_size"]} is more than --max-size {found["max_size"]}')
    return found


def _given_files(args: argparse.Namespace) -> dict[str, Source]:
    """The splits of ``--train-annotations`` and its like."""
    from modelscope_fastinst.cli.train import coco_pair
    pairs = {split: coco_pair(getattr(args, f'{split}_annotations'), getattr(args, f'{split}_images'),
                              (f'--{split}-annotations', f'--{split}-images')) for split in ('train', 'val')}
    if not any(pairs.values()):
        raise CommandError('give ROOT, the folder of the data set, or --train-annotations and --train-images')
    if args.format not in (None, 'coco'):
        raise CommandError(f'--format {args.format}: annotation files are given for COCO only; give ROOT')
    if args.val_fraction is not None:
        raise CommandError('--val-fraction is for ROOT; annotation files are taken as they are')
    sources = {}
    for split, pair in pairs.items():
        if pair is not None:
            source = _coco_source(pair['annotation_file'], pair['image_dir'], split)
            sources[split] = source if args.classes is None else source.keep_classes(args.classes)
    return sources


def _coco_source(annotation_file: str, image_dir: str, split: str) -> Source:
    from modelscope_fastinst.data.formats import Source
    from modelscope_fastinst.data.records import check_content, load_annotations
    content = load_annotations(annotation_file)
    check_content(content, annotation_file)
    return Source('coco', annotation_file, content, image_dir, split=split)


def _splits(args: argparse.Namespace, only: str | None = None) -> dict[str, Source]:
    """The splits of a folder by name: its own, those that ``--val-fraction`` makes, or 'all'."""
    given = [f'--{split}-{what}' for split in ('train', 'val') for what in ('annotations', 'images')
             if getattr(args, f'{split}_{what}', None) is not None]
    if given:
        raise CommandError(f'give ROOT or {given[0]}, not both')
    check_folder(args.root)
    if args.val_fraction is not None and not 0 < args.val_fraction < 1:
        raise CommandError(f'--val-fraction {args.val_fraction:g}: must be more than 0 and less than 1')
    from modelscope_fastinst.data.formats import FORMATS, find_splits, looking_once, read_source, recognise
    from modelscope_fastinst.data.maps import find_tree, read_objects
    from modelscope_fastinst.data.records import DatasetError
    form = args.format
    try:
        form = form or recognise(args.root)
    except DatasetError:
        find_tree(args.root, 'instance')   # says more, if it is maps without objects
        form = None
    read = partial(read_source, args.root) if form in FORMATS else partial(read_objects, args.root)
    with looking_once():
        names: list[str | None] = [only] if only is not None else list(
            find_splits(args.root, form) if form in FORMATS else
            find_tree(args.root, 'instance', form).splits['instance'])
        if args.val_fraction is not None and only is None:
            if 'val' in names:
                print('--val-fraction: not used, the data have a validation split')
            else:
                names = ['train', 'val', *(name for name in names if name != 'train')]
        return {name or 'all': read(name, form, classes=args.classes, val_fraction=args.val_fraction,
                                    seed=args.split_seed) for name in names or [None]}


def _sheets(report: Report, output: Path, args: argparse.Namespace) -> Iterator[Path]:
    """Draws the samples of each split."""
    if not args.samples:
        return
    from modelscope_fastinst.cli.predict import write_picture
    from modelscope_fastinst.cli.sample_sheet import draw_sheet
    output.mkdir(parents=True, exist_ok=True)
    for part in report.parts:
        sheet = draw_sheet(part, args.samples, args.seed, args.font)
        if sheet is not None:
            file = output / f'samples_{part.name}.png'
            write_picture(file, sheet)
            yield file


def _check_target(target: Path, root: Path, overwrite: bool) -> None:
    if target.exists() and not target.is_dir():
        raise CommandError(f'{target}: is a file; give the name of a folder')
    here, there = target.resolve(), root.resolve()
    if here == there or here in there.parents:
        raise CommandError(f'{target}: is or holds the folder of the data; give another one')
    if there in here.parents:
        raise CommandError(f'{target}: lies in the folder of the data, of which it would then be a part; give another '
                           'one')
    if not target.is_dir() or not any(target.iterdir()):
        return
    if not overwrite:
        raise CommandError(f'{target}: exists and is not empty; give another folder, or --overwrite to replace it')
    strange = sorted(item.name for item in target.iterdir() if item.name not in ('annotations', 'images'))
    if strange or not any(target.glob('annotations/instances_*.json')):
        what = f'also holds {strange[0]}' if strange else 'has no annotations/instances_*.json'
        raise CommandError(f'{target}: is no converted data set ({what}) and is not replaced; give another folder')


def _counts(annotation_file: str) -> str:
    """'80 images, 705 objects of 80 classes'"""
    content = json.loads(Path(annotation_file).read_text('utf-8'))
    used = {annotation['category_id'] for annotation in content['annotations']}
    return (f'{len(content["images"])} images, {len(content["annotations"])} objects of {len(used)} of '
            f'{len(content["categories"])} classes')


def _is_there(source: Source, image: Any) -> bool:
    """Whether an image of a source's content has its file; what is wrong with a broken record is said elsewhere."""
    name = image.get('file_name') if isinstance(image, dict) else None
    return source.open_image is not None or not isinstance(name, str) or os.path.isfile(
        os.path.join(source.image_dir, name))


def _missing_images(sources: dict[str, Source]) -> Iterator[str]:
    for source in sources.values():
        for index, image in enumerate(source.content['images']):
            if not _is_there(source, image):
                yield source.image_path(index)


def _left_out(sources: dict[str, Source], missing: list[str]) -> Iterator[str]:
    from modelscope_fastinst.data.checking.part import Part
    found = dict.fromkeys((finding.file, finding.item, finding.message)
                          for split, source in sources.items() for finding in Part(split, source).findings)
    lines = [*(f'  {file}: {item}: {message}' for file, item, message in found),
             *(f'  {file}: no such image file' for file in missing)]
    yield f'left out: {len(lines) or "nothing"}'
    yield from lines[:_LISTED]
    if len(lines) > _LISTED:
        yield f'  and {len(lines) - _LISTED} more'
    yield from dict.fromkeys(f'remark: {note}' for source in sources.values() for note in source.notes)


class Progress:
    """A line on the terminal that says how far it is, once a second."""

    def __init__(self) -> None:
        self.shown = time.monotonic()

    def __call__(self, split: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self.shown >= _PAUSE or done == total:
            self.shown = now
            end = '\n' if done == total else ''
            print(f'\r{split}: {done} of {total} images', end=end, file=sys.stderr, flush=True)
