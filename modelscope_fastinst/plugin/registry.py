"""Which names of ModelScope's registries are ours, and how they are taken over and given back.

ModelScope imports the module behind a name through an index (``LazyImportModule.get_ast_index()``) that it wrote when
its wheel was built. The wheel ships an inference-only FastInst of the same names, which cannot be imported in a current
environment, and registering a name twice is an error there. So the index entry is redirected: ModelScope then imports
our module instead of its own, when the name is first asked for. No network of ours is imported before that.

The index is private to ModelScope; everything that touches it is in this file, and its absence is a clear error.
"""
from __future__ import annotations

import sys
from dataclasses import dataclass
from threading import RLock
from typing import Any

from . import hub_hook

TASK = 'image-segmentation'

# Where ModelScope keeps the registry of each kind. They are looked up only if ModelScope has already imported them.
_REGISTRIES = {
    'MODELS': ('modelscope.models.builder', 'MODELS'),
    'PIPELINES': ('modelscope.pipelines.builder', 'PIPELINES'),
    'PREPROCESSORS': ('modelscope.preprocessors.builder', 'PREPROCESSORS'),
    'TRAINERS': ('modelscope.trainers.builder', 'TRAINERS'),
    'METRICS': ('modelscope.metrics.builder', 'METRICS'),
    'CUSTOM_DATASETS': ('modelscope.msdatasets.dataset_cls.custom_datasets.builder', 'CUSTOM_DATASETS'),
}


@dataclass(frozen=True)
class Name:
    """A name of ours in one of ModelScope's registries, and the module whose import registers it."""
    registry: str
    group: str
    name: str
    module: str

    @property
    def signature(self) -> tuple[str, str, str]:
        """The key under which ModelScope's index and registries know the name."""
        return self.registry, self.group, self.name


def _name(registry: str, group: str, name: str, room: str) -> Name:
    return Name(registry, group, name, f'modelscope_fastinst.plugin.{room}')


NAMES = (
    _name('MODELS', TASK, 'fastinst', 'model'),
    _name('MODELS', TASK, 'mask2former', 'model'),
    _name('PIPELINES', TASK, 'fast-instance-segmentation', 'pipeline'),
    _name('PIPELINES', TASK, 'mask2former-image-segmentation', 'pipeline'),
    _name('PREPROCESSORS', 'cv', 'fastinst-preprocessor', 'preprocessor'),
    _name('TRAINERS', 'default', 'fastinst-trainer', 'trainer'),
    _name('METRICS', 'default', 'fastinst-coco-metric', 'metric'),
    _name('METRICS', 'default', 'fastinst-panoptic-metric', 'metric_panoptic'),
    _name('METRICS', 'default', 'fastinst-semantic-metric', 'metric_semantic'),
    _name('CUSTOM_DATASETS', TASK, 'fastinst', 'dataset'),
    _name('CUSTOM_DATASETS', TASK, 'mask2former', 'dataset'),
)

_lock = RLock()
_replaced_entries: dict[tuple, Any] = {}   # index entries that were there before us; None where there was none
_replaced_classes: dict[tuple, Any] = {}   # classes that ModelScope had registered before us
_our_classes: dict[tuple, Any] = {}        # our classes, taken out of the registries by deactivate()


def _index() -> dict[str, Any]:
    """ModelScope's process-wide index: ``{'index': {signature: entry}, 'requirements': {module: [packages]}}``."""
    import modelscope  # noqa: F401  # that it cannot be imported is an error of its own
    try:
        from modelscope.utils.import_utils import LazyImportModule
        index = LazyImportModule.get_ast_index()
        if not isinstance(index['index'], dict) or not isinstance(index['requirements'], dict):
            raise TypeError('index and requirements are not dictionaries')
    except (ImportError, AttributeError, KeyError, TypeError) as error:
        raise RuntimeError(
            f'modelscope {_modelscope_version()} has no module index of the form known to modelscope_fastinst '
            f'({type(error).__name__}: {error}); install modelscope==1.40.2, or a newer modelscope_fastinst') from error
    return index


def _modelscope_version() -> str:
    from importlib.metadata import PackageNotFoundError, version
    try:
        return version('modelscope')
    except PackageNotFoundError:
        return '(not installed)'


def _group(name: Name, create: bool = False) -> dict[str, Any] | None:
    """The registry's classes of the name's group, by name; None while ModelScope has not imported the registry."""
    module, attribute = _REGISTRIES[name.registry]
    if module not in sys.modules:
        return None
    modules = getattr(sys.modules[module], attribute).modules
    return modules.setdefault(name.group, {}) if create else modules.get(name.group)


def activate() -> None:
    """Redirects our names in ModelScope's index to this package; done by ``import modelscope_fastinst``. Idempotent.

    A class that ModelScope had already registered under one of the names stays usable for whoever holds it, but new
    builds give ours. ``deactivate()`` brings back what was there. With the names, the ids of FastInst models are led to
    their folders in the cache, see ``plugin.hub_hook``.

    Raises:
        RuntimeError: this ModelScope has no index of the known form (another version).
    """
    with _lock:
        index = _index()
        hub_hook.install()
        for name in NAMES:
            if _is_ours(index['index'].get(name.signature)):
                continue
            _replaced_entries[name.signature] = index['index'].get(name.signature)
            index['index'][name.signature] = {'filepath': '', 'imports': ['torch'], 'module': name.module}
            index['requirements'][name.module] = ['torch']
            group = _group(name)
            if group and name.name in group:
                _replaced_classes[name.signature] = group[name.name]
            if name.signature in _our_classes:
                _group(name, create=True)[name.name] = _our_classes.pop(name.signature)


def deactivate() -> None:
    """Gives the names back: the index and the registries hold what they held before ``activate()``. Idempotent.

    Models and pipelines that were built keep working. After it ``pipeline()`` finds ModelScope's own FastInst again.
    """
    with _lock:
        index = _index()
        hub_hook.remove()
        for name in NAMES:
            if not _is_ours(index['index'].get(name.signature)):
                continue
            entry = _replaced_entries.pop(name.signature, None)
            if entry is None:
                del index['index'][name.signature]
            else:
                index['index'][name.signature] = entry
            index['requirements'].pop(name.module, None)
            group = _group(name)
            if group and name.name in group:
                registered = group.pop(name.name)
                if registered.__module__ == name.module:
                    _our_classes[name.signature] = registered
                else:   # the builtin, registered by somebody's direct import of its module
                    _replaced_classes[name.signature] = registered
            if name.signature in _replaced_classes:
                _group(name, create=True)[name.name] = _replaced_classes.pop(name.signature)


def is_active() -> bool:
    """Whether ModelScope finds this package under our names."""
    with _lock:
        index = _index()['index']
        return all(_is_ours(index.get(name.signature)) for name in NAMES)


def _is_ours(entry: dict[str, Any] | None) -> bool:
    return entry is not None and entry.get('module', '').startswith('modelscope_fastinst.')
