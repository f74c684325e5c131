"""COCO files as people have them: which images and objects are read, and what a sample holds."""
from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from modelscope_fastinst.data.augment import InferenceTransform, TrainTransform
from modelscope_fastinst.data.coco import CocoInstances
from modelscope_fastinst.data.collate import collate
from modelscope_fastinst.data.image import EXIF_ORIENTATION
from tests.data.coco_files import SQUARE, change, content, write


def test_a_sample(folder):
    data = CocoInstances(write(folder, content()), folder)
    sample = data[0]
    assert (sample.image_id, sample.file_name, sample.original_size) == (11, str(folder / 'bär 1.png'), (20, 30))
    assert sample.image.dtype == torch.uint8 and sample.image.shape == (3, 20, 30)
    assert sample.target.labels.tolist() == [2, 0]
    assert sample.target.masks.flatten(1).sum(1).tolist() == [40, 28]
    assert sample.target.masks[0, 3:8, 2:10].all() and sample.target.masks[1, 5:9, 6:13].all()


def test_classes_are_numbered_by_ascending_id_and_unused_ones_are_kept(folder):
    data = CocoInstances(write(folder, content()), folder)
    assert data.classes == ['人物', 'unused', 'teddy bear'] and data.category_ids == [0, 4, 90]


def test_chosen_classes_in_their_order(folder):
    data = CocoInstances(write(folder, content()), folder, classes=['teddy bear', '人物'])
    assert data.classes == ['teddy bear', '人物'] and data[0].target.labels.tolist() == [0, 1]
    data = CocoInstances(write(folder, content()), folder, classes=['teddy bear'])
    assert data.image_ids == [11] and data[0].target.labels.tolist() == [0]


def test_evaluation_keeps_empty_images_and_crowds(folder):
    data = CocoInstances(write(folder, content()), folder, skip_empty=False)
    assert data.image_ids == [11, 7, 9] and data.sizes == [(20, 30)] * 3
    records = data[0].annotations
    assert [record['iscrowd'] for record in records] == [0, 0, 1]
    assert [record['category_id'] for record in records] == [2, 0, 0]
    assert [record['area'] for record in records] == [40, 28, 28]
    assert [record['bbox'] for record in records] == [[2, 3, 8, 5], [6, 5, 7, 4], [1, 10, 7, 4]]
    assert coco_mask.area([record['segmentation'] for record in records]).tolist() == [40, 28, 28]
    empty = data[2]
    assert empty.annotations == [] and empty.target.masks.shape == (0, 20, 30) and empty.target.labels.shape == (0,)
    assert data.annotations(0) == records


def test_training_leaves_out_images_without_objects(folder):
    data = change(['annotations', 1, 'iscrowd'], 1)
    assert CocoInstances(write(folder, data), folder).image_ids == [11]


def test_what_is_not_needed_is_not_made(folder):
    sample = CocoInstances(write(folder, content()), folder, with_targets=False, with_annotations=False)[0]
    assert sample.target is None and sample.annotations == []


def test_annotations_of_the_original_size_stay_when_the_image_is_resized(folder):
    sample = CocoInstances(write(folder, content()), folder, transform=InferenceTransform(40, 60))[0]
    assert sample.image.shape == (3, 40, 60) and sample.target.masks.shape == (2, 40, 60)
    assert sample.original_size == (20, 30) and sample.annotations[0]['segmentation']['size'] == [20, 30]


def test_a_transform_of_ones_own(folder):
    def halve(sample):
        sample.image = sample.image[:, ::2, ::2]
        return sample
    assert CocoInstances(write(folder, content()), folder, transform=halve)[0].image.shape == (3, 10, 15)


def test_images_and_masks_are_augmented_together(folder):
    """The objects are painted into the image: wherever the recipe puts them, image and masks still agree."""
    data = CocoInstances(write(folder, content()), folder)
    painted = np.zeros((20, 30, 3), np.uint8)
    painted[data[0].target.masks.any(0).numpy()] = 255
    Image.fromarray(painted).save(folder / 'bär 1.png')
    data.transform = TrainTransform((40, 60), None, {'min_sizes': (50,), 'size_range': (30, 50)}, vertical_flip=0.5,
                                    rotate=0.5)
    torch.manual_seed(0)
    for _ in range(20):
        sample = data[0]
        white, mask = sample.image[0] > 127, sample.target.masks.any(0)
        assert (white != mask).float().mean() < 0.05


