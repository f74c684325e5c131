"""The drawn microscope image of the demo."""
from __future__ import annotations

import numpy as np
import pytest

from modelscope_fastinst.data.microscope import draw_nuclei


def test_a_seed_gives_the_same_image_and_another_seed_another():
    first, again, other = (draw_nuclei(96, 128, count=6, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.masks, again.masks)
    assert (first.image != other.image).any()


def test_nuclei_do_not_overlap_and_are_brighter_than_what_is_around_them():
    scene = draw_nuclei(160, 200, count=12, seed=3)
    assert scene.image.shape == (160, 200, 3) and scene.image.dtype == np.uint8
    assert scene.masks.shape == (12, 160, 200) and scene.masks.dtype == bool
    assert scene.masks.sum(0).max() == 1
    background = np.median(scene.image[~scene.masks.any(0)])
    assert all(np.median(scene.image[mask]) > background + 15 for mask in scene.masks)


@pytest.mark.parametrize(('height', 'width', 'count'), [
    pytest.param(16, 16, 1, id='the smallest'),
    pytest.param(16, 300, 4, id='a strip'),
    pytest.param(64, 64, 0, id='an empty field'),
])
def test_fields_of_unusual_size(height, width, count):
    scene = draw_nuclei(height, width, count=count)
    assert scene.image.shape == (height, width, 3)
    assert scene.masks.shape[1:] == (height, width)
    assert len(scene.masks) <= count


def test_a_full_field_ends_the_drawing():
    scene = draw_nuclei(16, 16, count=300)
    assert 1 < len(scene.masks) < 300


@pytest.mark.parametrize(('size', 'count', 'message'), [
    pytest.param((15, 100), 1, 'at least 16 x 16 pixels; got 15 x 100', id='too small'),
    pytest.param((32, 32), -1, 'count is -1', id='fewer than none'),
])
def test_what_cannot_be_drawn(size, count, message):
    with pytest.raises(ValueError, match=message):
        draw_nuclei(*size, count=count)
