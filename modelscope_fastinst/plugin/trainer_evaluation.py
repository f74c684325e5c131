"""Evaluation by the trainer, alone or between two training iterations."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from modelscope.metrics.builder import build_metric
from modelscope.trainers.trainer import EpochBasedTrainer
from modelscope.utils.constant import ModeKeys, TrainerStages
from modelscope.utils.data_utils import to_device
from torch import Tensor, nn
from torch.utils.data import DataLoader

from modelscope_fastinst.checkpoints import load_weights
from modelscope_fastinst.evaluation.report import EvaluationReport

from .configuration import plain
from .ema_hook import raw_values
from .evaluation_report import REPORT_DIR, write_reports
from .evaluation_results import evaluation_postprocessors, find_results
from .evaluation_settings import views_of, worst_of
from .measured_tasks import metrics_of, task_of_metric
from .metric import FastInstCocoMetric, gathered_values
from .metric_panoptic import FastInstPanopticMetric
from .metric_semantic import FastInstSemanticMetric
from .metrics_text import metrics_table
from .processes import is_first
from .sampling import build_loader
from .trainer_keys import ConfigurationError
from .training_log import write_log
from .views import find_in_views

OWN_METRICS = (FastInstCocoMetric, FastInstPanopticMetric, FastInstSemanticMetric)


class EvaluatingTrainer(EpochBasedTrainer):
    """The library's trainer with this project's data loaders and evaluation; what trains is ``FastInstTrainer``.

    Attributes:
        evaluation_reports: of the last evaluation, one for each metric that makes one: numbers by class, confusion,
            worst images. They are in ``work_dir/evaluation`` as well, unless ``evaluation.report`` is false; a training
            that keeps the best model keeps that one's there.
        evaluation_report: the one of COCO AP, with curves and thresholds; None without COCO AP.
        best_thresholds: by class name, the score threshold of the best F1 in that evaluation; None where nothing that
            was found is right, and with ``evaluation.tta``, whose fused scores are not those of the pipeline.
    """

    evaluation_reports: Sequence[Any] = ()
    evaluation_report: EvaluationReport | None = None
    best_thresholds: dict[str, float] | None = None
    checkpoint_hook: Any = None
    _measured: frozenset[str] | set[str] = frozenset()   # the tasks of the metrics of this evaluation

    @property
    def network(self) -> nn.Module:
        """The network itself, without ModelScope's and a parallel wrapper."""
        return self.unwrap_module(self.model).network

    @property
    def task(self) -> str:
        """What the model is trained for: 'instance', 'semantic' or 'panoptic'."""
        return getattr(self.unwrap_module(self.model), 'task', 'instance')

    @property
    def thing_classes(self) -> frozenset[int]:
        """Indices of the model's classes that are things."""
        every = frozenset(range(len(self.model_classes)))
        return getattr(self.unwrap_module(self.model), 'thing_classes', every)

    def measures(self, task: str) -> bool:
        """Whether a metric of this package measures this task."""
        return task in map(task_of_metric, metrics_of(self.cfg))

    @property
    def world_size(self) -> int:
        """Number of training processes."""
        return torch.distributed.get_world_size(self.dp_group) if self._dist else 1

    def evaluate(self, checkpoint_path: str | None = None, saving_fn: Callable | None = None,
                 report: bool = True, **kwargs: Any) -> dict[str, Any]:
        """The metrics on the evaluation set, of the averaged weights where there are any.

        Args:
            checkpoint_path: a weights file or model folder to evaluate; it stays loaded.
            saving_fn: called as the library's trainer does, with inputs and outputs of each batch.
            report: whether to write the report down, where ``evaluation.report`` asks for one.
        """
        if self.eval_dataset is None:
            raise ConfigurationError(f'{self._file}: no evaluation set: give eval_dataset= or a dataset.val section')
        if checkpoint_path is not None:
            load_weights(self.network, checkpoint_path)
        self._mode = ModeKeys.EVAL
        if self.eval_dataloader is None:
            self.eval_dataloader = self.get_eval_data_loader()
        self.data_loader = self.eval_dataloader
        metrics = [build_metric(metric) for metric in self.metrics]
        if saving_fn is not None:
            from modelscope.metrics.prediction_saving_wrapper import PredictionSavingWrapper
            metrics.append(PredictionSavingWrapper(saving_fn=saving_fn))
        for metric in metrics:
            metric.trainer = self
        with self.evaluated_weights() if checkpoint_path is None else nullcontext():
            self._metric_values = self.evaluation_loop(self.eval_dataloader, metrics)
        self._take_report(metrics)
        if report:
            self.write_report()
        if is_first():
            self.logger.info(metrics_table(self._metric_values, self.model_classes))
        return self._metric_values

    def _take_report(self, metrics: Sequence[Any]) -> None:
        """Remembers what the evaluation says beyond its values."""
        self.evaluation_reports = [metric.report(self._metric_values) for metric in metrics
                                   if isinstance(metric, OWN_METRICS)]
        report = next((one for one in self.evaluation_reports if isinstance(one, EvaluationReport)), None)
        self.evaluation_report = report
        fused = views_of(plain(self.cfg.evaluation)) is not None
        self.best_thresholds = (dict(report.thresholds) if report is not None and report.has_matches and not fused
                                else None)

    @property
    def report_folder(self) -> Path | None:
        """Where this process writes the report of an evaluation; None where it does not."""
        wanted = is_first() and worst_of(plain(self.cfg.evaluation)) is not None
        return Path(self.work_dir) / REPORT_DIR if wanted else None

    def write_report(self) -> None:
        """Writes the reports of the last evaluation into the work folder; a training goes on where that cannot be."""
        folder = self.report_folder
        if self.evaluation_reports and folder is not None:
            try:
                write_reports(self.evaluation_reports, folder)
            except OSError as error:
                self.logger.error(f'{folder}: the report of this evaluation is not written: {error}')

    def evaluate_while_training(self, iteration: int) -> None:
        """Evaluates between two training iterations, and leaves the trainer as it was."""
        raw = raw_values(self) if self.ema and self.ema.evaluate_raw else {}
        # The best model's report is written with the model.
        keeps_best = self.checkpoint_hook is not None and self.checkpoint_hook.metric_key is not None
        metrics = {**self.evaluate(report=not keeps_best), **raw}
        self._mode = ModeKeys.TRAIN
        self.data_loader = self.train_dataloader
        self.model.train()
        self.fresh_metrics = metrics
        write_log(self, {'mode': 'eval', 'epoch': self.epoch + 1, 'iter': iteration,
                         **{name: value for name, value in metrics.items() if isinstance(value, (int, float))}})

    @contextmanager
    def evaluated_weights(self) -> Iterator[None]:
        """Within it the network has the weights that count: the averaged ones where there are any."""
        with self.ema.swapped_in(self) if self.ema and self.ema.averages else nullcontext():
            yield

    def evaluation_loop(self, data_loader: DataLoader, metric_classes: list) -> dict[str, Any]:
        """Runs the model over the loader's batches; with several processes gathers what each has found."""
        self.invoke_hook(TrainerStages.before_val)
        self.model.eval()
        self.logger.info(f'evaluating {len(data_loader.dataset)} images')
        self._measured = {getattr(metric, 'task', self.task) for metric in metric_classes}
        for index, batch in enumerate(data_loader):
            if self._eval_iters_per_epoch is not None and index >= self._eval_iters_per_epoch:
                break
            batch = to_device(batch, self.device)
            outputs = self.evaluation_step(batch)
            for metric in metric_classes:
                metric.add(outputs[getattr(metric, 'task', self.task)] if isinstance(outputs, Mapping) else outputs,
                           batch)
        values = gathered_values(metric_classes, self.dp_group if self._dist else None)
        self.invoke_hook(TrainerStages.after_val)
        return values

    def evaluation_step(self, data: Mapping[str, Any]) -> list | dict[str, list]:
        """The results of one batch, in its order, from one run of the network.

        Returns:
            The results of the task that is measured, instances with masks as RLE; by task where several are measured.
        """
        self.model.eval()
        tasks = self._measured or {self.task}
        postprocessors = evaluation_postprocessors(tasks, self.task, self.thing_classes,
                                                   plain(self.cfg.safe_get('postprocessor') or {}))
        with torch.no_grad(), self._autocast(self.amp if self.cfg.safe_get('evaluation.amp') else None):
            # Not through a parallel wrapper: its processes would wait for each other, and their shares differ.
            def find(images: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> dict[str, list]:
                return find_results(self.unwrap_module(self.model), images, sizes, self.network.size_divisor,
                                    postprocessors)

            sizes, views = [s.original_size for s in data['samples']], views_of(plain(self.cfg.evaluation))
            if views:   # of instances only, see `evaluation_settings.check_evaluation`
                return find_in_views(lambda *some: find(*some)['instance'], data['images'], sizes, views)
            results = find(data['images'], sizes)
        return results if len(tasks) > 1 else results[next(iter(tasks))]

    def _autocast(self, amp: str | None) -> Any:
        if amp is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16 if amp == 'bf16' else torch.float16)

    def get_train_dataloader(self) -> DataLoader:
        """Batches of the training set, the same for the same seed whatever the number of workers."""
        return self._loader('train', self.train_dataset, self.cfg.train.get('dataloader'), self.train_data_collator)

    def get_eval_data_loader(self) -> DataLoader:
        """Batches of the evaluation set; every image comes once."""
        return self._loader('val', self.eval_dataset, self.cfg.evaluation.get('dataloader'), self.eval_data_collator)

    def _loader(self, mode: str, dataset: Any, section: Any, collator: Callable) -> DataLoader:
        samplers = self._samplers
        sampler = samplers.get(mode) if isinstance(samplers, Mapping) else samplers if mode == 'train' else None
        rank = torch.distributed.get_rank(self.dp_group) if self._dist else 0
        return build_loader(dataset, plain(section or {}), collator, training=mode == 'train', seed=self._seed,
                            rank=rank, world_size=self.world_size, sampler=sampler)
