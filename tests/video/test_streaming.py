"""The generator: which frames have which results, that stages overlap and end, and what comes through."""
from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from modelscope_fastinst import video
from modelscope_fastinst.video.streaming import Chain
from tests.video.media import find_bright, with_damage, write_video


def ours() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == 'modelscope-fastinst video']


@pytest.fixture
def clip(tmp_path):
    return write_video(tmp_path / 'clip.mp4', 20)


def test_each_frame_comes_with_its_result_and_ids(clip):
    frames = list(video.segment(clip, find_bright))

    assert [frame.index for frame in frames] == list(range(20))
    for frame in frames:
        assert frame.result == find_bright([frame.image[:, :, ::-1]])[0]
        assert frame.ids == [1]


@pytest.mark.parametrize(('every', 'batch'), [(1, 3), (3, 1), (4, 3), (7, 100)])
@pytest.mark.parametrize('overlap', [True, False])
def test_results_are_the_same_however_the_work_is_divided(clip, every, batch, overlap):
    expected = list(video.segment(clip, find_bright, overlap=False))[::every]

    frames = list(video.segment(clip, find_bright, every=every, batch=batch, overlap=overlap))

    assert [(frame.index, frame.result, frame.ids) for frame in frames] \
        == [(frame.index, frame.result, frame.ids) for frame in expected]


def test_the_network_sees_batches_as_bgr(clip):
    sizes = []

    def record(images, batch_size, **options):
        sizes.append(len(images))
        assert batch_size == 8 and options == {'mask_format': 'rle', 'score_thr': 0.5}
        assert images[0][0, 0].tolist() == pytest.approx([60, 30, 20], abs=4)   # the ground is (20, 30, 60) in RGB
        return find_bright(images)

    list(video.segment(clip, record, batch=8, options={'score_thr': 0.5}))

    assert sizes == [8, 8, 4]


def test_frames_between_come_with_the_last_result(clip):
    frames = list(video.segment(clip, find_bright, every=3, batch=2, between=True))

    assert [frame.index for frame in frames] == list(range(20))
    assert [frame.fresh for frame in frames] == [index % 3 == 0 for index in range(20)]
    for frame in frames:
        assert frame.result is frames[frame.index // 3 * 3].result and frame.ids == [1]


def test_a_broken_frame_takes_no_result_away_from_the_others(tmp_path):
    path = with_damage(write_video(tmp_path / 'clip.mkv', 9, codec='mjpeg', pix_fmt='yuvj420p'), 3, 4)
    broken = []

    frames = list(video.segment(path, find_bright, every=3, between=True, broken=broken))

    assert [item.index for item in broken] == [3, 4]
    assert [(frame.index, frame.fresh) for frame in frames] \
        == [(0, True), (1, False), (2, False), (5, False), (6, True), (7, False), (8, False)]
    assert frames[3].result is frames[0].result


def test_a_tracker_of_ones_own_is_used(clip):
    class Counting(video.Tracker):
        def update(self, masks, labels, frame=None):
            return [100 + frame]

    assert [frame.ids for frame in video.segment(clip, find_bright, every=10, track=Counting())] == [[100], [110]]


def test_without_tracking_there_are_no_ids(clip):
    assert all(frame.ids == [] for frame in video.segment(clip, find_bright, track=False))


@pytest.mark.parametrize('overlap', [True, False])
def test_what_the_network_raises_comes_where_its_frame_would(clip, overlap):
    calls = []

    def failing(images, **options):
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError('out of memory')
        return find_bright(images)

    frames = []
    with pytest.raises(RuntimeError, match='out of memory'):
        for frame in video.segment(clip, failing, overlap=overlap):
            frames.append(frame.index)

    assert frames == [0, 1, 2]
    assert not ours()


def test_leaving_early_ends_the_threads(clip):
    for frame in video.segment(clip, find_bright):
        if frame.index == 2:
            break
    del frame
    deadline = time.monotonic() + 5
    while ours() and time.monotonic() < deadline:
        time.sleep(0.01)

    assert not ours()


def test_nothing_more_is_segmented_once_it_is_stopped(clip):
    stop, seen = threading.Event(), []

    def slow(images, **options):
        seen.append(len(images))
        time.sleep(0.02)
        return find_bright(images)

    frames = 0
    for _ in video.segment(clip, slow, stop=stop):
        frames += 1
        if frames == 3:
            stop.set()

    assert frames == 3 and not ours()
    assert len(seen) <= 3 + 3 + 1   # those that waited, and the one under way


def test_stages_wait_for_each_other_and_not_in_heaps():
    made = []

    def endless():
        while True:
            made.append(len(made))
            yield made[-1]

    chain = Chain(True)
    items = chain.add(endless(), 3)
    taken = [next(items) for _ in range(5)]
    time.sleep(0.3)
    count = len(made)
    chain.close()

    assert taken == [0, 1, 2, 3, 4]
    assert count <= 5 + 3 + 1


def test_stages_run_at_the_same_time():
    # Each stage waits until the other has begun its next item: one after the other they would wait for ever.
    both = threading.Barrier(2, timeout=10)

    def first():
        for item in range(4):
            if item:
                both.wait()
            yield item

    def second(items):
        for item in items:
            if item < 3:
                both.wait()
            yield item

    chain = Chain(True)
    results = list(chain.add(second(chain.add(first(), 2)), 2))
    chain.close()

    assert results == [0, 1, 2, 3]


def test_of_a_live_source_the_newest_frames_are_kept():
    begun = threading.Event()

    def camera():
        yield 0
        begun.wait(10)
        yield from range(1, 100)

    chain = Chain(True)
    items = chain.add(camera(), 2, newest=True)
    first = next(items)
    begun.set()
    deadline = time.monotonic() + 10
    while chain.dropped < 97 and time.monotonic() < deadline:
        time.sleep(0.01)
    rest = list(items)
    chain.close()

    assert (first, rest, chain.dropped) == (0, [98, 99], 97)


def test_errors_of_a_source_come_at_once_and_not_with_the_first_frame(tmp_path):
    with pytest.raises(video.VideoError, match='no such file'):
        video.segment(tmp_path / 'none.mp4', find_bright)


def test_of_a_live_source_the_next_frame_takes_the_turn_of_one_that_was_dropped():
    from modelscope_fastinst.video.frames import Frame
    from modelscope_fastinst.video.streaming import _batches
    frames = [Frame(index, index / 25, np.zeros((4, 4, 3), np.uint8)) for index in (0, 1, 11, 12, 20, 21, 22)]

    results = list(_batches(iter(frames), find_bright, 10, 1, {}, live=True))

    assert [frame.index for frame in results if frame.fresh] == [0, 11, 21]
