"""Best thresholds, confusion and worst images: what an evaluation says beyond its averages."""
from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from modelscope_fastinst.evaluation import figures
from modelscope_fastinst.evaluation.coco import CocoEvaluator
from modelscope_fastinst.evaluation.evidence import Gathered
from modelscope_fastinst.evaluation.report import PICTURES
from modelscope_fastinst.evaluation.thresholds import score_curve

from .test_coco import CLASSES, IDS, SIZE, annotation, filled, instances, scene

A, B, C, FAR = (0, 0, 20, 20), (40, 0, 60, 20), (80, 0, 100, 20), (120, 80, 150, 110)


def report_of(*images, **options):
    evaluator = CocoEvaluator(CLASSES, **options)
    for number, (truth, found) in enumerate(images):
        evaluator.add(number, SIZE, truth, found)
    return evaluator.report()


@pytest.mark.parametrize('label', [0, 1, 2])
def test_a_threshold_is_the_best_of_all_by_brute_force(label):
    chosen = filled(IDS).report().thresholds[CLASSES[label]]

    def f1(threshold):
        """By the averages' own matching of what a threshold keeps."""
        evaluator = CocoEvaluator(CLASSES)
        for number in IDS:
            truth, found = scene(number)
            keep = np.flatnonzero(found.scores >= np.float32(threshold))
            found.masks = [found.masks[index] for index in keep]
            found.scores, found.labels, found.boxes = found.scores[keep], found.labels[keep], found.boxes[keep]
            evaluator.add(number, SIZE, truth, found)
        curve = score_curve([Gathered(evaluator.images(), len(CLASSES)).of_class(label)])
        right, kept = curve.at(0.0)
        return 2 * right / (kept + curve.objects)

    candidates = np.arange(0.05, 1.0, 0.05)
    values = [f1(candidate) for candidate in candidates]
    assert f1(chosen) == pytest.approx(max(values))
    # the highest of the best, but for rounding
    assert chosen > candidates[max(index for index, value in enumerate(values) if value == max(values))] - 0.0501


@pytest.mark.parametrize(('truth', 'found', 'threshold'), [
    pytest.param([A], [(0.7, A), (0.3, FAR)], 0.7, id='above a false one'),
    # F1 is 2/3 with one of two objects found, and again with both and two false ones
    pytest.param([A, B], [(0.9, A), (0.8, FAR), (0.7, C), (0.6, B)], 0.9, id='the highest of equally good ones'),
    pytest.param([A, B], [(0.5, A), (0.5, FAR), (0.5, B)], 0.5, id='equal scores stay together'),
    pytest.param([A], [(0.123456, A)], 0.1234, id='rounded down'),
    pytest.param([A], [(0.123456, A), (0.12344, FAR)], 0.123456, id='not rounded past another result'),
])
def test_best_threshold_of_a_class(truth, found, threshold):
    items = [(score, 0, box) for score, box in found]
    given = instances(*items)
    given.scores = np.array([score for score, _, _ in items], np.float64)
    report = report_of(([annotation(0, box) for box in truth], given))
    assert report.thresholds['cat'] == pytest.approx(threshold, abs=1e-12)


def test_a_class_of_which_nothing_is_known_gets_the_threshold_of_all():
    report = report_of(([annotation(0, A), annotation(1, B)],
                        instances((0.75, 0, A), (0.9, 3, C))))   # nothing of dog was found; no bird, unused is false
    assert report.threshold == 0.75
    assert report.thresholds == dict.fromkeys(CLASSES, 0.75) and report.has_matches


def test_without_a_match_the_threshold_is_one_half():
    report = report_of(([annotation(0, A)], instances((0.75, 0, FAR))))
    assert (report.threshold, report.has_matches) == (0.5, False)


@pytest.mark.parametrize(('truth', 'found', 'cells'), [
    pytest.param([(0, A)], [(0.9, 0, A)], {(0, 0): 1}, id='right'),
    pytest.param([(0, A), (0, B)], [(0.9, 0, A), (0.95, 1, B)], {(0, 0): 1, (0, 1): 1}, id='another class'),
    pytest.param([(0, A), (1, B)], [(0.9, 0, A)], {(0, 0): 1, (1, 4): 1}, id='missed'),
    pytest.param([(0, A)], [(0.9, 0, A), (0.95, 2, FAR)], {(0, 0): 1, (4, 2): 1}, id='nothing there'),
    pytest.param([(0, A)], [(0.9, 0, A), (0.8, 0, A)], {(0, 0): 1}, id='below the threshold'),
    pytest.param([(0, A), (0, B)], [(0.9, 0, A), (0.9, 1, A), (0.9, 0, B)], {(0, 0): 2, (4, 1): 1},
                 id='an object is found once'),
    pytest.param([(1, A), (0, (0, 0, 20, 18)), (0, B)], [(0.9, 0, (0, 0, 20, 20)), (0.8, 0, B), (0.8, 1, A)],
                 {(0, 0): 2, (1, 1): 1}, id='the own class first, though another overlaps more'),
    pytest.param([(0, A), (0, FAR, 1)], [(0.9, 0, A), (0.95, 0, (125, 85, 140, 100))], {(0, 0): 1},
                 id='in a crowd'),
    pytest.param([(0, A), (1, FAR, 1)], [(0.9, 0, A), (0.95, 0, (125, 85, 140, 100))], {(0, 0): 1, (4, 0): 1},
                 id="in another class's crowd"),
])
def test_confusion_by_hand(truth, found, cells):
    expected = np.zeros((5, 5), int)
    for place, count in cells.items():
        expected[place] = count
    report = report_of(([annotation(label, box, *crowd) for label, box, *crowd in truth], instances(*found)))
    assert report.confusion.tolist() == expected.tolist()


