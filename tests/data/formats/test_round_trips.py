"""What a labelling tool writes is read as it was drawn, and is the same once more when written as COCO."""
from __future__ import annotations

import json

import numpy as np
import pytest

from modelscope_fastinst.data.coco import CocoInstances
from modelscope_fastinst.data.formats import find_splits, read_source, recognise, write_coco
from tests.data.formats.tool_files import (
    Picture,
    expected,
    mask_pictures,
    polygon_pictures,
    truth,
    write_coco_file,
    write_labelme,
    write_object_masks,
    write_voc,
    write_yolo,
)

# format, writer(folder, pictures, split), whether objects are polygons
WRITERS = [
    pytest.param('coco', write_coco_file, polygon_pictures, id='coco, polygons'),
    pytest.param('coco', write_coco_file, mask_pictures, id='coco, run-length encodings'),
    pytest.param('yolo', write_yolo, polygon_pictures, id='yolo'),
    pytest.param('labelme', write_labelme, polygon_pictures, id='labelme'),
    pytest.param('labelme', write_labelme, mask_pictures, id='labelme, masks'),
    pytest.param('voc', write_voc, mask_pictures, id='voc'),
    pytest.param('object-masks', write_object_masks, mask_pictures, id='object-masks'),
]


def converted(source, folder, split='train') -> CocoInstances:
    return CocoInstances(*write_coco(source, folder, split), skip_empty=False, check_images=True)


@pytest.mark.parametrize('format, write, draw', WRITERS)
def test_a_format_is_recognised_read_and_converted(tmp_path, format, write, draw):
    pictures = draw()
    write(tmp_path / 'data', pictures)
    assert recognise(tmp_path / 'data') == format
    source = read_source(tmp_path / 'data')
    assert source.problems == [] and source.open_image is None
    read = CocoInstances.from_source(source, skip_empty=False, check_images=True)
    assert read.classes == ['fig', 'nut']
    assert truth(read) == expected(pictures)
    again = converted(read_source(tmp_path / 'data'), tmp_path / 'converted')
    assert again.classes == ['fig', 'nut'] and again.category_ids == [1, 2]
    assert truth(again) == expected(pictures)
    for sample, picture in zip(again, pictures, strict=True):
        np.testing.assert_array_equal(sample.image.permute(1, 2, 0), picture.pixels)


@pytest.mark.parametrize('format, write, draw', [case for case in WRITERS if case.values[0] != 'voc'])
def test_splits_of_the_data_are_kept(tmp_path, format, write, draw):
    pictures = draw(5)
    write(tmp_path, pictures[:3], 'train')
    write(tmp_path, pictures[3:], 'val')
    assert recognise(tmp_path) == format and find_splits(tmp_path) == ('train', 'val')
    for split, part in (('train', pictures[:3]), ('val', pictures[3:])):
        source = read_source(tmp_path, split, val_fraction=0.5)    # which does not count where there is a split
        assert truth(CocoInstances.from_source(source)) == expected(part)
    assert len(read_source(tmp_path).content['images']) == 5


@pytest.mark.parametrize('name', ['val', 'valid', 'validation'])
def test_validation_has_several_names(tmp_path, name):
    pictures = polygon_pictures(2)
    write_labelme(tmp_path, pictures[:1], 'train')
    write_labelme(tmp_path, pictures[1:], name)
    assert [image['file_name'] for image in read_source(tmp_path, 'val').content['images']] == [f'{name}/IMG_1.png']


@pytest.mark.parametrize('format, write, draw', WRITERS)
def test_names_of_files_are_of_any_kind(tmp_path, format, write, draw):
    pictures = draw(3)
    for picture, name in zip(pictures, ('übung 1.PNG', '图 2.Jpeg', 'a.b.c.bmp'), strict=True):
        picture.name = name
    write(tmp_path / 'da ta', pictures)
    data = CocoInstances.from_source(read_source(tmp_path / 'da ta'), check_images=True)
    assert truth(data) == expected(pictures)
    again = converted(read_source(tmp_path / 'da ta'), tmp_path / 'converted')
    assert truth(again) == expected(pictures)


@pytest.mark.parametrize('write, draw', [
    pytest.param(write_yolo, polygon_pictures, id='yolo'),
    pytest.param(write_labelme, polygon_pictures, id='labelme'),
    pytest.param(write_voc, mask_pictures, id='voc'),
    pytest.param(write_object_masks, mask_pictures, id='object-masks'),
])
def test_classes_are_the_same_in_every_part(tmp_path, write, draw):
    """The one picture of class a is on one side only, and yet both sides number the classes alike."""
    pictures = draw(6, classes=('b', 'b'))
    pictures[0].objects = [('a', shape) for _, shape in pictures[0].objects]
    write(tmp_path, pictures)
    train, val = (read_source(tmp_path, split, val_fraction=0.34) for split in ('train', 'val'))
    assert train.content['categories'] == val.content['categories'] == [{'id': 1, 'name': 'a'}, {'id': 2, 'name': 'b'}]


