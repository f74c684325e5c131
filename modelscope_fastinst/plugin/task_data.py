"""What ``model.task`` asks of the data: which classes are things, and what an evaluation compares with."""
from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from modelscope_fastinst.data.maps.label_map import LabelMap
from modelscope_fastinst.structures import TASKS, PanopticMap, Sample

from .configuration import CONFIGURATION_FILE, read_configuration
from .huggingface import is_huggingface_folder
from .trainer_config import shown
from .trainer_keys import ConfigurationError, section_at


def task_of(cfg: Any, file: str = 'configuration.json') -> str:
    """``model.task`` of a configuration (a ``modelscope`` Config), 'instance' where it does not say.

    Raises:
        ConfigurationError: it is none of ``structures.TASKS``.
    """
    task = cfg.safe_get('model.task')
    if task is not None and task not in TASKS:
        raise ConfigurationError(f'{file}: model.task is {task!r}; it must be one of {", ".join(TASKS)}')
    return task or 'instance'


def task_of_weights(folder: str, configuration: Any) -> str:
    """The task that the weights in a folder were trained for; see ``trainer_config.classes_of_weights``."""
    file = os.path.join(folder, CONFIGURATION_FILE)
    task = configuration.safe_get('model.task')
    if is_huggingface_folder(folder):
        task = read_configuration(folder)['model'].get('task')
    elif os.path.isfile(file):
        with open(file, encoding='utf-8') as text:
            task = section_at(json.load(text), 'model.task')
    return task or 'instance'


def settle_things(task: str, configured: Sequence[str] | None, data_sets: Iterable[Any], classes: Sequence[str], *,
                  replaceable: bool = False, file: str = 'configuration.json') -> list[str] | None:
    """Which classes of the model are things.

    Args:
        task: see ``task_of``.
        configured: ``model.things``.
        data_sets: of training and evaluation, None for none; the first that says which classes are things counts.
        classes: of the model.
        replaceable: ``configured`` is a pretrained model's own, which gives way to the training data's.

    Returns:
        Their names in the order of the classes; None for a task that knows no things.

    Raises:
        ConfigurationError: nobody says, or they contradict each other.
    """
    if task != 'panoptic':
        if configured and not replaceable:
            raise ConfigurationError(f'{file}: model.things is {shown(configured)}, but model.task is "{task}", which '
                                     'knows no things; remove model.things, or set model.task to "panoptic"')
        return None
    said = [list(data.things) for data in data_sets if data is not None and getattr(data, 'things', None) is not None]
    if configured is not None and (not replaceable or not said):
        if isinstance(configured, str) or not set(configured) <= set(classes):
            raise ConfigurationError(f'{file}: model.things is {configured!r}; it must be a list of names of the '
                                     f'classes, {shown(classes)}')
        things = set(configured)
    elif said:
        things = set(said[0])
    else:
        raise ConfigurationError(f'{file}: model.task is "panoptic", but neither model.things nor a `things` attribute '
                                 'of the data says which classes are things; set model.things to their names')
    for one in said:
        if set(one) != things:
            raise ConfigurationError(f'{file}: the things of the data are {shown(sorted(one))}, those of the model '
                                     f'{shown(sorted(things))}; they must agree: correct model.things, or the data')
    return [name for name in classes if name in things]


def completed_truth(sample: Sample, task: str, classes: Sequence[str] | None, things: Sequence[str] | None) -> Sample:
    """A sample for evaluation with the ground truth that a user's data set did not give, made from what it gave.

    Args:
        sample: with ``truth``, or with a target at the image's own size.
        task: 'semantic' or 'panoptic'; for the latter the objects are given as ``annotations`` too, for such a model
            finds instances as well.
        classes, things: names; without them no segment is a thing.

    Raises:
        ValueError: a resized sample without ``truth``.
    """
    thing_indices = frozenset(index for index, name in enumerate(classes or ()) if name in (things or ()))
    if sample.truth is None and sample.target is not None:
        height, width = sample.image.shape[-2:]
        if tuple(sample.original_size) not in ((0, 0), (height, width)):
            raise ValueError(f'{sample.file_name or sample.image_id}: a resized sample needs `truth` for evaluation')
        found = LabelMap.of_target(sample.target)
        truth = found.semantic() if task == 'semantic' else found.panoptic(thing_indices)
        sample = replace(sample, truth=truth, original_size=(height, width))
    if task == 'panoptic' and not sample.annotations and isinstance(sample.truth, PanopticMap):
        sample = replace(sample, annotations=LabelMap.of_panoptic(sample.truth).annotations(thing_indices))
    return sample
