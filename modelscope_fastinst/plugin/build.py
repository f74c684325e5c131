"""The ways into ModelScope that the command line takes: a pipeline and a trainer, as a user's script builds them."""
from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from modelscope_fastinst.plugin.hub import is_model_id, model_directory

EMBEDDED = 'embedded'   # what the command line calls the model that comes with the package


def build_segmenter(model: str | None = None, device: str | None = None, verbose: bool = False,
                    revision: str | None = None, task: str | None = None, **options: Any) -> Any:
    """``pipeline('image-segmentation', model)``.

    Args:
        model: model folder or id of ModelScope's hub; None for the embedded model.
        revision: of an id: branch, tag or commit.
        device: as ``pipeline()`` takes it; None for the GPU if there is one.
        verbose: let ModelScope's log through.
        task: what it will be asked for; a folder of Hugging Face's, which does not say its own, is taken to be for it.
        **options: defaults of the calls, see ``plugin.pipeline``.

    Raises:
        FileNotFoundError: the model is neither a model folder nor of the form of an id.
        HubError: an id whose model cannot be had.
        ValueError: its configuration lacks something.
    """
    if not verbose:
        quiet()
    from .configuration import read_configuration
    folder = model_folder(model, revision)
    read_configuration(folder)   # pipeline() would look for another library's model in a folder without one
    from .huggingface import is_huggingface_folder
    if task is not None and is_huggingface_folder(folder):
        options = {'default_task': task, **options}
    from modelscope.pipelines import pipeline
    return pipeline('image-segmentation', model=folder, device=device or default_device(), **options)


def build_fastinst_trainer(model: str | None = None, config: str | None = None, device: str | None = None,
                           settings: Mapping[str, Any] | None = None, verbose: bool = True,
                           revision: str | None = None, **arguments: Any) -> Any:
    """``build_trainer('fastinst-trainer', ...)``.

    Args:
        model: model folder or hub id whose weights and, without ``config``, configuration are taken.
        config: a configuration file.
        device: as the trainer takes it; None for the GPU if there is one.
        settings: changes of the configuration, by dotted name.
        verbose: let ModelScope's log through; the trainer reports there.
        revision: of an id: branch, tag or commit.
        **arguments: further arguments of ``plugin.trainer.FastInstTrainer``; those that are None are left out.

    Raises:
        FileNotFoundError: the model is neither a folder nor of the form of an id.
        HubError: an id whose model cannot be had.
        ConfigurationError: see the trainer.
    """
    if not verbose:
        quiet()
    from modelscope.trainers import build_trainer

    from . import processes
    processes.join(device or default_device())
    with processes.first_here_first():   # a hub's model is downloaded once
        model = model_folder(model, revision) if model or revision else None
    given = {'model': model, 'cfg_file': config, 'cfg_options': dict(settings) if settings else None, **arguments}
    given = {name: value for name, value in given.items() if value is not None}
    return build_trainer('fastinst-trainer', default_args={**given, 'device': device or default_device()})


def build_evaluator(model: str | None = None, revision: str | None = None, **arguments: Any) -> Any:
    """A trainer that only measures: what the model's configuration says of data and training does not apply.

    Args:
        model, revision: as in ``build_segmenter``.
        **arguments: as in ``build_fastinst_trainer``.
    """
    def measure_only(cfg: Any) -> Any:
        for section in ('dataset', 'train'):
            cfg._cfg_dict.pop(section, None)
        cfg._cfg_dict.get('evaluation', {}).pop('period', None)
        return cfg

    from . import processes
    processes.join(arguments.get('device') or default_device())
    with processes.first_here_first():
        folder = model_folder(model, revision)
    return build_fastinst_trainer(model=folder, cfg_modify_fn=measure_only, **arguments)


def evaluation_text(trainer: Any, values: Mapping[str, Any]) -> str:
    """What ``trainer.evaluate()`` gave, as a table to read: averages, and a line for every class."""
    from .metric import metrics_table
    return metrics_table(values, trainer.model_classes)


def model_folder(model: str | None, revision: str | None = None) -> str:
    """The folder of a model: the embedded one for None, an existing folder as it is, that of an id from the cache or
    downloaded.

    Args:
        model: folder, id of ModelScope's hub, or ``EMBEDDED`` unless there is a folder of that name.
        revision: of an id: branch, tag or commit; None for 'master'.

    Raises:
        FileNotFoundError: the model is neither a folder nor of the form of an id.
        HubError: an id whose model cannot be had.
        ValueError: a revision of something that has none.
    """
    if revision is not None and (model is None or not is_model_id(model)):
        given = 'no model is given' if model is None else f'{model} is a folder or not of this form'
        raise ValueError(f'revision {revision!r}: goes with a model id of the form owner/name; {given}')
    if model is None or model == EMBEDDED and not os.path.exists(model):
        from modelscope_fastinst import default_model
        return default_model()
    return model_directory(model, revision)


def default_device() -> str:
    """'gpu' if PyTorch sees one, else 'cpu'."""
    import torch
    return 'gpu' if torch.cuda.is_available() else 'cpu'


def quiet() -> None:
    """Keeps ModelScope's log below warnings off the terminal, for the rest of the process."""
    from modelscope.utils.logger import get_logger
    # at the handlers, for every get_logger() of the library sets the logger's own level again
    for handler in get_logger().handlers:
        handler.setLevel(logging.WARNING)


@contextmanager
def quieted() -> Iterator[None]:
    """``quiet()`` for the time of a ``with``; the caller's own choice of what is shown holds again after it."""
    from modelscope.utils.logger import get_logger
    levels = {handler: handler.level for handler in get_logger().handlers}
    quiet()
    try:
        yield
    finally:
        for handler, level in levels.items():
            handler.setLevel(level)
