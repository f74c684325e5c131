"""What a training writes down: log, table, curves, TensorBoard's events; also after an interruption."""
from __future__ import annotations

import csv
import json
import sys
from types import SimpleNamespace

import pytest
from modelscope.trainers.hooks.hook import Hook
from PIL import Image

from modelscope_fastinst.plugin.curves import draw, write_curves
from modelscope_fastinst.plugin.trainer_keys import ConfigurationError
from modelscope_fastinst.plugin.training_log import TrainingLog, read_log

from .trainer_runs import log_lines, shapes, trainer_for

CHANGES = {'train.max_epochs': 3, 'evaluation.period': {'interval': 1}, 'train.tensorboard': True,
           'train.logging': {'interval': 1, 'curves': True}}


class CutAt(Hook):
    PRIORITY = 100

    def after_train_iter(self, trainer):
        if trainer.iter + 1 == 3:   # in the second epoch, after the state of the first and a record beyond it
            raise InterruptedError


@pytest.fixture(scope='module')
def resumed(tmp_path_factory):
    folder = tmp_path_factory.mktemp('log')
    with pytest.raises(InterruptedError):
        trainer_for(folder, CHANGES, eval_dataset=shapes(1), callbacks=[CutAt()]).train()
    assert (folder / 'work' / 'curves.png').exists()   # of the first evaluation
    trainer_for(folder, CHANGES, eval_dataset=shapes(1), resume_from='latest').train()
    return folder / 'work'


def points(work):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    events = EventAccumulator(str(work / 'tensorboard'))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()['scalars']}


def test_every_record_is_there_once(resumed):
    assert [line['iter'] for line in log_lines(resumed.parent)] == [1, 2, 3, 4, 5, 6]
    assert [line['iter'] for line in log_lines(resumed.parent, 'eval')] == [2, 4, 6]


def test_tensorboard_has_every_point_once(resumed):
    found = points(resumed)
    assert [step for step, _ in found['train/loss']] == [1, 2, 3, 4, 5, 6]
    assert [step for step, _ in found['eval/segm_mAP']] == [2, 4, 6]
    assert [value for _, value in found['train/loss']] == pytest.approx(
        [line['loss'] for line in log_lines(resumed.parent)], abs=1e-4)


def test_the_table_has_the_records_as_rows(resumed):
    with open(resumed / 'log.csv', encoding='utf-8', newline='') as file:
        rows = list(csv.DictReader(file))
    records = read_log(resumed / 'log.jsonl')
    assert [(row['mode'], int(row['iter'])) for row in rows] == [(r['mode'], r['iter']) for r in records]
    for row, record in zip(rows, records, strict=True):
        assert {name for name, value in row.items() if value} == set(record)
        assert all(float(row[name]) == record[name] for name in record if name != 'mode')


def test_the_curves_are_a_picture_with_something_on_it(resumed):
    with Image.open(resumed / 'curves.png') as picture:
        assert picture.format == 'PNG'
        assert len(picture.convert('RGB').resize((200, 200)).getcolors(40000)) > 20


def test_curves_of_losses_rate_and_metrics():
    records = [{'mode': 'train', 'epoch': 1, 'iter': number, 'lr': 0.1, 'loss': 9.0, 'loss_ce': 1.0, 'loss_ce_0': 2.0,
                'grad_norm': 5.0} for number in (1, 2, 3)]
    records += [{'mode': 'train', 'epoch': 1, 'iter': 4, 'lr': 0.1, 'iters_left_out': 1, 'grad_norm': None}]
    records += [{'mode': 'eval', 'epoch': 1, 'iter': 3, 'segm_mAP': 0.5, 'raw/segm_mAP': 0.4}]
    losses, rate, metrics = draw(records).axes
    assert {line.get_label(): list(line.get_ydata()) for line in losses.lines} == {
        'total': [9.0] * 3, 'ce': [3.0] * 3}
    assert list(rate.lines[0].get_xdata()) == [1, 2, 3, 4]
    assert {line.get_label(): list(line.get_ydata()) for line in metrics.lines} == {
        'segm_mAP (averaged)': [0.5], 'segm_mAP (raw)': [0.4]}


