"""LabelMe's shapes, and files that are wrong."""
from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from modelscope_fastinst.data.coco import CocoInstances
from modelscope_fastinst.data.formats import read_source, write_coco
from modelscope_fastinst.data.formats.labelme import _outline
from modelscope_fastinst.data.records import DatasetError
from tests.data.formats.tool_files import expected, labelme_content, polygon_pictures, truth, write_labelme

PICTURES = polygon_pictures(2)


def shape(kind, points, **more):
    return {'label': 'nut', 'points': points, 'shape_type': kind, 'group_id': None, 'flags': {}, **more}


def write_shapes(folder, shapes, **changes):
    """One picture, 60 wide and 40 high, with these shapes. -> its JSON file"""
    write_labelme(folder, PICTURES[:1])
    file = folder / 'IMG_0.json'
    file.write_text(json.dumps({**labelme_content(PICTURES[0]), 'shapes': shapes, **changes}), 'utf-8')
    return file


def masks_of(folder):
    data = CocoInstances.from_source(read_source(folder))
    return coco_mask.decode([one['segmentation'] for one in data.annotations(0)]).transpose(2, 0, 1)


def test_a_rectangle_has_any_two_corners(tmp_path):
    write_shapes(tmp_path, [shape('rectangle', [[30, 25], [10, 5]])])
    wanted = np.zeros((40, 60))
    wanted[5:25, 10:30] = 1
    np.testing.assert_array_equal(masks_of(tmp_path)[0], wanted)


def test_a_circle_has_a_centre_and_a_point(tmp_path):
    write_shapes(tmp_path, [shape('circle', [[30, 20], [30, 32]])])
    y, x = np.mgrid[:40, :60] + 0.5
    different = masks_of(tmp_path)[0] != (np.hypot(x - 30, y - 20) < 12)
    assert (np.abs(np.hypot(x - 30, y - 20) - 12)[different] < 1).all() and different.sum() < 30


def test_a_circle_is_cut_off_at_the_border(tmp_path):
    write_shapes(tmp_path, [shape('circle', [[3, 20], [3, 32]])])
    y, x = np.mgrid[:40, :60] + 0.5
    different = masks_of(tmp_path)[0] != (np.hypot(x - 3, y - 20) < 12)
    assert different.sum() < 20 and masks_of(tmp_path)[0][:, 0].sum() > 20


def test_shapes_of_a_group_are_one_object(tmp_path):
    left, right, other = [[2, 2], [12, 2], [12, 12]], [[20, 2], [30, 2], [30, 12]], [[40, 20], [50, 20], [50, 30]]
    write_shapes(tmp_path, [
        shape('polygon', left, group_id=1), shape('polygon', other), shape('polygon', right, group_id=1),
        shape('polygon', other, group_id=1, label='fig'), shape('polygon', left, group_id=2)])
    source = read_source(tmp_path)
    assert [source.origin(number)[1] for number in range(1, 5)] == ['shapes 0, 2', 'shape 1', 'shape 3', 'shape 4']
    first = masks_of(tmp_path)[0]
    assert first[3, 11] and first[3, 29] and not first[3, 16]


def test_a_group_of_a_mask_and_a_polygon(tmp_path):
    pictures = polygon_pictures(1)
    block = np.zeros((40, 60), bool)
    block[20:30, 40:50] = True
    pictures[0].objects = [('nut', block), ('nut', [2.0, 2.0, 12.0, 2.0, 12.0, 12.0])]
    content = labelme_content(pictures[0])
    for one in content['shapes']:
        one['group_id'] = 5
    write_shapes(tmp_path, content['shapes'])
    masks = masks_of(tmp_path)
    assert len(masks) == 1 and masks[0][25, 45] and masks[0][3, 10]


