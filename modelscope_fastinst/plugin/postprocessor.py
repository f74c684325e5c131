"""The postprocessor of the pipeline, and how a user puts another in its place.

ModelScope has registries for models and preprocessors but none for postprocessors, so here is one. A postprocessor is
any callable ``postprocessor(output, original_sizes, **options) -> list[Instances]``: a `NetworkOutput` and the images'
(height, width) in pixels in, one `Instances` an image out, best first; ``options`` are those that the caller gave
(``score_thr``, ``max_instances``, ``classes``, ``mask_format``). Its method ``check(**options)``, if any, is called
before the network runs and raises ValueError for options that will not do. It must keep no state between calls:
threads share it.

    @POSTPROCESSORS.register_module('image-segmentation', module_name='mine')
    class Mine:
        def __init__(self, class_names, **section): ...
        def __call__(self, output, original_sizes, **options): ...

Then ``"postprocessor": {"type": "mine", ...}`` in the configuration, or ``pipeline(..., postprocessor='mine')``. A
configuration can only name what is registered: it never makes Python import anything, as it may come from a hub.

One that answers more than instances says so in an attribute ``tasks``, ('instance', 'semantic', 'panoptic') or some of
them. It then gets ``task=`` in a call for another task than instances, and gives `SemanticMap` or `PanopticMap` objects
for it. If it has a method ``for_model(task, things)``, that is called once: with what the model was trained for and the
indices of its thing classes; the postprocessor that it returns is used.
"""
from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import fields, replace
from typing import Any

import numpy as np
from modelscope.utils.registry import Registry

from modelscope_fastinst.plugin.configuration import plain
from modelscope_fastinst.plugin.registry import TASK
from modelscope_fastinst.results.instances import InstancePostprocessor
from modelscope_fastinst.results.panoptic import PanopticPostprocessor, keep_segments
from modelscope_fastinst.results.semantic import SemanticPostprocessor, keep_classes
from modelscope_fastinst.structures import Instances, NetworkOutput, PanopticMap, SemanticMap

DEFAULT_TYPE = 'fastinst-postprocessor'
PANOPTIC_SETTINGS = ('object_mask_threshold', 'overlap_threshold')
# The options of a call that each task has a use for.
TASK_OPTIONS = {
    'instance': ('score_thr', 'max_instances', 'classes', 'mask_format'),
    'panoptic': ('score_thr', 'classes', 'mask_format', *PANOPTIC_SETTINGS),
    'semantic': ('classes', 'mask_format'),
}

Postprocessor = Callable[..., 'list[Instances] | list[PanopticMap] | list[SemanticMap]']

POSTPROCESSORS = Registry('postprocessors')


