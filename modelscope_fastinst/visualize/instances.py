"""Pictures of instances: a translucent fill, a crisp outline, and a tag with label and score."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modelscope_fastinst.visualize.colors import palette
from modelscope_fastinst.visualize.shapes import Shape, as_mask, fill, outline, resized, unit_of
from modelscope_fastinst.visualize.tags import warn_of_missing_glyphs, with_tags

COLOR_BY = ('instance', 'class')


def draw_instances(image: np.ndarray, scores: Sequence[float] | None, labels: Sequence[str], masks: Any,
                   boxes: Any = None, *, color_by: str = 'instance', classes: Sequence[str] | None = None,
                   scale: float = 1.0, tags: bool = True, font: str | Path | None = None,
                   colors: Sequence[tuple[int, int, int]] | None = None) -> np.ndarray:
    """Draw instances over an image.

    Tags keep clear of one another: the best instances get theirs first, and small objects in a crowd get none.

    Args:
        image: uint8 ``[H, W, 3]``, RGB. Not changed.
        scores: one an instance, in [0, 1]; None to leave them out (ground truth).
        labels: one class name an instance.
        masks: ``[N, H, W]`` or a sequence of ``[H, W]`` arrays (anything but 0 is inside), or COCO RLE dicts.
        boxes: accepted so that a whole result can be passed; what is drawn follows the masks.
        color_by: 'instance' for a colour an instance, 'class' for a colour a class.
        classes: all class names, so that a class has the same colour in every picture; None for those of this image.
        scale: draw at this multiple of the image's size; small images gain from 2 or 3.
        tags: whether to write labels and scores.
        font: TrueType font file for labels in scripts that Pillow's built-in font does not have, such as Chinese.
            Without it such characters become boxes, and a warning says so, once in a process.
        colors: one RGB colour an instance, instead of those of ``color_by``.

    Returns:
        uint8 RGB picture of the image's size times ``scale``.

    Raises:
        ValueError: an image that is not uint8 RGB, numbers of labels, scores, masks or boxes that differ, a mask of
            another size, or an unknown ``color_by``.
    """
    _check(image, scores, labels, masks, boxes, color_by)
    if tags and font is None:
        warn_of_missing_glyphs(labels)
    height, width = image.shape[:2]
    canvas = resized(image, scale)
    colors = _colors_of(labels, color_by, classes) if colors is None else colors
    objects = []
    for number, (label, mask) in enumerate(zip(labels, masks, strict=True)):
        mask = as_mask(mask)
        if mask.shape != (height, width):
            raise ValueError(f'mask {number} is {mask.shape[0]} x {mask.shape[1]} pixels, the image {height} x {width}')
        score = None if scores is None else float(scores[number])
        objects.append(Shape.build(mask, canvas.shape[:2], label, score, colors[number]))
    line = max(1, round(unit_of(canvas) * 1.6))
    # Small objects lie on top of large ones.
    for item in sorted(objects, key=lambda item: -item.area):
        fill(canvas, item)
    for item in sorted(objects, key=lambda item: -item.area):
        outline(canvas, item, line)
    return with_tags(canvas, objects, font) if tags else canvas


def check_image(image: np.ndarray) -> None:
    """Raises ValueError for what is no uint8 RGB image."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f'the image must be uint8 [H, W, 3]; got {image.dtype} {image.shape}')


def _check(image: np.ndarray, scores: Any, labels: Sequence[str], masks: Any, boxes: Any, color_by: str) -> None:
    check_image(image)
    if color_by not in COLOR_BY:
        raise ValueError(f'color_by is {color_by!r}; it must be one of {", ".join(COLOR_BY)}')
    for name, items in (('scores', scores), ('masks', masks), ('boxes', boxes)):
        if items is not None and len(items) != len(labels):
            raise ValueError(f'{len(items)} {name} for {len(labels)} labels')


def _colors_of(labels: Sequence[str], color_by: str, classes: Sequence[str] | None) -> list[tuple[int, int, int]]:
    if color_by == 'instance':
        return palette(len(labels))
    names = list(dict.fromkeys([*(classes or ()), *sorted(set(labels))]))
    colors = dict(zip(names, palette(len(names)), strict=True))
    return [colors[label] for label in labels]
