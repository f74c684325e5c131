"""Separable upsampling equals two interpolations in a row."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from modelscope_fastinst.results.upsample import Axis, positive_extent, upsample_region

lengths = st.integers(1, 300)


def interpolated(values, canvas, size, original):
    values = F.interpolate(values[None], size=canvas, mode='linear', align_corners=False)[..., :size]
    return F.interpolate(values, size=original, mode='linear', align_corners=False)[0]


@settings(max_examples=80, deadline=None)
@given(lengths, lengths, lengths, lengths)
def test_an_axis_is_two_interpolations_and_a_crop(logits, canvas, size, original):
    size = min(size, canvas)
    axis = Axis.build(logits, canvas, size, original)
    expected = interpolated(torch.eye(logits), canvas, size, original).T
    np.testing.assert_allclose(axis.matrix.numpy(), expected.numpy(), atol=1e-4)
    assert axis.matrix.min() >= 0


@settings(max_examples=80, deadline=None)
@given(lengths, lengths, lengths, lengths, st.data())
def test_reach_and_support_leave_out_no_dependence(logits, canvas, size, original, data):
    axis = Axis.build(logits, canvas, min(size, canvas), original)
    used = axis.matrix.numpy() > 0
    start = data.draw(st.integers(0, logits - 1))
    stop = data.draw(st.integers(start + 1, logits))
    pixels = np.flatnonzero(used[:, start:stop].any(1))
    first, last = axis.reach(start, stop)
    assert not len(pixels) or (first <= pixels[0] and pixels[-1] < last)
    start = data.draw(st.integers(0, original - 1))
    stop = data.draw(st.integers(start + 1, original))
    needed = np.flatnonzero(used[start:stop].any(0))
    first, last = axis.support(start, stop)
    assert first <= needed[0] and needed[-1] < last


@pytest.mark.parametrize('logits, extent', [
    pytest.param([[-1, -1], [-1, -1]], (0, 0, 0, 0), id='nowhere'),
    pytest.param([[0, 0], [0, 0]], (0, 0, 0, 0), id='zero is outside'),
    pytest.param([[-1, 2], [-1, -1]], (0, 1, 1, 2), id='one cell'),
    pytest.param([[3, -1], [-1, 2]], (0, 2, 0, 2), id='two corners'),
])
def test_where_logits_are_positive(logits, extent):
    assert positive_extent(np.array(logits, np.float32)) == extent


def test_the_region_holds_the_mask_its_area_and_its_confidence():
    logits = torch.full((20, 24), -4.0)
    logits[5:9, 11:14] = torch.rand(4, 3, generator=torch.Generator().manual_seed(0)) * 5
    rows, columns = Axis.build(20, 160, 155, 310), Axis.build(24, 192, 192, 400)
    region = upsample_region(logits, rows, columns, positive_extent(logits.numpy()))
    upsampled = F.interpolate(logits[None, None], size=(160, 192), mode='bilinear')[..., :155, :]
    upsampled = F.interpolate(upsampled, size=(310, 400), mode='bilinear')[0, 0]
    whole = torch.zeros((310, 400), dtype=torch.bool)
    height, width = region.mask.shape
    whole[region.top:region.top + height, region.left:region.left + width] = region.mask
    assert torch.equal(whole, upsampled > 0) and region.area == int(whole.sum()) > 1000
    assert region.confidence == pytest.approx(float(upsampled[whole].sigmoid().sum()), rel=1e-5)
    assert height * width < 3 * region.area
