"""Trains a small FastInst from random weights on drawn shapes: no data, no network, under 20 minutes on 2 cores.

    python demo/train_shapes.py [WORK_DIR]

Every image is drawn when it is asked for, out of a seed. What it reaches stands in configs/README.md. Interrupted, it
goes on where it was.
"""
from __future__ import annotations

import sys
from pathlib import Path

from modelscope.trainers import build_trainer

import modelscope_fastinst  # noqa: F401  registers the trainer
from modelscope_fastinst.data.shapes import ShapesDataset

CONFIG = Path(__file__).resolve().parents[1] / 'configs' / 'shapes_r18.json'


def main(work_dir: str = 'work_dir/shapes') -> None:
    trainer = build_trainer('fastinst-trainer', default_args={
        'cfg_file': str(CONFIG), 'work_dir': work_dir, 'resume_from': 'latest',
        'train_dataset': ShapesDataset(1000, seed=1), 'eval_dataset': ShapesDataset(100, seed=2)})
    trainer.train()


if __name__ == '__main__':
    main(*sys.argv[1:])
