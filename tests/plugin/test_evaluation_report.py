"""What the trainer makes of an evaluation besides its values: a report, thresholds, other views, another engine."""
from __future__ import annotations

import json
import logging
import shutil
import sys

import numpy as np
import pytest
import torch
from modelscope.pipelines import pipeline

from modelscope_fastinst.cli import main
from modelscope_fastinst.cli.evaluate import _write_thresholds as write_thresholds
from modelscope_fastinst.plugin.conversion import convert
from modelscope_fastinst.plugin.evaluation_report import check_report_folder
from modelscope_fastinst.plugin.evaluation_settings import check_evaluation, views_of
from modelscope_fastinst.plugin.trainer_keys import ConfigurationError
from modelscope_fastinst.results.instances import InstancePostprocessor
from modelscope_fastinst.results.rle import decode, encode
from modelscope_fastinst.structures import Instances, NetworkOutput, Prediction

from .trainer_runs import shapes, trainer_for

CLASSES = ['ellipse', 'rectangle']


def perfect_but(trainer, monkeypatch, shift=0):
    """Has the trainer find the truth, moved by some pixels, with scores 0.625 (first class) and 0.75.

    ``shift`` may also be a function that is asked anew for each batch.
    """
    moved_by = shift if callable(shift) else lambda: shift

    def step(data):
        found, shift = [], moved_by()
        for sample in data['samples']:
            masks = np.roll(decode([record['segmentation'] for record in sample.annotations]), shift, axis=2)
            labels = np.array([record['category_id'] for record in sample.annotations])
            boxes = np.array([[np.flatnonzero(mask.any(0))[0], np.flatnonzero(mask.any(1))[0],
                               np.flatnonzero(mask.any(0))[-1] + 1, np.flatnonzero(mask.any(1))[-1] + 1]
                              for mask in masks], np.float32)
            found.append(Instances(np.where(labels == 0, 0.625, 0.75), labels, encode(masks), boxes))
        return found
    monkeypatch.setattr(trainer, 'evaluation_step', step)


@pytest.fixture
def trainer(tmp_path):
    return trainer_for(tmp_path, {'evaluation': {'report': {'worst': 2}}}, eval_dataset=shapes(4))


def test_a_report_is_in_the_work_folder_and_the_next_takes_its_place(trainer, tmp_path, monkeypatch):
    folder = tmp_path / 'work' / 'evaluation'
    perfect_but(trainer, monkeypatch)
    values = trainer.evaluate()
    assert values['segm_mAP'] == pytest.approx(1.0)
    numbers = json.loads((folder / 'metrics.json').read_text('utf-8'))
    assert numbers['metrics'] == values and numbers['images'] == 4
    assert {file.name for file in folder.iterdir()} == {'metrics.json', 'precision_recall.png', 'f1.png',
                                                        'confusion_matrix.png', 'worst'}
    first = {file.name for file in (folder / 'worst').iterdir()}
    assert len(first) == 2 and all('f1_1.00' in name for name in first)
    perfect_but(trainer, monkeypatch, shift=20)
    trainer.evaluate()
    assert all('f1_0.00' in file.name for file in (folder / 'worst').iterdir())
    assert len(list((folder / 'worst').iterdir())) == 2
    assert [entry.name for entry in folder.parent.iterdir() if entry.name.startswith('.')] == []


def test_thresholds_become_the_default_of_the_output(trainer, tmp_path, monkeypatch):
    perfect_but(trainer, monkeypatch)
    trainer.evaluate()
    assert trainer.best_thresholds == {'ellipse': 0.625, 'rectangle': 0.75}
    assert trainer.evaluation_report.threshold == 0.625
    trainer.save_output()
    segment = pipeline('image-segmentation', model=str(tmp_path / 'work' / 'output'), device='cpu')
    assert segment.postprocessor.instances.score_thr == (0.625, 0.75)


@pytest.mark.parametrize('names', [
    pytest.param(['device', 'dataset'], id='keys that a written configuration does not hold'),
    pytest.param(['a.b', '_delete_'], id='keys that mean something to configurations'),
])
def test_a_class_may_be_called_as_a_setting_is(tmp_path, names):
    data = shapes(2)
    data.classes = names
    trainer = trainer_for(tmp_path / 'first', train_dataset=data)
    trainer.best_thresholds = {names[0]: 0.25, names[1]: 0.375}
    trainer.save_output()
    output = tmp_path / 'first' / 'work' / 'output'
    tuned = trainer_for(tmp_path / 'second', train_dataset=data, model=str(output), cfg_file=None)
    tuned.save_output()   # evaluates nothing, so the thresholds stay
    for folder in (output, tmp_path / 'second' / 'work' / 'output'):
        segment = pipeline('image-segmentation', model=str(folder), device='cpu')
        assert segment.postprocessor.instances.score_thr == (0.25, 0.375)


