"""Panoptic and semantic data sets in the layouts in which they are published, built here as trees of small pictures."""
from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest

from modelscope_fastinst.data.formats import recognise
from modelscope_fastinst.data.label_sets import ADE20K, CITYSCAPES, COCO_PANOPTIC
from modelscope_fastinst.data.maps import SegmentationMaps, read_maps, what_is_there
from modelscope_fastinst.data.records import DatasetError
from tests.data.maps.trees import (
    Scene,
    ade_scenes,
    city_scenes,
    save,
    scenes,
    write_ade,
    write_cityscapes,
    write_coco,
    write_semantic,
)

COCO = scenes(COCO_PANOPTIC, ['000000000139', '000000000285'], ('person', 'kite'), ('sea', 'sky-other-merged'),
              crowd=True)


def assert_semantic(data: SegmentationMaps, pictures: list[Scene], names: tuple[str, ...]) -> None:
    """The truth is the scenes' classes, a target mask is what one class covers."""
    assert data.classes == list(names)
    assert data.things is None
    assert len(data) == len(pictures)
    for sample, scene in zip((data[index] for index in range(len(data))), pictures, strict=True):
        np.testing.assert_array_equal(sample.truth.labels, scene.labels)
        assert sample.truth.labels.dtype == np.int16
        assert sample.target.labels.tolist() == [label for label in np.unique(scene.labels).tolist() if label >= 0]
        for label, mask in zip(sample.target.labels.tolist(), sample.target.masks.numpy(), strict=True):
            np.testing.assert_array_equal(mask, scene.labels == label)


