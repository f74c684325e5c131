"""``evaluate``: COCO average precision of a model on annotated pictures."""
from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Mapping
from typing import Any

from modelscope_fastinst.cli.run import CommandError
from modelscope_fastinst.cli.train import coco_pair, parse_settings


def evaluate(args: argparse.Namespace) -> int:
    """Runs the model over the data and prints the averages.

    Raises:
        CommandError: no data, or options that contradict each other.
    """
    data = coco_pair(args.annotations, args.images, ('--annotations', '--images'))
    if (data is None) == (args.data is None):
        raise CommandError('give the data: either --data, or --annotations and --images')
    if data is None:
        if not os.path.isdir(args.data):
            raise CommandError(f'--data {args.data}: no such folder')
        data = {'root': args.data, 'split': args.split}
    from modelscope_fastinst.plugin.build import build_evaluator
    settings = parse_settings(args.settings)
    with tempfile.TemporaryDirectory() as folder:   # the trainer wants a place for its log
        trainer = build_evaluator(args.model, device=args.device, settings=settings, eval_dataset=data,
                                  work_dir=folder, verbose=args.debug)
        values = trainer.evaluate()
    print(json.dumps(values, indent=1, ensure_ascii=False) if args.json else table(values))
    return 0


def table(values: Mapping[str, Any]) -> str:
    """The measures as text, one a line; tables by class below."""
    lines = [f'{name:<28}{_number(value)}' for name, value in values.items() if not isinstance(value, Mapping)]
    for name, by_class in values.items():
        if isinstance(by_class, Mapping):
            lines += ['', f'{name}:', *(f'  {label:<26}{_number(value)}' for label, value in by_class.items())]
    return '\n'.join(lines)


def _number(value: Any) -> str:
    return f'{value:.4f}' if isinstance(value, float) else str(value)
