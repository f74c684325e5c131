"""Pictures of panoptic and semantic maps: every class in its colour, objects told apart, names where there is room."""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modelscope_fastinst.visualize.colors import palette, shade
from modelscope_fastinst.visualize.instances import check_image
from modelscope_fastinst.visualize.shapes import Shape, fill, outline, resized, widths_of, within_bounds
from modelscope_fastinst.visualize.tags import with_tags

_THING, _STUFF, _CLASS = 0.5, 0.45, 0.5   # opacities
_STUFF_CHROMA, _CLASS_CHROMA = 0.06, 0.13
_LARGEST = 2 ** 16   # ids above this are looked for one by one


def draw_panoptic(image: np.ndarray, id_map: np.ndarray, segments: Sequence[Mapping[str, Any]], *,
                  classes: Sequence[str] | None = None, scale: float = 1.0, tags: bool = True,
                  font: str | Path | None = None, turns: Mapping[int, int] | None = None) -> np.ndarray:
    """Draw a panoptic map over an image.

    Stuff is greyish and bears its name inside; objects are bright, have outlines and scores. Objects of one class have
    colours near each other. Void stays as it is.

    Args:
        image: uint8 ``[H, W, 3]``, RGB. Not changed.
        id_map: integer ``[H, W]``: segment ids, 0 for void.
        segments: of the pipeline's result: ``id``, ``label`` (a name), ``isthing`` and, where it is known, ``score``.
        classes: all class names, so that a class has the same colour in every picture; None for those of this image.
        scale, tags, font: see `draw_instances`.
        turns: of a video: by the id of a segment, which object of its class it is, from 0, so that it keeps its shade;
            None to count them in their order.

    Returns:
        uint8 RGB picture of the image's size times ``scale``.

    Raises:
        ValueError: an image that is not uint8 RGB, or a map of another size.
    """
    _check_map(image, id_map, 'id_map')
    places = _places(classes, [segment['label'] for segment in segments])
    muted = palette(len(places), _STUFF_CHROMA)
    seen: Counter[str] = Counter()
    canvas = resized(image, scale)
    things, stuff = [], []
    for segment, mask in zip(segments, _parts(id_map, [segment['id'] for segment in segments]), strict=True):
        label = segment['label']
        if segment['isthing']:
            color = shade(places[label], seen[label] if turns is None else turns[segment['id']])
            seen[label] += 1
            things.append(Shape.build(mask, id_map.shape, canvas.shape[:2], label, segment.get('score'), color,
                                      _THING))
        else:
            stuff.append(Shape.build(mask, id_map.shape, canvas.shape[:2], label, None, muted[places[label]], _STUFF,
                                     inside=True))
    return _drawn(canvas, things, stuff, tags, font)


def draw_semantic(image: np.ndarray, label_map: np.ndarray, classes: Sequence[str], *, scale: float = 1.0,
                  tags: bool = True, font: str | Path | None = None) -> np.ndarray:
    """Draw a semantic map over an image: every class in its colour, the same in every picture.

    Args:
        image: uint8 ``[H, W, 3]``, RGB. Not changed.
        label_map: integer ``[H, W]``: indices into ``classes``; other values are void and stay as they are.
        classes: all class names.
        scale, tags, font: see `draw_instances`.

    Returns:
        uint8 RGB picture of the image's size times ``scale``.

    Raises:
        ValueError: an image that is not uint8 RGB, or a map of another size.
    """
    _check_map(image, label_map, 'label_map')
    colors = palette(len(classes), _CLASS_CHROMA)
    canvas = resized(image, scale)
    regions = [Shape.build(part, label_map.shape, canvas.shape[:2], name, None, color, _CLASS, inside=True)
               for name, color, part in zip(classes, colors, _parts(label_map, range(len(classes))), strict=True)
               if part[0].size]
    return _drawn(canvas, [], regions, tags, font)


def _parts(values: np.ndarray, wanted: Sequence[int]) -> Iterator[tuple[np.ndarray, int, int]]:
    """Where each of some values is: bool within its bounds, and their top and left; see `shapes.within_bounds`.

    All bounds are found together, because a look at the whole map for each takes long on a large one.
    """
    from scipy.ndimage import find_objects
    bounds = None
    if values.dtype.kind in 'iu' and min(wanted, default=0) >= 0 and max(wanted, default=0) < _LARGEST:
        counted = values.astype(np.promote_types(values.dtype, np.int32)) + 1   # from 1 on, as SciPy counts
        bounds = find_objects(counted, max(wanted, default=0) + 1)
    for value in wanted:
        if bounds is None:
            yield within_bounds(values == value)
        elif bounds[value] is None:
            yield np.zeros((0, 0), np.bool_), 0, 0
        else:
            rows, columns = bounds[value]
            yield values[rows, columns] == value, rows.start, columns.start


def _drawn(canvas: np.ndarray, things: list[Shape], stuff: list[Shape], tags: bool,
           font: str | Path | None) -> np.ndarray:
    line, edge = widths_of(canvas)
    for item in (*stuff, *things):
        fill(canvas, item)
    for item in stuff:
        outline(canvas, item, 1)
    for item in sorted(things, key=lambda item: -item.area):
        outline(canvas, item, line, edge)
    return with_tags(canvas, [*things, *stuff], font) if tags else canvas


def _check_map(image: np.ndarray, values: np.ndarray, name: str) -> None:
    check_image(image)
    if values.shape != image.shape[:2]:
        size = ' x '.join(map(str, values.shape))
        raise ValueError(f'{name} is {size} pixels, the image {image.shape[0]} x {image.shape[1]}')


def _places(classes: Sequence[str] | None, labels: Sequence[str]) -> dict[str, int]:
    """Which place in the palette each class name has."""
    names = dict.fromkeys([*(classes or ()), *sorted(set(labels))])
    return {name: place for place, name in enumerate(names)}
