"""Instances from logits: the authors' scores and masks, whatever the sizes, without computing what is not kept."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from modelscope_fastinst.models.fastinst import build_fastinst
from modelscope_fastinst.results.instances import InstancePostprocessor
from modelscope_fastinst.results.rle import decode
from tests.golden_cases import cases, load
from tests.results.plain import output_of, plain_postprocess, random_output

EVERYTHING = InstancePostprocessor(score_thr=0.0, max_instances=None)


def one(post, output, original):
    instances, = post(output, [original])
    return instances


def as_arrays(instances, size):
    if isinstance(instances.masks, list):
        return decode(instances.masks).reshape(-1, *size)
    return instances.masks


def assert_equals_plain(instances, output, original, candidates=100):
    """The same instances as the plain way's, whose order is by class probability and not by score."""
    scores, labels, upsampled, queries = plain_postprocess(
        output.final.logits[0].float(), output.final.masks[0].float(), output.canvas, output.sizes[0], original,
        candidates)
    order = torch.argsort(scores, descending=True, stable=True)
    np.testing.assert_allclose(instances.scores, scores[order].numpy(), atol=2e-5)
    assert len(instances) == len(instances.labels) == len(instances.masks) == len(instances.boxes) == len(scores)
    masks = as_arrays(instances, original)
    remaining = order.tolist()
    for number in range(len(instances)):
        # Scores that differ by rounding only may have changed places.
        match = next(index for index in remaining if labels[index] == instances.labels[number]
                     and abs(float(scores[index]) - float(instances.scores[number])) < 2e-5
                     and not ((masks[number] > 0) ^ (upsampled[index] > 0).numpy())[
                         upsampled[index].abs().numpy() > 1e-4].any())
        remaining.remove(match)


@pytest.mark.parametrize('name', cases('eval'))
def test_instances_equal_the_authors(name):
    case = load(name)
    network = build_fastinst(case.model_config).eval()
    network.load_state_dict(case.weights(), strict=True)
    with torch.no_grad():
        output = network(case.scenes()[0])
    post = replace(EVERYTHING, candidates=case.candidates, mask_format='rle')
    originals = [(scene['out_h'], scene['out_w']) for scene in case.meta['scenes']]
    for index, instances in enumerate(post(output, originals)):
        check_golden_instances(case, index, instances, originals[index])


def check_golden_instances(case, index, instances, size):
    scores, classes, areas, rle = (case[f'image{index}/instances/{key}']
                                   for key in ('scores', 'classes', 'areas', 'rle'))
    expected = decode([{'size': list(size), 'counts': counts} for counts in bytes(rle).decode('ascii').split('\n')])
    masks = as_arrays(instances, size)
    assert len(instances) == len(scores)
    remaining = set(range(len(scores)))
    for number in range(len(instances)):
        # The authors' order is not defined: the golden instance of this class and score is the one with this mask.
        match = min((index for index in remaining if classes[index] == instances.labels[number]
                     and abs(scores[index] - instances.scores[number]) < 5e-4),
                    key=lambda index: np.count_nonzero(expected[index] != masks[number]))
        remaining.remove(match)
        assert abs(int(masks[number].sum()) - areas[match]) <= 10
        assert np.count_nonzero(expected[match] != masks[number]) <= 10


sizes = st.integers(1, 40)


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**31), logits=st.tuples(sizes, sizes), stride=st.integers(1, 8),
       original=st.tuples(sizes, sizes), cut=st.tuples(st.floats(0, 1), st.floats(0, 1)), queries=st.integers(1, 12),
       classes=st.integers(1, 6), candidates=st.integers(1, 30), mask_format=st.sampled_from(['array', 'rle']))
def test_instances_equal_the_plain_way_at_any_size(seed, logits, stride, original, cut, queries, classes, candidates,
                                                   mask_format):
    canvas = (logits[0] * stride, logits[1] * stride)
    size = tuple(max(1, round(length * part)) for length, part in zip(canvas, cut, strict=True))
    output = random_output(seed, 1, queries, classes, logits, canvas, [size])
    post = replace(EVERYTHING, candidates=candidates, mask_format=mask_format)
    assert_equals_plain(one(post, output, original), output, original, candidates)


