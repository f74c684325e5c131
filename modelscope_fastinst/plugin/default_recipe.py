"""What a training does whose configuration does not say: the fine-tuning of a published model on a few hundred images.

A stock or a converted model has no ``train`` section. Whoever trains it has some hundred images, one GPU or a CPU, and
wants the best model of the run. Hence, beside the paper's optimiser, schedule and augmentation:

- Batches of 4 images of 640 pixels, meant to fit a small GPU (not measured on one); the learning rate stays the
  paper's 1e-4 (1e-5 in the backbone), which suits AdamW at this size as well, and is not scaled.
- 50 epochs, the paper's number: 3,750 steps for 300 images. With fewer than about 100 images more epochs are in order.
- A warm-up over 2 % of the training (one epoch of 50): new class layers meet old weights, and AdamW's averages of the
  first steps are those of few images.
- An exponential moving average of the weights, which evens out the noise of small batches. It is what is evaluated.
- With a validation set: an evaluation after every epoch, cheap at this size, and the output is the best model seen: by
  mask AP, mIoU or PQ, as ``model.task`` has it.

The published configurations hold the paper's own recipe and get nothing of this.
"""
from __future__ import annotations

import copy
from typing import Any

from .measured_tasks import BEST_OF, metrics_of, task_of_metric
from .trainer_keys import PREPROCESSOR

DEFAULT_TRAIN: dict[str, Any] = {
    'max_epochs': 50,
    'dataloader': {'batch_size_per_gpu': 4, 'workers_per_gpu': 2},
    'optimizer': {'type': 'AdamW', 'lr': 1e-4, 'weight_decay': 0.05},
    'lr_scheduler': {'type': 'MultiStepLR', 'milestones': [0.88889, 0.96296], 'gamma': 0.1,
                     'options': {'warmup': {'type': 'LinearWarmup', 'warmup_iters': 0.02, 'warmup_ratio': 0.01}}},
    'ema': {'decay': 0.999},
}
DEFAULT_PREPROCESSOR = {'type': PREPROCESSOR, 'min_size': 640, 'max_size': 853}
_EVERY_EPOCH = {'interval': 1}


def with_defaults(cfg: Any, train_source: Any = None, eval_source: Any = None) -> None:
    """Fills in what the trainer needs and the configuration (a ``modelscope`` Config) lacks.

    A configuration with an optimiser or a schedule has a recipe of its own, and gets only what cannot be left out.

    Args:
        cfg: changed.
        train_source, eval_source: the caller's data, None where the configuration's ``dataset`` counts.
    """
    train = dict(cfg.safe_get('train') or {})
    evaluation = dict(cfg.safe_get('evaluation') or {})
    task = cfg.safe_get('model.task') or 'instance'
    if evaluation.get('metrics') is None:
        evaluation['metrics'] = metrics_of(cfg)
    measured = [task_of_metric(metric) for metric in metrics_of(cfg)]
    if not {'optimizer', 'lr_scheduler'} & set(train):   # a length alone is no recipe
        if train.get('max_iters') is None:
            train.setdefault('max_epochs', DEFAULT_TRAIN['max_epochs'])
        for key in ('dataloader', 'optimizer', 'lr_scheduler', 'ema'):
            train.setdefault(key, copy.deepcopy(DEFAULT_TRAIN[key]))
        both = all(source is not None or cfg.safe_get(f'dataset.{name}')
                   for source, name in ((train_source, 'train'), (eval_source, 'val')))
        if both:
            evaluation.setdefault('period', dict(_EVERY_EPOCH))
            if evaluation['period'] and task in measured and None not in measured:
                best = {'metric_key': BEST_OF[task], 'rule': 'max'}
                train['checkpoint'] = {'best': best, **(train.get('checkpoint') or {})}
    for key in ('dataloader', 'optimizer'):
        train.setdefault(key, copy.deepcopy(DEFAULT_TRAIN[key]))
    cfg['train'] = train
    cfg['preprocessor'] = cfg.safe_get('preprocessor') or dict(DEFAULT_PREPROCESSOR)
    cfg['evaluation'] = evaluation
