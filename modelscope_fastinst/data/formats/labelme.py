"""LabelMe: a JSON file an image, beside it, with shapes as lists of points.

Polygons, rectangles, circles and masks are objects; shapes of one label and one ``group_id`` are parts of one object.
Classes are the labels of the whole data set, sorted. EXIF: LabelMe shows pictures upright and notes that size; old
versions did not, which shows in the size (``CocoInstances``). A picture that lies nowhere is taken from ``imageData``.
An image without a JSON file counts as not labelled, and is left out.

Source: https://github.com/wkentaro/labelme
"""
from __future__ import annotations

import base64
import binascii
import io
import json
import math
import os
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelscope_fastinst.data.image import ImageError, image_size, read_annotated
from modelscope_fastinst.data.records import DatasetError, load_annotations
from modelscope_fastinst.data.segmentation import OutlineError

from .files import ImageFinder, fitting_size, is_image, join, walk
from .instance_maps import encode_map, read_map
from .listing import Entry, Listing
from .partition import split_of_path
from .source import Collector, Source, problem_of

LOOKED_FOR = 'labelme: .json files with "shapes" beside their images'
_NO_CLASS = ('__ignore__', '_background_')     # labels that LabelMe's own converters leave out
_FLATNESS = 0.05    # how far a circle's polygon may be from the circle, in pixels
_TRIED = 20         # .json files that are looked at to recognise the format


def matches(root: str) -> bool:
    """Whether the folder holds a LabelMe file."""
    tried = 0
    for folder, _, files in walk(root):
        for name in files:
            if name.lower().endswith('.json'):
                try:
                    with open(join(root, f'{folder}/{name}' if folder else name), encoding='utf-8-sig') as stream:
                        content = json.load(stream)
                except (OSError, ValueError, RecursionError):
                    content = None
                if _is_labelme(content):
                    return True
                tried += 1
                if tried == _TRIED:
                    return False
    return False


def find(root: str) -> Listing:
    """All images with a LabelMe file, by the folder of a split in which they are."""
    listing = Listing(root, observed_classes=True)
    finder = ImageFinder()
    labels: set[str] = set()
    used, images, others = set(), set(), 0
    for folder, _, files in walk(root):
        for name in files:
            relative = f'{folder}/{name}' if folder else name
            path = join(root, relative)
            if is_image(name):
                images.add(os.path.realpath(path))
            if not name.lower().endswith('.json'):
                continue
            try:
                content = load_annotations(path)
            except DatasetError as error:
                listing.problems.append(problem_of(path, 'file', error))
                continue
            if not _is_labelme(content):
                others += 1
                continue
            drawing = _drawing(path, content, finder)
            labels.update(shape['label'] for shape in drawing.shapes if _named(shape))
            used.add(os.path.realpath(drawing.image))
            listing.add(split_of_path(relative), Entry(drawing.image, drawing))
    listing.classes = sorted(labels - set(_NO_CLASS))
    if images - used:
        listing.notes.append(f'{root}: images without a .json file are not used, as not labelled: {len(images - used)}')
    if others:
        listing.notes.append(f'{root}: .json files that are not from LabelMe are not used: {others}')
    return listing


def read(listing: Listing, entries: list[Entry]) -> Source:
    """See ``reading.read_source``."""
    collector = Collector('labelme', listing.root, listing.classes)
    pictures = []
    for entry in entries:
        drawing = entry.annotation
        try:
            size = drawing.measure()
        except ImageError as error:
            collector.problem(drawing.file, 'image', error)
            continue
        image_id = collector.image(entry.image, size, f'{drawing.file}: image')
        pictures.append(Picture(entry.image, drawing.file, size))
        for name, segmentation, item in _objects(drawing, size, collector):
            collector.object(image_id, name, segmentation, f'{drawing.file}: {item}')
    if not all(os.path.isfile(picture.image) for picture in pictures):
        collector.source.open_image = Pictures(pictures)
    return collector.source


