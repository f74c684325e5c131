"""The values of an evaluation as a table for a terminal."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def metrics_table(values: Mapping[str, Any], classes: Sequence[str]) -> str:
    """Metrics as text: the averages, a line for each kind, and then a line for every class (``segm_AP/<class>``)."""
    averages: dict[str, list[str]] = {}
    for name, value in values.items():
        if '/' not in name:
            averages.setdefault(_line_of(name), []).append(
                f'{name} {value:.4f}' if isinstance(value, float) else f'{name} {value}')
    lines = [('evaluation: ' if not number else '  ') + ' '.join(shown)
             for number, shown in enumerate(averages.values())]
    kinds = list(dict.fromkeys(name.partition('/')[0] for name in values if '/' in name))
    if kinds:
        width = max(len(label) for label in [*classes, 'class'])
        lines.append(f'  {"class":<{width}} ' + ' '.join(f'{kind:>8}' for kind in kinds))
        lines += [f'  {label:<{width}} ' + ' '.join(f'{values.get(f"{kind}/{label}", -1.0):>8.4f}' for kind in kinds)
                  for label in classes]
    return '\n'.join(lines)


def _line_of(name: str) -> str:
    """What the averages of one line have in common."""
    first, _, rest = name.partition('_')
    if first in ('PQ', 'SQ', 'RQ'):
        return f'panoptic {rest}'
    if name in ('mIoU', 'fwIoU', 'mACC', 'pACC'):
        return 'semantic'
    return '_'.join(name.split('_')[:2])
