"""What a visitor chose, checked against the model and the limits, as options of the pipeline."""
from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

from modelscope_fastinst.studio.limits import Limits
from modelscope_fastinst.studio.messages import Refused
from modelscope_fastinst.studio.models import LoadedModel


def checked_options(model: LoadedModel, limits: Limits, *, score_thr: Any = None, min_size: Any = None,
                    max_instances: Any = None, classes: Sequence[str] | str | None = None, task: Any = None,
                    tile: Any = None) -> tuple[str, dict[str, Any]]:
    """The task, and the options of a call of the pipeline: what was left open is not among them, nor what the task has
    no use for.

    Raises:
        Refused: 'option_invalid', 'class_unknown', 'task_unknown', 'tile_unavailable'.
    """
    from modelscope_fastinst.plugin.postprocessor import TASK_OPTIONS
    task = model.tasks[0] if task is None or task == '' else task
    if task not in model.tasks:
        raise Refused('task_unknown', task=str(task)[:100])
    options: dict[str, Any] = {}
    if task != getattr(model.segment, 'default_task', task):
        options['task'] = task
    if score_thr is not None:
        options['score_thr'] = float(_between('score_thr', score_thr, 0.0, 1.0))
    if max_instances is not None:
        options['max_instances'] = whole('max_instances', max_instances, 0, limits.instances)
    if min_size is not None:
        options['min_size'] = whole('min_size', min_size, *limits.short_side)
    if classes:
        options['classes'] = _known([classes] if isinstance(classes, str) else classes, model)
    useless = {'score_thr', 'max_instances', 'classes'} - set(TASK_OPTIONS[task])
    options = {name: value for name, value in options.items() if name not in useless}
    if tile:
        options['tile'] = _tile(tile, task, limits)
    return task, options


def check_work(model: LoadedModel, limits: Limits, size: tuple[int, int], options: dict[str, Any]) -> None:
    """Judges, before it is begun, how much work a picture of ``size`` (height, width) would be.

    An option ``tile`` under which the picture is one piece is taken out: the result is the same.

    Raises:
        Refused: 'option_invalid' where the picture would be blown up beyond ``network_pixels`` for the network;
            'too_many_tiles'.
    """
    from modelscope_fastinst.plugin.stages import can_be_staged, input_size, number_of_tiles
    if not can_be_staged(model.segment):
        return
    if 'tile' in options:
        tiles = number_of_tiles(model.segment, *size, **options)
        if tiles > limits.tiles:
            raise Refused('too_many_tiles', tiles=tiles, limit=limits.tiles)
        if tiles > 1:
            return
        del options['tile']
    seen = input_size(model.segment, *size, **options)
    if seen is not None and seen[0] * seen[1] > limits.network_pixels:
        fits = math.isqrt(limits.network_pixels * min(size) // max(size))
        raise Refused('option_invalid', option='min_size', value=min(seen), least=limits.short_side[0], most=fits)


def _between(option: str, value: Any, least: float, most: float) -> Any:
    if isinstance(value, bool) or not isinstance(value, Real) or not least <= value <= most:
        raise Refused('option_invalid', option=option, value=str(value)[:100], least=least, most=most)
    return value


def whole(option: str, value: Any, least: int, most: int) -> int:
    """A whole number in a range, or Refused 'option_invalid'; pages send 3.0 for 3."""
    if int(_between(option, value, least, most)) != value:
        raise Refused('option_invalid', option=option, value=str(value)[:100], least=least, most=most)
    return int(value)


def _known(names: Sequence[Any], model: LoadedModel) -> list[str]:
    """The names in the order of the model's classes, each once."""
    if not isinstance(names, (list, tuple, set, frozenset)):
        raise Refused('class_unknown', name=str(names)[:200])
    for name in names:
        if not isinstance(name, str) or name not in model.classes:
            raise Refused('class_unknown', name=str(name)[:200])
    return [name for name in dict.fromkeys(model.classes) if name in names]


def _tile(tile: Any, task: str, limits: Limits) -> int | str:
    from modelscope_fastinst.plugin.tiled import TASKS
    if task not in TASKS:
        raise Refused('tile_unavailable')
    return tile if tile == 'auto' else whole('tile', tile, limits.short_side[0], limits.side)
