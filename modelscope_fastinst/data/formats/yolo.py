"""YOLO segmentation: a text file an image, a row an object, ``class x1 y1 x2 y2 ...`` in shares of width and height.

The layout is Ultralytics': ``data.yaml`` with ``names`` and where ``train``, ``val`` and ``test`` are (folders, text
files that list images, or lists of these), labels where the path of an image has ``labels`` for ``images``; or these
folders without the file. An image without a label file is one without objects. EXIF: shares are of the upright picture,
as Ultralytics reads it. Coordinates are rounded to hundredths of a pixel, which undoes the six digits of the files.

Source: https://docs.ultralytics.com/datasets/segment/
"""
from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from modelscope_fastinst.data.image import ImageError
from modelscope_fastinst.data.records import DatasetError
from modelscope_fastinst.data.segmentation import OutlineError

from .files import fitting_size, is_image, join, relative_name, walk
from .listing import Entry, Listing
from .partition import split_of_name, split_of_path
from .source import Collector, Source

LOOKED_FOR = 'yolo: a data.yaml with names, or folders images/ and labels/'
_NAME_FILES = ('data.yaml', 'data.yml', 'classes.txt')
_KEYS = {'train': ('train',), 'val': ('val', 'valid', 'validation'), 'test': ('test',)}


def matches(root: str) -> bool:
    """Whether the folder looks like YOLO labels."""
    return _yaml_file(root) is not None or next(_label_folders(root), None) is not None


def find(root: str) -> Listing:
    """All images with their label files, by split.

    Raises:
        DatasetError: a data.yaml that cannot be used.
    """
    listing = Listing(root)
    file = _yaml_file(root)
    settings = {} if file is None else _read_yaml(file)
    for split, keys in _KEYS.items():
        key = next((key for key in keys if settings.get(key)), None)
        if key is not None:
            _add_listed(listing, split, file, key, settings)
    if not listing.parts:
        _add_folders(listing)
    names = _names(root, file, settings)
    if names is None:    # nothing says what the classes are called
        places = (join(root, f'{base}/{name}') for base in _label_folders(root) if base for name in _NAME_FILES)
        deeper = next(filter(os.path.isfile, places), None)
        if deeper is not None:
            raise DatasetError(f'{root}: {deeper} names the classes; give {os.path.dirname(deeper)} as the folder')
        numbers = {number for entries in listing.parts.values() for entry in entries
                   for number in _numbers(entry.annotation)}
        names = {number: f'class {number}' for number in sorted(numbers)}
        listing.observed_classes = True
        listing.notes.append(f'{root}: no data.yaml or classes.txt names the classes; they are called by their numbers')
    listing.extra = names
    listing.classes = [names[number] for number in sorted(names)]
    if len(set(listing.classes)) < len(listing.classes):
        twice = next(name for name in listing.classes if listing.classes.count(name) > 1)
        raise DatasetError(f'{file or root}: names: {twice!r} is the name of more than one class')
    return listing


def read(listing: Listing, entries: list[Entry]) -> Source:
    """See ``reading.read_source``."""
    collector = Collector('yolo', listing.root, listing.classes)
    boxes = 0
    for entry in entries:
        try:
            height, width = fitting_size(entry.image)
        except ImageError as error:
            collector.problem(entry.image, 'image', error)
            continue
        label_file = entry.annotation
        image_id = collector.image(entry.image, (height, width), f'{entry.image}: image')
        try:
            rows = _rows(label_file)
        except (OSError, UnicodeDecodeError) as error:
            collector.problem(label_file, 'file', f'cannot be read ({error})')
            continue
        for number, words in rows:
            try:
                index, polygon = _object(words, width, height, listing.extra)
            except _Box:
                boxes += 1
                collector.problem(label_file, f'line {number}', OutlineError(
                    'is a box (5 numbers), not an outline (class and at least 3 points); outline the object'))
            except ValueError as error:
                collector.problem(label_file, f'line {number}', error)
            else:
                collector.object(image_id, listing.extra[index], [polygon], f'{label_file}: line {number}')
    if boxes and not collector.source.content['annotations']:
        raise DatasetError(f'{listing.root}: is a detection data set: all {boxes} objects are boxes (5 numbers a row); '
                           'instance segmentation needs outlines, rows of a class and at least 3 points')
    return collector.source


