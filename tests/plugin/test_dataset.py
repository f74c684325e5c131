"""Everything that a user may give as data becomes the same samples."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from modelscope.msdatasets import MsDataset
from modelscope.msdatasets.dataset_cls.dataset import ExternalDataset
from modelscope.utils.config import Config

from modelscope_fastinst.data.augment import InferenceTransform, TrainTransform
from modelscope_fastinst.plugin.dataset import FastInstDataset, build_transforms, open_dataset
from modelscope_fastinst.plugin.trainer_keys import ConfigurationError
from modelscope_fastinst.structures import Sample, Target

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


def test_table_rows_are_refused_with_a_reason():
    from datasets import Dataset
    with pytest.raises(ConfigurationError, match='table rows'):
        open_dataset(MsDataset(Dataset.from_dict({'image': [1]})), None, 'train', None, None)


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
