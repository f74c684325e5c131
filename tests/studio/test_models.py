"""Which models visitors may choose, and that they are loaded once and kept."""
from __future__ import annotations

import os
import threading

import numpy as np
import pytest

from modelscope_fastinst import default_model
from modelscope_fastinst.plugin import build
from modelscope_fastinst.studio.limits import Limits
from modelscope_fastinst.studio.messages import Refused
from modelscope_fastinst.studio.models import ModelStore


@pytest.fixture
def loads(monkeypatch):
    """Folder names of what was loaded, in this order; fails if two are loaded at a time."""
    loaded, busy, original = [], threading.Lock(), build.build_segmenter

    def counting(model, *args, **options):
        assert busy.acquire(blocking=False), 'two models are loaded at a time'
        try:
            loaded.append(os.path.basename(model))
            return original(model, *args, **options)
        finally:
            busy.release()

    monkeypatch.setattr(build, 'build_segmenter', counting)
    return loaded


def refusal(function, *args) -> Refused:
    with pytest.raises(Refused) as refused:
        function(*args)
    return refused.value


@pytest.fixture
def broken(tmp_path):
    folder = tmp_path / 'broken'
    folder.mkdir()
    (folder / 'configuration.json').write_text('{"task": "image-segmentation", "model": {"type": "fastinst"}}', 'utf-8')
    return folder


def test_the_embedded_model_is_the_default_and_says_what_it_is(store):
    model = store.get()
    assert store.choices == ('embedded',) and store.default == model.name == 'embedded'
    assert (model.classes, model.task, model.tasks) == (('nucleus',), 'instance', ('instance',))
    assert model.defaults == {'score_thr': 0.7, 'max_instances': 144, 'min_size': 288, 'max_size': 576}
    assert store.get('') is store.get('embedded') is model


def test_a_panoptic_model_offers_its_tasks(many_store):
    model = many_store.get(many_store.choices[1])
    assert model.tasks == ('panoptic', 'instance', 'semantic') and len(model.things) == 4


def test_eight_visitors_load_two_models_once_each_and_one_at_a_time(many_classes, panoptic, loads):
    store = ModelStore(str(many_classes), 'cpu', [str(panoptic)])
    got, start = [], threading.Barrier(8)

    def visitor(number):
        start.wait(20)
        got.append(store.get(store.choices[number % 2]))

    threads = [threading.Thread(target=visitor, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(loads) == ['many', 'panoptic']
    assert len(got) == 8 and len({id(model) for model in got}) == 2


def test_the_longest_unused_goes_but_never_the_default(many_classes, panoptic, loads):
    store = ModelStore(str(many_classes), 'cpu', [str(panoptic), default_model()], limits=Limits(models=2))
    for name in ('many', 'panoptic', 'panoptic', 'default', 'default', 'many', 'panoptic'):
        assert store.get(name).name == name
    assert loads == ['many', 'panoptic', 'default', 'panoptic']


def test_a_model_that_cannot_be_loaded_takes_the_place_of_none(many_classes, broken, loads):
    store = ModelStore(str(many_classes), 'cpu', [str(broken)], limits=Limits(models=1))
    warm = store.get()
    error = refusal(store.get, 'broken')
    assert error.code == 'model_failed'
    assert error.values == {'name': 'broken', 'reason': ''}   # strangers hear nothing of the server's folders
    assert store.get() is warm
    assert loads == ['many', 'broken']


@pytest.mark.parametrize('choice', [
    pytest.param('/etc', id='folder'),
    pytest.param('../../secret', id='path'),
    pytest.param('somebody/model', id='hub id'),
    pytest.param('<script>alert(1)</script>', id='script'),
    pytest.param('x\0y', id='zero byte'),
    pytest.param('m' * 10_000, id='long'),
])
def test_what_is_not_offered_is_not_looked_at(store, choice, loads, monkeypatch):
    monkeypatch.setattr(os.path, 'isdir', lambda path: pytest.fail(f'{path} was looked at'))
    assert refusal(store.get, choice).code == 'model_not_allowed'
    assert loads == []


def test_where_any_model_may_be_named_a_folder_is_loaded_once_under_all_its_names(many_classes, tmp_path, loads):
    store = ModelStore(device='cpu', any_model=True)
    link = tmp_path / 'link'
    link.symlink_to(many_classes, target_is_directory=True)
    first = store.get(str(many_classes))
    assert store.get(f'{many_classes}{os.sep}.') is first
    assert store.get(f' {link} ') is first
    assert loads == ['many']


@pytest.mark.parametrize('choice', ['no/such/folder', 'nothing', 'x\0y', 'http://localhost/model', 7])
def test_where_any_model_may_be_named_it_must_be_one(choice):
    assert refusal(ModelStore(device='cpu', any_model=True).get, choice).code == 'model_unknown'


def test_where_any_model_may_be_named_a_failure_says_why(broken):
    error = refusal(ModelStore(device='cpu', any_model=True).get, str(broken))
    assert error.code == 'model_failed' and error.values['reason'] and '\n' not in error.values['reason']


def test_a_reason_is_one_line_and_its_advice_is_not_cut_off(broken, monkeypatch):
    from modelscope_fastinst.plugin import build
    told = f'the model cannot be had:\n{"because " * 40}; run this'
    monkeypatch.setattr(build, 'build_segmenter', lambda *_: (_ for _ in ()).throw(ValueError(told)))
    reason = refusal(ModelStore(device='cpu', any_model=True).get, str(broken)).values['reason']
    assert reason == ' '.join(told.split())


def test_names_tell_nothing_of_the_servers_folders(tmp_path):
    store = ModelStore('owner/model', 'cpu', [str(tmp_path / 'a' / 'nuclei'), str(tmp_path / 'b' / 'nuclei')])
    assert store.choices == ('owner/model', 'nuclei', 'nuclei (2)')


def test_a_warm_model_is_had_while_another_one_is_loading(many_classes, panoptic, monkeypatch):
    store = ModelStore(str(many_classes), 'cpu', [str(panoptic)])
    warm = store.warm()
    loading, go, original = threading.Event(), threading.Event(), build.build_segmenter

    def slow(*args, **options):
        loading.set()
        assert go.wait(20)
        return original(*args, **options)

    monkeypatch.setattr(build, 'build_segmenter', slow)
    thread = threading.Thread(target=store.get, args=('panoptic',))
    thread.start()
    assert loading.wait(20)
    assert store.get() is warm
    go.set()
    thread.join(60)
    assert store.get('panoptic').task == 'panoptic'


def test_warm_means_that_it_has_run(many_classes, monkeypatch):
    from modelscope_fastinst.plugin.pipeline import FastInstPipeline
    seen, original = [], FastInstPipeline.forward
    monkeypatch.setattr(FastInstPipeline, 'forward', lambda *args, **more: seen.append(1) or original(*args, **more))
    model = ModelStore(str(many_classes), 'cpu').warm()
    assert seen == [1]
    assert model.segment(np.zeros((40, 50, 3), np.uint8))['scores'] is not None