@pytest.mark.parametrize('logits, canvas, size, original', [
    pytest.param((1, 1), (32, 32), (1, 1), (1, 1), id='one pixel, one logit'),
    pytest.param((4, 4), (32, 32), (1, 1), (300, 1), id='one pixel stretched to a column'),
    pytest.param((4, 500), (32, 4000), (1, 4000), (1, 4000), id='a line'),
    pytest.param((20, 27), (160, 216), (160, 213), (1080, 1438), id='many tiles'),
    pytest.param((40, 40), (320, 320), (320, 320), (7, 5), id='shrunk'),
    pytest.param((7, 13), (50, 101), (49, 90), (60, 61), id='a canvas that is no multiple of the logits'),
])
def test_instances_equal_the_plain_way(logits, canvas, size, original):
    output = random_output(3, logits_size=logits, canvas=canvas, sizes=[size])
    output.final.logits, output.final.masks = output.final.logits[:, :2], output.final.masks[:, :2]
    for mask_format in ('array', 'rle'):
        instances = one(replace(EVERYTHING, mask_format=mask_format), output, original)
        assert_equals_plain(instances, output, original)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16, torch.float64])
def test_logits_of_any_precision_are_computed_in_float32(dtype):
    output = random_output(1)
    output.final.logits, output.final.masks = output.final.logits.to(dtype), output.final.masks.to(dtype)
    with torch.autocast('cpu', torch.bfloat16):
        instances = one(EVERYTHING, output, (60, 100))
    assert_equals_plain(instances, output, (60, 100))


def test_logits_may_still_carry_gradients():
    output = random_output(1)
    output.final.logits.requires_grad_()
    output.final.masks.requires_grad_()
    assert len(one(EVERYTHING, output, (40, 60))) == 18


def test_results_are_the_same_in_a_batch():
    both = random_output(5, images=2, sizes=[(30, 50), (32, 64)])
    together = EVERYTHING(both, [(90, 150), (20, 40)])
    for index, original in enumerate([(90, 150), (20, 40)]):
        alone = output_of(both.final.logits[index:index + 1], both.final.masks[index:index + 1], both.canvas,
                          both.sizes[index:index + 1])
        instances = one(EVERYTHING, alone, original)
        np.testing.assert_array_equal(together[index].scores, instances.scores)
        np.testing.assert_array_equal(together[index].masks, instances.masks)


@pytest.mark.parametrize('mask_format', ['array', 'rle'])
@pytest.mark.parametrize('limit', [0, 1, 3, 7, 18, 100])
def test_a_limit_keeps_exactly_the_best(limit, mask_format):
    for seed in range(6):
        # Queries with several likely classes, so that they come more than once; masks of very different quality.
        output = random_output(seed, scale=2.0)
        output.final.masks[0] *= torch.logspace(-2, 1, 6)[torch.randperm(6)][:, None, None]
        post = replace(EVERYTHING, mask_format=mask_format)
        everything = one(post, output, (40, 60))
        limited = one(replace(post, max_instances=limit), output, (40, 60))
        np.testing.assert_array_equal(limited.scores, everything.scores[:limit])
        np.testing.assert_array_equal(limited.labels, everything.labels[:limit])
        np.testing.assert_array_equal(limited.boxes, everything.boxes[:limit])
        np.testing.assert_array_equal(as_arrays(limited, (40, 60)), as_arrays(everything, (40, 60))[:limit])


@pytest.mark.parametrize('settings, number', [
    pytest.param({'max_instances': 130}, 130, id='more than 100 wanted'),
    pytest.param({'max_instances': None}, 100, id='no limit'),
    pytest.param({'max_instances': 130, 'candidates': 110}, 110, id='candidates given'),
])
def test_candidates_are_as_many_as_are_wanted_unless_given(settings, number):
    output = random_output(0, queries=50)
    assert len(one(InstancePostprocessor(score_thr=0.0, **settings), output, (40, 60))) == number


def test_the_threshold_is_on_the_final_score_and_includes_it():
    output = random_output(2, scale=2.0)
    everything = one(EVERYTHING, output, (40, 60))
    threshold = float(everything.scores[4])
    kept = one(replace(EVERYTHING, score_thr=threshold), output, (40, 60))
    np.testing.assert_array_equal(kept.scores, everything.scores[:5])
    assert kept.scores.min() == np.float32(threshold)