@pytest.mark.parametrize('write, draw', [
    pytest.param(write_coco_file, polygon_pictures, id='coco'),
    pytest.param(write_yolo, polygon_pictures, id='yolo'),
    pytest.param(write_voc, mask_pictures, id='voc'),
])
def test_chosen_classes(tmp_path, write, draw):
    write(tmp_path, draw())
    source = read_source(tmp_path, classes=['nut'])
    assert source.content['categories'] == [{'id': 1, 'name': 'nut'}]
    wanted = {name: [one for one in objects if one[0] == 'nut'] for name, objects in expected(draw()).items()}
    assert truth(CocoInstances.from_source(source, skip_empty=False)) == wanted


def test_category_ids_may_start_anywhere(tmp_path):
    write_coco_file(tmp_path / 'zero', polygon_pictures(), first_category=0)
    write_coco_file(tmp_path / 'late', polygon_pictures(), first_category=88)
    for name in ('zero', 'late'):
        data = converted(read_source(tmp_path / name), tmp_path / f'{name} converted')
        assert data.category_ids == [1, 2] and truth(data) == expected(polygon_pictures())


def test_an_image_without_objects_stays_one(tmp_path):
    pictures = [*polygon_pictures(2), Picture('bare.png', np.zeros((40, 60, 3), np.uint8))]
    for write in (write_coco_file, write_yolo, write_labelme):
        write(tmp_path / write.__name__, pictures)
        data = converted(read_source(tmp_path / write.__name__), tmp_path / f'{write.__name__} converted')
        assert truth(data)['bare'] == []


def nuclei(shared_data, count=6) -> list[Picture]:
    content = json.loads((shared_data / 'nuclei' / 'instances_val.json').read_text('utf-8'))
    from pycocotools import mask as coco_mask
    pictures = {image['id']: Picture(image['file_name'], None, file=shared_data / 'nuclei' / 'val' / image['file_name'])
                for image in content['images'][:count]}
    for one in content['annotations']:
        if one['image_id'] in pictures:
            pictures[one['image_id']].objects.append(('nucleus', coco_mask.decode(one['segmentation']).astype(bool)))
    return list(pictures.values())


def nuts(shared_data) -> list[Picture]:
    content = json.loads((shared_data / 'nuts' / 'trainval.json').read_text('utf-8'))
    names = {one['id']: one['name'] for one in content['categories']}
    folder = shared_data / 'nuts' / 'images'
    pictures = {image['id']: Picture(image['file_name'], None, file=folder / image['file_name'])
                for image in content['images']}
    for one in content['annotations']:
        pictures[one['image_id']].objects.append((names[one['category_id']], one['segmentation'][0]))
    return list(pictures.values())


@pytest.mark.parametrize('write', [write_object_masks, write_voc, write_labelme])
def test_real_nuclei_come_back_pixel_by_pixel(tmp_path, shared_data, write):
    pictures = nuclei(shared_data)
    write(tmp_path / 'data', pictures)
    data = converted(read_source(tmp_path / 'data'), tmp_path / 'converted')
    assert truth(data) == expected(pictures)
    assert sum(map(len, truth(data).values())) > 50


def test_real_nuts_come_back_from_labelme_point_by_point(tmp_path, shared_data):
    write_labelme(tmp_path / 'data', nuts(shared_data))
    assert truth(converted(read_source(tmp_path / 'data'), tmp_path / 'converted')) == expected(nuts(shared_data))


def test_real_nuts_come_back_from_yolo_but_for_their_last_digits(tmp_path, shared_data):
    """YOLO's six digits and our hundredths of a pixel move a border by less than a pixel: hardly a pixel changes."""
    from pycocotools import mask as coco_mask
    write_yolo(tmp_path / 'data', nuts(shared_data))
    data = converted(read_source(tmp_path / 'data'), tmp_path / 'converted')
    wanted = {picture.name: picture.masks() for picture in nuts(shared_data)}
    for index in range(len(data)):
        records = data.annotations(index)
        masks = wanted[data[index].file_name.rsplit('/', 1)[-1]]
        assert [data.classes[one['category_id']] for one in records] == [name for name, _ in masks]
        overlap = coco_mask.iou([one['segmentation'] for one in records], [rle for _, rle in masks], [0] * len(masks))
        assert np.diag(overlap).min() > 0.99


def test_real_nuts_are_found_beside_their_one_file_and_divided(shared_data):
    train, val = (read_source(shared_data / 'nuts', split, val_fraction=0.2) for split in ('train', 'val'))
    assert [len(source.content['images']) for source in (train, val)] == [14, 4]
    assert len(train.content['annotations']) + len(val.content['annotations']) == 165
    assert len(CocoInstances.from_source(val, check_images=True)) == 4


def test_real_coco_keeps_its_crowds_and_measures(tmp_path, shared_data):
    source = read_source(shared_data / 'coco-tiny', 'val')
    before = CocoInstances.from_source(source)
    after = converted(source, tmp_path)
    assert after.classes == before.classes and len(after.classes) == 80
    for index in range(len(before)):
        drop = [{key: value for key, value in one.items() if key != 'id'} for one in before.annotations(index)]
        assert [{key: value for key, value in one.items() if key != 'id'}
                for one in after.annotations(index)] == drop