def test_averaged_weights_alone_get_the_thresholds_found_with_them(tmp_path, monkeypatch):
    trainer = trainer_for(tmp_path, {'train.ema': {}}, eval_dataset=shapes(2))
    perfect_but(trainer, monkeypatch)
    trainer.evaluate()
    trainer.save_output()
    sections = [json.loads((tmp_path / 'work' / name / 'configuration.json').read_text('utf-8')).get('postprocessor')
                for name in ('output', 'output_raw')]
    assert sections == [{'score_thr': {'ellipse': 0.625, 'rectangle': 0.75}}, None]


def test_fused_scores_give_the_model_no_thresholds(tmp_path, monkeypatch):
    trainer = trainer_for(tmp_path, {'evaluation.tta': True}, eval_dataset=shapes(2))
    perfect_but(trainer, monkeypatch)
    trainer.evaluate()
    assert trainer.evaluation_report.thresholds == {'ellipse': 0.625, 'rectangle': 0.75}
    assert trainer.best_thresholds is None


BEST = {'train.max_epochs': 2, 'evaluation': {'period': {'interval': 1}, 'report': {'worst': 0}},
        'train.checkpoint': {'best': {'metric_key': 'segm_mAP'}}}


def test_the_report_beside_the_best_model_is_its_own_and_a_resumed_training_knows_the_thresholds(tmp_path, monkeypatch):
    options = {'train_dataset': shapes(2), 'eval_dataset': shapes(2)}
    trainer = trainer_for(tmp_path, BEST, **options)
    perfect_but(trainer, monkeypatch, shift=lambda: 4 * trainer.epoch)
    trainer.train()
    numbers = json.loads((tmp_path / 'work' / 'evaluation' / 'metrics.json').read_text('utf-8'))
    assert numbers['metrics']['segm_mAP'] == pytest.approx(1.0)
    assert trainer.evaluation_report.metrics['segm_mAP'] < 0.9   # of the last evaluation, a worse one
    resumed = trainer_for(tmp_path, BEST, resume_from='latest', **options)
    resumed.train()   # has nothing left to do
    assert resumed.best_thresholds == trainer.best_thresholds == {'ellipse': 0.625, 'rectangle': 0.75}


def test_a_training_resumed_in_another_work_folder_hands_out_a_model(tmp_path, monkeypatch):
    options = {'train_dataset': shapes(2), 'eval_dataset': shapes(2)}
    first = trainer_for(tmp_path / 'first', {**BEST, 'train.max_epochs': 1}, **options)
    perfect_but(first, monkeypatch)   # no later model is better
    first.train()
    state = tmp_path / 'first' / 'work' / 'epoch_1.pth'
    resumed = trainer_for(tmp_path / 'second', BEST, resume_from=str(state), **options)
    resumed.train()
    written = tmp_path / 'second' / 'work' / 'output'
    assert {file.name for file in written.iterdir()} == {'configuration.json', 'model.safetensors'}


def test_a_report_that_cannot_be_written_is_known_before_the_training_and_does_not_end_it(tmp_path):
    trainer = trainer_for(tmp_path, BEST, eval_dataset=shapes(2))
    (tmp_path / 'work' / 'evaluation').write_text('of the user')
    with pytest.raises(FileExistsError, match='evaluation: is a file'):
        trainer.train()
    assert trainer.iter == 0
    monitor = []
    trainer.logger.addHandler(handler := _Handler(monitor))
    assert 'segm_mAP' in trainer.evaluate()
    trainer.logger.removeHandler(handler)
    assert any('the report of this evaluation is not written' in text for text in monitor)


class _Handler(logging.Handler):
    def __init__(self, messages):
        super().__init__(logging.ERROR)
        self.messages = messages

    def emit(self, record):
        self.messages.append(record.getMessage())


def test_nothing_right_gives_no_thresholds(trainer, monkeypatch):
    perfect_but(trainer, monkeypatch, shift=20)
    trainer.evaluate()
    assert trainer.best_thresholds is None


