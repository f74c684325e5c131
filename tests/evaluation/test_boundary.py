"""Boundary IoU and AP against their definition, and against faster-coco-eval where that follows it."""
from __future__ import annotations

import io
from contextlib import redirect_stdout
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from modelscope_fastinst.evaluation.averages import metric_names
from modelscope_fastinst.evaluation.boundary import boundary
from modelscope_fastinst.evaluation.coco import CocoEvaluator
from modelscope_fastinst.structures import Instances
from tests.evaluation.literal_maps import boundary_of

CLASSES = ['ellipse', 'box']
SIZE, IMAGES = (60, 80), 4


def rle(mask):
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


@settings(deadline=None)   # OpenCV is imported
@given(st.binary(min_size=6, max_size=60), st.integers(1, 60), st.integers(1, 90))
def test_the_boundary_of_a_mask(content, height, width):
    mask = np.zeros((height, width), np.uint8)
    for top, left, side in np.frombuffer(content[:len(content) // 3 * 3], np.uint8).reshape(-1, 3).tolist()[:4]:
        mask[top % height:top % height + side % 40, left % width:left % width + side % 30 + 1] ^= 1
    np.testing.assert_array_equal(coco_mask.decode(boundary(rle(mask))), boundary_of(mask))


def scene(number):
    """Ground truth and results of one image: shifted, crowds, another class, touching the border."""
    rng = np.random.default_rng(number)
    rows, columns = np.mgrid[:SIZE[0], :SIZE[1]]
    truth, masks, labels, scores = [], [], [], []
    for item in range(7):
        y, x, a, b = rng.integers(0, SIZE[0]), rng.integers(0, SIZE[1]), *rng.integers(5, 25, 2)
        label = item % 2
        shift = rng.integers(-2, 3, 2)
        inside = [((rows - y - dy) / a) ** 2 + ((columns - x - dx) / b) ** 2 <= 1 if label == 0 else
                  (abs(rows - y - dy) <= a) & (abs(columns - x - dx) <= b) for dy, dx in ((0, 0), shift)]
        truth.append({'category_id': label, 'segmentation': rle(inside[0]), 'iscrowd': int(item == 4),
                      'area': float(inside[0].sum()), 'id': item + 1})
        if item != 2:
            masks.append(rle(inside[1]))
            labels.append(label if item != 5 else 1 - label)
            scores.append(float(rng.random()))
    boxes = [coco_mask.toBbox(mask).tolist() for mask in masks]
    return truth, Instances(np.array(scores), np.array(labels), masks,
                            np.array([[x, y, x + w, y + h] for x, y, w, h in boxes]))


def evaluated(engine):
    evaluator = CocoEvaluator(CLASSES, engine, boundary=True)
    for number in range(IMAGES):
        evaluator.add(number, SIZE, *scene(number))
    return evaluator


@lru_cache
def published(native):
    """Boundary AP of the same scenes by a whole evaluation: by faster-coco-eval's own, or by pycocotools with the
    smaller of both IoUs from literal boundaries."""
    if native:
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as COCOeval
    else:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    images, truth, found = [], [], []
    for number in range(IMAGES):
        images.append({'id': number + 1, 'height': SIZE[0], 'width': SIZE[1]})
        objects, instances = scene(number)
        truth += [{**record, 'id': len(truth) + place + 1, 'image_id': number + 1,
                   'bbox': coco_mask.toBbox(record['segmentation']).tolist()} for place, record in enumerate(objects)]
        found += [{'image_id': number + 1, 'category_id': int(label), 'score': float(score), 'segmentation': mask}
                  for label, score, mask in zip(instances.labels, instances.scores, instances.masks, strict=True)]

    class Literal(COCOeval):
        def computeIoU(self, image, label):
            ious = super().computeIoU(image, label)
            objects = self._gts[image, label]
            results = sorted(self._dts[image, label], key=lambda record: -record['score'])
            for row, result in enumerate(results):
                for column, one in enumerate(objects):
                    if not one['iscrowd']:
                        near = [boundary_of(coco_mask.decode(record['segmentation'])) for record in (result, one)]
                        ious[row, column] = min(ious[row, column],
                                                (near[0] & near[1]).sum() / (near[0] | near[1]).sum())
            return ious

    with redirect_stdout(io.StringIO()):
        data = COCO()
        data.dataset = {'images': images, 'annotations': truth,
                        'categories': [{'id': label, 'name': name} for label, name in enumerate(CLASSES)]}
        data.createIndex()
        evaluation = (COCOeval(data, data.loadRes(found), 'boundary') if native else
                      Literal(data, data.loadRes(found), 'segm'))
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(('boundary_mAP', 'boundary_mAP_50', 'boundary_mAP_75', 'boundary_mAP_s', 'boundary_mAP_m',
                     'boundary_mAP_l', 'boundary_mAR_1', 'boundary_mAR_10', 'boundary_mAR_100'),
                    np.asarray(evaluation.stats).tolist(), strict=False))


@pytest.mark.parametrize('engine', ['pycocotools', 'faster-coco-eval'])
@pytest.mark.parametrize('native', [pytest.param(True, id='as faster-coco-eval has it'),
                                    pytest.param(False, id='as the paper has it')])
def test_boundary_ap(engine, native):
    values, expected = evaluated(engine).evaluate(), published(native)
    assert {name: values[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert 0 < values['boundary_mAP'] < values['segm_mAP'] - 0.05


@pytest.mark.parametrize('engine', ['pycocotools', 'faster-coco-eval'])
def test_of_a_crowd_the_mask_counts_alone(engine):
    crowd, one, inside = np.zeros((3, 40, 80), np.uint8)
    crowd[:, :40], one[10:30, 50:70], inside[15:25, 10:30] = 1, 1, 1
    truth = [{'category_id': 0, 'segmentation': rle(mask), 'iscrowd': int(mask is crowd)} for mask in (crowd, one)]
    found = Instances(np.array([0.9, 0.8]), np.array([0, 0]), [rle(inside), rle(one)],
                      np.array([[10, 15, 30, 25], [50, 10, 70, 30]], float))
    evaluator = CocoEvaluator(CLASSES, engine, boundary=True)
    evaluator.add(1, (40, 80), truth, found)   # what lies within the crowd is not false, far from its outline as it is
    assert evaluator.evaluate()['boundary_mAP'] == pytest.approx(1)


def test_mask_and_box_ap_are_as_without_it():
    evaluator = CocoEvaluator(CLASSES)
    for number in range(IMAGES):
        evaluator.add(number, SIZE, *scene(number))
    values = evaluated('pycocotools').evaluate()
    assert {name: values[name] for name in metric_names(CLASSES)} == evaluator.evaluate()
    assert not any('boundary' in name for name in evaluator.evaluate())


def test_evidence_with_boundaries_travels_as_text_and_merges_with_its_like_only():
    evaluator = evaluated('pycocotools')
    again = CocoEvaluator.from_state(evaluator.state())
    assert again.evaluate() == evaluator.evaluate() and again.kinds == ('segm', 'bbox', 'boundary')
    assert again.report().metrics == evaluator.evaluate()
    with pytest.raises(ValueError, match="same kinds; got .*'boundary'"):
        CocoEvaluator(CLASSES).merge(evaluator)
