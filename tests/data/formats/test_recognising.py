"""Which format a folder is in, and COCO files wherever tools put them."""
from __future__ import annotations

import json
import re
import shutil

import pytest

from modelscope_fastinst.data.coco import CocoInstances
from modelscope_fastinst.data.formats import FORMATS, find_splits, looking_once, read_source, recognise
from modelscope_fastinst.data.records import DatasetError
from tests.data.formats.tool_files import (
    expected,
    mask_pictures,
    polygon_pictures,
    truth,
    write_coco_file,
    write_labelme,
    write_voc,
    write_yolo,
)

PICTURES = polygon_pictures(4)


def test_nothing_is_recognised_in_other_folders(tmp_path):
    with pytest.raises(DatasetError, match='no data set of a known format; looked for coco: .*yolo: .*It is empty'):
        recognise(tmp_path)
    (tmp_path / 'notes.json').write_text('{"a": 1}', 'utf-8')
    (tmp_path / 'holidays').mkdir()
    PICTURES[0].save(tmp_path / 'beach.png')
    with pytest.raises(DatasetError, match='There are beach.png, holidays, notes.json'):
        read_source(tmp_path)
    with pytest.raises(DatasetError, match='nowhere: no such folder'):
        recognise(tmp_path / 'nowhere')


def test_two_formats_in_one_folder(tmp_path):
    write_yolo(tmp_path, PICTURES)
    write_labelme(tmp_path / 'images', PICTURES[:0])
    for picture in PICTURES:
        (tmp_path / 'images' / picture.name).unlink()
    write_labelme(tmp_path / 'images', PICTURES)
    with pytest.raises(DatasetError, match='may be yolo or labelme; give the format'):
        read_source(tmp_path)
    for format in ('yolo', 'labelme'):
        assert truth(CocoInstances.from_source(read_source(tmp_path, format=format))) == expected(PICTURES)


def test_a_format_that_it_is_not(tmp_path):
    write_yolo(tmp_path, PICTURES)
    assert FORMATS == ('coco', 'yolo', 'labelme', 'voc', 'object-masks')
    with pytest.raises(DatasetError, match="unknown format 'cvat'; known are coco, yolo, labelme, voc, object-masks"):
        read_source(tmp_path, format='cvat')
    for format, message in (('coco', 'no COCO data set'), ('voc', 'no folder SegmentationObject'),
                            ('labelme', 'no annotated images'), ('object-masks', 'no annotated images')):
        with pytest.raises(DatasetError, match=message):
            read_source(tmp_path, format=format)


def test_splits_that_are_not_there(tmp_path):
    write_labelme(tmp_path, PICTURES)
    with pytest.raises(DatasetError, match=r'no validation split; give val_fraction \(--val-fraction\), for instance'):
        read_source(tmp_path, 'val')
    with pytest.raises(DatasetError, match="has no split 'test'"):
        read_source(tmp_path, 'test')
    with pytest.raises(DatasetError, match=r"has no classes \['date'\]; it has \['fig', 'nut'\]"):
        read_source(tmp_path, classes=['nut', 'date'])


def roboflow(root):
    write_coco_file(root, PICTURES[:3])
    for split, part in (('train', PICTURES[:3]), ('valid', PICTURES[3:])):
        write_coco_file(root / split, part)
        (root / split / 'trainval.json').rename(root / split / '_annotations.coco.json')
        for image in (root / split / 'images').iterdir():
            image.rename(root / split / image.name)
        (root / split / 'images').rmdir()
    shutil.rmtree(root / 'images')
    (root / 'trainval.json').unlink()


def label_studio(root):
    """One file whose names begin with the folder, written on Windows."""
    write_coco_file(root, PICTURES)
    content = json.loads((root / 'trainval.json').read_text('utf-8'))
    for image in content['images']:
        image['file_name'] = f'images\\{image["file_name"]}'
    (root / 'trainval.json').unlink()
    (root / 'result.json').write_text(json.dumps(content), 'utf-8')


def cvat(root):
    write_coco_file(root, PICTURES)
    (root / 'annotations').mkdir()
    (root / 'trainval.json').rename(root / 'annotations' / 'instances_default.json')
    (root / 'images').rename(root / 'default')
    (root / 'images').mkdir()
    (root / 'default').rename(root / 'images' / 'default')


def beside_the_images(root):
    write_coco_file(root, PICTURES)
    for image in (root / 'images').iterdir():
        image.rename(root / image.name)
    (root / 'images').rmdir()


def named_by_split(root):
    write_coco_file(root, PICTURES[:3], 'train')
    write_coco_file(root, PICTURES[3:], 'val')
    for split in ('train', 'val'):
        (root / 'annotations' / f'instances_{split}.json').rename(root / f'nuts-{split}.json')


