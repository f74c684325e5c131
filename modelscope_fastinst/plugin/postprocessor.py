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
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import fields, replace
from typing import Any

from modelscope.utils.registry import Registry

from modelscope_fastinst.plugin.configuration import plain
from modelscope_fastinst.plugin.registry import TASK
from modelscope_fastinst.results.instances import InstancePostprocessor
from modelscope_fastinst.structures import Instances, NetworkOutput

DEFAULT_TYPE = 'fastinst-postprocessor'

Postprocessor = Callable[..., 'list[Instances]']

POSTPROCESSORS = Registry('postprocessors')


@POSTPROCESSORS.register_module(TASK, module_name=DEFAULT_TYPE)
class FastInstPostprocessor:
    """`results.instances.InstancePostprocessor` with class names for class indices and settings for every call.

    Args:
        class_names: names of the network's classes.
        classes: names of the classes to look for; None for all.
        score_thr: a number for all classes, or numbers by class name; classes that are not named keep 0.5.
        **settings: ``max_instances``, ``mask_format``, ``candidates``.

    Raises:
        ValueError: an unknown class name or setting, or one out of range.
    """

    def __init__(self, class_names: Sequence[str], classes: Sequence[str] | None = None, score_thr: Any = 0.5,
                 **settings: Any) -> None:
        self.class_names = list(class_names)
        known = [one.name for one in fields(InstancePostprocessor)]
        unknown = sorted(set(settings) - set(known))
        if unknown:
            raise ValueError(f'postprocessor: unknown settings {unknown}; known are type, {", ".join(known)}')
        self.instances = InstancePostprocessor(classes=self._indices(classes),
                                               score_thr=self._thresholds(score_thr, 0.5), **settings)

    def __call__(self, output: NetworkOutput, original_sizes: Sequence[tuple[int, int]],
                 **options: Any) -> list[Instances]:
        """The instances of each image; ``options`` take the place of settings for this call only.

        Classes that a ``score_thr`` by class name does not name keep their threshold.
        """
        return self._with(options)(output, original_sizes)

    def check(self, **options: Any) -> None:
        """Raises ValueError for options that a call would refuse; the pipeline asks before it runs the network."""
        self._with(options)

    def _with(self, options: Mapping[str, Any]) -> InstancePostprocessor:
        if 'classes' in options:
            options = {**options, 'classes': self._indices(options['classes'])}
        if 'score_thr' in options:
            options = {**options, 'score_thr': self._thresholds(options['score_thr'], self.instances.score_thr)}
        return replace(self.instances, **options)

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
                        class_names: Sequence[str]) -> Postprocessor:
    """The postprocessor that a pipeline is to use.

    Args:
        choice: what ``pipeline(..., postprocessor=)`` was given: a postprocessor, which is used as it is; settings that
            take the place of the configuration's; a registered name; or None.
        section: ``postprocessor`` of the configuration; None for the defaults.
        class_names: names of the model's classes.

    Raises:
        ValueError: a name that is not registered, or settings that do not fit.
    """
    if callable(choice):
        return choice
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
