"""Everything that a user may give as data becomes the same samples."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from modelscope.msdatasets import MsDataset
from modelscope.msdatasets.dataset_cls.dataset import ExternalDataset
from modelscope.utils.config import Config
from PIL import Image as PilImage

from modelscope_fastinst.data.augment import InferenceTransform, TrainTransform
from modelscope_fastinst.data.records import DatasetError
from modelscope_fastinst.plugin.dataset import FastInstDataset, build_transforms, open_dataset
from modelscope_fastinst.plugin.trainer_keys import ConfigurationError
from modelscope_fastinst.structures import Sample, Target
from tests.data.formats.tool_files import (
    mask_pictures,
    polygon_pictures,
    write_coco_file,
    write_labelme,
    write_object_masks,
    write_voc,
    write_yolo,
)

from .trainer_runs import shapes


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A COCO folder with two training images and three for evaluation."""
    folder = tmp_path_factory.mktemp('coco')
    shapes(2).write_coco(folder, 'train')
    shapes(3, seed=2).write_coco(folder, 'val')
    return folder


SOURCES = [
    pytest.param(lambda folder: str(folder), id='folder'),
    pytest.param(lambda folder: folder, id='folder as a Path'),
    pytest.param(lambda folder: {'root': str(folder)}, id='root'),
    pytest.param(lambda folder: {'root': str(folder), 'split': 'train'}, id='root and split'),
    pytest.param(lambda folder: {'annotation_file': str(folder / 'annotations' / 'instances_train.json'),
                                 'image_dir': str(folder / 'images' / 'train')}, id='files'),
    pytest.param(lambda folder: MsDataset(ExternalDataset({'train': str(folder)}, {})),
                 id='MsDataset of a hub data set'),
    pytest.param(lambda folder: MsDataset(shapes(2)), id='MsDataset around a torch data set'),
    pytest.param(lambda folder: shapes(2), id='torch data set'),
    pytest.param(lambda folder: [shapes(1), shapes(1)], id='list'),
    pytest.param(lambda folder: FastInstDataset(root=str(folder)), id='already one of ours'),
]


@pytest.mark.parametrize('source', SOURCES)
def test_sources_of_training_data(source, folder):
    data = open_dataset(source(folder), None, 'train', None, None)
    assert isinstance(data, FastInstDataset)
    assert len(data) == 2
    assert data.classes == ['ellipse', 'rectangle']
    sample = data[0]
    expected = shapes(2)[0]
    assert torch.equal(sample.image, expected.image)
    assert torch.equal(sample.target.labels, expected.target.labels)
    assert torch.equal(sample.target.masks, expected.target.masks)


def test_evaluation_takes_the_other_split(folder):
    data = open_dataset(str(folder), None, 'eval', None, None)
    assert len(data) == 3
    assert data[0].annotations


def test_modelscope_converts_its_own_data_set_to_ours(folder):
    """What EpochBasedTrainer and users do with a data set from the hub: ``to_custom_dataset``."""
    dataset = MsDataset(ExternalDataset({'validation': str(folder)}, {}))
    dataset.to_custom_dataset(Config({'task': 'image-segmentation', 'model': {'type': 'fastinst'}}), mode='eval')
    assert isinstance(dataset.ds_instance, FastInstDataset)
    assert len(dataset.ds_instance) == 3
    assert open_dataset(dataset, None, 'eval', None, None) is dataset.ds_instance


def test_classes_choose_and_order(folder):
    data = open_dataset(str(folder), None, 'train', None, ['rectangle'])
    assert data.classes == ['rectangle']
    assert all(set(data[i].target.labels.tolist()) <= {0} for i in range(len(data)))


def test_section_is_used_where_there_is_no_source(folder):
    assert len(open_dataset(None, {'root': str(folder)}, 'train', None, None)) == 2
    assert open_dataset(None, None, 'train', None, None) is None
    with pytest.raises(ConfigurationError, match='dataset.val has the unknown key'):
        open_dataset(None, {'path': 'x'}, 'eval', None, None)


def test_preprocessor_is_applied_to_samples():
    data = open_dataset(shapes(1), None, 'train', TrainTransform(32, None, crop=None, flip=0), None)
    assert data[0].image.shape == (3, 32, 32)
    assert data[0].target.masks.shape[1:] == (32, 32)


