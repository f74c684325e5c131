"""The model folders that a training hands out."""
from __future__ import annotations

import os
from typing import Any

from . import trainer_config
from .configuration import plain

OUTPUT_DIR = 'output'
RAW_OUTPUT_DIR = 'output_raw'


def write_results(trainer: Any) -> None:
    """Writes the model that counts, with its configuration, into the work folder's ``output``.

    With averaged weights (EMA) these are there, and the raw weights of the same moment in ``output_raw``. The best
    score thresholds that the last evaluation has found become the ``postprocessor.score_thr`` of the model that was
    evaluated (``output``), unless ``evaluation.thresholds`` is false.
    """
    config = trainer_config.portable(plain(trainer.cfg._cfg_dict))
    config['model']['pretrained'] = True
    raw_config = dict(config)
    thresholds = trainer.best_thresholds
    if thresholds is not None and trainer.cfg.safe_get('evaluation.thresholds') is not False:
        config['postprocessor'] = {**(config.get('postprocessor') or {}), 'score_thr': dict(thresholds)}
    model = trainer.unwrap_module(trainer.model)
    with trainer.evaluated_weights():
        model.save_pretrained(os.path.join(trainer.work_dir, OUTPUT_DIR), config=config)
    if trainer.ema:
        model.save_pretrained(os.path.join(trainer.work_dir, RAW_OUTPUT_DIR), config=raw_config)
