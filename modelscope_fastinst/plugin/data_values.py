"""The values of a data set's section, checked before anything of the data is read."""
from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from modelscope_fastinst.data.formats import FORMATS
from modelscope_fastinst.data.maps import MAP_FORMATS

from .trainer_keys import ConfigurationError, check_names

KEYS = ('annotation_file', 'image_dir', 'root', 'split', 'format', 'val_fraction', 'split_seed', 'table', 'classes',
        'skip_empty', 'on_problem', 'split_config', 'panoptic_dir', 'label_dir', 'label_offset', 'void_label')


def check_section(section: Any, name: str) -> None:
    """Checks ``dataset.train`` or ``dataset.val`` of a configuration, or a mapping given in its place.

    Args:
        section: None for none; ``type`` and ``mode``, which are ModelScope's, may be in it.
        name: what to call it, e.g. ``dataset.train``.

    Raises:
        ConfigurationError: an unknown key, a wrong value, or keys that contradict each other; names the key.
    """
    if section is None:
        return
    if not isinstance(section, Mapping):
        raise ConfigurationError(f'{name} must be a mapping with root, or annotation_file and image_dir; got '
                                 f'{section!r}')
    given = {key: value for key, value in section.items() if key not in ('type', 'mode') and value is not None}
    check_names(given, KEYS, name)
    for key, value in given.items():
        wanted = _wanted(key, value)
        if wanted:
            raise ConfigurationError(f'{name}.{key} is {value!r}; it must be {wanted}')
    sources = [key for key in ('annotation_file', 'label_dir', 'root', 'table') if key in given]
    if len(sources) > 1:
        raise ConfigurationError(f'{name} has {sources[0]} and {sources[1]}; give one of them')
    for one, other in (('annotation_file', 'image_dir'), ('label_dir', 'image_dir'), ('image_dir', 'annotation_file'),
                       ('panoptic_dir', 'annotation_file')):
        if one in given and other not in given and not (one == 'image_dir' and 'label_dir' in given):
            raise ConfigurationError(f'{name}.{one} is given without {other}; give both')


def _wanted(key: str, value: Any) -> str:
    """What the value should be; '' where it is that."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if key in ('annotation_file', 'image_dir', 'root', 'panoptic_dir', 'label_dir'):
        return '' if isinstance(value, (str, os.PathLike)) and os.fspath(value) else 'a path'
    if key == 'split':
        return '' if isinstance(value, str) and value else 'the name of a split, such as train'
    if key == 'format':
        formats = (*FORMATS, *MAP_FORMATS)
        return '' if value in formats else f'one of {", ".join(formats)}, or null to see from the folder'
    if key == 'val_fraction':   # 0 is none
        return '' if number and 0 <= value < 1 else 'a number from 0 to below 1, such as 0.2'
    if key == 'split_seed':
        return '' if number and value == value // 1 else 'a whole number'
    if key in ('label_offset', 'void_label'):
        return '' if number and value == value // 1 and value >= 0 else 'a whole number of at least 0'
    if key == 'skip_empty':
        return '' if isinstance(value, bool) else 'true or false'
    if key == 'on_problem':
        return '' if value in ('raise', 'skip') else '"raise" or "skip"'
    if key == 'classes':
        good = isinstance(value, (list, tuple)) and value and all(isinstance(one, str) and one for one in value)
        return '' if good and len(set(value)) == len(value) else 'a list of different class names'
    return ''
