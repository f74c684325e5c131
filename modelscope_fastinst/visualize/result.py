"""The picture of a pipeline's result, whatever its task."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modelscope_fastinst.visualize.instances import draw_instances
from modelscope_fastinst.visualize.maps import draw_panoptic, draw_semantic


def draw_result(image: np.ndarray, found: Mapping[str, Any], classes: Sequence[str], *, color_by: str = 'instance',
                **look: Any) -> np.ndarray:
    """Draw what ``pipeline()`` found over its picture.

    Args:
        image: uint8 ``[H, W, 3]``, RGB. Not changed.
        found: a result of any task, of the same size.
        classes: names of the model's classes.
        color_by: of instances, see `draw_instances`.
        **look: ``scale``, ``tags`` and ``font``, which pictures of all tasks have.

    Returns:
        uint8 RGB picture of the image's size times ``scale``.
    """
    if 'id_map' in found:
        return draw_panoptic(image, found['id_map'], found['segments'], classes=classes, **look)
    if 'label_map' in found:
        return draw_semantic(image, found['label_map'], classes, **look)
    return draw_instances(image, found['scores'], found['labels'], found['masks'], found['boxes'],
                          color_by=color_by, classes=classes, **look)
