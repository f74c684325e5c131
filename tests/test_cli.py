"""The command line, from the typed words to the files and the exit status."""
from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modelscope_fastinst.cli import main
from modelscope_fastinst.cli.predict import count_by_class, find_pictures, output_names
from modelscope_fastinst.cli.run import CommandError
from modelscope_fastinst.cli.train import parse_settings
from modelscope_fastinst.data.microscope import draw_nuclei
from tests.convert_files import error_of
from tests.data.formats.tool_files import polygon_pictures, write_labelme
from tests.plugin.hub_client import client_of
from tests.plugin.loopback_hub import serve
from tests.plugin.model_folders import scene, write_stock_folder


@pytest.fixture(scope='module')
def model(tmp_path_factory) -> str:
    """A small model folder with golden weights, which finds something in the golden scene."""
    return str(write_stock_folder(tmp_path_factory.mktemp('cli') / 'model'))


@pytest.fixture
def pictures(tmp_path) -> Path:
    """A folder with one good picture."""
    folder = tmp_path / 'pictures'
    folder.mkdir()
    Image.fromarray(scene()[:, :, ::-1]).save(folder / 'scene.png')
    return folder


@pytest.fixture
def coco(tmp_path) -> Path:
    """Two pictures in COCO's layout, one to train on, one to measure on."""
    from modelscope_fastinst.results.rle import encode
    root = tmp_path / 'coco'
    for split, seed in (('train', 0), ('val', 1)):
        drawn = draw_nuclei(64, 64, count=3, seed=seed)
        folder = root / f'{split}2017'
        folder.mkdir(parents=True)
        Image.fromarray(drawn.image).save(folder / '1.png')
        annotations = []
        for number, (mask, rle) in enumerate(zip(drawn.masks, encode(drawn.masks), strict=True), 1):
            rows, columns = np.nonzero(mask)
            box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            annotations.append({'id': number, 'image_id': 1, 'category_id': 1, 'segmentation': rle, 'iscrowd': 0,
                                'area': int(mask.sum()), 'bbox': [int(side) for side in box]})
        (root / 'annotations').mkdir(exist_ok=True)
        (root / 'annotations' / f'instances_{split}2017.json').write_text(json.dumps({
            'images': [{'id': 1, 'file_name': '1.png', 'height': 64, 'width': 64}], 'annotations': annotations,
            'categories': [{'id': 1, 'name': 'nucleus'}]}), 'utf-8')
    return root


# predict

def test_predict_writes_an_outlined_picture_and_the_instances(model, pictures, tmp_path, capsys):
    output = tmp_path / 'new' / 'out'
    before = (pictures / 'scene.png').read_bytes()
    status = main(['predict', str(pictures), '--model', model, '--output', str(output), '--json',
                   '--score-thr', '0.1', '--max-instances', '3'])
    assert status == 0
    assert sorted(file.name for file in output.iterdir()) == ['scene.json', 'scene.png']
    assert (pictures / 'scene.png').read_bytes() == before
    drawn = np.asarray(Image.open(output / 'scene.png'))
    assert drawn.shape == scene().shape and (drawn != scene()[:, :, ::-1]).any()
    assert f'-> {output / "scene.png"}' in capsys.readouterr().out

    from modelscope.pipelines import pipeline
    expected = pipeline('image-segmentation', model=model, device='cpu')(
        str(pictures / 'scene.png'), score_thr=0.1, max_instances=3, mask_format='rle')
    record = json.loads((output / 'scene.json').read_text('utf-8'))
    assert (record['height'], record['width']) == scene().shape[:2]
    assert 0 < len(record['instances']) <= 3
    for name, column in (('score', 'scores'), ('label', 'labels'), ('box', 'boxes'), ('mask', 'masks')):
        assert [instance[name] for instance in record['instances']] == expected[column]


