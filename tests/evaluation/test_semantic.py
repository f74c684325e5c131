"""Mean IoU and its kin against their definitions, case by case and at random."""
from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelscope_fastinst.evaluation.joint_areas import joint_areas
from modelscope_fastinst.evaluation.semantic import SemanticEvaluator, semantic_metric_names, semantic_truth
from modelscope_fastinst.structures import VOID, SemanticMap
from tests.evaluation.literal_maps import semantic_values
from tests.evaluation.test_panoptic import panoptic_map, row

CLASSES = ['road', 'car', 'tree']


def labels(text):
    """One row of pixels: a digit each, '.' for void."""
    return np.array([[VOID if character == '.' else int(character) for character in text]], np.int16)


def evaluator_of(images, classes=CLASSES, worst=0):
    evaluator = SemanticEvaluator(classes, worst)
    for number, (truth, found) in enumerate(images):
        evaluator.add(number, SemanticMap(truth), SemanticMap(found))
    return evaluator


def assert_as_defined(images, classes=CLASSES):
    values = evaluator_of(images, classes).evaluate()
    *means, ious, accuracies = semantic_values(images, len(classes))
    expected = dict(zip(('mIoU', 'fwIoU', 'mACC', 'pACC'), means, strict=True))
    for kind, by_class in (('IoU', ious), ('ACC', accuracies)):
        expected |= {f'{kind}/{name}': by_class.get(label, -1.0) for label, name in enumerate(classes)}
    assert values == pytest.approx(expected, abs=1e-12)
    return values


@pytest.mark.parametrize(('truth', 'found', 'expected'), [
    pytest.param('000111', '000111', {'mIoU': 1, 'pACC': 1, 'IoU/tree': -1}, id='all right, a class nowhere'),
    pytest.param('000111', '001111', {'IoU/road': 2 / 3, 'IoU/car': 3 / 4, 'mIoU': 17 / 24, 'mACC': 5 / 6,
                                      'pACC': 5 / 6, 'fwIoU': 17 / 24}, id='a border moved'),
    pytest.param('0001', '0000', {'mIoU': 3 / 8, 'fwIoU': 9 / 16, 'mACC': 1 / 2, 'pACC': 3 / 4}, id='weights'),
    pytest.param('00..', '0011', {'mIoU': 1, 'IoU/car': -1, 'pACC': 1}, id='void does not count, whatever is found'),
    pytest.param('0000', '0022', {'mIoU': 1 / 2, 'IoU/tree': -1, 'ACC/tree': -1}, id='found, but not in the truth'),
    pytest.param('0011', '00.1', {'IoU/car': 1 / 2, 'IoU/road': 1, 'pACC': 3 / 4}, id='found without a class'),
])
def test_the_rules_one_by_one(truth, found, expected):
    values = assert_as_defined([(labels(truth), labels(found))])
    assert {name: values[name] for name in expected} == pytest.approx(expected)


def test_the_averages_are_over_all_pixels_and_not_over_images():
    images = [(labels('0000'), labels('0000')), (labels('01'), labels('11'))]
    assert assert_as_defined(images)['IoU/road'] == pytest.approx(4 / 5)


@settings(deadline=None)
@given(st.lists(st.binary(min_size=24, max_size=24), min_size=1, max_size=4), st.integers(1, 6), st.booleans())
def test_random_maps(contents, classes, void):
    images = []
    for content in contents:
        values = np.frombuffer(content, np.uint8).reshape(2, 3, 4).astype(np.int16)
        truth, found = values[0] % (classes + void) - void, values[1] % classes
        images.append((truth, found))
    names = [f'class {number}' for number in range(classes)]
    if any((truth != VOID).any() for truth, _ in images):
        assert_as_defined(images, names)
    else:
        assert set(evaluator_of(images, names).evaluate().values()) == {-1.0}


