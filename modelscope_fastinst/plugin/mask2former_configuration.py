"""The configuration of a Mask2Former's weights that come without one of ours: read from the tensors and from the name.

The authors' files say nothing but their tensors. The network is read from these (``checkpoints.architecture``); sizes
of images and names of classes are those of the published model that has this network, this number of classes and this
task. Which task, the name of a published file says, or the number of classes, as far as it does.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelscope_fastinst import zoo
from modelscope_fastinst.checkpoints.architecture import UnknownArchitectureError, read_architecture
from modelscope_fastinst.checkpoints.formats import CheckpointError
from modelscope_fastinst.checkpoints.sources import Source

from .guessed_task import Guess, guess_task
from .huggingface import PIPELINE, describe, is_huggingface_folder

HINT = 'give --task'
_SWIN = ('type', 'embed_dim', 'depths', 'window_size')
_RESNET = ('type', 'depth')


def mask2former_configuration(source: Source, task: str | None,
                              things: Sequence[str] | None) -> tuple[dict[str, Any], list[str]]:
    """The whole configuration, and what of it is a guess.

    Args:
        source: recognised as a Mask2Former.
        task: what it was trained for, where the caller knows.
        things: the names of the classes that are things, where the caller knows.

    Raises:
        CheckpointError: the network is none that is known here.
        HuggingFaceError: the files beside the weights describe none.
        ValueError: ``task`` is none.
    """
    folder = source.file.path.parent
    if source.kind == 'mask2former-huggingface' and is_huggingface_folder(folder):
        configuration, remarks = describe(folder, task, HINT, things)
        return configuration, remarks
    path = source.file.path
    try:
        sections = read_architecture(source.published())
    except UnknownArchitectureError as error:
        raise CheckpointError(f'{path}: {source.description}; {error}') from error
    named = next((name for name in zoo.MASK2FORMER_NAMES if zoo.published(name).file_name == path.name), None)
    placeholders = [f'class {index}' for index in range(sections['decoder']['num_classes'])]
    guess = guess_task(placeholders, [named] if named else [], task, HINT, things)
    configuration = _template(named, sections, guess)
    model = configuration['model']
    model.update({name: sections[name] for name in ('type', 'encoder', 'decoder')})
    model['backbone'] = {**model.get('backbone', {}), **sections['backbone']}
    model.update(task=guess.task, classes=guess.classes, pretrained=True)
    model.pop('things', None)
    if guess.things is not None:
        model['things'] = guess.things
    return configuration, guess.remarks


def _template(named: str | None, sections: Mapping[str, Any], guess: Guess) -> dict[str, Any]:
    """The published model's configuration without its training, or what all of them share."""
    name = named if named and _same(zoo.configuration(named), sections, guess.task) else next(
        (name for name in zoo.MASK2FORMER_NAMES if _same(zoo.configuration(name), sections, guess.task)), None)
    if name is None:
        return {'framework': 'pytorch', 'task': 'image-segmentation', 'pipeline': {'type': PIPELINE}, 'model': {},
                'preprocessor': {'type': 'fastinst-preprocessor', 'min_size': 800, 'max_size': 1333}}
    configuration = zoo.configuration(name)
    guess.remarks.append(f'the configuration is the published {name}')
    for section in ('train', 'evaluation'):
        configuration.pop(section, None)
    return configuration


def _same(configuration: Mapping[str, Any], sections: Mapping[str, Any], task: str) -> bool:
    """Whether a published model has this network and was trained for this."""
    model = configuration['model']
    keys = _SWIN if sections['backbone']['type'] == 'swin' else _RESNET
    return (model.get('task', 'instance') == task
            and all(model['backbone'].get(key, 'resnet' if key == 'type' else None) == sections['backbone'][key]
                    for key in keys)
            and all(model['decoder'].get(key) == sections['decoder'][key] for key in ('num_classes', 'num_queries')))
