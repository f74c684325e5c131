"""Panoptic quality of results in COCO's files, by whatever model they were made."""
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from modelscope_fastinst.evaluation.panoptic import PanopticEvaluator
from modelscope_fastinst.evaluation.results_file import read_json
from modelscope_fastinst.structures import PanopticMap, Segment


def evaluate_panoptic_results(annotation_file: str | Path, results_file: str | Path,
                              annotation_dir: str | Path | None = None,
                              results_dir: str | Path | None = None) -> dict[str, float]:
    """PQ, SQ and RQ of results in COCO's panoptic format, such as ``predict --task panoptic`` writes.

    Args:
        annotation_file: COCO panoptic annotations (JSON).
        results_file: JSON of the same form; of it only ``annotations`` count. Images go by ``image_id``.
        annotation_dir, results_dir: folders of the PNG files; default the JSON file's name without its suffix.

    Returns:
        As `PanopticEvaluator.evaluate`; classes bear the annotation file's names.

    Raises:
        ValueError: not JSON, an image without a result, a category that the annotation file does not have, a PNG
            without three channels, or a segment that is in the JSON or the PNG of a result only.
        OSError: a PNG file that cannot be read.
    """
    truth, results = read_json(annotation_file), read_json(results_file)
    categories = sorted(truth['categories'], key=lambda category: category['id'])
    index_of = {category['id']: index for index, category in enumerate(categories)}
    things = frozenset(index_of[category['id']] for category in categories if category['isthing'])
    found = {record['image_id']: record for record in results['annotations']}
    evaluator = PanopticEvaluator([category['name'] for category in categories], things)
    for record in truth['annotations']:
        image_id = record['image_id']
        if image_id not in found:
            raise ValueError(f'{results_file}: has no result for image {image_id} of {annotation_file}')
        evaluator.add(image_id, *(
            _map(one, Path(folder or Path(file).with_suffix('')), index_of, things, f'{file}: image {image_id}')
            for one, folder, file in ((record, annotation_dir, annotation_file),
                                      (found[image_id], results_dir, results_file))))
    return evaluator.evaluate()


def _map(record: Mapping[str, Any], folder: Path, index_of: Mapping[Any, int], things: frozenset[int],
         where: str) -> PanopticMap:
    """One image's segments and the PNG file that has them."""
    from PIL import Image
    file = folder / record['file_name']
    with Image.open(file) as picture:
        pixels = np.asarray(picture)
    if pixels.ndim != 3 or pixels.dtype != np.uint8:
        raise ValueError(f'{file}: has not three channels; a panoptic PNG has the ids as R + 256 G + 65536 B')
    red, green, blue = np.moveaxis(pixels[..., :3], 2, 0).astype(np.int32)
    segments = []
    for one in record['segments_info']:
        if one['category_id'] not in index_of:
            raise ValueError(f'{where}: segment {one["id"]} has the category {one["category_id"]}, which is not among '
                             'the categories of the annotation file')
        label = index_of[one['category_id']]
        segments.append(Segment(one['id'], label, float(one.get('score', 1.0)), label in things,
                                int(one.get('area', 0)), tuple(one.get('bbox', (0, 0, 0, 0))),
                                bool(one.get('iscrowd'))))
    return PanopticMap(red + 256 * green + 65536 * blue, segments)