def test_thresholds_of_other_classes_are_forgotten(tmp_path):
    trainer = trainer_for(tmp_path, {'postprocessor': {'score_thr': {'nucleus': 0.8}}}, eval_dataset=shapes(2))
    assert 'score_thr' not in trainer.cfg.postprocessor
    trainer = trainer_for(tmp_path, {'postprocessor': {'score_thr': {'ellipse': 0.8}}}, eval_dataset=shapes(2))
    assert dict(trainer.cfg.postprocessor['score_thr']) == {'ellipse': 0.8}


def test_both_engines_and_views_evaluate(tmp_path):
    options = {'eval_dataset': shapes(2), 'seed': 3}
    plain = trainer_for(tmp_path, **options).evaluate()
    faster = trainer_for(tmp_path, {'evaluation.engine': 'faster-coco-eval'}, **options)
    assert faster.evaluate() == plain
    views = trainer_for(tmp_path, {'evaluation.tta': {'scales': [1.0, 96], 'flip': True}}, **options)
    calls = []
    views.network.register_forward_hook(lambda *_: calls.append(1))
    assert views.evaluate().keys() == plain.keys() and len(calls) == 2 * 4
    assert views.evaluate() == views.evaluate()


@pytest.mark.parametrize(('section', 'message'), [
    pytest.param({'engine': 'coco'}, "evaluation.engine: evaluation engine 'coco' is unknown", id='engine'),
    pytest.param({'report': {'best': 3}}, 'evaluation.report must be false', id='key of the report'),
    pytest.param({'report': {'worst': -1}}, 'evaluation.report must be false', id='fewer than none'),
    pytest.param({'thresholds': 0.5}, 'evaluation.thresholds must be true or false', id='thresholds'),
    pytest.param({'tta': {'scales': []}}, 'evaluation.tta must be', id='no scale'),
    pytest.param({'tta': {'scales': [0]}}, 'evaluation.tta must be', id='scale of nothing'),
    pytest.param({'tta': {'flips': True}}, 'evaluation.tta must be', id='key of the views'),
    pytest.param({'tta': {'flip': 2}}, 'evaluation.tta must be', id='flip'),
])
def test_settings_that_cannot_be_are_refused_before_anything_is_computed(section, message):
    with pytest.raises(ConfigurationError, match=message):
        check_evaluation(section)


def test_a_missing_engine_is_said_when_the_trainer_is_made(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'faster_coco_eval', None)
    with pytest.raises(ConfigurationError, match='evaluation.engine: .* not installed: pip install faster-coco-eval'):
        trainer_for(tmp_path, {'evaluation.engine': 'faster-coco-eval'}, eval_dataset=shapes(2))


def test_the_plain_view_comes_first():
    assert views_of({'tta': {'scales': [1.0, 1.5]}}) == [(1.0, False), (1.5, False), (1.0, True), (1.5, True)]
    assert views_of({'tta': [1.0]}) == [(1.0, False), (1.0, True)]
    assert views_of({'tta': {'flip': False}}) == [(1.0, False)]
    assert views_of({}) is views_of({'tta': False}) is None


def test_a_folder_that_is_no_report_is_not_replaced(tmp_path):
    (tmp_path / 'thesis.txt').write_text('years of work')
    with pytest.raises(FileExistsError, match='exists and is no evaluation report'):
        check_report_folder(tmp_path)


# Per-class thresholds

def output_of(scores):
    """A network's output with one query for each (class, score); masks fill the image and are sure."""
    logits = torch.full((1, len(scores), 3), -1e4)
    for query, (label, score) in enumerate(scores):
        logits[0, query, label], logits[0, query, 2] = np.log(score), np.log(1 - score)
    return NetworkOutput(Prediction(logits, torch.full((1, len(scores), 8, 8), 30.0)), [], canvas=(32, 32),
                         sizes=[(32, 32)], proposal_logits=torch.zeros(1, 3, 2, 2))


SCORES = [(0, 0.9), (0, 0.5), (1, 0.5), (1, 0.2)]


@pytest.mark.parametrize(('thresholds', 'kept'), [
    pytest.param(0.4, [(0, 0.9), (0, 0.5), (1, 0.5)], id='one for all'),
    pytest.param((0.6, 0.1), [(0, 0.9), (1, 0.5), (1, 0.2)], id='one for each'),
    pytest.param((0.95, 0.95), [], id='nothing'),
])
def test_each_class_has_its_threshold(thresholds, kept):
    found, = InstancePostprocessor(score_thr=thresholds)(output_of(SCORES), [(32, 32)])
    assert list(zip(found.labels, found.scores.round(4), strict=True)) == [(label, pytest.approx(score, abs=1e-3))
                                                                          for label, score in kept]