def test_the_picture_of_the_confusion_leaves_out_classes_that_are_nowhere():
    truth, found = [annotation(1, A)], instances((0.9, 1, A))
    names = [text.get_text() for text in figures.confusion(report_of((truth, found))).axes[0].get_xticklabels()]
    assert names == [CLASSES[1], 'background']


def test_every_object_and_result_is_in_the_confusion_once():
    report = filled(IDS).report()
    truth = [[record['category_id'] for record in scene(number)[0] if not record['iscrowd']] for number in IDS]
    assert report.confusion[:4].sum(1).tolist() == np.bincount(np.concatenate(truth).astype(int), minlength=4).tolist()


@pytest.mark.parametrize('order', [pytest.param(IDS, id='as they come'), pytest.param(IDS[::-1], id='reversed')])
def test_the_worst_images_are_the_same_whatever_the_order_and_the_processes(order):
    whole = filled(IDS, worst=3).report()
    parts = [filled(order[:5], worst=3), filled(order[5:], worst=3)]
    merged = CocoEvaluator(CLASSES, worst=3)
    for part in parts[::-1]:
        merged.merge(part)
    assert [image.image_id for _, image in merged.report().worst] == [image.image_id for _, image in whole.worst]
    assert len(whole.worst) == 3 and len(merged.worst) == 6


def test_what_is_wrong_with_an_image():
    report = report_of(([annotation(0, A), annotation(0, B), annotation(0, FAR, 1)],
                        instances((0.9, 0, A), (0.8, 0, C), (0.7, 0, (125, 85, 140, 100)), (0.1, 0, B))),
                       ([annotation(0, A)], instances((0.9, 0, A))), worst=2)
    (quality, image), (best, _) = report.worst
    found, wrong, missed = image.matched([0.5] * 4)
    assert (len(found), wrong, missed) == (3, {1}, {1})
    assert quality < best == 1.0
    assert image.rate([0.5] * 4) == pytest.approx(2 * 1 / (2 + 2))


@pytest.mark.parametrize('classes', [
    pytest.param(['nucleus'], id='one class'),
    pytest.param([f'class {number}' for number in range(80)], id='80 classes'),
    pytest.param([r'$\frac$', '_hidden', 'two\nlines'], id='names that matplotlib takes for something else'),
])
def test_pictures_and_numbers_are_written(tmp_path, classes):
    evaluator = CocoEvaluator(classes)
    for number in range(len(classes)):
        evaluator.add(number, SIZE, [annotation(number, A)], instances((0.75, number, A), (0.5, number, FAR)))
    report = evaluator.report()
    labels = figures.precision_recall(report).axes[0].get_legend_handles_labels()[1]
    assert len(labels) == (1 if len(classes) == 1 else min(len(classes) + 1, 12))
    report.write_pictures(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(PICTURES)
    for name in PICTURES:
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) >= 400
    numbers = json.loads(json.dumps(report.numbers()))
    assert numbers['metrics']['segm_mAP'] == pytest.approx(1.0)
    assert numbers['classes'][classes[0]] == {'score_thr': 0.75, 'objects': 1, 'precision': 1.0, 'recall': 1.0,
                                              'f1': 1.0}


def test_a_picture_of_floats_is_kept_as_well():
    image = np.full((3, 8, 8), 200.4, np.float32)
    evaluator = CocoEvaluator(CLASSES, worst=1)
    evaluator.add(1, SIZE, [annotation(0, A)], instances(), image)
    (_, kept), = evaluator.report().worst
    with Image.open(io.BytesIO(kept.picture)) as picture:
        assert picture.size == (8, 8) and np.abs(np.asarray(picture).astype(int) - 200).max() <= 2


def test_pictures_of_an_evaluation_that_found_nothing(tmp_path):
    report_of(([], instances())).write_pictures(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
