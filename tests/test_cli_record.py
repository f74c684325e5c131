"""``evaluate --record``: what was measured, on what and how, as the model card quotes it."""
from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest
import torch

from modelscope_fastinst.checkpoints import save_weights
from modelscope_fastinst.checksum import file_sha256
from modelscope_fastinst.cli import main
from modelscope_fastinst.cli.evaluate import typed
from modelscope_fastinst.data.shapes import ShapesDataset
from modelscope_fastinst.evaluation.record import RecordError, read_record
from modelscope_fastinst.model_card import write_model_card
from modelscope_fastinst.models.fastinst import build_fastinst
from tests.data.formats.tool_files import Picture, write_labelme
from tests.tiny import model_config


@pytest.fixture(scope='module')
def place(tmp_path_factory) -> Path:
    """A folder with a tiny random model and two annotated pictures."""
    place = tmp_path_factory.mktemp('record')
    shapes = ShapesDataset(2, size=64, num_classes=3)
    shapes.write_coco(place / 'shapes', 'val')
    model = model_config(classes=shapes.classes, pretrained=True)
    (place / 'model').mkdir()
    torch.manual_seed(0)
    save_weights(build_fastinst(model), place / 'model' / 'model.safetensors')
    (place / 'model' / 'configuration.json').write_text(json.dumps({
        'framework': 'pytorch', 'task': 'image-segmentation', 'pipeline': {'type': 'fast-instance-segmentation'},
        'model': model, 'preprocessor': {'type': 'fastinst-preprocessor', 'min_size': 64, 'max_size': 64}}), 'utf-8')
    return place


@pytest.fixture
def here(place, monkeypatch) -> Path:
    monkeypatch.chdir(place)
    (place / 'model' / 'evaluation.json').unlink(missing_ok=True)
    return place


def test_the_measures_are_recorded_with_command_data_weights_and_versions(here, capsys):
    words = ['evaluate', '--model', 'model', '--data', 'shapes', '--record', '--json', '--device', 'cpu']
    assert main(words) == 0
    measures = json.loads(capsys.readouterr().out)
    record = read_record(here / 'model' / 'evaluation.json')
    assert record['measures'] == measures and 'segm_mAP' in measures
    assert record['command'] == 'modelscope-fastinst ' + ' '.join(words)
    assert record['date'] == datetime.date.today().isoformat()
    assert (record['data'], record['images']) == ('instances_val.json', 2)
    assert record['weights'] == {'file': 'model.safetensors',
                                 'sha256': file_sha256(here / 'model' / 'model.safetensors')}
    assert torch.__version__.startswith(record['versions']['torch'])
    card = write_model_card(here / 'model').read_text('utf-8')
    assert f'{record["command"]}\n' in card and f'| {measures["segm_mAP"]:.3f} |' in card


def test_a_record_elsewhere_names_no_place_on_the_machine(here):
    assert main(['evaluate', '--model', str(here / 'model'), '--record', str(here / 'result.json'),
                 '--annotations', str(here / 'shapes' / 'annotations' / 'instances_val.json'),
                 '--images', str(here / 'shapes' / 'images' / 'val')]) == 0
    assert str(here) not in (here / 'result.json').read_text('utf-8')
    assert read_record(here / 'result.json')['command'] == (
        'modelscope-fastinst evaluate --model model --record result.json --annotations instances_val.json --images val')
    assert not (here / 'model' / 'evaluation.json').exists()


def test_data_without_splits_are_recorded_by_their_folder(here):
    image = ShapesDataset(1, size=64, num_classes=3).draw(0)[0]
    write_labelme(here / 'labelled', [Picture('a.png', image, [('ellipse', [4.0, 4.0, 40.0, 4.0, 40.0, 40.0])])])
    assert main(['evaluate', '--model', 'model', '--data', 'labelled', '--split', 'all', '--record', '--device',
                 'cpu']) == 0
    assert read_record(here / 'model' / 'evaluation.json')['data'] == 'labelled (all)'


@pytest.mark.parametrize(('words', 'expected'), [
    pytest.param(['a', '--model', 'models/mine'], 'a --model models/mine', id='as typed'),
    pytest.param(['--data', '/home' + '/me/my data/'], "--data 'my data'", id='a place'),
    pytest.param(['--data=/home' + '/me/coco'], '--data=coco', id='a place after an equals sign'),
    pytest.param(['--data', '~/coco', r'C:\me\coco'], '--data coco coco', id='other forms of a place'),
    pytest.param(['--set', 'train.lr=1e-4'], '--set train.lr=1e-4', id='a setting'),
])
def test_a_command_is_recorded_as_typed_without_places(words, expected):
    assert typed(words) == expected


@pytest.mark.parametrize('words', [
    pytest.param(['--data', 'shapes', '--record'], id='the embedded model'),
    pytest.param(['--data', 'shapes', '--model', 'me/nuclei', '--record'], id='a model of the hub'),
    pytest.param(['--data', 'shapes', '--model', 'model', '--record', 'nowhere/a.json'], id='no such folder'),
])
def test_a_record_needs_a_place_before_anything_is_measured(words, here, capsys):
    assert main(['evaluate', *words]) == 1
    assert capsys.readouterr().err.startswith('error: --record ')


@pytest.mark.parametrize(('text', 'message'), [
    pytest.param('[', 'not JSON', id='not JSON'),
    pytest.param('[]', 'is no record', id='not a record'),
    pytest.param('{}', 'command is None', id='empty'),
])
def test_a_file_that_is_no_record_is_refused(text, message, tmp_path):
    (tmp_path / 'a.json').write_text(text, 'utf-8')
    with pytest.raises(RecordError, match=message):
        read_record(tmp_path / 'a.json')
    with pytest.raises(RecordError, match='cannot be read'):
        read_record(tmp_path / 'b.json')
