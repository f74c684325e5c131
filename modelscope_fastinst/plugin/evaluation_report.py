"""The folder that tells a person how good a model is: numbers, curves, and the images on which it fares worst."""
from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from modelscope_fastinst.evaluation.report import EvaluationReport
from modelscope_fastinst.evaluation.worst import WorstImage
from modelscope_fastinst.visualize import draw_instances, side_by_side

from .evaluation_maps import CROWD, FALSE, MISSED, RIGHT, SIDE, draw_panoptic, draw_semantic
from .new_folder import new_folder

REPORT_DIR = 'evaluation'
NUMBERS = 'metrics.json'


def check_report_folder(folder: Path) -> None:
    """Raises FileExistsError if ``folder`` holds something that is no report, and would be lost."""
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f'{folder}: is a file; give the name of a folder')
    if folder.is_dir() and any(folder.iterdir()) and not (folder / NUMBERS).is_file():
        raise FileExistsError(f'{folder}: exists and is no evaluation report (it has no {NUMBERS}); give another '
                              'folder')


def write_reports(reports: Sequence[Any], folder: Path) -> None:
    """Writes ``metrics.json``, the pictures, and ``worst/`` with an image a file; takes the place of an older report.

    With several reports, each is in a folder of its task's name, and ``metrics.json`` has all their averages.

    Args:
        reports: ``evaluation.report.EvaluationReport``, ``panoptic_report.PanopticReport`` or
            ``semantic_report.SemanticReport``.

    Raises:
        FileExistsError: something else is there.
        OSError: the folder cannot be written; an older report is as it was.
    """
    check_report_folder(folder)
    with new_folder(folder) as building:
        if len(reports) == 1:
            _write(reports[0], building)
            return
        metrics: dict[str, float] = {}
        for report in reports:
            (building / report.task).mkdir()
            _write(report, building / report.task)
            metrics |= report.metrics
        _write_json({'images': max(report.images for report in reports), 'metrics': metrics}, building)


def _write(report: Any, folder: Path) -> None:
    from PIL import Image
    _write_json(report.numbers(), folder)
    report.write_pictures(folder)
    measure, worst = _WORST[report.task](report)
    if worst:
        (folder / 'worst').mkdir()
    for number, (quality, name, draw) in enumerate(worst, start=1):
        stem = re.sub(r'[^\w.-]+', '_', Path(name).stem)[-60:]
        Image.fromarray(draw()).save(folder / 'worst' / f'{number:03d}_{measure}_{quality:.2f}_{stem}.jpg', quality=90)


def _write_json(content: dict[str, Any], folder: Path) -> None:
    (folder / NUMBERS).write_text(json.dumps(content, indent=1, ensure_ascii=False) + '\n', 'utf-8')


# An image's quality, its name, and what draws it.
Drawn = tuple[float, str, Callable[[], np.ndarray]]


def _worst_instances(report: EvaluationReport) -> tuple[str, list[Drawn]]:
    thresholds = [report.thresholds[name] for name in report.classes]
    return 'f1', [(quality, image.name, partial(draw_worst, image, report.classes, thresholds, quality))
                  for quality, image in report.worst if image.picture is not None]


def _worst_maps(measure: str, draw: Callable[..., np.ndarray], report: Any) -> tuple[str, list[Drawn]]:
    return measure, [(image.quality, image.name, partial(draw, image, report.classes))
                     for image in report.worst if image.picture is not None]


# How the worst images of each task's report are drawn, and what their quality is called.
_WORST: dict[str, Callable[[Any], tuple[str, list[Drawn]]]] = {
    'instance': _worst_instances,
    'panoptic': partial(_worst_maps, 'pq', draw_panoptic),
    'semantic': partial(_worst_maps, 'miou', draw_semantic)}


def draw_worst(image: WorstImage, classes: list[str], thresholds: list[float], quality: float) -> np.ndarray:
    """Ground truth beside the prediction, uint8 ``[H, W, 3]``: what is missed and what is false is marked.

    Args:
        thresholds: by class; results below are not drawn.
        quality: the image's F1.
    """
    from PIL import Image
    picture = np.array(Image.open(io.BytesIO(image.picture)).convert('RGB'))
    found, wrong, missed = image.matched(thresholds)
    scale = max(1.0, SIDE / max(picture.shape[:2]))
    truth_colors = [CROWD if record['iscrowd'] else MISSED if column in missed else RIGHT
                    for column, record in enumerate(image.truth)]
    truth_labels = [f'{"crowd " if record["iscrowd"] else "missed " if column in missed else ""}'
                    f'{classes[record["category_id"]]}' for column, record in enumerate(image.truth)]
    found_labels = [f'{"false " if row in wrong else ""}{classes[record["category_id"]]}'
                    for row, record in enumerate(found)]
    found_colors = [FALSE if row in wrong else RIGHT for row in range(len(found))]
    size = picture.shape[:2]
    panels = [draw_instances(picture, None, truth_labels, [_at(record, size) for record in image.truth], scale=scale,
                             colors=truth_colors),
              draw_instances(picture, [record['score'] for record in found], found_labels,
                             [_at(record, size) for record in found], scale=scale, colors=found_colors)]
    objects = sum(not record['iscrowd'] for record in image.truth)
    return side_by_side(panels, [f'truth: {len(missed)} of {objects} missed',
                                 f'found: {len(wrong)} of {len(found)} false, F1 {quality:.2f}'])


def _at(record: dict, size: tuple[int, int]) -> np.ndarray:
    """A record's mask, uint8 at another (height, width)."""
    import cv2
    from pycocotools import mask as coco_mask
    mask = coco_mask.decode(record['segmentation'])
    return mask if mask.shape == size else cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST)
