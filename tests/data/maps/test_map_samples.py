"""Training samples of maps: masks that go with the image through any geometry, and together are what is not void."""
from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from modelscope_fastinst.data.augment import InferenceTransform, TrainTransform
from modelscope_fastinst.data.geometry import Crop, Flip, Plan, Resize, Transpose
from modelscope_fastinst.data.label_sets import CITYSCAPES, COCO_PANOPTIC
from modelscope_fastinst.data.maps import SegmentationMaps, read_maps
from modelscope_fastinst.data.maps.label_map import LabelMap, locate
from modelscope_fastinst.structures import VOID
from tests.data.maps.trees import city_scenes, scenes, write_cityscapes, write_coco

TABLE = np.array([3, 40, 70_001, 9_000_000])


def label_map(places: np.ndarray) -> LabelMap:
    """Four segments: of class 0, of class 1, a crowd of class 1, of class 2."""
    return LabelMap(places.astype(np.int32), TABLE, np.array([0, 1, 1, 2]), np.array([False, False, True, False]))


MAPS = arrays.arrays(np.int8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(-1, 3)).map(
    label_map)


def plan_of(size: tuple[int, int], resized: tuple[int, int], flips: list[int]) -> Plan:
    plan = Plan(*size, [Resize(*resized), *([Flip(), Flip(vertical=True), Transpose()][one] for one in flips)])
    height, width = plan.size
    plan.add(Crop(height // 3, width // 4, height - height // 3, width - width // 4))
    return plan


@settings(deadline=None, max_examples=40)
@given(MAPS, st.tuples(st.integers(1, 12), st.integers(1, 12)), st.lists(st.integers(0, 2), max_size=3))
def test_masks_are_the_transformed_map(found, resized, flips):
    """Whatever the geometry: no pixel in two masks, and those in none are void or in a crowd region."""
    plan = plan_of(found.size, resized, flips)
    places = plan.masks(found.places[None])[0]
    segments = found.segments_target(plan)
    assert segments.labels.tolist() == [0, 1, 2]
    masks = segments.masks.numpy()
    np.testing.assert_array_equal(masks, [places == one for one in (0, 1, 3)])
    np.testing.assert_array_equal(masks.sum(0), ~np.isin(places, (-1, 2)))
    classes = found.classes_target(plan)
    masks = classes.masks.numpy()
    assert masks.any((1, 2)).all()   # only classes that are left
    np.testing.assert_array_equal(masks.sum(0), places >= 0)
    for label, mask in zip(classes.labels.tolist(), masks, strict=True):
        np.testing.assert_array_equal(mask, np.isin(places, {0: [0], 1: [1, 2], 2: [3]}[label]))


@settings(deadline=None, max_examples=40)
@given(MAPS)
def test_truths_of_a_map_agree(found):
    """Panoptic, semantic and the objects say the same of each pixel."""
    panoptic, semantic = found.panoptic(frozenset({0, 1})), found.semantic()
    assert panoptic.ids.dtype == np.int32 and semantic.labels.dtype == np.int16
    np.testing.assert_array_equal(panoptic.ids == 0, semantic.labels == VOID)
    assert [one.id for one in panoptic.segments] == [one for one in np.unique(panoptic.ids).tolist() if one]
    for one in panoptic.segments:
        mask = panoptic.ids == one.id
        assert (semantic.labels[mask] == one.label).all()
        rows, columns = np.nonzero(mask)
        assert one.area == mask.sum()
        assert one.bbox == (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
        assert one.isthing == (one.label < 2)
        assert one.iscrowd == (one.id == 70_001)
    objects = found.annotations(frozenset({0, 1}))
    assert [(one['id'], one['area'], tuple(one['bbox']), one['iscrowd']) for one in objects] == \
        [(one.id, one.area, one.bbox, int(one.iscrowd)) for one in panoptic.segments if one.isthing]


@settings(deadline=None, max_examples=40)
@given(MAPS, st.permutations([0, 1, -1]))
def test_other_class_indices(found, label_of):
    changed = found.relabelled(np.array(label_of))
    labels = np.append(label_of, VOID)[found.semantic().labels]
    np.testing.assert_array_equal(changed.semantic().labels, labels)
    np.testing.assert_array_equal(changed.present().semantic().labels, labels)
    kept = {one.id for one in found.panoptic(frozenset()).segments if label_of[one.label] >= 0}
    assert {one.id for one in changed.panoptic(frozenset()).segments} == kept


@settings(deadline=None, max_examples=40)
@given(arrays.arrays(np.int32, 12, elements=st.integers(0, 1 << 24)),
       st.lists(st.one_of(st.integers(0, 9), st.integers(0, 1 << 24)), unique=True))
def test_values_are_found_in_a_table(values, numbers):
    numbers = np.array(sorted(numbers), np.int64)
    values[:4] = numbers[:4] if len(numbers) > 3 else values[:4]
    places = locate(values, numbers)
    assert places.dtype == np.int32
    np.testing.assert_array_equal(places >= 0, np.isin(values, numbers))
    np.testing.assert_array_equal(numbers[places[places >= 0]], values[places >= 0])


@pytest.fixture
def folder(tmp_path):
    pictures = scenes(COCO_PANOPTIC, ['1', '2'], ('person', 'kite'), ('sea', 'sand'), crowd=True)
    for scene in pictures:   # the image says of each pixel which class it is of
        scene.image = np.repeat((scene.labels + 1).astype(np.uint8)[..., None], 3, 2)
    write_coco(tmp_path, pictures, COCO_PANOPTIC)
    return tmp_path


TRANSFORMS = [
    pytest.param(TrainTransform(24, None, crop=None, flip=1, vertical_flip=1), id='flips'),
    pytest.param(TrainTransform(24, None, crop=None, flip=0, rotate=1), id='rotation'),
    pytest.param(TrainTransform(24, None, crop=None, window=(9, 13)), id='window'),
    pytest.param(TrainTransform(large_scale_jitter={'range': (1.0, 1.0), 'size': 36}, flip=0, window=20), id='jitter'),
    pytest.param(InferenceTransform(24, None), id='as it is'),
]


@pytest.mark.parametrize('transform', TRANSFORMS)
@pytest.mark.parametrize('task', ['panoptic', 'semantic'])
def test_image_and_masks_are_transformed_alike(folder, transform, task):
    """Without a change of scale every pixel of the image still says of which class it is."""
    data = SegmentationMaps(read_maps(folder, task, 'train'), task, transform=transform)
    torch.manual_seed(0)
    for _ in range(3):
        sample = data[0]
        said = sample.image[0].numpy().astype(int) - 1
        for label, mask in zip(sample.target.labels.tolist(), sample.target.masks.numpy(), strict=True):
            assert (said[mask] == label).all()
        in_none = ~sample.target.masks.numpy().any(0)
        assert set(np.unique(said[in_none]).tolist()) <= ({-1, 0} if task == 'panoptic' else {-1})   # void, crowd
        assert sample.original_size == (24, 36)


def test_the_truth_stays_at_the_size_of_the_image(folder):
    data = SegmentationMaps(read_maps(folder, 'panoptic', 'train'), 'panoptic', transform=InferenceTransform(60, None),
                            with_targets=False)
    sample = data[1]
    assert sample.target is None
    assert sample.image.shape == (3, 60, 90)
    assert sample.truth.ids.shape == sample.original_size == (24, 36)
    assert len(sample.annotations) == 4   # three objects and the crowd


def test_emptied_segments_stay_unless_they_are_to_be_dropped(folder):
    """As objects do: the authors keep them; a large-scale jitter leaves them out."""
    counts = []
    for drop in (False, True):
        transform = TrainTransform(24, None, crop=None, flip=0, window=(2, 2), drop_empty=drop)
        data = SegmentationMaps(read_maps(folder, 'panoptic', 'train'), 'panoptic', transform=transform)
        counts.append(len(data[0].target))
    assert counts[0] == 5
    assert counts[1] < 5


def test_a_transform_of_the_users_sees_the_whole_target(folder):
    seen = []

    def transform(sample):
        seen.append(sample)
        return sample

    SegmentationMaps(read_maps(folder, 'panoptic', 'train'), 'panoptic', transform=transform)[0]
    assert seen[0].target.masks.shape == (5, 24, 36)


def test_a_data_set_travels_to_a_worker(tmp_path):
    """Workers that are started anew get it pickled; pictures and maps stay on the disk."""
    write_cityscapes(tmp_path, city_scenes())
    for task in ('panoptic', 'semantic'):
        data = SegmentationMaps(read_maps(tmp_path, task, 'train'), task)
        content = pickle.dumps(data)
        assert len(content) < 20_000
        assert torch.equal(pickle.loads(content)[1].target.masks, data[1].target.masks)
    assert data.classes == list(CITYSCAPES.names)


def test_empty_images_are_left_out_of_training(folder):
    import json
    file = folder / 'annotations/panoptic_train2017.json'
    content = json.loads(file.read_text('utf-8'))
    content['annotations'][0]['segments_info'] = [dict(one, iscrowd=1) for one in
                                                  content['annotations'][0]['segments_info']]
    file.write_text(json.dumps(content), 'utf-8')
    source = read_maps(folder, 'panoptic', 'train')
    assert SegmentationMaps(source, 'panoptic', skip_empty=True).image_ids == [2]
    assert SegmentationMaps(source, 'panoptic').image_ids == [1, 2]
