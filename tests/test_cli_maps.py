"""``predict`` for semantic and panoptic models: pictures, PNG maps and JSON files."""
from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from modelscope_fastinst.cli import main
from modelscope_fastinst.cli.map_files import MapFiles, as_rgb, category_ids
from modelscope_fastinst.cli.predict import in_short, output_names
from modelscope_fastinst.data import label_sets
from tests.convert_files import error_of
from tests.plugin.model_folders import MAP_CASES, scene, write_map_folder


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp('models')
    return {'panoptic': str(write_map_folder(folder / 'panoptic', 'panoptic', overlap_threshold=0.0)),
            'semantic': str(write_map_folder(folder / 'semantic', 'semantic'))}


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / 'pictures'
    folder.mkdir()
    for index in (0, 1):
        Image.fromarray(scene(MAP_CASES['panoptic'], index)[:, :, ::-1]).save(folder / f'{index:012}.png')
    return folder


@pytest.fixture(scope='module')
def segment(models):
    from modelscope.pipelines import pipeline
    return pipeline('image-segmentation', model=models['panoptic'], device='cpu')


def run(model, pictures, output, *words):
    assert main(['predict', str(pictures), '--model', model, '--output', str(output), *words]) == 0


def test_panoptic_maps_are_coco_files(models, pictures, segment, tmp_path, capsys):
    run(models['panoptic'], pictures, tmp_path / 'out')
    names = ['000000000000.png', '000000000001.png']
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == [*names, 'panoptic', 'panoptic.json']
    content = json.loads((tmp_path / 'out' / 'panoptic.json').read_text('utf-8'))
    assert [image['id'] for image in content['images']] == [0, 1]   # COCO's ids are in the names
    assert content['categories'][3:5] == [{'id': 4, 'name': 'class 3', 'isthing': 1},
                                          {'id': 5, 'name': 'class 4', 'isthing': 0}]
    for index, (name, annotation) in enumerate(zip(names, content['annotations'], strict=True)):
        assert annotation['file_name'] == name and annotation['image_id'] == index
        expected = segment(str(pictures / name))
        colors = np.asarray(Image.open(tmp_path / 'out' / 'panoptic' / name)).astype(np.int32)
        np.testing.assert_array_equal(colors @ [1, 256, 65536], expected['id_map'])
        assert [(one['id'], f'class {one["category_id"] - 1}', one['area'], one['bbox'], one['iscrowd'])
                for one in annotation['segments_info']] == [
            (one['id'], one['label'], one['area'], one['bbox'], 0) for one in expected['segments']]
        picture = np.asarray(Image.open(tmp_path / 'out' / name))
        assert picture.shape == (*expected['id_map'].shape, 3)
    said = capsys.readouterr().out
    assert f'maps: {tmp_path / "out" / "panoptic"}, described in {tmp_path / "out" / "panoptic.json"}' in said
    assert ' class 4' in said


def test_semantic_maps_are_index_images(models, pictures, tmp_path, capsys):
    run(models['semantic'], pictures, tmp_path / 'out', '--json', '--classes', 'class 4,class 5')
    described = json.loads((tmp_path / 'out' / 'labels.json').read_text('utf-8'))
    assert described['classes'] == [f'class {index}' for index in range(10)] and described['void'] == 255
    assert [(image['file_name'], image['labels']) for image in described['images']] == [
        (name, name) for name in ('000000000000.png', '000000000001.png')]
    labels = np.asarray(Image.open(tmp_path / 'out' / 'labels' / '000000000000.png'))
    assert labels.dtype == np.uint8 and labels.shape == (128, 160) and set(np.unique(labels)) <= {4, 5, 255}
    record = json.loads((tmp_path / 'out' / '000000000000.json').read_text('utf-8'))
    assert [one['label'] for one in record['classes']] == [f'class {label}' for label in np.unique(labels)[:-1]]
    assert '% class 4' in capsys.readouterr().out


