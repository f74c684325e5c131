"""A source as a COCO folder on disk: whole or not at all."""
from __future__ import annotations

import errno
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from modelscope_fastinst.data.coco import CocoInstances
from modelscope_fastinst.data.formats import read_source, write_coco
from modelscope_fastinst.data.layouts import find_coco
from modelscope_fastinst.data.records import DatasetError
from tests.data.formats.tool_files import expected, polygon_pictures, truth, write_labelme, write_object_masks

PICTURES = polygon_pictures(3)


@pytest.fixture
def data(tmp_path):
    write_labelme(tmp_path / 'data', PICTURES)
    return tmp_path / 'data'


def files(folder):
    return sorted(str(file.relative_to(folder)) for file in folder.rglob('*') if file.is_file())


def test_what_is_written(tmp_path, data):
    written = write_coco(read_source(data), tmp_path / 'coco', 'train')
    assert written == find_coco(tmp_path / 'coco', 'train')
    assert files(tmp_path / 'coco') == ['annotations/instances_train.json', *(
        f'images/train/{picture.name}' for picture in PICTURES)]
    content = json.loads((tmp_path / 'coco' / 'annotations' / 'instances_train.json').read_text('utf-8'))
    first = content['annotations'][0]
    assert set(first) == {'id', 'image_id', 'category_id', 'iscrowd', 'segmentation', 'area', 'bbox'}
    assert first['segmentation'] == [PICTURES[0].objects[0][1]] and first['area'] > 20 and first['id'] == 1
    assert [one['id'] for one in content['images']] == [1, 2, 3]
    for picture in PICTURES:
        assert (tmp_path / 'coco' / 'images' / 'train' / picture.name).read_bytes() == (
            data / picture.name).read_bytes()


def test_images_may_be_linked(tmp_path, data):
    write_coco(read_source(data), tmp_path / 'coco', 'train', link=True)
    assert os.path.samefile(tmp_path / 'coco' / 'images' / 'train' / 'IMG_0.png', data / 'IMG_0.png')


def test_names_that_clash_are_told_apart(tmp_path):
    for index, (folder, picture) in enumerate(zip(('a', 'b', 'c'), PICTURES, strict=True)):
        picture = polygon_pictures(3)[index]
        picture.name = 'IMG.png' if index < 2 else 'img.PNG'
        write_labelme(tmp_path / 'data' / folder, [picture])
    data = CocoInstances(*write_coco(read_source(tmp_path / 'data'), tmp_path / 'coco', 'train'))
    assert sorted(os.listdir(tmp_path / 'coco' / 'images' / 'train')) == ['IMG.png', 'b_IMG.png', 'c_img.PNG']
    for sample, picture in zip(data, PICTURES, strict=True):
        np.testing.assert_array_equal(sample.image.permute(1, 2, 0), picture.pixels)


def test_an_existing_split_is_replaced_only_on_request(tmp_path, data):
    write_coco(read_source(data), tmp_path / 'coco', 'train')
    write_coco(read_source(data), tmp_path / 'coco', 'val')
    before = files(tmp_path / 'coco')
    with pytest.raises(FileExistsError, match='instances_train.json: is there already'):
        write_coco(read_source(data), tmp_path / 'coco', 'train')
    (data / 'IMG_2.json').unlink()
    write_coco(read_source(data), tmp_path / 'coco', 'train', overwrite=True)
    assert files(tmp_path / 'coco') == [name for name in before if name != 'images/train/IMG_2.png']


@pytest.mark.parametrize('overwrite', [False, True])
def test_a_full_disk_leaves_what_was_there(tmp_path, data, monkeypatch, overwrite):
    if overwrite:
        write_coco(read_source(data), tmp_path / 'coco', 'train')
    before = files(tmp_path / 'coco')
    copy = shutil.copyfile

    def full(source, target, **options):
        if str(source).endswith('IMG_2.png'):
            raise OSError(errno.ENOSPC, 'No space left on device')
        return copy(source, target, **options)

    monkeypatch.setattr(shutil, 'copyfile', full)
    with pytest.raises(OSError, match='No space left'):
        write_coco(read_source(data), tmp_path / 'coco', 'train', overwrite=overwrite)
    assert files(tmp_path / 'coco') == before
    assert not [name for name in os.listdir(tmp_path / 'coco') if name.startswith('.')]


def test_a_failing_rename_puts_the_old_split_back(tmp_path, data, monkeypatch):
    write_coco(read_source(data), tmp_path / 'coco', 'train')
    before = truth(CocoInstances(*find_coco(tmp_path / 'coco', 'train')))

    def fail(source, target):
        raise OSError('broken disk')

    (data / 'IMG_2.json').unlink()
    monkeypatch.setattr(os, 'replace', fail)
    with pytest.raises(OSError, match='broken disk'):
        write_coco(read_source(data), tmp_path / 'coco', 'train', overwrite=True)
    assert truth(CocoInstances(*find_coco(tmp_path / 'coco', 'train'))) == before == expected(PICTURES)


def test_bad_items_stop_it_or_are_left_out(tmp_path, data):
    content = json.loads((data / 'IMG_1.json').read_text('utf-8'))
    content['shapes'][0]['points'] = [[1, 1], [500, 2], [9, 9]]
    content['shapes'][1]['shape_type'] = 'point'
    (data / 'IMG_1.json').write_text(json.dumps(content), 'utf-8')
    with pytest.raises(DatasetError, match=r'2 bad items:\n.*IMG_1.json: shape 1: .*\n.*IMG_1.json: shape 0: '):
        write_coco(read_source(data), tmp_path / 'coco', 'train')
    assert not (tmp_path / 'coco').exists()
    written = CocoInstances(*write_coco(read_source(data), tmp_path / 'coco', 'train', on_problem='skip'))
    assert [len(objects) for objects in truth(written).values()] == [2, 1, 2]


def test_a_missing_image_is_named(tmp_path):
    from tests.data.formats.tool_files import write_coco_file
    write_coco_file(tmp_path / 'data', PICTURES)
    (tmp_path / 'data' / 'images' / 'IMG_1.png').unlink()
    with pytest.raises(DatasetError, match='trainval.json: image 18: .*IMG_1.png: no such image file'):
        write_coco(read_source(tmp_path / 'data'), tmp_path / 'coco', 'train')
    assert files(tmp_path / 'coco') == []


@pytest.mark.parametrize('split', ['', '.', '..', 'a/b'])
def test_a_split_has_a_plain_name(tmp_path, data, split):
    with pytest.raises(ValueError, match='it must be a plain name'):
        write_coco(read_source(data), tmp_path / 'coco', split)


def test_orientation_is_kept_with_the_file(tmp_path):
    """The copied file says how it lies, and the size in the annotation file how it was seen."""
    from tests.data.formats.tool_files import mask_pictures
    picture = mask_pictures(1, suffix='.jpg')[0]
    write_object_masks(tmp_path / 'data', [picture])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture.pixels).save(tmp_path / 'data' / 'IMG_0' / 'images' / 'IMG_0.jpg', exif=exif)
    data = CocoInstances(*write_coco(read_source(tmp_path / 'data'), tmp_path / 'coco', 'train'), check_images=True)
    assert data.sizes == [(40, 60)] and truth(data) == expected([picture])
