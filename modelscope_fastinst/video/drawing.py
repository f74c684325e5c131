"""Frames with what was found in them, drawn so that an object keeps its colour."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

import numpy as np

from modelscope_fastinst.video.frames import Frame
from modelscope_fastinst.video.tracking import ColorBook

_COLORS = 48    # after so many objects in sight at once, colours come again


class Drawer:
    """Draws frames of one video.

    Args:
        look: arguments of `visualize.draw_instances` and its like for maps, such as ``color_by``, ``classes``,
            ``font``, ``tags`` and ``scale``; a mapping or a dataclass. What a picture has no use for is left out.
    """

    def __init__(self, look: Any = None) -> None:
        look = asdict(look) if is_dataclass(look) else dict(look or {})
        self._look = {name: value for name, value in look.items() if value is not None}
        self._book = ColorBook()
        self._books: dict[str, ColorBook] = {}

    def size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) in pixels of what is drawn of a frame of this size."""
        scale = self._look.get('scale', 1)
        return max(1, round(width * scale)), max(1, round(height * scale))

    def draw(self, frame: Frame) -> np.ndarray:
        """uint8 RGB; a frame without a result is as it was."""
        from modelscope_fastinst import visualize
        found = frame.result
        if found is None or not _of_size(found, frame.image.shape[:2]):
            return self._drawn(visualize.draw_instances, frame.image, None, [], [])
        if 'id_map' in found:
            return self._drawn(visualize.draw_panoptic, frame.image, found['id_map'], found['segments'],
                               turns=self._turns(frame))
        if 'label_map' in found:
            classes = self._look.get('classes') or found['labels']
            return self._drawn(visualize.draw_semantic, frame.image, found['label_map'], classes)
        return self._drawn(visualize.draw_instances, frame.image, found['scores'], found['labels'], found['masks'],
                           found['boxes'], colors=self._colors(frame))

    def _colors(self, frame: Frame) -> Sequence[tuple[int, int, int]] | None:
        """One an instance; None for those of `draw_instances`."""
        from modelscope_fastinst.visualize import instance_colors
        if not frame.ids or self._look.get('color_by') == 'class':
            return None
        colors = instance_colors(_COLORS)
        return [colors[number % _COLORS] for number in self._book.numbers(frame.ids)]

    def _turns(self, frame: Frame) -> dict[int, int] | None:
        """By the id of a segment: which of its class it is, and so which shade it has."""
        if not frame.ids:
            return None
        turns, segments = {}, frame.result['segments']
        for label in {segment['label'] for segment in segments}:
            book = self._books.setdefault(label, ColorBook())
            chosen = [(segment['id'], id) for segment, id in zip(segments, frame.ids, strict=True)
                      if segment['label'] == label]
            turns |= zip((id for id, _ in chosen), book.numbers([id for _, id in chosen]), strict=True)
        return turns

    def _drawn(self, function: Any, *arguments: Any, **more: Any) -> np.ndarray:
        import inspect
        known = inspect.signature(function).parameters
        chosen = {name: value for name, value in self._look.items() if name in known}
        for name in list(known)[:len(arguments)]:
            chosen.pop(name, None)
        return function(*arguments, **{**chosen, **{name: value for name, value in more.items() if value is not None}})


def _of_size(found: Mapping[str, Any], size: tuple[int, int]) -> bool:
    """Whether a result is of a picture of this size; that of the frame before need not be."""
    for key in ('id_map', 'label_map'):
        if key in found:
            return found[key].shape == size
    masks = found['masks']
    if not len(masks):
        return True
    return tuple(masks[0]['size'] if isinstance(masks[0], Mapping) else np.shape(masks[0])) == size
