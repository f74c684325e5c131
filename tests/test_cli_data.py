"""``data check`` and ``data convert`` from the typed words to the files and the exit status."""
from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modelscope_fastinst.cli import main
from modelscope_fastinst.data.checking import KINDS
from tests.data.checking import planted
from tests.data.checking.planted import BOLT, MODEL, Planted

SIZES = [f'--{key.replace("_", "-")}={value}' for key, value in MODEL.items()]


@pytest.fixture
def data(tmp_path) -> Planted:
    return Planted(tmp_path / 'data')


@pytest.fixture
def check(tmp_path, capsys):
    """Runs ``data check`` and returns its exit status and what it printed."""
    def run(*words: str, samples: int = 0) -> tuple[int, str]:
        status = main(['data', 'check', *SIZES, *words, '--samples', str(samples), '--output', str(tmp_path / 'out')])
        captured = capsys.readouterr()
        return status, captured.out + captured.err
    return run


# data check

@pytest.mark.parametrize(('plant', 'status', 'strict'), [
    pytest.param(None, 0, 0, id='faultless'),
    pytest.param(planted.seven_by_seven, 0, 0, id='a note'),
    pytest.param(planted.outlined_twice, 0, 1, id='a warning'),
    pytest.param(planted.leaked, 1, 1, id='an error'),
])
def test_the_exit_status(plant, status, strict, data, check):
    if plant is not None:
        plant(data)
    root = str(data.save())
    assert check(root)[0] == status
    assert check(root, '--strict')[0] == strict


def test_the_report_names_kind_file_item_and_mend(data, check):
    code, _, file, item = planted.outlined_twice(data)
    _, text = check(str(data.save()))
    assert f'warning: {KINDS[code].title} [{code}]: 1\n' in text
    assert f'  train: {file}: {item} (104.png): bolt: the same outline as annotation 1008 (IoU 1.00)\n' in text
    assert f'  -> {KINDS[code].mend}\n' in text
    assert text.endswith('1 warning\n')
    assert 'train: 5 images, 10 objects\n' in text and re.search('^bolt +6 +5 +2 +2$', text, re.MULTILINE)


def test_faultless_data_are_called_so(data, check):
    assert check(str(data.save()))[1].endswith('nothing is wrong\n')


def test_of_a_kind_the_first_twenty_are_printed_and_all_are_in_the_json(data, check, tmp_path):
    image = data.image('train')
    items = [data.object('train', image, 1, (*BOLT[:2], 20, 20)) for _ in range(23)]
    file = tmp_path / 'found.json'
    _, text = check(str(data.save()), '--json', str(file), '--num-queries', '30')
    assert text.count('the same outline') == 20 and '  and 3 more\n' in text
    record = json.loads(file.read_text('utf-8'))
    assert [finding['item'] for finding in record['findings'] if finding['code'] == 'duplicate-object'] == items
    assert record['codes']['duplicate-object'] == 23 and record['counts']['warning'] == 23
    assert record['findings'][0] == {
        'severity': 'warning', 'code': 'duplicate-object', 'split': 'train',
        'file': str(data.root / data.file('train')), 'item': items[0], 'image': '104.png',
        'message': 'bolt: the same outline as annotation 1008 (IoU 1.00)', 'mend': KINDS['duplicate-object'].mend}
    assert record['splits'][0]['classes']['nut'] == {'objects': 4, 'crowds': 0, 'images': 4}


def test_annotation_files_instead_of_a_folder(data, check):
    planted.leaked(data)
    root = data.save()
    words = [f'--{split}-{what}={root / place}' for split in ('train', 'val')
             for what, place in (('annotations', data.file(split)), ('images', f'images/{split}'))]
    status, text = check(*words)
    assert status == 1 and '[leakage]: 1\n' in text
    status, text = check(*words[:2])
    assert status == 0 and text.endswith('nothing is wrong\n')


def test_a_share_set_aside_for_validation(data, check):
    root = data.save()
    (root / data.file('val')).unlink()
    _, text = check(str(root), '--val-fraction', '0.25')
    assert 'train: 3 images, 6 objects\n' in text and 'val: 1 image, 2 objects\n' in text


def test_only_some_classes(data, check):
    _, text = check(str(data.save()), '--classes', 'nut')
    assert 'train: 4 images, 4 objects\n' in text and 'bolt' not in text


def test_the_model_says_what_is_too_much(data, tmp_path, capsys):
    """The embedded model's queries are known from its configuration; the options win over them."""
    import modelscope_fastinst
    configuration = Path(modelscope_fastinst.default_model()) / 'configuration.json'
    queries = json.loads(configuration.read_text('utf-8'))['model']['decoder']['num_queries']
    root = str(data.save())
    for words, expected in (([], f'{queries} queries'), (['--num-queries', '1'], '1 queries')):
        main(['data', 'check', root, '--samples', '0', '--config', str(configuration), *words])
        text = capsys.readouterr().out
        assert f'a model with {expected}' in text
        assert ('[too-many-objects]: 6' in text) == bool(words)


