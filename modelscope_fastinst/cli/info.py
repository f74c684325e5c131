"""``info``: what a model is, where it lies, and which versions of everything are at work."""
from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from modelscope_fastinst.cli.run import CommandError

PACKAGES = ('modelscope-fastinst', 'modelscope', 'torch', 'torchvision', 'numpy', 'scipy', 'pycocotools', 'Pillow',
            'opencv-python-headless')


def info(args: argparse.Namespace) -> int:
    """Prints a description of a model folder or configuration, and the versions.

    Raises:
        CommandError: no such folder or file.
        ValueError: a configuration that describes no FastInst.
    """
    where, configuration = read(args.model)
    rows = [*describe(where, configuration), ('', ''), *versions()]
    for name, value in rows:
        print(f'{name:<24}{value}'.rstrip())
    return 0


def read(model: str | None) -> tuple[str, dict[str, Any]]:
    """The path and the content of the configuration behind a folder, a file, or None for the embedded model.

    Raises:
        CommandError: no such folder or file.
        ValueError: not JSON, or not a model's configuration.
    """
    from modelscope_fastinst import default_model
    from modelscope_fastinst.plugin.configuration import read_configuration, read_configuration_file
    where = default_model() if model is None else model
    if os.path.isdir(where):
        return where, read_configuration(where)
    if not os.path.isfile(where):
        raise CommandError(f'{where}: no such model folder or configuration file')
    return where, read_configuration_file(where)


def describe(where: str, configuration: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and value of everything worth knowing about a model."""
    from modelscope_fastinst.data.augment import InferenceTransform
    from modelscope_fastinst.models.fastinst import build_fastinst
    from modelscope_fastinst.results.instances import InstancePostprocessor
    model = configuration['model']
    if model['type'] != 'fastinst':
        raise CommandError(f'{where}: model.type is {model["type"]!r}, not "fastinst"')
    classes = [str(name) for name in model.get('classes') or []]
    network = build_fastinst({key: model[key] for key in ('backbone', 'encoder', 'decoder') if key in model})
    yield 'model', where
    yield 'weights', _weights(where)
    yield 'parameters', f'{sum(p.numel() for p in network.parameters()) / 1e6:.2f} million'
    yield 'backbone', f'ResNet-{(model.get("backbone") or {}).get("depth", 50)}'
    yield 'queries', str(network.num_queries)
    yield 'decoder layers', str((model.get('decoder') or {}).get('dec_layers', ''))
    yield 'classes', f'{network.num_classes}: {_shortened(classes)}' if classes else str(network.num_classes)
    size = {**vars(InferenceTransform()), **(configuration.get('preprocessor') or {})}
    yield 'network input', f'short side {size["min_size"]}, long side at most {size["max_size"]} pixels'
    result = {**vars(InstancePostprocessor()), **(configuration.get('postprocessor') or {})}
    yield 'score threshold', str(result['score_thr'])
    yield 'instances', f'at most {result["max_instances"]}'


def versions() -> Iterator[tuple[str, str]]:
    """Name and version of Python, the packages that matter, and the device."""
    yield 'Python', f'{platform.python_version()} ({platform.system()} {platform.machine()})'
    for name in PACKAGES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            yield name, 'not installed'
    import torch
    threads = torch.get_num_threads()
    yield 'device', (torch.cuda.get_device_name() if torch.cuda.is_available()
                     else f'CPU, {threads} thread{"" if threads == 1 else "s"}')


def _weights(where: str) -> str:
    if not os.path.isdir(where):
        return 'none: this is a configuration'
    from modelscope_fastinst.checkpoints.reading import WEIGHT_FILES
    for name in WEIGHT_FILES:
        path = os.path.join(where, name)
        if os.path.isfile(path):
            return f'{name}, {os.path.getsize(path) / 1e6:.1f} MB'
    return f'none of {", ".join(WEIGHT_FILES)}'


def _shortened(names: list[str], limit: int = 8) -> str:
    more = f', ... ({len(names) - limit} more)' if len(names) > limit else ''
    return ', '.join(names[:limit]) + more
