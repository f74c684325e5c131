"""Which images to show of a data set: few, drawn by a seed, with every class among them."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modelscope_fastinst.data.records import Records


def choose_samples(records: Records, number: int = 24, most: int = 48, seed: int = 0,
                   usable: Sequence[bool] | None = None) -> list[int]:
    """Images in which every class appears, if ``most`` are enough, and classes about equally often.

    First images are taken that together show all classes, those with the most new ones first; then, up to ``number``,
    one at a time of the class that was shown in the fewest. Images without an object are taken last.

    Args:
        number: how many to choose where fewer would do.
        most: how many at most.
        seed: another one gives other images.
        usable: one an image; only such images are chosen. None for all.

    Returns:
        Indices into the records, in the order of the records.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(records.image_ids))
    if usable is not None:
        order = order[np.asarray(usable, bool)[order]]
    shows = np.zeros((len(order), len(records.classes)), bool)
    for row, image in enumerate(order):
        span = slice(int(records.starts[image]), int(records.starts[image + 1]))
        shows[row, records.labels[span][~records.crowds[span]]] = True
    left = np.ones(len(order), bool)
    shown = np.zeros(len(records.classes), np.int64)
    chosen: list[int] = []

    def take(row: int) -> None:
        left[row] = False
        shown[:] += shows[row]
        chosen.append(int(order[row]))

    while len(chosen) < most:
        new = (shows & (shown == 0)).sum(1) * left
        if not new.any():
            break
        take(int(new.argmax()))
    while len(chosen) < min(number, len(order)):
        waiting = shows[left].any(0)   # classes of which there are images left
        if not waiting.any():
            take(int(np.flatnonzero(left)[0]))
            continue
        rarest = int(np.where(waiting, shown, shown.max() + 1).argmin())
        candidates = np.flatnonzero(left & shows[:, rarest])
        take(int(candidates[0]))
    return sorted(chosen)
