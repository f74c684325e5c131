"""AP of a results file in COCO's format."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from modelscope_fastinst.evaluation import masks as mask_forms
from modelscope_fastinst.structures import Instances


def evaluate_results(annotation_file: str | Path, results_file: str | Path,
                     engine: str = 'pycocotools') -> dict[str, float]:
    """AP of results in COCO's results format against a COCO annotation file.

    Args:
        annotation_file: COCO instance annotations (JSON).
        results_file: JSON list of dicts with ``image_id``, ``category_id`` (as in the annotation file), ``score`` and
            ``segmentation`` (RLE); box results without one count as masks of their boxes.
        engine: see ``coco.CocoEvaluator``.

    Returns:
        As `CocoEvaluator.evaluate`; classes bear the annotation file's names.

    Raises:
        ValueError: not JSON, or a result for an image or a category that the annotation file does not have.
    """
    from modelscope_fastinst.evaluation.coco import CocoEvaluator
    truth, results = read_json(annotation_file), read_json(results_file)
    categories = sorted(truth['categories'], key=lambda category: category['id'])
    index_of = {category['id']: index for index, category in enumerate(categories)}
    annotations: dict[Any, list[dict]] = {image['id']: [] for image in truth['images']}
    found: dict[Any, list[dict]] = {image['id']: [] for image in truth['images']}
    for records, name, by_image in ((truth['annotations'], annotation_file, annotations),
                                    (results, results_file, found)):
        for number, record in enumerate(records):
            if record['image_id'] not in by_image or record['category_id'] not in index_of:
                raise ValueError(f'{name}: record {number} is of image {record["image_id"]} and category '
                                 f'{record["category_id"]}, not both of which are in {annotation_file}')
            by_image[record['image_id']].append({**record, 'category_id': index_of[record['category_id']]})
    evaluator = CocoEvaluator([category['name'] for category in categories], engine)
    for image in truth['images']:
        size = (image['height'], image['width'])
        instances = _instances(found[image['id']], size, str(results_file))
        evaluator.add(image['id'], size, annotations[image['id']], instances)
    return evaluator.evaluate()


def _instances(results: list[dict], size: tuple[int, int], name: str) -> Instances:
    """One image's results in COCO's format as `Instances`."""
    masks, boxes = [], []
    for result in results:
        box = result.get('bbox')
        segmentation = result.get('segmentation')
        if segmentation is None:
            left, top, width, height = box
            right, bottom = left + width, top + height
            segmentation = [[left, top, left, bottom, right, bottom, right, top]]
        masks.append(mask_forms.as_rle(segmentation, size, f'{name}: image {result["image_id"]}'))
        box = box or mask_forms.box(masks[-1])
        boxes.append([box[0], box[1], box[0] + box[2], box[1] + box[3]])
    return Instances(scores=np.array([result['score'] for result in results], np.float64),
                     labels=np.array([result['category_id'] for result in results], np.int64),
                     masks=masks, boxes=np.array(boxes, np.float64).reshape(-1, 4))


def read_json(file: str | Path) -> Any:
    """A JSON file's content.

    Raises:
        ValueError: it is no JSON.
    """
    try:
        return json.loads(Path(file).read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'{file}: not valid JSON: {error}') from error