def test_data_set_with_its_own_transform_is_left_alone():
    data = open_dataset(shapes(1, transform=InferenceTransform(48, None)), None, 'train', InferenceTransform(32), None)
    assert data[0].image.shape == (3, 48, 48)


def test_ground_truth_for_evaluation_is_made_from_targets():
    masks = torch.zeros(1, 8, 10, dtype=torch.bool)
    masks[0, 2:5, 3:9] = True

    class Bare:
        classes = ['thing']

        def __len__(self):
            return 1

        def __getitem__(self, index):
            return Sample(torch.zeros(3, 8, 10, dtype=torch.uint8), Target(torch.tensor([0]), masks), image_id=5)

    sample = open_dataset(Bare(), None, 'eval', InferenceTransform(16, None), None)[0]
    from modelscope_fastinst.results.rle import decode
    assert sample.original_size == (8, 10)
    np.testing.assert_array_equal(decode([sample.annotations[0]['segmentation']])[0], masks[0].numpy())


def test_images_of_joined_sets_have_ids_of_their_own():
    data = open_dataset([shapes(2), shapes(2, seed=3)], None, 'eval', None, None)
    assert [sample.image_id for sample in data] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert torch.equal(data[3].image, shapes(2, seed=3)[1].image)


def test_samples_without_an_id_get_their_index():
    class Nameless(torch.utils.data.Dataset):
        classes = ['thing']

        def __len__(self):
            return 2

        def __getitem__(self, index):
            return Sample(torch.zeros(3, 8, 8, dtype=torch.uint8))

    data = open_dataset(Nameless(), None, 'eval', None, None)
    assert [data[0].image_id, data[1].image_id] == [0, 1]


def test_items_that_are_no_samples_are_named():
    data = open_dataset(torch.utils.data.TensorDataset(torch.zeros(2)), None, 'train', None, None)
    with pytest.raises(TypeError, match=r'TensorDataset\[0\] is a tuple'):
        data[0]


def table(count=2, seed=1):
    """The drawn shapes as a table, with the class names in the feature."""
    from datasets import ClassLabel, Dataset, Features, Image, List, Value
    data = shapes(count, seed=seed)
    return Dataset.from_dict({
        'image': [PilImage.fromarray(data.draw(index)[0]) for index in range(count)],
        'objects': [[{'segmentation': one['segmentation'], 'category': one['category_id']}
                     for one in data[index].annotations] for index in range(count)]},
        features=Features({'image': Image(), 'objects': List({
            'segmentation': {'size': List(Value('int64')), 'counts': Value('string')},
            'category': ClassLabel(names=data.classes)})}))


def tables():
    from datasets import DatasetDict
    return DatasetDict({'train': table(), 'validation': table(3, seed=2)})


@pytest.mark.parametrize('source', [
    pytest.param(table, id='Dataset'),
    pytest.param(tables, id='DatasetDict'),
    pytest.param(lambda: MsDataset(table()), id='MsDataset of table rows'),
    pytest.param(lambda: {'train': MsDataset(table()), 'test': MsDataset(table(1))}, id='MsDatasets by split'),
    pytest.param(lambda: {'table': table(4), 'val_fraction': 0.5}, id='divided'),
])
def test_table_rows(source):
    data = open_dataset(source(), None, 'train', None, None)
    assert len(data) == 2 and data.classes == ['ellipse', 'rectangle']
    assert data[0].target.masks.any() and not data[0].annotations


def test_table_rows_for_evaluation():
    assert len(open_dataset(tables(), None, 'eval', None, None)) == 3
    assert len(open_dataset(table(), None, 'eval', None, None)) == 2     # a table without splits is taken as it is
    data = open_dataset({'table': table(4), 'val_fraction': 0.25}, None, 'eval', None, None)
    assert len(data) == 1 and data[0].annotations
    assert torch.equal(open_dataset(table(), None, 'eval', None, None)[0].image, shapes(2)[0].image)


def test_table_rows_without_objects_are_refused_with_a_reason():
    from datasets import Dataset
    with pytest.raises(DatasetError, match='the columns image do not say where the objects are'):
        open_dataset(MsDataset(Dataset.from_dict({'image': [1]})), None, 'train', None, None)