@pytest.mark.parametrize('write, splits', [
    pytest.param(roboflow, ('train', 'val'), id='Roboflow'),
    pytest.param(label_studio, (), id='Label Studio'),
    pytest.param(cvat, (), id='CVAT'),
    pytest.param(beside_the_images, (), id='beside its images'),
    pytest.param(named_by_split, ('train', 'val'), id='files named by split'),
])
def test_layouts_of_coco(tmp_path, write, splits):
    write(tmp_path)
    assert recognise(tmp_path) == 'coco' and find_splits(tmp_path) == splits
    parts = splits or (None,)
    found = [truth(CocoInstances.from_source(read_source(tmp_path, split), check_images=True)) for split in parts]
    assert found == ([expected(PICTURES[:3]), expected(PICTURES[3:])] if splits else [expected(PICTURES)])
    whole = read_source(tmp_path)
    assert truth(CocoInstances.from_source(whole, check_images=True)) == expected(PICTURES)


def test_two_files_of_one_split(tmp_path):
    write_coco_file(tmp_path, PICTURES)
    shutil.copy(tmp_path / 'trainval.json', tmp_path / 'corrected.json')
    with pytest.raises(DatasetError, match='corrected.json and trainval.json are both COCO files of no split'):
        recognise(tmp_path)


def test_problems_of_a_part_name_its_file_and_item(tmp_path):
    """Both in a file of its own and where files were merged and ids given anew."""
    write_coco_file(tmp_path, PICTURES[:2], 'train')
    write_coco_file(tmp_path, PICTURES[2:], 'val')
    file = tmp_path / 'annotations' / 'instances_val.json'
    content = json.loads(file.read_text('utf-8'))
    content['annotations'][1]['segmentation'] = [[1, 1, 5, 5]]
    file.write_text(json.dumps(content), 'utf-8')
    (tmp_path / 'images' / 'val' / PICTURES[3].name).unlink()
    for source in (read_source(tmp_path, 'val'), read_source(tmp_path)):
        with pytest.raises(DatasetError) as error:
            CocoInstances.from_source(source)
        assert [(one.file, one.item) for one in error.value.problems] == [(str(file), 'annotation 101'),
                                                                          (str(file), 'image 18')]


@pytest.mark.parametrize('content, message', [
    pytest.param('{"images": [], "annotations"', 'is not valid JSON, or is cut off', id='cut off'),
    pytest.param('{"images": []}', '"annotations" is missing', id='no annotations'),
])
def test_files_that_are_no_coco(tmp_path, content, message):
    (tmp_path / 'images').mkdir()
    (tmp_path / 'instances_train.json').write_text(content, 'utf-8')
    with pytest.raises(DatasetError, match=re.escape(f'{tmp_path / "instances_train.json"}: {message}')):
        read_source(tmp_path, 'train')


def test_every_problem_of_a_labelme_folder_is_in_one_list(tmp_path):
    """What the reader meets and what the check of outlines meets, together."""
    write_labelme(tmp_path, PICTURES)
    content = json.loads((tmp_path / 'IMG_1.json').read_text('utf-8'))
    content['shapes'][0]['shape_type'] = 'point'
    content['shapes'][1]['points'] = [[1, 1], [500, 5], [9, 9]]
    (tmp_path / 'IMG_1.json').write_text(json.dumps(content), 'utf-8')
    (tmp_path / 'IMG_3.json').write_text('', 'utf-8')
    with pytest.raises(DatasetError) as error:
        CocoInstances.from_source(read_source(tmp_path))
    assert {(one.file, one.item) for one in error.value.problems} == {
        (str(tmp_path / 'IMG_1.json'), 'shape 0'), (str(tmp_path / 'IMG_1.json'), 'shape 1'),
        (str(tmp_path / 'IMG_3.json'), 'file')}


@pytest.mark.parametrize(('write', 'pictures', 'format', 'files'), [
    pytest.param(write_labelme, PICTURES, 'labelme', '*.json', id='labelme'),
    pytest.param(write_voc, mask_pictures(4), 'voc', 'class_names.txt', id='voc'),
    pytest.param(write_yolo, PICTURES, 'yolo', 'data.yaml', id='yolo'),
])
def test_a_folder_is_looked_through_once_for_all_its_splits(write, pictures, format, files, tmp_path):
    write(tmp_path, pictures)
    wanted = read_source(tmp_path, 'val', val_fraction=0.5).content
    with looking_once():
        read_source(tmp_path, 'train', val_fraction=0.5)
        for file in list(tmp_path.glob(files)):
            file.unlink()
        assert read_source(tmp_path, 'val', format, val_fraction=0.5).content == wanted
    if format == 'labelme':    # behind it, the folder is looked through again
        with pytest.raises(DatasetError, match='no annotated images'):
            read_source(tmp_path, format=format)


def test_a_file_is_no_folder(tmp_path):
    write_yolo(tmp_path, PICTURES)
    with pytest.raises(DatasetError, match='data.yaml: is a file; give the folder of the data set'):
        read_source(tmp_path / 'data.yaml')


def test_names_of_yolo_s_classes_in_a_deeper_folder(tmp_path):
    write_yolo(tmp_path / 'unpacked' / 'nuts', PICTURES)
    with pytest.raises(DatasetError, match=r'nuts.data.yaml names the classes; give .*nuts as the folder'):
        read_source(tmp_path)