@dataclass
class Drawing:
    """What a LabelMe file says, without the picture in it.

    Attributes:
        file: the JSON file.
        image: the picture's file, which may not exist if it is ``embedded``.
        size: (height, width) in pixels, None if it does not say.
        shapes: its shapes.
        embedded: whether the picture is in the file.
    """
    file: str
    image: str
    size: tuple[int, int] | None
    shapes: list
    embedded: bool

    def measure(self) -> tuple[int, int]:
        """(height, width) of the picture; raises an ImageError where there is none, or one of another size."""
        if os.path.isfile(self.image):
            return fitting_size(self.image, self.size)
        if not self.embedded:
            raise ImageError(f'{self.image}: no such image file (imagePath), and no imageData', 'missing-image')
        stored, upright = image_size(_embedded(self.file), name=f'{self.file}: imageData')
        if self.size not in (None, stored, upright):
            raise ImageError(f'imageData is {upright[1]} x {upright[0]} pixels (width x height), the file says '
                             f'{self.size[1]} x {self.size[0]}', 'size-mismatch')
        return self.size or upright


@dataclass
class Picture:
    """An image file, or the LabelMe file that holds it; ``size`` is (height, width) as annotated."""
    image: str
    file: str
    size: tuple[int, int]


@dataclass
class Pictures:
    """Opens image i, from its file or out of the LabelMe file."""
    pictures: list[Picture]

    def __call__(self, index: int) -> np.ndarray:
        one = self.pictures[index]
        if os.path.isfile(one.image):
            return read_annotated(one.image, one.size)
        return read_annotated(_embedded(one.file), one.size, name=f'{one.file}: imageData')


def _embedded(file: str) -> bytes:
    """The bytes of the picture inside a LabelMe file."""
    content = load_annotations(file)
    try:
        return base64.b64decode(content['imageData'], validate=False)
    except (KeyError, TypeError, binascii.Error) as error:
        raise ImageError(f'{file}: imageData is damaged ({error})') from error


def _is_labelme(content: Any) -> bool:
    return isinstance(content, dict) and isinstance(content.get('shapes'), list) and (
        'imagePath' in content or 'imageData' in content or 'version' in content)


def _drawing(file: str, content: dict, finder: ImageFinder) -> Drawing:
    folder, stem = os.path.dirname(file), os.path.splitext(os.path.basename(file))[0]
    name = content.get('imagePath')
    name = name.replace('\\', '/') if isinstance(name, str) and name.strip() and '\0' not in name else f'{stem}.png'
    base = name.rsplit('/', 1)[-1]
    tries = [os.path.join(folder, base)]
    if not re.match(r'/|[A-Za-z]:', name):     # else it is a place on somebody else's disk
        tries.insert(0, join(folder, name))
    image = next((path for path in tries if os.path.isfile(path)), None)
    if image is None:
        image = finder.find(folder, stem) or finder.find(folder, os.path.splitext(base)[0])
    sides = content.get('imageHeight'), content.get('imageWidth')
    size = sides if all(type(side) is int and side > 0 for side in sides) else None
    shapes = [shape if isinstance(shape, dict) else {} for shape in content['shapes']]
    return Drawing(file, image or os.path.join(folder, base), size, shapes, bool(content.get('imageData')))


def _named(shape: dict) -> bool:
    return isinstance(shape.get('label'), str) and bool(shape['label'].strip())


def _objects(drawing: Drawing, size: tuple[int, int], collector: Collector) -> list[tuple[str, list | dict, str]]:
    """-> (class, segmentation, item) of each object; what is none goes to the collector's problems."""
    parts: dict[tuple, list[tuple[int, list | dict]]] = {}
    for index, shape in enumerate(drawing.shapes):
        try:
            if not _named(shape):
                raise ValueError(f'label must be a non-empty string, got {shape.get("label")!r}')
            if shape['label'] in _NO_CLASS:
                continue
            outline = _outline(shape, size)
        except ValueError as error:
            collector.problem(drawing.file, f'shape {index}', error)
            continue
        group = shape.get('group_id')
        key = (shape['label'], 'alone', index) if group is None else (shape['label'], 'group', str(group))
        parts.setdefault(key, []).append((index, outline))
    return [(key[0], _joined([outline for _, outline in members], size),
             f'shape {members[0][0]}' if len(members) == 1 else
             f'shapes {", ".join(str(index) for index, _ in members)}') for key, members in parts.items()]


