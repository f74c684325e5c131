"""Faults of panoptic and semantic data are found, named with their file and image, and can be left out."""
from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modelscope_fastinst.data.label_sets import CITYSCAPES, COCO_PANOPTIC
from modelscope_fastinst.data.maps import SegmentationMaps, read_label_folder, read_maps, read_panoptic
from modelscope_fastinst.data.records import DatasetError
from tests.data.maps.trees import (
    ade_scenes,
    city_scenes,
    ids_picture,
    save,
    scenes,
    write_ade,
    write_cityscapes,
    write_coco,
    write_semantic,
)

JSON, PNG = 'annotations/panoptic_train2017.json', 'panoptic_train2017/1.png'


def coco(folder: Path):
    return scenes(COCO_PANOPTIC, ['1', '2', '3'], ('person', 'kite'), ('sea', 'sand'))


@pytest.fixture
def folder(tmp_path) -> Path:
    write_coco(tmp_path, coco(tmp_path), COCO_PANOPTIC)
    return tmp_path


def edit(folder: Path, change) -> None:
    content = json.loads((folder / JSON).read_text('utf-8'))
    change(content)
    (folder / JSON).write_text(json.dumps(content), 'utf-8')


def first_segment(content: dict) -> dict:
    return content['annotations'][0]['segments_info'][0]


def paint(folder: Path, value: int) -> None:
    """Gives the pixels of the first corner of the first map another id."""
    pixels = np.array(Image.open(folder / PNG))
    pixels[:2, :2] = ids_picture(np.full((2, 2), value))
    save(folder / PNG, pixels)


BROKEN_RECORDS = [
    pytest.param(lambda c: first_segment(c).update(category_id=12), 'image 1: segment .*: unknown category_id 12',
                 id='unknown category'),
    pytest.param(lambda c: first_segment(c).update(id=0), "image 1: a segment's id must be a whole number of 1 to",
                 id='id 0 is void'),
    pytest.param(lambda c: c['annotations'][0]['segments_info'].append(first_segment(c)), 'segment .* is listed twice',
                 id='a segment twice'),
    pytest.param(lambda c: first_segment(c).update(iscrowd=2), 'iscrowd must be 0 or 1, got 2', id='iscrowd'),
    pytest.param(lambda c: c['annotations'].pop(0), 'image 1: "annotations" has no entry', id='no annotation'),
    pytest.param(lambda c: c['images'].pop(0), 'annotation number 0 .*unknown image_id 1', id='no image record'),
    pytest.param(lambda c: c['annotations'][0].pop('segments_info'), 'no list "segments_info"', id='no segments'),
    pytest.param(lambda c: c['annotations'].append(c['annotations'][0]), 'image 1 has more than one annotation',
                 id='two annotations'),
    pytest.param(lambda c: c['images'][0].pop('height'), 'image 1: "height" is missing', id='no size'),
    pytest.param(lambda c: c['categories'][0].pop('isthing'), r'category 1: isthing must be 1 \(a thing\) or 0',
                 id='neither thing nor stuff'),
    pytest.param(lambda c: c['images'][0].update(file_name='9.png'), r'image 1: .*train2017.9\.png: no such image file',
                 id='missing image'),
    pytest.param(lambda c: c['annotations'][0].update(file_name='9.png'), r'image 1: .*9\.png: no such map file',
                 id='missing PNG'),
]


@pytest.mark.parametrize(('change', 'message'), BROKEN_RECORDS)
def test_what_a_panoptic_file_may_have_wrong(folder, change, message):
    edit(folder, change)
    with pytest.raises(DatasetError, match=message) as raised:
        SegmentationMaps(read_maps(folder, 'panoptic', 'train'), 'panoptic')
    assert '--skip-bad' in str(raised.value)
    assert JSON in raised.value.problems[0].file


@pytest.mark.parametrize(('change', 'message'), [one for one in BROKEN_RECORDS if 'thing' not in one.id])
def test_broken_items_can_be_left_out(folder, change, message):
    edit(folder, change)
    data = SegmentationMaps(read_maps(folder, 'panoptic', 'train'), 'panoptic', on_problem='skip')
    assert data.problems
    assert {2, 3} <= set(data.image_ids)
    assert data[0].truth.segments


def _other_size(folder: Path) -> None:
    save(folder / PNG, np.zeros((5, 6, 3), np.uint8))


