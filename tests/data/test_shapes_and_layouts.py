"""The procedural data set, and finding data sets in their folders."""
from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
import torch

from modelscope_fastinst.data.augment import InferenceTransform
from modelscope_fastinst.data.coco import CocoInstances
from modelscope_fastinst.data.layouts import find_coco
from modelscope_fastinst.data.shapes import SHAPES, ShapesDataset


def same(first, second) -> bool:
    return torch.equal(first.image, second.image) and torch.equal(first.target.masks, second.target.masks) \
        and torch.equal(first.target.labels, second.target.labels) and first.annotations == second.annotations


def test_an_image_depends_on_seed_and_index_alone():
    short, long = ShapesDataset(3, seed=5), ShapesDataset(100, seed=5)
    assert same(short[2], long[2]) and same(short[-1], long[2])
    assert not same(long[1], long[2]) and not same(ShapesDataset(3, seed=6)[2], short[2])


def test_all_classes_appear_and_objects_overlap():
    samples = list(ShapesDataset(30, num_classes=6))
    assert {int(label) for sample in samples for label in sample.target.labels} == set(range(6))
    touching = 0
    for sample in samples:
        assert sample.image.shape == (3, 160, 192) and sample.image.dtype == torch.uint8
        assert sample.target.masks.sum(0).max() <= 1
        assert (sample.target.masks.flatten(1).sum(1) >= 12).all()
        grown = torch.nn.functional.max_pool2d(sample.target.masks.float(), 3, 1, 1)
        touching += bool((grown.sum(0) > 1).any())
    assert touching > 5


def test_annotations_are_the_target():
    from pycocotools import mask as coco_mask
    sample = ShapesDataset(1)[0]
    np.testing.assert_array_equal(
        coco_mask.decode([one['segmentation'] for one in sample.annotations]).transpose(2, 0, 1), sample.target.masks)
    assert [one['category_id'] for one in sample.annotations] == sample.target.labels.tolist()
    assert [one['area'] for one in sample.annotations] == sample.target.masks.flatten(1).sum(1).tolist()


def test_a_transform_changes_image_and_masks():
    sample = ShapesDataset(1, transform=InferenceTransform(80, 999))[0]
    assert sample.image.shape == (3, 80, 96) and sample.target.masks.shape[1:] == (80, 96)
    assert sample.original_size == (160, 192)


def test_the_smallest_images_hold_an_object():
    assert all(len(sample.target) for sample in ShapesDataset(20, 32, num_classes=6, objects=(1, 1)))


def test_it_can_be_pickled():
    data = ShapesDataset(2, (64, 64), transform=InferenceTransform(32))
    assert same(pickle.loads(pickle.dumps(data))[1], data[1])


@pytest.mark.parametrize('arguments, message', [
    pytest.param({'num_classes': 7}, 'num_classes must be 1 to 6', id='too many classes'),
    pytest.param({'num_images': 0}, 'at least one image', id='no images'),
    pytest.param({'objects': (0, 3)}, 'at least one object|at least one image and one object', id='no objects'),
    pytest.param({'size': 16}, 'size must be at least 32', id='too small'),
])
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ShapesDataset(**{'num_images': 1, **arguments})


def test_written_as_coco_it_reads_the_same(tmp_path):
    shapes = ShapesDataset(3, (48, 64), num_classes=3, seed=1)
    written = shapes.write_coco(tmp_path, 'train')
    assert find_coco(tmp_path, 'train') == written
    assert not [name for _, _, names in os.walk(tmp_path) for name in names if name.endswith('.part')]
    data = CocoInstances(*written, check_images=True)
    assert data.classes == shapes.classes == list(SHAPES[:3])
    for ours, theirs in zip(shapes, data, strict=True):
        assert ours.image_id == theirs.image_id and torch.equal(ours.image, theirs.image)
        assert torch.equal(ours.target.masks, theirs.target.masks)
        assert torch.equal(ours.target.labels, theirs.target.labels)


def lay_out(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == '.json':
            path.write_text('{}')
        else:
            path.mkdir(exist_ok=True)


@pytest.mark.parametrize('names, split, expected', [
    pytest.param(['annotations/instances_train.json', 'images/train', 'images/val'], 'train',
                 ('annotations/instances_train.json', 'images/train'), id='ModelScope'),
    pytest.param(['annotations/instances_val2017.json', 'annotations/instances_train2017.json', 'train2017', 'val2017'],
                 'val', ('annotations/instances_val2017.json', 'val2017'), id='COCO'),
    pytest.param(['annotations/instances_val2017.json', 'val2017'], 'val2017',
                 ('annotations/instances_val2017.json', 'val2017'), id='COCO, split with its year'),
    pytest.param(['annotations/instances_val2014.json', 'val2017', 'val2014'], 'val',
                 ('annotations/instances_val2014.json', 'val2014'), id='COCO of 2014 beside 2017'),
    pytest.param(['instances_train.json', 'train'], 'train', ('instances_train.json', 'train'), id='flat'),
    pytest.param(['annotations/instances_train.json', 'images'], 'train',
                 ('annotations/instances_train.json', 'images'), id='one folder of images'),
    pytest.param(['annotations/instances_minitrain.json', 'images/minitrain'], 'minitrain',
                 ('annotations/instances_minitrain.json', 'images/minitrain'), id='a split of ones own'),
])
def test_layouts(tmp_path, names, split, expected):
    lay_out(tmp_path, *names)
    assert find_coco(tmp_path, split) == tuple(str(tmp_path / name) for name in expected)


@pytest.mark.parametrize('names, message', [
    pytest.param([], r"no annotation file for the split 'train'; looked for annotations/instances_train.json, "
                     r'annotations/instances_train2017.json.*There are no .json files', id='nothing there'),
    pytest.param(['annotations/instances_val.json', 'images/val'], 'There are annotations/instances_val.json',
                 id='another split'),
    pytest.param(['annotations/instances_train.json'], 'instances_train.json is there, but no folder with its images; '
                                                       'looked for images/train, train,', id='no images'),
])
def test_what_was_looked_for_is_said(tmp_path, names, message):
    lay_out(tmp_path, *names)
    with pytest.raises(FileNotFoundError, match=message):
        find_coco(tmp_path, 'train')


def test_a_root_that_is_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere: no such folder'):
        find_coco(tmp_path / 'nowhere', 'train')


def test_real_layouts(shared_data):
    assert len(CocoInstances(*find_coco(shared_data / 'coco-tiny', 'train'))) == 80
    assert len(CocoInstances(*find_coco(shared_data / 'nuclei', 'val'))) == 80
