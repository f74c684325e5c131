"""Trains a small FastInst or Mask2Former from random weights on drawn shapes and patterns, panoptically.

    python demo/train_panoptic_shapes.py [fastinst | mask2former] [WORK_DIR]

Every image is drawn when it is asked for, out of a seed. Both networks have the same recipe; what they reach in the
same time stands in configs/README.md. Interrupted, it goes on where it was.
"""
from __future__ import annotations

import sys
from pathlib import Path

from modelscope.trainers import build_trainer

import modelscope_fastinst  # noqa: F401  registers the trainer
from modelscope_fastinst.data.shapes_panoptic import PanopticShapes

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
RECIPES = {'fastinst': 'shapes_panoptic_r18.json', 'mask2former': 'shapes_panoptic_mask2former_r18.json'}


def main(network: str = 'fastinst', work_dir: str | None = None) -> None:
    if network not in RECIPES:
        sys.exit(f'{network!r} is no network of this script; choose one of {", ".join(RECIPES)}')
    trainer = build_trainer('fastinst-trainer', default_args={
        'cfg_file': str(CONFIGS / RECIPES[network]), 'work_dir': work_dir or f'work_dir/panoptic_{network}',
        'resume_from': 'latest',
        'train_dataset': PanopticShapes(2000, seed=1), 'eval_dataset': PanopticShapes(200, seed=2)})
    trainer.train()
    trainer.evaluate()   # logs PQ and mIoU, class by class


if __name__ == '__main__':
    main(*sys.argv[1:])
