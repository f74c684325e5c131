"""A folder of images beside a folder of label PNGs of the same names, one channel, whose values number the classes."""
from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence

from modelscope_fastinst.data.formats.partition import split_of_name
from modelscope_fastinst.data.maps.label_files import LabelReader, index_table
from modelscope_fastinst.data.maps.source import MapSource
from modelscope_fastinst.data.maps.tree import Tree, images_below, stem
from modelscope_fastinst.data.records import DatasetError, DatasetProblem

LOOKED_FOR = 'semantic-png: images/ and labels/ (each with train/ and val/) with PNGs of class numbers'
_IMAGES = ('images', 'img_dir', 'imgs', 'img', 'JPEGImages')
_LABELS = ('labels', 'annotations', 'masks', 'ann_dir', 'label', 'gt', 'SegmentationClass')
_NAMES = ('classes.txt', 'labels.txt', 'class_names.txt', 'classes.json')
_SUFFIXES = ('', '_label', '_labels', '_mask', '_gt', '_labelTrainIds')


def find(root: str) -> Tree | None:
    """The folder as a tree; None where no label PNG has the name of an image beside it."""
    found = parts(root)
    if not found:
        return None

    def load(task: str, split: str | None) -> MapSource:
        return read_label_folder(*found[split], read_class_names(root), format='semantic-png')

    tree = Tree('semantic-png', root, load)
    tree.serve('semantic', found, '')
    tree.missing |= {'panoptic': 'a panoptic JSON with its PNGs', 'instance': 'outlines or masks of single objects'}
    return tree


def parts(root: str) -> dict[str | None, tuple[str, str]]:
    """By split (None: of no split) the folder of the images and that of their label PNGs."""
    found: dict[str | None, tuple[str, str]] = {}
    for split, images, labels in _pairs(root):
        if split not in found and _belong(images, labels):
            found[split] = images, labels
    if len(found) > 1:
        found.pop(None, None)
    return found


def read_label_folder(image_dir: str, label_dir: str, classes: Sequence[str] | None, *, offset: int = 0,
                      void: int | None = 255, format: str = 'files') -> MapSource:
    """Images and label PNGs of the same names; no picture is opened.

    Args:
        image_dir, label_dir: the folders.
        classes: the name of each class; class i has the number i + ``offset`` in the PNGs.
        offset: of the first class. Smaller numbers are void.
        void: the number of pixels without a class; None for none.
        format: of the source.

    Raises:
        DatasetError: a folder that is not there, no image with a label PNG, or no class names.
    """
    for what, folder in (('images', image_dir), ('label PNGs', label_dir)):
        if not os.path.isdir(folder):
            raise DatasetError(f'{folder}: no such folder; the {what} were expected there')
    if not classes:
        raise DatasetError(f'{label_dir}: nothing names the classes of the label PNGs; give classes (--classes), or a '
                           f'{_NAMES[0]} with one name a line in the folder of the data set')
    try:
        table = index_table(len(classes), offset, void)
    except ValueError as error:
        raise DatasetError(f'{label_dir}: {error}') from error
    images = images_below(image_dir)
    labels = {stem(file): file for file in images_below(label_dir) if file.lower().endswith('.png')}
    kept, maps, problems = [], [], []
    for image in images:
        name = stem(image)
        label = next((labels[name + suffix] for suffix in _SUFFIXES if name + suffix in labels), None)
        if label is None:
            expected = os.path.join(label_dir, f'{name}.png')
            problems.append(DatasetProblem(image_dir, f'image {name}', f'{expected}: no such map file', 'missing-map'))
            continue
        kept.append(image)
        maps.append(label)
    if not kept:
        raise DatasetError(f'{label_dir}: no label PNG has the name of one of the {len(images)} images in {image_dir}')
    notes = []
    if len(maps) < len(labels):
        notes.append(f'{label_dir}: {len(labels) - len(maps)} label PNGs belong to no image and are not used')
    void_text = '' if void is None else f', {void} is void'
    what = f'the {len(classes)} classes have the values {offset} to {offset + len(classes) - 1}{void_text} ' \
           '(classes, label_offset and void_label change that: --classes, --label-offset, --void-label)'
    reader = LabelReader(maps, table, what=what)
    return MapSource(format, image_dir, list(classes), None, kept, maps, [stem(file) for file in kept], reader,
                     problems=problems, notes=notes)


def read_class_names(root: str) -> list[str] | None:
    """The names of the classes in a file of the folder; None where there is no such file.

    Raises:
        DatasetError: the file names none, or one twice.
    """
    for name in _NAMES:
        file = os.path.join(root, name)
        if os.path.isfile(file):
            try:
                with open(file, encoding='utf-8-sig') as stream:
                    content = json.load(stream) if name.endswith('.json') else stream.read().splitlines()
            except ValueError as error:
                raise DatasetError(f'{file}: cannot be read as names of classes ({error})') from error
            names = [str(one).strip() for one in content if str(one).strip()] if isinstance(content, list) else []
            if not names or len(set(names)) < len(names):
                raise DatasetError(f'{file}: must name the classes in the order of their numbers, none twice')
            return names
    return None


def _pairs(root: str) -> Iterator[tuple[str | None, str, str]]:
    """(split, image folder, label folder) as they may lie."""
    here = [name for name in sorted(os.listdir(root)) if os.path.isdir(os.path.join(root, name))]
    for images in _IMAGES:
        for labels in _LABELS:
            if images in here and labels in here:
                one, other = os.path.join(root, images), os.path.join(root, labels)
                for name in sorted(os.listdir(one)):
                    if split_of_name(name) is not None:
                        yield split_of_name(name), os.path.join(one, name), os.path.join(other, name)
                yield None, one, other
            for name in here:
                if split_of_name(name) is not None:
                    yield split_of_name(name), os.path.join(root, name, images), os.path.join(root, name, labels)


def _belong(images: str, labels: str) -> bool:
    """Whether a label PNG has the name of an image."""
    stems = {stem(file) for file in images_below(images)}
    return bool(stems) and any(stem(file).removesuffix(suffix) in stems for file in images_below(labels)
                               if file.lower().endswith('.png') for suffix in _SUFFIXES)
