"""What ``data check`` prints."""
from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import groupby

from modelscope_fastinst.data.checking import KINDS, SEVERITIES, Finding, MapReport, Report, SplitSummary

LISTED = 20   # findings of a kind, and classes


def report_lines(report: Report, root: str | None = None) -> Iterator[str]:
    """The report for a person to read: figures, findings by kind, advice.

    Args:
        root: paths below it are shown relative to it.
    """
    limit = 'any length' if report.max_size is None else f'at most {report.max_size}'
    yield f'{report.name}: format {report.format}'
    yield (f'checked for a model with {report.num_queries} queries and an input of {report.min_size} pixels (short '
           f'side; long side {limit})')
    yield from (f'remark: {note}' for note in report.notes)
    for split in report.splits:
        yield ''
        yield from _split_lines(split)
    yield ''
    yield from _class_lines(report.splits)
    for code, findings in groupby(report.findings, key=lambda finding: finding.code):
        yield ''
        yield from kind_lines(code, list(findings), root)
    yield ''
    for one in report.advice:
        what = one.setting if one.value is None else f'{one.setting}={one.value}'
        yield f'advice: {what} ({one.reason})'
    yield total_line(report)


def _split_lines(split: SplitSummary) -> Iterator[str]:
    yield f'{split.name}: {_count(split.images, "image")}, {_count(split.objects, "object")}' + (
        f', {_count(split.crowds, "crowd region")}' if split.crowds else '') + (
        f', {_count(split.empty, "image")} without an object' if split.empty else '')
    yield '  (least / median / greatest)'
    yield f'  width of an image          {split.widths} pixels'
    yield f'  height of an image         {split.heights} pixels'
    yield f'  objects of an image        {split.objects_per_image}'
    sides = split.object_sides
    yield f'  size of an object          {sides.least:.0f} / {sides.median:.0f} / {sides.greatest:.0f} pixels of the ' \
          'input (root of the area)'
    yield f'  covered by objects         {split.coverage:.1%} of an image, on average'


def _class_lines(splits: Sequence[SplitSummary]) -> Iterator[str]:
    """A table of objects and images per class, the most frequent first."""
    names = list(dict.fromkeys(name for split in splits for name in split.classes))

    def total(name: str) -> int:
        return sum(split.classes[name].objects for split in splits if name in split.classes)

    names.sort(key=lambda name: -total(name))
    shown = names if len(names) <= LISTED + 1 else names[:LISTED]
    width = max(len('class'), *map(len, shown))
    heads = [f'{split.name}: objects in images' for split in splits]
    yield '  '.join([f'{"class":<{width}}', *(f'{head:>26}' for head in heads)])
    for name in shown:
        cells = []
        for split in splits:
            one = split.classes.get(name)
            cells.append(f'{"-":>26}' if one is None else f'{one.objects:>16,} {one.images:>9,}')
        yield '  '.join([f'{name:<{width}}', *cells])
    if len(shown) < len(names):
        rest = [total(name) for name in names[len(shown):]]
        yield f'and {len(rest)} more classes with {rest[-1]} to {rest[0]} objects'


def kind_lines(code: str, findings: list[Finding], root: str | None) -> Iterator[str]:
    """The findings of a kind, and what to do about them; paths below ``root`` are shown relative to it."""
    kind = KINDS[code]
    yield f'{kind.severity}: {kind.title} [{code}]: {len(findings)}'
    for finding in findings[:LISTED]:
        file = _shortened(finding.file, root)
        image = f' ({finding.image})' if finding.image and not file.endswith(finding.image) else ''
        split = f'{finding.split}: ' if finding.split not in ('', 'all') else ''
        yield f'  {split}{file}: {finding.item}{image}: {finding.message}'
    if len(findings) > LISTED:
        yield f'  and {len(findings) - LISTED} more'
    yield f'  -> {kind.mend}'


def _shortened(file: str, root: str | None) -> str:
    if root is None or not file:
        return file
    inside = os.path.relpath(file, root)
    return file if inside.startswith('..') or inside == '.' else inside


def total_line(report: Report | MapReport) -> str:
    """How many findings of each severity there are."""
    counts = [_count(report.count(severity), severity) for severity in SEVERITIES if report.count(severity)]
    return ', '.join(counts) if counts else 'nothing is wrong'


def _count(number: int, what: str) -> str:
    return f'{number:,} {what}{"" if number == 1 else "s"}'
