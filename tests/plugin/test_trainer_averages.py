"""Averaged weights beside the raw ones: evaluated, chosen by, handed out."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from modelscope.metrics.base import Metric
from modelscope.metrics.builder import METRICS
from modelscope.pipelines import pipeline
from safetensors.torch import load_file

from .trainer_runs import assert_equal_weights, log_lines, shapes, trainer_for, weights

NAME = 'sem_seg_head.pixel_decoder.adapter_1.weight'


@METRICS.register_module(group_key='default', module_name='test-weight-metric', force=True)
class WeightMetric(Metric):
    """Tells the weights that are evaluated by their norm."""

    def add(self, outputs, inputs):
        self.images = len(outputs)

    def merge(self, other):
        raise NotImplementedError

    def evaluate(self):
        return {'norm': float(self.trainer.network.state_dict()[NAME].norm())}


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp('averages')
    trainer = trainer_for(folder, {
        'train.max_epochs': 2, 'train.ema': {'decay': 0.9, 'evaluate_raw': True},
        'train.checkpoint.best': {'metric_key': 'raw/norm', 'rule': 'max'},
        'evaluation': {'metrics': ['test-weight-metric'], 'period': {'interval': 1}}}, eval_dataset=shapes(1))
    trainer.train()
    return trainer, folder


def test_both_are_evaluated(trained):
    trainer, folder = trained
    last = log_lines(folder, 'eval')[-1]
    assert last['norm'] == pytest.approx(float(trainer.ema.averages[NAME].norm()), abs=1e-6)
    assert last['raw/norm'] == pytest.approx(float(weights(trainer)[NAME].norm()), abs=1e-6)
    assert last['norm'] != last['raw/norm']


def test_the_best_may_be_chosen_by_the_raw_weights(trained):
    trainer, folder = trained
    best = max(log_lines(folder, 'eval'), key=lambda line: line['raw/norm'])
    assert trainer.checkpoint_hook.best_iter == best['iter']


def test_both_are_handed_out(tmp_path):
    trainer = trainer_for(tmp_path, {'train.ema': {'decay': 0.9}})
    trainer.train()
    averaged, raw = (load_file(tmp_path / 'work' / name / 'model.safetensors') for name in ('output', 'output_raw'))
    assert_equal_weights({name: averaged[name] for name in trainer.ema.averages}, trainer.ema.averages)
    assert_equal_weights({name: raw[name] for name in weights(trainer)}, weights(trainer))
    assert not torch.equal(averaged[NAME], raw[NAME])
    pipeline('image-segmentation', model=str(tmp_path / 'work' / 'output_raw'), device='cpu')(
        np.zeros((64, 64, 3), np.uint8))


def test_without_averages_there_is_one_result(tmp_path):
    trainer_for(tmp_path, {'train.max_epochs': 1}).train()
    assert (tmp_path / 'work' / 'output').is_dir()
    assert not (tmp_path / 'work' / 'output_raw').exists()


@pytest.mark.parametrize(('setting', 'written'), [
    pytest.param(None, {'ellipse': 0.25, 'rectangle': 0.5}, id='written'),
    pytest.param(False, None, id='not asked for')])
def test_best_thresholds_go_into_the_results_configuration(setting, written, tmp_path):
    import json
    trainer = trainer_for(tmp_path, {'train.max_epochs': 1, 'evaluation': {'thresholds': setting}})
    trainer.best_thresholds = {'ellipse': 0.25, 'rectangle': 0.5}
    trainer.save_output()
    configuration = json.loads((tmp_path / 'work' / 'output' / 'configuration.json').read_text('utf-8'))
    assert (configuration.get('postprocessor') or {}).get('score_thr') == written
