"""Pictures of instances: a translucent fill, an outline that shows on any background, a tag with label and score."""
from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from modelscope_fastinst.visualize.colors import class_colors, instance_colors
from modelscope_fastinst.visualize.shapes import FILL, Shape, fill, frame, outline, resized, size_of, widths_of
from modelscope_fastinst.visualize.tags import with_tags

COLOR_BY = ('instance', 'class')


def draw_instances(image: np.ndarray, scores: Sequence[float] | None, labels: Sequence[str], masks: Any,
                   boxes: Any = None, *, color_by: str = 'instance', classes: Sequence[str] | None = None,
                   scale: float = 1.0, tags: bool = True, font: str | Path | None = None,
                   colors: Sequence[tuple[int, int, int]] | None = None, opacity: float | None = None,
                   outline: bool = True, boxes_drawn: bool = False,
                   highlight: int | Sequence[int] | None = None) -> np.ndarray:
    """Draw instances over an image.

    Outlines are pairs of a coloured and a black or white line, so that they show on any background. Tags keep clear of
    one another and of the picture's border; names that are too long for it are shortened. The best instances get
    theirs first; among many, names give way to scores where room is short, and small objects get no tag.

    Args:
        image: uint8 ``[H, W, 3]``, RGB. Not changed.
        scores: one an instance, in [0, 1]; None to leave them out (ground truth).
        labels: one class name an instance; any text will do.
        masks: ``[N, H, W]`` or a sequence of ``[H, W]`` arrays (anything but 0 is inside), or COCO RLE dicts.
        boxes: xyxy in pixels, one an instance, for ``boxes_drawn``; what else is drawn follows the masks.
        color_by: 'instance' for a colour an instance, 'class' for a colour a class.
        classes: all class names, so that a class has the same colour in every picture; None for those of this image.
        scale: draw at this multiple of the image's size; small images gain from 2 or 3.
        tags: whether to write labels and scores.
        font: TrueType font file to write them in. What it lacks, and everything without it, comes from the fonts that
            Pillow, Matplotlib and this package bring (Latin, Greek, Cyrillic, Chinese, Japanese and more), and then
            from the system's; a character that none has is warned of, once in a process, and drawn as a box.
        colors: one RGB colour an instance, instead of those of ``color_by``.
        opacity: of the fill, 0 (none) to 1; None for 0.38.
        outline: whether to draw outlines.
        boxes_drawn: whether to draw boxes as well: those given, else the masks' bounds.
        highlight: index or indices of instances that are to stand out: they get thick outlines and their tags, the rest
            of the picture loses its colour, and the other instances are hinted at.

    Returns:
        uint8 RGB picture of the image's size times ``scale``.

    Raises:
        ValueError: an image that is not uint8 RGB, numbers of labels, scores, masks, boxes or colours that differ, a
            mask of another size, an unknown ``color_by``, an opacity out of range, or a highlight that is no instance.
    """
    _check(image, scores, labels, masks, boxes, colors, color_by, opacity)
    canvas = resized(image, scale)
    colors = _colors_of(labels, color_by, classes) if colors is None else [tuple(map(int, color)) for color in colors]
    objects = []
    for number, (label, mask) in enumerate(zip(labels, masks, strict=True)):
        if size_of(mask) != image.shape[:2]:
            raise ValueError(f'mask {number} is {" x ".join(map(str, size_of(mask)))} pixels, the image '
                             f'{image.shape[0]} x {image.shape[1]}')
        score = None if scores is None else float(scores[number])
        try:
            objects.append(Shape.build(mask, image.shape[:2], canvas.shape[:2], label, score, colors[number],
                                       FILL if opacity is None else opacity))
        except ValueError as error:
            raise ValueError(f'mask {number}: {error}') from error
    chosen = _chosen(highlight, len(objects))
    frames = _frames(objects, boxes, canvas, image) if boxes_drawn else None
    if chosen is None:
        _draw(canvas, objects, frames, outline)
    else:
        _draw_highlighted(canvas, objects, frames, outline, chosen)
        objects = [objects[number] for number in chosen]
    return with_tags(canvas, objects, font, always=chosen is not None) if tags else canvas


