"""Random choices of an augmentation, all from torch's default generator.

A DataLoader seeds that generator differently in every worker, and the trainer anew for every sample.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch

T = TypeVar('T')


def happens(probability: float) -> bool:
    """True with this probability; draws nothing for 0."""
    return probability > 0 and torch.rand(()).item() < probability


def between(low: int, high: int) -> int:
    """A whole number of ``low`` to ``high``, both included."""
    return int(torch.randint(low, high + 1, ()))


def uniform(low: float, high: float) -> float:
    """A number of ``low`` to ``high``."""
    return low + (high - low) * torch.rand(()).item()


def choice(values: Sequence[T]) -> T:
    """One of these."""
    return values[between(0, len(values) - 1)]


def subset(count: int, number: int) -> list[int]:
    """``number`` different ones of ``range(count)``, ascending."""
    return sorted(torch.randperm(count)[:number].tolist())