def test_curves_of_metrics_of_ones_own():
    *_, metrics = draw([{'mode': 'eval', 'epoch': 1, 'iter': 3, 'boundary': 7.5}]).axes
    assert [line.get_label() for line in metrics.lines] == ['boundary']


def test_a_picture_that_cannot_be_written_does_not_end_a_training(tmp_path, caplog):
    (tmp_path / 'work' / 'curves.png').mkdir(parents=True)
    trainer = trainer_for(tmp_path, {**CHANGES, 'train.tensorboard': False, 'train.max_epochs': 1},
                          eval_dataset=shapes(1))
    trainer.logger.addHandler(caplog.handler)
    try:
        trainer.train()
    finally:
        trainer.logger.removeHandler(caplog.handler)
    assert "the log's table or curves are not written" in caplog.text
    assert trainer.iter == 2 and (tmp_path / 'work' / 'log.csv').exists()


def test_a_log_of_nothing_has_no_curves(tmp_path):
    assert write_curves(tmp_path) is None


def test_a_new_training_in_an_old_folder_keeps_the_old_log(tmp_path):
    for _ in range(3):
        log = TrainingLog(tmp_path)
        log.begin(0)
        log.write({'mode': 'train', 'epoch': 1, 'iter': 1, 'loss': 1.0})
    assert sorted(file.name for file in tmp_path.iterdir()) == ['log.1.jsonl', 'log.2.jsonl', 'log.jsonl']
    assert len(read_log(tmp_path / 'log.jsonl')) == 1


def test_a_line_that_an_interruption_has_cut_does_not_count(tmp_path):
    log = TrainingLog(tmp_path)
    for iteration in (1, 2, 3):
        log.write({'mode': 'train', 'epoch': 1, 'iter': iteration, 'loss': 1 / 3, 'grad_norm': float('nan')})
    with open(log.file, 'a', encoding='utf-8') as file:
        file.write('{"mode": "train", "it')
    assert [record['iter'] for record in read_log(log.file)] == [1, 2, 3]
    log.begin(2)
    assert log.file.read_text('utf-8').count('\n') == 2
    assert read_log(log.file)[1] == {'mode': 'train', 'epoch': 1, 'iter': 2, 'loss': 0.333333, 'grad_norm': None}


@pytest.mark.parametrize('line', [pytest.param('{"iter": 1', id='cut'), pytest.param('7', id='no record')])
def test_a_broken_line_within_the_log_is_named(line, tmp_path):
    (tmp_path / 'log.jsonl').write_text(json.dumps({'iter': 1}) + f'\n{line}\n' + '{"iter": 2}\n', 'utf-8')
    with pytest.raises(ValueError, match='log.jsonl: line 2 is .*; remove the line'):
        read_log(tmp_path / 'log.jsonl')


def test_tensorboard_that_is_not_installed_is_known_at_once(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'tensorboard', None)
    with pytest.raises(ConfigurationError, match='train.tensorboard is true, but .* not installed: pip install'):
        trainer_for(tmp_path, {'train.tensorboard': True})
    assert not (tmp_path / 'work').exists()


@pytest.mark.parametrize('asked', [pytest.param(False, id='no'), pytest.param(True, id='yes')])
def test_says_where_evaluation_images_are_there_and_nothing_is_evaluated(tmp_path, asked):
    trainer = trainer_for(tmp_path, {'evaluation.period': {'interval': 1}} if asked else {}, eval_dataset=shapes(1))
    told: list[str] = []
    trainer.logger = SimpleNamespace(info=told.append, debug=str)
    trainer.print_cfg()
    assert any('1 evaluation images' in one for one in told)
    assert any('nothing is evaluated during the training' in one for one in told) is not asked
