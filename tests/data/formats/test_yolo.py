"""YOLO segmentation labels: where they lie, and rows that are wrong."""
from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from modelscope_fastinst.data.coco import CocoInstances
from modelscope_fastinst.data.formats import find_splits, read_source, recognise
from modelscope_fastinst.data.formats.yolo import _object
from modelscope_fastinst.data.records import DatasetError
from tests.data.formats.tool_files import expected, polygon_pictures, truth, write_yolo

PICTURES = polygon_pictures(4)
TRIANGLE = '0.1 0.1 0.6 0.1 0.6 0.7'


@pytest.mark.parametrize('split_first, yaml', [
    pytest.param(False, 'train: images/train\nval: images/val', id='Ultralytics'),
    pytest.param(False, 'path: .\ntrain: [images/train]\nval: images/val\nnc: 2', id='path, a list, the number'),
    pytest.param(True, 'train: ../train/images\nval: ../val/images\ntest: ../test/images', id='Roboflow'),
    pytest.param(True, 'path: /nowhere/datasets/nuts\ntrain: train/images\nval: val/images', id='path of elsewhere'),
    pytest.param(False, r'train: .\images\train' + '\nval: images/val', id='Windows'),
    pytest.param(False, '', id='names only'),
    pytest.param(True, '', id='names only, split first'),
    pytest.param(False, 'train: train.txt\nval: val.txt', id='lists of images'),
])
def test_layouts(tmp_path, split_first, yaml):
    for split, part in (('train', PICTURES[:3]), ('val', PICTURES[3:])):
        write_yolo(tmp_path, part, split, split_first, yaml)
        (tmp_path / f'{split}.txt').write_text('\n'.join(f'./images/{split}/{one.name}' for one in part), 'utf-8')
    assert recognise(tmp_path) == 'yolo' and find_splits(tmp_path) == ('train', 'val')
    for split, part in (('train', PICTURES[:3]), ('val', PICTURES[3:])):
        source = read_source(tmp_path, split)
        assert source.classes == ['fig', 'nut']
        assert truth(CocoInstances.from_source(source)) == expected(part)


@pytest.mark.parametrize('names', [
    'names: {0: fig, 1: nut}', 'names:\n  - fig\n  - nut', 'names: {"1": nut, "0": fig}'])
def test_names(tmp_path, names):
    write_yolo(tmp_path, PICTURES)
    (tmp_path / 'data.yaml').write_text(names, 'utf-8')
    assert truth(CocoInstances.from_source(read_source(tmp_path))) == expected(PICTURES)


def test_names_in_classes_txt_or_nowhere(tmp_path):
    write_yolo(tmp_path, PICTURES, yaml=None)
    source = read_source(tmp_path)
    assert source.classes == ['class 0', 'class 1'] and 'called by their numbers' in source.notes[0]
    (tmp_path / 'classes.txt').write_text('fig\nnut\n', 'utf-8')
    assert read_source(tmp_path).classes == ['fig', 'nut']


def test_an_image_without_a_label_file_has_no_objects(tmp_path):
    write_yolo(tmp_path, PICTURES)
    (tmp_path / 'labels' / 'IMG_2.txt').unlink()
    (tmp_path / 'labels' / 'IMG_1.txt').write_text('\n \n', 'utf-8')
    data = CocoInstances.from_source(read_source(tmp_path), skip_empty=False)
    assert [len(objects) for objects in truth(data).values()] == [2, 0, 0, 3]


