"""Large-scale jitter: sizes and crops."""
from __future__ import annotations

import pytest
import torch

from modelscope_fastinst.data.augment import TrainTransform
from modelscope_fastinst.data.geometry import Crop, Resize
from modelscope_fastinst.structures import Sample, Target


def plans(settings, height, width, number=100):
    torch.manual_seed(0)
    transform = TrainTransform(large_scale_jitter=settings, flip=0)
    return [transform.plan(height, width) for _ in range(number)]


@pytest.mark.parametrize(('size', 'box'), [
    pytest.param(200, (200, 200), id='square box'), pytest.param([150, 300], (150, 300), id='box of two sides')])
def test_images_fit_into_the_box_times_a_factor_and_are_cropped_to_it(size, box):
    factors = []
    for plan in plans({'size': size, 'range': [0.25, 2.0]}, 100, 120):
        resized = next(operation for operation in plan.operations if isinstance(operation, Resize))
        factors.append(max(resized.height / box[0], resized.width / box[1]))
        assert resized.width / resized.height == pytest.approx(1.2, rel=0.05)
        assert plan.size == (min(resized.height, box[0]), min(resized.width, box[1]))   # nothing is padded
    assert 0.24 < min(factors) < 0.35 and 1.85 < max(factors) < 2.01


def test_the_crop_lies_anywhere():
    crops = [operation for plan in plans({'size': 64, 'range': [2.0, 2.0]}, 50, 50) for operation in plan.operations
             if isinstance(operation, Crop)]
    assert len({crop.top for crop in crops}) > 20 and len({crop.left for crop in crops}) > 20


def test_defaults_are_the_papers():
    transform = TrainTransform(large_scale_jitter={})
    assert transform.large_scale_jitter == {'range': (0.1, 2.0), 'size': (1024, 1024)}


def test_lost_objects_are_left_out_unless_asked_for():
    masks = torch.zeros(2, 100, 100, dtype=torch.bool)
    masks[0, 0, 0] = masks[1, 99, 99] = True
    sample = Sample(torch.zeros(3, 100, 100, dtype=torch.uint8), Target(torch.tensor([4, 5]), masks))
    jitter = {'size': 50, 'range': [2.0, 2.0]}
    torch.manual_seed(0)
    assert len(TrainTransform(large_scale_jitter=jitter)(sample).target) < 2
    assert len(TrainTransform(large_scale_jitter=jitter, drop_empty=False)(sample).target) == 2


@pytest.mark.parametrize('size', [(1, 1), (1, 4000), (4000, 1)])
def test_any_size_of_image(size):
    for plan in plans({'size': 64}, *size, number=10):
        assert min(plan.size) >= 1 and max(plan.size) <= 64


@pytest.mark.parametrize(('settings', 'message'), [
    pytest.param({'range': [2, 1]}, r'large_scale_jitter.range must be \[smallest, largest\]', id='range that falls'),
    pytest.param({'size': [1, 2, 3]}, 'large_scale_jitter.size must be one size or', id='three sides'),
    pytest.param({'scale': 1}, r"large_scale_jitter has unknown keys \['scale'\]", id='unknown key'),
    pytest.param(1024, 'large_scale_jitter must be a mapping', id='a number'),
])
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainTransform(large_scale_jitter=settings)
