"""Pascal VOC style: ``SegmentationObject/*.png``, in which each pixel's value (or colour) is the number of its object.

What class an object has is seen, in this order: from ``SegmentationClass/*.png`` where a file names its values
(``class_names.txt`` of LabelMe's converter, ``labelmap.txt`` of CVAT, ``labels.txt``); from ``Annotations/*.xml``, of
which the n-th object is number n in the picture; from the values of ``SegmentationClass`` alone (``class 1``); else all
are of one class, ``object``. 0 or black is background, 255 or (224, 224, 192) is void; both are no object. Images are
in ``JPEGImages``, lists of the splits in ``ImageSets/Segmentation``. EXIF: the size of the map says how its picture was
seen.

Source: http://host.robots.ox.ac.uk/pascal/VOC/voc2012/ (development kit)
"""
from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from modelscope_fastinst.data.image import ImageError
from modelscope_fastinst.data.records import DatasetError, DatasetProblem

from .files import ImageFinder, fitting_size, join, relative_name, walk
from .instance_maps import encode_map, merge_colors, read_map, values_inside
from .listing import Entry, Listing
from .partition import split_of_name, split_of_path
from .source import Collector, Source

LOOKED_FOR = 'voc: SegmentationObject/*.png and JPEGImages/'
_NAME_FILES = ('class_names.txt', 'labelmap.txt', 'labels.txt', 'classes.txt')
_BACKGROUND = ('background', '_background_', '__background__')
_VOID, _VOID_COLOR = 255, 224 << 16 | 224 << 8 | 192
_IMAGE_FOLDERS = ('JPEGImages', 'images', 'Images', '')


@dataclass
class Classes:
    """What the values of SegmentationClass mean.

    Attributes:
        of_value: value -> name; empty where nothing says.
        of_color: colour as 0xRRGGBB -> name.
        by_annotation: ask the XML files instead.
    """
    of_value: dict[int, str] = field(default_factory=dict)
    of_color: dict[int, str] = field(default_factory=dict)
    by_annotation: bool = False


@dataclass
class Place:
    """The files of one image: its object map, class map and XML file; None where there is none."""
    objects: str
    classes: str | None
    annotation: str | None


def matches(root: str) -> bool:
    """Whether the folder, or a folder in it, holds SegmentationObject."""
    return next(_bases(root), None) is not None


def find(root: str) -> Listing:
    """All images with an object map, by the lists of the splits, or by the folder of a split in which they are.

    Raises:
        DatasetError: no folder of object maps, or a list of class names that cannot be used.
    """
    listing = Listing(root)
    bases = list(_bases(root))
    if not bases:
        raise DatasetError(f'{root}: no folder SegmentationObject; looked for {LOOKED_FOR}')
    for base in bases:
        _find_images(listing, base, split_of_path(f'{relative_name(base, root)}/image'))
    _find_classes(listing, bases)
    return listing


def _find_images(listing: Listing, base: str, split: str | None) -> None:
    finder = ImageFinder()
    split_of, listed = _lists(base)
    seen = set()
    for folder, _, files in walk(join(base, 'SegmentationObject')):
        for name in files:
            relative = f'{folder}/{name}' if folder else name
            stem, suffix = os.path.splitext(relative)
            if suffix.lower() != '.png' or listed is not None and stem not in listed:
                continue
            seen.add(stem)
            objects = join(base, f'SegmentationObject/{relative}')
            image = next(filter(None, (finder.find(os.path.dirname(join(base, f'{one}/{stem}' if one else stem)),
                                                   os.path.basename(stem)) for one in _IMAGE_FOLDERS)), None)
            if image is None:
                listing.problems.append(DatasetProblem(objects, 'image', f'no image {stem}.* in JPEGImages',
                                                       'missing-image'))
                continue
            place = Place(objects, *(path if os.path.isfile(path) else None for path in (
                join(base, f'SegmentationClass/{relative}'), join(base, f'Annotations/{stem}.xml'))))
            listing.add(split_of.get(stem, split), Entry(image, place))
    for stem in sorted(set(split_of) - seen):
        if split_of[stem] != 'test':    # VOC keeps the masks of its test images to itself
            listing.problems.append(DatasetProblem(join(base, 'ImageSets/Segmentation'), stem,
                                                   f'is listed, but there is no SegmentationObject/{stem}.png'))


