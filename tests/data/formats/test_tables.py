"""Tables of Hugging Face's datasets, in the conventions that are in use."""
from __future__ import annotations

import json
import re

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value
from PIL import Image as PilImage

from modelscope_fastinst.data.coco import CocoInstances
from modelscope_fastinst.data.formats import table_source, write_coco
from modelscope_fastinst.data.records import DatasetError
from tests.data.formats.tool_files import encode, expected, mask_pictures, polygon_pictures, truth

NAMES = ['fig', 'nut']


def pictures_as_rows(pictures):
    return {'image': [PilImage.fromarray(picture.pixels) for picture in pictures]}


def objects(pictures, as_segmentation, category=NAMES.index):
    return [[{'segmentation': as_segmentation(shape, picture.size), 'category': category(name), 'iscrowd': 0}
             for name, shape in picture.objects] for picture in pictures]


def by_row(data):
    """(class, counts) of the objects of each row, sorted."""
    return list(truth(data).values())


def wanted(pictures):
    return list(expected(pictures).values())


POLYGONS, MASKS = polygon_pictures(), mask_pictures()
CONVENTIONS = [
    pytest.param(POLYGONS, lambda: Features({'image': Image(), 'objects': List({
        'segmentation': List(List(Value('float64'))), 'category': ClassLabel(names=NAMES), 'iscrowd': Value('int8')})}),
        lambda: {'objects': objects(POLYGONS, lambda shape, size: [shape])}, id='list of objects, ClassLabel'),
    pytest.param(POLYGONS, lambda: Features({'image': Image(), 'objects': {
        'segmentation': List(List(List(Value('float64')))), 'category': List(ClassLabel(names=NAMES))}}),
        lambda: {'objects': [{'segmentation': [[shape] for _, shape in picture.objects],
                              'category': [NAMES.index(name) for name, _ in picture.objects]} for picture in POLYGONS]},
        id='mapping of lists'),
    pytest.param(POLYGONS, lambda: Features({'image': Image(), 'objects': List({
        'segmentation': List(List(Value('float64'))), 'label': Value('string')})}),
        lambda: {'objects': [[{'segmentation': np.reshape(shape, (-1, 2)).tolist(), 'label': name}
                              for name, shape in picture.objects] for picture in POLYGONS]},
        id='points, class names as text'),
    pytest.param(MASKS, lambda: Features({'image': Image(), 'objects': List({
        'segmentation': {'size': List(Value('int64')), 'counts': Value('string')},
        'category': ClassLabel(names=NAMES), 'iscrowd': Value('int8')})}),
        lambda: {'objects': objects(MASKS, encode)}, id='run-length encodings'),
    pytest.param(MASKS, lambda: Features({'image': Image(), 'objects': List({
        'segmentation': Value('string'), 'category': ClassLabel(names=NAMES), 'iscrowd': Value('int8')})}),
        lambda: {'objects': objects(MASKS, lambda shape, size: json.dumps(encode(shape, size)))},
        id='run-length encodings as JSON'),
    pytest.param(MASKS, lambda: Features({'image': Image(), 'objects': List({
        'mask': Image(), 'category': ClassLabel(names=NAMES)})}),
        lambda: {'objects': [[{'mask': PilImage.fromarray(shape), 'category': NAMES.index(name)}
                              for name, shape in picture.objects] for picture in MASKS]}, id='masks as pictures'),
    pytest.param(MASKS, lambda: Features({'image': Image(), 'masks': List(Image()),
                                          'labels': List(ClassLabel(names=NAMES))}),
                 lambda: {'masks': [[PilImage.fromarray(shape) for _, shape in picture.objects] for picture in MASKS],
                          'labels': [[NAMES.index(name) for name, _ in picture.objects] for picture in MASKS]},
                 id='columns of lists'),
    pytest.param(MASKS, lambda: Features({
        'image': Image(), 'annotation': Image(),
        'semantic_class_to_id': {name: Value('int64') for name in ('background', *NAMES)}}),
        lambda: {'annotation': [PilImage.fromarray(class_and_instance(picture)) for picture in MASKS],
                 'semantic_class_to_id': [{'background': 0, 'fig': 1, 'nut': 2}] * len(MASKS)},
        id='transformers: class in red, instance in green'),
    pytest.param(MASKS, lambda: Features({'image': Image(), 'instances': Image(),
                                          'label': List(ClassLabel(names=NAMES))}),
                 lambda: {'instances': [PilImage.fromarray(class_and_instance(picture)[:, :, 1]) for picture in MASKS],
                          'label': [[NAMES.index(name) for name, _ in picture.objects] for picture in MASKS]},
                 id='grey map of instances, a list of labels'),
]


def class_and_instance(picture):
    values = np.zeros((*picture.size, 3), np.uint8)
    for number, (name, shape) in enumerate(picture.objects, 1):
        values[shape] = (NAMES.index(name) + 1, number, 0)
    return values


@pytest.mark.parametrize('pictures, features, columns', CONVENTIONS)
def test_conventions(tmp_path, pictures, features, columns):
    table = Dataset.from_dict({**pictures_as_rows(pictures), **columns()}, features=features())
    source = table_source(table)
    assert source.problems == []
    data = CocoInstances.from_source(source)
    assert data.classes == NAMES
    assert by_row(data) == wanted(pictures)
    np.testing.assert_array_equal(data[1].image.permute(1, 2, 0), pictures[1].pixels)
    written = CocoInstances(*write_coco(table_source(table), tmp_path, 'train'), check_images=True)
    assert by_row(written) == wanted(pictures) and written.classes == NAMES
    np.testing.assert_array_equal(written[1].image.permute(1, 2, 0), pictures[1].pixels)


