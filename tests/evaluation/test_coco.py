"""AP by image id, equal to pycocotools'."""
from __future__ import annotations

import contextlib
import io
import json
import pickle
import sys
import tracemalloc

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from modelscope_fastinst.evaluation.coco import ENGINES, CocoEvaluator, evaluate_results, metric_names
from modelscope_fastinst.structures import Instances

SIZE = (120, 160)
CLASSES = ['cat', 'dog', 'a bird', 'unused']


def rle(mask):
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {'size': list(mask.shape), 'counts': encoded['counts'].decode('ascii')}


def rectangle(left, top, right, bottom, size=SIZE):
    mask = np.zeros(size, np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def annotation(label, box, iscrowd=0):
    mask = rle(rectangle(*box))
    return {'category_id': label, 'segmentation': mask, 'iscrowd': iscrowd, 'area': float(coco_mask.area(mask)),
            'bbox': [box[0], box[1], box[2] - box[0], box[3] - box[1]]}


def instances(*items):
    """From (score, label, box) triples, with RLE masks."""
    return Instances(scores=np.array([score for score, _, _ in items], np.float32),
                     labels=np.array([label for _, label, _ in items], np.int64),
                     masks=[rle(rectangle(*box)) for _, _, box in items],
                     boxes=np.array([box for _, _, box in items], np.float32).reshape(-1, 4))


def test_names_of_the_values_are_those_it_gives():
    evaluator = CocoEvaluator(CLASSES)
    evaluator.add(1, SIZE, [], instances())
    assert sorted(metric_names(CLASSES)) == sorted(evaluator.evaluate())


def scene(seed):
    """Random ground truth, with crowds, and results near it: shifted, missed, of a wrong class, out of the blue."""
    rng = np.random.default_rng(seed)
    truth, found = [], []
    # More than 100 results of a class, of which the best count, in images with ids above 100.
    crowded = seed == CROWDED
    for _ in range(150 if crowded else rng.integers(0, 7)):
        left, top = int(rng.integers(0, 110)), int(rng.integers(0, 70))
        width, height = (int(value) for value in rng.integers(4, 50, 2))
        box = (left, top, left + width, top + height)
        label = int(rng.integers(0, 3)) if not crowded else 0
        truth.append(annotation(label, box, iscrowd=int(rng.random() < 0.15)))
        if crowded or rng.random() < 0.8:
            shift = rng.integers(-3, 4, 4)
            near = np.clip(np.array(box) + shift, 0, [159, 119, 160, 120])
            near[2:] = np.maximum(near[2:], near[:2] + 1)
            # Few different scores, so that many are equal.
            found.append((float(rng.integers(1, 10)) / 10, label if rng.random() < 0.8 else int(rng.integers(0, 4)),
                          tuple(int(value) for value in near)))
    return truth, instances(*found)


def filled(ids, classes=CLASSES, **options):
    evaluator = CocoEvaluator(classes, **options)
    for image_id in ids:
        evaluator.add(image_id, SIZE, *scene(image_id))
    return evaluator


def by_pycocotools(ids):
    """The same scenes through COCO files' structures and pycocotools' own summary."""
    images, annotations, results = [], [], {'segm': [], 'bbox': []}
    for image_id in ids:
        images.append({'id': image_id, 'height': SIZE[0], 'width': SIZE[1]})
        truth, found = scene(image_id)
        annotations += [{**record, 'image_id': image_id, 'id': len(annotations) + number + 1}
                        for number, record in enumerate(truth)]
        for number in range(len(found)):
            left, top, right, bottom = (float(value) for value in found.boxes[number])
            record = {'image_id': image_id, 'category_id': int(found.labels[number]),
                      'score': float(found.scores[number])}
            results['segm'].append({**record, 'segmentation': found.masks[number]})
            results['bbox'].append({**record, 'bbox': [left, top, right - left, bottom - top]})
    expected = {}
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {'images': images, 'annotations': annotations,
                         'categories': [{'id': index, 'name': name} for index, name in enumerate(CLASSES)]}
        truth.createIndex()
        for kind, records in results.items():
            evaluation = COCOeval(truth, truth.loadRes(records), kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            names = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l', 'mAR_1', 'mAR_10', 'mAR_100', 'mAR_s',
                     'mAR_m', 'mAR_l')
            expected |= {f'{kind}_{name}': value for name, value in zip(names, evaluation.stats, strict=True)}
            for index, name in enumerate(CLASSES):
                precision = evaluation.eval['precision'][:, :, index, 0, 2]
                expected[f'{kind}_AP/{name}'] = precision[precision > -1].mean() if (precision > -1).any() else -1
    return expected


CROWDED = 1000
IDS = [7, 3, 12, 5, 8, 2, 30, 31, 32, 33, 34]


@pytest.mark.parametrize('engine', ENGINES)
def test_every_number_equals_pycocotools(engine):
    ids = [*IDS[:2], CROWDED, *IDS[2:]]
    expected = by_pycocotools(ids)
    metrics = filled(ids, engine=engine).evaluate()
    assert metrics.keys() == expected.keys()
    assert 0.1 < metrics['segm_mAP'] < 0.9 and metrics['segm_AP/unused'] == -1
    assert metrics == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize('found, ap', [
    pytest.param([(0.9, 0, (10, 10, 50, 50))], 1.0, id='found exactly'),
    pytest.param([], 0.0, id='nothing found in any image'),
    pytest.param([(0.9, 1, (10, 10, 50, 50))], 0.0, id='of another class'),
    # At the IoU thresholds 0.5, 0.55 and 0.6 the first result is the match, at the seven others the second.
    pytest.param([(0.9, 0, (0, 0, 50, 50)), (0.8, 0, (10, 10, 50, 50))], 0.3 + 0.7 / 2, id='first one of IoU 0.64'),
])
def test_ap_of_one_object(found, ap):
    evaluator = CocoEvaluator(CLASSES)
    evaluator.add('a.png', SIZE, [annotation(0, (10, 10, 50, 50))], instances(*found))
    metrics = evaluator.evaluate()
    assert metrics['segm_mAP'] == pytest.approx(ap)
    assert metrics['bbox_mAP'] == pytest.approx(ap)


def test_a_result_in_a_crowd_is_neither_right_nor_wrong():
    evaluator = CocoEvaluator(CLASSES)
    evaluator.add(1, SIZE, [annotation(0, (0, 0, 100, 100), iscrowd=1), annotation(0, (110, 0, 150, 40))],
                  instances((0.9, 0, (5, 5, 30, 30)), (0.8, 0, (110, 0, 150, 40))))
    assert evaluator.evaluate()['segm_mAP'] == pytest.approx(1.0)


def test_results_in_an_image_without_objects_are_wrong():
    evaluator = CocoEvaluator(CLASSES)
    evaluator.add(1, SIZE, [annotation(0, (10, 10, 50, 50))], instances((0.8, 0, (10, 10, 50, 50))))
    assert evaluator.evaluate()['segm_mAP'] == pytest.approx(1.0)
    evaluator.add(2, SIZE, [], instances((0.9, 0, (10, 10, 50, 50))))
    assert evaluator.evaluate()['segm_mAP'] == pytest.approx(0.5)


def test_without_ground_truth_the_averages_are_minus_one():
    evaluator = CocoEvaluator(CLASSES)
    evaluator.add(1, SIZE, [], instances((0.9, 0, (10, 10, 50, 50))))
    assert set(evaluator.evaluate().values()) == {-1.0}


def test_an_image_that_comes_twice_counts_once():
    evaluator = filled(IDS)
    once = evaluator.evaluate()
    for image_id in IDS[:5]:
        evaluator.add(image_id, SIZE, *scene(image_id))
    assert len(evaluator) == len(IDS)
    assert evaluator.evaluate() == once


@pytest.mark.parametrize('travel', [
    pytest.param(lambda evaluator: evaluator, id='as it is'),
    pytest.param(lambda evaluator: pickle.loads(pickle.dumps(evaluator)), id='pickled'),
    pytest.param(lambda evaluator: CocoEvaluator.from_state(json.loads(json.dumps(evaluator.state()))),
                 id='as JSON text'),
])
def test_parts_of_several_processes_merge_to_the_same(travel):
    # The parts overlap, as a padding sampler has it, and come in another order.
    parts = [filled(IDS[6:]), filled(IDS[:4]), filled(IDS[3:8])]
    whole = CocoEvaluator(CLASSES)
    for part in parts:
        whole.merge(travel(part))
    assert len(whole) == len(IDS)
    assert whole.evaluate() == filled(IDS).evaluate()


def test_evaluation_can_be_asked_for_again():
    evaluator = filled(IDS)
    before = pickle.dumps(evaluator.state())
    first = evaluator.evaluate()
    assert evaluator.evaluate() == first
    assert pickle.dumps(evaluator.state()) == before


def test_masks_may_be_arrays_and_ground_truth_polygons():
    evaluator = CocoEvaluator(CLASSES)
    found = instances((0.9, 0, (10, 10, 50, 50)))
    found.masks = rectangle(10, 10, 50, 50)[None]
    evaluator.add(1, SIZE, [{'category_id': 0, 'segmentation': [[10, 10, 50, 10, 50, 50, 10, 50]]}], found)
    metrics = evaluator.evaluate()
    assert metrics['segm_mAP'] == metrics['bbox_mAP'] == pytest.approx(1.0)
    assert json.dumps(evaluator.state())   # arrays became RLE


def test_ids_may_be_numbers_and_text():
    evaluator = CocoEvaluator(CLASSES)
    for image_id in ('b', 10, 'a', 9):
        evaluator.add(image_id, SIZE, *scene(7))
    assert evaluator.evaluate()['segm_mAP'] > 0 and 'a' in evaluator and 'c' not in evaluator


def test_nothing_is_printed(capsys):
    filled(IDS).evaluate()
    assert capsys.readouterr() == ('', '')


@pytest.mark.parametrize('truth, found, message', [
    pytest.param([annotation(4, (0, 0, 9, 9))], instances(),
                 'image cat.png: annotation 0: class index 4, but there are 4 classes', id='class of an annotation'),
    pytest.param([], instances((0.5, 0, (0, 0, 9, 9)), (0.5, -1, (0, 0, 9, 9))),
                 'image cat.png: result 1: class index -1, but there are 4 classes', id='class of a result'),
    pytest.param([{**annotation(0, (0, 0, 9, 9)), 'id': 4711, 'segmentation': rle(rectangle(0, 0, 9, 9, (60, 80)))}],
                 instances(), 'image cat.png: annotation 4711: the mask is 60 x 80 pixels, the image 120 x 160',
                 id='size of a mask'),
])
def test_items_that_do_not_fit_are_refused_by_name(truth, found, message):
    evaluator = CocoEvaluator(CLASSES)
    with pytest.raises(ValueError, match=message):
        evaluator.add('cat.png', SIZE, truth, found)
    assert len(evaluator) == 0


@pytest.mark.parametrize('action, message', [
    pytest.param(lambda: CocoEvaluator([]), 'at least one class', id='no classes'),
    pytest.param(lambda: CocoEvaluator(['cat', 'dog', 'cat']), r"\['cat'\] come more than once", id='a class twice'),
    pytest.param(lambda: CocoEvaluator(['cat']).evaluate(), 'no image was added', id='no image'),
    pytest.param(lambda: CocoEvaluator(['cat']).merge(CocoEvaluator(['dog'])), 'same classes', id='other classes'),
])
def test_what_cannot_be_evaluated_is_refused(action, message):
    with pytest.raises(ValueError, match=message):
        action()


@pytest.mark.parametrize('change, message', [
    pytest.param({'image_id': 2}, 'results.json: record 0 is of image 2', id='unknown image'),
    pytest.param({'category_id': 9}, 'results.json: record 0 is of image 1 and category 9', id='unknown category'),
    pytest.param(None, 'results.json: not valid JSON', id='cut off'),
])
def test_results_that_do_not_fit_the_annotations_are_refused(tmp_path, change, message):
    truth = {'images': [{'id': 1, 'height': 120, 'width': 160}], 'categories': [{'id': 5, 'name': 'cat'}],
             'annotations': [{**annotation(5, (10, 10, 50, 50)), 'id': 1, 'image_id': 1}]}
    result = {'image_id': 1, 'category_id': 5, 'score': 0.5, 'segmentation': rle(rectangle(10, 10, 50, 50))}
    files = tmp_path / 'truth.json', tmp_path / 'results.json'
    files[0].write_text(json.dumps(truth))
    files[1].write_text(json.dumps([result]))
    assert evaluate_results(*files)['segm_AP/cat'] == pytest.approx(1.0)
    files[1].write_text(json.dumps([result | change]) if change else json.dumps([result])[:-5])
    with pytest.raises(ValueError, match=message):
        evaluate_results(*files)


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('kind', ['segm', 'bbox'])
def test_every_number_equals_pycocotools_on_coco_samples(shared_data, kind, engine):
    folder = shared_data / 'cocoeval'
    files = folder / 'instances_val2014_100.json', folder / f'instances_val2014_fake{kind}100_results.json'
    metrics = evaluate_results(*files, engine=engine)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(files[0]))
        evaluation = COCOeval(truth, truth.loadRes(str(files[1])), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    names = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l', 'mAR_1', 'mAR_10', 'mAR_100', 'mAR_s', 'mAR_m',
             'mAR_l')
    assert [metrics[f'{kind}_{name}'] for name in names] == pytest.approx(list(evaluation.stats), abs=1e-9)
    if kind == 'segm':   # as published beside the sample
        assert [round(metrics[f'segm_{name}'], 4) for name in names[:3]] == [0.3195, 0.5623, 0.2989]
    for index, category in enumerate(evaluation.params.catIds):
        precision = evaluation.eval['precision'][:, :, index, 0, 2]
        expected = precision[precision > -1].mean() if (precision > -1).any() else -1
        assert metrics[f'{kind}_AP/{truth.cats[category]["name"]}'] == pytest.approx(expected, abs=1e-9)


