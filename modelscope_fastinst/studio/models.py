"""The models that visitors share: loaded once, kept warm, never loaded twice at a time."""
from __future__ import annotations

import logging
import os
import textwrap
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from modelscope_fastinst.studio.limits import Limits
from modelscope_fastinst.studio.messages import Refused, as_refusal
from modelscope_fastinst.studio.turns import Told, Turns

logger = logging.getLogger(__name__)

_LONGEST_REASON = 600   # characters; what to do about it stands at the end
_LONGEST_NAME = 1000   # of a folder or an id that a visitor types


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to be asked.

    Attributes:
        name: by which visitors choose it; plain text.
        segment: the pipeline.
        classes: names of its classes, by label.
        task: what it was trained for: 'instance', 'semantic' or 'panoptic'.
        tasks: what it can be asked for, that first.
        things: names of its classes that are objects; all unless it knows panoptic maps.
        defaults: what holds where a visitor chooses nothing, as far as it is known: ``score_thr`` (a number),
            ``max_instances``, ``min_size``, ``max_size`` (the network's longest side: beyond what it allows, a larger
            short side changes nothing).
    """
    name: str
    segment: Callable[..., Any]
    classes: tuple[str, ...]
    task: str
    tasks: tuple[str, ...]
    things: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)


class ModelStore:
    """Models by name: the default one always, a few others while they are in use.

    Threads share it. One model is loaded at a time, and a model that is there is had without waiting for that. A model
    that cannot be loaded takes the place of none.

    Args:
        default: folder or hub id of the model that is always there; None for the embedded one.
        device: as ``pipeline()`` takes it; None for the GPU if there is one.
        allowed: folders and hub ids of further models that visitors may choose.
        any_model: whether a visitor may name any folder of this machine and any id of the hub. For a studio that only
            its own machine can reach: a folder's name tells what is there, and what a hub sends fills the disk.
        limits: ``models``, ``queue`` and ``wait_seconds`` of them.

    Attributes:
        choices: names of the models that a visitor may choose, the default one first: ids as they are, of folders the
            last part, for where a model lies on the server is nobody's business.
    """

    def __init__(self, default: str | None = None, device: str | None = None, allowed: Sequence[str] | None = None,
                 any_model: bool = False, limits: Limits | None = None) -> None:
        from modelscope_fastinst.plugin.build import EMBEDDED
        self.limits = Limits() if limits is None else limits
        self.device, self.any_model = device, any_model
        self._sources: dict[str, str] = {}
        for source in dict.fromkeys((EMBEDDED if default is None else os.fspath(default), *map(os.fspath,
                                                                                              allowed or ()))):
            self._sources[_free_name(source, self._sources)] = source
        self.choices = tuple(self._sources)
        self._loaded: OrderedDict[str, LoadedModel] = OrderedDict()
        self._lock = threading.Lock()
        self._loading = Turns(1, self.limits.queue, self.limits.wait_seconds)

    @property
    def default(self) -> str:
        """The name of the default model."""
        return self.choices[0]

    def warm(self) -> LoadedModel:
        """Loads the default model and runs it once, so that the first visitor does not wait for either.

        Raises:
            Refused: 'model_failed'.
        """
        return self.get()

    def get(self, choice: str | None = None, waiting: Told | None = None) -> LoadedModel:
        """The model of this name.

        Args:
            choice: one of ``choices``, or any folder or hub id where ``any_model`` says so; None for the default.
            waiting: called with how many are before this visitor, while another model is being loaded.

        Raises:
            Refused: 'model_not_allowed', 'model_unknown', 'model_failed', 'busy', 'timeout', 'out_of_memory'.
        """
        name, source = self._find(choice)
        found = self._held(name)
        if found is not None:
            return found
        with self._loading.turn(waiting):
            found = self._held(name)
            return self._keep(self._load(name, source)) if found is None else found

    def _find(self, choice: str | None) -> tuple[str, str]:
        """Name and source of what a visitor chose; looks at nothing that the visitor may not choose."""
        if choice is None or choice == '':
            choice = self.default
        if not isinstance(choice, str):
            raise Refused('model_unknown', name=type(choice).__name__)
        if choice in self._sources:
            return choice, self._sources[choice]
        choice = choice.strip()[:_LONGEST_NAME]
        if not self.any_model:
            raise Refused('model_not_allowed', name=choice)
        from modelscope_fastinst.plugin.hub import has_form_of_id
        try:
            folder = os.path.isdir(choice)
        except ValueError:   # a zero byte
            raise Refused('model_unknown', name=choice) from None
        if not folder and not has_form_of_id(choice):
            raise Refused('model_unknown', name=choice)
        name = os.path.realpath(choice) if folder else choice
        for known, source in self._sources.items():
            if source == name or folder and os.path.isdir(source) and os.path.realpath(source) == name:
                return known, source
        return name, name

    def _held(self, name: str) -> LoadedModel | None:
        with self._lock:
            if name in self._loaded:
                self._loaded.move_to_end(name)
            return self._loaded.get(name)

    def _keep(self, model: LoadedModel) -> LoadedModel:
        """Keeps a model, and lets the longest unused ones go if there are too many. Whoever uses one has it still."""
        with self._lock:
            self._loaded[model.name] = model
            others = [name for name in self._loaded if name not in (self.default, model.name)]
            for name in others[:max(0, len(self._loaded) - max(self.limits.models, 1))]:
                del self._loaded[name]
        return model

    def _load(self, name: str, source: str) -> LoadedModel:
        from modelscope_fastinst.plugin.build import build_segmenter
        try:
            segment = build_segmenter(source, self.device)
            model = _described(name, segment)
            # An untrained network of any size sees this; the second call of a visitor would pay for it otherwise.
            segment(np.zeros((96, 128, 3), np.uint8), mask_format='rle')
        except Exception as error:   # whatever is in a folder or comes from a hub
            told = as_refusal(error, f'loading the model {source}')
            if told.code != 'internal':
                raise told from None
            # The operator hears of the error itself.
            raise Refused('model_failed', name=name, reason=self._reason(error)) from error
        logger.info('model %s is ready (%d classes, %s)', source, len(model.classes), model.task)
        return model

    def _reason(self, error: Exception) -> str:
        """What went wrong, in a line; nothing where visitors are strangers, for it names the server's folders."""
        if not self.any_model:
            return ''
        return textwrap.shorten(str(error), _LONGEST_REASON, placeholder=' …') or type(error).__name__


