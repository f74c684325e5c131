"""The folder that tells a person how good a model is: numbers, curves, and the images on which it fares worst."""
from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np

from modelscope_fastinst.evaluation.report import EvaluationReport
from modelscope_fastinst.evaluation.worst import WorstImage
from modelscope_fastinst.visualize import draw_instances, side_by_side

from .new_folder import new_folder

REPORT_DIR = 'evaluation'
NUMBERS = 'metrics.json'
_RIGHT, _MISSED, _FALSE, _CROWD = (60, 190, 140), (255, 150, 0), (235, 50, 75), (150, 150, 150)
_SIDE = 640   # pixels that a drawn image's long side has at least


def check_report_folder(folder: Path) -> None:
    """Raises FileExistsError if ``folder`` holds something that is no report, and would be lost."""
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f'{folder}: is a file; give the name of a folder')
    if folder.is_dir() and any(folder.iterdir()) and not (folder / NUMBERS).is_file():
        raise FileExistsError(f'{folder}: exists and is no evaluation report (it has no {NUMBERS}); give another '
                              'folder')


def write_report(report: EvaluationReport, folder: Path) -> None:
    """Writes ``metrics.json``, the pictures, and ``worst/`` with an image a file; takes the place of an older report.

    Raises:
        FileExistsError: something else is there.
        OSError: the folder cannot be written; an older report is as it was.
    """
    from PIL import Image
    check_report_folder(folder)
    with new_folder(folder) as building:
        (building / NUMBERS).write_text(json.dumps(report.numbers(), indent=1, ensure_ascii=False) + '\n', 'utf-8')
        report.write_pictures(building)
        thresholds = [report.thresholds[name] for name in report.classes]
        drawn = [(quality, image) for quality, image in report.worst if image.picture is not None]
        if drawn:
            (building / 'worst').mkdir()
        for number, (quality, image) in enumerate(drawn, start=1):
            stem = re.sub(r'[^\w.-]+', '_', Path(image.name).stem)[-60:]
            Image.fromarray(draw_worst(image, report.classes, thresholds, quality)).save(
                building / 'worst' / f'{number:03d}_f1_{quality:.2f}_{stem}.jpg', quality=90)


def draw_worst(image: WorstImage, classes: list[str], thresholds: list[float], quality: float) -> np.ndarray:
    """Ground truth beside the prediction, uint8 ``[H, W, 3]``: what is missed and what is false is marked.

    Args:
        thresholds: by class; results below are not drawn.
        quality: the image's F1.
    """
    from PIL import Image
    picture = np.array(Image.open(io.BytesIO(image.picture)).convert('RGB'))
    found, wrong, missed = image.matched(thresholds)
    scale = max(1.0, _SIDE / max(picture.shape[:2]))
    truth_colors = [_CROWD if record['iscrowd'] else _MISSED if column in missed else _RIGHT
                    for column, record in enumerate(image.truth)]
    truth_labels = [f'{"crowd " if record["iscrowd"] else "missed " if column in missed else ""}'
                    f'{classes[record["category_id"]]}' for column, record in enumerate(image.truth)]
    found_labels = [f'{"false " if row in wrong else ""}{classes[record["category_id"]]}'
                    for row, record in enumerate(found)]
    found_colors = [_FALSE if row in wrong else _RIGHT for row in range(len(found))]
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
