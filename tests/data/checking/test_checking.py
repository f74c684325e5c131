"""Every fault of a data set is found where it was planted, and none where there is none."""
from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modelscope_fastinst.data.checking import KINDS, SEVERITIES, Report, check_data
from modelscope_fastinst.data.checking.findings import MAP_CODES
from modelscope_fastinst.data.formats import Source, find_splits, read_source
from tests.data.checking.planted import BOLT, FAULTS, HEIGHT, MODEL, WIDTH, Expected, Planted
from tests.data.formats.tool_files import polygon_pictures, write_labelme


@pytest.fixture
def data(tmp_path) -> Planted:
    return Planted(tmp_path / 'data')


def check(root: Path, **changes) -> Report:
    splits = find_splits(root)
    sources = {split or 'all': read_source(root, split) for split in splits or [None]}
    return check_data(sources, **{**MODEL, **changes}, name=str(root))


def found(report: Report, root: Path) -> list[Expected]:
    """The findings in the form of ``planted``."""
    return sorted((finding.code, finding.split, Path(os.path.relpath(finding.file, root)).as_posix(), finding.item)
                  for finding in report.findings)


def test_nothing_is_found_in_faultless_data(data):
    root = data.save()
    report = check(root)
    assert found(report, root) == [] and report.advice == []


@pytest.mark.parametrize('plant', FAULTS, ids=lambda plant: plant.__name__.replace('_', ' '))
def test_a_fault_is_found_and_nothing_else(plant, data):
    expected = plant(data)
    root = data.save()
    assert found(check(root), root) == [expected]


def test_all_faults_are_found_together(data):
    expected = sorted(plant(data) for plant in FAULTS)
    assert {code for code, *_ in expected} == set(KINDS) - MAP_CODES - {'orphan-annotation'}, \
        'a kind of fault is not planted'
    root = data.save()
    assert found(check(root), root) == expected


@pytest.mark.parametrize('other', [
    pytest.param({'iscrowd': 1}, id='a crowd region over an object'),
    pytest.param({'bbox': [4, 40, 20, 26]}, id='a box that is a few pixels off, as those of COCO are'),
    pytest.param({'bbox': None, 'area': None}, id='neither box nor area'),
])
def test_what_is_no_fault(other, data):
    box = BOLT if 'iscrowd' in other else (4, 40, 20, 20)
    data.object('train', data.image('train'), 1, box, **other)
    root = data.save()
    assert found(check(root), root) == []


def test_a_third_copy_of_an_outline_is_one_more_finding(data):
    image = data.image('train')
    items = [data.object('train', image, 1, BOLT) for _ in range(2)]
    root = data.save()
    assert found(check(root), root) == [('duplicate-object', 'train', data.file('train'), item) for item in items]


def test_a_tiny_object_is_measured_at_the_input_size(data):
    """7 x 7 pixels are less than a cell; at twice the size, they are 196 pixels."""
    data.object('train', data.image('train'), 2, (60, 40, 7, 7))
    root = data.save()
    assert found(check(root, min_size=2 * HEIGHT, max_size=2 * WIDTH), root) == []


def test_the_figures(data):
    data.image('train', [])
    data.object('train', 100, 1, (30, 4, 10, 10), iscrowd=1)
    root = data.save()
    train, val = check(root).splits
    assert (train.images, train.objects, train.crowds, train.empty) == (5, 8, 1, 1)
    assert (val.images, val.objects, val.crowds, val.empty) == (2, 4, 0, 0)
    assert {name: (one.objects, one.crowds, one.images) for name, one in train.classes.items()} == {
        'bolt': (4, 1, 4), 'nut': (4, 0, 4)}
    assert str(train.widths) == f'{WIDTH} / {WIDTH} / {WIDTH}'
    assert str(train.objects_per_image) == '0 / 2 / 2'
    assert train.coverage == pytest.approx((20 * 20 + 20 * 24) / (HEIGHT * WIDTH))
    assert train.object_sides.least == pytest.approx(20) and train.object_sides.greatest == pytest.approx(480 ** 0.5)


def test_what_the_data_ask_of_the_model(data):
    """Seven objects for six queries; objects of 49 pixels, which 64 / 49 times the area would make large enough."""
    data.image('train', [(1, (2 + 13 * number, 30, 7, 7)) for number in range(7)])
    advice = {one.setting: one.value for one in check(data.save()).advice}
    assert advice == {'model.decoder.num_queries': 50, 'postprocessor.max_instances': 50,
                      'preprocessor.min_size': 96, 'preprocessor.max_size': 128}