@pytest.mark.parametrize(('words', 'message'), [
    pytest.param([], 'give ROOT', id='nothing to check'),
    pytest.param(['{root}', '--val-images', '{root}'], 'give ROOT or --val-images, not both', id='two sources'),
    pytest.param(['{root}/nowhere'], 'nowhere: no such folder', id='no such folder'),
    pytest.param(['{root}', '--json', '{root}/no/where.json'], 'there is no folder', id='nowhere to write to'),
    pytest.param(['{root}', '--val-fraction', '1'], '--val-fraction 1: must be', id='everything set aside'),
    pytest.param(['{root}', '--min-size', '200'], '--min-size 200 is more than', id='sizes the wrong way round'),
    pytest.param(['--train-annotations', '{root}/annotations/instances_train.json'], '--train-images is missing',
                 id='no images'),
    pytest.param(['{root}/images'], 'no data set of a known format', id='no annotations'),
    pytest.param(['{root}/annotations/instances_train.json'], 'is a file; give the folder', id='a file'),
    pytest.param(['{root}', '--font', '{root}/no.ttf'], 'no such file', id='no font'),
])
def test_refusals(words, message, data, check):
    root = data.save()
    status, text = check(*(word.format(root=root) for word in words))
    assert status == 1 and text.startswith('error: ') and text.count('\n') == 1
    assert message in text


def test_the_sheets_show_every_image_with_its_outlines(data, check, tmp_path):
    data.image('val', picture=Image.new('RGB', (80, 60)))
    data.content['val']['images'] = data.content['val']['images'][-1:]
    data.content['val']['annotations'] = data.content['val']['annotations'][-1:]
    planted.file_missing(data)
    status, text = check(str(data.save()), samples=24)
    assert status == 1
    for split in ('train', 'val'):
        assert f'samples: {tmp_path / "out" / f"samples_{split}.png"}\n' in text
    train, val = (np.asarray(Image.open(tmp_path / 'out' / f'samples_{split}.png')) for split in ('train', 'val'))
    assert train.shape[1] > val.shape[1] == 400 + 2 * 12 and val.shape[0] == 300 + 22 + 2 * 12
    picture = val[12 + 22:-12, 12:-12].astype(int)
    inside, outside = picture[100, 60], picture[200, 300]
    assert inside.max() > 40 and outside.max() == 0      # the bolt, 4..24 of 80, is filled; the black is as it was


