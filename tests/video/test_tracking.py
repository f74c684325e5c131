"""Ids stay with their objects: through movement, touching, gaps, and changes of order and class."""
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelscope_fastinst.results.rle import encode
from modelscope_fastinst.video import Tracker
from modelscope_fastinst.video.tracking import ColorBook

SIZE = (80, 120)


def disc(x: float, y: float, radius: float = 8) -> np.ndarray:
    rows, columns = np.mgrid[0:SIZE[0], 0:SIZE[1]]
    return ((columns - x) ** 2 + (rows - y) ** 2 < radius ** 2).astype(np.uint8)


def ids_of(tracker: Tracker, *frames: list[np.ndarray], label: str = 'disc') -> list[list[int]]:
    return [tracker.update(masks, [label] * len(masks)) for masks in frames]


def test_ids_begin_at_one_in_the_order_of_the_first_frame():
    assert Tracker().update([disc(20, 20), disc(60, 20)], ['disc', 'disc']) == [1, 2]


@given(st.permutations(range(4)), st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=4, max_size=4))
def test_ids_follow_objects_whatever_their_order(order, steps):
    places = [(20, 20), (50, 20), (20, 55), (90, 55)]
    tracker = Tracker()
    first = tracker.update([disc(*place) for place in places], ['disc'] * 4)

    moved = [disc(x + dx, y + dy) for (x, y), (dx, dy) in zip(places, steps, strict=True)]
    second = tracker.update([moved[place] for place in order], ['disc'] * 4)

    assert second == [first[place] for place in order]


@given(st.lists(st.lists(st.tuples(st.integers(0, 119), st.integers(0, 79)), max_size=6), max_size=5))
def test_ids_are_unique_in_a_frame_and_new_ones_were_never_used(frames):
    tracker, known = Tracker(), set()
    for places in frames:
        ids = tracker.update([disc(*place) for place in places], ['disc'] * len(places))
        assert len(set(ids)) == len(ids) == len(places)
        new = set(ids) - known
        assert not new or not known or min(new) > max(known)
        known |= set(ids)


@pytest.mark.parametrize('missing', [1, 3, 8])
def test_an_object_that_is_missing_for_some_frames_keeps_its_id(missing):
    tracker = Tracker()

    ids = ids_of(tracker, [disc(30, 30)], *[[]] * missing, [disc(31, 30)])

    assert ids[-1] == [1]


def test_a_moving_object_is_expected_where_it_goes_while_it_is_missing():
    # Six frames at 5 pixels a frame: far outside the mask that was seen last.
    tracker = Tracker()
    seen = [[disc(10 + 5 * frame, 40)] for frame in range(6)]

    ids = ids_of(tracker, *seen, *[[]] * 6, [disc(10 + 5 * 12, 40)])

    assert ids[-1] == [1]


def test_an_object_that_is_away_for_too_long_is_a_new_one():
    tracker = Tracker(patience=3)

    assert ids_of(tracker, [disc(30, 30)], [], [], [], [], [disc(30, 30)])[-1] == [2]


def test_patience_counts_frames_that_are_looked_at():
    tracker = Tracker(patience=2)
    for frame in (0, 10, 20):
        masks = [disc(30, 30)] if frame == 0 else []
        tracker.update(masks, ['disc'] * len(masks), frame)

    assert tracker.update([disc(30, 30)], ['disc'], 20 + 1) == [1]


def test_a_newcomer_does_not_take_over_the_id_of_a_neighbor():
    tracker = Tracker()

    ids = ids_of(tracker, [disc(30, 30)], [disc(47, 30), disc(30, 30)], [disc(47, 30)])

    assert ids == [[1], [2, 1], [2]]


def test_touching_objects_that_move_together_keep_their_ids():
    # Each moves nearly to where its neighbour was.
    tracker = Tracker()
    frames = [[disc(15 + 17 * place + 4 * frame, 40) for place in range(4)] for frame in range(8)]

    assert ids_of(tracker, *frames) == [[1, 2, 3, 4]] * 8


def test_crossing_objects_keep_their_ids():
    frames = [[disc(15 + 4 * frame, 36), disc(105 - 4 * frame, 44)] for frame in range(23)]

    assert ids_of(Tracker(), *frames)[-1] == [1, 2]


def test_one_good_pair_comes_before_two_poor_ones():
    tracker = Tracker(overlap=0.1)
    tracker.update([disc(40, 40), disc(27, 40)], ['disc', 'disc'])   # 2 goes, another comes on the right

    assert tracker.update([disc(41, 40), disc(53, 40)], ['disc', 'disc'])[0] == 1


def test_an_object_that_is_taken_for_something_else_keeps_its_id():
    tracker = Tracker()
    tracker.update([disc(30, 30)], ['car'])

    assert tracker.update([disc(31, 30)], ['truck']) == [1]


def test_something_of_another_class_that_only_overlaps_is_another_object():
    tracker = Tracker()
    tracker.update([disc(30, 30)], ['rider'])

    assert tracker.update([disc(36, 30)], ['bicycle']) == [2]


def test_of_two_classes_in_one_place_each_keeps_its_own():
    tracker = Tracker()
    tracker.update([disc(30, 30), disc(30, 30)], ['car', 'truck'])

    assert tracker.update([disc(30, 30), disc(30, 30)], ['truck', 'car']) == [2, 1]


def test_small_things_that_leave_their_mask_are_followed():
    frames = [[disc(10 + 4.5 * frame, 40, 3.5)] for frame in range(5)]

    assert ids_of(Tracker(), *frames) == [[1]] * 5


def test_run_length_encoded_masks_give_the_same_ids_as_arrays():
    frames = [[disc(20 + 3 * frame, 30), disc(80 - 3 * frame, 50)] for frame in range(5)]

    encoded = ids_of(Tracker(), *[encode(np.stack(masks)) for masks in frames])

    assert encoded == ids_of(Tracker(), *frames) == [[1, 2]] * 5


def test_empty_masks_and_frames_are_no_trouble():
    empty = np.zeros(SIZE, np.uint8)

    assert ids_of(Tracker(), [], [empty], [empty, disc(30, 30)], []) == [[], [1], [2, 3], []]


def test_tracks_that_ended_are_forgotten():
    tracker = Tracker(patience=2)
    for frame in range(50):
        tracker.update([disc(20 + 40 * (frame % 3), 40)], [f'class {frame}'])

    assert len(tracker._tracks) <= 3


@pytest.mark.parametrize(('arguments', 'told'), [
    pytest.param({'overlap': 0}, 'overlap is 0', id='no overlap'),
    pytest.param({'other_class': 1.5}, 'other_class is 1.5', id='more than all'),
    pytest.param({'patience': -1}, 'patience is -1', id='negative patience'),
])
def test_settings_out_of_range_are_refused(arguments, told):
    with pytest.raises(ValueError, match=told):
        Tracker(**arguments)


def test_what_does_not_go_together_is_refused():
    tracker = Tracker()
    with pytest.raises(ValueError, match='1 masks for 0 labels'):
        tracker.update([disc(1, 1)], [])
    tracker.update([], [], 5)
    with pytest.raises(ValueError, match='frame 5 comes after frame 5'):
        tracker.update([], [], 5)


def test_colors_stay_and_are_given_again_when_nobody_has_them():
    book = ColorBook(patience=1)

    assert [book.numbers(ids) for ids in ([1, 2], [2, 3], [3], [4], [4, 5])] == [[0, 1], [1, 2], [2], [0], [0, 1]]