@POSTPROCESSORS.register_module(TASK, module_name=DEFAULT_TYPE)
class FastInstPostprocessor:
    """The postprocessors of ``results/`` with class names for class indices and settings for every call.

    Args:
        class_names: names of the network's classes.
        classes: names of the classes to look for; None for all.
        score_thr: of instances: a number for all classes, or numbers by class name; classes that are not named keep
            0.5.
        object_mask_threshold, overlap_threshold: of panoptic maps, see `results.panoptic.PanopticPostprocessor`.
        **settings: ``max_instances``, ``mask_format``, ``candidates``.

    Raises:
        ValueError: an unknown class name or setting, or one out of range.
    """
    tasks = tuple(TASK_OPTIONS)

    def __init__(self, class_names: Sequence[str], classes: Sequence[str] | None = None, score_thr: Any = 0.5,
                 object_mask_threshold: float = 0.8, overlap_threshold: float = 0.8, **settings: Any) -> None:
        self.class_names = list(class_names)
        known = [one.name for one in fields(InstancePostprocessor) if one.name != 'things']
        unknown = sorted(set(settings) - set(known))
        if unknown:
            raise ValueError(f'postprocessor: unknown settings {unknown}; known are type, '
                             f'{", ".join((*known, *PANOPTIC_SETTINGS))}')
        self.instances = InstancePostprocessor(classes=self._indices(classes),
                                               score_thr=self._thresholds(score_thr, 0.5), **settings)
        self.panoptic = PanopticPostprocessor(frozenset(), object_mask_threshold, overlap_threshold)
        self.semantic = SemanticPostprocessor(before_resize=True)

    @property
    def mask_format(self) -> str:
        """In which form masks are given unless a call says otherwise."""
        return self.instances.mask_format

    def for_model(self, task: str, things: Collection[int]) -> FastInstPostprocessor:
        """The same settings for a model that was trained for ``task`` and whose thing classes have these indices."""
        found = copy.copy(self)
        things = frozenset(things)
        found.instances = replace(self.instances, things=things if task == 'panoptic' else None)
        found.panoptic = replace(self.panoptic, things=things)
        found.semantic = SemanticPostprocessor(before_resize=task == 'semantic')
        return found

    def __call__(self, output: NetworkOutput, original_sizes: Sequence[tuple[int, int]], task: str = 'instance',
                 **options: Any) -> list[Instances] | list[PanopticMap] | list[SemanticMap]:
        """What was found in each image; ``options`` take the place of settings for this call only.

        Args:
            task: 'instance', 'semantic' or 'panoptic'.
            **options: of ``TASK_OPTIONS``. Classes that a ``score_thr`` by class name does not name keep their
                threshold. Of maps, ``classes`` leaves the others' pixels empty, as does ``score_thr`` those of the
                segments below it: whoever holds a pixel is decided before.
        """
        return self._with(task, options)(output, original_sizes)

    def check(self, task: str = 'instance', **options: Any) -> None:
        """Raises ValueError for options that a call would refuse; the pipeline asks before it runs the network."""
        self._with(task, options)

    def _with(self, task: str, options: Mapping[str, Any]) -> Postprocessor:
        if task not in TASK_OPTIONS:
            raise ValueError(f'task is {task!r}; it must be one of {", ".join(TASK_OPTIONS)}')
        useless = sorted(set(options) - set(TASK_OPTIONS[task]))
        if useless:
            raise ValueError(f'{", ".join(useless)}: of no use for task {task!r}, which has the options '
                             f'{", ".join(TASK_OPTIONS[task])}')
        options = dict(options)
        if 'classes' in options:
            options['classes'] = self._indices(options['classes'])
        if 'score_thr' in options:
            options['score_thr'] = self._thresholds(options['score_thr'],
                                                    self.instances.score_thr if task == 'instance' else 0.0)
        named = {name: value for name, value in options.items() if name not in PANOPTIC_SETTINGS}
        instances = replace(self.instances, **named)   # which checks them
        if task == 'instance':
            return instances
        if task == 'semantic':
            return lambda *arguments: [keep_classes(found, instances.classes) for found in self.semantic(*arguments)]
        chosen = {name: value for name, value in options.items() if name in PANOPTIC_SETTINGS}
        panoptic = replace(self.panoptic, **chosen)
        thresholds = np.broadcast_to(options.get('score_thr', 0.0), len(self.class_names))
        return lambda *arguments: [keep_segments(found, instances.classes, thresholds)
                                   for found in panoptic(*arguments)]

    def _thresholds(self, given: Any, others: float | tuple[float, ...]) -> Any:
        """A number as it is, numbers by class name as a tuple with one for each class."""
        if not isinstance(given, Mapping):
            return given
        unknown = [name for name in given if name not in self.class_names]
        if unknown:
            raise ValueError(f'score_thr: the model does not know {unknown}; it knows {self.class_names}')
        if not isinstance(others, tuple):
            others = (others,) * len(self.class_names)
        return tuple(given.get(name, other) for name, other in zip(self.class_names, others, strict=True))

    def _indices(self, names: Sequence[str] | str | None) -> tuple[int, ...] | None:
        if names is None:
            return None
        if isinstance(names, str):
            names = [names]
        if not isinstance(names, (Sequence, Set)):
            raise ValueError(f'classes is {names!r}; it must be a list of class names, or None for all')
        unknown = [name for name in names if name not in self.class_names]
        if unknown:
            raise ValueError(f'classes: the model does not know {unknown}; it knows {self.class_names}')
        # Two classes may share a name; both are meant then.
        return tuple(index for index, name in enumerate(self.class_names) if name in names)


def build_postprocessor(choice: Postprocessor | Mapping[str, Any] | str | None, section: Mapping[str, Any] | None,
                        class_names: Sequence[str], task: str = 'instance',
                        things: Collection[int] = ()) -> Postprocessor:
    """The postprocessor that a pipeline is to use.

    Args:
        choice: what ``pipeline(..., postprocessor=)`` was given: a postprocessor, which is used as it is; settings that
            take the place of the configuration's; a registered name; or None.
        section: ``postprocessor`` of the configuration; None for the defaults.
        class_names: names of the model's classes.
        task: what the model was trained for.
        things: indices of its thing classes.

    Raises:
        ValueError: a name that is not registered, or settings that do not fit.
    """
    postprocessor = choice if callable(choice) else _build(choice, section, class_names)
    for_model = getattr(postprocessor, 'for_model', None)
    return postprocessor if for_model is None else for_model(task, things)


def _build(choice: Mapping[str, Any] | str | None, section: Mapping[str, Any] | None,
           class_names: Sequence[str]) -> Postprocessor:
    settings = plain(section or {})
    if isinstance(choice, str):
        choice = {'type': choice}
    if choice is not None:
        choice = plain(choice)
        another = choice.get('type', settings.get('type', DEFAULT_TYPE)) != settings.get('type', DEFAULT_TYPE)
        settings = choice if another else {**settings, **choice}
    kind = settings.pop('type', DEFAULT_TYPE)
    factory = POSTPROCESSORS.get(kind, TASK)
    if factory is None:
        raise ValueError(f'postprocessor.type: {kind!r} is not registered; known are '
                         f'{sorted(POSTPROCESSORS.modules[TASK])}. Import the module that registers it first')
    return factory(class_names, **settings)