def read(listing: Listing, entries: list[Entry]) -> Source:
    """See ``reading.read_source``."""
    collector = Collector('voc', listing.root, listing.classes)
    for entry in entries:
        place: Place = entry.annotation
        try:
            numbers = _flat(read_map(place.objects, place.objects), place.objects)
            size = fitting_size(entry.image, numbers.shape)
            kinds = None
            if place.classes is not None and not listing.extra.by_annotation:
                kinds = read_map(place.classes, place.classes)
                if kinds.shape[:2] != numbers.shape:
                    raise ImageError(f'{place.classes}: is {kinds.shape[1]} x {kinds.shape[0]} pixels, the object map '
                                     f'{numbers.shape[1]} x {numbers.shape[0]}', 'size-mismatch')
        except ImageError as error:
            collector.problem(place.objects, 'image', error)
            continue
        image_id = collector.image(entry.image, size, f'{place.objects}: image')
        names = _annotated_names(place.annotation) if listing.extra.by_annotation else []
        for value, rle in encode_map(numbers).items():
            item = f'object {value}'
            try:
                if listing.extra.by_annotation:
                    name = _annotated(names, value, place)
                else:
                    name = _class_of(rle, kinds, listing.extra)
            except ValueError as error:
                collector.problem(place.objects, item, error)
                continue
            collector.object(image_id, name, rle, f'{place.objects}: {item}')
    return collector.source


def _bases(root: str) -> Iterator[str]:
    for folder, folders, _ in walk(root, 4):
        if 'SegmentationObject' in folders:
            yield join(root, folder) if folder else root


def _flat(numbers: np.ndarray, name: str) -> np.ndarray:
    """Object numbers ``[H, W]``, 0 for all that is no object; of a coloured map the colours' places in VOC's palette,
    or where others are used, the colours as 0xRRGGBB."""
    if numbers.ndim == 3:
        colors, places = np.unique(merge_colors(numbers), return_inverse=True)
        number_of = {color: number for number, color in enumerate(_palette())}
        known = all(color in number_of for color in colors.tolist())
        values = np.array([number_of[color] if known else color for color in colors.tolist()])
        values[colors == _VOID_COLOR] = 0
        return values[places].reshape(numbers.shape[:2])
    if numbers.dtype == np.uint8:
        return np.where(numbers == _VOID, 0, numbers)
    if numbers.dtype.kind not in 'bui':
        raise ImageError(f'{name}: pixels are {numbers.dtype}; a map of objects holds whole numbers')
    return numbers


def _class_of(rle: dict, kinds: np.ndarray | None, classes: Classes) -> str:
    """The class that most pixels of an object have.

    Raises:
        ValueError: none.
    """
    if kinds is None:
        if classes.of_value:
            raise ValueError('has no class: SegmentationClass has no file for this image')
        return 'object'
    colored = kinds.ndim == 3
    values = values_inside(rle, merge_colors(kinds) if colored else kinds)
    counts = Counter(dict(zip(*(part.tolist() for part in np.unique(values, return_counts=True)), strict=True)))
    void = (0, _VOID_COLOR) if colored else (0, _VOID)
    value = next((value for value, _ in counts.most_common() if value not in void), None)
    if value is None:
        raise ValueError('has no class: SegmentationClass is background all over it')
    name = classes.of_color.get(value) if colored else classes.of_value.get(value)
    if name is None:
        raise ValueError(f'has the unknown class {f"colour #{value:06x}" if colored else value}; it is in no list of '
                         'the names')
    return name


def _annotated(names: list[str], number: int, place: Place) -> str:
    if place.annotation is None:
        raise ValueError('has no class: Annotations has no .xml file for this image')
    if number > len(names):
        raise ValueError(f'has no class: {place.annotation} has {len(names)} objects')
    return names[number - 1]


def _annotated_names(file: str | None) -> list[str]:
    """The class names of an XML file's objects, in order."""
    from xml.etree import ElementTree
    if file is None:
        return []
    try:
        tree = ElementTree.parse(file)
    except (OSError, ElementTree.ParseError) as error:
        raise DatasetError(f'{file}: is not valid XML ({error})') from error
    return [(one.findtext('name') or '').strip() or 'object' for one in tree.getroot().findall('object')]


