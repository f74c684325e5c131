"""Run-length encoding equals pycocotools', also from a rectangle alone."""
from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco_mask

from modelscope_fastinst.results.rle import decode, encode, encode_region


def reference(mask):
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {'size': list(mask.shape), 'counts': encoded['counts'].decode('ascii')}


masks = arrays.arrays(np.bool_, arrays.array_shapes(min_dims=2, max_dims=2, max_side=12))


@settings(deadline=None)
@given(masks)
def test_encoding_equals_pycocotools(mask):
    assert encode(mask[None]) == [reference(mask)]


@settings(deadline=None)
@given(masks, st.tuples(*[st.integers(0, 5)] * 4))
def test_a_rectangle_encodes_as_the_whole_mask(rectangle, margins):
    top, bottom, left, right = margins
    whole = np.pad(rectangle, ((top, bottom), (left, right)))
    assert encode_region(rectangle.T, whole.shape, top, left) == reference(whole)


@settings(deadline=None)
@given(arrays.arrays(np.uint8, arrays.array_shapes(min_dims=3, max_dims=3, max_side=8), elements=st.integers(0, 1)))
def test_decoding_gives_back_what_was_encoded(stack):
    decoded = decode(json.loads(json.dumps(encode(stack))))
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, stack)


@pytest.mark.parametrize('mask', [
    pytest.param(np.zeros((4, 3), bool), id='empty'),
    pytest.param(np.ones((4, 3), bool), id='full: one run over all columns'),
    pytest.param(np.eye(1, dtype=bool), id='one pixel'),
    pytest.param(np.array([[0, 1], [1, 0]], bool), id='a run that goes on in the next column'),
    pytest.param(np.random.default_rng(0).random((300, 200)) > 0.5, id='many runs'),
])
def test_encoding_of_special_masks(mask):
    assert encode(mask[None]) == [reference(mask)]


def test_an_empty_rectangle_is_an_empty_mask():
    assert encode_region(np.zeros((0, 0), bool), (4, 3)) == reference(np.zeros((4, 3), bool))


def test_any_value_but_zero_is_inside():
    assert encode(np.array([[[0, 255], [2, 0]]], np.uint8)) == [reference(np.array([[0, 1], [1, 0]]))]


def test_counts_may_be_bytes_as_pycocotools_has_them():
    mask = np.tri(5, 4, dtype=np.uint8)
    np.testing.assert_array_equal(decode([coco_mask.encode(np.asfortranarray(mask))]), mask[None])


def test_no_masks():
    assert encode(np.zeros((0, 4, 3), np.uint8)) == []
    assert decode([]).shape == (0, 0, 0)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r'must be \[N, H, W\]; got \(4, 3\)'):
        encode(np.zeros((4, 3)))
    with pytest.raises(ValueError, match=r'must have one size; got \[\(4, 3\), \(5, 3\)\]'):
        decode(encode(np.zeros((1, 4, 3))) + encode(np.zeros((1, 5, 3))))
