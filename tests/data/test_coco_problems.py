"""COCO files with something wrong: refused by name, or skipped on request."""
from __future__ import annotations

import copy
import json

import pytest
import torch
from PIL import Image

from modelscope_fastinst.data.coco import CocoInstances, DatasetError
from modelscope_fastinst.data.collate import collate
from tests.data.coco_files import SQUARE, change, content, rle, write

TWICE = content()
TWICE['annotations'][1]['id'] = 100
IMAGE_TWICE = content()
IMAGE_TWICE['images'].append({'id': 11, 'file_name': 'empty.png', 'height': 20, 'width': 30})
CATEGORY_TWICE = content()
CATEGORY_TWICE['categories'].append({'id': 90, 'name': 'other'})
NAME_TWICE = content()
NAME_TWICE['categories'].append({'id': 91, 'name': 'unused'})

# a change, the item that is bad, what is said about it, and the ids of the objects that are left
BAD_ITEMS = [
    pytest.param(change(['annotations', 0, 'image_id'], 8), 'annotation 100', 'unknown image_id 8', [3, 5],
                 id='unknown image'),
    pytest.param(change(['annotations', 0, 'category_id'], 1), 'annotation 100', 'unknown category_id 1', [3, 5],
                 id='unknown category'),
    pytest.param(change(['annotations', 0, 'segmentation'], [[0, 0, 5, 5]]), 'annotation 100',
                 'polygon has 2 points, needs at least 3', [3, 5], id='polygon of 2 points'),
    pytest.param(change(['annotations', 1, 'segmentation', 'size'], [30, 20]), 'annotation 3',
                 'RLE of size [30, 20] (height, width), but its image is 20 x 30', [5, 100],
                 id='RLE of the wrong size'),
    pytest.param(change(['annotations', 2, 'segmentation'], rle(20, 29, kind='str') | {'size': [20, 30]}),
                 'annotation 5', 'RLE counts sum to 580 pixels', [3, 100], id='RLE of too few pixels'),
    pytest.param(change(['annotations', 0, 'segmentation', 0, 3], float('nan')), 'annotation 100',
                 'a coordinate that is not a finite number', [3, 5], id='NaN'),
    pytest.param(change(['annotations', 0, 'segmentation', 0, 3], -5), 'annotation 100',
                 'polygon has a point at (10, -5), outside of its image of 30 x 20', [3, 5], id='negative coordinate'),
    pytest.param(change(['annotations', 0, 'bbox'], [0, 0, float('nan'), 4]), 'annotation 100', 'bbox must be', [3, 5],
                 id='NaN in the box'),
    pytest.param(change(['annotations', 0, 'bbox'], [0, 0, -3, 4]), 'annotation 100', 'bbox must be', [3, 5],
                 id='box of negative width'),
    pytest.param(change(['annotations', 0, 'area'], float('nan')), 'annotation 100', 'area must be', [3, 5],
                 id='area NaN'),
    pytest.param(change(['annotations', 0, 'iscrowd'], 2), 'annotation 100', 'iscrowd must be 0 or 1, got 2', [3, 5],
                 id='iscrowd 2'),
    pytest.param(change(['annotations', 0, 'iscrowd'], 10 ** 400), 'annotation 100', 'iscrowd must be', [3, 5],
                 id='iscrowd huge'),
    pytest.param(change(['annotations', 0, 'area'], 10 ** 400), 'annotation 100', 'area must be', [3, 5],
                 id='area huge'),
    pytest.param(change(['annotations', 0, 'bbox'], [0, 10 ** 400, 3, 4]), 'annotation 100', 'bbox must be', [3, 5],
                 id='box huge'),
    pytest.param(change(['annotations', 0, 'segmentation', 0, 3], 10 ** 400), 'annotation 100',
                 'a coordinate that is not a finite number', [3, 5], id='coordinate huge'),
    pytest.param(change(['annotations', 0, 'segmentation', 0, 3], '3'), 'annotation 100',
                 'a polygon must be a flat list of numbers [x0, y0, x1, y1, ...], this one holds a str', [3, 5],
                 id='coordinate a string'),
    pytest.param(change(['annotations', 0, 'segmentation', 0, 3], True), 'annotation 100', 'this one holds a bool',
                 [3, 5], id='coordinate a truth value'),
    pytest.param(change(['annotations', 0, 'segmentation'], [[1] * 6]), 'annotation 100', 'polygon has no area', [3, 5],
                 id='polygon of one point'),
    pytest.param(change(['annotations', 0, 'segmentation'], [[0.1, 0.1, 0.2, 0.2, 0.7, 0.7, 3.1, 3.1]]),
                 'annotation 100', 'polygon has no area', [3, 5], id='polygon of one line'),
    pytest.param(change(['annotations', 1, 'segmentation', 'counts', 0], 2 ** 70), 'annotation 3',
                 'RLE counts hold a number that is too large', [5, 100], id='RLE length huge'),
    pytest.param(change(['images', 0, 'width'], 10 ** 400), 'image 11', 'width must be a whole number', [3],
                 id='width huge'),
    pytest.param(TWICE, 'annotation 100', 'id is used by more than one annotation', [5, 100],
                 id='annotation id twice'),
    pytest.param(IMAGE_TWICE, 'image 11', 'id is used by more than one image', [3, 5, 100], id='image id twice'),
    pytest.param(CATEGORY_TWICE, 'category 90', "id is used twice, for 'teddy bear' and 'other'", [3, 5, 100],
                 id='category id twice'),
    pytest.param(NAME_TWICE, 'category 91', "name 'unused' is used twice", [3, 5, 100], id='category name twice'),
    pytest.param(change(['annotations', 0, 'id'], ...), 'annotation without id (number 0 in the list, from 0)',
                 '"id" is missing', [3, 5], id='annotation without id'),
    pytest.param(change(['annotations', 0, 'image_id'], ...), 'annotation 100', '"image_id" is missing', [3, 5],
                 id='annotation without image'),
    pytest.param(change(['annotations', 0, 'segmentation'], ...), 'annotation 100', '"segmentation" is missing', [3, 5],
                 id='annotation without segmentation'),
    pytest.param(change(['annotations', 0, 'category_id'], [1]), 'annotation 100',
                 'category_id must be a whole number or a string, got [1]', [3, 5], id='category id a list'),
    pytest.param(change(['annotations', 0], None), 'annotation without id (number 0 in the list, from 0)',
                 'must be an object, got NoneType', [3, 5], id='annotation null'),
    pytest.param(change(['images', 0, 'width'], ...), 'image 11', '"width" is missing', [3], id='image without width'),
    pytest.param(change(['images', 0, 'height'], 0), 'image 11', 'height must be a whole number', [3],
                 id='image of height 0'),
    pytest.param(change(['images', 0, 'file_name'], ''), 'image 11', 'file_name must be a non-empty string', [3],
                 id='image without name'),
    pytest.param(change(['images', 0, 'file_name'], 'gone.png'), 'image 11', 'gone.png: no such image file', [3],
                 id='image file missing'),
    pytest.param(change(['images', 0, 'file_name'], 'no folder/gone.png'), 'image 11', 'no such image file', [3],
                 id='image folder missing'),
]


