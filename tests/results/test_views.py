"""Fusing the views of test-time augmentation."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from modelscope_fastinst.plugin.views import find_in_views
from modelscope_fastinst.results.rle import decode, encode
from modelscope_fastinst.results.views import flipped, merge_views
from modelscope_fastinst.structures import Instances

SIZE = (20, 30)


def of(*items):
    """From (score, label, (left, top, right, bottom))."""
    masks = np.zeros((len(items), *SIZE), np.uint8)
    for mask, (_, _, (left, top, right, bottom)) in zip(masks, items, strict=True):
        mask[top:bottom, left:right] = 1
    return Instances(np.array([item[0] for item in items], np.float32), np.array([item[1] for item in items]),
                     encode(masks), np.array([item[2] for item in items], np.float32).reshape(-1, 4))


def test_what_all_views_see_keeps_its_score_and_what_one_sees_loses():
    views = [of((0.9, 0, (0, 0, 10, 10)), (0.6, 0, (20, 10, 30, 20))), of((0.7, 0, (0, 0, 10, 11)))]
    merged = merge_views(views)
    assert merged.scores == pytest.approx([0.8, 0.3])
    assert merged.boxes.tolist() == [[0, 0, 10, 10], [20, 10, 30, 20]]


@pytest.mark.parametrize(('views', 'number'), [
    pytest.param([[(0.9, 0)], [(0.9, 1)]], 2, id='of different classes'),
    pytest.param([[(0.9, 0), (0.8, 0)], []], 2, id='twice in one view'),
    pytest.param([[(0.9, 0)], [(0.8, 0)], [(0.1, 0)]], 1, id='in three views'),
    pytest.param([[], []], 0, id='nothing found'),
])
def test_which_instances_are_one(views, number):
    box = (5, 5, 15, 15)
    assert len(merge_views([of(*[(*item, box) for item in view]) for view in views])) == number


def test_a_mask_is_the_vote_of_the_views():
    views = [of((0.5, 0, (0, 0, 10, 10))), of((0.4, 0, (0, 0, 12, 10))), of((0.4, 0, (0, 0, 12, 10)))]
    assert decode(merge_views(views).masks)[0].sum() == 120


def test_flipped_twice_is_the_same():
    view = of((0.9, 1, (2, 3, 9, 12)))
    once = flipped(view, 30)
    assert once.boxes.tolist() == [[21, 3, 28, 12]]
    assert np.array_equal(decode(once.masks)[0], decode(view.masks)[0][:, ::-1])
    assert flipped(once, 30).boxes.tolist() == view.boxes.tolist() and flipped(once, 30).masks == view.masks


def test_views_are_scaled_and_mirrored_and_results_mirrored_back():
    seen = []

    def find(images, sizes):
        """Sees everything in the bright half of an image."""
        seen.append(tuple(images[0].shape[-2:]))
        assert sizes == [SIZE]
        left = bool(images[0][0, :, 0].float().mean() > 100)
        return [of((0.8, 0, (0, 0, 15, 20) if left else (15, 0, 30, 20)))]

    image = torch.zeros(3, 40, 60, dtype=torch.uint8)
    image[:, :, :30] = 200
    found, = find_in_views(find, [image], [SIZE], [(1.0, False), (0.5, False), (80.0, True)])
    assert seen == [(40, 60), (20, 30), (80, 120)]
    assert found.scores == pytest.approx([0.8]) and found.boxes.tolist() == [[0, 0, 15, 20]]
