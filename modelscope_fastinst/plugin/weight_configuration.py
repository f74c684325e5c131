"""Which configuration belongs to a weight file: the one given, the model folder's, or the published one that fits."""
from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from modelscope_fastinst import zoo
from modelscope_fastinst.checkpoints.conversion import KeyMatch, match_keys
from modelscope_fastinst.checkpoints.formats import CheckpointError
from modelscope_fastinst.checkpoints.loading import UNTRAINED_BIAS
from modelscope_fastinst.checkpoints.sources import MASK2FORMER, Source
from modelscope_fastinst.models.build import ARCHITECTURES, build_network

from .configuration import CONFIGURATION_FILE, plain, read_configuration, read_configuration_file
from .huggingface import is_huggingface_folder
from .mask2former_configuration import mask2former_configuration

# The outputs of the first of them that a file has are the classes and "no object".
_CLASSES_KEYS = ('sem_seg_head.predictor.query_proposal.conv_proposal_cls_logits.2.bias',
                 'sem_seg_head.predictor.class_embed.bias', 'sem_seg_head.predictor.class_embed_layers.0.layers.2.bias')
_SECTIONS = ('backbone', 'encoder', 'decoder')


def choose_configuration(source: Source, given: str | None, folder: Path | None, classes: Sequence[str] | None,
                         task: str | None = None,
                         things: Sequence[str] | None = None) -> tuple[dict[str, Any], list[str]]:
    """The whole configuration for a weight file, and what the user should know of the choice.

    Args:
        source: the file, recognised.
        given: a configuration file, or a name of ``zoo.NAMES``; None to find out.
        folder: the model folder that the file was found in; its configuration is taken if none is given.
        classes: names of the classes instead of the configuration's.
        task: what the weights were trained for, instead of what the configuration says.
        things: names of the classes that are things; makes the task panoptic.

    Raises:
        CheckpointError: no published configuration fits, or the number of classes does not.
        ValueError, OSError: the configuration given cannot be read, or describes no model of ours; ``task`` and
            ``things`` do not fit.
    """
    remarks: list[str] = []
    template = True   # of a published model: its classes may be others
    if given is not None:
        file = zoo.find(given)
        template = not os.path.isfile(given)
        configuration = _template(given, source) if template else read_configuration_file(str(file))
    elif source.kind in MASK2FORMER and not _has_own(folder):
        # with new names for the classes, things are told by these
        configuration, remarks = mask2former_configuration(source, task, () if things and classes else things)
    elif _has_own(folder):
        configuration = _completed(plain(read_configuration(folder)), source)
        template = False
    else:
        name = _published(source)
        remarks.append(f'the configuration is the published {name}')
        configuration = _template(name, source)
    configuration = copy.deepcopy(configuration)
    model = configuration['model']
    where = given or folder or 'the configuration'
    if model['type'] not in ARCHITECTURES or not all(isinstance(model.get(section), Mapping) for section in _SECTIONS):
        raise ValueError(f'{where}: describes no FastInst; model.type must be "fastinst" or "mask2former", with the '
                         f'sections {", ".join(_SECTIONS)}')
    before = [str(name) for name in model.get('classes') or []]
    model['classes'], remark = _classes(source, model, classes, template, str(where))
    _settle_task(model, before, task, things)
    found_out = bool(remarks) and source.kind not in MASK2FORMER
    if found_out and not remark and classes is None and not source.backbone_only:
        remark = [f'{len(model["classes"])} classes, taken to be COCO\'s; give --classes to name others']
    _rename_thresholds(configuration, before, model['classes'])
    model['decoder'] = {**model['decoder'], 'num_classes': len(model['classes'])}
    if source.kind not in MASK2FORMER and model['encoder'].get('type', 'ppm-fpn') == 'ppm-fpn':
        model['encoder'] = {**model['encoder'], 'norm': _encoder_norm(source)}
    return configuration, [*remarks, *remark]


def _has_own(folder: Path | None) -> bool:
    """Whether the folder of the weights has a configuration of ours or of ModelScope's."""
    return folder is not None and (folder / CONFIGURATION_FILE).is_file() and not is_huggingface_folder(folder)


def _settle_task(model: dict[str, Any], before: Sequence[str], task: str | None, things: Sequence[str] | None) -> None:
    """What the caller says of the task, and things under the classes' new names.

    Raises:
        ValueError: ``things`` without a panoptic task, or the other way round.
    """
    if things is not None:
        if task not in (None, 'panoptic'):
            raise ValueError(f'things go with panoptic segmentation; the task is {task!r}')
        task = 'panoptic'
    chosen = task or model.get('task') or 'instance'
    if task is not None:
        model['task'] = task
    known = model.pop('things', None)
    if chosen != 'panoptic':
        return
    if things is None and known is not None:
        new = dict(zip(before, model['classes'], strict=False)) if len(before) == len(model['classes']) else {}
        things = [new.get(name, name) for name in known]
    if things is None:
        raise ValueError('a panoptic model needs the names of the classes that are things; give --things')
    unknown = [name for name in things if name not in model['classes']]
    if unknown:
        raise ValueError(f'things: {unknown} are not among the classes {model["classes"]}')
    model['things'] = list(things)


