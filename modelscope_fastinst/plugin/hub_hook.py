"""Lets ``pipeline()``, ``build_trainer()`` and ``from_pretrained()`` take our models of the hub from the cache, and
Hugging Face's folders of Mask2Former as they are.

Given a model id, these functions ask the hub several times before they look into the cache, and try again for half a
minute where there is no network. They do so through names in the namespace of their modules; given a folder, the same
functions ask nobody. So each of these names is wrapped: the id of a model of ours is replaced by its folder
(``hub.model_directory``), everything else goes to the original as it came.

A folder of Hugging Face's (``plugin.huggingface``) has no configuration that ModelScope could read. Where it reads one
(``Config.from_file``, behind all of these functions), it is given the one that is made of the folder's own files, and
where it looks for the file first, it is told that it is there.

The modules take seconds to import, so one that is not imported yet is left alone and its names are wrapped when
somebody imports it. The names are private to ModelScope; everything that touches them is in this file, and that one of
them is missing is a clear error.
"""
from __future__ import annotations

import functools
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from .folder_hook import WRAPPED_METHODS, unwrap_method, wrap_method

# What is wrapped: module, name -> its parameters that are the model and the revision.
_QUESTIONS = {
    'is_model_from_trusted_source': ('model_id', 'revision'),
    'is_official_hub_path': ('path', 'revision'),
    'read_config': ('model_id_or_path', 'revision'),
    'normalize_model_input': ('model', 'model_revision'),
}
_DOWNLOAD = {'snapshot_download': ('model_id', 'revision')}
WRAPPED_NAMES = {
    'modelscope.pipelines.builder': _QUESTIONS,
    'modelscope.trainers.builder': _QUESTIONS,
    'modelscope.models.base.base_model': {name: _QUESTIONS[name] for name in ('is_model_from_trusted_source',)}
    | _DOWNLOAD,
    'modelscope.preprocessors.base': _DOWNLOAD,
}
# An id with one of these in it is taken for one of ours before its configuration is known.
_NAMES_OF_OURS = ('fastinst', 'fast-instance-segmentation', 'mask2former')


def install() -> None:
    """Wraps the names, now or when their module is imported. Idempotent.

    Raises:
        RuntimeError: a module lacks a name, or it has other parameters (another version of ModelScope).
    """
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    for name in _modules():
        if name in sys.modules:
            _wrap_names(importlib.import_module(name))   # waits for a thread that is still importing it


def remove() -> None:
    """Gives the names back what they named. Idempotent."""
    if _FINDER in sys.meta_path:
        sys.meta_path.remove(_FINDER)
    for module in WRAPPED_NAMES:
        for name in WRAPPED_NAMES[module]:
            present = getattr(sys.modules.get(module), name, None)
            if hasattr(present, '_fastinst_original'):
                setattr(sys.modules[module], name, present._fastinst_original)
    for module in WRAPPED_METHODS:
        unwrap_method(sys.modules.get(module))


def folder_of(model: str, revision: str | None = None) -> str:
    """The folder behind the id of a model of ours; anything else as it is.

    Raises:
        HubError: a model of ours that is not in the cache cannot be downloaded.
    """
    return _fastinst_folder(model, revision) or model


def _modules() -> set[str]:
    return {*WRAPPED_NAMES, *WRAPPED_METHODS}


def _wrap_names(module: ModuleType) -> None:
    wrap_method(module)
    for name, parameters in WRAPPED_NAMES.get(module.__name__, {}).items():
        original = getattr(module, name, None)
        if hasattr(original, '_fastinst_original'):   # wrapped, or taken from a module where it was
            continue
        known = inspect.signature(original).parameters if callable(original) else {}
        if not set(parameters) <= set(known):
            from modelscope.version import __version__
            raise RuntimeError(f'modelscope {__version__} has no {module.__name__}.{name}({", ".join(parameters)}) as '
                               'known to modelscope_fastinst; install modelscope==1.40.2, or a newer '
                               'modelscope_fastinst')
        setattr(module, name, _wrapped(original, *parameters))


