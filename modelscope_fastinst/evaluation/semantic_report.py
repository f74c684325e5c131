"""A report on label maps: IoU by class, which class is taken for which, the worst images."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modelscope_fastinst.evaluation.worst_maps import WorstMap


@dataclass
class SemanticReport:
    """What an evaluation of label maps says beyond its averages.

    Attributes:
        classes: names in the order of the class indices.
        metrics: the averages, by name; see ``semantic.SemanticEvaluator.evaluate``.
        confusion: int64 ``[K, K + 1]``, pixels by true (rows) and by found class; last column: found without a class.
        images: number of images.
        worst: the images of least mIoU, the worst first.
    """
    classes: list[str]
    metrics: dict[str, float]
    confusion: np.ndarray
    images: int
    worst: list[WorstMap]

    task = 'semantic'

    def numbers(self) -> dict[str, Any]:
        """Everything but the pictures, as plain data for JSON."""
        there = self.confusion.sum(1)
        by_class = {name: {**{value: self.metrics[f'{value}/{name}'] for value in ('IoU', 'ACC')},
                           'pixels': int(there[index])} for index, name in enumerate(self.classes)}
        return {'images': self.images, 'metrics': dict(self.metrics), 'classes': by_class,
                'confusion': {'rows': 'truth', 'columns': 'prediction', 'classes': [*self.classes, 'none'],
                              'pixels': self.confusion.tolist()}}

    def write_pictures(self, folder: str | Path) -> None:
        """Writes ``iou.png`` and ``confusion_matrix.png`` into an existing folder."""
        from modelscope_fastinst.evaluation import figures
        from modelscope_fastinst.evaluation.class_figures import class_ious
        from modelscope_fastinst.fonts import matplotlib_fonts
        with matplotlib_fonts(self.classes):
            class_ious(self).savefig(Path(folder) / 'iou.png', dpi=110)
            # Results have a class everywhere, but for other people's.
            columns = self.confusion if self.confusion[:, -1].any() else self.confusion[:, :-1]
            names = [*self.classes, 'none'][:columns.shape[1]]
            figures.confusion_matrix(columns, self.classes, names, 'Found as which class', 'predicted', 'true',
                                     'of pixels').savefig(Path(folder) / 'confusion_matrix.png', dpi=110)