def _rename_thresholds(configuration: Mapping[str, Any], before: Sequence[str], after: Sequence[str]) -> None:
    """Score thresholds by class name go on under the classes' new names."""
    section = configuration.get('postprocessor') or {}
    thresholds = section.get('score_thr')
    if isinstance(thresholds, Mapping) and len(before) == len(after):
        section['score_thr'] = {new: thresholds[old] for old, new in zip(before, after, strict=True)
                                if old in thresholds}


def _completed(configuration: dict[str, Any], source: Source) -> dict[str, Any]:
    """The configuration of a stock folder with what ours has besides, from the published model if that fits."""
    model = configuration['model']
    if 'preprocessor' in configuration or not isinstance(model.get('backbone'), Mapping):
        return configuration
    if model['backbone'].get('norm') == 'BN':
        # as the authors train; ModelScope's own network only runs, and there the two are equal
        model['backbone'] = {**model['backbone'], 'norm': 'FrozenBN'}
    fitting = [] if source.backbone_only else [name for name, match in _matches(source).items() if match.complete]
    return {**_template(fitting[0], source), **configuration} if len(fitting) == 1 else configuration


def _template(name: str, source: Source) -> dict[str, Any]:
    """A published model's configuration. A trained model's is without the training that it has behind it: who
    fine-tunes it wants the trainer's defaults, not weeks of COCO."""
    configuration = zoo.configuration(name)
    if not source.backbone_only:
        del configuration['train'], configuration['evaluation']
    return configuration


def _published(source: Source) -> str:
    """The one published model that a file is of, or for a backbone the larger one of those that have it."""
    path = source.file.path
    if source.backbone_only:
        names = source.backbone.configurations
        if not names:
            raise CheckpointError(f'{path}: {source.description}; none of the published configurations has that '
                                  f'backbone: give --config with one that has')
        return names[-1]
    matches = _matches(source)
    fitting = [name for name, match in matches.items() if match.complete]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise CheckpointError(f'{path}: fits {", ".join(fitting)}; say which with --config')
    nearest = min(matches, key=lambda name: (bool(matches[name].wrong_backbone),
                                             sum(map(len, matches[name].faults.values()))))
    raise CheckpointError(f'{path}: {source.description}; fits none of the published configurations. Nearest is '
                          f'{nearest}: {matches[nearest].summary()}. Give --config with the configuration that it was '
                          f'trained with')


def _matches(source: Source) -> dict[str, KeyMatch]:
    """How a FastInst's file compares with each published model, whatever the number of classes."""
    matches = {}
    for name in zoo.NAMES:
        model = zoo.configuration(name)['model']
        model['decoder']['num_classes'] = _number_of_classes(source)
        model['encoder']['norm'] = _encoder_norm(source)
        with torch.device('meta'):   # shapes without numbers
            network = build_network(model)
        matches[name] = match_keys(source, network.state_dict())
    return matches


def _number_of_classes(source: Source) -> int:
    keys = {name: key for key, name in source.names.items() if name in _CLASSES_KEYS}
    key = next((keys[name] for name in _CLASSES_KEYS if name in keys), None)
    if key is None or source.file.state[key].ndim != 1 or len(source.file.state[key]) < 2:
        raise CheckpointError(f'{source.file.path}: holds an incomplete FastInst; {_CLASSES_KEYS[0]} is missing')
    return len(source.file.state[key]) - 1


def _encoder_norm(source: Source) -> str:
    """'' if the convolutions of the pixel decoder have biases that are not 0; see ``models.pixel_decoder``."""
    biased = any(UNTRAINED_BIAS.search(name) and bool(source.file.state[key].any())
                 for key, name in source.names.items())
    return '' if biased else 'GN'


def _classes(source: Source, model: Mapping[str, Any], classes: Sequence[str] | None, template: bool,
             where: str) -> tuple[list[str], list[str]]:
    """Names for the classes that the file has, and a remark where they had to be invented."""
    own = [str(name) for name in model.get('classes') or []]
    number = model['decoder'].get('num_classes', len(own)) if source.backbone_only else _number_of_classes(source)
    if classes is not None:
        if not source.backbone_only and len(classes) != number:
            raise CheckpointError(f'{source.file.path}: is for {number} classes; {len(classes)} names were given')
        return [str(name) for name in classes], []
    if len(own) == number and own:
        return own, []
    if own and not template:
        raise CheckpointError(f'{source.file.path}: is for {number} classes, {where} names {len(own)}; give --classes')
    if not number:
        raise CheckpointError(f'{where}: names no classes; give --classes')
    names = [f'class {index}' for index in range(number)]
    return names, [f'the names of its {number} classes are not known, so they are called "class 0" and so on; give '
                   f'--classes to name them']