BROKEN_PIXELS = [
    pytest.param(lambda f: paint(f, 77), '{png}: has pixels of the ids [77], which {json} does not list for this image',
                 'unlisted-id', id='an id that the JSON does not list'),
    pytest.param(lambda f: edit(f, lambda c: c['annotations'][0]['segments_info'].append(
        {'id': 42, 'category_id': 1, 'iscrowd': 0})), '{png}: has no pixel of the ids [42], which {json} lists',
        'absent-id', id='an id without pixels'),
    pytest.param(_other_size, '{png}: is 6 x 5 pixels (width x height), its image in {json} 36 x 24', 'size-mismatch',
                 id='a map of another size'),
    pytest.param(lambda f: save(f / PNG, np.zeros((24, 36), np.uint8)), '{png}: is a picture of one channel; a '
                 'panoptic PNG has three', 'wrong-map', id='a map of one channel'),
    pytest.param(lambda f: (f / PNG).write_bytes((f / PNG).read_bytes()[:60]), '{png}: is damaged, or no image',
                 'unreadable-map', id='a damaged map'),
    pytest.param(lambda f: save(f / 'train2017/1.png', np.zeros((8, 8, 3), np.uint8)),
                 '{png}: is 36 x 24 pixels (width x height), its image {folder}/train2017/1.png 8 x 8',
                 'size-mismatch', id='an image of another size'),
    pytest.param(lambda f: (f / 'train2017/1.png').write_bytes(b'x'), '1.png: is not an image of a known format',
                 'unreadable-image', id='a damaged image'),
]


@pytest.mark.parametrize(('change', 'message', 'code'), BROKEN_PIXELS)
def test_what_the_pixels_may_have_wrong_shows_when_a_sample_is_drawn(folder, change, message, code):
    change(folder)
    data = SegmentationMaps(read_maps(folder, 'panoptic', 'train'), 'panoptic')
    wanted = message.format(png=folder / PNG, json=folder / JSON, folder=folder)
    with pytest.raises(DatasetError, match=re.escape(wanted)) as raised:
        data[0]
    assert [(problem.item, problem.code) for problem in raised.value.problems] == [('image 1', code)]
    assert data[1].image_id == 2

    data = SegmentationMaps(read_maps(folder, 'panoptic', 'train'), 'panoptic', on_problem='skip')
    # A few pixels that mean nothing are void; an image that cannot be used is replaced.
    assert data[0].image_id == (1 if code in ('unlisted-id', 'absent-id') else 2)
    if code == 'unlisted-id':
        assert (data[0].truth.ids[:2, :2] == 0).all()
    assert [problem.code for problem in data.problems] == [code]


def test_nothing_is_left(folder):
    for number in (1, 2, 3):
        (folder / f'panoptic_train2017/{number}.png').unlink()
    with pytest.raises(DatasetError, match='nothing to use: no image with its files'):
        SegmentationMaps(read_maps(folder, 'panoptic', 'train'), 'panoptic', on_problem='skip')


LABEL_PNGS = [
    pytest.param(np.full((24, 36), 9), 'has the values 9 (864 pixels), which are no class; the 4 classes have the '
                 'values 0 to 3, 255 is void', id='a number that is no class'),
    pytest.param(np.arange(24 * 36 * 3).reshape(24, 36, 3) % 256, 'is a colour picture; a label PNG has one channel '
                 "with the classes' numbers: save the numbers, not their colours", id='colours'),
    pytest.param(np.zeros((5, 6)), 'is 6 x 5 pixels (width x height), its image', id='another size'),
]


@pytest.mark.parametrize(('pixels', 'message'), LABEL_PNGS)
def test_label_pngs_that_are_none(tmp_path, pixels, message):
    pictures = scenes(CITYSCAPES, ['a', 'b'], ('road', 'sidewalk'), ('building', 'wall'))
    for scene in pictures:
        scene.labels = scene.labels.clip(-1, 3)
    write_semantic(tmp_path / 'images', tmp_path / 'labels', pictures)
    save(tmp_path / 'labels/a.png', pixels.astype(np.uint8))
    source = read_label_folder(str(tmp_path / 'images'), str(tmp_path / 'labels'), ['r', 's', 'b', 'w'])
    with pytest.raises(DatasetError, match=re.escape(message)) as raised:
        SegmentationMaps(source, 'semantic')[0]
    assert f'{tmp_path}/labels/a.png' in str(raised.value)
    assert SegmentationMaps(source, 'semantic', on_problem='skip')[0].image_id == ('a' if pixels.size == 864 else 'b')


def test_grey_saved_as_rgb_is_taken(tmp_path):
    save(tmp_path / 'images/a.png', np.zeros((4, 6, 3), np.uint8))
    save(tmp_path / 'labels/a.png', np.full((4, 6, 3), 1, np.uint8))
    source = read_label_folder(str(tmp_path / 'images'), str(tmp_path / 'labels'), ['r', 's'])
    assert (SegmentationMaps(source, 'semantic')[0].truth.labels == 1).all()