@pytest.mark.parametrize('row, message', [
    pytest.param('0 0.5 0.5 0.2 0.2', 'is a box (5 numbers), not an outline', id='box'),
    pytest.param('0 0.5 0.5 0.2', 'has 3 coordinates, an odd number', id='odd'),
    pytest.param('0 0.5 0.5', 'has 1 points, an outline needs at least 3', id='a point'),
    pytest.param(f'7 {TRIANGLE}', 'unknown class 7; the classes are 0..1', id='unknown class'),
    pytest.param(f'0.5 {TRIANGLE}', 'unknown class 0.5', id='half a class'),
    pytest.param('0 6 4 36 4 36 28', 'coordinate 36: coordinates must be shares of width and height, 0..1, not pixels',
                 id='pixels'),
    pytest.param('0 0.1 0.1 1.3 0.1 0.6 0.7', 'polygon has a point at (78, 4), outside of its image of 60 x 40',
                 id='outside'),
    pytest.param('nut 0.1 0.1 0.6 0.1 0.6 0.7', "could not convert string to float: 'nut'", id='a word'),
    pytest.param('0 0.1 0.1 nan 0.1 0.6 0.7', 'polygon has a coordinate that is not a finite number', id='NaN'),
    pytest.param('0 0.1 0.1 0.2 0.2 0.3 0.3', 'polygon has no area', id='a line'),
])
def test_bad_rows_are_named_by_file_and_line(tmp_path, row, message):
    write_yolo(tmp_path, PICTURES[:2])
    label = tmp_path / 'labels' / 'IMG_1.txt'
    label.write_text(label.read_text('utf-8') + '\n' + row + '\n', 'utf-8')
    with pytest.raises(DatasetError, match=re.escape(f'{label}: line 5: {message}')):
        CocoInstances.from_source(read_source(tmp_path))
    data = CocoInstances.from_source(read_source(tmp_path), on_problem='skip')
    assert truth(data) == expected(PICTURES[:2]) and len(data.problems) == 1


def test_a_detection_data_set_is_told(tmp_path):
    write_yolo(tmp_path, PICTURES[:2])
    for label in (tmp_path / 'labels').iterdir():
        label.write_text('0 0.5 0.5 0.2 0.2\n1 0.3 0.3 0.1 0.1\n', 'utf-8')
    with pytest.raises(DatasetError, match='is a detection data set: all 4 objects are boxes'):
        read_source(tmp_path)


@pytest.mark.parametrize('yaml, message', [
    pytest.param('names: [a, b]\nnc: 3', 'data.yaml: nc is 3, but names has 2 classes', id='wrong number'),
    pytest.param('names: [a, a]', "data.yaml: names: 'a' is the name of more than one class", id='a name twice'),
    pytest.param('names: 3', 'data.yaml: names must be a list of class names', id='no names'),
    pytest.param('names: []', 'data.yaml: names is empty', id='empty'),
    pytest.param('names: [a', 'data.yaml: is not valid YAML', id='no YAML'),
    pytest.param('names: [a, b]\ntrain: pictures', "data.yaml: train: 'pictures' does not exist", id='no such folder'),
])
def test_bad_descriptions(tmp_path, yaml, message):
    write_yolo(tmp_path, PICTURES[:1])
    (tmp_path / 'data.yaml').write_text(yaml, 'utf-8')
    with pytest.raises(DatasetError, match=re.escape(message)):
        read_source(tmp_path)


def test_a_validation_folder_that_was_not_exported_is_noted(tmp_path):
    write_yolo(tmp_path, PICTURES, 'train', yaml='train: images/train\nval: images/val')
    assert find_splits(tmp_path) == ('train',)
    assert "val: 'images/val' does not exist" in read_source(tmp_path, 'train', val_fraction=0.5).notes[0]


def test_bad_images_are_named(tmp_path):
    write_yolo(tmp_path, PICTURES)
    (tmp_path / 'images' / 'IMG_2.png').write_bytes(b'')
    source = read_source(tmp_path)
    assert [(one.file, one.item) for one in source.problems] == [(str(tmp_path / 'images' / 'IMG_2.png'), 'image')]
    assert len(source.content['images']) == 3


def test_shares_are_of_the_upright_picture(tmp_path):
    write_yolo(tmp_path, polygon_pictures(1, suffix='.jpg'))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PICTURES[0].pixels).save(tmp_path / 'images' / 'IMG_0.jpg', exif=exif)
    data = CocoInstances.from_source(read_source(tmp_path), check_images=True)
    assert data.sizes == [(60, 40)] and data[0].image.shape == (3, 60, 40)


@given(st.integers(1, 6000), st.integers(1, 6000), st.data())
def test_hundredths_of_a_pixel_survive_six_digits(width, height, data):
    points = data.draw(st.lists(st.tuples(st.integers(0, 100 * width), st.integers(0, 100 * height)), min_size=3,
                                max_size=20))
    pixels = (np.array(points) / 100).ravel().tolist()
    words = [f'{value / (height if index % 2 else width):.6f}' for index, value in enumerate(pixels)]
    assert _object(['3', *words], width, height, {3: 'nut'}) == (3, pixels)