def test_best_first_with_the_documented_types():
    instances = one(EVERYTHING, random_output(4), (40, 60))
    assert (np.diff(instances.scores) <= 0).all()
    assert instances.scores.dtype == np.float32 and instances.labels.dtype == np.int64
    assert instances.masks.dtype == np.uint8 and instances.masks.shape == (18, 40, 60)
    assert set(np.unique(instances.masks)) <= {0, 1}
    assert instances.boxes.dtype == np.float32 and instances.boxes.shape == (18, 4)


@pytest.mark.parametrize('mask_format', ['array', 'rle'])
def test_boxes_are_tight_around_the_masks(mask_format):
    output = random_output(7, logits_size=(10, 12), canvas=(80, 96), sizes=[(75, 96)])
    output.final.masks -= 5   # small objects, away from the border
    instances = one(replace(EVERYTHING, mask_format=mask_format), output, (150, 200))
    for mask, box in zip(as_arrays(instances, (150, 200)), instances.boxes, strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        expected = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] if len(rows) else [0, 0, 0, 0]
        assert box.tolist() == expected


def test_a_class_that_is_asked_for_is_not_crowded_out():
    output = random_output(0, queries=6, classes=3)
    output.final.logits[..., 0] += 20   # class 0 takes all the candidates
    output.final.logits[..., 2] += 5
    few = replace(EVERYTHING, candidates=6)
    assert set(one(few, output, (40, 60)).labels) == {0}
    only = one(replace(few, classes=[2]), output, (40, 60))
    assert len(only) == 6 and set(only.labels) == {2}


def test_things_are_kept_after_the_candidates_were_chosen():
    output = random_output(0, queries=6, classes=3)
    output.final.logits[..., 0] += 4   # class 0 takes most of the candidates
    few = replace(EVERYTHING, candidates=9)
    everything = one(few, output, (40, 60))
    kept = one(replace(few, things=frozenset({1, 2})), output, (40, 60))
    of_things = everything.labels > 0
    assert 0 < of_things.sum() < 9
    np.testing.assert_array_equal(kept.labels, everything.labels[of_things])
    np.testing.assert_array_equal(kept.scores, everything.scores[of_things])


@pytest.mark.parametrize('post, masks', [
    pytest.param(EVERYTHING, 'none', id='no query'),
    pytest.param(replace(EVERYTHING, classes=()), 'random', id='no class asked for'),
    pytest.param(replace(EVERYTHING, score_thr=1.0), 'random', id='nothing so certain'),
    pytest.param(replace(EVERYTHING, score_thr=0.01), 'negative', id='empty masks'),
    pytest.param(replace(EVERYTHING, score_thr=0.01), 'padding', id='masks in the padding only'),
])
@pytest.mark.parametrize('mask_format', ['array', 'rle'])
def test_nothing_found_gives_empty_results(post, masks, mask_format):
    output = random_output(0, queries=0 if masks == 'none' else 6, logits_size=(8, 8), canvas=(64, 64),
                           sizes=[(64, 24)])
    if masks in ('negative', 'padding'):
        output.final.masks.fill_(-3.0)
    if masks == 'padding':
        output.final.masks[..., 6:] = 3.0
    instances = one(replace(post, mask_format=mask_format), output, (40, 60))
    assert len(instances) == 0
    assert instances.labels.shape == (0,) and instances.boxes.shape == (0, 4)
    assert instances.masks == [] if mask_format == 'rle' else instances.masks.shape == (0, 40, 60)


class LargestTensor(TorchDispatchMode):
    """Remembers the largest tensor that an operation made, and how many pixels all of them had."""

    def __init__(self):
        super().__init__()
        self.largest = self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.is_floating_point():
            self.largest = max(self.largest, result.numel())
            self.total += result.numel()
        return result


