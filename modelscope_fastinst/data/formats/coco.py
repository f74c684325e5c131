"""COCO annotation files, as COCO, ModelScope, CVAT, Label Studio and Roboflow lay them out, or one beside its images.

Everything else in this room becomes what these files are; here they only have to be found and, where there is no
validation split, divided. EXIF: the sizes in the file say whether the picture was annotated upright or as stored
(``CocoInstances``).
"""
from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from modelscope_fastinst.data.layouts import find_coco
from modelscope_fastinst.data.records import DatasetError, check_content, load_annotations

from .files import join
from .listing import check_sides, order_splits, which_part
from .partition import file_digest, file_size, partition, split_of_name
from .source import Source

LOOKED_FOR = 'coco: a COCO .json file beside its images or in annotations/'
_SPLITS = {'train': ('train', 'training'), 'val': ('val', 'valid', 'validation'), 'test': ('test',)}
_OTHER_TASKS = re.compile(r'^(captions|person_keypoints|panoptic|stuff|images?_info)_')
_HEAD = 1 << 16     # bytes of a large file that are looked at


def find(root: str) -> dict[str | None, tuple[str, list[str]]]:
    """The annotation files and the folders in which their images may be, by split; under None a file of no split.

    Raises:
        DatasetError: several files for one split.
    """
    found: dict[str | None, tuple[str, list[str]]] = {}
    for split, names in _SPLITS.items():
        for name in names:
            place = _by_layout(root, name)
            if place is not None:
                found[split] = place
                break
    if 'train' in found or 'val' in found:
        return found
    for folder in ('', 'annotations'):
        path = os.path.join(root, folder)
        for name in sorted(os.listdir(path)) if os.path.isdir(path) else ():
            file = os.path.join(path, name)
            if not name.lower().endswith('.json') or _OTHER_TASKS.match(name) or not looks_like_coco(file):
                continue
            split = split_of_name(os.path.splitext(name)[0])
            if split in found:
                raise DatasetError(f'{root}: {os.path.relpath(found[split][0], root)} and '
                                   f'{os.path.relpath(file, root)} are both COCO files '
                                   f'{"of no split" if split is None else "for the split " + split}; name one of them '
                                   'as annotation_file, with its image_dir')
            found[split] = file, _image_folders(root, os.path.dirname(file), split, name)
    if None in found and len(found) > 1:
        del found[None]    # one file of everything beside those of its splits
    return found


def looks_like_coco(file: str) -> bool:
    """Whether a JSON file is a COCO annotation file, by its first bytes."""
    try:
        with open(file, 'rb') as stream:
            head = stream.read(_HEAD).decode('utf-8-sig', 'replace').lstrip()
    except OSError:
        return False
    keys = set(re.findall(r'"(images|annotations|categories|licenses|info|shapes|imagePath|segments_info)"\s*:', head))
    return head.startswith('{') and bool(keys & {'images', 'annotations', 'categories'}) and \
        not keys & {'shapes', 'imagePath', 'segments_info'}


def read(root: str, split: str | None, val_fraction: float | None, seed: int, or_all: bool) -> Source:
    """See ``reading.read_source``."""
    places = find(root)
    splits = order_splits(places)
    if split is not None and split not in places:
        place = _by_layout(root, split)
        if place is not None:
            return _load(*place, split, (*splits, split))
        split = split_of_name(split) or split
        if or_all and not splits and val_fraction is None:
            split = None
    own, side = which_part(splits, split, val_fraction, root)
    if own is None:
        parts = [_load(*places[name], name, splits) for name in (splits or (None,))]
        source = parts[0] if len(parts) == 1 else merge(root, parts)
    else:
        source = _load(*places[own], own, splits)
    source.split = split
    if side is None:
        return source
    images = [image for image in source.content['images']
              if isinstance(image, Mapping) and isinstance(image.get('file_name'), str)]
    paths = [os.path.join(source.image_dir, image['file_name']) for image in images]
    chosen = partition([image['file_name'].replace('\\', '/') for image in images], val_fraction, seed,
                       lambda index: file_size(paths[index]), lambda index: file_digest(paths[index]))
    check_sides(len(images), chosen, source.name)
    validation = {id(images[index]) for index in chosen}
    return source.keep_images(lambda image: (id(image) in validation) == (side == 'val'))


