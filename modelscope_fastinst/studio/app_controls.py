"""The controls that the tabs share: which model, which instances, how the network sees, how results are drawn."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from modelscope_fastinst.studio.app_language import label
from modelscope_fastinst.studio.limits import Limits

PARTS = ('outline', 'tags', 'boxes')


@dataclass(frozen=True)
class Choice:
    """Which instances are shown; a change needs no new inference."""
    score: gr.Slider
    most: gr.Slider
    classes: gr.Dropdown

    @property
    def inputs(self) -> list[Any]:
        return [self.score, self.most, self.classes]


@dataclass(frozen=True)
class Inference:
    """How the network sees the picture.

    Attributes:
        whole: whether tasks and tiles are asked for.
    """
    min_size: gr.Slider
    task: gr.Radio
    tile: gr.Checkbox
    whole: bool

    @property
    def inputs(self) -> list[Any]:
        return [self.min_size, self.task, self.tile]


@dataclass(frozen=True)
class Drawing:
    """How results are drawn."""
    color_by: gr.Radio
    opacity: gr.Slider
    parts: gr.CheckboxGroup

    @property
    def inputs(self) -> list[Any]:
        return [self.color_by, self.opacity, self.parts]


def choice(limits: Limits, classes: Sequence[str], score: float, name: str, task: str, at_once: bool = True) -> Choice:
    """Score, number and classes; ``name`` goes before their ids in the page. ``at_once``: a change shows at once."""
    return Choice(
        gr.Slider(0.05, 0.99, value=score, step=0.01, label=label('score'), visible=has_use_for(task, 'score_thr'),
                  info=label('score_info') if at_once else None, elem_id=f'{name}_score'),
        gr.Slider(1, min(300, limits.instances), value=min(100, limits.instances), step=1, label=label('max_instances'),
                  visible=has_use_for(task, 'max_instances'), elem_id=f'{name}_most'),
        gr.Dropdown(_plain(classes), value=[], multiselect=True, label=label('classes'), info=label('classes_info'),
                    visible=len(classes) > 1, elem_id=f'{name}_classes'))


def inference(limits: Limits, min_size: int, largest: int, tasks: tuple[str, ...], name: str,
              whole: bool = True) -> Inference:
    """Short side, task and tiles; a task is asked for only where there is more than one. Videos (``whole=False``) are
    segmented for the model's own task, without tiles."""
    return Inference(
        gr.Slider(limits.short_side[0], largest, value=min_size, step=32, label=label('min_size'),
                  info=label('min_size_info'), elem_id=f'{name}_min_size'),
        gr.Radio(task_choices(tasks), value=tasks[0], label=label('task'), visible=whole and len(tasks) > 1,
                 elem_id=f'{name}_task'),
        gr.Checkbox(False, label=label('tile'), info=label('tile_info'), visible=whole, elem_id=f'{name}_tile'),
        whole)


def drawing(name: str, color_by: str = 'instance') -> Drawing:
    """Colours, opacity, and what is drawn besides the masks."""
    return Drawing(
        gr.Radio([(label('by_instance'), 'instance'), (label('by_class'), 'class')], value=color_by,
                 label=label('color_by'), elem_id=f'{name}_color_by'),
        gr.Slider(0, 1, value=0.45, step=0.05, label=label('opacity'), elem_id=f'{name}_opacity'),
        gr.CheckboxGroup([(label(part), part) for part in PARTS], value=['outline', 'tags'], label=label('parts'),
                         elem_id=f'{name}_parts'))


def task_choices(tasks: tuple[str, ...]) -> list[tuple[Any, str]]:
    """Names and values for a choice of tasks."""
    return [(label(f'task_{task}'), task) for task in tasks]


def has_use_for(task: str, option: str) -> bool:
    """Whether an option of the pipeline changes anything of a task's results."""
    from modelscope_fastinst.plugin.postprocessor import TASK_OPTIONS
    return option in TASK_OPTIONS[task]


def useful(task: str) -> list[dict[str, Any]]:
    """The sliders for score and number, where the task has a use for them."""
    return [gr.update(visible=has_use_for(task, option)) for option in ('score_thr', 'max_instances')]


def class_choices(classes: Sequence[str]) -> dict[str, Any]:
    """The class filter for another model: nothing chosen."""
    return gr.update(choices=_plain(classes), value=[], visible=len(classes) > 1)


def _plain(classes: Sequence[str]) -> list[tuple[str, str]]:
    # As pairs: Gradio would take a class named like one of its translation keys for that key.
    return [(name, name) for name in classes]
