"""``evaluate``: average precision, panoptic quality or mean IoU of a model on annotated pictures."""
from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from modelscope_fastinst.cli.run import CommandError
from modelscope_fastinst.cli.train import VAL_FRACTION, coco_pair, folder_data, label_numbers, parse_settings
from modelscope_fastinst.structures import TASKS


def evaluate(args: argparse.Namespace) -> int:
    """Runs the model over the data and prints the averages; with ``--record`` writes them down as well.

    Raises:
        CommandError: no data, options that contradict each other, or a record without a place to go.
    """
    record = _record_file(args)
    if args.write_thresholds and (args.model is None or not os.path.isdir(args.model)):
        raise CommandError('--write-thresholds writes into the model folder: give one with --model')
    data = coco_pair(args.annotations, args.images, ('--annotations', '--images'))
    if (data is None) == (args.data is None):
        raise CommandError('give the data: either --data, or --annotations and --images')
    if data is None:
        data = _folder_data(args)
    if args.skip_bad:
        data['on_problem'] = 'skip'
    from modelscope_fastinst.plugin.build import build_evaluator, evaluation_text
    from modelscope_fastinst.plugin.evaluation_report import check_report_folder, write_reports
    if args.report is not None:
        check_report_folder(Path(args.report))
    settings = {**_report_settings(args), **parse_settings(args.settings)}
    with tempfile.TemporaryDirectory() as folder:   # the trainer wants a place for its log
        trainer = build_evaluator(args.model, args.revision, device=args.device, settings=settings, eval_dataset=data,
                                  work_dir=folder, verbose=args.debug)
        if args.write_thresholds and trainer.cfg.safe_get('evaluation.tta') not in (None, False):
            raise CommandError('--write-thresholds: the scores of test-time augmentation (--tta, evaluation.tta) are '
                               'not those of predictions; choose thresholds without it')
        if args.write_thresholds and not trainer.measures('instance'):
            raise CommandError('--write-thresholds: score thresholds are those of instances, which are not measured '
                               f'here; a {trainer.task} model ' + ('is, with --task instance'
                                                                   if 'instance' in TASKS[trainer.task] else
                                                                   'finds none'))
        values = trainer.evaluate()
    if args.report is not None and trainer.evaluation_reports:
        write_reports(trainer.evaluation_reports, Path(args.report))
        print(f'report: {args.report}', file=sys.stderr)
    if args.write_thresholds:
        _write_thresholds(Path(args.model), trainer.best_thresholds)
    if record is not None:
        _write_record(record, data, trainer, values, getattr(args, 'command_line', None))
    print(json.dumps(values, indent=1, ensure_ascii=False) if args.json else evaluation_text(trainer, values))
    return 0


def _folder_data(args: argparse.Namespace) -> dict[str, Any]:
    """The trainer's form of the images of ``--data`` that are to be measured on.

    Raises:
        CommandError: the folder is not divided, and nobody said which of its images are meant; or the other way round.
    """
    data = folder_data(args.data, args.split, args.format, args.val_fraction, args.split_seed) | label_numbers(args)
    splits = _splits(args)
    if args.split == 'all':
        if splits:
            raise CommandError(f'--split all: {args.data} has the splits {", ".join(splits)}; name one of them')
        del data['split']
    elif args.split == 'val' and 'val' not in splits and not args.val_fraction:
        raise CommandError(f'{args.data} has no validation split: --val-fraction {VAL_FRACTION} measures on the images '
                           'that "train" sets aside, --split all on all of them')
    return data


def _splits(args: argparse.Namespace) -> tuple[str, ...]:
    """The splits of ``--data``: of its outlined objects, or where it has maps, for the model's task."""
    from modelscope_fastinst.data.formats import FORMATS, find_splits
    from modelscope_fastinst.data.records import DatasetError
    try:
        if args.format in (None, *FORMATS):
            return find_splits(args.data, args.format)
    except DatasetError:
        if args.format is not None:
            raise
    from modelscope_fastinst.cli.info import read
    from modelscope_fastinst.plugin.map_data import find_splits_for
    return find_splits_for(args.data, read(args.model, args.revision)[1]['model'].get('task'), args.format)


