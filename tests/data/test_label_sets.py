"""The classes of the published data sets."""
from __future__ import annotations

import json

import pytest

from modelscope_fastinst import zoo
from modelscope_fastinst.data.label_sets import (
    ADE20K,
    ADE20K_INSTANCE,
    ADE20K_PANOPTIC,
    CITYSCAPES,
    COCO_INSTANCE,
    COCO_PANOPTIC,
    LABEL_SETS,
    LabelSet,
)


@pytest.mark.parametrize(('name', 'classes', 'things', 'first', 'last'), [
    pytest.param('coco-instance', 80, 80, 1, 90, id='COCO, instances'),
    pytest.param('coco-panoptic', 133, 80, 1, 200, id='COCO, panoptic'),
    pytest.param('ade20k', 150, 100, 1, 150, id='ADE20K, scene parsing'),
    pytest.param('ade20k-panoptic', 150, 100, 0, 149, id='ADE20K, panoptic'),
    pytest.param('ade20k-instance', 100, 100, 7, 149, id='ADE20K, instances'),
    pytest.param('cityscapes', 19, 8, 7, 33, id='Cityscapes'),
    pytest.param('cityscapes-instance', 8, 8, 24, 33, id='Cityscapes, instances'),
])
def test_numbers_are_the_published_ones(name, classes, things, first, last):
    labels = LABEL_SETS[name]
    assert len(labels) == len(labels.ids) == len(set(labels.ids)) == len(set(labels.names)) == classes
    assert len(labels.things) == len(labels.thing_indices) == things
    assert (labels.ids[0], labels.ids[-1]) == (first, last) and list(labels.ids) == sorted(labels.ids)
    assert [labels.names[index] for index in sorted(labels.thing_indices)] == list(labels.things)
    assert all(text == text.strip() for text in labels.names)


@pytest.mark.parametrize(('labels', 'number', 'index', 'name', 'thing'), [
    pytest.param(COCO_PANOPTIC, 13, 11, 'stop sign', True, id='COCO: after the first gap'),
    pytest.param(COCO_PANOPTIC, 90, 79, 'toothbrush', True, id='COCO: the last thing'),
    pytest.param(COCO_PANOPTIC, 92, 80, 'banner', False, id='COCO: the first stuff'),
    pytest.param(COCO_PANOPTIC, 149, 100, 'road', False, id='COCO: stuff'),
    pytest.param(COCO_PANOPTIC, 187, 119, 'sky-other-merged', False, id='COCO: merged stuff'),
    pytest.param(ADE20K, 1, 0, 'wall', False, id='ADE20K: the first'),
    pytest.param(ADE20K, 13, 12, 'person', True, id='ADE20K: a thing'),
    pytest.param(ADE20K, 54, 53, 'stairs', True, id='ADE20K: stairs are things'),
    pytest.param(ADE20K, 60, 59, 'stairway', False, id='ADE20K: a stairway is stuff'),
    pytest.param(ADE20K_PANOPTIC, 12, 12, 'person', True, id='ADE20K, panoptic: ids from 0'),
    pytest.param(ADE20K_INSTANCE, 12, 3, 'person', True, id='ADE20K, instances: ids of the panoptic files'),
    pytest.param(CITYSCAPES, 11, 2, 'building', False, id='Cityscapes: train id 2'),
    pytest.param(CITYSCAPES, 26, 13, 'car', True, id='Cityscapes: train id 13'),
    pytest.param(CITYSCAPES, 31, 16, 'train', True, id='Cityscapes: after caravan and trailer'),
])
def test_an_id_of_the_files_is_this_class(labels, number, index, name, thing):
    assert labels.index_of[number] == index
    assert labels.names[index] == name
    assert (index in labels.thing_indices) == (name in labels.things) == thing


@pytest.mark.parametrize(('labels', 'numbers'), [
    pytest.param(COCO_PANOPTIC, (0, 12, 26, 91, 94, 201), id='COCO: unused ids'),
    pytest.param(ADE20K, (0, 151, 255), id='ADE20K: other'),
    pytest.param(CITYSCAPES, (*range(7), 9, 10, 14, 15, 16, 18, 29, 30, 34, -1), id='Cityscapes: void of the 34 ids'),
])
def test_other_ids_are_void(labels, numbers):
    assert not set(numbers) & set(labels.index_of)


def test_coco_names_are_those_of_the_published_files(shared_data):
    categories = json.loads((shared_data / 'panoptic' / 'panoptic_examples.json').read_text('utf-8'))['categories']
    assert [(c['id'], c['name'], bool(c['isthing'])) for c in categories] == [
        (number, name, name in COCO_PANOPTIC.things)
        for number, name in zip(COCO_PANOPTIC.ids, COCO_PANOPTIC.names, strict=True)]


def test_the_published_fastinst_models_have_coco_s_things():
    assert tuple(zoo.configuration('fastinst_d3_r50')['model']['classes']) == COCO_INSTANCE.names


def test_ids_without_a_name_are_an_error():
    with pytest.raises(ValueError, match='mine: 2 ids for 1 names'):
        LabelSet('mine', (1, 2), ('a',), ())
