"""A report on panoptic maps: quality by class, which class is taken for which, the worst images."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modelscope_fastinst.evaluation.worst_maps import WorstMap


@dataclass
class PanopticReport:
    """What an evaluation of panoptic maps says beyond its averages.

    Attributes:
        classes: names in the order of the class indices.
        things: indices of the classes that are things.
        metrics: the averages, by name; see ``panoptic.PanopticEvaluator.evaluate``.
        sums: by class, ``iou`` (of the pairs), ``tp``, ``fp`` and ``fn``, ``[K]`` each.
        confusion: int64 ``[K + 1, K + 1]``, segments by the class of the ground truth (rows) and the class of the
            result that lies on them with an IoU above 0.5; last column: none does, last row: lies on no segment.
        images: number of images.
        worst: the images of least PQ, the worst first.
    """
    classes: list[str]
    things: frozenset[int]
    metrics: dict[str, float]
    sums: Mapping[str, np.ndarray]
    confusion: np.ndarray
    images: int
    worst: list[WorstMap]

    task = 'panoptic'

    def numbers(self) -> dict[str, Any]:
        """Everything but the pictures, as plain data for JSON."""
        by_class = {name: {'isthing': index in self.things,
                           **{value: self.metrics[f'{value}/{name}'] for value in ('PQ', 'SQ', 'RQ')},
                           **{part: int(self.sums[part][index]) for part in ('tp', 'fp', 'fn')}}
                    for index, name in enumerate(self.classes)}
        return {'images': self.images, 'metrics': dict(self.metrics), 'classes': by_class,
                'confusion': {'iou': 0.5, 'rows': 'truth', 'columns': 'prediction',
                              'classes': [*self.classes, 'background'], 'counts': self.confusion.tolist()}}

    def write_pictures(self, folder: str | Path) -> None:
        """Writes ``panoptic_quality.png`` and ``confusion_matrix.png`` into an existing folder."""
        from modelscope_fastinst.evaluation import figures
        from modelscope_fastinst.evaluation.class_figures import panoptic_quality
        from modelscope_fastinst.fonts import matplotlib_fonts
        with matplotlib_fonts(self.classes):
            panoptic_quality(self).savefig(Path(folder) / 'panoptic_quality.png', dpi=110)
            figures.confusion_matrix(
                self.confusion, [*self.classes, 'background'], [*self.classes, 'background'],
                'Found as which class', 'predicted (background: missed)', 'true (background: nothing there)',
                'segments that lie on each other, IoU above 0.5'
            ).savefig(Path(folder) / 'confusion_matrix.png', dpi=110)