def test_a_picture_inside_the_file(tmp_path):
    write_labelme(tmp_path / 'data', PICTURES, embed=True)
    Image.fromarray(PICTURES[1].pixels).save(tmp_path / 'data' / 'IMG_1.png')     # this one lies beside it as well
    data = CocoInstances.from_source(read_source(tmp_path / 'data'))
    assert truth(data) == expected(PICTURES)
    written = CocoInstances(*write_coco(read_source(tmp_path / 'data'), tmp_path / 'coco', 'train'), check_images=True)
    for both in zip(data, written, PICTURES, strict=True):
        for sample in both[:2]:
            np.testing.assert_array_equal(sample.image.permute(1, 2, 0), both[2].pixels)


@pytest.mark.parametrize('path', [
    pytest.param('..\\photos\\IMG_0.png', id='Windows'),
    pytest.param('../photos/IMG_0.png', id='another folder'),
    pytest.param('D:\\pictures of somebody\\IMG_0.png', id='a disk of somebody else'),
    pytest.param('renamed.png', id='renamed'),
    pytest.param(None, id='none'),
])
def test_places_of_the_picture(tmp_path, path):
    elsewhere = path is not None and 'photos' in path
    file = write_shapes(tmp_path / 'labels', labelme_content(PICTURES[0])['shapes'], imagePath=path)
    if elsewhere:
        (tmp_path / 'photos').mkdir()
        (file.parent / 'IMG_0.png').rename(tmp_path / 'photos' / 'IMG_0.png')
    data = CocoInstances.from_source(read_source(file.parent), check_images=True)
    assert truth(data) == expected(PICTURES[:1])


def test_images_without_a_file_are_not_labelled(tmp_path):
    write_labelme(tmp_path, PICTURES)
    (tmp_path / 'IMG_0.json').unlink()
    source = read_source(tmp_path)
    assert len(source.content['images']) == 1 and 'not labelled: 1' in source.notes[0]


def test_labels_that_are_no_class_are_left_out(tmp_path):
    triangle = [[2, 2], [12, 2], [12, 12]]
    write_shapes(tmp_path, [shape('polygon', triangle), shape('polygon', triangle, label='__ignore__')])
    source = read_source(tmp_path)
    assert source.classes == ['nut'] and len(source.content['annotations']) == 1


def test_an_old_file_without_types_and_sizes(tmp_path):
    content = labelme_content(PICTURES[0])
    for one in content['shapes']:
        del one['shape_type'], one['group_id'], one['flags']
    write_shapes(tmp_path, content['shapes'], imageHeight=None, imageWidth=None)
    assert truth(CocoInstances.from_source(read_source(tmp_path))) == expected(PICTURES[:1])


@pytest.mark.parametrize('size', [pytest.param((60, 40), id='as seen'), pytest.param((40, 60), id='as stored')])
def test_a_picture_that_lies_on_its_side(tmp_path, size):
    """EXIF orientation 6: new versions of LabelMe show and measure the picture upright, old ones as it is stored."""
    file = write_shapes(tmp_path, [shape('polygon', [[2, 2], [38, 2], [38, 38]])], imageHeight=size[0],
                        imageWidth=size[1])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PICTURES[0].pixels).save(file.with_suffix('.png'), exif=exif)
    data = CocoInstances.from_source(read_source(tmp_path), check_images=True)
    assert data.sizes == [size] and data[0].image.shape[1:] == size


