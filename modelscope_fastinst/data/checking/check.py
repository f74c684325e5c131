"""The check of a data set: every record and every picture is looked at once, one image at a time."""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from modelscope_fastinst.data.checking.classes import check_classes, count_objects
from modelscope_fastinst.data.checking.findings import Finding
from modelscope_fastinst.data.checking.images import (
    check_copies,
    check_picture,
    check_sizes,
    orphan_annotations,
    unlisted_images,
)
from modelscope_fastinst.data.checking.objects import CELL, check_objects
from modelscope_fastinst.data.checking.part import Part
from modelscope_fastinst.data.checking.pictures import read_pictures
from modelscope_fastinst.data.checking.report import Advice, ClassSummary, Report, SplitSummary, Spread
from modelscope_fastinst.data.formats.source import Source

_QUERY_STEP = 50
_MANY_TINY = 0.05       # share of tiny objects from which on a larger input is advised
_LARGEST_INPUT = 1536   # pixels; beyond, tiles are the better advice


def check_data(sources: Mapping[str, Source], *, num_queries: int = 100, min_size: int = 640,
               max_size: int | None = 853, name: str | None = None, threads: int | None = None,
               progress: Callable[[str, int, int], None] | None = None) -> Report:
    """Looks for all that may be wrong with a data set.

    Of an image only its size and the hash of its pixels stay in memory, beside the annotations themselves.

    Args:
        sources: by the name of the split: 'train' and 'val', or one of them, or 'all' for data without splits.
        num_queries: of the model that is to be trained; more objects than that in an image cannot all be found.
        min_size, max_size: short side and longest long side of the network's input in pixels.
        name: what to call the data set; default what the first source is called.
        threads: how many images to decode at a time; None: one a processor, at most 8.
        progress: called with (split, images done, images in all) after each image.

    Raises:
        DatasetError: a split that cannot be read at all.
        ValueError: no split.
    """
    if not sources:
        raise ValueError('there is no split to check')
    first = next(iter(sources.values()))
    name = first.name if name is None else name
    parts, summaries, areas, most = [], [], [], 0
    for split, source in sources.items():
        part = Part(split, source)
        parts.append(part)
        counts, coverage, sizes = _check_images(part, num_queries, min_size, max_size, threads, progress)
        check_sizes(part)
        most = max(most, int(counts.max(initial=0)))
        areas.append(sizes)
        summaries.append(_summary(part, counts, coverage, sizes))
    across = [*check_copies(parts), *unlisted_images(parts), *orphan_annotations(parts),
              *check_classes(parts, name)]
    findings = _once([finding for part in parts for finding in part.findings]) + across
    notes = list(dict.fromkeys(note for source in sources.values() for note in source.notes))
    return Report(first.format, name, num_queries, min_size, max_size, summaries, findings,
                  _advice(most, np.concatenate(areas), num_queries, min_size, max_size), notes, parts)


def _once(findings: list[Finding]) -> list[Finding]:
    """Without what a reader says of every split alike, as of a file that belongs to none."""
    found: dict[tuple[str, str, str, str], Finding] = {}
    for finding in findings:
        found.setdefault((finding.code, finding.file, finding.item, finding.message), finding)
    return list(found.values())


def _check_images(part: Part, num_queries: int, min_size: int, max_size: int | None, threads: int | None,
                  progress: Callable[[str, int, int], None] | None) -> tuple[np.ndarray, list[float], np.ndarray]:
    """-> objects of each image, coverage of those that have some, areas of all objects at the input size."""
    counts, coverage, areas = [], [], []
    paths = [part.path(image) for image in range(len(part))]
    for image, picture in enumerate(read_pictures(paths, part.open_image, threads)):
        part.pictures.append(picture)
        check_picture(part, image, picture)
        objects = check_objects(part, image, min_size, max_size)
        number = len(objects.areas)
        counts.append(number)
        areas.append(objects.areas)
        if number:
            coverage.append(objects.coverage)
        else:
            crowds = int(part.records.starts[image + 1] - part.records.starts[image])
            part.at_image('empty-image', image, 'only crowd regions' if crowds else 'no annotation belongs to it')
        if number > num_queries:
            part.at_image('too-many-objects', image, f'{number} objects, {num_queries} queries')
        if progress is not None:
            progress(part.name, image + 1, len(part))
    return np.array(counts, np.int64), coverage, np.concatenate([np.zeros(0), *areas])


def _summary(part: Part, counts: np.ndarray, coverage: list[float], areas: np.ndarray) -> SplitSummary:
    records = part.records
    return SplitSummary(
        part.name, part.source.name, len(part), int(counts.sum()), int(records.crowds.sum()), int((counts == 0).sum()),
        Spread.of(records.sizes[:, 0]), Spread.of(records.sizes[:, 1]), Spread.of(counts), Spread.of(np.sqrt(areas)),
        float(np.mean(coverage)) if coverage else 0.0,
        {one: ClassSummary(*found) for one, found in count_objects(part).items()})


def _advice(most: int, areas: np.ndarray, num_queries: int, min_size: int, max_size: int | None) -> list[Advice]:
    advice = []
    if most > num_queries:
        wanted = _QUERY_STEP * math.ceil(1.2 * most / _QUERY_STEP)
        advice += [Advice('model.decoder.num_queries', wanted,
                          f'an image has {most} objects, the model {num_queries} queries; a fifth more than objects, '
                          f'in steps of {_QUERY_STEP}; to fine-tune weights of a model without position_grid, also '
                          f'model.decoder.position_grid={round(math.sqrt(num_queries))}'),
                   Advice('postprocessor.max_instances', wanted, 'what is found beyond it is thrown away')]
    areas = areas[areas > 0]
    tiny = areas < CELL
    if len(areas) and tiny.mean() > _MANY_TINY:
        scale = math.sqrt(CELL / np.quantile(areas, _MANY_TINY))
        wanted = 32 * math.ceil(min_size * scale / 32)
        reason = (f'{tiny.mean():.0%} of the objects are smaller than a cell of the masks ({CELL} pixels of the '
                  f'input); with {wanted} pixels {_MANY_TINY:.0%} would be')
        if wanted <= _LARGEST_INPUT:
            advice.append(Advice('preprocessor.min_size', wanted, reason))
            if max_size is not None:
                advice.append(Advice('preprocessor.max_size', 32 * math.ceil(max_size * scale / 32), 'the same scale'))
        else:
            advice.append(Advice('preprocessor.min_size', None, f'{reason}: cut the images into tiles instead'))
    return advice
