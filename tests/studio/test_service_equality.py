"""What a visitor sees equals what ``pipeline()`` gives for the same options, however the visitor came to it."""
from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from modelscope_fastinst.plugin import stages
from modelscope_fastinst.studio.limits import Limits
from modelscope_fastinst.studio.messages import Refused
from modelscope_fastinst.studio.service import Service
from tests.plugin.model_folders import scene


def wanted(service, name, picture, **options):
    """The pipeline's own answer, of options as a visitor gives them."""
    options = {option: value for option, value in options.items() if value is not None}
    return service.store.get(name).segment(picture[:, :, ::-1], mask_format='rle', **options)


def assert_equal(segmentation, expected):
    """Equal to the last bit, and the maps too."""
    for key in ('scores', 'labels', 'boxes', 'masks'):
        assert list(segmentation.result[key]) == list(expected[key]), key
    if 'segments' in expected:
        assert segmentation.result['segments'] == expected['segments']
        np.testing.assert_array_equal(segmentation.id_map(), expected['id_map'])
    if 'label_map' in expected:
        np.testing.assert_array_equal(segmentation.label_map(), expected['label_map'])


@pytest.fixture
def counted(monkeypatch):
    """How often the network ran."""
    runs = []
    original = stages.run_network
    monkeypatch.setattr(stages, 'run_network', lambda *args, **options: runs.append(1) or original(*args, **options))
    return runs


@pytest.fixture
def many(many_store, tmp_path):
    with Service(many_store, folder=tmp_path / 'results') as service:
        yield service


@pytest.fixture(scope='module')
def picture() -> np.ndarray:
    return np.ascontiguousarray(scene()[:, :, ::-1])


@pytest.mark.parametrize('options', [
    pytest.param({}, id='the defaults'),
    pytest.param({'score_thr': 0.9, 'min_size': 320, 'max_instances': 7}, id='all options'),
    pytest.param({'classes': ['nucleus']}, id='classes'),
    pytest.param({'max_instances': 0}, id='none wanted'),
])
def test_a_result_is_the_pipelines(service, nuclei, options):
    assert_equal(service.segment(nuclei, **options), wanted(service, None, nuclei, **options))


def test_every_way_of_filtering_gives_the_pipelines_result(many, picture, counted):
    name, classes = many.store.default, many.store.get().classes
    first = many.segment(picture)
    chance = random.Random(3)
    choices = list(itertools.product((None, 0.0, 0.05, 0.06, 0.1, 0.3), (None, 1, 4, 9, 150),
                                     (None, classes[:1], classes[2:6], classes[5:])))
    now = first
    differ = set()
    for score_thr, most, chosen in chance.sample(choices, 60):
        chosen = chosen and list(chosen)
        now = many.filtered(chance.choice((first, now)), score_thr=score_thr, max_instances=most, classes=chosen)
        assert_equal(now, wanted(many, name, picture, score_thr=score_thr, max_instances=most, classes=chosen))
        differ.add(tuple(now.result['scores']))
    assert len(differ) > 10
    assert len(counted) == 1


def test_classes_that_were_crowded_out_come_up_when_they_are_asked_for_alone(many, picture):
    everything = many.segment(picture, score_thr=0.0)
    alone = {name: len(many.filtered(everything, score_thr=0.0, classes=[name])) for name in everything.classes}
    among = {name: everything.result['labels'].count(name) for name in everything.classes}
    assert any(alone[name] > among[name] for name in alone)


def test_a_number_of_instances_that_changes_the_candidates_is_answered_from_the_output(store, tmp_path, nuclei):
    """With 144 instances allowed, 144 candidates are looked at; with 50, 100: a prefix would be wrong in principle."""
    with Service(store, folder=tmp_path / 'results') as service:
        every = service.segment(nuclei, score_thr=0.0, max_instances=144)
        for most in (150, 144, 120, 100, 30):
            assert_equal(service.filtered(every, score_thr=0.0, max_instances=most),
                         wanted(service, None, nuclei, score_thr=0.0, max_instances=most))


@pytest.mark.parametrize('task', ['panoptic', 'instance', 'semantic'])
def test_maps_are_filtered_as_the_pipeline_does(many, picture, task, counted):
    name = many.store.choices[1]
    classes = many.store.get(name).classes
    first = many.segment(picture, name)
    base = many.filtered(first, task=task)
    found = base
    for score_thr, chosen in ((None, None), (0.9, None), (None, classes[:3]), (0.2, classes[2:8]), (None, None)):
        options = {'score_thr': score_thr, 'classes': chosen and list(chosen)}
        found = many.filtered(found, **options)   # now narrower than before, now wider
        if task == 'semantic':
            del options['score_thr']
        assert_equal(found, wanted(many, name, picture, task=task, **options))
        if len(found):
            assert many.draw(found).shape == picture.shape
    assert len(counted) == 1


def test_without_kept_outputs_the_network_runs_again_where_it_must_and_only_there(many_store, tmp_path, picture,
                                                                                  counted):
    with Service(many_store, Limits(kept_bytes=0), tmp_path / 'results') as service:
        first = service.segment(picture, score_thr=0.0)
        higher = service.filtered(first, score_thr=0.06)
        assert len(counted) == 1
        assert_equal(higher, wanted(service, None, picture, score_thr=0.06))
        counted.clear()
        lower = service.filtered(higher, score_thr=0.0)
        assert len(counted) == 1
        assert_equal(lower, first.result)


@pytest.mark.parametrize('score_thr, most', [
    pytest.param(None, 5, id='a prefix'),
    pytest.param(0.5, 40, id='pieces of low score are missing before they are joined'),
])
def test_a_picture_in_tiles_equals_the_pipelines(service, nuclei, score_thr, most):
    first = service.segment(nuclei, tile=120, min_size=64, score_thr=0.3 if score_thr else None)
    found = service.filtered(first, score_thr=score_thr, max_instances=most)
    assert_equal(found, wanted(service, None, nuclei, tile=120, min_size=64, score_thr=score_thr, max_instances=most))
    assert 'whole' in first.seconds and 'tile' in found.options


def test_a_map_in_tiles_equals_the_pipelines(many, picture):
    name = many.store.choices[1]
    classes = list(many.store.get(name).classes)[2:6]
    first = many.segment(picture, name, task='semantic', tile=96)
    assert_equal(many.filtered(first, classes=classes),
                 wanted(many, name, picture, task='semantic', tile=96, classes=classes))


def test_a_picture_that_fits_into_one_tile_is_done_in_stages(service, nuclei):
    found = service.segment(nuclei, tile=640)
    assert 'network' in found.seconds
    assert_equal(found, wanted(service, None, nuclei, tile=640))


def test_tiles_of_a_panoptic_map_are_refused(many, picture):
    with pytest.raises(Refused) as refused:
        many.segment(picture, many.store.choices[1], tile='auto')
    assert refused.value.code == 'tile_unavailable'
