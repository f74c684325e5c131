"""The service behind the pages: several visitors, hostile ones among them, and nothing but messages when it fails."""
from __future__ import annotations

import json
import logging
import threading
import time
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from modelscope_fastinst.studio import service as service_module
from modelscope_fastinst.studio.drawing import Look
from modelscope_fastinst.studio.limits import Limits
from modelscope_fastinst.studio.messages import CODES, Refused, as_refusal
from modelscope_fastinst.studio.service import Service
from tests.studio.hostile import encoded, png

SMALL = {'min_size': 96}   # what the network sees: quick, and still some nuclei


def refusal(function, *args, **options) -> Refused:
    with pytest.raises(Refused) as refused:
        function(*args, **options)
    return refused.value


@pytest.fixture
def found(service, nuclei):
    found = service.segment(nuclei)
    assert len(found) > 10
    return found


def test_a_result_says_how_long_each_stage_took(service, nuclei, tmp_path):
    file = tmp_path / 'my cells.png'
    file.write_bytes(encoded(nuclei))
    found = service.segment(file)
    assert set(found.seconds) == {'wait', 'read', 'preprocess', 'network', 'postprocess'}
    assert all(seconds >= 0 for seconds in found.seconds.values()) and found.seconds['network'] > 0
    service.draw(found)
    assert found.seconds['draw'] > 0
    assert (found.size, found.input_size, found.file_name) == ((240, 320), (288, 384), 'my cells.png')
    np.testing.assert_array_equal(found.image, nuclei)


def test_what_is_kept_of_a_result_is_small(found):
    import pickle
    assert len(pickle.dumps(found)) < 20_000 < found.image.nbytes
    assert all(isinstance(mask['counts'], str) for mask in found.result['masks'])


