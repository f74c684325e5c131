"""A report on an evaluation: curves, best thresholds, which class is taken for which."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modelscope_fastinst.evaluation.averages import precision_curves
from modelscope_fastinst.evaluation.confusion import confusion_matrix
from modelscope_fastinst.evaluation.evidence import IOU_TYPES, Evidence, Gathered
from modelscope_fastinst.evaluation.thresholds import ScoreCurve, score_curve
from modelscope_fastinst.evaluation.worst import WorstImage, WorstImages

DEFAULT_THRESHOLD = 0.5
PICTURES = ('precision_recall.png', 'f1.png', 'confusion_matrix.png')


@dataclass
class EvaluationReport:
    """What an evaluation says beyond its averages; masks matched at an IoU of 0.5 where nothing else is said.

    Attributes:
        classes: names in the order of the class indices.
        metrics: the averages, by name.
        precision: by class that has ground truth, interpolated precision ``[10, 101]`` by IoU threshold and recall.
        curves: by class, how right one is with each score threshold.
        overall: the same with one threshold for all classes.
        threshold: the best of these; 0.5 where no result matches an object.
        thresholds: by class, the score threshold of the best F1; ``threshold`` for a class without ground truth or
            without a result that matches.
        confusion: int64 ``[K + 1, K + 1]``, at ``threshold``, see ``confusion.confusion_matrix``.
        images: number of images.
        worst: the images that fare worst with ``thresholds``, the worst first, each with its F1.
    """
    classes: list[str]
    metrics: dict[str, float]
    precision: dict[str, np.ndarray]
    curves: dict[str, ScoreCurve]
    overall: ScoreCurve
    threshold: float
    thresholds: dict[str, float]
    confusion: np.ndarray
    images: int
    worst: list[tuple[float, WorstImage]]

    task = 'instance'

    @property
    def has_matches(self) -> bool:
        """Whether any result matches an object, so that thresholds mean something."""
        return self.overall.best() is not None

    def numbers(self) -> dict[str, Any]:
        """Everything but the curves, as plain data for JSON."""
        by_class = {name: {'score_thr': self.thresholds[name], 'objects': curve.objects,
                           **curve.values_at(self.thresholds[name])} for name, curve in self.curves.items()}
        return {'images': self.images, 'metrics': dict(self.metrics),
                'one_threshold': {'score_thr': self.threshold, **self.overall.values_at(self.threshold)},
                'classes': by_class,
                'confusion': {'score_thr': self.threshold, 'iou': 0.5, 'rows': 'truth', 'columns': 'prediction',
                              'classes': [*self.classes, 'background'], 'counts': self.confusion.tolist()}}

    def write_pictures(self, folder: str | Path) -> None:
        """Writes ``precision_recall.png``, ``f1.png`` and ``confusion_matrix.png`` into an existing folder."""
        from modelscope_fastinst.evaluation import figures
        from modelscope_fastinst.fonts import matplotlib_fonts
        with matplotlib_fonts(self.classes):
            for name, figure in zip(PICTURES, (figures.precision_recall(self), figures.f1_curves(self),
                                               figures.confusion(self)), strict=True):
                figure.savefig(Path(folder) / name, dpi=110)


def make_report(images: Sequence[Evidence], classes: Sequence[str], metrics: Mapping[str, float],
                worst: WorstImages | None = None, kinds: Sequence[str] = IOU_TYPES) -> EvaluationReport:
    """The report on what was kept of the images (``coco.CocoEvaluator.images``)."""
    gathered = Gathered(images, len(classes), kinds)
    every = [gathered.of_class(label) for label in range(len(classes))]
    curves = {name: score_curve([evidence]) for name, evidence in zip(classes, every, strict=True)}
    # Results of a class that the data has no object of say nothing: COCO's averages leave them out as well.
    overall = score_curve([evidence for evidence in every if evidence.counts[0]])
    threshold = overall.best()
    threshold = DEFAULT_THRESHOLD if threshold is None else threshold
    thresholds = {}
    for name, curve in curves.items():
        best = curve.best()
        thresholds[name] = threshold if best is None else best
    precision = {classes[label]: precision_curves(every[label]) for label in gathered.present
                 if gathered.counts[label, 0]}
    return EvaluationReport(list(classes), dict(metrics), precision, curves, overall, threshold, thresholds,
                            confusion_matrix(list(images), len(classes), threshold), len(images),
                            _chosen(worst, [thresholds[name] for name in classes]))


def _chosen(worst: WorstImages | None, thresholds: Sequence[float]) -> list[tuple[float, WorstImage]]:
    if worst is None:
        return []
    rated = [(image.rate(thresholds), image) for image in worst.images()]
    return sorted(rated, key=lambda pair: (pair[0], pair[1].key))[:worst.number]
