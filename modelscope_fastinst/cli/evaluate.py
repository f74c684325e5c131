"""``evaluate``: COCO average precision of a model on annotated pictures."""
from __future__ import annotations

import argparse
import json
import os
import tempfile

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
    from modelscope_fastinst.plugin.build import build_evaluator, evaluation_text
    settings = parse_settings(args.settings)
    with tempfile.TemporaryDirectory() as folder:   # the trainer wants a place for its log
        trainer = build_evaluator(args.model, device=args.device, settings=settings, eval_dataset=data,
                                  work_dir=folder, verbose=args.debug)
        values = trainer.evaluate()
    print(json.dumps(values, indent=1, ensure_ascii=False) if args.json else evaluation_text(trainer, values))
    return 0
