"""What every metric takes from its settings and from the trainer that uses it."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .configuration import plain
from .evaluation_settings import worst_of


def no_more_settings(settings: dict[str, Any], metric: str, known: str) -> None:
    """Raises TypeError if settings are left that the metric does not have."""
    settings.pop('trust_remote_code', None)   # which ModelScope's registry may add
    if settings:
        raise TypeError(f'{metric} has no setting {", ".join(map(repr, settings))}; known are {known}')


def class_names(given: Sequence[str] | None, trainer: Any) -> list[str]:
    """The names given, or else those of the trainer's model.

    Raises:
        ValueError: there are neither.
    """
    if given is None and trainer is None:
        raise ValueError('the metric needs the class names: classes=[...]')
    return list(given if given is not None else trainer.model_classes)


def section_of(trainer: Any) -> Mapping[str, Any] | None:
    """The ``evaluation`` section of a trainer's configuration; None without a trainer that has one."""
    cfg = getattr(trainer, 'cfg', None)
    return plain(cfg.safe_get('evaluation') or {}) if cfg is not None else None


def worst_images(section: Mapping[str, Any] | None) -> int:
    """How many of the worst images a metric keeps: those that the trainer's report shows."""
    return (worst_of(section) or 0) if section is not None else 0