def _wrapped(original: Callable, model_parameter: str, revision_parameter: str) -> Callable:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind_partial(*args, **kwargs)
        model = bound.arguments.get(model_parameter)
        folder = _fastinst_folder(model, bound.arguments.get(revision_parameter))
        if original.__name__ == 'is_official_hub_path' and _is_huggingface(folder or model):
            return True
        if folder is not None:
            if original.__name__ == 'snapshot_download':
                return folder
            bound.arguments[model_parameter] = folder
            return original(*bound.args, **bound.kwargs)
        try:
            result = original(*args, **kwargs)
            if original.__name__ == 'read_config' and isinstance(model, str):
                folder = _mirror_folder(model, bound.arguments.get(revision_parameter), result)
                return result if folder is None else original(folder)
            return result
        except ValueError as error:
            if not isinstance(error.__context__, ConnectionError) or not isinstance(model, str):
                raise
            from .hub import DEFAULT_REVISION, advice
            revision = bound.arguments.get(revision_parameter) or DEFAULT_REVISION
            raise ValueError(f'{error}; {model} is not in the cache and the hub cannot be reached: '
                             f'{advice(model, revision)}') from error

    wrapper._fastinst_original = original
    return wrapper


def _fastinst_folder(model: Any, revision: str | None) -> str | None:
    """The folder behind the id of a FastInst; None for everything else.

    An id that is not in the cache is known for a FastInst's by a configuration that arrived there, or by its name; it
    is then downloaded. Others come here again when ModelScope has fetched their configuration.

    Args:
        model: whatever the wrapped function was given.
        revision: None for the default one.

    Raises:
        HubError: a FastInst that is not in the cache cannot be downloaded.
    """
    from .hub import cached_directory, is_model_id, model_directory, snapshot_folder
    if not isinstance(model, str) or not is_model_id(model):
        return None
    folder = cached_directory(model, revision)
    if folder is None and (any(name in model.lower() for name in _NAMES_OF_OURS)
                           or _is_fastinst(snapshot_folder(model, revision))):
        folder = model_directory(model, revision)
    return folder if folder is not None and _is_fastinst(folder) else None


def _is_fastinst(folder: Any) -> bool:
    """Whether the configuration in a folder names a model of ours, or it is one of Hugging Face's."""
    from pathlib import Path

    from .hub import read_json
    from .registry import NAMES
    if _is_huggingface(folder):
        return True
    configuration = read_json(Path(folder) / 'configuration.json')
    model = configuration.get('model') if isinstance(configuration, dict) else None
    kind = model.get('type') if isinstance(model, dict) else None
    return kind in {name.name for name in NAMES if name.registry == 'MODELS'}


def _is_huggingface(folder: Any) -> bool:
    """Whether this is a folder that ``plugin.huggingface`` knows."""
    if not isinstance(folder, (str, os.PathLike)) or not os.path.isfile(os.path.join(folder, 'config.json')):
        return False
    from .huggingface import is_huggingface_folder
    return is_huggingface_folder(folder)


def _mirror_folder(model: str, revision: str | None, configuration: Any) -> str | None:
    """The folder behind the id of a mirror of Hugging Face's Mask2Former; None for everything else.

    A mirror's ``configuration.json`` only says that it is for segmentation; its ``config.json`` says the rest, and is
    fetched for it.

    Args:
        configuration: what ModelScope read of that id.

    Raises:
        HubError: it is one, and cannot be downloaded.
    """
    from .configuration import plain
    from .hub import is_model_id, model_directory, read_json
    from .huggingface import CONFIG_FILE, MODEL_TYPE, is_bare
    content = plain(getattr(configuration, '_cfg_dict', None))
    if not is_model_id(model) or not is_bare(content) or 'segment' not in str(content.get('task', 'segment')).lower():
        return None
    from pathlib import Path

    from modelscope.hub.file_download import model_file_download
    from modelscope_hub.errors import HubError as ClientError
    try:
        file = model_file_download(model, CONFIG_FILE, revision=revision)
    except (ClientError, OSError, ValueError):   # it has none, so it is somebody else's
        return None
    config = read_json(Path(file))
    ours = isinstance(config, dict) and config.get('model_type') == MODEL_TYPE
    return model_directory(model, revision) if ours else None


class _Finder(MetaPathFinder):
    """Finds the modules as Python does without us, and has their names wrapped after they were executed."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname not in _modules():
            return None
        # only those behind us: one before us was asked already, and may be asking us
        others = sys.meta_path[sys.meta_path.index(self) + 1:] if self in sys.meta_path else []
        for finder in others:
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader)
                return spec
        return None


class _Loader(Loader):
    """Executes a module with the loader that it has without us, and leaves that one in its place."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        if _FINDER in sys.meta_path:   # not given back in the meantime
            _wrap_names(module)


_FINDER = _Finder()