FOLDERS = [
    pytest.param('yolo', write_yolo, polygon_pictures, id='yolo'),
    pytest.param('labelme', write_labelme, polygon_pictures, id='labelme'),
    pytest.param('voc', write_voc, mask_pictures, id='voc'),
    pytest.param('object-masks', write_object_masks, mask_pictures, id='object-masks'),
    pytest.param('coco', write_coco_file, polygon_pictures, id='coco, one file'),
]


@pytest.mark.parametrize('format, write, draw', FOLDERS)
def test_folders_of_every_format(tmp_path, format, write, draw):
    write(tmp_path, draw(5))
    options = {'root': str(tmp_path), 'val_fraction': 0.4, 'split_seed': 3}
    train = open_dataset(options, None, 'train', None, None)
    val = open_dataset(None, {**options, 'format': format}, 'eval', None, None)
    assert [len(train), len(val)] == [3, 2] and train.classes == val.classes == ['fig', 'nut']
    assert not {sample.file_name for sample in train} & {sample.file_name for sample in val}
    assert len(open_dataset(str(tmp_path), None, 'train', None, None)) == 5


def test_a_folder_without_splits_is_no_evaluation_set_of_itself(tmp_path):
    from modelscope_fastinst.plugin.dataset import open_data
    write_labelme(tmp_path / 'a', polygon_pictures(2))
    write_labelme(tmp_path / 'b', polygon_pictures(2, seed=1))
    cfg = Config({'preprocessor': {'min_size': 32}, 'model': {}})
    with pytest.raises(ConfigurationError, match='are the same images.*give both val_fraction'):
        open_data(cfg, str(tmp_path / 'a'), str(tmp_path / 'a'), None, None, [], 'x.json')
    train, val, classes = open_data(cfg, str(tmp_path / 'a'), str(tmp_path / 'b'), None, None, [], 'x.json')
    assert len(train) == len(val) == 2 and classes == ['fig', 'nut']


def test_a_class_may_be_missing_in_a_validation_folder_whose_classes_are_those_met(tmp_path):
    write_labelme(tmp_path, polygon_pictures(2, classes=('fig',)))
    data = open_dataset(str(tmp_path), None, 'eval', None, ['fig', 'nut'])
    assert data.classes == ['fig', 'nut']
    with pytest.raises(DatasetError, match=r"has no classes \['nut'\]"):     # in training, it is a mistake
        open_dataset(str(tmp_path), None, 'train', None, ['fig', 'nut'])


@pytest.mark.parametrize('changes, message', [
    pytest.param({'val_fraction': 1.5}, 'val_fraction is 1.5', id='fraction'),
    pytest.param({'format': 'cvat'}, "format is 'cvat'; it must be one of coco, yolo", id='format'),
    pytest.param({'split': 'val'}, 'has no validation split; give val_fraction', id='no such split'),
    pytest.param({'root': 'nowhere'}, 'nowhere: no such folder', id='no folder'),
])
def test_wrong_options_of_a_folder(tmp_path, changes, message):
    write_labelme(tmp_path, polygon_pictures(2))
    with pytest.raises(ValueError, match=message):
        open_dataset({'root': str(tmp_path), **changes}, None, 'train', None, None)


def test_parts_with_different_classes(folder):
    with pytest.raises(ConfigurationError, match='different classes'):
        open_dataset([str(folder), shapes(1, num_classes=3)], None, 'train', None, None)


@pytest.mark.parametrize(('section', 'train_size', 'eval_size'), [
    pytest.param({'min_size': 40, 'max_size': 50, 'train': {'min_sizes': [20], 'crop': None}}, (20,), 40,
                 id='flat form'),
    pytest.param({'train': {'type': 'fastinst-preprocessor', 'min_sizes': [20]},
                  'val': {'type': 'fastinst-preprocessor', 'min_size': 40}}, (20,), 40, id='form with train and val'),
    pytest.param({'min_size': 40, 'max_size': 50}, TrainTransform().min_sizes, 40, id="the recipe's augmentation"),
])
def test_transforms_of_a_configuration(section, train_size, eval_size):
    train, val = build_transforms(section)
    assert isinstance(train, TrainTransform) and train.min_sizes == train_size
    assert isinstance(val, InferenceTransform) and val.min_size == eval_size


def test_transforms_of_the_caller_come_first():
    mine = InferenceTransform(8)
    assert build_transforms({}, mine) == (mine, mine)
    train, val = build_transforms({'min_size': 40}, {'train': mine})
    assert train is mine and val.min_size == 40