def _joined(outlines: list[list | dict], size: tuple[int, int]) -> list | dict:
    """The parts of an object as one segmentation."""
    if len(outlines) == 1:
        return outlines[0]
    if not any(isinstance(outline, dict) for outline in outlines):
        return [polygon for outline in outlines for polygon in outline]
    from pycocotools import mask as coco_mask
    encoded = []
    for outline in outlines:
        encoded += [outline] if isinstance(outline, dict) else coco_mask.frPyObjects(outline, *size)
    rle = coco_mask.merge(encoded)
    return {'size': list(size), 'counts': rle['counts'].decode('ascii')}


def _outline(shape: dict, size: tuple[int, int]) -> list | dict:
    """A shape -> COCO segmentation.

    Raises:
        OutlineError: it encloses nothing, or is damaged.
    """
    kind = shape.get('shape_type') or 'polygon'
    points = _points(shape.get('points'))
    if kind in ('line', 'linestrip', 'point', 'points'):
        raise OutlineError(f'{shape["label"]!r} is a {kind}, which has no area; outline the object with a polygon')
    if kind == 'mask':
        return _mask(shape, points, size)
    if kind == 'circle':
        return [_circle(points, size)]
    if kind == 'rectangle' and len(points) == 2:
        (left, top), (right, bottom) = points
        points = [[left, top], [right, top], [right, bottom], [left, bottom]]
    elif kind not in ('polygon', 'rectangle', 'rotation', 'oriented_rectangle'):
        raise OutlineError(f'shape_type {kind!r} is not known; outline the object with a polygon')
    if len(points) < 3:
        raise OutlineError(f'{kind} has {len(points)} points, needs at least {2 if kind == "rectangle" else 3}')
    return [[coordinate for point in points for coordinate in point]]


def _points(points: Any) -> list[list[float]]:
    if not isinstance(points, list) or not all(
            isinstance(point, list) and len(point) == 2 and all(type(one) in (int, float) for one in point)
            for point in points):
        raise OutlineError(f'points must be a list of [x, y], got {str(points)[:60]}')
    return points


def _circle(points: list[list[float]], size: tuple[int, int]) -> list[float]:
    """Centre and a point of the circle -> a polygon that is hardly distinguishable from it, inside the image."""
    if len(points) != 2:
        raise OutlineError(f'circle has {len(points)} points, needs its centre and a point on it')
    (x, y), (u, v) = points
    radius = math.hypot(u - x, v - y)
    if not 0 < radius < 1e6:
        raise OutlineError(f'circle has the radius {radius:g}')
    corners = max(12, math.ceil(math.pi / math.acos(max(0.0, 1 - _FLATNESS / radius))))
    polygon = []
    for index in range(corners):
        angle = 2 * math.pi * index / corners
        polygon.append([x + radius * math.cos(angle), y + radius * math.sin(angle)])
    height, width = size
    if 0 <= x <= width and 0 <= y <= height:     # LabelMe lets a circle reach out of the picture, and cuts it off there
        polygon = [[min(max(u, 0.0), float(width)), min(max(v, 0.0), float(height))] for u, v in polygon]
    return [round(coordinate, 2) for point in polygon for coordinate in point]


def _mask(shape: dict, points: list[list[float]], size: tuple[int, int]) -> dict:
    """A bitmap and its box (first and last pixel) -> run-length encoding."""
    if len(points) != 2 or not isinstance(shape.get('mask'), str):
        raise OutlineError('mask needs two points, the corners of its box, and the bitmap "mask"')
    try:
        bitmap = read_map(io.BytesIO(base64.b64decode(shape['mask'])), 'mask')
    except (binascii.Error, ImageError) as error:
        raise OutlineError(f'the bitmap is damaged ({error})') from error
    left, top = (round(coordinate) for coordinate in points[0])
    whole = np.zeros(size, bool)
    height, width = bitmap.shape[:2]
    if min(left, top) < 0 or top + height > size[0] or left + width > size[1]:
        raise OutlineError(f'mask of {width} x {height} pixels at ({left}, {top}) is not inside its image of '
                           f'{size[1]} x {size[0]} (width x height)')
    whole[top:top + height, left:left + width] = bitmap.reshape(height, width, -1)[:, :, 0] != 0
    encoded = encode_map(whole)
    if not encoded:
        raise OutlineError('mask has no pixel')
    return encoded[1]


