"""How a result is shown: the overlay on the picture."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np

from modelscope_fastinst.studio.segmentation import Segmentation


@dataclass(frozen=True)
class Look:
    """What a visitor chooses of the overlay; see ``visualize.draw_instances``.

    Attributes:
        color_by: 'instance' or 'class'.
        opacity: of the fill, in [0, 1]; None for the default.
        outline, boxes_drawn, tags: whether to draw outlines, boxes, and labels with scores.
    """
    color_by: str = 'instance'
    opacity: float | None = None
    outline: bool = True
    boxes_drawn: bool = False
    tags: bool = True

    def options(self) -> dict[str, Any]:
        """Those that are not the defaults of ``draw_instances``, by its names."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__
                if getattr(self, name) != getattr(Look, name)}


def draw(segmentation: Segmentation, look: Look | None = None, highlight: int | None = None,
         longest: int | None = None) -> np.ndarray:
    """The picture with what was found in it.

    Args:
        look: how.
        highlight: index of the instance that stands out, from 0; None for none.
        longest: the longest side of what is drawn, in pixels, where the picture has more; None for its own size.

    Returns:
        uint8 RGB ``[H, W, 3]``, of the picture's size times ``scale_of(segmentation, longest)``.

    Raises:
        Refused: 'expired'.
    """
    from modelscope_fastinst.visualize import draw_instances, draw_panoptic, draw_semantic
    look = Look() if look is None else look
    result, image = segmentation.result, segmentation.image
    chosen = {'classes': segmentation.classes, 'scale': scale_of(segmentation, longest)}
    # A segment that stands out is drawn as an object; so are boxes, which maps do not have.
    plain = highlight is None and not look.boxes_drawn
    if segmentation.task == 'panoptic' and plain:
        return draw_panoptic(image, segmentation.id_map(), result['segments'], **chosen,
                             **_known(draw_panoptic, look))
    if segmentation.task == 'semantic' and plain:
        return draw_semantic(image, segmentation.label_map(), **chosen, **_known(draw_semantic, look))
    if highlight is not None and 0 <= highlight < len(segmentation):
        chosen['highlight'] = int(highlight)
    return draw_instances(image, result['scores'], result['labels'], result['masks'], result['boxes'], **chosen,
                          **look.options())


def _known(function: Callable[..., Any], look: Look) -> dict[str, Any]:
    """Of a look what a map has a use for."""
    return {name: value for name, value in look.options().items() if name in signature(function).parameters}


def scale_of(segmentation: Segmentation, longest: int | None) -> float:
    """By what the drawn picture is smaller than the picture: 1 for its own size, never more."""
    return 1.0 if longest is None else min(1.0, longest / max(segmentation.size))