def assert_panoptic(data: SegmentationMaps, pictures: list[Scene], labels) -> None:
    """The truth has each segment once, crowds too; targets are the same without crowds."""
    assert data.classes == list(labels.names)
    assert data.things == list(labels.things)
    assert len(data) == len(pictures)
    for sample, scene in zip((data[index] for index in range(len(data))), pictures, strict=True):
        truth = sample.truth
        assert truth.ids.dtype == np.int32
        wanted = scene.segments(labels)
        np.testing.assert_array_equal(truth.ids == 0, scene.labels == -1)
        assert [segment.id for segment in truth.segments] == sorted(segment.id for segment in truth.segments)
        found = {(segment.label, (truth.ids == segment.id).tobytes()): segment for segment in truth.segments}
        assert len(found) == len(wanted)
        for label, _, crowd, mask in wanted:
            segment = found[label, mask.tobytes()]
            assert segment.iscrowd == crowd
            assert segment.isthing == (labels.names[label] in labels.things)
            assert segment.area == mask.sum()
            rows, columns = np.nonzero(mask)
            assert segment.bbox == (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
            assert segment.score == 1
        targets = sorted((label, mask.tobytes()) for label, mask in zip(
            sample.target.labels.tolist(), sample.target.masks.numpy(), strict=True))
        assert targets == sorted((label, mask.tobytes()) for label, _, crowd, mask in wanted if not crowd)


def assert_instances(data: SegmentationMaps, pictures: list[Scene], labels) -> None:
    """Targets are the objects of the things, numbered among the things; crowds are annotations only."""
    assert data.classes == list(labels.things)
    for sample, scene in zip((data[index] for index in range(len(data))), pictures, strict=True):
        wanted = [(labels.things.index(labels.names[label]), mask.tobytes(), crowd)
                  for label, number, crowd, mask in scene.segments(labels) if number]
        assert sorted(zip(sample.target.labels.tolist(), (mask.tobytes() for mask in sample.target.masks.numpy()),
                          strict=True)) == sorted(one[:2] for one in wanted if not one[2])
        assert sorted((one['category_id'], one['iscrowd']) for one in sample.annotations) == \
            sorted((label, int(crowd)) for label, _, crowd in wanted)
        assert sample.truth is None


CHECKS = {'semantic': lambda data, pictures, labels: assert_semantic(data, pictures, labels.names),
          'panoptic': assert_panoptic, 'instance': assert_instances}


@pytest.mark.parametrize('task', ['panoptic', 'semantic', 'instance'])
def test_coco_panoptic(tmp_path, task):
    write_coco(tmp_path, COCO, COCO_PANOPTIC, 'train')
    write_coco(tmp_path, COCO[:1], COCO_PANOPTIC, 'val')
    data = SegmentationMaps(read_maps(tmp_path, task, 'train'), task)
    CHECKS[task](data, COCO, COCO_PANOPTIC)
    assert data.image_ids == [139, 285]
    assert data.sizes == [(24, 36)] * 2
    assert len(SegmentationMaps(read_maps(tmp_path, task, 'val'), task)) == 1


@pytest.mark.parametrize('changes', [
    pytest.param({'panoptic_train2017': 'annotations/panoptic_train2017'}, id='PNGs unpacked beside the JSON'),
    pytest.param({'train2017': 'images/train2017'}, id='images in images/'),
    pytest.param({'annotations/panoptic_train2017.json': 'panoptic_train2017.json'}, id='the JSON at the top'),
    pytest.param({'annotations/panoptic_train2017.json': 'annotations/panoptic_train.json',
                  'panoptic_train2017': 'panoptic_train', 'train2017': 'images/train'}, id='no year'),
    pytest.param({'annotations/panoptic_train2017.json': 'examples.json', 'panoptic_train2017': 'examples',
                  'train2017': 'input_images'}, id='as the sample of the API'),
])
def test_coco_panoptic_as_people_unpack_it(tmp_path, changes):
    write_coco(tmp_path, COCO, COCO_PANOPTIC, 'train')
    for old, new in changes.items():
        (tmp_path / new).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(tmp_path / old, tmp_path / new)
    assert_panoptic(SegmentationMaps(read_maps(tmp_path, 'panoptic', 'train', or_all=True), 'panoptic'), COCO,
                    COCO_PANOPTIC)


def test_the_sample_of_the_coco_panoptic_api(shared_data):
    folder = shared_data / 'panoptic'
    data = SegmentationMaps(read_maps(folder, 'panoptic'), 'panoptic')
    published = {one['image_id']: one for one in
                 json.loads((folder / 'panoptic_examples.json').read_text('utf-8'))['annotations']}
    assert (len(data), len(data.classes), len(data.things)) == (2, 133, 80)
    assert data.classes == list(COCO_PANOPTIC.names)
    for index in range(2):
        sample = data[index]
        assert {(one.id, one.area, one.bbox, one.iscrowd) for one in sample.truth.segments} == \
            {(one['id'], one['area'], tuple(one['bbox']), bool(one['iscrowd']))
             for one in published[sample.image_id]['segments_info']}


ADE_TREES = [
    pytest.param('semantic', ('annotations',), id='semantic'),
    pytest.param('semantic', ('annotations_detectron2',), id='semantic, prepared'),
    pytest.param('semantic', ('panoptic',), id='semantic, of the panoptic file'),
    pytest.param('panoptic', ('annotations', 'annotations_instance', 'panoptic'), id='panoptic'),
    pytest.param('panoptic', ('annotations', 'annotations_instance'), id='panoptic, composed'),
    pytest.param('instance', ('annotations_instance',), id='instance'),
    pytest.param('instance', ('panoptic',), id='instance, of the panoptic file'),
]


@pytest.mark.parametrize(('task', 'parts'), ADE_TREES)
@pytest.mark.parametrize('inside', [False, True])
def test_ade20k(tmp_path, task, parts, inside):
    for split in ('train', 'val'):
        write_ade(tmp_path, ade_scenes(split), split, parts=parts)
    root = tmp_path / 'ADEChallengeData2016' if inside else tmp_path
    for split in ('train', 'val'):
        CHECKS[task](SegmentationMaps(read_maps(root, task, split), task), ade_scenes(split), ADE20K)


def test_pixels_of_ade20k_things_without_an_object_are_void(tmp_path):
    """As in the panoptic files of Mask2Former's script, which takes stuff from the one and objects from the other."""
    scene, = ade_scenes(count=1)
    write_ade(tmp_path, [scene], parts=['annotations', 'annotations_instance'])
    folder = tmp_path / 'ADEChallengeData2016/annotations_instance/training'
    save(folder / f'{scene.name}.png', np.zeros((24, 36, 3), np.uint8))
    truth = SegmentationMaps(read_maps(tmp_path, 'panoptic', 'train'), 'panoptic')[0].truth
    np.testing.assert_array_equal(truth.ids == 0, (scene.labels < 0) | (scene.objects > 0))
    assert not any(segment.isthing for segment in truth.segments)


CITY_TREES = [
    pytest.param('semantic', ('labelIds',), id='semantic'),
    pytest.param('semantic', ('labelTrainIds',), id='semantic, train ids'),
    pytest.param('semantic', ('instanceIds',), id='semantic, of instance ids'),
    pytest.param('semantic', ('panoptic',), id='semantic, of the panoptic file'),
    pytest.param('panoptic', ('labelIds', 'instanceIds', 'panoptic'), id='panoptic'),
    pytest.param('panoptic', ('instanceIds',), id='panoptic, of instance ids'),
    pytest.param('instance', ('instanceIds',), id='instance'),
    pytest.param('instance', ('panoptic',), id='instance, of the panoptic file'),
]


@pytest.mark.parametrize(('task', 'parts'), CITY_TREES)
@pytest.mark.parametrize('train_ids', [False, True])
def test_cityscapes(tmp_path, task, parts, train_ids):
    for split in ('train', 'val'):
        write_cityscapes(tmp_path, city_scenes(split), split, parts=parts, train_ids=train_ids)
    for split in ('train', 'val'):
        data = SegmentationMaps(read_maps(tmp_path, task, split), task)
        CHECKS[task](data, city_scenes(split), CITYSCAPES)
        assert data.image_ids == ['aachen_000000_000019', 'bochum_000001_000019']
        assert data.sizes == [(24, 36)] * 2


PNG_TREES = [
    pytest.param('images/{split}', 'labels/{split}', id='images and labels'),
    pytest.param('img_dir/{split}', 'ann_dir/{split}', id='img_dir and ann_dir'),
    pytest.param('{split}/images', '{split}/masks', id='in a folder a split'),
    pytest.param('images/{split}ing', 'annotations/{split}ing', id='training'),
]
NAMES = ('tree', 'roof', 'lane', 'lake')


def png_scenes(split: str) -> list[Scene]:
    found = scenes(CITYSCAPES, [f'{split}1', f'{split}2'], ('person', 'rider'), ('road', 'sky'), seed=len(split))
    number = {CITYSCAPES.names.index(name): index for index, name in enumerate(('person', 'rider', 'road', 'sky'))}
    for scene in found:
        scene.labels = np.vectorize(lambda one: number.get(one, -1))(scene.labels)
    return found


@pytest.mark.parametrize(('images', 'labels'), PNG_TREES)
def test_semantic_pngs(tmp_path, images, labels):
    for split in ('train', 'val'):
        part = {'split': 'valid' if split == 'val' and '{split}ing' not in images else split}
        if '{split}ing' in images and split == 'val':
            part = {'split': 'test'}
        write_semantic(tmp_path / images.format(**part), tmp_path / labels.format(**part), png_scenes(split))
    (tmp_path / 'classes.txt').write_text('\n'.join(NAMES), 'utf-8')
    for split in ('train', 'test' if '{split}ing' in images else 'val'):
        source = read_maps(tmp_path, 'semantic', split)
        assert source.format == 'semantic-png'
        assert_semantic(SegmentationMaps(source, 'semantic'), png_scenes('val' if split == 'test' else split), NAMES)


@pytest.mark.parametrize('options', [
    pytest.param({'offset': 1, 'void': 0}, id='void 0, classes from 1'),
    pytest.param({'offset': 0, 'void': 200}, id='void 200'),
    pytest.param({'offset': 7, 'void': 255}, id='classes from 7'),
])
def test_what_the_values_of_semantic_pngs_mean(tmp_path, options):
    write_semantic(tmp_path / 'images', tmp_path / 'labels', png_scenes('train'), **options)
    source = read_maps(tmp_path, 'semantic', classes=NAMES, label_offset=options['offset'], void_label=options['void'])
    assert_semantic(SegmentationMaps(source, 'semantic'), png_scenes('train'), NAMES)


def test_a_share_for_validation(tmp_path):
    write_coco(tmp_path, scenes(COCO_PANOPTIC, [str(n) for n in range(10)], ('person', 'kite'), ('sea', 'sand')),
               COCO_PANOPTIC)
    parts = {split: read_maps(tmp_path, 'panoptic', split, val_fraction=0.3).image_ids for split in ('train', 'val')}
    assert len(parts['val']) == 3
    assert sorted(parts['train'] + parts['val']) == list(range(10))
    with pytest.raises(DatasetError, match=r'has no validation split \(only train\).*--val-fraction.*"panoptic"'):
        read_maps(tmp_path, 'panoptic', 'val')


def test_which_tasks_a_folder_serves(tmp_path):
    write_coco(tmp_path / 'coco', COCO, COCO_PANOPTIC)
    write_ade(tmp_path / 'ade', ade_scenes(), parts=['annotations'])
    write_cityscapes(tmp_path / 'city', city_scenes())
    write_semantic(tmp_path / 'png/images', tmp_path / 'png/labels', png_scenes('train'))
    assert what_is_there(tmp_path / 'coco') == dict.fromkeys(('instance', 'semantic', 'panoptic'), ['coco-panoptic'])
    assert what_is_there(tmp_path / 'ade') == {'instance': [], 'semantic': ['ade20k'], 'panoptic': []}
    assert what_is_there(tmp_path / 'city') == dict.fromkeys(('instance', 'semantic', 'panoptic'), ['cityscapes'])
    assert what_is_there(tmp_path / 'png') == {'instance': [], 'semantic': ['semantic-png'], 'panoptic': []}


def test_panoptic_files_beside_those_of_objects(tmp_path):
    """COCO has both; an instance model takes the outlines, as ever."""
    write_coco(tmp_path, COCO, COCO_PANOPTIC)
    file = tmp_path / 'annotations' / 'instances_train2017.json'
    file.write_text(json.dumps({'images': [], 'annotations': [], 'categories': [{'id': 1, 'name': 'person'}]}), 'utf-8')
    assert recognise(tmp_path) == 'coco'
    assert what_is_there(tmp_path)['instance'] == ['coco', 'coco-panoptic']


MISSING = [
    pytest.param('ade', 'panoptic', 'nothing for model.task "panoptic". It has data for "semantic" (ade20k): set '
                 'model.task (--task) to one of these, or add what is missing. Missing are, for ade20k: '
                 'ade20k_panoptic_train.json', id='ADE20K without panoptic files'),
    pytest.param('ade', 'instance', 'ade20k_instance_train.json', id='ADE20K without objects'),
    pytest.param('city', 'semantic', 'gtFine/{split}/{city}/*_gtFine_labelIds.png', id='Cityscapes without gtFine'),
    pytest.param('png', 'panoptic', 'It has data for "semantic" (semantic-png)', id='label PNGs have no segments'),
    pytest.param('empty', 'panoptic', 'PNGs of class numbers. There are holidays', id='another folder'),
]


@pytest.mark.parametrize(('folder', 'task', 'message'), MISSING)
def test_what_is_missing_is_said(tmp_path, folder, task, message):
    write_ade(tmp_path / 'ade', ade_scenes(), parts=['annotations'])
    write_cityscapes(tmp_path / 'city', city_scenes(), parts=[])
    write_semantic(tmp_path / 'png/images', tmp_path / 'png/labels', png_scenes('train'))
    (tmp_path / 'empty/holidays').mkdir(parents=True)
    with pytest.raises(DatasetError, match=re.escape(message)):
        read_maps(tmp_path / folder, task, 'train')


def test_folders_that_are_missing_are_said(tmp_path):
    write_coco(tmp_path, COCO, COCO_PANOPTIC)
    (tmp_path / 'panoptic_train2017').rename(tmp_path / 'elsewhere')
    with pytest.raises(DatasetError, match=r'panoptic_train2017: no such folder.*unpack panoptic_train2017.zip'):
        read_maps(tmp_path, 'panoptic', 'train')
    (tmp_path / 'elsewhere').rename(tmp_path / 'panoptic_train2017')
    (tmp_path / 'train2017').rename(tmp_path / 'elsewhere')
    with pytest.raises(DatasetError, match='panoptic_train2017.json is there, but no folder with its images; looked '
                                           'for train2017, images/train2017'):
        read_maps(tmp_path, 'panoptic', 'train')
    with pytest.raises(DatasetError, match='no split .test'):
        read_maps(tmp_path, 'panoptic', 'test')
    with pytest.raises(DatasetError, match='no cityscapes data set; looked for cityscapes: leftImg8bit'):
        read_maps(tmp_path, 'panoptic', 'train', 'cityscapes')
    with pytest.raises(DatasetError, match='nowhere: no such folder'):
        read_maps(tmp_path / 'nowhere', 'panoptic')


def test_label_pngs_need_names(tmp_path):
    write_semantic(tmp_path / 'images', tmp_path / 'labels', png_scenes('train'))
    with pytest.raises(DatasetError, match=r'nothing names the classes.*classes.txt'):
        read_maps(tmp_path, 'semantic')
    (tmp_path / 'classes.txt').write_text('a\nb\na\n', 'utf-8')
    with pytest.raises(DatasetError, match='classes.txt: must name the classes .* none twice'):
        read_maps(tmp_path, 'semantic')
    with pytest.raises(DatasetError, match='label_offset is for label PNGs of your own'):
        write_coco(tmp_path / 'coco', COCO, COCO_PANOPTIC)
        read_maps(tmp_path / 'coco', 'semantic', label_offset=1)


def test_16_bit_maps_are_read(tmp_path):
    """More than 256 classes: a PNG of 16 bits a pixel."""
    labels = np.arange(24 * 36).reshape(24, 36) // 2
    save(tmp_path / 'images/a.png', np.zeros((24, 36, 3), np.uint8))
    save(tmp_path / 'labels/a.png', labels.astype(np.uint16))
    names = [f'class {number}' for number in range(432)]
    source = read_maps(tmp_path, 'semantic', classes=names, void_label=None)
    np.testing.assert_array_equal(SegmentationMaps(source, 'semantic')[0].truth.labels, labels)
