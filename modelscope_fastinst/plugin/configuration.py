"""Reading, checking and writing the ``configuration.json`` of a model folder."""
from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelscope_fastinst.checkpoints.writing import write_whole

CONFIGURATION_FILE = 'configuration.json'

# What ModelScope's loaders put into a configuration while they run; a saved one must not hold it.
LOADER_KEYS = frozenset({
    'auto_collate', 'compile', 'compile_options', 'device', 'device_map', 'hub_token', 'init_backbone', 'model_dir',
    'model_prefetched', 'third_party', 'trust_remote_code'})

# What lies under this key may be named by classes, of which one may be called as a setting is.
BY_CLASS = 'score_thr'


def plain(value: Any) -> Any:
    """A deep copy made of dict, list and scalars: ModelScope's ``Config`` and ``ConfigDict`` without their magic."""
    if hasattr(value, 'to_dict'):
        value = value.to_dict()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def read_configuration(folder: str | os.PathLike) -> dict[str, Any]:
    """The configuration of a model folder, checked for what ModelScope's ``pipeline()`` cannot do without.

    A folder of Hugging Face's has one as well, see ``plugin.huggingface``.

    Raises:
        FileNotFoundError: the folder or its ``configuration.json`` is missing.
        ValueError: the file is not JSON, or lacks ``framework``, ``task``, ``pipeline.type`` or ``model.type``.
    """
    from .huggingface import folder_configuration
    derived = folder_configuration(folder)
    if derived is not None:
        return derived
    path = os.path.join(folder, CONFIGURATION_FILE)
    if not os.path.isfile(path):
        raise FileNotFoundError(f'{path}: no such file; a model folder needs a {CONFIGURATION_FILE}')
    return read_configuration_file(path)


def read_configuration_file(path: str) -> dict[str, Any]:
    """The same of a file that need not lie in a model folder.

    Raises:
        OSError: the file cannot be opened.
        ValueError: as ``read_configuration``.
    """
    try:
        with open(path, encoding='utf-8') as file:
            configuration = json.load(file)
    except ValueError as error:
        raise ValueError(f'{path}: not JSON: {error}') from error
    check_configuration(configuration, path)
    return configuration


def check_configuration(configuration: Any, where: str = CONFIGURATION_FILE) -> None:
    """Raises ValueError, naming all of them, if entries are missing that ModelScope reads without asking."""
    missing = []
    for chain in ('framework', 'task', 'pipeline.type', 'model.type'):
        value = configuration
        for key in chain.split('.'):
            value = value.get(key) if isinstance(value, Mapping) else None
        if not isinstance(value, str) or not value:
            missing.append(chain)
    if missing:
        raise ValueError(f'{where}: {", ".join(missing)} missing; a FastInst model needs "framework": "pytorch", '
                         '"task": "image-segmentation", "pipeline": {"type": "fast-instance-segmentation"}, '
                         '"model": {"type": "fastinst", ...}')


def write_configuration(folder: str | os.PathLike, configuration: Mapping[str, Any],
                        model: Mapping[str, Any]) -> None:
    """Writes a ``configuration.json`` with which ``pipeline()`` loads the weights beside it; all of it or nothing.

    Args:
        folder: exists.
        configuration: the whole configuration; missing general entries are filled in, and what loaders added in
            passing (``device``, ``model_dir``, ...) is left out.
        model: the model's own settings, which take the place of those in ``configuration['model']``.

    Raises:
        TypeError: a value cannot be written as JSON.
    """
    write_whole(Path(folder) / CONFIGURATION_FILE, configuration_content(configuration, model))


def configuration_content(configuration: Mapping[str, Any], model: Mapping[str, Any]) -> bytes:
    """The content of the file that ``write_configuration`` writes."""
    cleaned = _without_loader_keys(configuration)
    general = {'framework': 'pytorch', 'task': 'image-segmentation',
               'pipeline': {'type': 'fast-instance-segmentation'}}
    result = {**general, **cleaned, 'model': {**cleaned.get('model', {}), **plain(model), 'pretrained': True}}
    # pipeline(model=object) writes the model object itself into this section of the configuration that it shares.
    result['pipeline'] = {key: value for key, value in result['pipeline'].items() if key != 'model'}
    result['pipeline'].setdefault('type', general['pipeline']['type'])
    return (json.dumps(result, indent=4, ensure_ascii=False, default=_not_json) + '\n').encode()


def _without_loader_keys(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: item if key == BY_CLASS else _without_loader_keys(item) for key, item in value.items()
                if key not in LOADER_KEYS}
    return [_without_loader_keys(item) for item in value] if isinstance(value, list) else value


def _not_json(value: Any) -> Any:
    raise TypeError(f'{CONFIGURATION_FILE}: a {type(value).__name__} cannot be written as JSON: {value!r:.80}')
