"""Instances of tiles that become those of the picture: made-up masks, cut and joined."""
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelscope_fastinst.results.rle import decode, encode
from modelscope_fastinst.results.seams import Region, SeamJoiner
from modelscope_fastinst.results.tiling import Grid
from modelscope_fastinst.structures import Instances

SIZE, GRID = (100, 175), Grid.build((100, 175), (100, 100), 0.25)   # two tiles, which share columns 75 to 99


def instances(masks, scores=None, labels=None, form='rle'):
    masks = np.asarray(masks, np.uint8)
    number = len(masks)
    return Instances(np.array([0.9] * number if scores is None else scores, np.float32),
                     np.zeros(number, int) if labels is None else np.asarray(labels),
                     encode(masks) if form == 'rle' else masks, np.zeros((number, 4)))


def box(top, bottom, left, right, size=SIZE):
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return mask


def cut(masks, tile):
    """Each mask's part in a tile, where there is one; and which."""
    parts = [(number, mask[tile.window]) for number, mask in enumerate(masks)]
    return [number for number, part in parts if part.any()], [part for _, part in parts if part.any()]


def told(left, right, *, scores=(None, None), labels=(None, None), grid=GRID, **options):
    """What two tiles' masks, given at the picture's size, become."""
    joiner = SeamJoiner(grid)
    for index, (masks, score, label) in enumerate(zip((left, right), scores, labels, strict=True)):
        parts = [mask[grid.tiles[index].window] for mask in masks]
        if parts:
            joiner.add(index, instances(parts, score, label))
    return joiner.joined(**options)


def same(found, masks):
    """Whether these and no other masks were found, in any order."""
    found = [mask for mask in decode(found.masks)] if len(found) else []
    assert len(found) == len(masks)
    left = [np.asarray(mask, np.uint8) for mask in masks]
    for mask in found:
        match = [number for number, other in enumerate(left) if (mask == other).all()]
        assert match, 'a mask that was not drawn'
        del left[match[0]]


# ----------------------------------------------------------------------------- shapes come back

@st.composite
def voronoi(draw):
    """Disjoint convex shapes, most of which touch others: [N, H, W]."""
    height, width = draw(st.integers(20, 90)), draw(st.integers(20, 90))
    seeds = draw(st.lists(st.tuples(st.integers(0, height - 1), st.integers(0, width - 1)), min_size=1, max_size=12,
                          unique=True))
    rows, columns = np.mgrid[:height, :width]
    nearest = np.argmin([(rows - y) ** 2 + (columns - x) ** 2 for y, x in seeds], axis=0)
    kept = draw(st.sets(st.integers(0, len(seeds) - 1), min_size=1))
    return [nearest == number for number in sorted(kept) if (nearest == number).any()]


@settings(max_examples=60, deadline=None)
@given(voronoi(), st.tuples(st.integers(12, 40), st.integers(12, 40)), st.floats(0.05, 0.5),
       st.sampled_from(['rle', 'array']))
def test_shapes_that_are_cut_into_tiles_come_back(shapes, tile, overlap, form):
    grid = Grid.build(shapes[0].shape, tile, overlap)
    labels, scores = [number % 2 for number in range(len(shapes))], np.linspace(0.5, 0.9, len(shapes))
    joiner = SeamJoiner(grid)
    for index, tile in enumerate(grid.tiles):
        numbers, parts = cut(shapes, tile)
        if parts:
            joiner.add(index, instances(parts, scores[numbers], [labels[number] for number in numbers], form))
    found = joiner.joined()
    same(found, shapes)
    for score, label, mask, corners in zip(found.scores, found.labels, decode(found.masks), found.boxes, strict=True):
        number = next(number for number, shape in enumerate(shapes) if (shape == mask).all())
        assert label == labels[number] and score == pytest.approx(scores[number], abs=1e-6)
        rows, columns = np.nonzero(mask)
        assert corners.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize('seed', range(4))
