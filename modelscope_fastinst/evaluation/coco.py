"""COCO average precision of masks and boxes, computed by pycocotools.

Results and ground truth are gathered image by image under the data set's own image ids, so that order, several
processes and images that come twice do not matter.
"""
from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modelscope_fastinst.structures import Instances

IOU_TYPES = ('segm', 'bbox')
MAX_DETECTIONS = 100
# How pycocotools names its object sizes, and how ModelScope's metrics do.
_SIZES = {'small': 's', 'medium': 'm', 'large': 'l'}


@dataclass
class _Image:
    """What is remembered of one image: its size, ground truth and results as COCO records."""
    size: tuple[int, int]
    truth: list[dict]
    found: list[dict]


class CocoEvaluator:
    """Gathers results and ground truth, and computes COCO's mask and box AP.

    It holds RLE only and can be pickled, so that processes can send theirs to one that merges them.

    Args:
        classes: class names in the order of the class indices.

    Raises:
        ValueError: no classes, or a name that comes twice (results by class would be ambiguous).
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = [str(name) for name in classes]
        if not self.classes:
            raise ValueError('evaluation needs at least one class name')
        twice = sorted({name for name in self.classes if self.classes.count(name) > 1})
        if twice:
            raise ValueError(f'class names must differ; {twice} come more than once')
        self._images: dict[Any, _Image] = {}

    def __len__(self) -> int:
        """Number of different images."""
        return len(self._images)

    def __contains__(self, image_id: Any) -> bool:
        return image_id in self._images

    def add(self, image_id: Any, size: tuple[int, int], annotations: Iterable[dict], instances: Instances) -> None:
        """Take in one image. An id that is already known is ignored: padded samplers repeat images.

        Args:
            image_id: the data set's id of the image.
            size: (height, width) in pixels of the original image.
            annotations: ground truth, crowds included: dicts with ``category_id`` (class index), ``segmentation`` (RLE
                at ``size``, or polygons), and where known ``area``, ``bbox`` (xywh in pixels) and ``iscrowd``.
            instances: what was found, with masks at ``size`` as RLE or arrays.

        Raises:
            ValueError: a class index without a name, or a mask of another size; names the image and the item.
        """
        if image_id in self._images:
            return
        size = (int(size[0]), int(size[1]))
        truth = [self._truth(annotation, size, f'image {image_id}: annotation {annotation.get("id", number)}')
                 for number, annotation in enumerate(annotations)]
        found = [self._found(instances, number, size, f'image {image_id}: result {number}')
                 for number in range(len(instances))]
        self._images[image_id] = _Image(size, truth, found)

    def merge(self, other: CocoEvaluator) -> None:
        """Take in what another evaluator of the same classes has gathered; images that both have count once."""
        if other.classes != self.classes:
            raise ValueError(f'evaluators to merge must have the same classes; got {self.classes} and {other.classes}')
        for image_id, image in other._images.items():
            self._images.setdefault(image_id, image)

    def state(self) -> dict[str, Any]:
        """Everything gathered, as plain dicts, lists, strings and numbers."""
        return {'classes': list(self.classes),
                'images': [(image_id, image.size, image.truth, image.found)
                           for image_id, image in self._images.items()]}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> CocoEvaluator:
        """The evaluator that `state` was taken from."""
        evaluator = cls(state['classes'])
        evaluator._images = {image_id: _Image(tuple(size), truth, found)
                             for image_id, size, truth, found in state['images']}
        return evaluator

    def evaluate(self) -> dict[str, float]:
        """COCO's averages over everything gathered.

        Returns:
            For masks (``segm``) and boxes (``bbox``), under the names that ModelScope's metrics use: ``segm_mAP`` (IoU
            0.5 to 0.95), ``segm_mAP_50``, ``segm_mAP_75``, ``segm_mAP_s``, ``_m`` and ``_l`` (objects below 32^2, up
            to 96^2 and above 96^2 pixels), and ``segm_AP/<class>`` for every class. In [0, 1]; -1, as pycocotools has
            it, where there is no ground truth to average over. At most 100 results an image and class count.

        Raises:
            ValueError: no image was added.
        """
        if not self._images:
            raise ValueError('there is nothing to evaluate: no image was added')
        metrics: dict[str, float] = {}
        for iou_type in IOU_TYPES:
            metrics.update(self._average_precision(iou_type))
        return metrics

    def _average_precision(self, iou_type: str) -> dict[str, float]:
        from pycocotools.cocoeval import COCOeval
        # Classes without ground truth count in no average; leaving them out saves most of the time.
        present = sorted({record['category_id'] for image in self._images.values() for record in image.truth})
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval(self._dataset('truth', iou_type), self._dataset('found', iou_type), iou_type)
            params = evaluation.params
            params.catIds = present
            params.imgIds = list(range(1, len(self._images) + 1))
            params.maxDets = [MAX_DETECTIONS]
            precision = np.full((len(params.iouThrs), 1, len(present), len(params.areaRng), 1), -1.0)
            if present:
                evaluation.evaluate()
                evaluation.accumulate()
                precision = evaluation.eval['precision']
        # [IoU threshold, recall, class, object size]
        precision = precision[..., 0]
        sizes = {name: index for index, name in enumerate(params.areaRngLbl)}
        whole = precision[..., sizes['all']]
        metrics = {f'{iou_type}_mAP': _mean(whole),
                   f'{iou_type}_mAP_50': _mean(whole[np.isclose(params.iouThrs, 0.5)]),
                   f'{iou_type}_mAP_75': _mean(whole[np.isclose(params.iouThrs, 0.75)])}
        for name, short in _SIZES.items():
            metrics[f'{iou_type}_mAP_{short}'] = _mean(precision[..., sizes[name]])
        position = {category: index for index, category in enumerate(present)}
        for category, name in enumerate(self.classes):
            metrics[f'{iou_type}_AP/{name}'] = (_mean(whole[:, :, position[category]]) if category in position
                                                else -1.0)
        return metrics

    def _dataset(self, part: str, iou_type: str) -> Any:
        """pycocotools' form of the ground truth ('truth') or the results ('found')."""
        from pycocotools.coco import COCO
        images, records = [], []
        # pycocotools goes through images by rising id, which decides between results of equal score.
        for number, image_id in enumerate(sorted(self._images, key=_rising), start=1):
            image = self._images[image_id]
            images.append({'id': number, 'height': image.size[0], 'width': image.size[1]})
            for record in getattr(image, part):
                # Ids start at 1: pycocotools takes a match with id 0 for none. It also writes into the records.
                record = {**record, 'id': len(records) + 1, 'image_id': number}
                if part == 'found' and iou_type == 'bbox':
                    record['area'] = record['bbox'][2] * record['bbox'][3]
                records.append(record)
        dataset = COCO()
        dataset.dataset = {'images': images, 'annotations': records,
                           'categories': [{'id': index, 'name': name} for index, name in enumerate(self.classes)]}
        dataset.createIndex()
        return dataset

    def _truth(self, annotation: dict, size: tuple[int, int], where: str) -> dict:
        rle = _as_rle(annotation['segmentation'], size, where)
        area, box = annotation.get('area'), annotation.get('bbox')
        return {'category_id': self._category(annotation['category_id'], where), 'segmentation': rle,
                'area': float(area) if area is not None else _area(rle),
                'bbox': [float(value) for value in box] if box is not None else _box(rle),
                'iscrowd': int(annotation.get('iscrowd') or 0)}

    def _found(self, instances: Instances, number: int, size: tuple[int, int], where: str) -> dict:
        rle = _as_rle(instances.masks[number], size, where)
        left, top, right, bottom = (float(value) for value in instances.boxes[number])
        return {'category_id': self._category(instances.labels[number], where), 'segmentation': rle,
                'area': _area(rle), 'bbox': [left, top, right - left, bottom - top], 'iscrowd': 0,
                'score': float(instances.scores[number])}

    def _category(self, index: Any, where: str) -> int:
        if not 0 <= int(index) < len(self.classes):
            raise ValueError(f'{where}: class index {int(index)}, but there are {len(self.classes)} classes')
        return int(index)


