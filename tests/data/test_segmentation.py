"""Outlines: checked without being decoded, kept in few bytes, drawn as pycocotools draws them."""
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco_mask

from modelscope_fastinst.data.geometry import Plan
from modelscope_fastinst.data.segmentation import check_segmentation, draw, run_lengths, to_rle

coordinates = st.floats(-2, 42) | st.integers(-200, 4200).map(lambda hundredths: hundredths / 100)
polygons = st.lists(st.lists(coordinates, min_size=3, max_size=8).map(lambda half: half + half[::-1]), min_size=1,
                    max_size=3)
nonempty_masks = arrays.arrays(bool, st.tuples(st.integers(1, 30), st.integers(1, 30))).filter(lambda mask: mask.any())


def uncompressed(mask: np.ndarray) -> dict:
    flat = np.concatenate(([False], mask.ravel(order='F')))
    changes = np.flatnonzero(np.diff(flat, append=not flat[-1]))
    return {'size': list(mask.shape), 'counts': np.diff(changes, prepend=0).tolist()}


@given(mask=nonempty_masks)
@settings(max_examples=80, deadline=None)
def test_every_kind_of_run_length_encoding_draws_the_mask(mask):
    compressed = coco_mask.encode(np.asfortranarray(mask.view(np.uint8)))
    for rle in (compressed, {**compressed, 'counts': compressed['counts'].decode()}, uncompressed(mask)):
        packed = check_segmentation(rle, *mask.shape, 0)
        np.testing.assert_array_equal(draw([packed], Plan(*mask.shape))[0], mask)
        assert to_rle(packed, *mask.shape) == {'size': list(mask.shape), 'counts': compressed['counts'].decode()}
    np.testing.assert_array_equal(run_lengths(compressed['counts']), uncompressed(mask)['counts'])


def test_long_runs():
    mask = np.zeros((3000, 4000), bool)
    mask[1234:2345, 17:3999] = True
    rle = coco_mask.encode(np.asfortranarray(mask.view(np.uint8)))
    assert run_lengths(rle['counts']).sum() == mask.size
    assert run_lengths(rle['counts'])[1::2].sum() == mask.sum()


@given(segmentation=polygons)
@settings(max_examples=80, deadline=None)
def test_polygons_are_drawn_as_pycocotools_draws_them(segmentation):
    assume(any(np.linalg.matrix_rank(np.subtract(points, points[0]), 1e-3) == 2
               for points in (np.reshape(polygon, (-1, 2)) for polygon in segmentation)))   # others have no area
    packed = check_segmentation(segmentation, 40, 40, 2)
    expected = coco_mask.merge(coco_mask.frPyObjects(segmentation, 40, 40))
    np.testing.assert_array_equal(draw([packed], Plan(40, 40))[0], coco_mask.decode(expected))
    assert to_rle(packed, 40, 40)['counts'].encode() == expected['counts']


def test_hundredths_of_a_pixel_take_half_the_space():
    coarse = check_segmentation([[1.25, 2.5, 30.01, 7.99, 5, 33.33]], 40, 40, 0)
    fine = check_segmentation([[1.2512345, 2.5, 30.01, 7.99, 5, 33.33]], 40, 40, 0)
    assert len(fine) - len(coarse) == 6 * 4


def test_polygons_and_run_lengths_in_one_image_keep_their_order():
    masks = np.zeros((3, 20, 20), bool)
    masks[0, 2:5, 3:9] = masks[2, 10:15, 1:4] = True
    square = [[10, 10, 18, 10, 18, 16, 10, 16]]
    packed = [check_segmentation(uncompressed(masks[0]), 20, 20, 0), check_segmentation(square, 20, 20, 0),
              check_segmentation(uncompressed(masks[2]), 20, 20, 0)]
    drawn = draw(packed, Plan(20, 20))
    np.testing.assert_array_equal(drawn[[0, 2]], masks[[0, 2]])
    assert drawn[1].sum() == 48 and drawn[1, 10:16, 10:18].all()


def test_nothing_to_draw():
    assert draw([], Plan(4, 5)).shape == (0, 4, 5)


def test_a_polygon_slightly_outside_is_clipped():
    packed = check_segmentation([[-1.5, -1, 21.5, -1, 21.5, 21, -1.5, 21]], 20, 20, 2)
    assert draw([packed], Plan(20, 20)).all()


SIZE = {'size': [4, 5]}


