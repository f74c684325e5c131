"""What is wrong with the classes of a data set: unused, misspelt, or in one split only."""
from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from modelscope_fastinst.data.checking.findings import Finding
from modelscope_fastinst.data.checking.part import Part

_RARE = 20   # a class is rare if the most frequent one has more than so many times its objects


def count_objects(part: Part) -> dict[str, tuple[int, int, int]]:
    """Class name -> (objects, crowd regions, images with an object of it), in the order of the classes."""
    records = part.records
    number = len(records.classes)
    image_of = np.repeat(np.arange(len(records.image_ids)), np.diff(records.starts))
    objects = np.bincount(records.labels[~records.crowds], minlength=number)
    crowds = np.bincount(records.labels[records.crowds], minlength=number)
    pairs = np.unique(np.stack([records.labels, image_of])[:, ~records.crowds], axis=1)
    images = np.bincount(pairs[0], minlength=number)
    return {name: (int(objects[label]), int(crowds[label]), int(images[label]))
            for label, name in enumerate(records.classes)}


def check_classes(parts: Sequence[Part], name: str) -> list[Finding]:
    """Notes what is wrong with the classes; returns what concerns the whole data set, which is called ``name``."""
    counts = {part.name: {one: found[0] for one, found in count_objects(part).items()} for part in parts}
    names = list(dict.fromkeys(one for found in counts.values() for one in found))
    findings = [*_similar(names, name)]
    crowds = {one for part in parts for one, found in count_objects(part).items() if found[1]}
    for one in names:
        if not any(found.get(one, 0) for found in counts.values()):
            why = 'only crowd regions, from which nothing is learned' if one in crowds else 'no annotation names it'
            findings.append(Finding('unused-class', '', name, f'category {one!r}', why))
    by_name = {part.name: part for part in parts}
    if {'train', 'val'} <= by_name.keys():
        _compare(by_name['train'], by_name['val'], counts['train'], counts['val'])
    for part in parts:
        if part.name != 'val':
            _check_balance(part, counts[part.name])
    return findings


def _compare(train: Part, val: Part, learned: dict[str, int], measured: dict[str, int]) -> None:
    for one, number in learned.items():
        if one not in measured and not val.source.observed_classes:
            val.at_class('class-missing-in-val', one, 'the categories of the training split list it')
        elif number and not measured.get(one, 0):
            train.at_class('class-only-in-train', one, f'{_objects(number)} in training, none in validation')
    for one, number in measured.items():
        if number and not learned.get(one, 0):
            val.at_class('class-only-in-val', one, f'{_objects(number)} in validation, none in training')


def _similar(names: Sequence[str], name: str) -> list[Finding]:
    first: dict[str, str] = {}
    findings = []
    for one in names:
        key = re.sub(r'[\s_\-.]+', '', one).casefold()
        if key in first:
            findings.append(Finding('similar-names', '', name, f'category {one!r}', f'there is also {first[key]!r}'))
        first.setdefault(key, one)
    return findings


def _check_balance(part: Part, counts: dict[str, int]) -> None:
    used = {one: number for one, number in counts.items() if number}
    if not used:
        return
    most = max(used, key=lambda one: used[one])
    for one, number in sorted(used.items(), key=lambda pair: pair[1]):
        if used[most] > _RARE * number:
            part.at_class('class-imbalance', one, f'{_objects(number)}, {used[most]} of {most!r}')


def _objects(number: int) -> str:
    return f'{number} object{"" if number == 1 else "s"}'