@pytest.mark.parametrize('data, item, message, left', BAD_ITEMS)
def test_bad_items_are_refused_by_name(folder, data, item, message, left):
    file = write(folder, copy.deepcopy(data))
    with pytest.raises(DatasetError) as caught:
        CocoInstances(file, folder)
    [problem] = caught.value.problems
    assert (problem.file, problem.item) == (file, item) and message in problem.message
    assert str(problem) in str(caught.value) and str(problem).startswith(f'{file}: {item}: ')
    assert "on_problem='skip'" in str(caught.value)


@pytest.mark.parametrize('data, item, message, left', BAD_ITEMS)
def test_bad_items_are_skipped_on_request(folder, data, item, message, left, caplog):
    dataset = CocoInstances(write(folder, copy.deepcopy(data)), folder, on_problem='skip')
    assert [problem.item for problem in dataset.problems] == [item]
    samples = list(dataset)
    assert sorted(one['id'] for sample in samples for one in sample.annotations if not one['iscrowd']) == left
    assert item in caplog.text and '1 bad item skipped' in caplog.text


def test_all_bad_items_are_reported_and_the_first_listed(folder):
    data = content()
    data['annotations'] += [{'id': 1000 + index, 'image_id': 11, 'category_id': 5, 'segmentation': SQUARE}
                            for index in range(30)]
    with pytest.raises(DatasetError, match='30 bad items(.|\n)*annotation 1019(.|\n)*and 10 more') as caught:
        CocoInstances(write(folder, data), folder)
    assert len(caught.value.problems) == 30 and 'annotation 1020' not in str(caught.value)


