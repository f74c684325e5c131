"""``evaluate`` of models that give panoptic and label maps; records and curves of such evaluations."""
from __future__ import annotations

import json

import pytest

from modelscope_fastinst.cli import main
from modelscope_fastinst.evaluation.record import RecordError, check_record, read_record
from modelscope_fastinst.plugin.curves import draw

from .panoptic_runs import LOW, drawn, trainer_of


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    """A panoptic model that has learnt nothing, and a folder of data in COCO panoptic's layout beside it."""
    folder = tmp_path_factory.mktemp('panoptic')
    drawn().write_coco_panoptic(folder / 'data', 'val2017')
    trainer = trainer_of(folder, changes={'postprocessor': LOW})
    trainer.save_output()
    return folder / 'work' / 'output'


def evaluate(model, capsys, *options):
    status = main(['evaluate', '--model', str(model), '--data', str(model.parents[1] / 'data'), '--device', 'cpu',
                   *options])
    return status, capsys.readouterr()


def test_a_panoptic_model_is_measured_by_its_quality_with_a_report_and_a_record(model, capsys, tmp_path):
    status, printed = evaluate(model, capsys, '--json', '--report', str(tmp_path / 'report'), '--record',
                               str(tmp_path / 'record.json'))
    assert status == 0, printed.err
    values = json.loads(printed.out)
    assert 0 <= values['PQ'] < 1 and 'mIoU' not in values and 'segm_mAP' not in values
    assert json.loads((tmp_path / 'report' / 'metrics.json').read_text('utf-8'))['metrics'] == values
    assert (tmp_path / 'report' / 'panoptic_quality.png').is_file()
    record = read_record(tmp_path / 'record.json')
    assert record['measures'] == values and record['images'] == 3


def test_other_tasks_are_asked_for(model, capsys):
    status, printed = evaluate(model, capsys, '--task', 'semantic,instance', '--boundary')
    assert status == 0, printed.err
    lines = printed.out.splitlines()
    assert lines[0].startswith('evaluation: mIoU 0.') and any(line.startswith('  boundary_mAP ') for line in lines)
    header = next(line for line in lines if line.split()[0] == 'class')
    assert header.split() == ['class', 'IoU', 'ACC', 'segm_AP', 'bbox_AP', 'boundary_AP']
    assert [line.split()[0] for line in lines[-5:]] == drawn().classes


@pytest.mark.parametrize(('options', 'message'), [
    pytest.param(['--write-thresholds'], '--task instance', id='thresholds of maps'),
    pytest.param(['--tta'], 'evaluation.tta', id='views of maps'),
    pytest.param(['--boundary'], 'evaluation.boundary', id='boundaries of maps'),
])
def test_what_is_of_instances_only(model, capsys, options, message):
    status, printed = evaluate(model, capsys, *options)
    assert status == 1 and message in printed.err


def test_a_task_that_there_is_not(model, capsys):
    with pytest.raises(SystemExit):
        evaluate(model, capsys, '--task', 'panoptic,depth')
    assert "'depth' is none of instance, semantic, panoptic" in capsys.readouterr().err


@pytest.mark.parametrize('measure', ['PQ', 'mIoU', 'segm_mAP'])
def test_a_record_has_the_main_value_of_a_task(measure):
    record = {'command': 'evaluate', 'date': '2026-01-31', 'data': 'val.json', 'images': 3}
    check_record({**record, 'measures': {measure: 0.5}}, 'here')
    with pytest.raises(RecordError, match='here: measures has no segm_mAP, nor PQ or mIoU'):
        check_record({**record, 'measures': {f'{measure}_th': 0.5}}, 'here')


def test_the_curves_show_panoptic_quality_and_mean_iou():
    *_, metrics = draw([{'mode': 'eval', 'epoch': 1, 'iter': 3, 'PQ': 0.4, 'PQ_th': 0.3, 'PQ_st': -1.0, 'SQ': 0.9,
                         'mIoU': 0.6, 'raw/PQ': 0.2}]).axes
    assert [line.get_label() for line in metrics.lines] == ['PQ (averaged)', 'PQ (raw)', 'PQ_th (averaged)',
                                                            'mIoU (averaged)']