@pytest.mark.parametrize('segmentation, message', [
    pytest.param([], 'segmentation is empty', id='no polygon'),
    pytest.param('abc', 'must be a list of polygons or a run-length encoding, got str', id='string'),
    pytest.param(7, 'got int', id='number'),
    pytest.param([[0, 0, 3, 3]], 'polygon has 2 points, needs at least 3', id='2 points'),
    pytest.param([[]], 'polygon has 0 points, needs at least 3', id='no points'),
    pytest.param([[0, 0, 3, 0, 3, 3], [1, 1, 2, 2]], 'polygon has 2 points', id='second part of 2 points'),
    pytest.param([[0, 0, 3, 0, 3, 3, 1]], r'odd number of coordinates \(7\)', id='odd'),
    pytest.param([0, 0, 3, 0, 3, 3], 'a polygon must be a list', id='not nested'),
    pytest.param([[[0, 0], [3, 0], [3, 3]]], 'must be a flat list', id='pairs of points'),
    pytest.param([[0, 0, 3, 'x', 3, 3]], 'must be a flat list of numbers', id='not a number'),
    pytest.param([[0, 0, 3, None, 3, 3]], 'not a finite number|flat list of numbers', id='null'),
    pytest.param([[0, 0, 3, float('nan'), 3, 3]], 'not a finite number', id='NaN'),
    pytest.param([[0, 0, 3, float('inf'), 3, 3]], 'not a finite number', id='infinite'),
    pytest.param([[0, 0, 3, -9, 3, 3]], r'a point at \(3, -9\), outside of its image of 5 x 4', id='negative'),
    pytest.param([[0, 0, 99, 0, 3, 3]], r'a point at \(99, 0\), outside', id='beyond the right side'),
    pytest.param({'counts': [20]}, 'needs "size" and "counts"', id='without size'),
    pytest.param(SIZE, 'needs "size" and "counts"', id='without counts'),
    pytest.param({'size': [5, 4], 'counts': [3, 17]}, r'RLE of size \[5, 4\] .* its image is 4 x 5', id='size swapped'),
    pytest.param({'size': 20, 'counts': [3, 17]}, 'RLE of size 20', id='size a number'),
    pytest.param({**SIZE, 'counts': [3, 16]}, 'sum to 19 pixels, but its image has 4 x 5 = 20', id='too short'),
    pytest.param({**SIZE, 'counts': [3, 18]}, 'sum to 21 pixels', id='too long'),
    pytest.param({**SIZE, 'counts': [2 ** 61 + 3] + [2 ** 61] * 6 + [2 ** 61 + 17]}, 'sum to 18446744073709551636',
                 id='a sum that wraps around'),
    pytest.param({**SIZE, 'counts': [-2 ** 70, 23]}, 'number that is too large', id='hugely negative'),
    pytest.param({**SIZE, 'counts': [-3, 23]}, r'negative length \(-3\)', id='negative length'),
    pytest.param({**SIZE, 'counts': [3.5, 16.5]}, 'must be whole numbers', id='fractions'),
    pytest.param({**SIZE, 'counts': [True, 19]}, 'must be whole numbers', id='booleans'),
    pytest.param({**SIZE, 'counts': []}, 'sum to 0 pixels', id='no runs'),
    pytest.param({**SIZE, 'counts': ''}, 'sum to 0 pixels', id='empty string'),
    pytest.param({**SIZE, 'counts': 3}, 'must be a list or a string, got int', id='counts a number'),
    pytest.param({**SIZE, 'counts': [20]}, 'RLE mask has no pixel', id='only background'),
    pytest.param({**SIZE, 'counts': 'd0'}, 'RLE mask has no pixel', id='only background, compressed'),
    pytest.param({**SIZE, 'counts': '3a'}, 'cut off', id='compressed, cut off'),
    pytest.param({**SIZE, 'counts': '3 7'}, 'a character that does not belong there', id='compressed, blank'),
    pytest.param({**SIZE, 'counts': '3ß'}, 'a character that does not belong there', id='compressed, not ascii'),
    pytest.param({**SIZE, 'counts': 'o' * 30 + '0'}, 'number that is too large', id='compressed, huge'),
    pytest.param({**SIZE, 'counts': '33'}, 'sum to 6 pixels', id='compressed, too short'),
])
def test_bad_segmentations(segmentation, message):
    with pytest.raises(ValueError, match=message):
        check_segmentation(segmentation, 4, 5, 2)


@given(counts=st.binary(max_size=20), height=st.integers(1, 20), width=st.integers(1, 20))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_drawn_or_refused(counts, height, width):
    try:
        packed = check_segmentation({'size': [height, width], 'counts': counts}, height, width, 0)
    except ValueError:
        return
    assert draw([packed], Plan(height, width)).any()
