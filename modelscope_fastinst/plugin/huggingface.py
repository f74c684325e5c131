"""Model folders of Hugging Face's: a Mask2Former in them is a model of ours, as it lies there.

Such a folder has a ``config.json`` (``"model_type": "mask2former"``), weights and a ``preprocessor_config.json``. It
has no ``configuration.json``, or, on ModelScope's hub, one that only says "framework" and "task". What ours would say
is made of these files whenever it is asked for; nothing is written. What they leave open is guessed, and the log says
so.
"""
from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelscope_fastinst.structures import TASKS

from .huggingface_network import HuggingFaceError, class_names, network_sections

CONFIG_FILE, IMAGES_FILE = 'config.json', 'preprocessor_config.json'
MODEL_TYPE = 'mask2former'
PIPELINE = 'mask2former-image-segmentation'

_told: set[tuple[str, str]] = set()   # remarks that are in the log already


def is_huggingface_folder(folder: str | os.PathLike) -> bool:
    """Whether a folder is a Mask2Former of Hugging Face's without a configuration of its own.

    A ``configuration.json`` that names a model or a pipeline is somebody's own, whatever lies beside it.
    """
    folder = Path(folder)
    if not (folder / CONFIG_FILE).is_file():
        return False
    own = folder / 'configuration.json'
    if own.is_file() and not is_bare(_read(own)):
        return False
    config = _read(folder / CONFIG_FILE)
    return isinstance(config, Mapping) and config.get('model_type') == MODEL_TYPE


def is_bare(configuration: Any) -> bool:
    """Whether the content of a ``configuration.json`` says neither which model nor which pipeline it is for."""
    if not isinstance(configuration, Mapping):
        return False
    sections = [configuration.get(name) for name in ('model', 'pipeline')]
    return not any(isinstance(section, Mapping) and (section.get('type') or section.get('model_type'))
                   for section in sections)


def folder_configuration(folder: str | os.PathLike, task: str | None = None) -> dict[str, Any] | None:
    """The whole configuration of a folder of Hugging Face's; None for any other folder.

    Args:
        task: what it was trained for, where the caller knows; otherwise see ``guessed_task.guess_task``.

    Raises:
        HuggingFaceError: see ``describe``.
        ValueError: ``task`` is none.
    """
    return describe(folder, task)[0] if is_huggingface_folder(folder) else None


def tell_guesses(folder: str | os.PathLike, task: str | None = None, hint: str = 'convert it with --task') -> None:
    """Logs what is a guess in the configuration of a folder of Hugging Face's, once a process; see ``describe``."""
    if not is_huggingface_folder(folder):
        return
    for remark in describe(folder, task, hint)[1]:
        if (os.fspath(folder), remark) not in _told:
            _told.add((os.fspath(folder), remark))
            from modelscope.utils.logger import get_logger
            get_logger().warning(f'{os.fspath(folder)}: {remark}')


def load_model(folder: str | os.PathLike, task: str | None, device: str) -> Any:
    """The model in a folder of Hugging Face's, for a pipeline.

    Args:
        task: what the pipeline is asked for. Where what is told by or guessed from the folder does not allow it, the
            model is taken to be trained for it.
        device: as ``pipeline()`` takes it.

    Raises:
        HuggingFaceError, ValueError: see ``describe``.
        CheckpointError: weights that are missing or do not fit.
    """
    from modelscope.models import Model
    from modelscope.utils.config import Config
    # what a panoptic model is asked for says nothing of it: it can do all
    stated = None if task in TASKS and describe(folder)[0]['model']['task'] == 'panoptic' else task
    tell_guesses(folder, stated, 'give default_task= (on the command line --task)')
    return Model.from_pretrained(os.fspath(folder), cfg_dict=Config(describe(folder, stated)[0]), device=device)


def describe(folder: str | os.PathLike, task: str | None = None, hint: str = 'convert it with --task',
             things: Sequence[str] | None = None) -> tuple[dict[str, Any], list[str]]:
    """The whole configuration of a folder of Hugging Face's, and what of it is a guess.

    Args:
        task: what it was trained for, where the caller knows.
        hint: how the caller can say it, for the remarks.
        things: the names of the classes that are things, where the caller knows.

    Raises:
        HuggingFaceError: a file that is not JSON, or a network or preprocessing that is not known here.
        ValueError: ``task`` is none.
    """
    from .guessed_task import guess_task, names_of
    from .huggingface_images import preprocessor_section  # imports torch, which nobody needs for other folders
    folder = Path(folder)
    file = folder / CONFIG_FILE
    config = _read(file, needed=True)
    sections = network_sections(config, str(file))
    images = folder / IMAGES_FILE
    preprocessor = preprocessor_section(_read(images, needed=True) if images.is_file() else {}, str(images))
    names = [*names_of(folder), *([config['_name_or_path']] if isinstance(config.get('_name_or_path'), str) else [])]
    guess = guess_task(class_names(config, str(file)), names, task, hint, things)
    sections['decoder']['num_classes'] = len(guess.classes)
    model = {'type': MODEL_TYPE, 'task': guess.task, **sections, 'classes': guess.classes, 'pretrained': True}
    if guess.things is not None:
        model['things'] = guess.things
    configuration = {'framework': 'pytorch', 'task': 'image-segmentation', 'pipeline': {'type': PIPELINE},
                     'model': model, 'preprocessor': preprocessor}
    return configuration, guess.remarks


def _read(file: Path, needed: bool = False) -> Any:
    """The content of a JSON file; where it is not ``needed``, None for one that cannot be read."""
    try:
        content = json.loads(file.read_text('utf-8'))
    except (OSError, ValueError) as error:
        if needed:
            raise HuggingFaceError(f'{file}: cannot be read as JSON ({error})') from error
        return None
    if needed and not isinstance(content, Mapping):
        raise HuggingFaceError(f'{file}: holds a {type(content).__name__}, not the settings of a model')
    return content
