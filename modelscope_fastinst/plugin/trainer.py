"""Training FastInst with ModelScope: ``build_trainer('fastinst-trainer', default_args=...)``.

A subclass of the library's epoch-based trainer with its configuration keys. What breaks there as shipped is done here:
checkpoints and resuming, automatic mixed precision, schedules, seeds of workers, evaluation, and starting offline.
"""
from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from modelscope.models.builder import build_model
from modelscope.trainers.builder import TRAINERS
from modelscope.utils.config import ConfigDict
from modelscope.utils.constant import ModeKeys
from torch import nn

from modelscope_fastinst.checkpoints import load_weights
from modelscope_fastinst.data.collate import collate

from . import (
    batch_scaling,
    default_recipe,
    evaluation_settings,
    measured_tasks,
    processes,
    trainer_config,
    trainer_keys,
    trainer_start,
)
from .checkpoint_files import find_state, find_whole_state
from .checkpoint_hook import CheckpointHook, restore
from .configuration import plain
from .dataset import open_data
from .ema_hook import EmaHook
from .huggingface import tell_guesses
from .network_setup import freeze, set_up
from .optimize_hook import OptimizeHook
from .optimizer import build_optimizer, build_scheduler
from .own_hooks import build_hooks
from .registry import TASK
from .result_folders import OUTPUT_DIR, write_results
from .task_data import settle_things, task_of, task_of_weights
from .trainer_keys import ConfigurationError
from .training_log import TrainingLog
from .training_loop import LoopingTrainer

_ARGUMENTS = ('type', 'arg_parse_fn', 'data_collator', 'optimizers', 'model_revision', 'callbacks', 'samplers',
              'cfg_options', 'device', 'launcher', 'use_fp16', 'trust_remote_code', 'third_party',
              'train_iters_per_epoch', 'val_iters_per_epoch')


