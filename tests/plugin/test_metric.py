"""The COCO metric as ModelScope's trainer uses it."""
from __future__ import annotations

import io
import pickle
from contextlib import redirect_stdout

import numpy as np
import pytest
import torch
from modelscope.metrics.builder import build_metric

from modelscope_fastinst.plugin.metric import find_instances, metrics_table
from modelscope_fastinst.results.rle import decode, encode
from modelscope_fastinst.structures import Instances, NetworkOutput, Prediction, Sample

from .trainer_runs import shapes

CLASSES = ['ellipse', 'rectangle', 'triangle']


@pytest.fixture(scope='module')
def results():
    """Samples with ground truth, and results that are right, shifted, mislabelled or missing."""
    rng = np.random.default_rng(0)
    samples = [data for data in shapes(6, num_classes=3, objects=(3, 6), radius=(0.1, 0.25))]
    found = []
    for sample in samples:
        masks = np.roll(decode([a['segmentation'] for a in sample.annotations]), rng.integers(0, 4), axis=2)
        keep = rng.random(len(masks)) < 0.8
        labels = np.array([a['category_id'] for a in sample.annotations])[keep]
        wrong = rng.random(len(labels)) < 0.2
        labels = np.where(wrong, (labels + 1) % 3, labels)
        masks = masks[keep]
        boxes = np.array([[np.flatnonzero(m.any(0))[0], np.flatnonzero(m.any(1))[0], np.flatnonzero(m.any(0))[-1] + 1,
                           np.flatnonzero(m.any(1))[-1] + 1] for m in masks], np.float32).reshape(-1, 4)
        found.append(Instances(rng.random(len(labels)).astype(np.float32), labels, encode(masks), boxes))
    return samples, found


def metric_of(samples, found):
    metric = build_metric({'type': 'fastinst-coco-metric', 'classes': CLASSES})
    metric.add(found, {'samples': samples})
    return metric


