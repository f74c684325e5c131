"""Panoptic quality and mean IoU in the trainer, beside AP: metrics, defaults, reports, what goes with which task."""
from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from modelscope.metrics.builder import build_metric

from modelscope_fastinst.data.shapes_panoptic import semantic_map
from modelscope_fastinst.evaluation.coco import CocoEvaluator
from modelscope_fastinst.evaluation.panoptic import PanopticEvaluator
from modelscope_fastinst.evaluation.semantic import SemanticEvaluator, semantic_truth
from modelscope_fastinst.plugin.evaluation_results import evaluation_postprocessors
from modelscope_fastinst.plugin.metrics_text import metrics_table
from modelscope_fastinst.plugin.trainer_keys import ConfigurationError
from modelscope_fastinst.structures import PanopticMap, Sample, Segment

from .panoptic_runs import LOW, drawn, moved, trainer_of
from .trainer_runs import shapes, trainer_for

ALL = ['fastinst-panoptic-metric', 'fastinst-semantic-metric', 'fastinst-coco-metric']


def test_three_metrics_at_once_take_one_run_of_the_network_a_batch(tmp_path):
    trainer = trainer_of(tmp_path, changes={'evaluation.metrics': ALL, 'postprocessor': LOW})
    runs = []
    trainer.network.register_forward_hook(lambda *_: runs.append(1))
    values = trainer.evaluate()
    samples = list(drawn())
    assert len(runs) == len(samples)   # batches of one image
    model = trainer.model.eval()
    evaluators = {'panoptic': PanopticEvaluator(model.classes, {0, 1}), 'semantic': SemanticEvaluator(model.classes),
                  'instance': CocoEvaluator(model.classes)}
    find = evaluation_postprocessors(evaluators, 'panoptic', model.thing_classes, LOW)
    for sample in samples:
        output = model.forward(images=[sample.image])
        found = {task: postprocess(output, [sample.original_size])[0] for task, postprocess in find.items()}
        assert found['panoptic'].segments and set(found['instance'].labels.tolist()) <= {0, 1}
        evaluators['panoptic'].add(sample.image_id, sample.truth, found['panoptic'])
        evaluators['semantic'].add(sample.image_id, semantic_truth(sample.truth), found['semantic'])
        things = [segment for segment in sample.truth.segments if segment.isthing]
        evaluators['instance'].add(sample.image_id, sample.original_size, [
            {'category_id': one.label, 'segmentation': sample.truth.ids == one.id} for one in things],
            found['instance'])
    expected = {name: value for one in evaluators.values() for name, value in one.evaluate().items()}
    assert values == pytest.approx(expected, abs=1e-9) and values['segm_AP/stripes'] == -1 and values['mIoU'] > 0


def test_the_same_image_in_two_processes_counts_once():
    samples, classes = list(drawn(4)), ['ellipse', 'rectangle', 'stripes', 'checks', 'dots']
    trainer = type('Trainer', (), {'model_classes': classes, 'thing_classes': {0, 1}, 'unpicklable': lambda: None})()
    for name, results in (('fastinst-panoptic-metric', [moved(one.truth) for one in samples]),
                          ('fastinst-semantic-metric', [semantic_map(moved(one.truth)) for one in samples])):
        parts = []
        for share in (range(4), range(3), range(2, 4)):
            metric = build_metric(name)
            metric.trainer = trainer
            metric.add([results[number] for number in share], {'samples': [samples[number] for number in share]})
            parts.append(pickle.loads(pickle.dumps(metric)))
        whole, first, second = parts
        assert whole.trainer is None
        first.merge(second)
        assert first.evaluate() == whole.evaluate()
        assert 0 < whole.evaluate()['PQ' if 'panoptic' in name else 'mIoU'] < 1


def test_perfect_results_are_perfect_and_are_said_to_be():
    samples = list(drawn(3))
    values = {}
    for name, found in (('fastinst-panoptic-metric', [one.truth for one in samples]),
                        ('fastinst-semantic-metric', [semantic_map(one.truth) for one in samples])):
        settings = {'things': ['ellipse', 'rectangle']} if 'panoptic' in name else {}
        metric = build_metric({'type': name, 'classes': drawn().classes, **settings})
        metric.add(found, {'samples': samples})
        values |= metric.evaluate()
    assert [values[name] for name in ('PQ', 'SQ_th', 'RQ_st', 'mIoU', 'pACC', 'PQ/ellipse')] == [1] * 6
    lines = metrics_table(values, drawn().classes).splitlines()
    assert lines[:4] == ['evaluation: PQ 1.0000 SQ 1.0000 RQ 1.0000', '  PQ_th 1.0000 SQ_th 1.0000 RQ_th 1.0000',
                         '  PQ_st 1.0000 SQ_st 1.0000 RQ_st 1.0000',
                         '  mIoU 1.0000 fwIoU 1.0000 mACC 1.0000 pACC 1.0000']
    assert lines[4].split() == ['class', 'PQ', 'SQ', 'RQ', 'IoU', 'ACC'] and len(lines) == 5 + 5


