"""Checks of the settings of transforms: each gives the value in the form in which it is used, or an error naming it."""
from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any


def is_number(value: Any) -> bool:
    """Whether it is a real number, which true and false are not."""
    return isinstance(value, Real) and not isinstance(value, bool)


def positive(name: str, value: Any, unit: str = 'pixels') -> int:
    """A whole number of at least 1.

    Raises:
        ValueError: it is none.
    """
    if not is_number(value) or not 1 <= value < math.inf or int(value) != value:
        raise ValueError(f'{name} must be a whole number of {unit}, at least 1; got {value!r}')
    return int(value)


def sizes(name: str, values: int | Sequence[int]) -> tuple[int, ...]:
    """One size in pixels or several.

    Raises:
        ValueError: none, or one that is no size.
    """
    if isinstance(values, (str, bytes, Mapping)) or not hasattr(values, '__iter__'):
        values = (values,)
    values = tuple(values)
    if not values:
        raise ValueError(f'{name} needs at least one size')
    return tuple(positive(name, value) for value in values)


def height_and_width(name: str, value: int | Sequence[int]) -> tuple[int, int]:
    """One size for both sides, or (height, width), in pixels.

    Raises:
        ValueError: it is neither.
    """
    both = sizes(name, value)
    if len(both) > 2:
        raise ValueError(f'{name} must be one size or (height, width), got {value}')
    return both[0], both[-1]


def probability(name: str, value: Any) -> float:
    """A number of 0 to 1.

    Raises:
        ValueError: it is none.
    """
    if not is_number(value) or not 0 <= value <= 1:
        raise ValueError(f'{name} is a probability and must lie in [0, 1]; got {value!r}')
    return float(value)


def factors(name: str, value: Any) -> tuple[float, float]:
    """(smallest, largest) factor of a random scale.

    Raises:
        ValueError: not two numbers, one that is not above 0, or they fall.
    """
    pair = tuple(value) if isinstance(value, (list, tuple)) else ()
    if len(pair) != 2 or not all(is_number(factor) and 0 < factor < math.inf for factor in pair) or pair[0] > pair[1]:
        raise ValueError(f'{name} must be [smallest, largest] scale, both above 0; got {value!r}')
    return float(pair[0]), float(pair[1])


def known_keys(name: str, value: Any, known: Iterable[str], otherwise: str = 'null for none') -> dict[str, Any]:
    """A mapping with no other keys than these.

    Raises:
        ValueError: it is no mapping, or has another key.
    """
    known = list(known)
    if not isinstance(value, Mapping):
        raise ValueError(f'{name} must be a mapping with any of {known}, or {otherwise}; got {value!r}')
    unknown = sorted(map(str, set(value) - set(known)))
    if unknown:
        raise ValueError(f'{name} has unknown keys {unknown}; known are {known}')
    return dict(value)
