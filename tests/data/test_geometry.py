"""Image, masks and polygons move together, whatever the plan."""
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from modelscope_fastinst.data.geometry import Crop, Flip, Plan, Resize, Transpose, resize_image, resized_size
from modelscope_fastinst.data.segmentation import check_segmentation, draw

sides = st.integers(1, 40)
seeds = st.integers(0, 2 ** 32 - 1)


@st.composite
def plans(draw_value, resizes=True, least=1):
    """A plan of up to five operations for a random image size."""
    plan = Plan(draw_value(st.integers(least, 40)), draw_value(st.integers(least, 40)))
    kinds = ['crop', 'flip', 'vertical flip', 'transpose'] + ['resize'] * resizes
    for kind in draw_value(st.lists(st.sampled_from(kinds), max_size=5)):
        height, width = plan.size
        if kind == 'resize':
            plan.add(Resize(draw_value(st.integers(least, 60)), draw_value(st.integers(least, 60))))
        elif kind == 'crop':
            crop_height, crop_width = draw_value(st.integers(1, height)), draw_value(st.integers(1, width))
            plan.add(Crop(draw_value(st.integers(0, height - crop_height)),
                          draw_value(st.integers(0, width - crop_width)), crop_height, crop_width))
        elif kind == 'transpose':
            plan.add(Transpose())
        else:
            plan.add(Flip(vertical=kind == 'vertical flip'))
    return plan


@pytest.mark.parametrize('operation', [
    pytest.param(Flip(), id='left to right'),
    pytest.param(Flip(vertical=True), id='top to bottom'),
    pytest.param(Transpose(), id='transposed'),
])
@given(height=sides, width=sides, seed=seeds)
@settings(max_examples=20, deadline=None)
def test_twice_is_identity(operation, height, width, seed):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    plan = Plan(height, width, [operation, operation])
    points = np.random.default_rng(seed).uniform(0, 40, (5, 2))

    assert plan.size == (height, width)
    np.testing.assert_array_equal(plan.image(image), image)
    np.testing.assert_array_equal(plan.masks(image.transpose(2, 0, 1)), image.transpose(2, 0, 1))
    np.testing.assert_allclose(plan.points(points), points, atol=1e-12)


@given(plan=plans(resizes=False), seed=seeds)
@settings(max_examples=60, deadline=None)
def test_a_mask_painted_into_the_image_moves_with_it(plan, seed):
    mask = np.random.default_rng(seed).random(plan.source) < 0.5
    image = np.repeat(mask[:, :, None] * np.uint8(255), 3, axis=2)

    np.testing.assert_array_equal(plan.image(image)[:, :, 0] > 0, plan.masks(mask[None])[0])


@given(plan=plans(least=8), seed=seeds)
@settings(max_examples=60, deadline=None)
def test_points_are_found_where_the_mask_is(plan, seed):
    """A pixel's centre, moved, lies in the mask that was that pixel, or so near that nearest neighbour skipped it."""
    rng = np.random.default_rng(seed)
    row, column = rng.integers(plan.source[0]), rng.integers(plan.source[1])
    mask = np.zeros((1, *plan.source), bool)
    mask[0, row, column] = True

    moved = plan.masks(mask)[0]

    x, y = plan.points(np.array([[column + 0.5, row + 0.5]]))[0]
    if not moved.any():
        return
    rows, columns = np.nonzero(moved)
    assert rows.min() - 2 < y < rows.max() + 3
    assert columns.min() - 2 < x < columns.max() + 3


@given(plan=plans(), seed=seeds)
@settings(max_examples=60, deadline=None)
def test_run_length_masks_are_drawn_as_decoded_masks_move(plan, seed):
    from pycocotools import mask as coco_mask
    rng = np.random.default_rng(seed)
    masks = rng.random((3, *plan.source)) < rng.random((3, 1, 1))
    masks[:, rng.integers(plan.source[0]), rng.integers(plan.source[1])] = True
    packed = [check_segmentation(coco_mask.encode(np.asfortranarray(mask.view(np.uint8))), *plan.source, 0)
              for mask in masks]

    np.testing.assert_array_equal(draw(packed, plan), plan.masks(masks))


@pytest.mark.parametrize('operations', [
    pytest.param([], id='in place'),
    pytest.param([Flip()], id='left to right'),
    pytest.param([Flip(vertical=True)], id='top to bottom'),
    pytest.param([Transpose(), Flip()], id='rotated'),
    pytest.param([Crop(10, 20, 40, 33)], id='cropped'),
    pytest.param([Resize(120, 160)], id='enlarged'),
    pytest.param([Resize(61, 47), Crop(5, 5, 40, 40), Resize(80, 80), Flip()], id='all at once'),
])
def test_polygons_and_masks_agree(operations):
    """Moved then filled, or filled then moved: the same object, but for its border."""
    polygon = [10.5, 12.0, 60.25, 8.5, 70.0, 55.75, 30.0, 40.0, 12.0, 70.0]
    packed = check_segmentation([polygon], 80, 90, 0)
    plan = Plan(80, 90, operations)

    moved_polygon = draw([packed], plan)[0]

    moved_mask = plan.masks(draw([packed], Plan(80, 90)))[0]
    assert (moved_polygon & moved_mask).sum() / (moved_polygon | moved_mask).sum() > 0.93


