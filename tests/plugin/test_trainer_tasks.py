"""Panoptic and semantic trainings, end to end: data in a published layout, a few iterations, a model that answers."""
from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from modelscope.msdatasets import MsDataset
from modelscope.pipelines import pipeline

from modelscope_fastinst.data.label_sets import ADE20K, CITYSCAPES, COCO_PANOPTIC, LabelSet
from modelscope_fastinst.data.records import DatasetError
from modelscope_fastinst.data.shapes_panoptic import PanopticShapes
from modelscope_fastinst.plugin.dataset import open_dataset
from modelscope_fastinst.plugin.trainer_keys import ConfigurationError
from modelscope_fastinst.structures import PanopticMap, Sample, SemanticMap
from tests.data.maps.trees import (
    ade_scenes,
    city_scenes,
    save,
    scenes,
    write_ade,
    write_cityscapes,
    write_coco,
    write_semantic,
)

from .trainer_runs import shapes, trainer_for

SHORT = {'train.max_epochs': 1, 'preprocessor.train.min_sizes': [48], 'preprocessor.min_size': 48}


def write_coco_tree(folder: Path) -> None:
    for split, names in (('train', ('1', '2')), ('val', ('3',))):
        write_coco(folder, scenes(COCO_PANOPTIC, names, ('person', 'kite'), ('sea', 'sand'), crowd=True), COCO_PANOPTIC,
                   split)


def write_ade_tree(folder: Path) -> None:
    for split in ('train', 'val'):
        write_ade(folder, ade_scenes(split), split)


def write_city_tree(folder: Path) -> None:
    for split in ('train', 'val'):
        write_cityscapes(folder, city_scenes(split), split)


def write_png_tree(folder: Path) -> None:
    for split in ('train', 'val'):
        write_semantic(folder / 'images' / split, folder / 'labels' / split, city_scenes(split))
    (folder / 'classes.txt').write_text('\n'.join(CITYSCAPES.names), 'utf-8')


TREES = {'coco': (write_coco_tree, COCO_PANOPTIC), 'ade': (write_ade_tree, ADE20K),
         'city': (write_city_tree, CITYSCAPES), 'png': (write_png_tree, CITYSCAPES)}