def test_a_panoptic_model_does_what_it_is_asked(models, pictures, tmp_path):
    run(models['panoptic'], pictures, tmp_path / 'semantic', '--task', 'semantic')
    assert (tmp_path / 'semantic' / 'labels.json').is_file()
    run(models['panoptic'], pictures, tmp_path / 'instance', '--task', 'instance', '--score-thr', '0', '--json')
    assert not any(path.is_dir() for path in (tmp_path / 'instance').iterdir())
    run(models['panoptic'], pictures, tmp_path / 'panoptic', '--object-mask-threshold', '0.95', '--json')
    segments = json.loads((tmp_path / 'panoptic' / '000000000001.json').read_text('utf-8'))['segments']
    assert segments and all(one['score'] > 0.95 for one in segments)
    assert set(segments[0]) == {'id', 'score', 'label', 'box', 'mask', 'isthing', 'area'}


@pytest.mark.parametrize('kind, words, message', [
    pytest.param('semantic', ['--task', 'panoptic'], 'trained for semantic segmentation, allow semantic', id='task'),
    pytest.param('semantic', ['--score-thr', '0.5'], "score_thr: of no use for task 'semantic'", id='option'),
    pytest.param('panoptic', ['--classes', 'unicorn'], 'unicorn', id='class'),
])
def test_what_cannot_be_is_said_before_anything_is_written(models, pictures, tmp_path, capsys, kind, words, message):
    output = tmp_path / 'out'
    assert main(['predict', str(pictures), '--model', models[kind], '--output', str(output), *words]) == 1
    assert message in error_of(capsys) and not output.exists()


def test_pictures_that_no_coco_id_names_are_numbered(tmp_path):
    found = {'id_map': np.array([[0, 1]], np.int32), 'segments': [
        {'id': 1, 'label': 'sky', 'score': 0.9, 'isthing': False, 'area': 1, 'bbox': [1, 0, 1, 1]}]}
    files = MapFiles(tmp_path / 'panoptic', 'panoptic', ['sky'], ())
    for name in ('7.jpg', 'park.jpg'):
        files.add(tmp_path / name, f'{name[:-4]}.png', found)
    content = json.loads(files.finish().read_text('utf-8'))
    assert [image['id'] for image in content['images']] == [1, 2]
    assert [annotation['image_id'] for annotation in content['annotations']] == [1, 2]


def test_many_classes_need_two_bytes(tmp_path):
    files = MapFiles(tmp_path / 'labels', 'semantic', [str(index) for index in range(300)])
    files.add(tmp_path / 'a.jpg', 'a.png', {'label_map': np.array([[299, -1]], np.int16)})
    assert np.asarray(Image.open(tmp_path / 'labels' / 'a.png')).tolist() == [[299, 65535]]
    assert json.loads(files.finish().read_text('utf-8'))['void'] == 65535


def test_classes_of_a_published_data_set_keep_its_ids():
    assert category_ids(label_sets.COCO_PANOPTIC.names)[-1] == 200
    assert category_ids(label_sets.CITYSCAPES.names)[0] == 7
    assert category_ids(['sky', 'sea']) == [1, 2]


def test_ids_in_three_bytes():
    assert as_rgb(np.array([[1, 300, 70000]], np.int32)).tolist() == [[[1, 0, 0], [44, 1, 0], [112, 17, 1]]]


def test_no_picture_takes_the_name_of_the_maps_file(tmp_path):
    pictures = [tmp_path / 'in' / 'panoptic.jpg', tmp_path / 'out' / 'panoptic' / 'x.png']
    assert [path.name for path in output_names(pictures, tmp_path / 'out', 'panoptic')] == ['panoptic-2.png', 'x-2.png']


def test_areas_in_short():
    labels = np.array([[0, 2, 2, 2]], np.int16)
    assert in_short({'label_map': labels, 'labels': ['sky', 'sea']}) == '75% sea, 25% sky'
    assert in_short({'label_map': np.full((1, 4), -1, np.int16), 'labels': []}) == 'nothing'