def test_without_samples_nothing_is_written(data, check, tmp_path):
    check(str(data.save()))
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('start', [
    pytest.param(['-m', 'modelscope_fastinst'], id='python -m'),
    pytest.param(['-c', 'import sys; from modelscope_hub.cli.main import run_cmd; sys.exit(run_cmd(sys.argv[1:]))',
                  'fastinst'], id='modelscope fastinst'),
])
def test_other_ways_to_start_it(start, tmp_path):
    done = subprocess.run([sys.executable, *start, 'data', 'check', 'missing'], capture_output=True, text=True,
                          cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert 'missing' in done.stderr and 'Traceback' not in done.stderr


@pytest.mark.parametrize('words', [['data'], ['data', 'check'], ['data', 'convert']], ids=' '.join)
def test_help(words, capsys):
    with pytest.raises(SystemExit) as end:
        main([*words, '--help'])
    assert end.value.code == 0
    assert f'modelscope-fastinst {" ".join(words)}' in capsys.readouterr().out


# data convert

def yolo(root: Path) -> Path:
    """Four images with a bolt each, in another format; the outline of the last one has a point too few."""
    for name in ('images', 'labels'):
        (root / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(4):
        Image.fromarray(rng.integers(0, 255, (20, 40, 3), np.uint8)).save(root / 'images' / f'{number}.png')
        (root / 'labels' / f'{number}.txt').write_text('0 0.1 0.1 0.4 0.1 0.4 0.4 0.1 0.4\n', 'utf-8')
    with open(root / 'labels' / '3.txt', 'a', encoding='utf-8') as file:
        file.write('0 0.1 0.1 0.4 0.4\n')
    (root / 'data.yaml').write_text('names: [bolt]\n', 'utf-8')
    return root


def convert(capsys, *words) -> tuple[int, str]:
    status = main(['data', 'convert', *map(str, words)])
    captured = capsys.readouterr()
    return status, captured.out + captured.err


def test_convert_writes_coco_and_says_what_was_left_out(tmp_path, capsys):
    root, target = yolo(tmp_path / 'yolo'), tmp_path / 'coco'
    status, text = convert(capsys, root, target, '--skip-bad')
    assert status == 0
    assert 'train: 4 images, 4 objects of 1 of 1 classes' in text
    assert 'left out: 1\n' in text and f'{root / "labels" / "3.txt"}: line 2: ' in text
    assert sorted(path.name for path in target.iterdir()) == ['annotations', 'images']
    content = json.loads((target / 'annotations' / 'instances_train.json').read_text('utf-8'))
    assert content['annotations'][0]['segmentation'] == [[4, 2, 16, 2, 16, 8, 4, 8]]
    for number in range(4):
        assert (target / 'images' / 'train' / f'{number}.png').read_bytes() == \
            (root / 'images' / f'{number}.png').read_bytes()
    assert main(['data', 'check', str(target), '--samples', '0', '--strict']) == 0


def test_convert_sets_a_share_aside(tmp_path, capsys):
    status, text = convert(capsys, yolo(tmp_path / 'yolo'), tmp_path / 'coco', '--skip-bad', '--val-fraction', '0.25')
    assert status == 0 and 'train: 3 images' in text and 'val: 1 images' in text
    names = {split: {path.name for path in (tmp_path / 'coco' / 'images' / split).iterdir()}
             for split in ('train', 'val')}
    assert len(names['train']) == 3 and names['train'] | names['val'] == {f'{number}.png' for number in range(4)}


def test_convert_takes_a_split_and_classes_alone(data, tmp_path, capsys):
    status, _ = convert(capsys, data.save(), tmp_path / 'coco', '--split', 'val', '--classes', 'nut')
    assert status == 0
    assert [path.name for path in (tmp_path / 'coco' / 'annotations').iterdir()] == ['instances_val.json']
    content = json.loads((tmp_path / 'coco' / 'annotations' / 'instances_val.json').read_text('utf-8'))
    assert [one['name'] for one in content['categories']] == ['nut'] and len(content['annotations']) == 2


@pytest.mark.parametrize(('words', 'message'), [
    pytest.param(['{yolo}', '{new}'], 'leave them out with --skip-bad', id='bad items'),
    pytest.param(['{missing}', '{new}'], 'no such image file (1 in all)', id='a missing image'),
    pytest.param(['{yolo}', '{new}', '--split', 'test', '--skip-bad'], "no split 'test'", id='no such split'),
    pytest.param(['{yolo}', '{full}', '--skip-bad'], 'is not empty', id='a folder with something in it'),
    pytest.param(['{yolo}', '{full}', '--skip-bad', '--overwrite'], 'is no converted data set', id='not ours'),
    pytest.param(['{yolo}', '{yolo}', '--skip-bad', '--overwrite'], 'is or holds', id='onto itself'),
    pytest.param(['{yolo}', '{yolo}/coco', '--skip-bad'], 'lies in the folder of the data', id='into itself'),
    pytest.param(['{yolo}', '{yolo}/..', '--skip-bad', '--overwrite'], 'is or holds', id='onto what holds it'),
])
def test_convert_refuses_and_leaves_everything_as_it_was(words, message, data, tmp_path, capsys):
    places = {'yolo': yolo(tmp_path / 'yolo'), 'new': tmp_path / 'new', 'full': tmp_path / 'full'}
    planted.file_missing(data)
    places['missing'] = data.save()
    places['full'].mkdir()
    (places['full'] / 'notes.txt').write_text('keep me', 'utf-8')
    before = sorted(tmp_path.rglob('*'))
    status, text = convert(capsys, *(word.format(**places) for word in words))
    assert status == 1 and message in text and text.startswith('error: ')
    assert sorted(tmp_path.rglob('*')) == before


def test_bad_items_have_a_line_each(tmp_path, capsys):
    status, text = convert(capsys, yolo(tmp_path / 'yolo'), tmp_path / 'new')
    first, *items, last = text.splitlines()
    assert status == 1 and re.fullmatch(r'error: .*: \d+ bad items?:', first) and '--skip-bad' in last
    assert len(items) == int(first.split()[-3]) and all(item.startswith('  ') for item in items)


def test_convert_replaces_a_converted_data_set(data, tmp_path, capsys):
    root, target = data.save(), tmp_path / 'coco'
    assert convert(capsys, yolo(tmp_path / 'yolo'), target, '--skip-bad')[0] == 0
    assert convert(capsys, root, target)[0] == 1
    assert convert(capsys, root, target, '--overwrite')[0] == 0
    assert sorted(path.name for path in (target / 'annotations').iterdir()) == [
        'instances_train.json', 'instances_val.json']
    assert sorted(path.name for path in (target / 'images' / 'val').iterdir()) == ['100.png', '101.png']


def test_convert_leaves_out_images_that_are_not_there(data, tmp_path, capsys):
    *_, file, _ = planted.file_missing(data)
    status, text = convert(capsys, data.save(), tmp_path / 'coco', '--skip-bad')
    assert status == 0
    assert 'train: 4 images, 8 objects' in text and f'left out: 1\n  {data.root / file}: no such image file\n' in text


def test_a_conversion_that_fails_half_way_leaves_nothing_behind(data, tmp_path, capsys):
    """The validation split turns out to be bad when the training split is written already."""
    *_, item = planted.out_of_image(data)
    status, text = convert(capsys, data.save(), tmp_path / 'new' / 'coco')
    assert status == 1 and f'{item}: polygon has a point' in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ['data']
