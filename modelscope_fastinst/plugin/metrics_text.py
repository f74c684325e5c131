"""The values of an evaluation as a table for a terminal."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def metrics_table(values: Mapping[str, Any], classes: Sequence[str]) -> str:
    """Metrics as text: the averages, a line for each kind, and then a line for every class (``segm_AP/<class>``).

    A dash stands for a value that there is none of, such as the AP of stuff, or of large objects where all are small.
    """
    averages: dict[str, list[str]] = {}
    for name, value in values.items():
        if '/' not in name:
            averages.setdefault(_line_of(name), []).append(
                f'{name} {_shown(value) if isinstance(value, float) else value}')
    lines = [('evaluation: ' if not number else '  ') + ' '.join(shown)
             for number, shown in enumerate(averages.values())]
    kinds = list(dict.fromkeys(name.partition('/')[0] for name in values if '/' in name))
    if kinds:
        width, columns = max(len(label) for label in [*classes, 'class']), {kind: max(8, len(kind)) for kind in kinds}
        lines.append(f'  {"class":<{width}} ' + ' '.join(f'{kind:>{wide}}' for kind, wide in columns.items()))
        lines += [f'  {label:<{width}} ' + ' '.join(f'{_shown(values.get(f"{kind}/{label}")):>{wide}}'
                                                    for kind, wide in columns.items()) for label in classes]
    return '\n'.join(lines)


def _shown(value: float | None) -> str:
    """With four decimals; -1 stands for "there is none" in every metric."""
    return '-' if value is None or value == -1 else f'{value:.4f}'


def _line_of(name: str) -> str:
    """What the averages of one line have in common."""
    first, _, rest = name.partition('_')
    if first in ('PQ', 'SQ', 'RQ'):
        return f'panoptic {rest}'
    if name in ('mIoU', 'fwIoU', 'mACC', 'pACC'):
        return 'semantic'
    return '_'.join(name.split('_')[:2])
