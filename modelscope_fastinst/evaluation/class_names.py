"""Class names as evaluation needs them: one for each index, all different."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def checked_classes(classes: Sequence[str]) -> list[str]:
    """The names as a list.

    Raises:
        ValueError: no classes, or a name that comes twice (results by class would be ambiguous).
    """
    names = [str(name) for name in classes]
    if not names:
        raise ValueError('evaluation needs at least one class name')
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f'class names must differ; {twice} come more than once')
    return names


def checked_label(label: Any, classes: Sequence[str], where: str) -> int:
    """A class index as ``int``.

    Args:
        where: what to call the item in an error.

    Raises:
        ValueError: there is no such class.
    """
    if not 0 <= int(label) < len(classes):
        raise ValueError(f'{where}: class index {int(label)}, but there are {len(classes)} classes')
    return int(label)