def test_each_class_has_its_threshold_where_few_are_looked_for():
    found, = InstancePostprocessor(score_thr=(0.95, 0.1), classes=[1])(output_of(SCORES), [(32, 32)])
    assert found.labels.tolist() == [1, 1]


@pytest.mark.parametrize(('thresholds', 'message'), [
    pytest.param((0.5, 1.5), 'score_thr is 1.5', id='out of range'),
    pytest.param((0.5,), 'score_thr has 1 numbers; the network has 2 classes', id='too few'),
])
def test_thresholds_that_do_not_fit_are_refused(thresholds, message):
    with pytest.raises(ValueError, match=message):
        InstancePostprocessor(score_thr=thresholds)(output_of(SCORES), [(32, 32)])


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    place = tmp_path_factory.mktemp('thresholds')
    trainer_for(place, {'postprocessor': {'score_thr': {'rectangle': 0.25}}}, eval_dataset=shapes(2)).save_output()
    shapes(3).write_coco(place / 'data', 'val')
    return place / 'work' / 'output'


def test_thresholds_by_name_are_the_pipelines_default_and_a_call_overrides_them(model):
    segment = pipeline('image-segmentation', model=str(model), device='cpu')
    chosen = segment.postprocessor
    assert chosen.instances.score_thr == (0.5, 0.25)   # a class that is not named has the usual one
    assert chosen._with('instance', {'score_thr': 0.1}).score_thr == 0.1
    assert chosen._with('instance', {'score_thr': {'ellipse': 0.1}}).score_thr == (0.1, 0.25)
    assert len(segment(np.zeros((64, 64, 3), np.uint8), score_thr=0)['scores']) > 0
    with pytest.raises(ValueError, match=r"score_thr: the model does not know \['circle'\]"):
        segment(np.zeros((64, 64, 3), np.uint8), score_thr={'circle': 0.5})


def test_an_unknown_class_in_the_configuration_is_refused(model):
    with pytest.raises(ValueError, match=r"score_thr: the model does not know \['circle'\]"):
        pipeline('image-segmentation', model=str(model), device='cpu', postprocessor={'score_thr': {'circle': 0.5}})


def test_thresholds_go_on_under_new_class_names(model, tmp_path):
    convert(model, tmp_path / 'renamed', classes=['round', 'square'], device='cpu')
    segment = pipeline('image-segmentation', model=str(tmp_path / 'renamed'), device='cpu')
    assert segment.postprocessor.instances.score_thr == (0.5, 0.25)


def test_thresholds_are_written_into_a_model_folder(model, tmp_path, capsys):
    folder = shutil.copytree(model, tmp_path / 'model')
    write_thresholds(folder, None)
    assert 'no thresholds written' in capsys.readouterr().err
    assert (folder / 'configuration.json').read_bytes() == (model / 'configuration.json').read_bytes()
    write_thresholds(folder, {'ellipse': 0.375, 'rectangle': 0.625})
    segment = pipeline('image-segmentation', model=str(folder), device='cpu')
    assert segment.postprocessor.instances.score_thr == (0.375, 0.625)


def test_info_shows_thresholds_by_name(model, capsys):
    assert main(['info', str(model)]) == 0
    assert 'rectangle 0.25' in capsys.readouterr().out


def test_report_and_options_on_the_command_line(model, capsys, tmp_path):
    words = ['evaluate', '--model', str(model), '--data', str(model.parents[1] / 'data'), '--device', 'cpu']
    assert main([*words, '--engine', 'faster-coco-eval', '--tta', '1,1.5', '--report', str(tmp_path / 'report'),
                 '--json']) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == json.loads((tmp_path / 'report' / 'metrics.json').read_text('utf-8'))['metrics']
    assert len(list((tmp_path / 'report' / 'worst').iterdir())) == 3
    assert main([*words, '--tta', '--write-thresholds']) == 1
    assert 'error: --write-thresholds: the scores of test-time augmentation' in capsys.readouterr().err
    assert main([*words, '--tta', 'big']) == 1
    assert 'error: --tta big: must be numbers' in capsys.readouterr().err
    assert main(['evaluate', '--data', str(tmp_path), '--write-thresholds']) == 1
    assert 'give one with --model' in capsys.readouterr().err