def test_a_class_without_a_value_has_a_dash_and_columns_are_in_line():
    values = {'segm_mAP': 0.5, 'segm_mAP_l': -1.0, 'PQ/cat': 0.25, 'PQ/sky': 1.0, 'boundary_AP/cat': 0.5,
              'boundary_AP/sky': -1.0}
    assert metrics_table(values, ['cat', 'sky']).splitlines() == ['evaluation: segm_mAP 0.5000 segm_mAP_l -',
                                                                  '  class       PQ boundary_AP',
                                                                  '  cat     0.2500      0.5000',
                                                                  '  sky     1.0000           -']


@pytest.mark.parametrize(('metric', 'message'), [
    pytest.param({'type': 'fastinst-panoptic-metric', 'classes': ['a'], 'things': ['b']}, r"things names \['b'\]",
                 id='a thing that is no class'),
    pytest.param({'type': 'fastinst-panoptic-metric', 'classes': ['a']}, r'things=\[', id='no things'),
    pytest.param({'type': 'fastinst-semantic-metric'}, r'classes=\[', id='no classes'),
    pytest.param({'type': 'fastinst-panoptic-metric', 'classes': ['a'], 'things': []}, 'cells.png: .* panoptic ground',
                 id='no panoptic truth'),
    pytest.param({'type': 'fastinst-semantic-metric', 'classes': ['a']}, 'cells.png: .* semantic or panoptic ground',
                 id='no semantic truth'),
])
def test_what_a_metric_needs(metric, message):
    with pytest.raises(ValueError, match=message):
        build_metric(metric).add([None], {'samples': [Sample(None, image_id=1, file_name='cells.png')]})


@pytest.mark.parametrize('metric', ALL)
def test_settings_that_a_metric_does_not_have(metric):
    with pytest.raises(TypeError, match=f"{metric} has no setting 'class_names'; known are classes"):
        build_metric({'type': metric, 'class_names': ['a']})


# What goes with which task.


@pytest.mark.parametrize(('task', 'metric', 'key'), [
    pytest.param('panoptic', 'fastinst-panoptic-metric', 'PQ', id='panoptic'),
    pytest.param('semantic', 'fastinst-semantic-metric', 'mIoU', id='semantic'),
    pytest.param('instance', 'fastinst-coco-metric', 'segm_mAP', id='instance')])
def test_a_model_is_measured_by_its_task_and_the_best_is_kept_by_it(tmp_path, task, metric, key):
    data = shapes(2) if task == 'instance' else drawn(2, task)
    recipe = {'train': {'max_epochs': 1, 'early_stopping': {'patience': 3}}}   # no recipe of its own: the default
    trainer = trainer_of(tmp_path, task, recipe, data)
    assert trainer.metrics == [metric] and trainer.cfg.train.checkpoint.best.metric_key == key
    assert trainer._own_hooks['early_stopping'].metric_key == key and trainer.checkpoint_hook.metric_key == key
    assert key in trainer.evaluate()


@pytest.mark.parametrize(('task', 'changes', 'message'), [
    pytest.param('semantic', {'evaluation.metrics': ['fastinst-panoptic-metric']},
                 "evaluation.metrics has 'fastinst-panoptic-metric', but model.task is \"semantic\".*use "
                 "'fastinst-semantic-metric'", id='panoptic of a semantic model'),
    pytest.param('instance', {'evaluation.metrics': [{'type': 'fastinst-semantic-metric'}]},
                 'model.task is "instance", whose weights give instance results only', id='semantic of instances'),
    pytest.param('panoptic', {'evaluation.tta': True}, 'evaluation.tta: .* task "panoptic" .*remove evaluation.tta',
                 id='views of a panoptic model'),
    pytest.param('semantic', {'evaluation.tta': [1.0, 1.5]}, 'evaluation.tta: .* task "semantic"',
                 id='views of a semantic model'),
    pytest.param('panoptic', {'evaluation.boundary': True}, "evaluation.boundary is true, .*add 'fastinst-coco-metric'",
                 id='boundaries without instances'),
    pytest.param('instance', {'evaluation.boundary': 'yes'}, 'evaluation.boundary must be true or false',
                 id='boundary is no switch'),
    pytest.param('panoptic', {'evaluation.period': {'interval': 1},
                              'train.checkpoint': {'best': {'metric_key': 'PQ_thing'}}},
                 "'PQ_thing', which fastinst-panoptic-metric does not give; did you mean 'PQ_th'",
                 id='a misspelt value'),
    pytest.param('panoptic', {'evaluation.metrics': ALL, 'evaluation.period': {'interval': 1},
                              'train.checkpoint': {'best': {'metric_key': 'boundary_mAP'}}},
                 "'boundary_mAP', which fastinst-panoptic-metric and fastinst-semantic-metric and fastinst-coco-metric "
                 'does not give', id='a value that is not asked for'),
])
def test_settings_that_the_task_does_not_allow_are_found_before_anything_runs(tmp_path, task, changes, message):
    with pytest.raises(ConfigurationError, match=message):
        trainer_of(tmp_path, task, changes, shapes(2) if task == 'instance' else None)


