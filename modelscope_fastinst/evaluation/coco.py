"""COCO average precision of masks and boxes, equal to pycocotools'.

Results and ground truth are matched image by image as they come, under the data set's own image ids, so that order,
several processes and images that come twice do not matter. What is kept of an image is how its results fared
(``evidence``), not the masks: memory hardly depends on the number of images.
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from modelscope_fastinst.evaluation.averages import average_precision, metric_names
from modelscope_fastinst.evaluation.class_names import checked_label
from modelscope_fastinst.evaluation.evidence import BOUNDARY, IOU_TYPES, MAX_DETECTIONS, Evidence, Gathered
from modelscope_fastinst.evaluation.gathering import Gathering
from modelscope_fastinst.evaluation.masks import area, as_rle, box
from modelscope_fastinst.evaluation.matching import ENGINES, check_engine, evidence_of
from modelscope_fastinst.evaluation.report import EvaluationReport, make_report
from modelscope_fastinst.evaluation.results_file import evaluate_results
from modelscope_fastinst.evaluation.worst import WorstImages
from modelscope_fastinst.structures import Instances

__all__ = ['ENGINES', 'IOU_TYPES', 'MAX_DETECTIONS', 'CocoEvaluator', 'evaluate_results', 'metric_names']


class CocoEvaluator(Gathering):
    """Gathers how results fare against the ground truth, and computes COCO's mask and box AP and AR.

    It keeps some 36 bytes a result, and the masks of the worst images only.

    Args:
        classes: class names in the order of the class indices.
        engine: 'pycocotools', or 'faster-coco-eval', which matches the same in less time.
        worst: so many of the worst images are kept as a whole, see ``worst.WorstImages``.
        boundary: boundary AP as well, see ``boundary``.

    Raises:
        ValueError: no classes, a name that comes twice (results by class would be ambiguous), or an unknown engine.
        ImportError: the engine is not installed.
    """

    _alike = ('classes', 'kinds')

    def __init__(self, classes: Sequence[str], engine: str = ENGINES[0], worst: int = 0,
                 boundary: bool = False) -> None:
        super().__init__(classes, WorstImages(worst))
        check_engine(engine)
        self.engine = engine
        self.kinds = (*IOU_TYPES, BOUNDARY) if boundary else IOU_TYPES

    def add(self, image_id: Any, size: tuple[int, int], annotations: Iterable[dict], instances: Instances,
            image: Any = None, name: str = '') -> None:
        """Take in one image. An id that is already known is ignored: padded samplers repeat images.

        Args:
            image_id: the data set's id of the image.
            size: (height, width) in pixels of the original image.
            annotations: ground truth, crowds included: dicts with ``category_id`` (class index), ``segmentation`` (RLE
                at ``size``, or polygons), and where known ``area``, ``bbox`` (xywh in pixels) and ``iscrowd``.
            instances: what was found, with masks at ``size`` as RLE or arrays.
            image: uint8 ``[3, H, W]``, RGB, of any size; kept where the image is one of the worst.
            name: of the image, for people.

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
        self._images[image_id] = evidence = evidence_of(size, truth, found, self.engine, self.kinds)
        self.worst.offer(image_id, evidence, truth, found, image, name)

    def state(self) -> dict[str, Any]:
        """Everything gathered but the worst images, as plain dicts, lists, strings and numbers."""
        return {'classes': list(self.classes), 'engine': self.engine, 'kinds': list(self.kinds),
                'images': [[image_id, *image.to_text()] for image_id, image in self._images.items()]}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> CocoEvaluator:
        """The evaluator that `state` was taken from."""
        kinds = state.get('kinds', IOU_TYPES)
        evaluator = cls(state['classes'], state['engine'], boundary=BOUNDARY in kinds)
        evaluator._images = {image_id: Evidence.from_text(texts, kinds) for image_id, *texts in state['images']}
        return evaluator

    def evaluate(self) -> dict[str, float]:
        """COCO's averages over everything gathered.

        Returns:
            For masks (``segm``) and boxes (``bbox``), under the names that ModelScope's metrics use: ``segm_mAP`` (IoU
            0.5 to 0.95), ``segm_mAP_50``, ``segm_mAP_75``, ``segm_mAP_s``, ``_m`` and ``_l`` (objects below 32^2, up
            to 96^2 and above 96^2 pixels), ``segm_AP/<class>`` for every class, and average recall: ``segm_mAR_1``,
            ``_10`` and ``_100`` (so many results an image and class), ``segm_mAR_s``, ``_m`` and ``_l``. In [0, 1];
            -1, as pycocotools has it, where there is no ground truth to average over. At most 100 results an image and
            class count. With ``boundary`` the same under ``boundary_mAP`` and so on.

        Raises:
            ValueError: no image was added.
        """
        return average_precision(Gathered(self.images(), len(self.classes), self.kinds), self.classes)

    def report(self, metrics: Mapping[str, float] | None = None) -> EvaluationReport:
        """Curves, best thresholds and confusion of everything gathered.

        Args:
            metrics: what ``evaluate`` gave; None to compute it again.

        Raises:
            ValueError: no image was added.
        """
        images = self.images()
        return make_report(images, self.classes, self.evaluate() if metrics is None else metrics, self.worst,
                           self.kinds)

    def _truth(self, annotation: dict, size: tuple[int, int], where: str) -> dict:
        rle = as_rle(annotation['segmentation'], size, where)
        size_in_pixels, bounds = annotation.get('area'), annotation.get('bbox')
        return {'category_id': checked_label(annotation['category_id'], self.classes, where), 'segmentation': rle,
                'area': float(size_in_pixels) if size_in_pixels is not None else area(rle),
                'bbox': [float(value) for value in bounds] if bounds is not None else box(rle),
                'iscrowd': int(annotation.get('iscrowd') or 0)}

    def _found(self, instances: Instances, number: int, size: tuple[int, int], where: str) -> dict:
        rle = as_rle(instances.masks[number], size, where)
        left, top, right, bottom = (float(value) for value in instances.boxes[number])
        return {'category_id': checked_label(instances.labels[number], self.classes, where), 'segmentation': rle,
                'area': area(rle), 'bbox': [left, top, right - left, bottom - top], 'iscrowd': 0,
                'score': float(instances.scores[number])}
