"""The check of panoptic and semantic data: figures of the maps, and every kind of fault planted once."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from modelscope_fastinst.data.checking import check_maps
from modelscope_fastinst.data.checking.findings import KINDS, MAP_CODES
from modelscope_fastinst.data.label_sets import COCO_PANOPTIC
from modelscope_fastinst.data.maps import read_maps
from tests.data.maps.trees import HEIGHT, WIDTH, ids_picture, save, scenes, write_coco, write_semantic

ALL = HEIGHT * WIDTH


@pytest.fixture
def folder(tmp_path) -> Path:
    for split, names, seed in (('train', ('1', '2'), 0), ('val', ('3',), 5)):
        write_coco(tmp_path, scenes(COCO_PANOPTIC, names, ('person', 'kite'), ('sea', 'sand'), crowd=True, seed=seed),
                   COCO_PANOPTIC, split)
    return tmp_path


def checked(folder: Path, task: str = 'panoptic', **options):
    splits = ('train', 'val')
    return check_maps({split: read_maps(folder, task, split) for split in splits}, task, threads=1, **options)


def found(report) -> list[tuple[str, str, str]]:
    return [(one.code, one.split, one.item) for one in report.findings if one.code != 'unused-class']


def test_the_figures_of_panoptic_data(folder):
    report = checked(folder)
    assert found(report) == []
    train, val = report.splits
    assert (train.images, val.images) == (2, 1)
    assert str(train.widths) == '36 / 36 / 36'
    assert str(train.segments) == '5 / 5 / 5'
    assert train.void == pytest.approx(3 * WIDTH / ALL)
    assert train.crowd == pytest.approx(12 * 6 / ALL)
    person = train.classes['person']
    assert (person.segments, person.crowds, person.images) == (4, 2, 2)
    objects = sum((scene.labels == 0).sum() for scene in scenes(
        COCO_PANOPTIC, ['1', '2'], ('person', 'kite'), ('sea', 'sand'), crowd=True))
    assert person.pixels == objects
    assert sum(one.pixels for one in train.classes.values()) == 2 * (ALL - 3 * WIDTH)
    assert [one.message for one in report.findings] == [
        '129 of 133: no pixel is of bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire '
        'hydrant, ...']


def test_the_figures_of_semantic_data(folder):
    report = checked(folder, 'semantic')
    assert report.task == 'semantic'
    assert str(report.splits[0].segments) == '4 / 4 / 4'
    assert report.splits[0].classes['person'].segments == 2   # images of which it is a mask


def test_a_faulty_image_names_itself_and_the_others_count(folder):
    png = folder / 'panoptic_train2017/1.png'
    cases = {
        'missing-map': lambda: png.unlink(),
        'unreadable-map': lambda: png.write_bytes(b'x'),
        'wrong-map': lambda: save(png, np.zeros((HEIGHT, WIDTH), np.uint8)),
        'unlisted-id': lambda: save(png, ids_picture(np.full((HEIGHT, WIDTH), 4))),
        'size-mismatch': lambda: save(png, np.zeros((7, 9, 3), np.uint8)),
        'empty-image': lambda: save(png, np.zeros((HEIGHT, WIDTH, 3), np.uint8)),
    }
    for code, plant in cases.items():
        plant()
        report = checked(folder)
        findings = [one for one in report.findings if one.code == code]
        assert [(one.split, one.item) for one in findings] == [('train', 'image 1')], code
        assert findings[0].severity == KINDS[code].severity
        assert str(png) in findings[0].message or code == 'empty-image'
        assert report.splits[1].images == 1
    assert 'absent-id' in [one.code for one in report.findings]


def test_void_queries_and_copies(folder):
    ids = np.zeros((HEIGHT, WIDTH), int)
    ids[:3, :3] = 70_005
    save(folder / 'panoptic_train2017/1.png', ids_picture(ids))
    save(folder / 'val2017/3.png', scenes(COCO_PANOPTIC, ['1'], ('person', 'kite'), ('sea', 'sand'))[0].image)
    report = checked(folder, num_queries=4)
    codes = [one.code for one in report.findings]
    assert codes.count('much-void') == 1
    assert codes.count('too-many-objects') == 2
    leaked = [one for one in report.findings if one.code == 'leakage']
    assert [(one.split, one.item, one.message) for one in leaked] == [
        ('val', 'image 3', 'the same picture as image 1 of the train split')]


def test_values_that_are_no_class_and_classes_of_one_split(tmp_path):
    pictures = {split: scenes(COCO_PANOPTIC, [split], ('person', 'kite'), ('bicycle', 'car'), seed=len(split))
                for split in ('train', 'val')}
    for split, (scene,) in pictures.items():
        scene.labels[scene.labels > 2] = 3
        if split == 'val':
            scene.labels[scene.labels == 1] = 2
        write_semantic(tmp_path / 'images' / split, tmp_path / 'labels' / split, [scene])
    (tmp_path / 'classes.txt').write_text('a\nb\nc', 'utf-8')
    report = checked(tmp_path, 'semantic')
    assert sorted(found(report)) == [('class-only-in-train', 'train', "class 'b'"), ('unknown-label', 'train',
                                     'image train'), ('unknown-label', 'val', 'image val')]
    json.dumps(report.to_json())
    assert report.to_json()['codes']['unknown-label'] == 2


def test_every_kind_of_fault_of_maps_says_its_mend():
    assert set(KINDS) > MAP_CODES
    assert all(KINDS[code].mend for code in MAP_CODES)


def test_stuff_in_several_segments_is_remarked(folder):
    """As where ``isthing`` is wrong: a model finds all of a stuff class as one segment."""
    file = folder / 'annotations/panoptic_train2017.json'
    content = json.loads(file.read_text('utf-8'))
    for category in content['categories']:
        category['isthing'] = int(category['name'] != 'person' and category['isthing'])
    file.write_text(json.dumps(content), 'utf-8')
    report = checked(folder)
    assert found(report) == [('stuff-in-parts', 'train', 'image 1'), ('stuff-in-parts', 'train', 'image 2')]
    assert "2 segments of 'person', which is stuff" in [one.message for one in report.findings]
    assert 'stuff-in-parts' not in [one.code for one in checked(folder, 'semantic').findings]
