"""A visitor's video: segmented in turn with the others, within limits, under names of the service's own."""
from __future__ import annotations

import threading

import numpy as np
import pytest

from modelscope_fastinst.studio.drawing import Look
from modelscope_fastinst.studio.limits import Limits
from modelscope_fastinst.studio.messages import Refused
from modelscope_fastinst.studio.service import Service
from tests.studio.hostile import video

av = pytest.importorskip('av')
OPTIONS = {'min_size': 64, 'score_thr': 0.1}


@pytest.fixture
def upload(tmp_path):
    file = tmp_path / '$(reboot) -i holiday.txt'
    file.write_bytes(video(6))
    return file


def code(function, *args, **options) -> str:
    with pytest.raises(Refused) as refused:
        function(*args, **options)
    return refused.value.code


def frames_of(file) -> int:
    with av.open(str(file)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_a_video_is_done_frame_by_frame(service, upload):
    told = []
    file = service.render_video(upload, None, OPTIONS, Look(tags=False), told.append, every=2)
    assert frames_of(file) == 6 and told[-1].done == 6
    assert service.folder in file.parents
    assert [path.name for path in file.parent.iterdir()] == ['segmented.mp4']


def test_pictures_are_done_while_a_video_is(service, upload, nuclei):
    results = []

    def another_visitor(progress):
        if not results:
            results.append(service.segment(nuclei, min_size=96))

    service.render_video(upload, None, OPTIONS, None, another_visitor)
    assert len(results[0]) > 3


@pytest.mark.parametrize('content, expected', [
    pytest.param(b'#EXTM3U\n/etc/passwd\n', 'not_a_video', id='playlist'),
    pytest.param(video(6)[:900], 'video_damaged', id='cut off'),
    pytest.param(b'', 'file_empty', id='empty'),
])
def test_a_hostile_video_is_refused_and_leaves_nothing(service, tmp_path, content, expected):
    (tmp_path / 'a.mp4').write_bytes(content)
    assert code(service.render_video, tmp_path / 'a.mp4', None, OPTIONS) == expected
    assert code(service.check_video, tmp_path / 'a.mp4') == expected
    assert list(service.folder.iterdir()) == []


@pytest.mark.parametrize('options, every, expected', [
    ({'score_thr': 7}, 1, 'option_invalid'), ({'classes': ['x']}, 1, 'class_unknown'), ({}, 0, 'option_invalid'),
])
def test_options_are_judged_first(service, options, every, expected):
    assert code(service.render_video, 'no such file', None, options, every=every) == expected


def test_a_visitor_can_stop(service, upload):
    stop = threading.Event()
    file = service.render_video(upload, None, OPTIONS, None, lambda progress: stop.set(), stop=stop)
    assert 0 < frames_of(file) < 6
    assert code(service.render_video, upload, None, OPTIONS, stop=stop) == 'stopped'


def test_a_video_that_takes_too_long_is_ended(store, tmp_path, upload):
    with Service(store, Limits(video_minutes=1e-9), tmp_path / 'results') as service:
        assert code(service.render_video, upload, None, OPTIONS) == 'video_took_too_long'
        assert list(service.folder.iterdir()) == []


def test_a_closing_studio_ends_its_videos(store, tmp_path, upload):
    service = Service(store, folder=tmp_path / 'results')
    assert code(service.render_video, upload, None, OPTIONS, None, lambda progress: service.close()) in (
        'stopped', 'expired')


def test_an_error_of_the_model_is_a_message(service, upload, monkeypatch):
    from modelscope_fastinst.plugin.pipeline import FastInstPipeline
    monkeypatch.setattr(FastInstPipeline, '_over', lambda *_: 1 / 0)
    assert code(service.render_video, upload, None, OPTIONS) == 'internal'
    assert list(service.folder.iterdir()) == []


def test_a_frame_that_grew_on_the_way_is_refused(store, service):
    from modelscope_fastinst.studio.videos import _Work
    work = _Work(service, store.get(), service.visits.new(), None)
    with pytest.raises(Refused) as refused:
        work.segment([np.zeros((3001, 3000, 3), np.uint8)])
    assert refused.value.code == 'video_frame_too_large'