def _lists(base: str) -> tuple[dict[str, str], set[str] | None]:
    """-> the split of each listed image, and all that are to be used (None: all there are)"""
    split_of: dict[str, str] = {}
    listed: set[str] | None = None
    folder = join(base, 'ImageSets/Segmentation')
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        stem, suffix = os.path.splitext(name)
        if suffix.lower() != '.txt':
            continue
        with open(os.path.join(folder, name), encoding='utf-8-sig') as stream:
            names = [line.split()[0] if len(line.split()) == 1 else line.strip() for line in stream if line.strip()]
        listed = (listed or set()) | set(names)
        split = split_of_name(stem)
        if split is not None:
            for one in names:
                split_of.setdefault(one, split)
    return split_of, listed


def _find_classes(listing: Listing, bases: list[str]) -> None:
    """Finds out what the values of SegmentationClass mean."""
    places = [entry.annotation for entries in listing.parts.values() for entry in entries]
    listing.extra = Classes()
    with_classes = any(place.classes for place in places)
    name_file = next((path for folder in (*bases, listing.root) for path in (
        os.path.join(folder, name) for name in _NAME_FILES) if os.path.isfile(path)), None)
    if with_classes and name_file is not None:
        listing.extra = _read_names(name_file)
        listing.classes = list(listing.extra.of_value.values())
        return
    listing.observed_classes = True
    annotations = [place.annotation for place in places if place.annotation is not None]
    if annotations:
        listing.extra.by_annotation = True
        listing.classes = sorted({name for file in annotations for name in _annotated_names(file)})
    elif with_classes:
        numbers: set[int] = set()
        for place in places:
            if place.classes is not None:
                numbers.update(_values(place.classes))
        colors = _palette()
        names = {number: f'class {number}' for number in sorted(numbers)}
        listing.extra = Classes(names, {colors[number]: name for number, name in names.items() if number < 256})
        listing.classes = list(names.values())
        listing.notes.append(f'{listing.root}: no class_names.txt, labelmap.txt or Annotations name the classes; they '
                             'are called by their numbers')
    else:
        listing.classes = ['object']


def _values(file: str) -> Iterator[int]:
    """The class numbers in a class map; a damaged one is reported when it is read."""
    try:
        kinds = read_map(file, file)
    except ImageError:
        return iter(())
    if kinds.ndim == 3:
        number_of = {color: number for number, color in enumerate(_palette())}
        return iter([number_of[one] for one in np.unique(merge_colors(kinds)).tolist()
                     if one != _VOID_COLOR and number_of.get(one)])
    return iter([one for one in np.unique(kinds).tolist() if one not in (0, _VOID)])


def _read_names(file: str) -> Classes:
    """A list of class names, one a line; CVAT's with colours: ``name:r,g,b:parts:actions``."""
    with open(file, encoding='utf-8-sig') as stream:
        lines = [line.strip() for line in stream if line.strip() and not line.startswith('#')]
    palette = _palette()
    colors: list[int | None] = []
    names = []
    for line in lines:
        name, _, rest = line.partition(':')
        parts = rest.split(':')[0].split(',')
        given = len(parts) == 3 and all(part.strip().isdecimal() for part in parts)
        names.append(name if given else line)
        colors.append(sum(int(part) << shift for part, shift in zip(parts, (16, 8, 0), strict=True)) if given else None)
    if names and names[0] == '__ignore__':
        names, colors = names[1:], colors[1:]
    first = 0 if any(name.lower() in _BACKGROUND for name in names[:1]) else 1
    if any(color is not None for color in colors):
        first = 0      # CVAT lists the background wherever it likes, and numbers the lines
    classes = Classes()
    for number, (name, color) in enumerate(zip(names, colors, strict=True), first):
        if name.lower() in _BACKGROUND:
            continue
        if name in classes.of_value.values():
            raise DatasetError(f'{file}: {name!r} is listed twice')
        classes.of_value[number] = name
        classes.of_color[palette[number] if color is None and number < 256 else color] = name
    if not classes.of_value:
        raise DatasetError(f'{file}: names no class')
    return classes


def _palette() -> list[int]:
    """The 256 colours of VOC's palette, 0xRRGGBB: the bits of the number, dealt out to red, green and blue."""
    colors = []
    for number in range(256):
        red = green = blue = 0
        for place in range(8):
            red |= (number >> 3 * place & 1) << 7 - place
            green |= (number >> 3 * place + 1 & 1) << 7 - place
            blue |= (number >> 3 * place + 2 & 1) << 7 - place
        colors.append(red << 16 | green << 8 | blue)
    return colors