def table_of(pictures, names=NAMES):
    features = Features({'image': Image(), 'objects': List({
        'segmentation': List(List(Value('float64'))), 'category': ClassLabel(names=names), 'iscrowd': Value('int8')})})
    return Dataset.from_dict({**pictures_as_rows(pictures), 'objects': objects(
        pictures, lambda shape, size: [shape], names.index)}, features=features)


def test_numbers_without_names_are_called_by_their_numbers():
    table = Dataset.from_dict({**pictures_as_rows(POLYGONS), 'objects': [
        [{'segmentation': [shape], 'category': 9 + NAMES.index(name)} for name, shape in picture.objects]
        for picture in POLYGONS]}).cast_column('image', Image())
    source = table_source(table)
    assert source.classes == ['class 9', 'class 10'] and source.observed_classes


def test_the_order_of_a_class_label_is_kept():
    assert table_source(table_of(POLYGONS, ['nut', 'date', 'fig'])).classes == ['nut', 'date', 'fig']


def test_splits_of_a_dictionary():
    tables = DatasetDict({'train': table_of(POLYGONS[:2]), 'validation': table_of(POLYGONS[2:])})
    for split, part in (('train', POLYGONS[:2]), ('val', POLYGONS[2:]), (None, POLYGONS)):
        source = table_source(tables, split=split)
        assert by_row(CocoInstances.from_source(source)) == wanted(part)
    assert source.splits == ('train', 'val')
    with pytest.raises(DatasetError, match=r"has no split 'test' \(only train, val\)"):
        table_source(tables, split='test')


def test_a_table_is_divided_with_identical_pictures_together():
    pictures = polygon_pictures(8)
    pictures[5].pixels = pictures[2].pixels
    sides = [table_source(table_of(pictures), split=split, val_fraction=0.4) for split in ('train', 'val')]
    names = [{image['file_name'] for image in side.content['images']} for side in sides]
    assert [len(one) for one in names] == [5, 3] and not names[0] & names[1]
    twins = {'00000002.png', '00000005.png'}
    assert any(twins <= one for one in names)
    for side in sides:    # pictures and objects still belong together
        data = CocoInstances.from_source(side)
        for index in range(len(data)):
            row = int(data[index].file_name.rsplit('/')[-1][:8])
            np.testing.assert_array_equal(data[index].image.permute(1, 2, 0), pictures[row].pixels)
            assert by_row(data)[index] == wanted(pictures)[row]


def test_a_picture_lies_on_its_side(tmp_path):
    """EXIF orientation 6: stored 60 wide and 40 high, seen and annotated 40 wide and 60 high."""
    file = tmp_path / 'phone.jpg'
    exif = PilImage.Exif()
    exif[0x0112] = 6
    PilImage.fromarray(POLYGONS[0].pixels).save(file, exif=exif)
    table = Dataset.from_dict({'image': [str(file)], 'objects': [[{
        'segmentation': [[2.0, 2.0, 30.0, 2.0, 30.0, 50.0]], 'category': 'nut'}]]}).cast_column('image', Image())
    source = table_source(table)
    assert [source.content['images'][0][key] for key in ('height', 'width', 'file_name')] == [60, 40, 'phone.jpg']
    assert CocoInstances.from_source(source)[0].image.shape == (3, 60, 40)


@pytest.mark.parametrize('change, message', [
    pytest.param({'segmentation': [[1.0, 1.0, 5.0, 5.0]]}, 'table: row 1, object 0: polygon has 2 points',
                 id='two points'),
    pytest.param({'segmentation': None}, 'table: row 1, object 0: has no segmentation', id='no outline'),
    pytest.param({'category': None}, 'table: row 1, object 0: has no class', id='no class'),
])
def test_bad_objects_are_named_by_row(change, message):
    rows = objects(POLYGONS, lambda shape, size: [shape], str)
    rows[1][0] |= change
    table = Dataset.from_dict({**pictures_as_rows(POLYGONS), 'objects': rows}).cast_column('image', Image())
    with pytest.raises(DatasetError) as error:
        CocoInstances.from_source(table_source(table))
    assert message in str(error.value)
    data = CocoInstances.from_source(table_source(table), on_problem='skip')
    assert len(data.problems) == 1 and len(data.annotations(1)) == len(POLYGONS[1].objects) - 1


def test_a_damaged_picture_is_named_by_row():
    features = Features({'image': Image(), 'objects': List({
        'segmentation': List(List(Value('float64'))), 'category': Value('string')})})
    table = Dataset.from_dict({'image': [{'bytes': b'no picture', 'path': None}], 'objects': [[]]}, features=features)
    source = table_source(table, 'cells')
    assert [(one.file, one.item) for one in source.problems] == [('cells', 'row 0')]
    assert 'not an image' in source.problems[0].message


@pytest.mark.parametrize('columns, message', [
    pytest.param({'text': ['a']}, 'no column of pictures; there are text', id='no picture'),
    pytest.param({'image': ['a.png'], 'caption': ['b']}, 'the columns image, caption do not say where the objects are',
                 id='no objects'),
])
def test_tables_of_other_things(columns, message):
    with pytest.raises(DatasetError, match=re.escape(message)):
        table_source(Dataset.from_dict(columns))


def test_a_stream_is_refused():
    with pytest.raises(DatasetError, match='load it without streaming'):
        table_source(table_of(POLYGONS).to_iterable_dataset())