def _report_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The options that say how to evaluate, as settings of the configuration."""
    # The trainer's own report would go to its work folder.
    settings: dict[str, Any] = {'evaluation.report': args.report is not None}
    if args.task is not None:
        from modelscope_fastinst.plugin.measured_tasks import METRIC_OF
        settings['evaluation.metrics'] = [METRIC_OF[task] for task in args.task]
    if args.boundary:
        settings['evaluation.boundary'] = True
    if args.engine is not None:
        settings['evaluation.engine'] = args.engine
    if args.tta is not None:
        try:
            scales = [float(scale) for scale in args.tta.split(',')]
        except ValueError as error:
            raise CommandError(f'--tta {args.tta}: must be numbers separated by commas, as in 0.75,1,1.25') from error
        settings['evaluation.tta'] = scales
    return settings


def _write_thresholds(folder: Path, thresholds: Mapping[str, float] | None) -> None:
    """Makes the thresholds the default of the model in ``folder``."""
    from modelscope_fastinst.cli.predict import write_json
    from modelscope_fastinst.plugin.huggingface import is_huggingface_folder
    if thresholds is None:
        print('no thresholds written: nothing that was found matches an object', file=sys.stderr)
        return
    if is_huggingface_folder(folder):
        raise CommandError(f'{folder}: a folder of Hugging Face\'s has no place for thresholds; convert it first')
    file = folder / 'configuration.json'
    configuration = json.loads(file.read_text('utf-8'))
    configuration['postprocessor'] = {**(configuration.get('postprocessor') or {}), 'score_thr': dict(thresholds)}
    write_json(file, configuration)
    print(f'thresholds written: {file}', file=sys.stderr)


def typed(words: Sequence[str]) -> str:
    """A command line as it was typed, but for the places of files on this machine, of which the names remain."""
    return shlex.join(_without_place(word) for word in words)


def _without_place(word: str) -> str:
    option, equals, path = word.rpartition('=')
    if re.match(r'[/~]|[A-Za-z]:[/\\]', path):
        path = re.split(r'[/\\]', path.rstrip('/\\'))[-1]
    return option + equals + path


def _record_file(args: argparse.Namespace) -> Path | None:
    """Where the record is to go; None if none is wanted."""
    from modelscope_fastinst.evaluation.record import RECORD_FILE
    if args.record is None:
        return None
    if args.model is None or not args.record and not os.path.isdir(args.model):
        raise CommandError('--record writes into the model folder: give one with --model, or give --record a file')
    file = Path(args.record) if args.record else Path(args.model) / RECORD_FILE
    if not file.parent.is_dir():
        raise CommandError(f'--record {file}: no such folder as {file.parent}')
    return file


def _write_record(file: Path, data: Mapping[str, str], trainer: Any, values: Mapping[str, Any],
                  words: Sequence[str] | None) -> None:
    from modelscope_fastinst.checkpoints import find_weights
    from modelscope_fastinst.cli.predict import write_json
    from modelscope_fastinst.data.layouts import find_coco
    from modelscope_fastinst.evaluation.record import make_record
    split = data.get('split', 'all')   # of data without splits
    try:
        annotations = data.get('annotation_file') or find_coco(data['root'], split)[0]
    except (ValueError, OSError):   # another format, which has no one file of annotations
        annotations = f'{Path(data["root"]).resolve().name} ({split})'
    write_json(file, make_record(
        command=typed(words or ['modelscope', *sys.argv[1:]]), date=datetime.date.today().isoformat(),
        data=Path(annotations).name, images=len(trainer.eval_dataset), measures=values,
        weights=find_weights(trainer.model_dir),
        versions={name: version(name) for name in ('modelscope-fastinst', 'torch', 'pycocotools')}))
    print(f'recorded: {file}', file=sys.stderr)
