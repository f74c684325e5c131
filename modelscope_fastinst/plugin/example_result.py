"""The example of a model card, and a picture of what the model finds in it."""
from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

QUALITY = 90


def result_picture(image: np.ndarray, found: Mapping[str, Any], classes: Sequence[str]) -> bytes:
    """A result of any task, drawn over its picture: a JPEG.

    Args:
        image: uint8 ``[H, W, 3]``, RGB.
        found: by ``pipeline()``, of the same size.
        classes: names of the model's classes.
    """
    from PIL import Image

    from modelscope_fastinst.visualize import draw_result
    drawn = draw_result(image, found, classes)
    content = io.BytesIO()
    Image.fromarray(drawn).save(content, format='JPEG', quality=QUALITY, subsampling=0)   # coloured lines stay sharp
    return content.getvalue()


def result_counts(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How much of what was found: [('12', 'nucleus')] for instances and segments, [('71%', 'sky')] for a semantic map.

    The most frequent first.
    """
    if 'label_map' not in found:
        return [(str(number), label) for label, number in Counter(found['labels']).most_common()]
    present = sorted(set(found['label_map'][found['label_map'] >= 0].tolist()))
    areas = [((found['label_map'] == index).mean(), label) for index, label in zip(present, found['labels'],
                                                                                   strict=True)]
    return [(f'{area:.0%}', label) for area, label in sorted(areas, reverse=True)]