def metric_names(classes: Sequence[str]) -> list[str]:
    """The names of all values that `CocoEvaluator.evaluate` gives for these classes: averages first."""
    suffixes = ('', '_50', '_75', *(f'_{short}' for short in _SIZES.values()))
    return [*(f'{iou_type}_mAP{suffix}' for iou_type in IOU_TYPES for suffix in suffixes),
            *(f'{iou_type}_AP/{name}' for iou_type in IOU_TYPES for name in classes)]


def evaluate_results(annotation_file: str | Path, results_file: str | Path) -> dict[str, float]:
    """AP of results in COCO's results format against a COCO annotation file.

    Args:
        annotation_file: COCO instance annotations (JSON).
        results_file: JSON list of dicts with ``image_id``, ``category_id`` (as in the annotation file), ``score`` and
            ``segmentation`` (RLE); box results without one count as masks of their boxes.

    Returns:
        As `CocoEvaluator.evaluate`; classes bear the annotation file's names.

    Raises:
        ValueError: not JSON, or a result for an image or a category that the annotation file does not have.
    """
    truth, results = _read_json(annotation_file), _read_json(results_file)
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
    evaluator = CocoEvaluator([category['name'] for category in categories])
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
        masks.append(_as_rle(segmentation, size, f'{name}: image {result["image_id"]}'))
        box = box or _box(masks[-1])
        boxes.append([box[0], box[1], box[0] + box[2], box[1] + box[3]])
    return Instances(scores=np.array([result['score'] for result in results], np.float64),
                     labels=np.array([result['category_id'] for result in results], np.int64),
                     masks=masks, boxes=np.array(boxes, np.float64).reshape(-1, 4))