def _free_name(source: str, taken: Mapping[str, str]) -> str:
    """What visitors see for a folder or an id of the owner's."""
    from modelscope_fastinst.plugin.hub import has_form_of_id
    base = source
    if os.path.isdir(source) or not has_form_of_id(source):
        base = os.path.basename(os.path.normpath(source)) or source
    name, number = base, 1
    while name in taken:
        number += 1
        name = f'{base} ({number})'
    return name


def _described(name: str, segment: Any) -> LoadedModel:
    from modelscope_fastinst.structures import TASKS
    model = segment.model
    task = getattr(model, 'task', 'instance')
    known = getattr(segment.postprocessor, 'tasks', ('instance',))
    first = segment.default_task
    tasks = (first, *(one for one in TASKS[task] if one != first and one in known))
    classes = tuple(model.classes)
    things = getattr(model, 'thing_classes', None) if task == 'panoptic' else None
    instances = getattr(segment.postprocessor, 'instances', None)
    defaults = {option: value for option, value in (
        ('score_thr', getattr(instances, 'score_thr', None)),
        ('max_instances', getattr(instances, 'max_instances', None)),
        ('min_size', getattr(segment.preprocessor, 'min_size', None)),
        ('max_size', getattr(segment.preprocessor, 'max_size', None))) if isinstance(value, (int, float))}
    return LoadedModel(name, segment, classes, task, tasks,
                       classes if things is None else tuple(classes[label] for label in sorted(things)), defaults)
