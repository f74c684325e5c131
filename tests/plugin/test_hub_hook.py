"""What ModelScope's own functions do with an id while we are active: ours from the cache, others' as ever."""
from __future__ import annotations

import importlib
import inspect
import sys
from copy import copy
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder
from importlib.util import spec_from_file_location
from types import ModuleType

import pytest
from modelscope.utils.automodel_utils import _is_model_from_trusted_source

import modelscope_fastinst
from modelscope_fastinst.plugin import hub_hook
from modelscope_fastinst.plugin.hub import HubError, model_directory
from tests.plugin.hub_client import client_of, write_model
from tests.plugin.loopback_hub import serve

OURS, OTHER, NAMED_LIKE_OURS = 'owner/ours', 'owner/other', 'owner/fastinst-by-name'
NAMES = [(module, name) for module, names in hub_hook.WRAPPED_NAMES.items() for name in names]


@pytest.fixture(autouse=True)
def active_afterwards():
    for module in hub_hook.WRAPPED_NAMES:
        importlib.import_module(module)
    _is_model_from_trusted_source.cache_clear()
    yield
    modelscope_fastinst.activate()


@pytest.fixture
def hub(tmp_path):
    write_model(tmp_path / 'hub' / OURS)
    for model in (OTHER, NAMED_LIKE_OURS):
        write_model(tmp_path / 'hub' / model, kind='something-else')
    with serve(tmp_path / 'hub') as hub, client_of(hub, tmp_path / 'cache'):
        yield hub


def function(module, name):
    return getattr(sys.modules[module], name)


@pytest.mark.parametrize('module, name', NAMES)
def test_every_name_that_we_rely_upon_is_there_and_is_given_back(module, name):
    wrapped = function(module, name)
    original = inspect.unwrap(wrapped)
    assert wrapped is not original
    assert original.__module__.startswith('modelscope.') and original.__name__ == name
    assert inspect.signature(wrapped) == inspect.signature(original)
    modelscope_fastinst.deactivate()
    assert function(module, name) is original
    modelscope_fastinst.deactivate()
    assert function(module, name) is original
    modelscope_fastinst.activate()
    modelscope_fastinst.activate()
    assert inspect.unwrap(function(module, name)) is function(module, name)._fastinst_original is original


@pytest.mark.parametrize('contents', [
    pytest.param({}, id='no such name'),
    pytest.param({'snapshot_download': lambda repo, version=None: None}, id='other parameters'),
    pytest.param({'snapshot_download': 'a text'}, id='no function'),
])
def test_another_modelscope_is_a_clear_error(contents):
    module = ModuleType('modelscope.preprocessors.base')
    vars(module).update(contents)
    with pytest.raises(RuntimeError, match=r'^modelscope 1\.\S+ has no modelscope.preprocessors.base.snapshot_download'
                                           r'\(model_id, revision\) as known to .*; install modelscope==1.40.2, or a'):
        hub_hook._wrap_names(module)


@pytest.fixture
def module_to_import(tmp_path, monkeypatch):
    """The name of a module that nobody imported yet, and that we wrap."""
    (tmp_path / 'imported_later.py').write_text('def read_config(model_id_or_path, revision=None):\n'
                                                '    return model_id_or_path\n')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(hub_hook.WRAPPED_NAMES, 'imported_later', {'read_config': ('model_id_or_path', 'revision')})
    yield 'imported_later'
    sys.modules.pop('imported_later', None)


def test_a_module_that_is_imported_later_is_wrapped_then(hub, module_to_import):
    module = importlib.import_module(module_to_import)
    folder = model_directory(OURS)
    assert module.read_config(OURS) == module.read_config(revision='master', model_id_or_path=OURS) == folder
    assert module.read_config(OTHER) == OTHER and module.read_config(None) is None
    # everything else about the module is as Python made it
    assert type(module.__loader__) is type(module.__spec__.loader) is type(hub_hook.__loader__)
    assert 'return model_id_or_path' in inspect.getsource(module)
    modelscope_fastinst.deactivate()
    assert module.read_config(OURS) == OURS