@given(height=st.integers(4, 60), width=st.integers(4, 60), new_height=st.integers(4, 200),
       new_width=st.integers(4, 200), seed=seeds)
@settings(max_examples=40, deadline=None)
def test_a_crop_of_a_resized_image_is_computed_alone(height, width, new_height, new_width, seed):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    crop_height, crop_width = rng.integers(1, new_height + 1), rng.integers(1, new_width + 1)
    crop = Crop(int(rng.integers(new_height - crop_height + 1)), int(rng.integers(new_width - crop_width + 1)),
                int(crop_height), int(crop_width))

    at_once = Plan(height, width, [Resize(new_height, new_width), crop]).image(image)

    in_turn = crop.image(resize_image(image, new_height, new_width))
    assert at_once.shape == in_turn.shape
    difference = np.abs(at_once.astype(int) - in_turn)  # PIL keeps the box in single precision
    assert difference.max() <= 2


@given(height=sides, width=sides, new_height=sides, new_width=sides)
@settings(max_examples=40, deadline=None)
def test_masks_are_resized_as_pil_does_with_nearest(height, width, new_height, new_width):
    mask = np.random.default_rng(height * width).integers(0, 256, (height, width), np.uint8)
    expected = Image.fromarray(mask).resize((new_width, new_height), Image.Resampling.NEAREST)

    resized = Plan(height, width, [Resize(new_height, new_width)]).masks(mask[None])[0]

    # Where a centre falls on a border between two pixels, PIL's accumulated rounding may choose the other one.
    ties = [np.isclose(((np.arange(new) + 0.5) * old / new) % 1, (0, 1)[:1], atol=1e-6)
            | np.isclose(((np.arange(new) + 0.5) * old / new) % 1, 1, atol=1e-6)
            for old, new in ((height, new_height), (width, new_width))]
    certain = ~ties[0][:, None] & ~ties[1][None]
    np.testing.assert_array_equal(resized[certain], np.asarray(expected)[certain])


@pytest.mark.parametrize('size, limits, expected', [
    pytest.param((480, 640), (640, 853), (640, 853), id='limit just not reached'),
    pytest.param((300, 900), (640, 853), (284, 853), id='long side limits'),
    pytest.param((640, 427), (576, 777), (777, 518), id='portrait'),
    pytest.param((100, 100), (33, 33), (33, 33), id='square'),
    pytest.param((1, 1), (640, 853), (640, 640), id='one pixel'),
    pytest.param((1, 4000), (640, 853), (1, 853), id='never less than a pixel'),
    pytest.param((480, 640), (576, None), (576, 768), id='no limit'),
    pytest.param((333, 500), (640, 853), (568, 853), id='half a pixel rounds up'),
])
def test_resized_size(size, limits, expected):
    assert resized_size(*size, *limits) == expected


def test_enlarging_a_thin_image_for_a_crop_allocates_the_crop_only():
    import tracemalloc
    image = np.arange(12000, dtype=np.uint8).reshape(1, 4000, 3)
    plan = Plan(1, 4000, [Resize(400, 1600000), Crop(0, 800000, 384, 384)])
    tracemalloc.start()
    try:
        assert plan.image(image).shape == (384, 384, 3)
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize('crop', [
    pytest.param(Crop(-1, 0, 5, 5), id='above'),
    pytest.param(Crop(0, 6, 5, 5), id='beyond the right side'),
    pytest.param(Crop(0, 0, 11, 5), id='too high'),
    pytest.param(Crop(0, 0, 0, 5), id='empty'),
])
def test_a_crop_outside_of_the_image_is_refused(crop):
    with pytest.raises(ValueError, match='does not lie inside an image of 10 x 10 pixels'):
        Plan(10, 10, [crop])


def test_a_plan_is_for_images_of_one_size():
    plan = Plan(10, 20, [Flip()])
    with pytest.raises(ValueError, match=r'image of \(10, 20\), not \(20, 10\)'):
        plan.image(np.zeros((20, 10, 3), np.uint8))
    with pytest.raises(ValueError, match=r'masks of \(10, 20\), not \(20, 10\)'):
        plan.masks(np.zeros((1, 20, 10), bool))