class _Box(ValueError):
    """A row of a detection data set."""


def _object(words: list[str], width: int, height: int, names: Mapping[int, str]) -> tuple[int, list[float]]:
    """A row -> class number and polygon in pixels."""
    try:
        numbers = [float(word) for word in words]
    except ValueError as error:
        raise ValueError(f'{error}; a row is a class number and coordinates') from error
    if numbers[0] != numbers[0] // 1 or numbers[0] not in names:
        first = '; YOLO counts from 0' if numbers[0] == len(names) else ''
        raise ValueError(f'unknown class {words[0]}; the classes are {_range(names)}{first}')
    if len(numbers) == 5:
        raise _Box
    if len(numbers) % 2 == 0:
        raise OutlineError(f'has {len(numbers) - 1} coordinates, an odd number')
    if len(numbers) < 7:
        raise OutlineError(f'has {len(numbers) // 2} points, an outline needs at least 3')
    largest = max(numbers[1:], key=abs)
    if abs(largest) > 2:
        raise OutlineError(f'coordinate {largest:g}: coordinates must be shares of width and height, 0..1, not pixels')
    return int(numbers[0]), [round(number * (height if index % 2 else width), 2)
                             for index, number in enumerate(numbers[1:])]


def _range(names: Mapping[int, str]) -> str:
    return f'{min(names)}..{max(names)}' if names else 'none'


def _rows(file: str) -> Iterator[tuple[int, list[str]]]:
    """(line number from 1, words) of the rows that are not blank; no file has none."""
    if not os.path.isfile(file):
        return iter(())
    with open(file, encoding='utf-8-sig') as stream:
        lines = stream.read().splitlines()
    return iter([(number, line.split()) for number, line in enumerate(lines, 1) if line.strip()])


def _numbers(file: str) -> set[int]:
    """The class numbers in a label file; what is no number is reported when it is read."""
    found = set()
    try:
        for _, words in _rows(file):
            if words[0].isdecimal():
                found.add(int(words[0]))
    except (OSError, UnicodeDecodeError):
        return found
    return found


def _yaml_file(root: str) -> str | None:
    """The file that describes the data set: any YAML file with ``names``."""
    names = sorted((name for name in os.listdir(root) if name.lower().endswith(('.yaml', '.yml'))),
                   key=lambda name: (name.lower() not in ('data.yaml', 'data.yml'), name))
    for name in names:
        file = os.path.join(root, name)
        try:
            with open(file, encoding='utf-8-sig') as stream:
                text = stream.read()
        except (OSError, UnicodeDecodeError):
            continue
        if any(line.startswith('names') for line in text.splitlines()):
            return file
    return None


def _read_yaml(file: str) -> dict[str, Any]:
    import yaml
    try:
        with open(file, encoding='utf-8-sig') as stream:
            settings = yaml.safe_load(stream)
    except yaml.YAMLError as error:
        raise DatasetError(f'{file}: is not valid YAML ({" ".join(str(error).split())})') from error
    if not isinstance(settings, dict):
        raise DatasetError(f'{file}: must hold "names" and where "train" and "val" are, not a '
                           f'{type(settings).__name__}')
    return settings


def _names(root: str, file: str | None, settings: Mapping[str, Any]) -> dict[int, str] | None:
    """Class number -> name, or None if nothing says."""
    if file is not None:
        names = settings.get('names')
        if isinstance(names, (list, tuple)):
            names = dict(enumerate(names))
        try:
            named = {int(number): str(name) for number, name in names.items()}
        except (AttributeError, TypeError, ValueError) as error:
            raise DatasetError(f'{file}: names must be a list of class names, or number: name; got '
                               f'{names!r}') from error
        count = settings.get('nc')
        if isinstance(count, int) and count != len(named):
            raise DatasetError(f'{file}: nc is {count}, but names has {len(named)} classes')
        if not named:
            raise DatasetError(f'{file}: names is empty')
        return named
    for name in ('classes.txt', 'obj.names', os.path.join('labels', 'classes.txt')):
        path = os.path.join(root, name)
        if os.path.isfile(path):
            with open(path, encoding='utf-8-sig') as stream:
                lines = [line.strip() for line in stream.read().splitlines()]
            return {number: line for number, line in enumerate(lines) if line}
    return None


