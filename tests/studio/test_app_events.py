"""What the pages' controls do, called as the pages call it."""
from __future__ import annotations

import json
import zipfile
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from PIL import Image
from starlette.requests import Request

from modelscope_fastinst.studio.app_image_events import ImageEvents
from modelscope_fastinst.studio.app_video_events import VideoEvents
from modelscope_fastinst.studio.limits import Limits
from modelscope_fastinst.studio.service import Service

LOOK = ('instance', 0.45, ['outline', 'tags'])
EVERYTHING, SHOWN, CHOSEN, PICTURE, FACTS, TABLE, AGAIN = range(7)   # the first of what segment() returns


def visitor(language: str = 'en', page: str = 'a page') -> gr.Request:
    """A request of a browser."""
    headers = [(b'accept-language', {'en': b'en-US,en;q=0.9', 'zh': b'zh-CN,zh;q=0.9'}[language])]
    return gr.Request(request=Request({'type': 'http', 'headers': headers}), session_hash=page)


@pytest.fixture
def events(service) -> ImageEvents:
    return ImageEvents(service)


@pytest.fixture
def picture(nuclei, tmp_path) -> str:
    path = tmp_path / 'upload.png'
    Image.fromarray(nuclei).save(path)
    return str(path)


def segment(events, picture, score=0.7, most=100, classes=(), language='en', before=None):
    return events.segment(before, picture, 'embedded', 288, 'instance', False, score, most, list(classes), *LOOK,
                          visitor(language))


def rows(update) -> list[list]:
    """The table's rows, of an update or of the value itself."""
    return (update.get('value') if 'value' in update else update)['data']


@pytest.mark.parametrize(('language', 'header', 'words'), [
    pytest.param('en', 'Score', ('found in 320 × 240', 'network'), id='English'),
    pytest.param('zh', '置信度', ('320 × 240 像素', '网络推理'), id='Chinese')])
def test_a_picture_gives_overlay_table_and_times_in_the_language(events, picture, nuclei, language, header, words):
    shown = segment(events, picture, language=language)
    assert shown[PICTURE].shape == nuclei.shape and (shown[PICTURE] != nuclei).any()
    assert header in shown[TABLE]['value']['headers']
    assert len(rows(shown[TABLE])) == len(shown[SHOWN]) > 5
    assert all(word in shown[FACTS] for word in words)


def test_another_threshold_runs_no_network_and_equals_the_pipeline(events, picture, nuclei, store):
    segmenter = store.get().segment
    shown = segment(events, picture)
    runs = []
    with_hook = segmenter.model.register_forward_hook(lambda *_: runs.append(1))
    try:
        fewer = events.choose(shown[EVERYTHING], 0.95, 100, [], *LOOK, visitor())
        more = events.choose(shown[EVERYTHING], 0.1, 100, [], *LOOK, visitor())
        assert runs == []
    finally:
        with_hook.remove()
    assert len(rows(fewer[4])) < len(rows(shown[TABLE])) < len(rows(more[4]))
    for score, update in ((0.95, fewer), (0.1, more)):
        expected = segmenter(nuclei[:, :, ::-1], score_thr=score, min_size=288, max_instances=100)
        assert [row[2] for row in rows(update[4])] == [round(one, 3) for one in expected['scores']]


def test_a_row_of_a_sorted_table_stands_out(events, picture):
    shown = segment(events, picture)
    number = len(rows(shown[TABLE]))
    event = gr.SelectData(None, {'index': [0, 1], 'value': 'nucleus', 'row_value': rows(shown[TABLE])[-1]})
    index, image, facts, table, again = events.pick_row(shown[SHOWN], *LOOK, event, visitor('zh'))
    assert index == number - 1
    assert f'第 {number} 个' in facts
    assert (image != shown[PICTURE]).any()
    marked = [any(cells) for cells in table['metadata']['styling']]
    assert marked == [False] * (number - 1) + [True]
    assert again['visible'] is True
    back = events.pick_none(shown[SHOWN], *LOOK, visitor())
    np.testing.assert_array_equal(back[1], shown[PICTURE])


