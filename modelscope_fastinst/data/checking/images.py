"""What is wrong with the image files of a data set, alone and beside each other."""
from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from modelscope_fastinst.data.checking.findings import Finding
from modelscope_fastinst.data.checking.part import Part
from modelscope_fastinst.data.checking.pictures import Picture, pictures_beside

_SMALL_SIDE = 32       # pixels: one cell of the coarsest feature map
_LONGEST = 4.0         # long side over short side
_FAR = 4.0             # times larger or smaller than the data set's median, by the square root of the area


def check_picture(part: Part, image: int, picture: Picture) -> None:
    """Notes what is wrong with one image's file."""
    size = tuple(map(int, part.records.sizes[image]))
    if picture.error:
        part.at_picture('missing-image' if picture.missing else 'unreadable-image', image, picture.error)
        return
    if size not in (picture.upright, picture.stored):
        part.at_picture('size-mismatch', image, f'is {_size(picture.upright)} pixels (width x height), its record says '
                                                f'{_size(size)}')
    elif picture.orientation > 1 and picture.upright == picture.stored:
        part.at_picture('exif-ambiguous', image,
                        f'EXIF orientation {picture.orientation} leaves the size as it is, so nothing tells whether '
                        'the outlines were drawn on the picture as stored or upright; it is read upright')
    elif picture.orientation > 1:
        how = 'upright' if size == picture.upright else 'as stored, for that is how it was annotated'
        part.at_picture('exif-rotated', image, f'EXIF orientation {picture.orientation}; it is read {how}')


def check_sizes(part: Part) -> None:
    """Notes images whose size is far from what is usual in this split, or that are hardly more than a line."""
    if not len(part.records.sizes):
        return
    scales = np.sqrt(part.records.sizes.prod(1).astype(np.float64))
    usual = float(np.median(scales))
    for image, (height, width) in enumerate(part.records.sizes.tolist()):
        reasons = []
        if min(height, width) < _SMALL_SIDE:
            reasons.append(f'a side of fewer than {_SMALL_SIDE} pixels')
        if max(height, width) > _LONGEST * min(height, width):
            reasons.append(f'more than {_LONGEST:g} times as long as wide')
        if not usual / _FAR <= scales[image] <= usual * _FAR:
            compared = 'smaller' if scales[image] < usual else 'larger'
            reasons.append(f'more than {_FAR:g} times {compared} than usual here')
        if reasons:
            part.at_image('odd-size', image, f'{width} x {height} pixels (width x height): {", ".join(reasons)}')


def check_copies(parts: Sequence[Part]) -> list[Finding]:
    """Notes pictures with the same pixels: twice in a split, or in more than one. Returns what concerns two splits."""
    first: dict[bytes, tuple[Part, int]] = {}
    across: list[Finding] = []
    for part in parts:
        seen: dict[bytes, int] = {}
        for image, picture in enumerate(part.pictures):
            if picture.error:
                continue
            if picture.content in seen:
                part.at_picture('image-twice', image, f'the same picture as {part.image_name(seen[picture.content])}')
                continue
            seen[picture.content] = image
            if picture.content in first:
                other, number = first[picture.content]
                item = part.source.image_origin(part.records.image_ids[image])[1]
                across.append(Finding('leakage', part.name, part.path(image), item,
                                      f'the same picture as {other.image_name(number)} of the {other.name} split',
                                      part.records.file_names[image]))
        for content, image in seen.items():
            first.setdefault(content, (part, image))
    return across


def unlisted_images(parts: Sequence[Part]) -> list[Finding]:
    """Image files that lie among those of the data set and that no split lists."""
    listed: dict[str, set[str]] = {}
    names: dict[str, list[str]] = {}
    for part in parts:
        if part.source.open_image is not None:
            continue
        folder = os.path.abspath(part.source.image_dir)
        listed.setdefault(folder, set()).update(os.path.normpath(name) for name in _listed(part))
        names.setdefault(folder, []).extend(part.records.file_names)
    everything = {os.path.join(folder, name) for folder, some in listed.items() for name in some}
    told = '\n'.join(f'{finding.file}\n{finding.message}' for part in parts for finding in part.findings)
    found = []
    shown = {os.path.abspath(part.source.image_dir): part for part in reversed(parts)}
    for folder, some in names.items():
        part = shown[folder]
        for name in pictures_beside(folder, some):
            file = os.path.join(part.source.image_dir, name)
            # what a reader left out, for it could not be used, has been told
            if os.path.normpath(os.path.join(folder, name)) not in everything and file not in told:
                found.append(Finding('unlisted-image', part.name, file, 'file', 'no record names it', name))
    return found


def orphan_annotations(parts: Sequence[Part]) -> list[Finding]:
    """YOLO label files that belong to no image. In the other formats an annotation names its image, or lies with it."""
    parts = [part for part in parts if part.source.format == 'yolo']
    images = {os.path.splitext(os.path.basename(name))[0] for part in parts for name in _listed(part)}
    told = {finding.file for part in parts for finding in part.findings}   # of images that could not be used
    images |= {os.path.splitext(os.path.basename(file))[0] for file in told}
    found = []
    folders = {os.path.dirname(part.source.origin(one)[0]): part for part in reversed(parts)
               for one in part.source.origins}
    for folder, part in sorted(folders.items(), key=lambda pair: pair[0]):
        if os.path.isdir(folder):
            for name in sorted(os.listdir(folder)):
                file = os.path.join(folder, name)
                if name.endswith('.txt') and name[:-4] not in images and _holds_labels(file):
                    found.append(Finding('orphan-annotation', part.name, file, 'file', 'no image has this name'))
    return found


def _holds_labels(file: str) -> bool:
    """Whether a text file starts with a row of numbers, as lists of classes or images do not."""
    try:
        with open(file, encoding='utf-8-sig') as stream:
            words = stream.readline().split()
        return len(words) > 2 and all(np.isfinite(float(word)) for word in words)
    except ValueError:   # no numbers, or no text
        return False


def _listed(part: Part) -> list[str]:
    """The names of all images with a record, also of those whose record is broken otherwise."""
    return [image['file_name'] for image in part.source.content['images']
            if isinstance(image, dict) and isinstance(image.get('file_name'), str)]


def _size(size: tuple[int, ...]) -> str:
    return f'{size[1]} x {size[0]}'
