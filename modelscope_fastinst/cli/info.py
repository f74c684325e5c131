"""``info``: what a model is, where it lies, and which versions of everything are at work."""
from __future__ import annotations

import argparse
import inspect
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from modelscope_fastinst.cli.run import CommandError
from modelscope_fastinst.network_names import (
    PIXEL_DECODERS,
    TITLES,
    backbone_name,
    decoder_layers,
    network_name,
    pixel_decoder,
)

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
    if revision is None and model is not None and (model in zoo.ALL_NAMES or os.path.isfile(model)):
        return model, read_configuration_file(str(zoo.find(model)))
    try:
        where = model_folder(model, revision)
    except FileNotFoundError as error:
        raise CommandError(f'{model}: is no model folder, configuration file or model id of the form owner/name, nor '
                           f'one of {zoo.names_in_short()}') from error
    return where, read_configuration(where)


def describe(where: str, configuration: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and value of everything worth knowing about a model."""
    from modelscope_fastinst.data.input_size import build_inference_transform
    from modelscope_fastinst.models.build import build_network
    from modelscope_fastinst.structures import TASKS
    model = configuration['model']
    if model['type'] not in TITLES:
        raise CommandError(f'{where}: model.type is {model["type"]!r}, not "fastinst" or "mask2former"')
    classes = [str(name) for name in model.get('classes') or []]
    import torch
    with torch.device('meta'):   # a description needs no weights
        network = build_network({key: model[key] for key in ('type', 'backbone', 'encoder', 'decoder') if key in model})
    yield 'model', where
    yield 'weights', _weights(where)
    yield from _published(where)
    task = model.get('task') or 'instance'
    yield 'network', network_name(model)
    yield 'trained for', f'{task} segmentation'
    if len(TASKS.get(task, ())) > 1:
        yield 'gives', ', '.join(TASKS[task])
    yield 'parameters', f'{sum(p.numel() for p in network.parameters()) / 1e6:.2f} million'
    yield 'backbone', backbone_name(model.get('backbone') or {})
    yield 'pixel decoder', PIXEL_DECODERS.get(pixel_decoder(model), pixel_decoder(model))
    yield 'queries', str(network.num_queries)
    yield 'decoder layers', str(decoder_layers(model))
    yield 'classes', f'{network.num_classes}: {_shortened(classes)}' if classes else str(network.num_classes)
    if task == 'panoptic':
        yield from _things_and_stuff(classes, [str(name) for name in model.get('things') or []])
    resize = build_inference_transform(**{
        key: value for key, value in (configuration.get('preprocessor') or {}).items()
        if key in inspect.signature(build_inference_transform).parameters})
    yield 'network input', _input(resize)
    yield 'GFLOPs', _gflops(network, resize)
    yield from _thresholds(TASKS.get(task, (task,)), configuration.get('postprocessor') or {})


def _published(name: str) -> Iterator[tuple[str, str]]:
    """What the authors say of one of their models."""
    from modelscope_fastinst import zoo
    if name not in zoo.ALL_NAMES:
        return
    model = zoo.published(name)
    measures = ', '.join(f'{measure} {value}' for measure, value in model.measures.items())
    yield 'published', f'{measures} (by the authors, not measured here)'
    if model.weights:
        yield 'published weights', f'{model.weights}, {zoo.licence_of_weights(model.file_name)}'


def _things_and_stuff(classes: list[str], things: list[str]) -> Iterator[tuple[str, str]]:
    """How many classes count objects, and how many do not."""
    stuff = [name for name in classes if name not in set(things)]
    for title, names in (('things', things), ('stuff', stuff)):
        yield title, f'{len(names)}: {_shortened(names)}' if names else 'none'


def _thresholds(tasks: Sequence[str], section: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What decides whether something is reported, for each of the tasks that has such a number."""
    from modelscope_fastinst.results.instances import InstancePostprocessor
    if 'panoptic' in tasks:
        yield 'object mask threshold', str(section.get('object_mask_threshold', 0.8))
        yield 'overlap threshold', str(section.get('overlap_threshold', 0.8))
    if 'instance' in tasks:
        result = {**vars(InstancePostprocessor()), **section}
        yield 'score threshold', _threshold(result['score_thr'])
        yield 'instances', f'at most {result["max_instances"]}'


def _input(resize: Any) -> str:
    """What a picture is resized to."""
    rounded = f', in multiples of {resize.multiple_of}' if getattr(resize, 'multiple_of', 1) > 1 else ''
    if getattr(resize, 'size', None):
        return '{} x {} pixels whatever the shape'.format(*resize.size) + rounded
    limit = 'any length' if resize.max_size is None else f'at most {resize.max_size} pixels'
    return f'short side {resize.min_size} pixels, long side {limit}{rounded}'


def _gflops(network: Any, resize: Any) -> str:
    from modelscope_fastinst.models.complexity import count_multiply_adds
    counts = [count_multiply_adds(network, *resize.plan(*picture).size) for picture in PICTURES]
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