def test_masks_that_differ_from_tile_to_tile_are_joined_all_the_same(seed):
    from scipy.ndimage import binary_dilation, binary_erosion
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:300, :400]
    shapes = []
    while len(shapes) < 24:
        y, x, radius = random.uniform(0, 300), random.uniform(0, 400), random.uniform(8, 24)
        shape = (rows - y) ** 2 + (columns - x) ** 2 < radius ** 2
        if shape.sum() > 150 and not any((binary_dilation(shape, iterations=3) & other).any() for other in shapes):
            shapes.append(shape)
    grid = Grid.build((300, 400), (128, 128), 0.25)
    joiner = SeamJoiner(grid)
    for index, tile in enumerate(grid.tiles):
        parts = []
        for part in cut(shapes, tile)[1]:
            part = [binary_dilation, binary_erosion, np.asarray][random.integers(3)](part)
            if part.sum() > 20:   # a network overlooks slivers
                parts.append(part)
        joiner.add(index, instances(parts, random.uniform(0.6, 1, len(parts))))
    found = joiner.joined()
    assert len(found) == len(shapes)
    masks = decode(found.masks) > 0
    for shape in shapes:
        assert max((shape & mask).sum() / (shape | mask).sum() for mask in masks) > 0.7


def test_an_object_that_crosses_many_tiles_is_one():
    rows, columns = np.mgrid[:400, :500]
    ring = np.abs(np.hypot(rows - 200, columns - 250) - 150) < 20
    grid = Grid.build(ring.shape, (100, 120), 0.2)
    joiner = SeamJoiner(grid)
    touched = 0
    for index, tile in enumerate(grid.tiles):
        from scipy.ndimage import label
        parts, number = label(ring[tile.window], np.ones((3, 3)))   # what hangs together in the tile is an instance
        if number:
            joiner.add(index, instances([parts == part for part in range(1, number + 1)]))
            touched += 1
    assert touched > 15
    same(joiner.joined(), [ring])


# ----------------------------------------------------------------------------- one object, two pieces

def test_an_object_on_the_seam_is_one_with_the_union_of_the_masks():
    mask = box(40, 60, 30, 150)
    found = told([mask], [mask], scores=([0.9], [0.6]))
    same(found, [mask])
    # 70 of its columns are in the left tile, 75 in the right one
    assert found.scores[0] == pytest.approx((70 * 0.9 + 75 * 0.6) / 145)


def test_an_object_seen_whole_in_one_tile_and_cut_in_the_other_is_there_once_as_it_was_seen_whole():
    found = told([box(40, 60, 50, 96)], [box(42, 60, 75, 97)], scores=([0.8], [0.95]))
    same(found, [box(40, 60, 50, 96)])
    assert found.scores[0] == pytest.approx(0.8)


@pytest.mark.parametrize('rows', [pytest.param((40, 60), id='in the middle'),
                                  pytest.param((0, 20), id='at the top of the picture, which cuts nothing'),
                                  pytest.param((80, 100), id='at the bottom of the picture, which cuts nothing')])
def test_of_two_tiles_that_see_an_object_whole_the_more_certain_one_is_believed(rows):
    found = told([box(*rows, 80, 92)], [box(*rows, 81, 92)], scores=([0.8], [0.95]))
    same(found, [box(*rows, 81, 92)])
    assert found.scores[0] == pytest.approx(0.95)


def test_an_object_on_a_horizontal_seam_is_one_as_well():
    mask = box(30, 150, 40, 60, size=(175, 100))
    same(told([mask], [mask], grid=Grid.build((175, 100), (100, 100), 0.25)), [mask])


@pytest.mark.parametrize('columns', [pytest.param((0, 20), id='left'), pytest.param((155, 175), id='right')])
def test_at_the_sides_of_the_picture_an_object_is_whole_however_unsure(columns):
    # Two tiles one above the other see it: one whole, with its side on the border of the picture, the other cut.
    size, grid = (175, 175), Grid.build((175, 175), (100, 175), 0.25)
    whole, part = box(60, 96, *columns, size=size), box(75, 97, *columns, size=size)
    found = told([whole], [part], scores=([0.6], [0.95]), grid=grid)
    same(found, [whole])
    assert found.scores[0] == pytest.approx(0.6)


def test_memory_follows_the_objects_and_not_their_number_times_the_picture():
    import tracemalloc
    grid, mask = Grid.build((3000, 4000), (500, 500), 0.25), np.zeros((1, 500, 500), np.uint8)
    mask[0, 200:230, 200:230] = 1
    joiner = SeamJoiner(grid)
    tracemalloc.start()
    for index in range(len(grid)):
        joiner.add(index, instances(mask))
    found = joiner.joined()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found) == len(grid) == 88
    assert peak < 6e6   # one mask of the picture's size has 12 million bytes


def test_a_cut_piece_is_not_believed_where_the_tile_with_the_surroundings_sees_nothing():
    assert len(told([], [box(40, 60, 75, 90)])) == 0