@TRAINERS.register_module(module_name='fastinst-trainer', force=True)
class FastInstTrainer(LoopingTrainer):
    """Trains and evaluates FastInst.

    Writes into ``work_dir``: checkpoints (see ``checkpoint_hook``), ``log.jsonl``, and ``output``, a model folder that
    ``pipeline()`` loads: the best model seen if ``train.checkpoint.best`` is configured, else the last one.

    Keys of ``train`` beyond the library's: ``max_iters`` (iterations after which the training ends, also within an
    epoch; beside or instead of ``max_epochs``), ``backbone_weights`` (see ``backbone_weights.backbone_file``; 'none'
    for random ones), ``dataloader.aspect_ratio_grouping`` (see ``sampling.GroupedBatches``), ``batch_scaling`` (see
    that module), ``amp`` ('bf16' or 'fp16'), ``ema``, ``seed``, and the settings of ``optimizer.build_optimizer``;
    ``by_epoch: false`` makes the intervals of ``checkpoint.period`` and ``evaluation.period`` count iterations.

    Attributes:
        new_weights: state-dict names of the tensors that start with their fresh initialisation instead of loaded
            values; empty for a model given as an object, and in a resumed training.
        model_classes: the names of the classes.

    ``stateful`` maps names to objects with ``state_dict`` and ``load_state_dict`` (optimiser, schedule, scaler,
    averages, early stopping, ...), as they are at that moment. ``checkpoint_hook`` saves each one's state (tensors and
    plain data) at the top level of the trainer-state file under its name, and restores those whose name the file has;
    a name that the file lacks, or has as None, leaves its object as it is, so that files of earlier versions load.

    Args:
        model: a model folder or hub id to start from, or a model. None: train ``cfg_file`` from the ImageNet weights
            that it names in ``train.backbone_weights``, or from random weights.
        cfg_file: the configuration; default the model folder's.
        cfg_modify_fn: called with the configuration, returns it changed.
        train_dataset, eval_dataset: see ``dataset.open_dataset``; default the configuration's ``dataset`` section.
        classes: class names of the model to train; default the training set's. Where the model's own classes have
            other names or another order, all tensors that depend on the classes start anew; where it does not name
            them, only if their number differs.
        work_dir: where to write; default ``train.work_dir``.
        max_epochs: instead of ``train.max_epochs``; ``train.max_iters``, if it is there, bounds the training as well.
        preprocessor: a callable on samples, or ``{'train': ..., 'val': ...}``, instead of the configuration's.
        resume_from: 'latest' (of ``work_dir``; starts anew if there is none) or a checkpoint, for ``train()``.
        seed: of weights, order, augmentation and sampled points; default ``train.seed`` or 42.
        kwargs: further arguments of ``EpochBasedTrainer``, such as ``model_revision`` of a hub id.

    Raises:
        ConfigurationError: unknown keys or arguments, contradictions, missing data; before anything is computed.
        data.coco.DatasetError: broken data.
        CheckpointError: weights that are missing or do not fit.
        HubError, BackboneError: weights that cannot be downloaded.
    """

    def __init__(self, model: Any = None, cfg_file: str | None = None, cfg_modify_fn: Callable | None = None,
                 train_dataset: Any = None, eval_dataset: Any = None, classes: Sequence[str] | None = None,
                 work_dir: str | None = None, max_epochs: int | None = None, preprocessor: Any = None,
                 resume_from: str | None = None, seed: int | None = None, **kwargs: Any):
        trainer_keys.check_names(kwargs, {*_ARGUMENTS, 'model', 'cfg_file', 'train_dataset', 'eval_dataset',
                                            'work_dir', 'max_epochs', 'preprocessor', 'classes', 'seed',
                                            'cfg_modify_fn', 'resume_from'}, 'fastinst-trainer: default_args')
        if isinstance(model, os.PathLike):
            model = os.fspath(model)
        # The library asks the hub about a model's folder and waits for it; the model is put back in build_model.
        self._given_model = model if isinstance(model, nn.Module) else None
        if self._given_model is not None:
            if cfg_file is None and getattr(model, 'model_dir', None):
                cfg_file = os.path.join(model.model_dir, 'configuration.json')
            model = None
        if model is None and cfg_file is None:
            raise ConfigurationError('fastinst-trainer: give model= (a folder or hub id) or cfg_file=')
        kwargs['device'] = processes.join(kwargs.get('device'), kwargs.pop('launcher', None))
        self._starts_from_model = model is not None or self._given_model is not None
        self._sources = train_dataset, eval_dataset
        self._asked_for = classes, max_epochs, work_dir, seed
        self._given_preprocessor = preprocessor
        self._on_cpu = str(kwargs.get('device') or 'gpu').startswith('cpu') or not torch.cuda.is_available()
        self._asks_fp16 = bool(kwargs.get('use_fp16'))
        self._cfg_options = kwargs.pop('cfg_options', None)
        self._resume_from = resume_from
        self.ema: EmaHook | None = None
        self.checkpoint_hook: CheckpointHook | None = None
        self.fresh_metrics: dict | None = None
        self.log_vars: dict[str, float] = {}
        self.stepped = self.left_out = False   # what has become of the last iteration, see OptimizeHook
        self.grad_norm: float | None = None
        self._ends_at: int | None = None
        self._frozen: list[nn.Module] = []
        self.new_weights: list[str] = []
        self._start = trainer_start.Start('model as given')
        self._optimize_hook: OptimizeHook | None = None
        if max_epochs is not None:
            kwargs['max_epochs'] = max_epochs
        super().__init__(model=model, cfg_file=os.fspath(cfg_file) if cfg_file is not None else None,
                         cfg_modify_fn=cfg_modify_fn, train_dataset=None, eval_dataset=None, work_dir=work_dir,
                         seed=42 if seed is None else seed, data_collator=kwargs.pop('data_collator', None) or collate,
                         **kwargs)
        if self._only_iterations:
            del self.cfg.train['max_epochs']   # stood in for a number that the library insists on
        self.amp = 'fp16' if self.use_fp16 else self.cfg.safe_get('train.amp') or None
        self.grad_scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp == 'fp16')
        self.training_log = TrainingLog(self.work_dir, bool(self.cfg.safe_get('train.tensorboard')))

    # Configuration, data, model: what the library's constructor asks for, in this order.

    def get_or_download_model_dir(self, model: str, model_revision: str | None = None,
                                  third_party: str | None = None) -> str:
        """The folder of a model folder, of a file in it, or of a hub's model id, which is downloaded at most once."""
        if os.path.isfile(model):
            return os.path.dirname(os.path.abspath(model))
        from .hub import model_directory
        with processes.first_here_first():
            folder = model_directory(model, model_revision)
        tell_guesses(folder, hint='set model.task')
        return folder

    def rebuild_config(self, cfg: Any) -> Any:
        """Applies the caller's changes, checks everything, opens the data and settles the classes."""
        file = str(cfg.filename or 'configuration')
        before = copy.deepcopy(cfg)
        cfg = super().rebuild_config(cfg)
        if cfg is None:
            raise ConfigurationError('cfg_modify_fn must return the configuration')
        if self._cfg_options:
            cfg.merge_from_dict(self._cfg_options)
        classes, max_epochs, _, seed = self._asked_for
        self._file = file
        if (self._given_model is not None and cfg.safe_get('model')
                and getattr(self._given_model, 'task', 'instance') != task_of(cfg, file)):
            cfg.model['task'] = self._given_model.task
        measured_tasks.forget_other_task(cfg, before)
        default_recipe.with_defaults(cfg, *self._sources)
        inherited = trainer_config.inherited_evaluation(cfg, before) if self._starts_from_model else []
        self._scaled = batch_scaling.scale_to_batch(cfg, before, self._cfg_options or (), processes.world_size(), file)
        self._only_iterations = (max_epochs is None and cfg.train.get('max_epochs') is None
                                 and cfg.train.get('max_iters') is not None)
        if self._only_iterations:
            cfg.train['max_epochs'] = cfg.train['max_iters']   # enough: an epoch has at least one iteration
        if max_epochs is not None:
            cfg.train['max_epochs'] = max_epochs
        if seed is None and cfg.safe_get('train.seed') is not None:
            self._seed = int(cfg.train['seed'])
            torch.manual_seed(self._seed)
        trainer_keys.check_keys(plain(cfg._cfg_dict), file)
        if not cfg.safe_get('model'):
            raise ConfigurationError(f'{file}: has no model section')
        self._norms_frozen = (self._starts_from_model and self._given_model is None
                              and trainer_config.freeze_stock_norms(cfg, before, self._cfg_options or ()))
        if self._on_cpu and (self._asks_fp16 or cfg.safe_get('train.amp') == 'fp16'):
            raise ConfigurationError(f'{file}: train.amp "fp16" needs a CUDA device; on a CPU train with "bf16" (--set '
                                     'train.amp=bf16) or without (null)')
        # What a pretrained model's own configuration says of classes gives way to the data; the caller's word does not.
        own = [key for key in ('classes', 'decoder.num_classes')
               if self._starts_from_model and cfg.safe_get(f'model.{key}') == before.safe_get(f'model.{key}')]
        if self._given_model is not None:
            classes = classes or getattr(self._given_model, 'classes', None)
        train_set, eval_set, self.model_classes = open_data(cfg, *self._sources, self._given_preprocessor, classes, own,
                                                            file)
        self._data = train_set, eval_set
        things = settle_things(task_of(cfg, file), cfg.safe_get('model.things'), self._data, self.model_classes,
                               replaceable=self._starts_from_model and train_set is not None
                               and cfg.safe_get('model.things') == before.safe_get('model.things'), file=file)
        self._weights_classes = trainer_config.classes_of_weights(self.model_dir, before)
        self._task_before = task_of_weights(self.model_dir, before)
        evaluation_settings.forget_thresholds(cfg, self.model_classes)
        cfg.model['classes'] = list(self.model_classes)
        cfg.model.pop('things', None)
        if things is not None:
            cfg.model['things'] = things
        cfg.model['decoder'] = {**(cfg.safe_get('model.decoder') or {}), 'num_classes': len(self.model_classes)}
        if eval_set is None:
            trainer_config.remove(cfg, inherited)
        trainer_config.check_values(cfg, has_train=train_set is not None, has_eval=eval_set is not None, file=file)
        return cfg

    def build_model(self) -> nn.Module:
        """The model with the settled classes and the weights to start from."""
        if self._given_model is not None:
            return self._prepared(self._given_model)
        section = plain(self.cfg.model)
        pretrained = section.get('pretrained', self._starts_from_model)
        model = build_model(ConfigDict({**section, 'pretrained': False, 'model_dir': self.model_dir}), TASK)
        model.network.to(memory_format=torch.channels_last)  # convolutions run faster so, on CPUs and with AMP
        backbone = self.cfg.safe_get('train.backbone_weights')
        backbone = backbone if trainer_start.wants_backbone(backbone) else None
        needless = ('' if not backbone else
                    'the training starts from all weights of a model' if pretrained else
                    'nothing is to be trained' if self._data[0] is None else
                    'the training is resumed' if self._resumes() else '')
        if pretrained:
            self._start = trainer_start.from_model(model.network, self.model_dir, self.model_classes,
                                                   self._weights_classes, training=self._data[0] is not None)
        elif backbone and not needless:
            self._start = trainer_start.from_backbone(model.network, backbone)
        else:
            self._start = trainer_start.from_nothing(model.network)
        if pretrained and model.task != self._task_before:
            self._start.message += f'; it was a model for the task "{self._task_before}", and becomes one for ' \
                                   f'"{model.task}"'
        if needless:
            self._start.message += f'; train.backbone_weights {backbone} are not used: {needless}'
        if self._norms_frozen:
            self._start.message += ('; the backbone\'s batch norms are frozen, as in the authors\' training '
                                    '(cfg_options or --set model.backbone.norm=BN trains them)')
        self.new_weights = self._start.new
        return self._prepared(model)

    def _prepared(self, model: nn.Module) -> nn.Module:
        self._frozen = freeze(model.network, plain(self.cfg.safe_get('train.freeze')))
        return model

    def _resumes(self) -> bool:
        work_dir = self._asked_for[2] or self.cfg.train.get('work_dir', './work_dir')
        return self._resume_from is not None and processes.from_first(
            lambda: find_state(self._resume_from, work_dir) is not None)   # another machine may not see the files

    def get_preprocessors(self, preprocessor: Any) -> tuple[None, None]:
        """The data sets have their transforms already."""
        return None, None

    def build_dataset(self, datasets: Any, model_cfg: Any, mode: str, preprocessor: Any = None, **kwargs: Any) -> Any:
        """The data that ``rebuild_config`` opened."""
        return self._data[0] if mode == ModeKeys.TRAIN else self._data[1]

    def register_hook_from_cfg(self, hook_cfg: list) -> list:
        """Puts this trainer's own hooks in the place of the library's; others are built as configured."""
        own, rest = trainer_config.hook_settings(hook_cfg)
        hooks = super().register_hook_from_cfg(rest)
        self._own_hooks = build_hooks(self.cfg, own)
        self.checkpoint_hook, self.ema = self._own_hooks['checkpoint'], self._own_hooks.get('ema')
        for hook in self._own_hooks.values():
            self.register_hook(hook)
        return hooks + list(self._own_hooks.values())

    def get_metrics(self) -> list:
        """``evaluation.metrics``, default COCO AP."""
        return trainer_config.metric_settings(self.cfg.evaluation['metrics'], self._file)

    def print_cfg(self) -> None:
        """Says in a few lines what is going to happen; the whole configuration goes to the log at debug level."""
        if not processes.is_first():
            return
        images = [len(data) if data else 0 for data in self._data]
        size = sum(p.numel() for p in self.network.parameters() if p.requires_grad)
        self.logger.info(f'{type(self.network).__name__} with {size / 1e6:.2f} M trainable parameters on '
                         f'{self.device}; {self._start.message}')
        self.logger.info(f'{images[0]} training and {images[1]} evaluation images; work folder {self.work_dir}')
        if all(images) and 'evaluation' not in self._own_hooks:
            self.logger.info('nothing is evaluated during the training, for the configuration has no evaluation.period '
                             '(--set evaluation.period.interval=1 evaluates after each epoch)')
        if self._scaled:
            self.logger.info(self._scaled)
        self.logger.debug(str(self.cfg._cfg_dict))

    def print_hook_info(self) -> None:
        """The hooks are this trainer's own affair."""

    # Training

    def train(self, checkpoint_path: str | None = None, load_all_state: bool = True, *args: Any,
              resume_from: str | None = None, **kwargs: Any) -> None:
        """Trains up to ``max_epochs`` or ``train.max_iters``, whichever comes first.

        Args:
            checkpoint_path: a checkpoint to go on from; with ``load_all_state=False`` only its weights are taken.
            resume_from: 'latest' or a checkpoint; default the constructor's.
        """
        if self.train_dataset is None:
            raise ConfigurationError(f'{self._file}: no training set: give train_dataset= or a dataset.train section')
        self._mode = ModeKeys.TRAIN
        self.train_dataloader = self.data_loader = self.get_train_dataloader()
        if len(self.train_dataloader) == 0:
            raise ConfigurationError(f'{len(self.train_dataset)} training images make no batch of '
                                     f'{self.cfg.train.dataloader.get("batch_size_per_gpu", 1)} with '
                                     'train.dataloader.drop_last')
        if len(self.train_dataloader) < self.iters_per_epoch:
            raise ConfigurationError(f'train.train_iters_per_epoch is {self.iters_per_epoch}, but an epoch of the '
                                     f'training set has {len(self.train_dataloader)} batches')
        self._ends_at = None
        self._max_epochs = -(-self.max_iters // self.iters_per_epoch)
        if self._optimize_hook is None:
            self.register_optimizers_hook()
        if checkpoint_path is not None and not load_all_state:
            load_weights(self.network, checkpoint_path)
            self.new_weights = []
        else:
            self._resume(checkpoint_path or resume_from or self._resume_from)
        set_up(self.network, plain(self.cfg.train), self.device, self.world_size, self.logger)
        try:
            with processes.naming_lost_peers():
                self.train_loop(self.train_dataloader)
        finally:
            self._own_hooks['progress'].close()
            self._own_hooks['stop'].release()
            self.training_log.close()
        if processes.is_first():
            self.logger.info(f'training finished; the model is in {os.path.join(self.work_dir, OUTPUT_DIR)}')

    def _resume(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        files = find_whole_state(checkpoint, self.work_dir, self.logger)
        if files is None:
            self.logger.info(f'nothing to resume in {self.work_dir}; starting from the beginning')
            return
        restore(self, *files)
        self.new_weights = []
        self.logger.info(f'resumed from {files[0]}: {self.epoch} epochs and {self.iter} iterations are done')

    def register_optimizers_hook(self) -> None:
        """Builds optimiser and schedule, and the hook that steps them."""
        section = plain(self.cfg.train['optimizer'])
        options = section.pop('options', None) or {}
        self._optimize_hook = OptimizeHook(**options)
        optimizer, scheduler = self.optimizers
        self.optimizer = optimizer if optimizer is not None else build_optimizer(self.network, section)
        self.lr_scheduler = scheduler if optimizer is not None else build_scheduler(
            self.optimizer, plain(self.cfg.safe_get('train.lr_scheduler')), self.max_iters, self.iters_per_epoch)
        self._optimize_hook.schedule_counts_iterations = optimizer is None
        self.register_hook(self._optimize_hook)

    @property
    def stateful(self) -> dict[str, Any]:
        """What a checkpoint saves and restores beside the weights and the progress; see the class."""
        parts = {'optimizer': self.optimizer, 'lr_scheduler': self.lr_scheduler, 'grad_scaler': self.grad_scaler,
                 'ema': self.ema, 'optimize': self._optimize_hook,
                 'evaluation': self._own_hooks.get('evaluation'),
                 'early_stopping': self._own_hooks.get('early_stopping'), 'progress': self._own_hooks['progress']}
        return {name: part for name, part in parts.items() if part is not None}

    def save_output(self) -> None:
        """Writes the model that counts, with its configuration, into ``work_dir/output``; see ``result_folders``."""
        write_results(self)
