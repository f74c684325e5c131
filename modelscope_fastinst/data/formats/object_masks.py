"""A folder an image, with one picture an object: ``<id>/images/*.png`` and ``<id>/masks/*.png``.

As the nuclei of the Data Science Bowl 2018 come. Folders inside ``masks`` are classes, sorted over the whole data set;
masks directly in it are of the class ``object``. A mask's pixels above half of its largest value are the object. EXIF:
the size of the masks says how the picture was seen; without a mask, upright.

Source: https://bbbc.broadinstitute.org/BBBC038
"""
from __future__ import annotations

import os

import numpy as np

from modelscope_fastinst.data.image import ImageError, image_size
from modelscope_fastinst.data.records import DatasetProblem

from .files import is_image, join, walk
from .instance_maps import encode_map, read_map
from .listing import Entry, Listing
from .partition import split_of_path
from .source import Collector, Source

LOOKED_FOR = 'object-masks: a folder an image, with images/ and masks/'
_CLASS = 'object'


def matches(root: str) -> bool:
    """Whether a folder of the data set holds one image and a folder of masks."""
    for folder, folders, files in walk(root, 4):
        if folder and 'masks' in folders and len(_images(root, folder, folders, files)) == 1:
            return True
    return False


def find(root: str) -> Listing:
    """All images with a folder of masks, by the folder of a split in which they are."""
    listing = Listing(root)
    names: set[str] = set()
    unlabelled = 0
    for folder, folders, files in walk(root):
        if not folder or folder.rsplit('/', 1)[-1] in ('images', 'masks') or not {'images', 'masks'} & set(folders):
            continue
        images = _images(root, folder, folders, files)
        if 'masks' not in folders:
            unlabelled += len(images) == 1
            continue
        if len(images) != 1:
            listing.problems.append(DatasetProblem(join(root, folder), 'image', f'{len(images)} images beside masks/, '
                                                                                'there must be one'))
            continue
        masks = []
        for inner, _, found in walk(join(root, f'{folder}/masks')):
            kind = inner.split('/')[0] or _CLASS
            masks += [(join(root, '/'.join(filter(None, (folder, 'masks', inner, name)))), kind)
                      for name in found if is_image(name)]
        names.update(kind for _, kind in masks)
        listing.add(split_of_path(f'{folder}/image'), Entry(join(root, images[0]), masks))
    listing.observed_classes = names != {_CLASS}
    listing.classes = sorted(names) or [_CLASS]
    if unlabelled:
        listing.notes.append(f'{root}: images without a folder of masks are not used, as not labelled: {unlabelled}')
    return listing


def read(listing: Listing, entries: list[Entry]) -> Source:
    """See ``reading.read_source``."""
    collector = Collector('object-masks', listing.root, listing.classes)
    for entry in entries:
        try:
            stored, upright = image_size(entry.image)
        except ImageError as error:
            collector.problem(entry.image, 'image', error)
            continue
        size, objects = upright, []
        for path, name in entry.annotation:
            try:
                mask = _read_mask(path)
                if not objects and mask.shape == stored:
                    size = stored
                if mask.shape != size:
                    raise ImageError(f'{path}: is {mask.shape[1]} x {mask.shape[0]} pixels (width x height), its image '
                                     f'{size[1]} x {size[0]}', 'size-mismatch')
                encoded = encode_map(mask)
                if not encoded:
                    raise ImageError(f'{path}: mask has no pixel', 'bad-outline')
            except ImageError as error:
                collector.problem(path, 'mask', error)
                continue
            objects.append((name, encoded[1], f'{path}: mask'))
        image_id = collector.image(entry.image, size, f'{entry.image}: image')
        for name, rle, origin in objects:
            collector.object(image_id, name, rle, origin)
    return collector.source


def _read_mask(path: str) -> np.ndarray:
    """-> bool ``[H, W]``"""
    values = read_map(path, path)
    if values.ndim == 3:
        values = values.max(2)
    return values if values.dtype == bool else values > values.max() / 2


def _images(root: str, folder: str, folders: list[str], files: list[str]) -> list[str]:
    """Images of an object folder, relative to the root: in images/, else directly in it."""
    if 'images' in folders:
        inner = sorted(os.listdir(join(root, f'{folder}/images')))
        return [f'{folder}/images/{name}' for name in inner if is_image(name)]
    return [f'{folder}/{name}' for name in files if is_image(name)]
