"""The published models, FastInst's (He et al., CVPR 2023) and Mask2Former's (Cheng et al., CVPR 2022): their
configurations by name, without weights.
"""
from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .published import FASTINST, MASK2FORMER, MASK2FORMER_WEIGHTS_LICENCE, Published

# FastInst: decoder layers (D1, D3), then the backbone.
NAMES = tuple(FASTINST)
# Mask2Former: data set, task, backbone.
MASK2FORMER_NAMES = tuple(MASK2FORMER)
ALL_NAMES = (*NAMES, *MASK2FORMER_NAMES)

# Beside this file where the package is installed, beside the package in a checkout.
_FOLDERS = (Path(__file__).parent / 'configs', Path(__file__).parents[1] / 'configs')


def configuration_file(name: str) -> Path:
    """The ``configuration.json`` of that model: network, sizes, classes and the paper's training recipe.

    Raises:
        ValueError: the name is not one of ``ALL_NAMES``; it lists them.
        FileNotFoundError: the package was installed without its configurations.
    """
    if name not in ALL_NAMES:
        raise ValueError(f'{name!r} is none of the published models; these are {names_in_short()}')
    for folder in _FOLDERS:
        if (folder / f'{name}.json').is_file():
            return folder / f'{name}.json'
    raise FileNotFoundError(f'{_FOLDERS[0] / name}.json: the package is installed without its configurations; '
                            f'install it again')


def find(name_or_file: str) -> Path:
    """The configuration file that is meant: a file as it is, else that of the published model of this name.

    Raises:
        ValueError: neither; it lists the names.
        FileNotFoundError: as ``configuration_file``.
    """
    if os.path.isfile(name_or_file):
        return Path(name_or_file)
    if name_or_file not in ALL_NAMES:
        raise ValueError(f'{name_or_file}: no such configuration file, nor one of {names_in_short()}')
    return configuration_file(name_or_file)


def configuration(name: str) -> dict[str, Any]:
    """The content of ``configuration_file(name)``."""
    return json.loads(configuration_file(name).read_text('utf-8'))


def published(name: str) -> Published:
    """What the authors say of the model of this name; measured by them, not here.

    Raises:
        ValueError: the name is not one of ``ALL_NAMES``.
    """
    if name not in ALL_NAMES:
        raise ValueError(f'{name!r} is none of the published models; these are {names_in_short()}')
    return FASTINST[name] if name in FASTINST else MASK2FORMER[name]


def licence_of_weights(file_name: str) -> str | None:
    """The licence under which the authors publish the file of weights of this name; None for a file of nobody known."""
    known = any(model.file_name == file_name for model in MASK2FORMER.values())
    return MASK2FORMER_WEIGHTS_LICENCE if known else None


def names_in_short() -> str:
    """All names for a message; those that differ in the backbone only, together."""
    return ', '.join([*NAMES, *_grouped()])


def _grouped() -> Iterator[str]:
    groups: dict[str, list[str]] = {}
    for name in MASK2FORMER_NAMES:
        architecture, data, task, backbone = name.split('_', 3)
        groups.setdefault(f'{architecture}_{data}_{task}', []).append(backbone)
    for group, backbones in groups.items():
        yield f'{group}_{{{",".join(backbones)}}}'