def test_equals_pycocotools(results, tmp_path):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    samples, found = results
    annotation_file, _ = shapes(6, num_classes=3, objects=(3, 6), radius=(0.1, 0.25)).write_coco(tmp_path)
    common = [{'image_id': sample.image_id, 'category_id': int(label) + 1, 'score': float(score)}
              for sample, instances in zip(samples, found, strict=True)
              for score, label in zip(instances.scores, instances.labels, strict=True)]
    masks = [mask for instances in found for mask in instances.masks]
    boxes = [box for instances in found for box in instances.boxes.tolist()]
    records = {'segm': [{**record, 'segmentation': dict(mask)} for record, mask in zip(common, masks, strict=True)],
               'bbox': [{**record, 'bbox': [left, top, right - left, bottom - top]}
                        for record, (left, top, right, bottom) in zip(common, boxes, strict=True)]}
    with redirect_stdout(io.StringIO()):
        truth = COCO(annotation_file)
        expected = {}
        for kind in ('segm', 'bbox'):
            evaluation = COCOeval(truth, truth.loadRes(records[kind]), kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            expected.update(zip((f'{kind}_mAP', f'{kind}_mAP_50', f'{kind}_mAP_75', f'{kind}_mAP_s'),
                                evaluation.stats[:4], strict=True))
    values = metric_of(samples, found).evaluate()
    assert 0.1 < expected['segm_mAP'] < 0.9
    assert {name: values[name] for name in expected} == pytest.approx(expected, abs=1e-9)


def test_merged_parts_equal_the_whole_and_repeated_images_count_once(results):
    samples, found = results
    whole = metric_of(samples, found).evaluate()
    part = metric_of(samples[:4], found[:4])
    part.merge(metric_of(samples[2:], found[2:]))
    assert part.evaluate() == whole


def test_travels_to_another_process_without_its_trainer(results):
    samples, found = results
    metric = build_metric('fastinst-coco-metric')
    metric.trainer = type('Trainer', (), {'model_classes': CLASSES, 'unpicklable': lambda: None})()
    metric.add(found, {'samples': samples})
    copy = pickle.loads(pickle.dumps(metric))
    assert copy.trainer is None
    assert copy.evaluate() == metric.evaluate()


def test_metric_that_saw_no_image_travels_and_merges(results):
    empty = build_metric('fastinst-coco-metric')
    empty.trainer = type('Trainer', (), {'model_classes': CLASSES})()
    copy = pickle.loads(pickle.dumps(empty))
    whole = metric_of(*results)
    expected = whole.evaluate()
    whole.merge(copy)
    assert whole.evaluate() == expected
    copy.merge(whole)
    assert copy.evaluate() == expected


def test_only_the_best_instances_count():
    masks = np.zeros((2, 8, 8), bool)
    masks[0, :4], masks[1, 4:] = True, True
    sample = Sample(torch.zeros(3, 8, 8, dtype=torch.uint8), image_id=1, original_size=(8, 8),
                    annotations=[{'category_id': 0, 'segmentation': mask} for mask in encode(masks)])
    found = Instances(np.float32([0.9, 0.8]), np.array([0, 0]), encode(masks),
                      np.float32([[0, 0, 8, 4], [0, 4, 8, 8]]))
    values = []
    for count in (1, 2):
        metric = build_metric({'type': 'fastinst-coco-metric', 'classes': CLASSES, 'max_instances': count})
        metric.add([found], {'samples': [sample]})
        values.append(metric.evaluate()['segm_mAP_50'])
    assert values == pytest.approx([51 / 101, 1.0])


@pytest.mark.parametrize(('settings', 'error', 'message'), [
    pytest.param({'max_instance': 5}, TypeError, "no setting 'max_instance'; known are classes, max_instances",
                 id='misspelt'),
    pytest.param({'max_instances': 0}, ValueError, 'whole number from 1 to 100; got 0', id='none'),
    pytest.param({'max_instances': 300}, ValueError, 'got 300', id='more than COCO counts'),
])
def test_wrong_settings(settings, error, message):
    with pytest.raises(error, match=message):
        build_metric({'type': 'fastinst-coco-metric', **settings})


def test_without_class_names_it_says_so(results):
    with pytest.raises(ValueError, match='needs the class names'):
        build_metric('fastinst-coco-metric').add(results[1], {'samples': results[0]})


def test_output_of_the_network_is_taken_as_it_is():
    """One query whose logits are positive on the left half of the image, which is the object."""
    masks = torch.full((1, 1, 4, 4), -9.0)
    masks[..., :2] = 9.0
    final = Prediction(torch.tensor([[[9.0, -9.0, -9.0, -9.0]]]), masks)
    output = NetworkOutput(final, [], canvas=(32, 32), sizes=[(32, 32)], proposal_logits=torch.zeros(1, 4, 2, 2))
    truth = np.zeros((1, 32, 32), bool)
    truth[:, :, :16] = True
    sample = Sample(torch.zeros(3, 32, 32, dtype=torch.uint8), image_id=1, original_size=(32, 32),
                    annotations=[{'category_id': 0, 'segmentation': encode(truth)[0]}])
    metric = build_metric({'type': 'fastinst-coco-metric', 'classes': CLASSES})
    metric.add(output, {'samples': [sample]})
    assert metric.evaluate()['segm_mAP'] == pytest.approx(1.0)


def test_images_share_a_canvas_only_where_it_is_equal():
    seen = []

    class Model:
        def forward(self, images):
            seen.append([tuple(image.shape[-2:]) for image in images])
            count = len(images)
            return NetworkOutput(Prediction(torch.zeros(count, 1, 2), torch.full((count, 1, 4, 4), -1.0)), [],
                                 canvas=(64, 64), sizes=seen[-1], proposal_logits=torch.zeros(count, 2, 2, 2))

    sizes = [(64, 64), (33, 64), (64, 40), (32, 64), (60, 50)]
    found = find_instances(Model(), [torch.zeros(3, *size) for size in sizes], sizes, 32)
    assert seen == [[(64, 64), (33, 64), (64, 40), (60, 50)], [(32, 64)]]
    assert [tuple(instances.masks[0]['size']) for instances in found] == sizes


def test_table_has_a_line_for_every_class(results):
    text = metrics_table(metric_of(*results).evaluate(), CLASSES)
    lines = text.splitlines()
    assert lines[0].startswith('evaluation: segm_mAP 0.')
    assert [line.split()[0] for line in lines[1:4]] == ['bbox_mAP', 'segm_mAR_1', 'bbox_mAR_1']
    assert lines[4].split() == ['class', 'segm_AP', 'bbox_AP']
    assert [line.split()[0] for line in lines[5:]] == CLASSES


def test_equals_pycocotools_on_real_results(shared_data):
    """COCO val2014 ground truth with the COCO API's made-up results, read into the metric image by image."""
    from pycocotools.coco import COCO
    folder = shared_data / 'cocoeval'
    with redirect_stdout(io.StringIO()):
        truth = COCO(str(folder / 'instances_val2014_100.json'))
        given = truth.loadRes(str(folder / 'instances_val2014_fakesegm100_results.json'))
    index_of = {category: index for index, category in enumerate(sorted(truth.cats))}
    names = [truth.cats[category]['name'] for category in index_of]
    metric = build_metric({'type': 'fastinst-coco-metric', 'classes': names})
    for image in reversed(list(truth.imgs.values())):
        annotations = [{**a, 'category_id': index_of[a['category_id']]} for a in truth.imgToAnns[image['id']]]
        results = given.imgToAnns[image['id']]
        boxes = np.array([result['bbox'] for result in results], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        instances = Instances([result['score'] for result in results],
                              [index_of[result['category_id']] for result in results],
                              [result['segmentation'] for result in results], boxes)
        size = (image['height'], image['width'])
        sample = Sample(torch.zeros(3, 1, 1), image_id=image['id'], original_size=size, annotations=annotations)
        metric.add([instances], {'samples': [sample]})
    values = metric.evaluate()
    assert values['segm_mAP'] == pytest.approx(0.3195, abs=5e-5)
    assert values['segm_mAP_50'] == pytest.approx(0.5623, abs=5e-5)
    assert values['segm_mAP_75'] == pytest.approx(0.2989, abs=5e-5)