def test_eight_visitors_at_once_get_their_own_results(store, tmp_path):
    from modelscope_fastinst.data.microscope import draw_nuclei
    pictures = [draw_nuclei(120, 160, 4 + 2 * number, seed=number).image for number in range(8)]
    segment = store.get().segment
    expected = [segment(picture[:, :, ::-1], mask_format='rle', **SMALL) for picture in pictures]
    with Service(store, folder=tmp_path / 'results') as service:
        wrong, start = [], threading.Barrier(8)

        def visitor(number):
            start.wait(20)
            for again in range(2):
                mine = service.segment(pictures[number], **SMALL)
                few = service.filtered(mine, score_thr=0.5 + 0.05 * number)
                picture = service.draw(mine, highlight=0 if len(mine) else None)
                rows = service.rows(mine)
                if (mine.result['masks'] != expected[number]['masks'] or len(rows) != len(mine)
                        or not np.array_equal(mine.image, pictures[number]) or picture.shape != (120, 160, 3)
                        or any(score < np.float32(0.5 + 0.05 * number) for score in few.result['scores'])):
                    wrong.append((number, again))

        threads = [threading.Thread(target=visitor, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert wrong == []
        assert len({tuple(one['scores']) for one in expected}) == 8
        assert len([path for path in service.folder.iterdir() if path.name.startswith('visit-')]) == 16


def test_the_network_works_at_no_more_than_so_many_pictures(store, tmp_path, nuclei, monkeypatch):
    from modelscope_fastinst.plugin import stages
    now, most, lock, original = [0], [0], threading.Lock(), stages.run_network

    def counting(*args, **options):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        try:
            return original(*args, **options)
        finally:
            with lock:
                now[0] -= 1

    monkeypatch.setattr(stages, 'run_network', counting)
    with Service(store, Limits(hands=5), tmp_path / 'results') as service:
        threads = [threading.Thread(target=service.segment, args=(nuclei,), kwargs=SMALL) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert most[0] == 1


def test_too_many_visitors_are_turned_away_and_those_who_wait_are_told(store, tmp_path, nuclei):
    with Service(store, Limits(queue=1), tmp_path / 'results') as service:
        told, results = [], []
        with service.inference_turns.turn():
            thread = threading.Thread(target=lambda: results.append(service.segment(nuclei, waiting=told.append,
                                                                                    **SMALL)))
            thread.start()
            end = time.monotonic() + 20
            while service.waiting < 1:
                assert time.monotonic() < end
                time.sleep(0.005)
            assert refusal(service.segment, nuclei, **SMALL).code == 'busy'
        thread.join(60)
        assert told == [0] and len(results) == 1
        # Nothing is left of the visitor who was turned away.
        assert len(list(service.folder.iterdir())) == 1


@pytest.mark.parametrize('options, code', [
    pytest.param({'score_thr': 1.5}, 'option_invalid', id='score'),
    pytest.param({'score_thr': float('nan')}, 'option_invalid', id='no number'),
    pytest.param({'score_thr': '0.5'}, 'option_invalid', id='text'),
    pytest.param({'score_thr': {'nucleus': 0.1}}, 'option_invalid', id='dict'),
    pytest.param({'max_instances': -1}, 'option_invalid', id='negative'),
    pytest.param({'max_instances': 10 ** 9}, 'option_invalid', id='many'),
    pytest.param({'max_instances': 2.5}, 'option_invalid', id='half'),
    pytest.param({'min_size': 10 ** 6}, 'option_invalid', id='short side'),
    pytest.param({'min_size': float('inf')}, 'option_invalid', id='endless'),
    pytest.param({'classes': ['<script>']}, 'class_unknown', id='class'),
    pytest.param({'classes': [['nucleus']]}, 'class_unknown', id='list of lists'),
    pytest.param({'classes': {'nucleus': 1}}, 'class_unknown', id='no list'),
    pytest.param({'task': 'panoptic'}, 'task_unknown', id='task'),
    pytest.param({'task': ['instance']}, 'task_unknown', id='list for a task'),
    pytest.param({'tile': 'huge'}, 'option_invalid', id='tile'),
    pytest.param({'tile': [64, 64]}, 'option_invalid', id='tiles'),
    pytest.param({'model': 'other'}, 'model_not_allowed', id='model'),
])
def test_what_pages_never_send_is_refused_before_the_picture_is_read(service, nuclei, options, code, monkeypatch):
    monkeypatch.setattr(service_module, 'read_picture', lambda *_: pytest.fail('it was read'))
    assert refusal(service.segment, nuclei, **options).code == code
    assert list(service.folder.iterdir()) == []


def test_a_picture_that_would_be_blown_up_for_the_network_is_refused(many_store, tmp_path, store):
    with Service(store, Limits(network_pixels=50_000), tmp_path / 'results') as service:
        error = refusal(service.segment, np.zeros((240, 320, 3), np.uint8), min_size=400)
        assert (error.code, error.values['option']) == ('option_invalid', 'min_size')
        assert service.segment(np.zeros((240, 320, 3), np.uint8), min_size=error.values['most']) is not None


def test_more_tiles_than_are_taken_are_refused(store, tmp_path):
    with Service(store, Limits(tiles=4), tmp_path / 'results') as service:
        error = refusal(service.segment, np.zeros((400, 400, 3), np.uint8), tile=64)
        assert error.code == 'too_many_tiles' and error.values['tiles'] > 4


@pytest.mark.parametrize('shape', [(1, 1), (1, 400), (400, 1), (2, 3)])
def test_the_smallest_pictures_do_no_harm(service, shape):
    found = service.segment(np.full((*shape, 3), 90, np.uint8), score_thr=0.0)
    assert service.draw(found).shape[:2] == shape
    assert service.rows(found) is not None and service.downloads(found).masks.is_file()
    service.instance_at(found, 0, 0)


def test_a_hostile_upload_is_refused_and_the_next_visitor_is_served(service, nuclei):
    for content in (png(60_000, 60_000, b''), b'<svg onload="alert(1)"/>', encoded(nuclei)[:2000], b''):
        assert refusal(service.segment, content).code in CODES
    assert len(service.segment(nuclei, **SMALL)) > 3
    assert len(list(service.folder.iterdir())) == 1


@pytest.mark.parametrize('name, shown', [
    pytest.param('=cmd|calc.png', '=cmd|calc.png', id='formula'),
    pytest.param('<img src=x onerror=alert(1)>.png', '<img src=x onerror=alert(1)>.png', id='script'),
    pytest.param('a\nb\x1b[31m\u202e.png', 'ab[31m.png', id='control characters'),
    pytest.param('..\\..\\boot.png', 'boot.png', id='a path of another system'),
    pytest.param('细胞.png', '细胞.png', id='Chinese'),
])
def test_a_name_is_shown_and_nothing_else(service, nuclei, tmp_path, name, shown):
    file = tmp_path / name
    file.write_bytes(encoded(nuclei))
    found = service.segment(file, **SMALL)
    assert found.file_name == shown
    files = service.downloads(found)
    assert json.loads(files.json.read_text('utf-8'))['images'][0]['file_name'] == shown
    inside = sorted(path.relative_to(found.folder).parts[-1] for path in found.folder.rglob('*') if path.is_file())
    assert inside == ['instances.json', 'masks.zip', 'overlay.png', 'picture.npy']


def test_the_table(found):
    rows = service_module.rows(found)
    assert [row[0] for row in rows] == list(range(1, len(found) + 1))
    number, label, score, area, box = rows[0]
    assert (label, score) == ('nucleus', round(found.result['scores'][0], 3))
    left, top, right, bottom = map(int, box.split(', '))
    assert area <= (right - left) * (bottom - top) and area == found.areas()[0]
    assert [left, top, right, bottom] == found.result['boxes'][0]


def test_a_click_finds_the_instance_whose_pixel_it_is(service, found):
    from modelscope_fastinst.results.rle import decode
    masks = decode(found.result['masks'])
    areas = masks.sum((1, 2))
    chance = np.random.default_rng(0)
    for y, x in zip(chance.integers(0, 240, 200).tolist(), chance.integers(0, 320, 200).tolist(), strict=True):
        there = np.flatnonzero(masks[:, y, x])
        expected = None if not len(there) else int(there[np.argmin(areas[there])])
        assert service.instance_at(found, x + 0.5, y + 0.5) == expected
    assert {service.instance_at(found, *place) for place in (
        (-1, 5), (320, 5), (5, 240), (float('nan'), 5), (None, 5), ('x', 5), (float('inf'), 0))} == {None}


def test_of_instances_that_overlap_a_click_finds_the_smaller(found):
    from modelscope_fastinst.results.rle import encode
    masks = np.zeros((2, 240, 320), np.uint8)
    masks[0, 10:100, 10:100] = masks[1, 40:60, 40:60] = 1
    nested = replace(found, result={'scores': [0.9, 0.8], 'labels': ['nucleus'] * 2, 'masks': encode(masks),
                                    'boxes': [[10.0, 10.0, 100.0, 100.0], [40.0, 40.0, 60.0, 60.0]]})
    assert service_module.instance_at(nested, 50, 50) == 1
    assert service_module.instance_at(nested, 20, 99) == 0
    assert service_module.instance_at(nested, 99, 20) == 0
    assert service_module.instance_at(nested, 100, 20) is None


@pytest.mark.parametrize('look', [
    pytest.param(Look(), id='default'),
    pytest.param(Look('class', 0.2, outline=False, boxes_drawn=True, tags=False), id='another'),
])
def test_overlays(service, found, look):
    plain, marked = service.draw(found, look), service.draw(found, look, highlight=0)
    assert plain.dtype == np.uint8 and plain.shape == marked.shape == (240, 320, 3)
    assert (plain != found.image).any() and (plain != marked).any()
    assert service.draw(found, look, longest=160).shape == (120, 160, 3)
    assert service.draw(found, look, longest=9999).shape == (240, 320, 3)
    assert (service.draw(found, look, highlight=99) == plain).all()


def test_downloads_hold_the_result(service, found):
    from PIL import Image
    from pycocotools.coco import COCO
    files = service.downloads(found)
    np.testing.assert_array_equal(np.asarray(Image.open(files.overlay)), service.draw(found))
    content = json.loads(files.json.read_text('utf-8'))
    assert content['categories'] == [{'id': 1, 'name': 'nucleus'}]
    assert [one['score'] for one in content['annotations']] == found.result['scores']
    coco = COCO()
    coco.dataset = content
    coco.createIndex()
    with zipfile.ZipFile(files.masks) as archive:
        names = archive.namelist()
        assert names == [f'mask_{number:04d}.png' for number in range(1, len(found) + 1)]
        for annotation, name, box in zip(content['annotations'], names, found.result['boxes'], strict=True):
            mask = coco.annToMask(annotation)
            assert annotation['area'] == mask.sum() and annotation['image_id'] == 1
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            left, top, width, height = annotation['bbox']
            assert [left, top, left + width, top + height] == box
            assert (left, top, width, height) == (columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1)
            with archive.open(name) as file:
                np.testing.assert_array_equal(np.asarray(Image.open(file)), mask != 0)


def test_downloads_of_other_options_are_other_files(service, found):
    before = service.downloads(found)
    assert service.downloads(found) == before
    fewer = service.filtered(found, max_instances=2)
    after = service.downloads(fewer, Look(tags=False))
    assert after.json.parent != before.json.parent
    assert len(json.loads(after.json.read_text('utf-8'))['annotations']) == 2
    assert len(json.loads(before.json.read_text('utf-8'))['annotations']) == len(found)


def test_class_names_are_plain_text_everywhere(found):
    from modelscope_fastinst.studio.downloads import coco_json, json_content
    names = ('=1+1', '<script>alert("1")</script>', '"; DROP', '\ud800half', 'nucleus')
    strange = replace(found, classes=names, result={**found.result, 'labels': [names[index % 5]
                                                                               for index in range(len(found))]})
    assert [row[1] for row in service_module.rows(strange)][:3] == list(names[:3])
    content = json.loads(json_content(strange))
    assert content == coco_json(strange)
    assert [one['category_id'] for one in content['annotations']][:5] == [1, 2, 3, 4, 5]


def test_an_unexpected_error_is_logged_with_an_id_and_the_visitor_sees_the_id(service, found, monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError('secret of the server')

    monkeypatch.setattr(service_module, 'draw', broken)
    with caplog.at_level(logging.ERROR):
        error = refusal(service.draw, found)
    assert error.code == 'internal' and set(error.values) == {'id'}
    assert 'secret' not in str(error) and error.__cause__ is None and error.__suppress_context__
    assert error.values['id'] in caplog.text and 'secret of the server' in caplog.text


@pytest.mark.parametrize('error, code', [
    (MemoryError(), 'out_of_memory'),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"), 'out_of_memory'),
    (RuntimeError('CUDA out of memory.'), 'out_of_memory'),
    (OSError(28, 'No space left on device'), 'disk_full'),
    (OSError(5, 'Input/output error'), 'internal'),
    (Refused('expired'), 'expired'),
])
def test_errors_become_codes(error, code):
    assert as_refusal(error).code == code


def test_a_refusal_says_what_its_code_says():
    with pytest.raises(TypeError):
        Refused('busy')


def test_an_error_leaves_no_picture_behind(service, nuclei, monkeypatch):
    from modelscope_fastinst.plugin import stages
    monkeypatch.setattr(stages, 'run_network', lambda *_, **__: 1 / 0)
    assert refusal(service.segment, nuclei).code == 'internal'
    assert list(service.folder.iterdir()) == []


def test_a_result_that_was_removed_is_told_and_one_that_is_kept_stays(service, found, nuclei):
    other = service.segment(nuclei, **SMALL)
    service.forget(found)
    for function in (service.draw, service.downloads, lambda one: service.filtered(one, score_thr=0.1)):
        assert refusal(function, found).code == 'expired'
    assert service.draw(other).shape == (240, 320, 3)


def test_results_go_by_themselves(store, tmp_path, nuclei):
    with Service(store, Limits(visit_seconds=0.3), tmp_path / 'results') as service:
        service.segment(nuclei, **SMALL)
        end = time.monotonic() + 20
        while list(service.folder.iterdir()) or service._runs:
            assert time.monotonic() < end
            time.sleep(0.02)


def test_outputs_of_the_network_are_kept_within_a_limit(store, tmp_path, nuclei):
    with Service(store, folder=tmp_path / 'a') as service:
        service.segment(nuclei, **SMALL)
        size = next(iter(service._runs.values())).nbytes
    with Service(store, Limits(kept_bytes=2 * size), tmp_path / 'b') as service:
        made = [service.segment(nuclei, **SMALL) for _ in range(3)]
        assert [key[0] for key in service._runs] == [one.folder.name for one in made[1:]]


def test_closing_removes_everything(store, nuclei):
    with Service(store) as service:
        service.segment(nuclei, **SMALL)
        folder = service.folder
        assert len(list(folder.iterdir())) == 1
    assert not folder.exists()


def test_a_folder_of_the_callers_own_stays(store, nuclei, tmp_path):
    (tmp_path / 'notes.txt').write_text('mine')
    with Service(store, folder=tmp_path) as service:
        service.segment(nuclei, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ['notes.txt']


def test_examples_are_drawn_for_the_model(service, many_store, tmp_path):
    files = service.examples()
    assert [file.name for file in files] == ['nuclei_few.png', 'nuclei_many.png', 'nuclei_crowded.png']
    counts = [len(service.segment(file, min_size=160)) for file in files]
    assert counts[0] > 5 and counts == sorted(counts)
    assert service.examples() == files


@pytest.mark.parametrize('classes, kinds', [
    (['star', 'ring', 'else'], {'shapes'}),
    (['star', 'stripes'], {'patterns'}),
    (['Nuclei', 'star'], {'nuclei', 'shapes'}),
    (['person'], {'nuclei', 'shapes'}),
])
def test_examples_fit_the_classes(classes, kinds):
    from modelscope_fastinst.studio.examples import drawn_examples
    drawn = drawn_examples(classes)
    assert {name.split('_')[0] for name in drawn} == kinds
    last = list(drawn.values())[-1]()
    assert last.dtype == np.uint8 and last.ndim == 3


@pytest.mark.parametrize('limits', [{'pixels': 0}, {'queue': -1}, {'parallel': True}, {'short_side': (0, 5)}])
def test_limits_are_positive(limits):
    with pytest.raises(ValueError, match=next(iter(limits))):
        Limits(**limits)