def test_a_picture_that_is_in_no_file(data):
    """What a table holds: pictures that are opened by number, one without a size, two the same, and one broken."""
    pictures = [np.full((HEIGHT, WIDTH, 3), value, np.uint8) for value in (1, 2, 2, 1)]

    def open_image(index: int) -> np.ndarray:
        if index == 3:
            raise ValueError('row 3: is damaged')
        return pictures[index]

    content = {'images': [{'id': 1 + index, 'file_name': f'row {index}', 'height': HEIGHT, 'width': WIDTH}
                          for index in range(4)], 'categories': [{'id': 1, 'name': 'bolt'}], 'annotations': []}
    content['images'][0]['height'] = None
    for index in range(4):
        content['annotations'].append({'id': 1 + index, 'image_id': 1 + index, 'category_id': 1, 'iscrowd': 0,
                                       'segmentation': [[4, 4, 24, 4, 24, 24, 4, 24]]})
    source = Source('table', 'my table', content, '', open_image=open_image,
                    image_origins={1 + index: f'my table: row {index}' for index in range(4)})
    report = check_data({'all': source}, **MODEL)
    assert [(finding.code, finding.item) for finding in report.findings] == [
        ('bad-record', 'row 0'), ('unreadable-image', 'row 3'), ('image-twice', 'row 2')]


def test_findings_name_the_files_of_the_user_s_own_format(tmp_path):
    """YOLO: an object that is there twice, an outline that is none, one out of the image, labels of no
    image, and an image that is none."""
    for name in ('images', 'labels'):
        (tmp_path / name).mkdir()
    rng = np.random.default_rng(0)
    for number in range(2):
        Image.fromarray(rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)).save(
            tmp_path / 'images' / f'{number}.png')
    square = '0 0.1 0.1 0.4 0.1 0.4 0.4 0.1 0.4'
    (tmp_path / 'labels' / '0.txt').write_text(f'{square}\n{square}\n0 0.1 0.1 0.3 0.3 0.5\n', 'utf-8')
    (tmp_path / 'labels' / '1.txt').write_text(f'{square}\n0 0.6 0.6 1.4 0.6 1.4 0.9\n', 'utf-8')
    (tmp_path / 'labels' / '2.txt').write_text(f'{square}\n', 'utf-8')
    (tmp_path / 'images' / '3.png').write_bytes(b'no picture')
    (tmp_path / 'labels' / '3.txt').write_text(f'{square}\n', 'utf-8')
    (tmp_path / 'labels' / 'classes.txt').write_text('bolt\n', 'utf-8')
    (tmp_path / 'data.yaml').write_text('names: [bolt]\n', 'utf-8')
    assert found(check(tmp_path), tmp_path) == [
        ('bad-outline', 'all', 'labels/0.txt', 'line 3'), ('duplicate-object', 'all', 'labels/0.txt', 'line 2'),
        ('orphan-annotation', 'all', 'labels/2.txt', 'file'), ('outside-image', 'all', 'labels/1.txt', 'line 2'),
        ('unreadable-image', 'all', 'images/3.png', 'image')]


@pytest.mark.parametrize(('change', 'code'), [
    pytest.param(lambda shape: shape.update(points=shape['points'][:2]), 'bad-outline', id='two points'),
    pytest.param(lambda shape: shape.update(shape_type='line'), 'bad-outline', id='a line'),
    pytest.param(lambda shape: shape['points'][0].__setitem__(0, 5000), 'outside-image', id='outside'),
    pytest.param(lambda shape: shape.update(label=['no such image: its outline is damaged']), 'bad-record',
                 id='a label that sounds like other faults'),
])
def test_the_kind_of_a_fault_that_the_reader_of_a_format_meets(change, code, tmp_path):
    write_labelme(tmp_path, polygon_pictures(2))
    file = sorted(tmp_path.glob('*.json'))[0]
    content = json.loads(file.read_text('utf-8'))
    change(content['shapes'][0])
    file.write_text(json.dumps(content), 'utf-8')
    found = [one for one in check_data({'all': read_source(tmp_path)}, **MODEL).findings if one.severity == 'error']
    assert [(one.code, one.file, one.item) for one in found] == [(code, str(file), 'shape 0')]


@pytest.mark.parametrize(('change', 'code'), [
    pytest.param(Path.unlink, 'missing-image', id='gone'),
    pytest.param(lambda file: file.write_bytes(b''), 'unreadable-image', id='no bytes'),
    pytest.param(lambda file: Image.new('RGB', (7, 5)).save(file), 'size-mismatch', id='scaled'),
])
def test_the_kind_of_a_fault_of_a_picture(change, code, tmp_path):
    write_labelme(tmp_path, polygon_pictures(2))
    file = sorted(path for path in tmp_path.iterdir() if path.suffix != '.json')[0]
    change(file)
    found = [one for one in check_data({'all': read_source(tmp_path)}, **MODEL).findings if one.severity == 'error']
    assert [one.code for one in found] == [code]


def test_no_split_is_an_error():
    with pytest.raises(ValueError, match='no split'):
        check_data({})


def test_every_kind_has_a_severity_and_a_mend():
    assert {kind.severity for kind in KINDS.values()} == set(SEVERITIES)
    assert all(kind.title and kind.mend for kind in KINDS.values())