@pytest.mark.parametrize('text, message', [
    pytest.param(json.dumps(content())[:700], r'instances.json: is not valid JSON, or is cut off .*line 1 column',
                 id='cut off in the middle'),
    pytest.param('', r'instances.json: is empty \(0 bytes\)', id='zero bytes'),
    pytest.param('[]', 'holds an object with "images", "annotations" and "categories", this one a list', id='results'),
    pytest.param(json.dumps({'images': [], 'categories': []}), '"annotations" is missing', id='no annotations key'),
    pytest.param(json.dumps({'images': {}, 'annotations': [], 'categories': []}), '"images" is a dict, not a list',
                 id='images no list'),
    pytest.param(json.dumps(change(['categories'], [])), '"categories" holds no usable category', id='no category'),
    pytest.param(json.dumps(change(['annotations'], [])), 'nothing to use: 3 images, none with an annotated object',
                 id='no annotation'),
    pytest.param(json.dumps(change(['images'], []) | {'annotations': []}), 'nothing to use: 0 images', id='no image'),
])
def test_unusable_files(folder, text, message):
    for on_problem in ('raise', 'skip'):
        with pytest.raises(DatasetError, match=message):
            CocoInstances(write(folder, text), folder, on_problem=on_problem)


def test_a_file_that_is_not_utf8(folder):
    (folder / 'latin.json').write_bytes(json.dumps(content(), ensure_ascii=False).replace('bär', 'b\xe4r')
                                        .encode('latin-1', 'replace') + b'\xff')
    with pytest.raises(DatasetError, match='latin.json: is not valid JSON'):
        CocoInstances(folder / 'latin.json', folder)


def test_a_number_that_python_does_not_read(folder):
    text = json.dumps(content()).replace('40.0', '4' * 5000)
    with pytest.raises(DatasetError, match='instances.json: is not valid JSON .*digits'):
        CocoInstances(write(folder, text), folder)


@pytest.mark.parametrize('path, value', [
    pytest.param(['annotations', 0, 'id'], 2 ** 70, id='id beyond 64 bits'),
    pytest.param(['annotations', 0, 'id'], 2 ** 63 + 1, id='unsigned hash as id'),
    pytest.param(['annotations', 0, 'iscrowd'], None, id='iscrowd null'),
    pytest.param(['annotations', 0, 'segmentation'], [SQUARE[0], [1] * 6], id='one of two polygons without area'),
    pytest.param(['annotations', 0, 'segmentation'], [[5, 5, 5.01, 5, 5, 5.01]], id='tiny polygon'),
    pytest.param(['annotations', 0, 'segmentation'], [[2, 2, 6, 6, 6, 2, 2, 6]], id='polygon that crosses itself'),
])
def test_unusual_items_that_are_no_problem(folder, path, value):
    dataset = CocoInstances(write(folder, change(path, value)), folder)
    expected = value if path[-1] == 'id' else 100
    [found] = [one for one in dataset[0].annotations if one['id'] == expected]
    assert found['iscrowd'] == 0 and type(found['id']) is int
    assert not dataset.problems