def test_what_is_kept_of_an_image_is_small_however_large_its_masks():
    rng = np.random.default_rng(0)
    evaluator = CocoEvaluator(CLASSES)
    size, each = (640, 640), 30
    speckled = [rle(rng.random(size) < 0.5) for _ in range(each)]   # tens of kilobytes each
    tracemalloc.start()
    for image_id in range(6):
        boxes = np.tile(np.array([[0, 0, 640, 640]], np.float32), (each, 1))
        masks = [{**mask, 'counts': mask['counts'].encode()} for mask in speckled]   # no memory in common
        found = Instances(rng.random(each), np.zeros(each, int), masks, boxes)
        evaluator.add(image_id, size, [{'category_id': 0, 'segmentation': speckled[image_id]}], found)
        del found, masks
        if image_id == 0:   # imports and caches come with the first
            before = tracemalloc.get_traced_memory()[0]
    kept = (tracemalloc.get_traced_memory()[0] - before) / 5
    tracemalloc.stop()
    assert kept < 200 * each
    assert evaluator.nbytes <= len(evaluator) * (40 * each + 100)
    assert len(pickle.dumps(evaluator)) < 10_000 + len(evaluator) * 200 * each


def test_a_missing_engine_is_said_before_anything_is_evaluated(monkeypatch):
    monkeypatch.setitem(sys.modules, 'faster_coco_eval', None)
    with pytest.raises(ImportError, match='faster-coco-eval is not installed: pip install faster-coco-eval, or use'):
        CocoEvaluator(CLASSES, engine='faster-coco-eval')
    with pytest.raises(ValueError, match="'faster' is unknown; known are pycocotools, faster-coco-eval"):
        CocoEvaluator(CLASSES, engine='faster')
