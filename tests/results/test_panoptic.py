"""Panoptic maps: the authors' segments, whatever the sizes, without the masks of all queries at full size."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelscope_fastinst.results import panoptic, tiles
from modelscope_fastinst.results.panoptic import PanopticPostprocessor, keep_segments
from modelscope_fastinst.structures import PanopticMap, Segment
from tests.results.plain import output_of, plain_panoptic, random_output, scene_output
from tests.results.test_instances import LargestTensor

THINGS = frozenset({0, 1})
POST = PanopticPostprocessor(THINGS)


def one(post, output, original):
    found, = post(output, [original])
    return found


def assert_whole(found, original, things=THINGS):
    """What every panoptic map holds to."""
    assert found.ids.shape == original and found.ids.dtype == np.int32
    assert [segment.id for segment in found.segments] == list(range(1, len(found.segments) + 1))
    areas = np.bincount(found.ids.ravel(), minlength=len(found.segments) + 1)
    assert areas[1:].tolist() == [segment.area for segment in found.segments] and (areas[1:] > 0).all()
    for segment in found.segments:
        rows, columns = np.nonzero(found.ids == segment.id)
        assert segment.bbox == (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
        assert segment.isthing == (segment.label in things) and 0 < segment.score <= 1 and not segment.iscrowd
    stuff = [segment.label for segment in found.segments if not segment.isthing]
    assert len(stuff) == len(set(stuff))


def assert_equals_plain(found, output, original, post=POST):
    ids, segments, margin = plain_panoptic(output, original, post.things, post.object_mask_threshold,
                                           post.overlap_threshold)
    if margin < 1e-5:   # what rounding decides is nobody's mistake
        return
    np.testing.assert_array_equal(found.ids, ids.numpy())
    assert [(segment.id, segment.label, segment.isthing) for segment in found.segments] == segments


sizes = st.integers(1, 24)


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**31), logits=st.tuples(sizes, sizes), stride=st.integers(1, 8),
       original=st.tuples(st.integers(1, 150), st.integers(1, 150)), cut=st.tuples(st.floats(0, 1), st.floats(0, 1)),
       queries=st.integers(1, 9), threshold=st.sampled_from([0.0, 0.4, 0.8]), overlap=st.sampled_from([0.0, 0.1, 0.8]))
def test_maps_equal_the_plain_way_at_any_size(seed, logits, stride, original, cut, queries, threshold, overlap):
    canvas = (logits[0] * stride, logits[1] * stride)
    size = tuple(max(1, round(length * part)) for length, part in zip(canvas, cut, strict=True))
    output = random_output(seed, 1, queries, 4, logits, canvas, [size])
    post = PanopticPostprocessor(THINGS, threshold, overlap)
    found = one(post, output, original)
    assert_whole(found, original)
    assert_equals_plain(found, output, original, post)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), original=st.tuples(st.integers(1, 300), st.integers(1, 300)),
       regions=st.integers(1, 9))
def test_maps_of_clear_scenes_equal_the_plain_way(seed, original, regions):
    output = scene_output(seed, regions=regions)
    found = one(POST, output, original)
    assert_whole(found, original)
    assert_equals_plain(found, output, original)


@pytest.mark.parametrize('side', [1, 7, 64, 1000])
def test_tiles_of_any_size_give_the_same_map(monkeypatch, side):
    output = scene_output(5)
    whole = one(POST, output, (90, 110))
    assert len(whole.segments) > 3
    monkeypatch.setattr(tiles, '_SIDE', side)
    found = one(POST, output, (90, 110))
    np.testing.assert_array_equal(found.ids, whole.ids)
    assert found.segments == whole.segments


def test_stripes_as_on_a_gpu_give_the_same_map(monkeypatch):
    output = scene_output(5, regions=9)
    expected = one(POST, output, (90, 110))
    for module in (tiles, panoptic):
        monkeypatch.setattr(module, 'in_stripes', lambda device: True)
    monkeypatch.setattr(tiles, '_GPU_VALUES', 110 * 9 * 20)   # several stripes
    found = one(POST, output, (90, 110))
    np.testing.assert_array_equal(found.ids, expected.ids)
    assert found.segments == expected.segments and len(found.segments) > 3


def logits_for(labels, probabilities, classes=4):
    """Class logits that give these labels these probabilities; -1 is "no object"."""
    logits = torch.zeros(1, len(labels), classes + 1)
    for query, (label, probability) in enumerate(zip(labels, probabilities, strict=True)):
        share = torch.full((classes + 1,), (1 - probability) / classes)
        share[label] = probability
        logits[0, query] = share.log()
    return logits


def blocks(*columns, size=(8, 16), value=6.0):
    """Mask logits that are positive in these ranges of columns."""
    masks = torch.full((1, len(columns), *size), -value)
    for query, (left, right) in enumerate(columns):
        masks[0, query, :, left:right] = value
    return masks


def drawn(labels, probabilities, *columns, things=THINGS, **settings):
    output = output_of(logits_for(labels, probabilities), blocks(*columns), (8, 16), [(8, 16)])
    return one(PanopticPostprocessor(things, **settings), output, (8, 16))


def test_stuff_of_one_class_is_one_segment_and_things_are_not():
    found = drawn([2, 0, 2, 0], [0.9, 0.95, 0.99, 0.85], (0, 4), (4, 8), (8, 12), (12, 16))
    assert found.ids[0].tolist() == [1] * 4 + [2] * 4 + [1] * 4 + [3] * 4
    assert [(segment.id, segment.label, segment.isthing, segment.area, segment.bbox) for segment in found.segments] == [
        (1, 2, False, 64, (0, 0, 12, 8)), (2, 0, True, 32, (4, 0, 4, 8)), (3, 0, True, 32, (12, 0, 4, 8))]
    np.testing.assert_allclose([segment.score for segment in found.segments], [0.99, 0.95, 0.85], atol=1e-6)


@pytest.mark.parametrize('probability, kept', [(0.81, True), (0.79, False)])
def test_a_query_must_be_surer_than_the_threshold(probability, kept):
    assert bool(drawn([0], [probability], (0, 8)).segments) == kept


def test_a_query_that_sees_no_object_takes_no_part():
    found = drawn([-1, 0], [0.99, 0.9], (0, 16), (4, 8))
    assert [segment.label for segment in found.segments] == [0] and set(found.ids[0, :4]) == {0}


@pytest.mark.parametrize('overlap, labels', [(0.8, [0]), (0.4, [0, 1])])
def test_a_segment_that_lost_most_of_its_mask_is_dropped(overlap, labels):
    found = drawn([0, 1], [0.99, 0.9], (0, 8), (4, 12), overlap_threshold=overlap)
    assert [segment.label for segment in found.segments] == labels
    assert set(found.ids[0, 8:12]) == ({2} if len(labels) == 2 else {0})


def test_a_pixel_that_the_winner_does_not_claim_is_void():
    found = drawn([0, 1], [0.99, 0.9], (0, 4), (12, 16))
    assert set(found.ids[0, 5:11]) == {0} and len(found.segments) == 2


def test_nothing_found_gives_an_empty_map():
    found = drawn([-1, -1], [0.99, 0.9], (0, 8), (8, 16))
    assert found.segments == [] and not found.ids.any() and found.ids.shape == (8, 16)
    no_query = output_of(torch.zeros(1, 0, 5), torch.zeros(1, 0, 8, 16), (8, 16), [(8, 16)])
    assert one(POST, no_query, (20, 30)).ids.shape == (20, 30)


def test_maps_are_the_same_in_a_batch():
    first, second = scene_output(1), scene_output(2)
    both = output_of(torch.cat([first.final.logits, second.final.logits]),
                     torch.cat([first.final.masks, second.final.masks]), (192, 256), [(190, 250), (100, 256)])
    second.sizes[0] = (100, 256)
    together = POST(both, [(90, 150), (60, 40)])
    for found, output, original in zip(together, (first, second), [(90, 150), (60, 40)], strict=True):
        np.testing.assert_array_equal(found.ids, one(POST, output, original).ids)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16, torch.float64])
def test_logits_of_any_precision_are_computed_in_float32(dtype):
    output = scene_output(3)
    output.final.logits, output.final.masks = output.final.logits.to(dtype), output.final.masks.to(dtype)
    with torch.autocast('cpu', torch.bfloat16):
        found = one(POST, output, (60, 100))
    assert_equals_plain(found, output, (60, 100))


def test_a_full_hd_image_needs_no_full_size_floats():
    output = scene_output(0, 200, 150, (160, 288), (640, 1152), (640, 1138), regions=20)
    with LargestTensor() as seen:
        found = one(POST, output, (1080, 1920))
    assert len(found.segments) > 10
    assert seen.largest <= 200 * 160 * 288   # the logits themselves, never an image's pixels for several queries


def test_only_what_can_win_is_computed():
    output = scene_output(0, 20, 5, (80, 108), (640, 864), (640, 864), regions=6)
    with LargestTensor() as seen:
        one(POST, output, (1280, 1728))
    # Six queries take part; the plain way makes some five tensors of twenty masks of that size. torch 2.6 makes more on
    # the way than later versions.
    assert seen.total < 8 * 1280 * 1728


def test_keeping_some_segments_numbers_them_anew():
    ids = np.array([[0, 1, 1, 2, 3, 3]], np.int32)
    segments = [Segment(1, 0, 0.9, True, 2, (1, 0, 2, 1)), Segment(2, 1, 0.8, True, 1, (3, 0, 1, 1)),
                Segment(3, 2, 0.95, False, 2, (4, 0, 2, 1))]
    everything = PanopticMap(ids, segments)
    assert keep_segments(everything, None, [0.0] * 4) is everything
    found = keep_segments(everything, [0, 2], [0.0] * 4)
    assert found.ids.tolist() == [[0, 1, 1, 0, 2, 2]] and found.segments == [segments[0], replace(segments[2], id=2)]
    found = keep_segments(everything, None, [0.95, 0.8, 0.0, 0.0])
    assert found.ids.tolist() == [[0, 0, 0, 1, 2, 2]]
    assert keep_segments(everything, [], [0.0] * 4).segments == []


@pytest.mark.parametrize('setting, message', [
    pytest.param({'object_mask_threshold': 1.5}, 'object_mask_threshold is 1.5; it must be', id='above one'),
    pytest.param({'overlap_threshold': -0.1}, 'overlap_threshold is -0.1', id='below zero'),
    pytest.param({'overlap_threshold': True}, 'overlap_threshold is True', id='a truth value'),
    pytest.param({'object_mask_threshold': '0.8'}, "object_mask_threshold is '0.8'", id='a string'),
    pytest.param({'object_mask_threshold': float('nan')}, 'object_mask_threshold is nan', id='no number'),
])
def test_settings_out_of_range_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        PanopticPostprocessor(THINGS, **setting)


@pytest.mark.parametrize('part, value', [('logits', float('nan')), ('masks', float('nan')), ('masks', float('inf'))])
def test_logits_that_are_not_finite_are_an_error(part, value):
    output = scene_output(0)
    getattr(output.final, part)[0, 2, 0] = value
    with pytest.raises(ValueError, match='of image 0 are not finite'):
        one(POST, output, (40, 60))


@pytest.mark.parametrize('originals, message', [
    pytest.param([(40, 60)] * 2, '2 original sizes and 1 input sizes were given for 1 images', id='too many sizes'),
    pytest.param([(0, 60)], 'image 0 has the original size 0 x 60', id='an image without pixels'),
])
def test_sizes_that_do_not_fit_are_refused(originals, message):
    with pytest.raises(ValueError, match=message):
        POST(scene_output(0), originals)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_a_gpu_gives_the_same_map():
    output = scene_output(3, regions=9)
    on_gpu = output_of(output.final.logits.cuda(), output.final.masks.cuda(), output.canvas, output.sizes)
    found, expected = one(POST, on_gpu, (1080, 1438)), one(POST, output, (1080, 1438))
    assert np.count_nonzero(found.ids != expected.ids) <= 20
    assert [segment.label for segment in found.segments] == [segment.label for segment in expected.segments]