def check_image(image: np.ndarray) -> None:
    """Raises ValueError for what is no uint8 RGB image."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f'the image must be uint8 [H, W, 3]; got {image.dtype} {image.shape}')


def _draw(canvas: np.ndarray, objects: Sequence[Shape], frames: Sequence[Any] | None, outlined: bool) -> None:
    line, edge = widths_of(canvas)
    # Small objects lie on top of large ones.
    order = sorted(range(len(objects)), key=lambda number: -objects[number].area)
    for number in order:
        fill(canvas, objects[number])
    for number in order:
        if outlined:
            outline(canvas, objects[number], line, edge)
        if frames is not None and objects[number].area:
            frame(canvas, frames[number], objects[number].color, max(1, line // 2), edge)


def _draw_highlighted(canvas: np.ndarray, objects: Sequence[Shape], frames: Sequence[Any] | None, outlined: bool,
                      chosen: Sequence[int]) -> None:
    import cv2
    line, edge = widths_of(canvas)
    kept = {number: objects[number].window(canvas).copy() for number in chosen}
    # Grey, and nearer to one tone: whatever the picture is, what keeps its colours and contrast now stands out.
    grey = cv2.cvtColor(canvas, cv2.COLOR_RGB2GRAY)
    cv2.cvtColor(cv2.addWeighted(grey, 0.55, grey, 0, 40), cv2.COLOR_GRAY2RGB, canvas)
    for number in sorted(set(range(len(objects))) - set(chosen), key=lambda number: -objects[number].area):
        objects[number].opacity /= 3
        fill(canvas, objects[number])
        outline(canvas, objects[number], max(1, line // 2))
    for number in chosen:
        if objects[number].area:
            cv2.copyTo(kept[number], objects[number].crop.view(np.uint8), objects[number].window(canvas))
            objects[number].opacity *= 0.5
            fill(canvas, objects[number])
    for number in chosen:
        outline(canvas, objects[number], 2 * line, 2 * edge)
        if frames is not None and objects[number].area:
            frame(canvas, frames[number], objects[number].color, line, edge)


def _frames(objects: Sequence[Shape], boxes: Any, canvas: np.ndarray, image: np.ndarray) -> list[Any]:
    """Boxes to draw, xyxy in pixels of the canvas."""
    if boxes is None:
        return [(item.left, item.top, item.left + item.crop.shape[1], item.top + item.crop.shape[0])
                for item in objects]
    down, right = (canvas.shape[axis] / image.shape[axis] for axis in (0, 1))
    return list(np.asarray(boxes, np.float64).reshape(-1, 4) * (right, down, right, down))


def _chosen(highlight: int | Sequence[int] | None, number: int) -> list[int] | None:
    if highlight is None:
        return None
    chosen = [highlight] if isinstance(highlight, Integral) else list(highlight)
    for index in chosen:
        if not isinstance(index, Integral) or not 0 <= index < number:
            raise ValueError(f'highlight is {index!r}; there are {number} instances, counted from 0')
    return [int(index) for index in dict.fromkeys(chosen)]


def _check(image: np.ndarray, scores: Any, labels: Sequence[str], masks: Any, boxes: Any, colors: Any, color_by: str,
           opacity: float | None) -> None:
    check_image(image)
    if color_by not in COLOR_BY:
        raise ValueError(f'color_by is {color_by!r}; it must be one of {", ".join(COLOR_BY)}')
    if opacity is not None and not 0 <= opacity <= 1:
        raise ValueError(f'opacity is {opacity!r}; it must be from 0 to 1')
    for name, items in (('scores', scores), ('masks', masks), ('boxes', boxes), ('colors', colors)):
        if items is not None and len(items) != len(labels):
            raise ValueError(f'{len(items)} {name} for {len(labels)} labels')


def _colors_of(labels: Sequence[str], color_by: str, classes: Sequence[str] | None) -> list[tuple[int, int, int]]:
    if color_by == 'instance':
        return instance_colors(len(labels))
    colors = class_colors([*(classes or ()), *sorted(set(labels))])
    return [colors[label] for label in labels]
