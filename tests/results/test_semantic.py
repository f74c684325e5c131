"""Semantic maps: the authors' classes, whatever the sizes, without the scores of all classes at full size."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelscope_fastinst.results import semantic, tiles
from modelscope_fastinst.results.semantic import SemanticPostprocessor, keep_classes
from modelscope_fastinst.structures import VOID, SemanticMap
from tests.results.plain import output_of, plain_semantic, random_output, scene_output
from tests.results.test_instances import LargestTensor

ORDERS = pytest.mark.parametrize('before_resize', [pytest.param(True, id='semantic model'),
                                                   pytest.param(False, id='panoptic model')])


def one(output, original, before_resize):
    found, = SemanticPostprocessor(before_resize)(output, [original])
    return found


def assert_equals_plain(found, output, original, before_resize):
    scores = plain_semantic(output, original, before_resize)
    assert found.labels.shape == original and found.labels.dtype == np.int16 and found.scores.dtype == np.float32
    labels = torch.from_numpy(found.labels).long()
    # Where another class was chosen, rounding decided.
    lost = scores.max(0).values - scores.gather(0, labels[None])[0]
    assert float(lost.max()) < 1e-5
    means = [float(scores[label][labels == label].mean()) if (labels == label).any() else 0.0
             for label in range(len(scores))]
    np.testing.assert_allclose(found.scores, means, atol=1e-5)


sizes = st.integers(1, 24)


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**31), logits=st.tuples(sizes, sizes), stride=st.integers(1, 8),
       original=st.tuples(st.integers(1, 150), st.integers(1, 150)), cut=st.tuples(st.floats(0, 1), st.floats(0, 1)),
       queries=st.integers(1, 9), before_resize=st.booleans())
def test_maps_equal_the_plain_way_at_any_size(seed, logits, stride, original, cut, queries, before_resize):
    canvas = (logits[0] * stride, logits[1] * stride)
    size = tuple(max(1, round(length * part)) for length, part in zip(canvas, cut, strict=True))
    output = random_output(seed, 1, queries, 4, logits, canvas, [size])
    assert_equals_plain(one(output, original, before_resize), output, original, before_resize)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), original=st.tuples(st.integers(1, 300), st.integers(1, 300)),
       regions=st.integers(1, 9), before_resize=st.booleans())
def test_maps_of_clear_scenes_equal_the_plain_way(seed, original, regions, before_resize):
    output = scene_output(seed, regions=regions)
    assert_equals_plain(one(output, original, before_resize), output, original, before_resize)


@ORDERS
@pytest.mark.parametrize('side', [1, 7, 64, 1000])
def test_tiles_of_any_size_give_the_same_map(monkeypatch, side, before_resize):
    output = scene_output(5)
    whole = one(output, (90, 110), before_resize)
    assert len(np.unique(whole.labels)) > 2
    monkeypatch.setattr(tiles, '_SIDE', side)
    found = one(output, (90, 110), before_resize)
    np.testing.assert_array_equal(found.labels, whole.labels)
    np.testing.assert_allclose(found.scores, whole.scores, atol=1e-5)


@ORDERS
def test_stripes_as_on_a_gpu_give_the_same_map(monkeypatch, before_resize):
    output = scene_output(5, regions=9)
    expected = one(output, (90, 110), before_resize)
    for module in (tiles, semantic):
        monkeypatch.setattr(module, 'in_stripes', lambda device: True)
    monkeypatch.setattr(tiles, '_GPU_VALUES', 110 * 17 * 20)   # several stripes
    found = one(output, (90, 110), before_resize)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)


def test_the_two_orders_of_summing_and_resizing_differ():
    output = random_output(3, logits_size=(6, 8), canvas=(48, 64), sizes=[(48, 64)])
    first, second = (SemanticPostprocessor(order).class_scores(output, [(11, 17)], 0) for order in (True, False))
    assert float((first - second).abs().max()) > 0.01


def test_scores_of_a_window_are_those_of_the_whole():
    output = scene_output(2)
    for before_resize in (False, True):
        post = SemanticPostprocessor(before_resize)
        whole = post.class_scores(output, [(90, 110)], 0)
        window = post.class_scores(output, [(90, 110)], 0, (20, 70, 5, 100))
        torch.testing.assert_close(window, whole[:, 20:70, 5:100], atol=1e-5, rtol=0)


@ORDERS
def test_an_image_without_queries_is_all_of_the_first_class(before_resize):
    output = output_of(torch.zeros(1, 0, 5), torch.zeros(1, 0, 8, 16), (8, 16), [(8, 16)])
    found = one(output, (20, 30), before_resize)
    assert not found.labels.any() and not found.scores.any() and found.labels.shape == (20, 30)


def test_maps_are_the_same_in_a_batch():
    first, second = scene_output(1), scene_output(2)
    both = output_of(torch.cat([first.final.logits, second.final.logits]),
                     torch.cat([first.final.masks, second.final.masks]), (192, 256), [(190, 250), (100, 256)])
    second.sizes[0] = (100, 256)
    together = SemanticPostprocessor(True)(both, [(90, 150), (60, 40)])
    for found, output, original in zip(together, (first, second), [(90, 150), (60, 40)], strict=True):
        np.testing.assert_array_equal(found.labels, one(output, original, True).labels)


@ORDERS
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float64])
def test_logits_of_any_precision_are_computed_in_float32(dtype, before_resize):
    output = scene_output(3)
    output.final.logits, output.final.masks = output.final.logits.to(dtype), output.final.masks.to(dtype)
    with torch.autocast('cpu', torch.bfloat16):
        found = one(output, (60, 100), before_resize)
    assert_equals_plain(found, output, (60, 100), before_resize)


@ORDERS
def test_a_full_hd_image_needs_no_full_size_floats(before_resize):
    output = scene_output(0, 100, 150, (80, 144), (640, 1152), (640, 1138), regions=20)
    with LargestTensor() as seen:
        found = one(output, (1080, 1920), before_resize)
    assert len(np.unique(found.labels)) > 10
    assert seen.largest < 2 * 1080 * 1920   # not even the pixels of two classes or two queries


@ORDERS
def test_classes_that_cannot_be_the_highest_are_not_computed(before_resize):
    totals = []
    for classes in (15, 150):
        output = scene_output(0, 20, classes, (40, 54), (320, 432), (320, 432), regions=6, contrast=4.0)
        with LargestTensor() as seen:
            one(output, (320, 432), before_resize)
        totals.append(seen.total)
    assert totals[1] < 1.5 * totals[0]


def test_keeping_some_classes_makes_the_others_void():
    found = SemanticMap(np.array([[0, 1, 2, 2]], np.int16), np.array([0.5, 0.6, 0.7], np.float32))
    assert keep_classes(found, None) is found
    kept = keep_classes(found, [2, 0])
    assert kept.labels.tolist() == [[0, VOID, 2, 2]] and kept.labels.dtype == np.int16
    np.testing.assert_array_equal(kept.scores, np.array([0.5, 0, 0.7], np.float32))


@pytest.mark.parametrize('part, value', [('logits', float('nan')), ('masks', float('nan')), ('masks', float('inf'))])
def test_logits_that_are_not_finite_are_an_error(part, value):
    output = scene_output(0)
    getattr(output.final, part)[0, 2, 0] = value
    with pytest.raises(ValueError, match='of image 0 are not finite'):
        one(output, (40, 60), True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@ORDERS
def test_a_gpu_gives_the_same_map(before_resize):
    output = scene_output(3, regions=9)
    on_gpu = output_of(output.final.logits.cuda(), output.final.masks.cuda(), output.canvas, output.sizes)
    found, expected = one(on_gpu, (1080, 1438), before_resize), one(output, (1080, 1438), before_resize)
    assert np.count_nonzero(found.labels != expected.labels) <= 20
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