def discs(queries, size, radius):
    """Mask logits of round objects on a lattice."""
    y, x = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing='ij')
    step = max(1, size[1] // queries)
    return torch.stack([radius - ((y - size[0] / 2) ** 2 + (x - step * (query + 0.5)) ** 2).sqrt()
                        for query in range(queries)])


def test_a_12_megapixel_photograph_needs_no_full_size_floats():
    output = random_output(0, queries=5, classes=4, logits_size=(80, 108), canvas=(640, 864), sizes=[(640, 853)])
    output.final.masks[0] = discs(5, (80, 108), 30)
    with LargestTensor() as seen:
        instances = one(replace(EVERYTHING, mask_format='rle'), output, (3000, 4000))
    assert len(instances) == 20
    assert seen.largest < 3000 * 4000 / 20


def test_only_where_a_mask_can_be_positive_is_computed():
    output = random_output(0, queries=10, classes=1, logits_size=(80, 108), canvas=(640, 864), sizes=[(640, 864)])
    output.final.masks[0] = discs(10, (80, 108), 3)
    with LargestTensor() as seen:
        instances = one(EVERYTHING, output, (1600, 2160))
    assert (instances.masks.sum((1, 2)) > 1000).all()
    # At full size each step of the computation would make 35 million values; older torch counts more steps.
    assert seen.total < 10 * 1600 * 2160 / 3


def test_candidates_that_cannot_be_kept_are_not_upsampled():
    output = random_output(0, queries=20, classes=1, logits_size=(8, 8), canvas=(64, 64), sizes=[(64, 64)])
    output.final.masks.fill_(9.0)
    output.final.logits[0, :, 0] = torch.linspace(8, -1, 20)
    output.final.logits[0, :, 1] = 0
    totals = []
    for post in (replace(EVERYTHING, max_instances=2), EVERYTHING):
        with LargestTensor() as seen:
            assert len(one(post, output, (512, 512))) in (2, 20)
        totals.append(seen.total)
    assert totals[0] < totals[1] / 4


@pytest.mark.parametrize('setting, message', [
    pytest.param({'score_thr': 1.5}, 'score_thr is 1.5; it must be a number between 0 and 1', id='threshold above 1'),
    pytest.param({'score_thr': '0.5'}, "score_thr is '0.5'", id='threshold a string'),
    pytest.param({'score_thr': None}, 'score_thr is None', id='threshold none'),
    pytest.param({'score_thr': True}, 'score_thr is True', id='threshold a truth value'),
    pytest.param({'score_thr': float('nan')}, 'score_thr is nan', id='threshold not a number'),
    pytest.param({'max_instances': -1}, 'max_instances is -1', id='negative limit'),
    pytest.param({'max_instances': 2.5}, 'max_instances is 2.5; it must be a whole number', id='broken limit'),
    pytest.param({'max_instances': True}, 'max_instances is True', id='limit a truth value'),
    pytest.param({'max_instances': '5'}, "max_instances is '5'", id='limit a string'),
    pytest.param({'mask_format': 'png'}, "mask_format is 'png'; it must be one of array, rle", id='unknown format'),
    pytest.param({'candidates': 0}, 'candidates is 0', id='no candidates'),
    pytest.param({'candidates': 1.5}, 'candidates is 1.5', id='broken number of candidates'),
])
def test_settings_out_of_range_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        InstancePostprocessor(**setting)


@pytest.mark.parametrize('classes', [[3], [-1], [0, 7]])
def test_a_class_that_the_network_does_not_have_is_refused(classes):
    with pytest.raises(ValueError, match='the network knows 0 to 2'):
        one(replace(EVERYTHING, classes=classes), random_output(0), (40, 60))


@pytest.mark.parametrize('part, value', [('logits', float('nan')), ('masks', float('nan')), ('masks', float('inf'))])
def test_logits_that_are_not_finite_are_an_error_and_not_an_empty_result(part, value):
    output = random_output(0)
    getattr(output.final, part)[0, 2, 0] = value
    with pytest.raises(ValueError, match='of image 0 are not finite'):
        one(EVERYTHING, output, (40, 60))


@pytest.mark.parametrize('originals, message', [
    pytest.param([(40, 60)] * 2, '2 original sizes and 1 input sizes were given for 1 images', id='too many sizes'),
    pytest.param([(0, 60)], 'image 0 has the original size 0 x 60', id='an image without pixels'),
])
def test_sizes_that_do_not_fit_are_refused(originals, message):
    with pytest.raises(ValueError, match=message):
        EVERYTHING(random_output(0), originals)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('mask_format', ['array', 'rle'])
def test_a_gpu_gives_the_same_instances(mask_format):
    output = random_output(3, logits_size=(20, 27), canvas=(160, 216), sizes=[(160, 213)])
    post = replace(EVERYTHING, mask_format=mask_format)
    on_gpu = output_of(output.final.logits.cuda(), output.final.masks.cuda(), output.canvas, output.sizes)
    assert_equals_plain(one(post, on_gpu, (1080, 1438)), output, (1080, 1438))