def test_as_sklearn_defines_them():
    """Jaccard by class and its mean, recall by class, accuracy: from a confusion matrix of true by predicted."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, (20, 30))
    found = np.where(rng.random(truth.shape) < 0.3, rng.integers(0, 3, truth.shape), truth)
    matrix = np.zeros((3, 3))
    np.add.at(matrix, (truth.ravel(), found.ravel()), 1)
    right = np.diag(matrix)
    jaccard, recall = right / (matrix.sum(0) + matrix.sum(1) - right), right / matrix.sum(1)
    evaluator = evaluator_of([(truth, found)])
    values = evaluator.evaluate()
    np.testing.assert_array_equal(evaluator.confusion()[:, :3], matrix)
    assert [values[name] for name in ('mIoU', 'mACC', 'pACC', 'IoU/car', 'ACC/car')] == pytest.approx(
        [jaccard.mean(), recall.mean(), right.sum() / matrix.sum(), jaccard[1], recall[1]])


def test_order_and_processes_do_not_matter_and_an_image_counts_once():
    rng = np.random.default_rng(0)
    images = [(rng.integers(-1, 3, (4, 5)).astype(np.int16), rng.integers(0, 3, (4, 5)).astype(np.int16))
              for _ in range(5)]
    whole = evaluator_of(images, worst=2)
    parts = [SemanticEvaluator(CLASSES, worst=2) for _ in range(2)]
    for part, numbers in zip(parts, ([4, 0, 2], [1, 2, 3]), strict=True):   # 2 comes twice
        for number in numbers:
            part.add(number, *(SemanticMap(one) for one in images[number]))
            part.add(number, SemanticMap(images[0][1]), SemanticMap(images[0][1]))   # ignored
    parts = [pickle.loads(pickle.dumps(part)) for part in parts]
    parts[0].merge(parts[1])
    assert parts[0].evaluate() == whole.evaluate() and list(whole.evaluate()) == semantic_metric_names(CLASSES)
    assert ([(one.image_id, one.quality) for one in parts[0].worst.images()]
            == [(one.image_id, one.quality) for one in whole.worst.images()])
    worst = min(range(5), key=lambda number: evaluator_of([images[number]]).evaluate()['mIoU'])
    assert whole.worst.images()[0].image_id == worst


def test_the_report_holds_the_pixels_by_class():
    report = evaluator_of([(labels('0001..'), labels('001122'))]).report()
    numbers = json.loads(json.dumps(report.numbers()))
    assert numbers['confusion']['pixels'] == [[2, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert numbers['classes']['car'] == {'IoU': 0.5, 'ACC': 1.0, 'pixels': 1} and numbers['images'] == 1


def test_a_panoptic_truth_as_labels_with_its_crowds():
    truth = panoptic_map(row('1122330'), {1: 0, 2: 2, 3: 0}, crowds=[3])
    assert semantic_truth(truth).labels.tolist() == [[0, 0, 2, 2, 0, 0, VOID]]


@pytest.mark.parametrize(('found', 'message'), [
    pytest.param(labels('01'), 'image 7: ground truth and result: .*1 x 3 and 1 x 2', id='size'),
    pytest.param(labels('013'), 'image 7: result: class index 3, but there are 3 classes', id='class'),
])
def test_maps_that_cannot_be_compared(found, message):
    with pytest.raises(ValueError, match=message):
        SemanticEvaluator(CLASSES).add(7, SemanticMap(labels('012')), SemanticMap(found))


@settings(deadline=None)
@given(st.binary(min_size=40, max_size=40), st.sampled_from([1, 2 ** 8, 2 ** 22]))
def test_joint_areas_count_every_pixel_once(content, scale):
    first, second = np.frombuffer(content, np.uint8).astype(np.int32).reshape(2, 4, 5) % 3 * scale - 1
    expected: dict = {}
    for pair in zip(first.ravel().tolist(), second.ravel().tolist(), strict=True):
        expected[pair] = expected.get(pair, 0) + 1
    one, other, pixels = joint_areas(first, second)
    assert list(zip(one.tolist(), other.tolist(), strict=True)) == sorted(expected)
    assert {(a, b): n for a, b, n in zip(one.tolist(), other.tolist(), pixels.tolist(), strict=True)} == expected