def test_a_byte_order_mark_is_no_problem(folder):
    (folder / 'mark.json').write_text(json.dumps(content()), encoding='utf-8-sig')
    assert len(CocoInstances(folder / 'mark.json', folder)) == 2


@pytest.mark.parametrize('arguments, message', [
    pytest.param({'annotation_file': 'missing.json'}, 'missing.json: annotation file cannot be opened', id='no file'),
    pytest.param({'image_dir': 'nowhere'}, 'nowhere: no such image folder', id='no image folder'),
    pytest.param({'classes': ['cat', 'unused']}, r"has no classes \['cat'\]; it has \['teddy bear', 'unused', '人物'\]",
                 id='unknown class'),
    pytest.param({'classes': ['unused', 'unused']}, 'must be a list of different names', id='class twice'),
    pytest.param({'classes': 'unused'}, 'must be a list of different names', id='classes a string'),
    pytest.param({'classes': []}, 'must be a list of different names', id='no class'),
    pytest.param({'classes': ['unused']}, r"none with an annotated object of the classes \['unused'\]",
                 id='class without objects'),
])
def test_wrong_arguments(folder, arguments, message):
    with pytest.raises(DatasetError, match=message):
        CocoInstances(**{'annotation_file': write(folder, content()), 'image_dir': folder, **arguments})


def test_a_choice_that_does_not_exist(folder):
    with pytest.raises(ValueError, match="on_problem must be 'raise' or 'skip', got 'ignore'"):
        CocoInstances(write(folder, content()), folder, on_problem='ignore')


DAMAGED = {
    'cut off': lambda path: path.write_bytes(path.read_bytes()[:60]),
    'zero bytes': lambda path: path.write_bytes(b''),
    'text': lambda path: path.write_text('a text'),
    'another size': lambda path: Image.new('RGB', (31, 20)).save(path),
}
REASONS = {'cut off': 'is damaged', 'zero bytes': 'is empty', 'text': 'not an image', 'another size':
           r'is 31 x 20 pixels \(width x height\), the annotation file says 30 x 20'}


@pytest.mark.parametrize('damage', [pytest.param(name, id=name) for name in DAMAGED])
def test_damaged_images_are_named_when_drawn(folder, damage):
    DAMAGED[damage](folder / '图 2.png')
    data = CocoInstances(write(folder, content()), folder)
    assert data[0].image_id == 11
    with pytest.raises(DatasetError, match=f'instances.json: image 7: .*图 2.png: .*{REASONS[damage]}'):
        data[1]


@pytest.mark.parametrize('damage', [pytest.param(name, id=name) for name in DAMAGED])
def test_damaged_images_are_replaced_where_problems_are_skipped(folder, damage):
    DAMAGED[damage](folder / '图 2.png')
    data = CocoInstances(write(folder, content()), folder, on_problem='skip')
    assert [data[index].image_id for index in (0, 1, 1)] == [11, 11, 11]
    assert [problem.item for problem in data.problems] == ['image 7']


def test_not_one_readable_image(folder):
    for record in content()['images']:
        (folder / record['file_name']).write_bytes(b'')
    data = CocoInstances(write(folder, content()), folder, on_problem='skip')
    with pytest.raises(DatasetError, match='not one image can be read'):
        data[0]


@pytest.mark.parametrize('damage', ['zero bytes', 'text', 'another size'])
def test_headers_can_be_checked_at_once(folder, damage):
    DAMAGED[damage](folder / '图 2.png')
    file = write(folder, content())
    with pytest.raises(DatasetError, match='image 7: .*图 2.png'):
        CocoInstances(file, folder, check_images=True)
    assert CocoInstances(file, folder, on_problem='skip', check_images=True).image_ids == [11]


def test_a_damaged_image_in_a_worker_keeps_its_name(folder):
    (folder / '图 2.png').write_bytes(b'')
    data = CocoInstances(write(folder, content()), folder)
    with pytest.raises(DatasetError, match='image 7'):
        list(torch.utils.data.DataLoader(data, num_workers=1, collate_fn=collate))
