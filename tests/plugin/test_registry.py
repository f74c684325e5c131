"""Taking names over from ModelScope and giving them back."""
from __future__ import annotations

import importlib
import subprocess
import sys

import pytest
from modelscope.utils.import_utils import LazyImportModule

import modelscope_fastinst
from modelscope_fastinst.plugin import registry

BUILTIN = ('MODELS', 'image-segmentation', 'fastinst')


@pytest.fixture(autouse=True)
def active_afterwards():
    yield
    modelscope_fastinst.activate()


def snapshot():
    index = LazyImportModule.get_ast_index()
    return dict(index['index']), dict(index['requirements'])


@pytest.mark.parametrize('name', [pytest.param(name, id='-'.join(name.signature)) for name in registry.NAMES])
def test_name_is_registered_by_its_module(name):
    importlib.import_module(name.module)
    module, attribute = registry._REGISTRIES[name.registry]
    registered = getattr(importlib.import_module(module), attribute).get(name.name, name.group)
    assert registered.__module__ == name.module
    assert LazyImportModule.get_ast_index()['index'][name.signature]['module'] == name.module


def test_activate_twice_is_activate_once():
    before = snapshot()
    modelscope_fastinst.activate()
    assert snapshot() == before


def test_deactivate_brings_the_builtin_back():
    modelscope_fastinst.deactivate()
    entry = LazyImportModule.get_ast_index()['index'][BUILTIN]
    assert entry['module'].startswith('modelscope.models.')
    assert not any('fastinst-' in name for _, _, name in LazyImportModule.get_ast_index()['index'])
    assert not registry.is_active()
    once = snapshot()
    modelscope_fastinst.deactivate()
    assert snapshot() == once


def test_our_classes_leave_and_return_with_the_names():
    from modelscope.models.builder import MODELS

    from modelscope_fastinst.plugin.model import FastInstModel
    modelscope_fastinst.deactivate()
    assert MODELS.get('fastinst', 'image-segmentation') is None
    modelscope_fastinst.activate()
    assert MODELS.get('fastinst', 'image-segmentation') is FastInstModel


def test_a_class_registered_before_us_is_given_back():
    from modelscope.models.builder import MODELS

    from modelscope_fastinst.plugin.model import FastInstModel
    modelscope_fastinst.deactivate()
    theirs = type('Theirs', (), {})
    MODELS.register_module('image-segmentation', 'fastinst', theirs)
    modelscope_fastinst.activate()
    assert MODELS.get('fastinst', 'image-segmentation') is FastInstModel
    modelscope_fastinst.deactivate()
    assert MODELS.modules['image-segmentation'].pop('fastinst') is theirs


@pytest.mark.parametrize('index', [
    pytest.param({}, id='no entries'),
    pytest.param({'index': [], 'requirements': {}}, id='entries of another type'),
    pytest.param(None, id='no index'),
])
def test_unknown_modelscope_is_a_clear_error(monkeypatch, index):
    monkeypatch.setattr(LazyImportModule, 'get_ast_index', staticmethod(lambda: index))
    with pytest.raises(RuntimeError, match=r'modelscope \d.* has no module index of the form known .* install'):
        modelscope_fastinst.activate()


def test_importing_the_package_imports_nothing_heavy():
    program = '''
import sys, modelscope.utils.import_utils
before = set(sys.modules)
import modelscope_fastinst
added = {name.partition('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
heavy = ('torchvision', 'transformers', 'cv2', 'scipy', 'pycocotools', 'PIL')
print(sorted(added), [name for name in heavy if name in sys.modules])
'''
    shown = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "['modelscope_fastinst'] []"


def test_default_model_is_a_folder_with_a_configuration():
    from pathlib import Path
    assert (Path(modelscope_fastinst.default_model()) / 'configuration.json').is_file()