def test_a_click_in_the_picture_finds_its_instance_or_none(events, picture):
    from pycocotools import mask as coco_mask
    shown = segment(events, picture)
    mask = coco_mask.decode(shown[SHOWN].result['masks'][0])
    y, x = np.argwhere(mask)[mask.sum() // 2]
    nothing = np.argwhere(sum(coco_mask.decode(one) for one in shown[SHOWN].result['masks']) == 0)[0]
    hit = events.pick_point(shown[SHOWN], *LOOK, gr.SelectData(None, {'index': [x, y], 'value': None}), visitor())
    missed = events.pick_point(shown[SHOWN], *LOOK,
                               gr.SelectData(None, {'index': nothing[::-1].tolist(), 'value': None}), visitor())
    assert mask[y, x] and hit[0] is not None
    assert missed[0] is None and missed[4]['visible'] is False


def test_a_large_picture_is_shown_smaller_and_clicks_still_hit(events, tmp_path):
    from pycocotools import mask as coco_mask

    from modelscope_fastinst.data.microscope import draw_nuclei
    path = tmp_path / 'large.png'
    drawn = Image.fromarray(draw_nuclei(240, 320, 8, seed=3).image)
    drawn.resize((3200, 2400)).save(path)
    shown = segment(events, str(path))
    assert shown[PICTURE].shape == (1200, 1600, 3)
    mask = coco_mask.decode(shown[SHOWN].result['masks'][0])
    y, x = np.argwhere(mask)[mask.sum() // 2]
    hit = events.pick_point(shown[SHOWN], *LOOK, gr.SelectData(None, {'index': [int(x) // 2, int(y) // 2],
                                                                      'value': None}), visitor())
    assert hit[0] is not None and coco_mask.decode(shown[SHOWN].result['masks'][hit[0]])[y, x]


def test_downloads_are_what_is_shown(events, picture):
    shown = segment(events, picture, score=0.95)
    content = json.loads(Path(events.save_json(shown[SHOWN], *LOOK, visitor())[0]).read_text('utf-8'))
    assert len(content['annotations']) == len(rows(shown[TABLE])) > 0
    with zipfile.ZipFile(events.save_masks(shown[SHOWN], *LOOK, visitor())[0]) as archive:
        assert len(archive.namelist()) == len(content['annotations'])
    with Image.open(events.save_overlay(shown[SHOWN], *LOOK, visitor())[0]) as overlay:
        np.testing.assert_array_equal(np.asarray(overlay), shown[PICTURE])


def test_another_look_draws_anew(events, picture):
    shown = segment(events, picture)
    bare, _ = events.draw(shown[SHOWN], None, 'class', 0.0, [], visitor())
    assert (bare != shown[PICTURE]).any()


@pytest.mark.parametrize(('content', 'language', 'words'), [
    pytest.param(b'this is no picture', 'en', 'not a picture', id='text, in English'),
    pytest.param(b'this is no picture', 'zh', '不是图片', id='text, in Chinese'),
    pytest.param(b'', 'zh', '文件为空', id='an empty file'),
    pytest.param(b'\x89PNG\r\n\x1a\n' + b'\0' * 20, 'en', 'picture', id='half a header')])
def test_a_bad_upload_gets_a_sentence_and_leaves_nothing(events, tmp_path, content, language, words):
    path = tmp_path / '<b>name.png'
    path.write_bytes(content)
    shown = segment(events, str(path), language=language)
    assert words in shown[FACTS] and 'role="alert"' in shown[FACTS]
    assert str(tmp_path) not in shown[FACTS] and '<b>' not in shown[FACTS]
    assert shown[:PICTURE + 1] == [None] * 4


def test_a_result_that_has_expired_gets_a_sentence(events, picture, service):
    shown = segment(events, picture)
    service.forget(shown[SHOWN])
    assert 'removed' in events.draw(shown[SHOWN], None, *LOOK, visitor())[1]
    assert 'removed' in events.save_json(shown[SHOWN], *LOOK, visitor())[1]
    assert '已过期' in events.pick_none(shown[SHOWN], *LOOK, visitor('zh'))[2]
    assert '已过期' in events.choose(shown[EVERYTHING], 0.9, 100, [], *LOOK, visitor('zh'))[3]


@pytest.mark.parametrize(('language', 'word'), [('en', 'removed'), ('zh', '已过期')])
def test_a_page_that_the_server_has_forgotten_is_told_so_whatever_it_asks(events, picture, language, word):
    facts = segment(events, picture)[FACTS]
    anyone = visitor(language)
    point = gr.SelectData(None, {'index': [1, 1], 'value': None, 'row_value': [1]})
    told = [events.choose(None, 0.9, 100, [], *LOOK, anyone, facts)[3],
            events.draw(None, None, *LOOK, anyone, facts)[1],
            events.pick_row(None, *LOOK, point, anyone)[2], events.pick_point(None, *LOOK, point, anyone)[2],
            events.pick_none(None, *LOOK, anyone)[2],
            *(save(None, *LOOK, anyone)[1] for save in (events.save_json, events.save_masks, events.save_overlay))]
    assert [word in text for text in told] == [True] * 8


def test_a_slider_before_there_is_a_result_changes_nothing(events):
    skipped = [*events.choose(None, 0.9, 100, [], *LOOK, visitor(), ''), *events.draw(None, None, *LOOK, visitor())]
    assert all(set(update) == {'__type__'} for update in skipped)


def test_sliders_that_were_moved_while_the_picture_was_segmented_are_obeyed_then(events, picture):
    first = segment(events, picture, score=0.7)
    found, wanted = first[EVERYTHING], first[-1]
    caught = events.catch_up(wanted, found, 0.97, 100, [], *LOOK, visitor())
    assert 0 < len(rows(caught[4])) < len(rows(first[TABLE]))
    same = events.catch_up(wanted, found, 0.7, 100, [], *LOOK, visitor())
    assert all(set(update) == {'__type__'} for update in same)


def test_while_a_picture_is_segmented_anew_the_former_result_still_answers(events, picture, monkeypatch):
    first = segment(events, picture)[EVERYTHING]
    segmented, answers = events.service.segment, []

    def meanwhile(*values, **options):
        answers.append(events.choose(first, 0.97, 100, [], *LOOK, visitor()))
        return segmented(*values, **options)

    monkeypatch.setattr(events.service, 'segment', meanwhile)
    segment(events, picture, before=first)
    assert len(rows(answers[0][4])) > 0
    assert not first.folder.exists()


def test_a_model_that_cannot_be_loaded_leaves_the_former_one_s_result(events, picture):
    first = segment(events, picture)[EVERYTHING]
    values = (first, picture, 'embedded', 288, 'instance', False, 0.7, 100, [], *LOOK)
    assert all(set(update) == {'__type__'} for update in events.segment_anew(False, visitor(), *values))
    assert first.folder.is_dir()
    assert len(events.segment_anew(True, visitor(), *values)[SHOWN]) == len(first)


def test_a_new_picture_removes_the_files_of_the_former_one(events, picture):
    first = segment(events, picture)
    second = segment(events, picture, before=first[EVERYTHING])
    assert not first[SHOWN].folder.exists()
    assert second[SHOWN].folder.is_dir()


def test_without_a_picture_the_page_is_empty(events):
    assert segment(events, None)[:FACTS + 1] == [None, None, None, None, '']


def test_another_model_brings_its_classes_tasks_and_defaults(many_store, tmp_path):
    from modelscope_fastinst.studio.app import build_app
    with Service(many_store, folder=tmp_path) as service:
        pages = build_app(service)
        changed = next(one.fn for one in pages.fns.values() if getattr(one.fn, '__name__', '') == 'changed')
        line, found, told, ready, *controls = changed('panoptic', None, visitor('zh'))
        refused, _, _, unready, *others = changed('/somewhere/else', None, visitor('zh'))
    assert 'panoptic' in line and '10 个类别' in line and (found, told, ready, unready) == (None, '', True, False)
    score, most, classes, _, task = controls[:5]
    assert (score['visible'], most['visible']) == (True, False)   # what a panoptic map has a use for
    assert len(classes['choices']) == 10 and classes['value'] == []
    assert [value for _, value in task['choices']] == ['panoptic', 'instance', 'semantic'] and task['visible'] is True
    assert controls[9]['visible'] is False   # a video is not asked for its task
    assert '不提供模型 /somewhere/else' in refused
    assert all(set(update) == {'__type__'} for update in others)   # left as they are


@pytest.fixture
def film(tmp_path) -> str:
    """A short drawn video."""
    av = pytest.importorskip('av')
    from modelscope_fastinst.data.microscope import draw_nuclei
    image = draw_nuclei(96, 160, 5, seed=2).image
    path = tmp_path / 'film.mp4'
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('mpeg4', rate=5)
        stream.width, stream.height, stream.pix_fmt = 128, 96, 'yuv420p'
        for shift in range(6):
            part = np.ascontiguousarray(image[:, 4 * shift:4 * shift + 128])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(part, format='rgb24')))
        container.mux(stream.encode())
    return str(path)


def test_a_video_tells_how_far_it_is_and_comes_back_with_its_frames(store, film, tmp_path):
    import av
    with Service(store, folder=tmp_path / 'results') as service:
        events = VideoEvents(service)
        told = list(events.render(film, 'embedded', 2, 96, 0.5, 100, [], *LOOK, visitor('zh')))
        path, facts, download = told[-1]
        with av.open(path) as container:
            frames = [frame.width for frame in container.decode(video=0)]
    assert '正在打开' in told[0][1]
    assert frames == [128] * 6
    assert '<strong>6 帧' in facts
    assert download['visible'] is True and download['value'] == path
    assert events._stops == {}


def test_a_video_that_is_none_gets_a_sentence(service, tmp_path):
    path = tmp_path / 'film.mp4'
    path.write_bytes(b'no film')
    told = list(VideoEvents(service).render(str(path), 'embedded', 1, 96, 0.5, 100, [], *LOOK, visitor('zh')))
    assert '无法将该文件识别为视频' in told[-1][1] and told[-1][0] is None


def test_a_visitor_stops_the_own_video_and_no_other(store, film, tmp_path):
    with Service(store, Limits(), tmp_path / 'results') as service:
        events = VideoEvents(service)
        work = events.render(film, 'embedded', 1, 96, 0.5, 100, [], *LOOK, visitor(page='mine'))
        next(work)
        events.stop(visitor(page='another'))
        assert not events._stops['mine'].is_set()
        events.stop(visitor(page='mine'))
        assert events._stops['mine'].is_set()
        list(work)
    assert events._stops == {}
