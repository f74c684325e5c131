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

# (height, width) of the two commonest sizes in COCO, for which the work is counted.
PICTURES = ((480, 640), (427, 640))


def info(args: argparse.Namespace) -> int:
    """Prints a description of a model folder or configuration, and the versions.

    Raises:
        CommandError: no such folder or file.
        ValueError: a configuration that describes no FastInst.
    """
    where, configuration = read(args.model, args.revision)
    rows = [*describe(where, configuration), ('', ''), *versions()]
    for name, value in rows:
        print(f'{name:<24}{value}'.rstrip())
    return 0


def read(model: str | None, revision: str | None = None) -> tuple[str, dict[str, Any]]:
    """The path and the content of the configuration behind a folder, a file, the name of a published model, a hub id,
    or None for the embedded model.

    Raises:
        CommandError: none of these.
        OSError: a hub id that cannot be fetched.
        ValueError: not JSON, or not a model's configuration.
    """
    from modelscope_fastinst import zoo
    from modelscope_fastinst.plugin.build import model_folder
    from modelscope_fastinst.plugin.configuration import read_configuration, read_configuration_file
    if revision is None and model is not None and (model in zoo.NAMES or os.path.isfile(model)):
        return model, read_configuration_file(str(zoo.find(model)))
    try:
        where = model_folder(model, revision)
    except FileNotFoundError as error:
        raise CommandError(f'{model}: is no model folder, configuration file or model id of the form owner/name, nor '
                           f'one of {", ".join(zoo.NAMES)}') from error
    return where, read_configuration(where)


def describe(where: str, configuration: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and value of everything worth knowing about a model."""
    from modelscope_fastinst.data.augment import InferenceTransform
    from modelscope_fastinst.models.build import build_network
    from modelscope_fastinst.results.instances import InstancePostprocessor
    model = configuration['model']
    if model['type'] not in ('fastinst', 'mask2former'):
        raise CommandError(f'{where}: model.type is {model["type"]!r}, not "fastinst"')
    classes = [str(name) for name in model.get('classes') or []]
    import torch
    with torch.device('meta'):   # a description needs no weights
        network = build_network({key: model[key] for key in ('type', 'backbone', 'encoder', 'decoder') if key in model})
    yield 'model', where
    yield 'weights', _weights(where)
    yield 'parameters', f'{sum(p.numel() for p in network.parameters()) / 1e6:.2f} million'
    yield 'backbone', backbone_name(model.get('backbone') or {})
    yield 'queries', str(network.num_queries)
    yield 'decoder layers', str((model.get('decoder') or {}).get('dec_layers', ''))
    yield 'classes', f'{network.num_classes}: {_shortened(classes)}' if classes else str(network.num_classes)
    size = {**vars(InferenceTransform()), **(configuration.get('preprocessor') or {})}
    limit = 'any length' if size['max_size'] is None else f'at most {size["max_size"]} pixels'
    yield 'network input', f'short side {size["min_size"]} pixels, long side {limit}'
    yield 'GFLOPs', _gflops(network, size['min_size'], size['max_size'])
    result = {**vars(InstancePostprocessor()), **(configuration.get('postprocessor') or {})}
    yield 'score threshold', _threshold(result['score_thr'])
    yield 'instances', f'at most {result["max_instances"]}'


def backbone_name(backbone: Mapping[str, Any]) -> str:
    """'ResNet-50', or 'ResNet-50-d with deformable stages 3 and 4'."""
    name = f'ResNet-{backbone.get("depth", 50)}' + ('-d' if backbone.get('type') == 'resnet_d' else '')
    stages = backbone.get('deform_stages') or []
    if not stages:
        return name
    kind = 'modulated deformable' if backbone.get('deform_modulated') else 'deformable'
    return f'{name} with {kind} stage{"s" * (len(stages) > 1)} {" and ".join(map(str, stages))}'


def _gflops(network: Any, min_size: int, max_size: int | None) -> str:
    from modelscope_fastinst.data.geometry import resized_size
    from modelscope_fastinst.models.complexity import count_multiply_adds
    counts = [count_multiply_adds(network, *resized_size(*picture, min_size, max_size)) for picture in PICTURES]
    return (f'{sum(counts) / len(counts) / 1e9:.1f} (billions of multiply-adds, as published; mean of a 640x480 and a '
            f'640x427 picture)')


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


def _threshold(score_thr: Any) -> str:
    """One number, or those of the classes."""
    if not isinstance(score_thr, Mapping):
        return str(score_thr)
    shown = [f'{name} {number:.4g}' for name, number in list(score_thr.items())[:6]]
    return ', '.join(shown) + (f', ... ({len(score_thr)} classes)' if len(score_thr) > 6 else '')
