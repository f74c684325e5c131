"""The objects of a data set of maps as COCO content: its things, each with its mask."""
from __future__ import annotations

import os
from collections.abc import Sequence

from modelscope_fastinst.data.formats.source import Collector, Source, problem_of
from modelscope_fastinst.data.image import ImageError
from modelscope_fastinst.data.maps.reading import find_tree, read_maps
from modelscope_fastinst.data.maps.source import MapSource
from modelscope_fastinst.data.records import DatasetError, check_content, load_annotations


def read_objects(root: str | os.PathLike, split: str | None = None, format: str | None = None, *,
                 classes: Sequence[str] | None = None, val_fraction: float | None = None, seed: int = 0) -> Source:
    """The objects of a folder of maps, which are all decoded for it; crowd regions are crowds.

    Args:
        root, split, format, val_fraction, seed: see ``reading.read_maps``.
        classes: only objects of these, which are numbered in this order.

    Raises:
        DatasetError: see ``reading.find_tree``; single bad items are in the source's ``problems``.
    """
    tree = find_tree(root, 'instance', format)
    files = tree.object_files.get(split or '')
    if files is not None:
        content = load_annotations(files[0])
        check_content(content, files[0])
        source = Source(tree.format, files[0], content, files[1], split=split, splits=tree.splits['instance'])
    else:
        source = objects_of(read_maps(root, 'instance', split, format, val_fraction=val_fraction, seed=seed))
    return source if classes is None else source.keep_classes(classes)


def objects_of(maps: MapSource) -> Source:
    """The objects of the things of a source.

    Raises:
        DatasetError: it knows no segments.
    """
    if maps.things is None:
        raise DatasetError(f'{maps.name}: knows the class of each pixel, but no objects')
    things = frozenset(maps.classes.index(name) for name in maps.things)
    folder = os.path.commonpath([os.path.dirname(file) for file in maps.image_files]) if len(maps) else maps.name
    collector = Collector(maps.format, folder, maps.things)
    source = collector.source
    source.name, source.split, source.splits = maps.name, maps.split, maps.splits
    source.problems, source.notes = list(maps.problems), list(maps.notes)
    for index in range(len(maps)):
        item = f'image {maps.image_ids[index]}'
        faults: list[tuple[str, str]] = []
        try:
            found = maps.reader(index, faults)
        except ImageError as error:
            source.problems.append(problem_of(maps.name, item, error))
            continue
        source.problems += [maps.problem(index, *fault) for fault in faults]
        image_id = collector.image(maps.image_files[index], found.size, f'{maps.map_files[index]}: {item}')
        for one in found.annotations(things):
            collector.object(image_id, maps.classes[one['category_id']], one['segmentation'],
                             f'{maps.map_files[index]}: segment {one["id"]}', bool(one['iscrowd']))
    return source
