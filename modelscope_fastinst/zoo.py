"""The published FastInst models (He et al., CVPR 2023): their configurations by name, without weights."""
from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

# Decoder layers (D1, D3), then the backbone.
NAMES = ('fastinst_d1_r50', 'fastinst_d3_r50', 'fastinst_d3_r101', 'fastinst_d1_r50d_dcn', 'fastinst_d3_r50d_dcn')

# Beside this file where the package is installed, beside the package in a checkout.
_FOLDERS = (Path(__file__).parent / 'configs', Path(__file__).parents[1] / 'configs')


def configuration_file(name: str) -> Path:
    """The ``configuration.json`` of that model: network, sizes, classes and the paper's training recipe.

    Raises:
        ValueError: the name is not one of ``NAMES``; it lists them.
        FileNotFoundError: the package was installed without its configurations.
    """
    if name not in NAMES:
        raise ValueError(f'{name!r} is none of the published models; these are {", ".join(NAMES)}')
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
    if name_or_file not in NAMES:
        raise ValueError(f'{name_or_file}: no such configuration file, nor one of {", ".join(NAMES)}')
    return configuration_file(name_or_file)


def configuration(name: str) -> dict[str, Any]:
    """The content of ``configuration_file(name)``."""
    return json.loads(configuration_file(name).read_text('utf-8'))
