"""A Source as a COCO folder on disk."""
from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any

from modelscope_fastinst.data.records import DatasetError, Records, list_problems, read_records

from .source import Source


def write_coco(source: Source, folder: str | os.PathLike, split: str, *, link: bool = False, overwrite: bool = False,
               on_problem: str = 'raise') -> tuple[str, str]:
    """Writes ``annotations/instances_{split}.json`` and ``images/{split}/`` under ``folder``.

    Image files are copied as they are, EXIF orientation included; pictures that are no files become PNGs. Polygons stay
    polygons, masks stay run-length encodings; areas and boxes that the source lacks are measured. Ids count from 1. The
    annotation file is renamed into place last, when all images are there.

    Args:
        source: what ``read_source`` or ``table_source`` gave.
        folder: is made where it does not exist.
        split: the name of the split in the new folder.
        link: make hard links to the images where the disk allows it: no space is taken, but a change of one file is a
            change of both.
        overwrite: replace the split if it is there already.
        on_problem: with bad items, ``raise`` a DatasetError that lists them, or ``skip`` them.

    Returns:
        (annotation file, image folder), as ``layouts.find_coco(folder, split)`` finds them.

    Raises:
        FileExistsError: the split is there already, and is not to be overwritten.
        DatasetError: bad items (see ``on_problem``), or an image that cannot be read.
        OSError: the folder cannot be written.
    """
    if on_problem not in ('raise', 'skip'):
        raise ValueError(f"on_problem must be 'raise' or 'skip', got {on_problem!r}")
    if not split or split != os.path.basename(split) or split in ('.', '..'):
        raise ValueError(f'split is {split!r}; it must be a plain name such as train')
    root = Path(folder)
    annotation_file, image_dir = root / 'annotations' / f'instances_{split}.json', root / 'images' / split
    for there in (annotation_file, image_dir):
        if there.exists() and not overwrite:
            raise FileExistsError(f'{there}: is there already; give another folder or split, or let it be overwritten')
    records = read_records(source.content, name=source.name, place=lambda kind, one: (
        source.origin(one) if kind == 'annotation' else source.image_origin(one)))
    problems = source.problems + records.problems
    if problems and on_problem == 'raise':
        raise DatasetError(f'{source.name}: {len(problems)} bad item{"s" if len(problems) > 1 else ""}:\n'
                           f"{list_problems(problems)}\nCorrect them, or leave them out with on_problem='skip'.",
                           problems)
    for parent in (annotation_file.parent, image_dir.parent):
        parent.mkdir(parents=True, exist_ok=True)
    workshop = Path(tempfile.mkdtemp(dir=root, prefix=f'.{split}.'))
    try:
        (workshop / 'images').mkdir()
        content = _content(source, records, workshop / 'images', link)
        with open(workshop / 'annotations', 'w', encoding='utf-8') as file:
            json.dump(content, file, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        _exchange(workshop, image_dir, annotation_file)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
    return str(annotation_file), str(image_dir)


def _exchange(workshop: Path, image_dir: Path, annotation_file: Path) -> None:
    """Renames what is finished to its place; an older split there is put back if that fails."""
    replaced = workshop / 'replaced'
    try:
        if image_dir.exists():
            os.rename(image_dir, replaced)
        os.rename(workshop / 'images', image_dir)
        os.replace(workshop / 'annotations', annotation_file)
    except BaseException:
        if replaced.exists():
            shutil.rmtree(image_dir, ignore_errors=True)
            os.rename(replaced, image_dir)
        raise


def _content(source: Source, records: Records, folder: Path, link: bool) -> dict[str, Any]:
    """Puts the images into ``folder``. -> the content of the annotation file"""
    from pycocotools import mask as coco_mask

    from modelscope_fastinst.data.segmentation import to_rle
    index_of = {}
    for index, image in enumerate(source.content['images']):
        if isinstance(image, dict):
            index_of.setdefault(image.get('id'), index)
    original = {}
    for one in source.content['annotations']:
        if isinstance(one, dict):
            original.setdefault(one.get('id'), one)
    content: dict[str, Any] = {'images': [], 'annotations': [], 'categories': [
        {'id': number, 'name': name} for number, name in enumerate(records.classes, 1)]}
    taken: set[str] = set()
    for number, image_id in enumerate(records.image_ids):
        name = _put_image(source, index_of[image_id], records.file_names[number], folder, taken, link)
        height, width = map(int, records.sizes[number])
        content['images'].append({'id': number + 1, 'file_name': name, 'height': height, 'width': width})
        for index in range(records.starts[number], records.starts[number + 1]):
            rle = to_rle(records.segmentation(index), height, width)
            segmentation = original[records.ids[index]]['segmentation']
            area, box = float(records.areas[index]), records.boxes[index].tolist()
            content['annotations'].append({
                'id': len(content['annotations']) + 1, 'image_id': number + 1,
                'category_id': int(records.labels[index]) + 1, 'iscrowd': int(records.crowds[index]),
                'segmentation': [list(map(float, part)) for part in segmentation]
                if isinstance(segmentation, (list, tuple)) else rle,
                'area': float(coco_mask.area(rle)) if area != area else area,
                'bbox': coco_mask.toBbox(rle).tolist() if box[0] != box[0] else box})
    return content


def _put_image(source: Source, index: int, file_name: str, folder: Path, taken: set[str], link: bool) -> str:
    """Copies, links or writes an image. -> its name in the folder, of which it takes no other image's"""
    path = os.path.join(source.image_dir, file_name)
    is_file = bool(source.image_dir) and os.path.isfile(path)
    if not is_file and source.open_image is None:
        file, item = source.image_origin(source.content['images'][index].get('id'))
        raise DatasetError(f'{file}: {item}: {path}: no such image file')
    parts = [part for part in PurePosixPath(file_name.replace('\\', '/')).parts if part not in ('..', '.', '/')]
    name = parts[-1] if is_file else f'{PurePosixPath(parts[-1]).stem}.png'
    if name.lower() in taken:    # disks may not tell upper from lower case
        name = '_'.join((*parts[:-1], name))
    stem, suffix = os.path.splitext(name)
    count = 1
    while name.lower() in taken:
        count += 1
        name = f'{stem}_{count}{suffix}'
    taken.add(name.lower())
    if not is_file:
        from PIL import Image
        Image.fromarray(source.open_image(index)).save(folder / name)
        return name
    if link:
        try:
            os.link(os.path.realpath(path), folder / name)
            return name
        except OSError:    # another disk, or one without links
            link = False
    shutil.copyfile(path, folder / name)
    return name