def test_a_module_that_another_importer_finds_is_wrapped_too(module_to_import, monkeypatch):
    class Importer(MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            return spec_from_file_location(name, self.file) if name == module_to_import else None

    importer = Importer()
    importer.file = PathFinder.find_spec(module_to_import).origin
    monkeypatch.setattr(sys, 'path', [folder for folder in sys.path if not importer.file.startswith(folder)])
    monkeypatch.setattr(sys, 'meta_path', [*sys.meta_path, importer])
    assert hasattr(importlib.import_module(module_to_import).read_config, '_fastinst_original')


def test_a_module_that_is_imported_after_deactivate_is_left_alone(module_to_import):
    modelscope_fastinst.deactivate()
    assert not hasattr(importlib.import_module(module_to_import).read_config, '_fastinst_original')


@pytest.mark.parametrize('module, name', NAMES)
def test_ours_is_its_folder_without_a_question(hub, module, name):
    folder = model_directory(OURS)
    hub.requests.clear()
    result = function(module, name)(OURS, 'master')
    assert hub.requests == []
    assert {'is_model_from_trusted_source': result is False, 'is_official_hub_path': result is True,
            'read_config': getattr(result, 'filename', None) == f'{folder}/configuration.json',
            'normalize_model_input': result == folder, 'snapshot_download': result == folder}[name]
    modelscope_fastinst.deactivate()
    if name != 'read_config':   # ModelScope, too, takes a configuration that is in the cache
        function(module, name)(OURS, 'master')
        assert hub.requests != []


def outcome(module, name, model, hub):
    """Result, or type and text of the error, and the questions to the hub."""
    hub.requests.clear()
    _is_model_from_trusted_source.cache_clear()
    try:
        result = function(module, name)(model, 'master')
    except Exception as error:
        result = type(error), str(error)
    return str(getattr(result, '_cfg_dict', result)), sorted(hub.requests)


ONE_ID_ONLY = ('read_config', 'is_model_from_trusted_source', 'snapshot_download')   # ModelScope gives them no list
OTHERS = [pytest.param(module, name, model, id=f'{module.removeprefix("modelscope.")}.{name}, {title}')
          for module, name in NAMES
          for title, model in (('id', OTHER), ('id that the hub has not', 'owner/nothing'), ('ids', [OTHER]),
                               ('folder', 'folder'))
          if not (title == 'ids' and name in ONE_ID_ONLY or title == 'folder' and name == 'snapshot_download')]


@pytest.mark.parametrize('module, name, model', OTHERS)
def test_models_of_others_are_asked_for_as_without_us(hub, tmp_path, module, name, model):
    if model == 'folder':
        model = str(write_model(tmp_path / 'folder', kind='something-else'))
    with client_of(hub, tmp_path / 'cache with us'):
        ours = outcome(module, name, copy(model), hub)
    modelscope_fastinst.deactivate()
    with client_of(hub, tmp_path / 'cache without'):
        theirs = outcome(module, name, copy(model), hub)
    assert ours[1] == theirs[1]
    assert ours[0].replace('cache with us', 'cache without') == theirs[0]


def test_a_model_of_others_in_the_cache_is_still_asked_for(hub):
    folder = model_directory(OTHER)
    hub.requests.clear()
    assert function('modelscope.pipelines.builder', 'normalize_model_input')(OTHER, 'master') == folder
    assert hub.requests != []


def test_a_model_of_others_that_is_named_like_ours_is_left_to_modelscope(hub):
    assert function('modelscope.pipelines.builder', 'is_official_hub_path')(NAMED_LIKE_OURS, 'master') is True
    config = function('modelscope.pipelines.builder', 'read_config')(NAMED_LIKE_OURS, 'master')
    assert config.model.type == 'something-else'


def test_ours_is_downloaded_and_verified_as_soon_as_its_configuration_is_known(hub):
    assert function('modelscope.pipelines.builder', 'read_config')(OURS, 'master').model.type == 'fastinst'
    assert not [request for request in hub.requests if 'pytorch_model.pt' in request]
    folder = function('modelscope.pipelines.builder', 'normalize_model_input')(OURS, 'master')
    hub.requests.clear()
    assert model_directory(OURS) == folder and hub.requests == []


def test_without_network_others_keep_their_exception_and_learn_what_to_do(hub, tmp_path, monkeypatch):
    monkeypatch.setattr('modelscope_hub._openapi.API_MAX_RETRIES', 1)   # its patience is a quarter of a minute
    ask = function('modelscope.pipelines.builder', 'is_official_hub_path')
    with serve(tmp_path) as gone:
        pass
    with client_of(gone, tmp_path / 'cache'):
        with pytest.raises(ValueError, match=(
                r'^invalid model repo path .*; owner/other is not in the cache and the hub cannot be reached: run '
                r'"modelscope download --model owner/other --local_dir other"')) as told:
            ask(OTHER, 'master')
        assert type(told.value) is ValueError
        with pytest.raises(HubError, match=f'^{NAMED_LIKE_OURS} .* is no folder here and not complete in the cache'):
            ask(NAMED_LIKE_OURS, 'master')