def test_views_and_boundaries_of_the_things_of_a_panoptic_model(tmp_path):
    changes = {'evaluation.metrics': ['fastinst-coco-metric'], 'evaluation.tta': True, 'evaluation.boundary': True}
    values = trainer_of(tmp_path, changes=changes).evaluate()
    assert {'segm_mAP', 'boundary_mAP', 'boundary_AP/ellipse'} <= set(values) and 'PQ' not in values


def test_a_model_that_is_trained_on_for_another_task_is_measured_by_that(tmp_path):
    first = trainer_of(tmp_path / 'first', changes={'train.max_epochs': 1, 'evaluation.period': {'interval': 1},
                                                    'train.checkpoint': {'best': {'metric_key': 'PQ'}}})
    first.train()
    model = str(tmp_path / 'first' / 'work' / 'output')
    arguments = {'cfg_file': None, 'model': model, 'train_dataset': drawn(2, 'semantic'),
                 'eval_dataset': drawn(2, 'semantic')}
    second = trainer_for(tmp_path / 'second', {}, cfg_options={'model.task': 'semantic'}, **arguments)
    assert second.metrics == ['fastinst-semantic-metric'] and second.cfg.train.checkpoint.best.metric_key == 'mIoU'
    again = trainer_for(tmp_path / 'third', {}, **{**arguments, 'train_dataset': drawn(2), 'eval_dataset': drawn(2)})
    assert again.metrics == ['fastinst-panoptic-metric'] and again.cfg.train.checkpoint.best.metric_key == 'PQ'


# Reports.


@pytest.fixture
def reported(tmp_path, monkeypatch):
    """A trainer of a panoptic model that finds the truth, moved; its work folder's report."""
    trainer = trainer_of(tmp_path, changes={'evaluation': {'report': {'worst': 2}, 'metrics': ALL[:2]}})

    def step(data):
        found = [moved(sample.truth, 5) for sample in data['samples']]
        return {'panoptic': found, 'semantic': [semantic_map(one) for one in found]}
    monkeypatch.setattr(trainer, 'evaluation_step', step)
    return trainer, tmp_path / 'work' / 'evaluation'


def test_each_metric_has_its_report_in_a_folder_of_its_task(reported):
    trainer, folder = reported
    values = trainer.evaluate()
    assert json.loads((folder / 'metrics.json').read_text('utf-8')) == {'images': 3, 'metrics': values}
    pictures = {'panoptic': 'panoptic_quality.png', 'semantic': 'iou.png'}
    for task, picture in pictures.items():
        assert {path.name for path in (folder / task).iterdir()} == {'metrics.json', picture, 'confusion_matrix.png',
                                                                     'worst'}
        assert len(list((folder / task / 'worst').iterdir())) == 2
    numbers = json.loads((folder / 'panoptic' / 'metrics.json').read_text('utf-8'))
    assert numbers['classes']['ellipse']['isthing'] and not numbers['classes']['dots']['isthing']
    assert trainer.evaluation_report is None and trainer.best_thresholds is None


def test_a_single_report_lies_in_the_folder_itself_and_shows_what_is_wrong(reported):
    from PIL import Image
    trainer, folder = reported
    trainer.metrics = ALL[:1]
    trainer.evaluate()
    assert (folder / 'panoptic_quality.png').is_file() and not (folder / 'panoptic').exists()
    names = sorted(path.name for path in (folder / 'worst').iterdir())
    assert names[0].startswith('001_pq_0.') and names[0] < names[1]
    picture = np.concatenate([np.asarray(Image.open(folder / 'worst' / name)).reshape(-1, 3) for name in names])
    for color in ((255, 150, 0), (235, 50, 75), (60, 190, 140)):   # missed, false, right: outlines have the full colour
        assert (abs(picture.astype(int) - color).sum(1) < 40).sum() > 100


def test_pictures_with_very_many_classes():
    from modelscope_fastinst.evaluation.class_figures import panoptic_quality
    names = [f'class {number}' for number in range(120)]
    evaluator = PanopticEvaluator(names, range(60))
    ids = np.arange(1, 101, dtype=np.int32).reshape(10, 10).repeat(8, 1)
    truth, found = (PanopticMap(one, [Segment(number, number - 1, 1.0, number <= 60, 8, (0, 0, 8, 1))
                                      for number in range(1, 101)]) for one in (ids, np.roll(ids, 1, 1)))
    evaluator.add(1, truth, found)
    axis = panoptic_quality(evaluator.report()).axes[0]
    assert len(axis.patches) == 40 and '60 classes between' in [text.get_text() for text in axis.texts]
