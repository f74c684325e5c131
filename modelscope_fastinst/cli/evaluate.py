"""``evaluate``: COCO average precision of a model on annotated pictures."""
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
from modelscope_fastinst.cli.train import coco_pair, parse_settings


def evaluate(args: argparse.Namespace) -> int:
    """Runs the model over the data and prints the averages; with ``--record`` writes them down as well.

    Raises:
        CommandError: no data, options that contradict each other, or a record without a place to go.
    """
    record = _record_file(args)
    data = coco_pair(args.annotations, args.images, ('--annotations', '--images'))
    if (data is None) == (args.data is None):
        raise CommandError('give the data: either --data, or --annotations and --images')
    if data is None:
        if not os.path.isdir(args.data):
            raise CommandError(f'--data {args.data}: no such folder')
        data = {'root': args.data, 'split': args.split}
    from modelscope_fastinst.plugin.build import build_evaluator, evaluation_text
    settings = parse_settings(args.settings)
    with tempfile.TemporaryDirectory() as folder:   # the trainer wants a place for its log
        trainer = build_evaluator(args.model, args.revision, device=args.device, settings=settings, eval_dataset=data,
                                  work_dir=folder, verbose=args.debug)
        values = trainer.evaluate()
    if record is not None:
        _write_record(record, data, trainer, values, getattr(args, 'command_line', None))
    print(json.dumps(values, indent=1, ensure_ascii=False) if args.json else evaluation_text(trainer, values))
    return 0


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
    annotations = data.get('annotation_file') or find_coco(data['root'], data['split'])[0]
    write_json(file, make_record(
        command=typed(words or ['modelscope', *sys.argv[1:]]), date=datetime.date.today().isoformat(),
        data=Path(annotations).name, images=len(trainer.eval_dataset), measures=values,
        weights=find_weights(trainer.model_dir),
        versions={name: version(name) for name in ('modelscope-fastinst', 'torch', 'pycocotools')}))
    print(f'recorded: {file}', file=sys.stderr)