def _as_rle(mask: Any, size: tuple[int, int], where: str) -> dict:
    """A mask in any of COCO's forms, or an array, as compressed RLE with text counts."""
    from pycocotools import mask as coco_mask
    if isinstance(mask, list):
        rle = coco_mask.merge(coco_mask.frPyObjects(mask, *size))
    elif not isinstance(mask, dict):
        rle = coco_mask.encode(np.asfortranarray(np.asarray(mask) != 0).astype(np.uint8, order='F'))
    elif isinstance(mask['counts'], list):
        rle = coco_mask.frPyObjects(mask, *mask['size'])
    else:
        rle = mask
    if tuple(rle['size']) != size:
        raise ValueError(f'{where}: the mask is {rle["size"][0]} x {rle["size"][1]} pixels, the image {size[0]} x '
                         f'{size[1]}; masks must have the original size')
    counts = rle['counts']
    return {'size': list(size), 'counts': counts.decode('ascii') if isinstance(counts, bytes) else counts}


def _area(rle: dict) -> float:
    from pycocotools import mask as coco_mask
    return float(coco_mask.area(rle))


def _box(rle: dict) -> list[float]:
    from pycocotools import mask as coco_mask
    return [float(value) for value in coco_mask.toBbox(rle)]


def _mean(precision: np.ndarray) -> float:
    """The mean over what has ground truth; pycocotools marks the rest with -1."""
    valid = precision[precision > -1]
    return float(valid.mean()) if valid.size else -1.0


def _rising(image_id: Any) -> tuple[bool, Any]:
    """Sorts numbers by value, before any other ids by their text."""
    number = isinstance(image_id, (int, float))
    return (not number, image_id if number else str(image_id))


def _read_json(file: str | Path) -> Any:
    try:
        return json.loads(Path(file).read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'{file}: not valid JSON: {error}') from error