def _add_listed(listing: Listing, split: str, file: str, key: str, settings: Mapping[str, Any]) -> None:
    """Adds the images of a key of data.yaml."""
    values = settings[key] if isinstance(settings[key], (list, tuple)) else [settings[key]]
    base = listing.root
    if isinstance(settings.get('path'), str) and os.path.isdir(join(listing.root, settings['path'])):
        base = join(listing.root, settings['path'])
    images: list[str] = []
    missing = []
    for value in map(str, values):
        # Roboflow writes ../train/images for what lies in train/images
        tries = [join(base, value), join(listing.root, value), join(listing.root, re.sub(r'^[./\\]+', '', value))]
        path = next((one for one in tries if os.path.exists(one)), None)
        if path is None:
            missing.append(value)
        elif os.path.isdir(path):
            images += _images_in(path)
        elif is_image(path):
            images.append(path)
        else:
            images += _listed_images(path, base)
    if missing and split == 'train':
        raise DatasetError(f'{file}: {key}: {missing[0]!r} does not exist; correct the path (it is relative to this '
                           'file)')
    if missing:
        listing.notes.append(f'{file}: {key}: {missing[0]!r} does not exist')
    for image in dict.fromkeys(images):
        listing.add(split, Entry(image, _label_file(image, listing.root)))


def _images_in(folder: str) -> list[str]:
    return [os.path.join(folder, inner, name) if inner else os.path.join(folder, name)
            for inner, _, files in walk(folder) for name in files if is_image(name)]


def _listed_images(file: str, base: str) -> list[str]:
    """The images that a text file names, one a line."""
    with open(file, encoding='utf-8-sig') as stream:
        lines = [line.strip() for line in stream.read().splitlines() if line.strip()]
    found = []
    for line in lines:
        tries = [join(os.path.dirname(file), line), join(base, line)]
        found.append(next((one for one in tries if os.path.exists(one)), tries[0]))
    return found


def _label_file(image: str, root: str) -> str:
    """``images/a/1.jpg`` -> ``labels/a/1.txt``; beside the image where no folder of the data set is called images."""
    parts = relative_name(os.path.splitext(image)[0] + '.txt', root).split('/')
    if 'images' in parts[:-1]:
        parts[len(parts) - 2 - parts[-2::-1].index('images')] = 'labels'
    return join(root, '/'.join(parts))


def _add_folders(listing: Listing) -> None:
    """Adds the images of images/ and labels/, as far as they are there without a data.yaml that says so."""
    lists = [(split_of_name(os.path.splitext(name)[0]), os.path.join(listing.root, name))
             for name in sorted(os.listdir(listing.root)) if name.lower().endswith('.txt')]
    for split, file in lists:
        if split is not None:
            images = [image for image in _listed_images(file, listing.root) if is_image(image)]
            for image in images if any(map(os.path.isfile, images)) else ():
                listing.add(split, Entry(image, _label_file(image, listing.root)))
    if listing.parts:
        return
    for folder, _, files in walk(listing.root):
        parts = folder.split('/')
        if 'images' not in parts:
            continue
        for name in files:
            if is_image(name):
                image = join(listing.root, f'{folder}/{name}')
                listing.add(split_of_path(f'{folder}/{name}'), Entry(image, _label_file(image, listing.root)))


def _label_folders(root: str) -> Iterator[str]:
    """Folders called labels that hold text files and have a folder of images beside them."""
    for folder, folders, _ in walk(root, 3):
        if 'labels' in folders and 'images' in folders and any(
                name.endswith('.txt') and name != 'classes.txt'
                for _, _, names in walk(join(root, f'{folder}/labels' if folder else 'labels')) for name in names):
            yield folder