def test_images_without_a_label_png(tmp_path):
    pictures = scenes(CITYSCAPES, ['a', 'b'], ('road', 'sidewalk'), ('building', 'wall'))
    write_semantic(tmp_path / 'images', tmp_path / 'labels', pictures)
    (tmp_path / 'labels/a.png').unlink()
    source = read_label_folder(str(tmp_path / 'images'), str(tmp_path / 'labels'), CITYSCAPES.names)
    with pytest.raises(DatasetError, match=r'image a: .*labels/a\.png: no such map file'):
        SegmentationMaps(source, 'semantic')
    assert SegmentationMaps(source, 'semantic', on_problem='skip').image_ids == ['b']
    with pytest.raises(DatasetError, match='void_label 3 is the number of class 3'):
        read_label_folder(str(tmp_path / 'images'), str(tmp_path / 'labels'), CITYSCAPES.names, void=3)


def test_numbers_that_ade20k_and_cityscapes_do_not_have(tmp_path):
    write_ade(tmp_path / 'ade', ade_scenes(), parts=['annotations', 'annotations_instance'])
    base = tmp_path / 'ade/ADEChallengeData2016'
    save(base / 'annotations/training/ADE_train_00000001.png', np.full((24, 36), 151, np.uint8))
    with pytest.raises(DatasetError, match=r'has the values 151 \(864 pixels\).*ADE20K has the values 1 to 150'):
        SegmentationMaps(read_maps(tmp_path / 'ade', 'semantic', 'train'), 'semantic')[0]
    save(base / 'annotations_instance/training/ADE_train_00000002.png', np.full((24, 36, 3), 101, np.uint8))
    with pytest.raises(DatasetError, match=r'has the classes \[101\] in its red channel, which must be 1 to 100'):
        SegmentationMaps(read_maps(tmp_path / 'ade', 'instance', 'train'), 'instance')[1]
    write_cityscapes(tmp_path / 'city', city_scenes(), parts=['instanceIds'])
    save(tmp_path / 'city/gtFine/train/aachen/aachen_000000_000019_gtFine_instanceIds.png',
         np.full((24, 36), 34, np.uint16))
    with pytest.raises(DatasetError, match=r'has the values \[34\], which are no ids of Cityscapes'):
        SegmentationMaps(read_maps(tmp_path / 'city', 'panoptic', 'train'), 'panoptic')[0]


def test_stuff_that_objects_hide_wholly_is_no_fault_of_ade20k(tmp_path):
    """The script that makes its panoptic files lays objects over the stuff, and lists what was below all the same."""
    write_ade(tmp_path, ade_scenes(), parts=['panoptic'])
    file = tmp_path / 'ADEChallengeData2016/ade20k_panoptic_train.json'
    content = json.loads(file.read_text('utf-8'))
    content['annotations'][0]['segments_info'].append({'id': 42, 'category_id': 4, 'iscrowd': 0})
    file.write_text(json.dumps(content), 'utf-8')
    sample = SegmentationMaps(read_maps(tmp_path, 'panoptic', 'train'), 'panoptic')[0]
    assert len(sample.target) == len(sample.truth.segments) == len(content['annotations'][1]['segments_info'])


def test_classes_that_do_not_go_with_the_task(folder):
    source = read_maps(folder, 'panoptic', 'train')
    with pytest.raises(DatasetError, match=r"has no classes \['yeti'\]"):
        SegmentationMaps(source, 'panoptic', ['person', 'yeti'])
    with pytest.raises(DatasetError, match=r"\['sea'\] are stuff, of which there are no instances"):
        SegmentationMaps(source, 'instance', ['person', 'sea'])
    edit(folder, lambda content: [one.update(isthing=0) for one in content['categories']])
    with pytest.raises(DatasetError, match='none of its classes is a thing, so that it has no instances'):
        SegmentationMaps(read_maps(folder, 'instance', 'train'), 'instance')
    with pytest.raises(DatasetError, match='knows the class of each pixel, but no segments'):
        pictures = scenes(CITYSCAPES, ['a'], ('road', 'sidewalk'), ('building', 'wall'))
        write_semantic(folder / 'i', folder / 'l', pictures)
        SegmentationMaps(read_label_folder(str(folder / 'i'), str(folder / 'l'), CITYSCAPES.names), 'panoptic')


def test_files_of_objects_are_no_panoptic_files(folder):
    file = folder / 'objects.json'
    file.write_text(json.dumps({'images': [], 'categories': [], 'annotations': [{'segmentation': []}]}), 'utf-8')
    with pytest.raises(DatasetError, match=r'is an annotation file of objects \("segmentation"\)'):
        read_panoptic(str(file), str(folder), str(folder))
    file.write_text('[]', 'utf-8')
    with pytest.raises(DatasetError, match='has the lists "images", "annotations" and "categories"; this one holds'):
        read_panoptic(str(file), str(folder), str(folder))
