"""The recipe's augmentation: sizes, probabilities, and image and masks kept together."""
from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelscope_fastinst.data.augment import RECIPE_SIZES, InferenceTransform, TrainTransform
from modelscope_fastinst.data.collate import collate
from modelscope_fastinst.data.geometry import Crop, Flip, Resize
from modelscope_fastinst.data.shapes import ShapesDataset
from modelscope_fastinst.structures import Sample, Target


def painted_sample(height=60, width=80):
    """A black image with one white object, and the object's mask."""
    mask = torch.zeros(1, height, width, dtype=torch.bool)
    mask[0, height // 4:height // 2, width // 3:width // 2] = True
    return Sample(mask.repeat(3, 1, 1).byte() * 255, Target(torch.tensor([2]), mask), image_id=7)


def plans(transform, height, width, number):
    torch.manual_seed(0)
    return [transform.plan(height, width) for _ in range(number)]


def test_the_recipe_crops_half_of_the_images():
    drawn = plans(TrainTransform(), 480, 640, 400)
    cropped = [plan for plan in drawn if any(isinstance(operation, Crop) for operation in plan.operations)]
    assert 150 < len(cropped) < 250
    for plan in cropped:
        first, crop = plan.operations[:2]
        assert isinstance(first, Resize) and first.height in (400, 500, 600)
        assert first.width == int(first.height * 640 / 480 + 0.5)
        assert 384 <= crop.height <= min(600, first.height) and 384 <= crop.width <= 600


def test_the_recipe_resizes_to_its_short_sides_with_a_limit():
    drawn = plans(TrainTransform(), 480, 640, 400)
    plain = [plan for plan in drawn if not any(isinstance(operation, Crop) for operation in plan.operations)]
    assert {plan.size[0] for plan in plain} == set(RECIPE_SIZES)
    assert all(max(plan.size) <= 853 and min(plan.size) <= 640 for plan in drawn)


def test_the_recipe_flips_half_of_the_images():
    flipped = sum(Flip() in plan.operations for plan in plans(TrainTransform(), 480, 640, 400))
    assert 150 < flipped < 250


@pytest.mark.parametrize('size', [
    pytest.param((256, 256), id='square'),
    pytest.param((256, 320), id='landscape'),
    pytest.param((360, 360), id='larger than the window'),
])
def test_a_window_is_cut_out_of_small_images_at_random_scale(size):
    transform = TrainTransform(range(256, 641, 32), max_size=None, crop=None, window=256)
    drawn = plans(transform, *size, 30)
    assert {plan.size for plan in drawn} == {(256, 256)}
    assert len({next((one.height for one in plan.operations if isinstance(one, Resize)), 0) for plan in drawn}) > 5


def test_a_window_larger_than_the_image_is_clamped():
    assert {plan.size for plan in plans(TrainTransform(100, None, None, window=(64, 999)), 100, 150, 5)} == {(64, 150)}


@pytest.mark.parametrize('size', [
    pytest.param((1, 1), id='one pixel'),
    pytest.param((1, 4000), id='one row'),
    pytest.param((4000, 1), id='one column'),
])
def test_the_recipe_takes_any_size(size):
    torch.manual_seed(0)
    transform = TrainTransform()
    for _ in range(6):
        sample = transform(Sample(torch.zeros(3, *size, dtype=torch.uint8),
                                  Target(torch.zeros(1, dtype=torch.long), torch.ones(1, *size, dtype=torch.bool))))
        assert sample.image.shape[1:] == sample.target.masks.shape[1:]
        assert min(sample.image.shape) >= 1 and max(sample.image.shape) <= 853
        assert sample.target.masks.all()


@given(seed=st.integers(0, 10 ** 6), height=st.integers(20, 90), width=st.integers(20, 90))
@example(seed=1954, height=70, width=63)  # the border lies just outside
@settings(max_examples=30, deadline=None)
def test_image_and_masks_stay_together(seed, height, width):
    torch.manual_seed(seed)
    transform = TrainTransform((32, 64, 96), 128, crop={'probability': 0.5, 'min_sizes': (48, 72),
                                                        'size_range': (24, 60)}, vertical_flip=0.5, rotate=0.5)

    sample = transform(painted_sample(height, width))

    white, mask = sample.image[0] > 127, sample.target.masks[0]
    assert white.shape == mask.shape
    # Bilinear and nearest differ on the object's border alone, which may lie just outside the crop.
    border = torch.nn.functional.max_pool2d(mask[None].float(), 9, 1, 4)[0].bool() & \
        torch.nn.functional.max_pool2d((~mask)[None].float(), 9, 1, 4)[0].bool()
    border[:4] = border[-4:] = border[:, :4] = border[:, -4:] = True
    assert not ((white != mask) & ~border).any()


def test_objects_that_the_crop_lost_are_kept_as_empty_masks_or_dropped():
    masks = torch.zeros(2, 100, 100, dtype=torch.bool)
    masks[0, 0, 0] = masks[1, 99, 99] = True
    sample = Sample(torch.zeros(3, 100, 100, dtype=torch.uint8), Target(torch.tensor([4, 5]), masks))
    for drop, expected in ((False, 2), (True, None)):
        torch.manual_seed(3)
        target = TrainTransform(100, None, None, window=50, flip=0.0, drop_empty=drop)(sample).target
        kept = target.masks.flatten(1).any(1)
        if expected is None:
            assert kept.all() and len(target) < 2
        else:
            assert len(target) == expected and not kept.all()
            assert target.labels.tolist() == [4, 5]


def test_eight_orientations():
    image = torch.arange(6, dtype=torch.uint8).reshape(1, 2, 3).repeat(3, 1, 1)
    transform = TrainTransform(2, None, None, flip=0.5, vertical_flip=0.5, rotate=0.5)
    torch.manual_seed(0)
    seen = {(transform(Sample(image)).image[0]).numpy().tobytes() for _ in range(100)}
    assert len(seen) == 8


def test_the_same_seed_gives_the_same_sample_and_numpy_is_not_involved():
    transform = TrainTransform(color={'brightness': 0.4, 'hue': 0.1})
    samples = []
    for numpy_seed in (0, 1):
        np.random.seed(numpy_seed)
        torch.manual_seed(5)
        samples.append(transform(painted_sample()))
    assert torch.equal(samples[0].image, samples[1].image)
    assert torch.equal(samples[0].target.masks, samples[1].target.masks)


def test_workers_draw_different_augmentations():
    data = ShapesDataset(1, (40, 40), transform=TrainTransform(range(32, 100), None, None))
    repeated = torch.utils.data.Subset(data, [0] * 8)
    torch.manual_seed(0)
    loader = torch.utils.data.DataLoader(repeated, batch_size=4, num_workers=2, collate_fn=collate)
    first, second = ([tuple(image.shape) for image in batch['images']] for batch in loader)
    assert first != second


@pytest.mark.parametrize('color, expected', [
    pytest.param({'invert': 1}, 155, id='inverted'),
    pytest.param({'grayscale': 1}, 100, id='gray stays gray'),
    pytest.param({}, 100, id='off'),
])
def test_colors(color, expected):
    sample = TrainTransform(8, None, None, color=color)(Sample(torch.full((3, 8, 8), 100, dtype=torch.uint8)))
    assert sample.image.dtype == torch.uint8
    assert (sample.image.int() - expected).abs().max() <= 1


def test_color_jitter_changes_colors_only():
    torch.manual_seed(0)
    transform = TrainTransform(60, None, None, flip=0, color={'brightness': 0.5, 'contrast': 0.5, 'saturation': 0.5})
    sample = transform(painted_sample())
    assert torch.equal(sample.target.masks, painted_sample().target.masks)
    assert not torch.equal(sample.image, painted_sample().image)


def test_inference_keeps_ids_and_fills_in_the_original_size():
    sample = InferenceTransform(30, 50)(painted_sample(60, 80))
    assert sample.image.shape == (3, 30, 40) and sample.target.masks.shape == (1, 30, 40)
    assert sample.image_id == 7 and sample.original_size == (60, 80)


def test_a_known_original_size_is_kept():
    sample = painted_sample()
    sample.original_size = (600, 800)
    assert InferenceTransform(30, 50)(sample).original_size == (600, 800)


def test_the_input_sample_is_not_changed():
    sample = painted_sample()
    TrainTransform()(sample)
    assert sample.image.shape == (3, 60, 80) and sample.target.masks.shape == (1, 60, 80)


@pytest.mark.parametrize('transform', [
    pytest.param(TrainTransform(window=64, color={'hue': 0.1}), id='training'),
    pytest.param(InferenceTransform(), id='inference'),
])
def test_transforms_can_be_pickled(transform):
    copy = pickle.loads(pickle.dumps(transform))
    torch.manual_seed(1)
    expected = transform(painted_sample())
    torch.manual_seed(1)
    assert torch.equal(copy(painted_sample()).image, expected.image)


def test_settings_come_from_json_as_lists():
    transform = TrainTransform(min_sizes=[416, 448], crop={'min_sizes': [400], 'size_range': [300, 400]})
    assert transform.crop == {'probability': 0.5, 'min_sizes': (400,), 'size_range': (300, 400)}


@pytest.mark.parametrize('arguments, message', [
    pytest.param({'min_sizes': []}, 'min_sizes needs at least one', id='no size'),
    pytest.param({'min_sizes': [0]}, 'min_sizes must be a whole number', id='size zero'),
    pytest.param({'min_sizes': [64.5]}, 'min_sizes must be a whole number', id='broken size'),
    pytest.param({'max_size': -1}, 'max_size must be', id='negative limit'),
    pytest.param({'flip': 1.5}, 'flip is a probability', id='probability above one'),
    pytest.param({'min_sizes': 'small'}, "min_sizes must be .* got 'small'", id='size a string'),
    pytest.param({'min_sizes': None}, 'min_sizes must be .* got None', id='no sizes'),
    pytest.param({'max_size': float('inf')}, 'max_size must be .* got inf', id='limit infinite'),
    pytest.param({'flip': 'yes'}, "flip is a probability .* got 'yes'", id='probability a string'),
    pytest.param({'rotate': True}, 'rotate is a probability .* got True', id='probability a truth value'),
    pytest.param({'crop': True}, 'crop must be a mapping .* got True', id='crop a truth value'),
    pytest.param({'color': 'x'}, "color must be a mapping .* got 'x'", id='color a string'),
    pytest.param({'color': {'hue': None}}, 'color.hue must be a number .* got None', id='hue none'),
    pytest.param({'drop_empty': 'no'}, "drop_empty must be true or false; got 'no'", id='drop_empty a string'),
    pytest.param({'flip': float('nan')}, 'flip is a probability', id='probability not a number'),
    pytest.param({'window': [1, 2, 3]}, 'window must be one size or', id='window of three sides'),
    pytest.param({'crop': {'size': 3}}, r"crop has unknown keys \['size'\]", id='unknown crop key'),
    pytest.param({'crop': {'size_range': [600, 384]}}, 'crop.size_range must be', id='crop range reversed'),
    pytest.param({'color': {'gamma': 1}}, r"color has unknown keys \['gamma'\]", id='unknown color key'),
    pytest.param({'color': {'hue': 0.7}}, r'color.hue must be a number and lie in \[0, 0.5\]', id='hue out of range'),
])
def test_wrong_settings_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        TrainTransform(**arguments)


@pytest.mark.parametrize('sizes', [
    pytest.param({'min_size': None}, id='none'),
    pytest.param({'min_size': float('inf')}, id='infinite'),
    pytest.param({'max_size': float('nan')}, id='no number'),
    pytest.param({'max_size': '640'}, id='string'),
])
def test_wrong_sizes_of_inference_are_named(sizes):
    [(name, value)] = sizes.items()
    with pytest.raises(ValueError, match=f'{name} must be a whole number of pixels, at least 1; got {value!r}'):
        InferenceTransform(**sizes)


def test_collate_gathers_without_padding():
    batch = collate([painted_sample(20, 30), painted_sample(40, 10)])
    assert [tuple(image.shape) for image in batch['images']] == [(3, 20, 30), (3, 40, 10)]
    assert [tuple(target.masks.shape) for target in batch['targets']] == [(1, 20, 30), (1, 40, 10)]
    assert [sample.image_id for sample in batch['samples']] == [7, 7]


def test_collate_without_ground_truth_gives_no_targets():
    assert collate([Sample(torch.zeros(3, 4, 4, dtype=torch.uint8))])['targets'] is None


@pytest.mark.parametrize('samples, message', [
    pytest.param([], 'empty batch', id='empty'),
    pytest.param([painted_sample(), Sample(torch.zeros(3, 4, 4), file_name='b.png')],
                 r"without: \['b.png'\]", id='mixed'),
])
def test_collate_refuses(samples, message):
    with pytest.raises(ValueError, match=message):
        collate(samples)