def test_the_border_of_the_picture_cuts_nothing():
    masks = [box(0, 20, 0, 30), box(80, 100, 150, 175), box(0, 10, 80, 92)]
    same(told([masks[0], masks[2]], [masks[1], masks[2]]), masks)


def test_a_horseshoe_whose_bend_one_tile_sees_is_one():
    shoe = box(20, 70, 40, 150) & ~box(45, 60, 0, 130)   # its lower end is a smaller part of what is seen twice
    upper, lower = shoe & box(0, 50, 0, 175), shoe & box(50, 100, 0, 175)
    same(told([upper, lower], [shoe]), [shoe])


# ----------------------------------------------------------------------------- two objects

def test_objects_that_touch_on_the_seam_are_two():
    upper, lower = box(30, 50, 40, 140), box(50, 70, 40, 140)
    same(told([upper, lower], [lower, upper]), [upper, lower])


def test_objects_that_touch_and_of_which_each_tile_sees_one_are_two():
    left, right = box(40, 60, 30, 88), box(40, 60, 88, 150)
    same(told([left], [right]), [left, right])


def test_masks_that_run_into_each_other_a_little_are_two():
    left, right = box(40, 60, 30, 90), box(40, 60, 86, 150)
    same(told([left], [right]), [left, right])


def test_pieces_of_two_classes_are_not_joined():
    mask = box(40, 60, 30, 150)
    found = told([mask], [mask], labels=([0], [1]))
    same(found, [mask & box(0, 100, 0, 100), mask & box(0, 100, 75, 175)])
    assert sorted(found.labels) == [0, 1]


def test_an_object_in_another_that_one_tile_tells_apart_stays():
    outer, inner = box(20, 80, 10, 96), box(40, 60, 30, 50)
    same(told([outer, inner], [outer]), [outer, inner])


# ----------------------------------------------------------------------------- told once

def test_what_two_tiles_count_differently_is_not_told_twice():
    # the left tile takes two neighbours for one, the right one sees them apart
    both, one, other = box(40, 60, 60, 96), box(40, 60, 80, 88), box(40, 60, 88, 96)
    found = told([both], [one, other], scores=([0.9], [0.8, 0.7]))
    same(found, [both])
    same(told([both], [one, other], scores=([0.75], [0.8, 0.95])), [one, other])


def test_what_a_network_says_twice_of_one_tile_is_told_once():
    same(told([box(40, 60, 10, 30), box(40, 60, 11, 30)], [], scores=([0.7, 0.9], None)), [box(40, 60, 11, 30)])


def test_masks_of_one_tile_that_merely_overlap_are_the_networks_word():
    masks = [box(40, 60, 10, 30), box(50, 70, 10, 30)]
    same(told(masks, []), masks)


# ----------------------------------------------------------------------------- the rest

def test_the_best_come_first_and_no_more_than_asked_for():
    masks = [box(10 * row, 10 * row + 8, 10, 30) for row in range(5)]
    scores = [0.5, 0.9, 0.7, 0.8, 0.6]
    assert told(masks, [], scores=(scores, None)).scores.tolist() == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5])
    same(told(masks, [], scores=(scores, None), max_instances=2), [masks[1], masks[3]])
    assert len(told(masks, [], max_instances=0)) == 0


def test_masks_can_be_had_as_arrays():
    mask = box(40, 60, 30, 150)
    found = told([mask], [mask], mask_format='array')
    assert found.masks[0].dtype == np.uint8
    np.testing.assert_array_equal(found.masks[0], mask)


def test_nothing_in_nothing_out():
    empty = np.zeros((1, 100, 100), bool)
    joiner = SeamJoiner(GRID)
    joiner.add(0, instances(empty))
    found = joiner.joined()
    assert len(found) == 0 and found.boxes.shape == (0, 4) and found.masks == []


@given(st.integers(0, 20), st.integers(0, 40), st.integers(1, 20), st.integers(1, 40))
def test_a_region_gives_any_window_of_its_mask(top, left, height, width):
    mask = np.random.default_rng(1).random((45, 85)) < 0.5
    region = Region.build(mask, 5, 3)
    window = (left + 3, top + 5, left + width + 3, top + height + 5)
    expected = mask[top:top + height, left:left + width]
    np.testing.assert_array_equal(region.window(window), expected)
    np.testing.assert_array_equal(region.within(window), expected)
    assert region.area_within(window) == expected.sum()