def test_how_far_a_polygon_may_reach_outside_is_ones_own_choice(folder):
    data = change(['annotations', 0, 'segmentation', 0, 3], -5)
    masks = CocoInstances(write(folder, data), folder, outside_tolerance=5)[0].target.masks
    assert masks[0, 0].any() and masks.shape[1:] == (20, 30)


def test_negative_index_and_end_of_the_data(folder):
    data = CocoInstances(write(folder, content()), folder)
    assert data[-1].image_id == 7 and len(list(data)) == 2
    with pytest.raises(IndexError, match='sample 2 of 2'):
        data[2]


def test_content_instead_of_a_file_is_not_changed(folder):
    data = content()
    assert len(CocoInstances(data, folder)) == 2
    assert data == content()


def test_it_can_be_pickled_and_spawned(folder):
    data = CocoInstances(write(folder, content()), folder, transform=TrainTransform(32, None, None))
    assert pickle.loads(pickle.dumps(data)).image_ids == [11, 7]
    loader = torch.utils.data.DataLoader(data, batch_size=2, num_workers=1, collate_fn=collate,
                                         multiprocessing_context='spawn')
    assert [sample.image_id for sample in next(iter(loader))['samples']] == [11, 7]


def test_string_ids(folder):
    data = change(['images', 0, 'id'], 'first')
    for index in (0, 2, 3):
        data['annotations'][index].update(image_id='first', id=f'a{index}')
    sample = CocoInstances(write(folder, data), folder)[0]
    assert sample.image_id == 'first'
    assert [record['id'] for record in sample.annotations] == ['a0', 'a2', 'a3']


@pytest.mark.parametrize('upright', [pytest.param(True, id='annotated as shown'),
                                     pytest.param(False, id='annotated as stored')])
def test_exif_orientation_follows_the_annotation_file(folder, upright):
    """A photograph stored as 20 x 30 that is to be shown as 30 x 20."""
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:, :4] = 200
    Image.fromarray(pixels).save(folder / 'bär 1.png', exif=exif)
    data = content()
    data['annotations'] = [{'id': 1, 'image_id': 11, 'category_id': 0, 'segmentation': SQUARE}]
    if upright:
        data['images'][0].update(height=30, width=20)
    sample = CocoInstances(write(folder, data), folder, check_images=True)[0]
    assert sample.original_size == ((30, 20) if upright else (20, 30)) == tuple(sample.image.shape[1:])
    assert (sample.image[0, :4].float().mean() if upright else sample.image[0, :, :4].float().mean()) == 200


@pytest.mark.parametrize('annotations, images, size', [
    pytest.param('nuclei/instances_val.json', 'nuclei/val', 80, id='nuclei, run lengths'),
    pytest.param('nuts/trainval.json', 'nuts/images', 18, id='nuts, polygons'),
    pytest.param('coco-tiny/annotations/instances_val2017.json', 'coco-tiny/val2017', 80, id='COCO, with crowds'),
])
def test_real_masks_equal_pycocotools(shared_data, annotations, images, size):
    data = CocoInstances(shared_data / annotations, shared_data / images, skip_empty=False, check_images=True)
    reference = COCO(str(shared_data / annotations))
    assert len(data) == size and not data.problems
    for index in range(0, size, 8):
        sample = data[index]
        expected = reference.loadAnns(reference.getAnnIds(imgIds=[sample.image_id]))
        drawn = iter(sample.target.masks)
        assert len(sample.annotations) == len(expected)
        for ours, theirs in zip(sample.annotations, expected, strict=True):
            mask = reference.annToMask(theirs)
            np.testing.assert_array_equal(coco_mask.decode(ours['segmentation']), mask)
            assert (ours['id'], ours['area'], ours['bbox']) == (theirs['id'], theirs['area'], theirs['bbox'])
            assert data.category_ids[ours['category_id']] == theirs['category_id']
            if not theirs['iscrowd']:
                np.testing.assert_array_equal(next(drawn).numpy(), mask)
        assert next(drawn, None) is None