@pytest.fixture(scope='module')
def trees(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp('trees')
    for name, (write, _) in TREES.items():
        write(folder / name)
    return {name: folder / name for name in TREES}


def labels_of(name: str) -> LabelSet:
    return TREES[name][1]


@pytest.mark.parametrize(('name', 'task'), [
    ('coco', 'panoptic'), ('ade', 'semantic'), ('city', 'panoptic'), ('png', 'semantic')])
def test_a_folder_in_a_published_layout_trains_a_model(tmp_path, trees, name, task):
    data = str(trees[name])
    trainer = trainer_for(tmp_path, {**SHORT, 'model.task': task, 'evaluation.period': {'interval': 1}},
                          train_dataset=data, eval_dataset=data)
    trainer.train()
    labels = labels_of(name)
    output = tmp_path / 'work' / 'output'
    written = json.loads((output / 'configuration.json').read_text('utf-8'))['model']
    assert written['task'] == task
    assert written['classes'] == list(labels.names)
    assert written.get('things') == (list(labels.things) if task == 'panoptic' else None)
    assert {'panoptic': 'PQ', 'semantic': 'mIoU'}[task] in trainer._metric_values
    found = pipeline('image-segmentation', model=str(output), device='cpu')(np.zeros((24, 36, 3), np.uint8))
    assert found['id_map' if task == 'panoptic' else 'label_map'].shape == (24, 36)


@pytest.mark.parametrize('name', ['coco', 'ade', 'city'])
def test_an_instance_model_learns_the_things(tmp_path, trees, name):
    trainer = trainer_for(tmp_path, {**SHORT, 'model.task': 'instance', 'train.max_iters': 1},
                          train_dataset=str(trees[name]))
    assert trainer.model_classes == list(labels_of(name).things)
    trainer.train()
    assert trainer.model.task == 'instance'


def test_panoptic_data_for_a_model_that_does_not_say_its_task(tmp_path, trees):
    with pytest.raises(DatasetError, match=r'holds panoptic ground truth.*set model.task to "panoptic" or "semantic" '
                                           r'\(--task\), or to "instance" for its things alone'):
        trainer_for(tmp_path, train_dataset=str(trees['coco']))
    with pytest.raises(DatasetError, match='nothing for model.task "instance". It has data for "semantic"'):
        trainer_for(tmp_path, train_dataset=str(trees['png']))
    with pytest.raises(DatasetError, match='nothing for model.task "panoptic". It has data for "semantic"'):
        trainer_for(tmp_path, {'model.task': 'panoptic'}, train_dataset=str(trees['png']))


def coco_files(folder: Path, split: str = 'train') -> dict[str, str]:
    return {'annotation_file': str(folder / f'annotations/panoptic_{split}2017.json'),
            'image_dir': str(folder / f'{split}2017'), 'panoptic_dir': str(folder / f'panoptic_{split}2017')}


def png_files(folder: Path, **more) -> dict:
    return {'image_dir': str(folder / 'images/train'), 'label_dir': str(folder / 'labels/train'),
            'classes': list(CITYSCAPES.names), **more}


SOURCES = [
    pytest.param('panoptic', lambda trees: str(trees['coco']), id='folder'),
    pytest.param('panoptic', lambda trees: {'root': str(trees['coco']), 'format': 'coco-panoptic'}, id='root'),
    pytest.param('panoptic', lambda trees: coco_files(trees['coco']), id='files'),
    pytest.param('semantic', lambda trees: coco_files(trees['coco']), id='semantic of panoptic files'),
    pytest.param('semantic', lambda trees: png_files(trees['png']), id='label PNGs'),
    pytest.param('panoptic', lambda trees: [coco_files(trees['coco']), coco_files(trees['coco'], 'val')], id='list'),
    pytest.param('panoptic', lambda trees: PanopticShapes(2, 64), id='torch data set'),
    pytest.param('semantic', lambda trees: MsDataset(PanopticShapes(2, 64, task='semantic')), id='MsDataset'),
]


@pytest.mark.parametrize(('task', 'source'), SOURCES)
def test_what_may_be_given_as_data(trees, task, source):
    data = open_dataset(source(trees), None, 'train', None, None, task)
    if task == 'panoptic':
        assert set(data.things) < set(data.classes)
    assert len(data[0].target) == len(data[0].target.masks)
    assert len(data.sizes) == len(data)
    evaluated = open_dataset(source(trees), None, 'eval', None, data.classes, task)
    assert isinstance(evaluated[0].truth, PanopticMap if task == 'panoptic' else SemanticMap)
    assert evaluated[len(evaluated) - 1].truth is not None


def test_classes_that_are_chosen_of_panoptic_data(trees):
    data = open_dataset(coco_files(trees['coco']), None, 'eval', None, ['sea', 'kite'], 'panoptic')
    assert data.classes == ['sea', 'kite']
    assert data.things == ['kite']
    assert {segment.label for segment in data[0].truth.segments} == {0, 1}
    assert {one['category_id'] for one in data[0].annotations} == {1}


REFUSED = [
    pytest.param('panoptic', lambda t: png_files(t['png']), ConfigurationError,
                 'label_dir holds the class of each pixel, which is for model.task "semantic"', id='label_dir'),
    pytest.param('panoptic', lambda t: {k: v for k, v in coco_files(t['coco']).items() if k != 'panoptic_dir'},
                 ConfigurationError, 'for model.task "panoptic" also give panoptic_dir', id='no panoptic_dir'),
    pytest.param(None, lambda t: coco_files(t['coco']), ConfigurationError, 'does not say what to learn', id='no task'),
    pytest.param('panoptic', lambda t: {**coco_files(t['coco']), 'label_dir': 'x'}, ConfigurationError,
                 'has annotation_file and label_dir; give one of them', id='two sources'),
    pytest.param('semantic', lambda t: {'label_dir': 'x'}, ConfigurationError, 'label_dir is given without image_dir',
                 id='no images'),
    pytest.param('semantic', lambda t: png_files(t['png'], void_label=-1), ConfigurationError,
                 'void_label is -1; it must be a whole number of at least 0', id='void_label'),
    pytest.param('semantic', lambda t: png_files(t['png'], void_label=3), DatasetError,
                 'void_label 3 is the number of class 3', id='void_label of a class'),
    pytest.param('semantic', lambda t: {'root': str(t['png']), 'format': 'pngs'}, ConfigurationError,
                 'must be one of coco, yolo, .*, cityscapes, coco-panoptic, semantic-png', id='format'),
    pytest.param('semantic', lambda t: {**png_files(t['png']), 'label_dir': 'nowhere'}, DatasetError,
                 'nowhere: no such folder; the label PNGs were expected there', id='missing folder'),
]


@pytest.mark.parametrize(('task', 'source', 'error', 'message'), REFUSED)
def test_sources_that_do_not_go_together(trees, task, source, error, message):
    with pytest.raises(error, match=message):
        open_dataset(source(trees), None, 'train', None, None, task)


def test_a_table_has_no_maps():
    from datasets import Dataset
    with pytest.raises(ConfigurationError, match='a table holds instances, but model.task is "semantic"'):
        open_dataset(Dataset.from_dict({'image': [1]}), None, 'train', None, None, 'semantic')


def test_objects_are_not_pasted_into_maps(tmp_path):
    with pytest.raises(ConfigurationError, match='preprocessor.train.copy_paste pastes objects.*set it to null'):
        trainer_for(tmp_path, {'model.task': 'panoptic', 'preprocessor.train.copy_paste': {}},
                    train_dataset=PanopticShapes(2, 64))


class Nameless:
    """A user's data set that does not say which classes are things."""
    classes = ['ellipse', 'stripes', 'checks', 'dots']

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Sample:
        return PanopticShapes(2, 64, 1)[index]


def test_which_classes_are_things_must_be_said(tmp_path):
    with pytest.raises(ConfigurationError, match='neither model.things nor a `things` attribute of the data says'):
        trainer_for(tmp_path, {'model.task': 'panoptic'}, train_dataset=Nameless())
    trainer = trainer_for(tmp_path, {'model.task': 'panoptic', 'model.things': ['ellipse']}, train_dataset=Nameless())
    assert trainer.model.thing_classes == {0}
    with pytest.raises(ConfigurationError, match=r"the things of the data are \['ellipse', 'rectangle'\].*they must"):
        trainer_for(tmp_path, {'model.task': 'panoptic', 'model.things': ['ellipse']},
                    train_dataset=PanopticShapes(2, 64, 2))
    with pytest.raises(ConfigurationError, match='model.things is .*it must be a list of names of the classes'):
        trainer_for(tmp_path, {'model.task': 'panoptic', 'model.things': ['yeti']}, train_dataset=Nameless())
    with pytest.raises(ConfigurationError, match='model.task is "semantic", which knows no things'):
        trainer_for(tmp_path, {'model.task': 'semantic', 'model.things': ['ellipse']}, train_dataset=Nameless())
    with pytest.raises(ConfigurationError, match='model.task is .panoptik.; it must be one of instance, semantic'):
        trainer_for(tmp_path, {'model.task': 'panoptik'}, train_dataset=Nameless())


def test_an_instance_model_becomes_a_panoptic_one(tmp_path):
    """Its class layers start anew where the classes are others; and it may become one of another task again."""
    first = trainer_for(tmp_path / 'a', SHORT, train_dataset=shapes(2))
    first.train()
    second = trainer_for(tmp_path / 'b', {**SHORT, 'model.task': 'panoptic', 'model.pretrained': None},
                         model=str(tmp_path / 'a' / 'work' / 'output'), train_dataset=PanopticShapes(2, 64, 2))
    assert 'it was a model for the task "instance", and becomes one for "panoptic"' in second._start.message
    assert second.model.thing_classes == {0, 1}
    assert any('class_embed' in name for name in second.new_weights)
    assert not any(name.startswith('backbone.') for name in second.new_weights)
    before = first.network.state_dict()['backbone.stem.conv1.weight']
    assert torch.equal(second.network.state_dict()['backbone.stem.conv1.weight'], before)
    second.train()
    third = trainer_for(tmp_path / 'c', {**SHORT, 'model.task': 'semantic', 'model.pretrained': None},
                        model=str(tmp_path / 'b' / 'work' / 'output'),
                        train_dataset=PanopticShapes(2, 64, 2, task='semantic'))
    assert third.model.task == 'semantic'
    assert third.new_weights == []   # the same classes


def test_a_given_model_says_its_task(tmp_path):
    first = trainer_for(tmp_path / 'a', {**SHORT, 'model.task': 'panoptic'}, train_dataset=PanopticShapes(2, 64, 2))
    second = trainer_for(tmp_path / 'b', SHORT, model=first.model, train_dataset=PanopticShapes(2, 64, 2))
    assert second.cfg.model.task == 'panoptic'
    assert second.cfg.model.things == ['ellipse', 'rectangle']


class OnlyTargets(Nameless):
    """A user's data set that gives masks and nothing else."""
    things = ['ellipse']

    def __getitem__(self, index: int) -> Sample:
        sample = PanopticShapes(2, 64, 1)[index]
        return Sample(sample.image, sample.target)


@pytest.mark.parametrize('task', ['panoptic', 'semantic'])
def test_the_truth_of_a_data_set_that_gives_masks_only(task):
    found = open_dataset(OnlyTargets(), None, 'eval', None, None, task)[1]
    wanted = PanopticShapes(2, 64, 1, task=task)[1].truth
    if task == 'semantic':
        np.testing.assert_array_equal(found.truth.labels, wanted.labels)
        assert not found.annotations
        return
    np.testing.assert_array_equal(found.truth.ids, wanted.ids)
    assert found.truth.segments == wanted.segments
    assert [(one['category_id'], one['area']) for one in found.annotations] == \
        [(one.label, one.area) for one in wanted.segments if one.isthing]


def test_a_resized_sample_needs_its_truth():
    class Resized(OnlyTargets):
        def __getitem__(self, index: int) -> Sample:
            return replace(super().__getitem__(index), original_size=(128, 128))

    with pytest.raises(ValueError, match='a resized sample needs `truth` for evaluation'):
        open_dataset(Resized(), None, 'eval', None, None, 'panoptic')[0]


def test_maps_with_problems_can_be_skipped(tmp_path, trees):
    write_coco_tree(tmp_path)
    save(tmp_path / 'panoptic_train2017/1.png', np.zeros((3, 3, 3), np.uint8))
    data = open_dataset({'root': str(tmp_path), 'on_problem': 'skip'}, None, 'train', None, None, 'panoptic')
    assert data[0].image_id == 2