@pytest.mark.parametrize('bad, message', [
    pytest.param(shape('linestrip', [[1, 1], [5, 5]]), "'nut' is a linestrip, which has no area", id='linestrip'),
    pytest.param(shape('point', [[1, 1]]), "'nut' is a point, which has no area", id='point'),
    pytest.param(shape('spline', [[1, 1], [5, 5], [9, 1]]), "shape_type 'spline' is not known", id='unknown type'),
    pytest.param(shape('polygon', [[1, 1], [5, 5]]), 'polygon has 2 points, needs at least 3', id='two points'),
    pytest.param(shape('rectangle', [[1, 1]]), 'rectangle has 1 points, needs at least 2', id='one corner'),
    pytest.param(shape('circle', [[1, 1], [1, 1]]), 'circle has the radius 0', id='no radius'),
    pytest.param(shape('circle', [[1, 1]]), 'circle has 1 points', id='no point on the circle'),
    pytest.param(shape('polygon', [[1, 1], [5, 5], [70, 1]]), 'polygon has a point at (70, 1), outside of its image',
                 id='outside'),
    pytest.param(shape('polygon', [[1, 1], [5, 5], [9]]), 'points must be a list of [x, y]', id='half a point'),
    pytest.param(shape('polygon', None), 'points must be a list of [x, y], got None', id='no points'),
    pytest.param(shape('polygon', [[1, 1], [5, 5], [9, 1]], label=''), 'label must be a non-empty string',
                 id='no label'),
    pytest.param(shape('mask', [[1, 1], [5, 5]], mask='bm8='), 'the bitmap is damaged', id='damaged mask'),
    pytest.param(shape('mask', [[1, 1], [5, 5]]), 'mask needs two points', id='no mask'),
])
def test_bad_shapes_are_named(tmp_path, bad, message):
    good = shape('polygon', [[2, 2], [12, 2], [12, 12]])
    file = write_shapes(tmp_path, [good, bad])
    with pytest.raises(DatasetError, match=re.escape(f'{file}: shape 1: {message}')):
        CocoInstances.from_source(read_source(tmp_path))
    data = CocoInstances.from_source(read_source(tmp_path), on_problem='skip')
    assert len(data.annotations(0)) == 1 and len(data.problems) == 1


@pytest.mark.parametrize('spoil, item, message', [
    pytest.param(lambda file: file.write_text('{"shapes": [', 'utf-8'), 'file', 'is not valid JSON', id='cut off'),
    pytest.param(lambda file: file.with_suffix('.png').unlink(), 'image', 'IMG_0.png: no such image file (imagePath)',
                 id='no image'),
    pytest.param(lambda file: file.with_suffix('.png').write_bytes(b'x'), 'image', 'is not an image', id='no picture'),
    pytest.param(lambda file: file.write_text(json.dumps({**json.loads(file.read_text('utf-8')), 'imageWidth': 61})),
                 'image', 'is 60 x 40 pixels (width x height), its annotations are for 61 x 40', id='another size'),
])
def test_bad_files_are_named(tmp_path, spoil, item, message):
    write_labelme(tmp_path, PICTURES)
    spoil(tmp_path / 'IMG_0.json')
    source = read_source(tmp_path)
    assert [(one.file, one.item) for one in source.problems] == [(str(tmp_path / 'IMG_0.json'), item)]
    assert message in source.problems[0].message
    assert [image['file_name'] for image in source.content['images']] == ['IMG_1.png']


@given(st.floats(0, 200), st.floats(0, 100), st.floats(0.5, 150), st.floats(0, 6.28))
def test_any_circle_stays_near_the_circle_and_inside(x, y, radius, angle):
    point = [x + radius * math.cos(angle), y + radius * math.sin(angle)]
    (polygon,) = _outline(shape('circle', [[x, y], point]), (100, 200))
    points = np.array(polygon).reshape(-1, 2)
    assert (points >= 0).all() and (points <= (200, 100)).all()
    distance = np.hypot(*(points - (x, y)).T)
    assert (distance <= radius + 0.02).all()
    free = (points > 0).all(1) & (points < (200, 100)).all(1)
    assert (np.abs(distance - radius)[free] < 0.02).all()


@given(st.lists(st.tuples(st.floats(0, 60), st.floats(0, 40)), min_size=3, max_size=12))
def test_any_polygon_keeps_its_points(points):
    assert _outline(shape('polygon', [list(point) for point in points]), (40, 60)) == [
        [coordinate for point in points for coordinate in point]]