def test_predict_goes_on_after_a_broken_picture_and_fails_at_the_end(model, pictures, tmp_path, capsys):
    (pictures / 'a broken one.png').write_bytes(b'\x89PNG no more of it')
    (pictures / 'empty.jpg').write_bytes(b'')
    output = tmp_path / 'out'
    assert main(['predict', str(pictures), '--model', model, '--output', str(output)]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert 'a broken one.png' in errors[0] and 'empty.jpg' in errors[1]
    assert errors[2].startswith('error: 2 of 3 pictures')
    assert [file.name for file in output.iterdir()] == ['scene.png']


def test_predict_with_nothing_found_writes_the_picture_and_an_empty_list(model, pictures, tmp_path, capsys):
    output = tmp_path / 'out'
    assert main(['predict', str(pictures), '--model', model, '--output', str(output), '--json',
                 '--score-thr', '1']) == 0
    assert 'scene.png: nothing in ' in capsys.readouterr().out
    assert json.loads((output / 'scene.json').read_text('utf-8'))['instances'] == []
    np.testing.assert_array_equal(np.asarray(Image.open(output / 'scene.png')), scene()[:, :, ::-1])


def test_predict_refuses_to_write_among_its_inputs(model, pictures, capsys):
    assert main(['predict', str(pictures), '--model', model, '--output', str(pictures)]) == 1
    assert 'is the folder of the inputs' in error_of(capsys)
    assert [file.name for file in pictures.iterdir()] == ['scene.png']


@pytest.mark.parametrize(('words', 'message'), [
    pytest.param(['missing.png'], 'missing.png: no such file or folder', id='no such picture'),
    pytest.param(['{pictures}', '--output', '{pictures}/scene.png'], 'is a file; give a folder', id='output is a file'),
    pytest.param(['{pictures}', '--font', '{pictures}/no.ttf'], 'no.ttf: no such file', id='no such font'),
    pytest.param(['{pictures}', '--model', '{model}', '--font', '{pictures}/scene.png'],
                 'scene.png: is no font file', id='a font that is none'),
    pytest.param(['{pictures}', '--model', '{pictures}/nowhere'], 'is no model folder', id='no such model'),
    pytest.param(['{pictures}', '--model', '{pictures}'], 'configuration.json', id='a folder that is no model'),
    pytest.param(['{pictures}', '--model', '{model}', '--classes', 'unicorn'], 'unicorn', id='no such class'),
])
def test_predict_says_in_one_line_what_is_wrong(words, message, model, pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(['predict', *(word.format(pictures=pictures, model=model) for word in words)]) == 1
    assert message in error_of(capsys)


def test_debug_shows_where_an_error_comes_from():
    with pytest.raises(CommandError, match='no such file or folder'):
        main(['predict', 'missing.png', '--debug'])


def test_pictures_come_in_order_and_once(tmp_path):
    for name in ('b.JPG', 'a.png', 'notes.txt', 'c.tiff'):
        (tmp_path / name).write_bytes(b'')
    (tmp_path / 'd.png').mkdir()
    named = tmp_path / 'notes.txt'
    found = find_pictures([str(named), str(tmp_path), str(tmp_path / '.' / 'a.png')])
    assert [file.name for file in found] == ['notes.txt', 'a.png', 'b.JPG', 'c.tiff']


def test_a_folder_without_pictures_is_an_error(tmp_path):
    with pytest.raises(CommandError, match='no pictures in this folder'):
        find_pictures([str(tmp_path)])


@pytest.mark.parametrize(('inputs', 'expected'), [
    pytest.param(['a/x.jpg', 'b/x.jpg'], ['x.png', 'x-2.png'], id='equal names'),
    pytest.param(['a/x.jpg', 'a/x.png'], ['x.png', 'x-2.png'], id='equal stems'),
    pytest.param(['a/x.jpg', 'b/X.jpg'], ['x.png', 'X-2.png'], id='names equal but for case'),
    pytest.param(['out/x.png'], ['x-2.png'], id='an input in the output folder'),
    pytest.param(['out/x.png', 'out/x-2.png'], ['x-3.png', 'x-2-2.png'], id='and its number taken too'),
])
def test_no_output_overwrites_an_input_or_another_output(inputs, expected, tmp_path):
    names = output_names([tmp_path / name for name in inputs], tmp_path / 'out')
    assert [file.name for file in names] == expected


def test_classes_are_counted_most_frequent_first():
    assert count_by_class(['fig', 'date', 'date']) == '2 date, 1 fig'


# train and evaluate

TRAINING = ['--device', 'cpu', '--set', 'train.dataloader.batch_size_per_gpu=1',
            '--set', 'train.dataloader.workers_per_gpu=0',
            '--set', 'preprocessor={"type": "fastinst-preprocessor", "min_size": 64, "max_size": 96, '
                     '"train": {"min_sizes": [64], "max_size": 96}}']


def test_train_resume_and_evaluate(model, coco, tmp_path, capsys):
    work_dir = tmp_path / 'work'
    words = ['train', '--model', model, '--data', str(coco), '--work-dir', str(work_dir), *TRAINING]
    assert main([*words, '--set', 'train.max_epochs=1']) == 0
    assert f'the trained model: {work_dir / "output"}' in capsys.readouterr().out
    assert main([*words, '--set', 'train.max_epochs=2', '--resume']) == 0
    log = [json.loads(line) for line in (work_dir / 'log.jsonl').read_text('utf-8').splitlines()]
    assert max(entry.get('epoch', 0) for entry in log) == 2
    capsys.readouterr()

    assert main(['evaluate', '--model', str(work_dir / 'output'), '--data', str(coco), '--json',
                 '--device', 'cpu']) == 0
    values = json.loads(capsys.readouterr().out)
    assert -1 <= values['segm_mAP'] <= 1
    assert main(['evaluate', '--model', str(work_dir / 'output'), '--device', 'cpu', '--annotations',
                 str(coco / 'annotations' / 'instances_val2017.json'), '--images', str(coco / 'val2017')]) == 0
    shown = capsys.readouterr().out
    assert f'segm_mAP {values["segm_mAP"]:.4f}' in shown
    assert f'{values["segm_AP/nucleus"]:.4f}' in next(line for line in shown.splitlines() if 'nucleus' in line)


def test_train_and_evaluate_by_the_id_of_a_model(model, coco, tmp_path, capsys):
    stored = tmp_path / 'hub' / 'owner'
    shutil.copytree(model, stored / 'start')
    evaluation = ['evaluate', '--data', str(coco), '--json', '--device', 'cpu', '--model']
    with serve(tmp_path / 'hub') as hub, client_of(hub, tmp_path / 'cache'):
        assert main(['train', '--model', 'owner/start', '--data', str(coco), '--work-dir', str(tmp_path / 'work'),
                     '--set', 'train.max_epochs=1', *TRAINING]) == 0
        shutil.copytree(tmp_path / 'work' / 'output', stored / 'trained')
        capsys.readouterr()
        assert main([*evaluation, 'owner/trained']) == 0
        by_id = json.loads(capsys.readouterr().out)
        hub.requests.clear()
        assert main([*evaluation, 'owner/trained']) == 0
        assert hub.requests == []
        capsys.readouterr()
    assert main([*evaluation, str(stored / 'trained')]) == 0
    assert by_id == json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(('words', 'message'), [
    pytest.param(['train'], 'give --config', id='no recipe'),
    pytest.param(['train', '--config', 'missing.json'], 'missing.json: no such configuration file',
                 id='no such recipe'),
    pytest.param(['train', '--model', '{model}', '--data', 'missing'], 'missing: no such folder', id='no such data'),
    pytest.param(['train', '--model', '{model}'], 'no training set', id='no data at all'),
    pytest.param(['train', '--model', '{model}', '--train-images', '.'], '--train-annotations is missing',
                 id='pictures without annotations'),
    pytest.param(['train', '--model', '{model}', '--data', '.', '--train-images', '.', '--train-annotations',
                  '{model}/configuration.json'], 'not both', id='two sources'),
    pytest.param(['train', '--model', '{model}', '--skip-bad'], '--skip-bad is for --data', id='nothing to skip'),
    pytest.param(['train', '--model', '{model}', '--set', 'train.max_epochs'], 'must look like',
                 id='a setting without a value'),
    pytest.param(['train', '--model', '{model}', '--data', '{coco}', '--set', 'train.max_epoch=3'], 'max_epoch',
                 id='a misspelt setting'),
    pytest.param(['evaluate', '--model', '{model}'], 'give the data', id='evaluation without data'),
    pytest.param(['evaluate', '--model', '{model}', '--data', '{coco}', '--annotations', 'x', '--images', 'y'],
                 '--annotations x: no such file', id='evaluation of a missing file'),
    pytest.param(['evaluate', '--model', '{model}', '--data', '{coco}', '--split', 'test'], 'test',
                 id='no such split'),
])
def test_train_and_evaluate_say_in_one_line_what_is_wrong(words, message, model, coco, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([word.format(model=model, coco=coco) for word in words]) == 1
    assert message in error_of(capsys)


def test_bad_items_of_a_training_are_listed_or_left_out(model, tmp_path, capsys):
    write_labelme(tmp_path / 'photos', polygon_pictures(3))
    file = min((tmp_path / 'photos').glob('*.json'))
    content = json.loads(file.read_text('utf-8'))
    del content['shapes'][0]['points'][2:]
    file.write_text(json.dumps(content), 'utf-8')
    words = ['train', '--model', model, '--data', str(tmp_path / 'photos'), '--val-fraction', '0', '--device', 'cpu',
             '--work-dir', str(tmp_path / 'work'), '--set', 'train.max_iters=1', '--set', 'preprocessor.min_size=32',
             '--set', 'train.dataloader.workers_per_gpu=0']
    assert main(words) == 1
    first, item, last = capsys.readouterr().err.splitlines()[-3:]
    assert first.endswith('1 bad item:') and '--skip-bad' in last
    assert item == f'  {file}: shape 0: polygon has 2 points, needs at least 3'
    assert main([*words, '--skip-bad']) == 0
    assert (tmp_path / 'work' / 'output' / 'configuration.json').is_file()


def test_settings_are_json_or_else_text():
    assert parse_settings(['a.b=3', 'c=[1, 2]', 'd=null', 'e=AdamW', 'f=', 'g=x=y']) == {
        'a.b': 3, 'c': [1, 2], 'd': None, 'e': 'AdamW', 'f': '', 'g': 'x=y'}


# demo and info

def test_demo_needs_no_file_and_finds_most_of_what_it_drew(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(['demo', '--output', 'out', '--device', 'cpu']) == 0
    assert sorted(file.name for file in (tmp_path / 'out').iterdir()) == ['nuclei.png', 'nuclei_outlined.png']
    drawn, found = (line for line in capsys.readouterr().out.splitlines() if 'nucle' in line)
    counts = [next(int(word) for word in line.split() if word.isdigit()) for line in (drawn, found)]
    assert counts[1] >= 0.7 * counts[0]


def test_info_tells_about_a_model_folder(model, capsys):
    assert main(['info', model]) == 0
    rows = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines() if line)
    assert rows['model'] == model
    assert rows['weights'].startswith('pytorch_model.pt')
    assert rows['classes'].startswith('10')
    assert float(rows['parameters'].split()[0]) > 0
    assert rows['modelscope'].startswith('1.40')
    assert 0 < float(rows['GFLOPs'].split()[0]) < 10
    assert rows['network'] == 'input           short side 640 pixels, long side at most 853 pixels'
    assert rows['instances'] == 'at most 100' and rows['score'].endswith(' 0.5')


def test_the_embedded_model_has_a_name(tmp_path, monkeypatch, model, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(['info', 'embedded']) == 0
    assert 'nucleus' in capsys.readouterr().out
    shutil.copytree(model, 'embedded')   # a folder of that name wins
    assert main(['info', 'embedded']) == 0
    assert 'nucleus' not in capsys.readouterr().out


def test_info_tells_about_a_configuration_file(model, capsys):
    assert main(['info', f'{model}/configuration.json']) == 0
    assert 'none: this is a configuration' in capsys.readouterr().out


@pytest.mark.parametrize(('content', 'message'), [
    pytest.param('{"framework":', 'not JSON', id='cut off'),
    pytest.param('{}', 'model.type', id='no model'),
    pytest.param('{"framework": "pytorch", "task": "t", "pipeline": {"type": "p"}, "model": {"type": "other"}}',
                 'not "fastinst"', id='another model'),
])
def test_info_says_what_is_wrong_with_a_configuration(content, message, tmp_path, capsys):
    file = tmp_path / 'configuration.json'
    file.write_text(content, 'utf-8')
    assert main(['info', str(file)]) == 1
    assert message in error_of(capsys) and file.exists()


# the words themselves

@pytest.mark.parametrize('words', [
    pytest.param([], id='no command'),
    pytest.param(['fly'], id='no such command'),
    pytest.param(['predict'], id='no picture'),
    pytest.param(['predict', 'x.png', '--score-thr', '1.5'], id='a score above 1'),
    pytest.param(['predict', 'x.png', '--score-thr', 'nan'], id='a score that is no number'),
    pytest.param(['predict', 'x.png', '--max-instances', '0'], id='no instances'),
    pytest.param(['predict', 'x.png', '--classes', 'a,,b'], id='a class without a name'),
    pytest.param(['predict', 'x.png', '--color-by', 'mood'], id='no such colouring'),
    pytest.param(['predict', 'x.png', '--scale', '0'], id='an enlargement to nothing'),
])
def test_a_line_that_makes_no_sense_ends_with_status_2(words, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert 'usage: modelscope-fastinst' in capsys.readouterr().err


@pytest.mark.parametrize('command', ['predict', 'train', 'evaluate', 'demo', 'info', 'convert'])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, '--help'])
    assert end.value.code == 0
    assert f'modelscope-fastinst {command}' in capsys.readouterr().out


def test_the_parser_imports_no_command():
    program = ('import sys, modelscope_fastinst; before = set(sys.modules)\n'
               'from modelscope_fastinst.cli import build_parser; build_parser()\n'
               'print(sorted(name for name in set(sys.modules) - before if name.startswith("modelscope")))')
    shown = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=True).stdout
    loaded = [name.removeprefix('modelscope_fastinst.') for name in ast.literal_eval(shown)]
    assert [name for name in loaded if not name.startswith('cli.arguments')] == ['cli', 'cli.run', 'structures']


@pytest.mark.parametrize('start', [
    pytest.param(['-m', 'modelscope_fastinst'], id='python -m'),
    pytest.param(['-c', 'import sys; from modelscope_hub.cli.main import run_cmd; sys.exit(run_cmd(sys.argv[1:]))',
                  'fastinst'], id='modelscope fastinst'),
])
def test_other_ways_to_start_it(start, tmp_path):
    good = subprocess.run([sys.executable, *start, 'info', '--help'], capture_output=True, text=True, cwd=tmp_path)
    assert good.returncode == 0, good.stderr
    assert 'MODEL_OR_CONFIG' in good.stdout
    bad = subprocess.run([sys.executable, *start, 'info', 'missing'], capture_output=True, text=True, cwd=tmp_path)
    assert bad.returncode == 1
    assert 'missing: is no model folder' in bad.stderr and 'Traceback' not in bad.stderr