def merge(root: str, parts: list[Source]) -> Source:
    """Several files as one: ids are given anew, categories of one name are one."""
    names = list(dict.fromkeys(category['name'] for part in parts for category in part.content['categories']
                               if isinstance(category, Mapping) and isinstance(category.get('name'), str)))
    whole = Source('coco', root, {'images': [], 'annotations': [], 'categories': [
        {'id': number, 'name': name} for number, name in enumerate(names, 1)]}, root, splits=parts[0].splits)
    images, annotations = whole.content['images'], whole.content['annotations']
    for part in parts:
        image_ids: dict[Any, int] = {}
        category_ids = {one.get('id'): names.index(one['name']) + 1 for one in part.content['categories']
                        if isinstance(one, Mapping) and one.get('name') in names}
        for image in part.content['images']:
            if isinstance(image, Mapping):
                path = os.path.join(part.image_dir, str(image.get('file_name', '')))
                images.append({**image, 'id': len(images) + 1, 'file_name': os.path.relpath(path, root).replace(
                    os.sep, '/')})
                image_ids[image.get('id')] = len(images)
                whole.image_origins[len(images)] = f'{part.name}: image {image.get("id")}'
        for one in part.content['annotations']:
            if isinstance(one, Mapping):
                annotations.append({**one, 'id': len(annotations) + 1,
                                    'image_id': image_ids.get(one.get('image_id'), 0),
                                    'category_id': category_ids.get(one.get('category_id'), 0)})
                whole.origins[len(annotations)] = f'{part.name}: annotation {one.get("id")}'
    return whole


def _load(file: str, folders: list[str], split: str | None, splits: Iterable[str]) -> Source:
    content = load_annotations(file)
    check_content(content, file)
    if os.sep != '\\':
        for image in content['images']:
            if isinstance(image, dict) and '\\' in str(image.get('file_name')):
                name = str(image['file_name'])
                if not any(os.path.exists(os.path.join(folder, name)) for folder in folders):
                    image['file_name'] = name.replace('\\', '/')
    return Source('coco', file, content, _image_dir(file, folders, content), split=split, splits=tuple(splits))


def _image_dir(file: str, folders: list[str], content: dict) -> str:
    """The first folder with one of the first images; without one the first that exists, for the reader to report."""
    names = [image['file_name'] for image in content['images'][:20]
             if isinstance(image, Mapping) and isinstance(image.get('file_name'), str)]
    existing = [folder for folder in dict.fromkeys(folders) if os.path.isdir(folder)]
    for folder in existing:
        if any(os.path.isfile(os.path.join(folder, name)) for name in names if '\0' not in name):
            return folder
    if not existing:
        raise DatasetError(f'{file}: no folder with its images; looked for {", ".join(folders)}')
    return existing[0]


def _by_layout(root: str, split: str) -> tuple[str, list[str]] | None:
    """(annotation file, folders of images) of a split in one of the fixed layouts, or None."""
    for name in ('_annotations.coco.json', 'annotations.json', 'labels.json'):     # Roboflow, FiftyOne
        file = os.path.join(root, split, name)
        if os.path.isfile(file) and looks_like_coco(file):
            return file, [os.path.join(root, split), os.path.join(root, split, 'data'),
                          os.path.join(root, split, 'images')]
    try:
        file, folder = find_coco(root, split)
    except FileNotFoundError as error:
        if 'no folder with its images' not in str(error) or split == 'test':
            return None
        raise DatasetError(str(error)) from error
    return file, [folder, os.path.dirname(file), root]


def _image_folders(root: str, folder: str, split: str | None, name: str) -> list[str]:
    stem = re.sub(r'^instances_', '', os.path.splitext(name)[0])
    relative = ['images/' + stem, stem, 'images', 'JPEGImages', 'imgs', 'img', 'data']
    if split is not None:
        relative[:0] = ['images/' + split, split]
    return [*(join(root, one) for one in relative), folder, root]
