"""What a model was trained for, where its files do not say: told by its name, by its classes, or not at all."""
from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from modelscope_fastinst.data.label_sets import (
    ADE20K,
    ADE20K_INSTANCE,
    CITYSCAPES,
    CITYSCAPES_INSTANCE,
    COCO_INSTANCE,
    COCO_PANOPTIC,
    LabelSet,
)
from modelscope_fastinst.structures import TASKS

# What the published models with so many classes were trained on, and for what, if their names do not say. Those of
# ADE20K and Cityscapes are trained for semantic and for panoptic segmentation, with the same classes.
_KNOWN: tuple[tuple[LabelSet, tuple[str, ...]], ...] = (
    (COCO_PANOPTIC, ('panoptic',)), (COCO_INSTANCE, ('instance',)), (ADE20K, ('semantic', 'panoptic')),
    (ADE20K_INSTANCE, ('instance',)), (CITYSCAPES, ('semantic', 'panoptic')), (CITYSCAPES_INSTANCE, ('instance',)))
# More of a data set's names than this, at their places, and a model's classes are that data set's: published folders
# spell some of them otherwise ('bed ', 'door;double door').
_ALIKE = 0.6


@dataclass
class Guess:
    """What was found out.

    Attributes:
        task: one of ``structures.TASKS``.
        classes: names of the classes.
        things: those that are things, for a panoptic model; None for another.
        remarks: what of it is a guess, and what to do if it is wrong.
    """
    task: str
    classes: list[str]
    things: list[str] | None = None
    remarks: list[str] = field(default_factory=list)


def guess_task(classes: Sequence[str], names: Iterable[str] = (), task: str | None = None,
               hint: str = 'give task=', things: Sequence[str] | None = None) -> Guess:
    """The task, the classes and the things of a model.

    The first of these that says something counts: ``task``; one of ``names`` with "instance", "semantic" or "panoptic"
    in it; the data set behind the classes. What was trained for two of them (ADE20K's 150 and Cityscapes' 19 classes)
    is taken to be semantic, and what is not known to be for instances, and a remark says so.

    Args:
        classes: as the model's files have them; placeholders ('LABEL_0', ...) of a known number get the data set's
            names.
        names: what the model is called: its id, its folder's name.
        task: what the caller says.
        hint: how the caller says it, for the remarks.
        things: what the caller says of the classes; for a panoptic model, and then it is taken to be one.

    Raises:
        ValueError: ``task`` is none, or ``things`` goes with another or names what is no class.
    """
    if things is not None:
        if task not in (None, 'panoptic'):
            raise ValueError(f'things go with panoptic segmentation; the task is {task!r}')
        task = 'panoptic'
    if task is not None and task not in TASKS:
        raise ValueError(f'task {task!r}: choose one of {", ".join(TASKS)}')
    remarks: list[str] = []
    labels, tasks = known_labels(classes)
    placeholders = are_placeholders(classes)
    classes = [str(name) for name in classes]
    if placeholders and labels is not None:
        classes = list(labels.names)
        remarks.append(f'its {len(classes)} classes have no names; they are taken to be those of {labels.name}')
    chosen = task or _task_in(names)
    if chosen is None:
        chosen = tasks[0] if tasks else 'instance'
        if len(tasks) != 1:
            what = (f'the {len(classes)} classes of {labels.name} are those of {" and of ".join(tasks)} models' if tasks
                    else f'its {len(classes)} classes are of no data set that is known here')
            remarks.append(f'its files do not say what it was trained for, and {what}: taken to be for {chosen} '
                           f'segmentation; {hint} for another of {", ".join(TASKS)}')
    if chosen != 'panoptic':
        return Guess(chosen, classes, None, remarks)
    if things is not None:
        unknown = [name for name in things if name not in classes]
        if unknown:
            raise ValueError(f'things: {unknown} are not among the classes {classes}')
        return Guess(chosen, classes, list(things), remarks)
    if labels is not None:
        return Guess(chosen, classes, [classes[index] for index in sorted(labels.thing_indices)], remarks)
    remarks.append('its files do not say which classes are things, and which stuff: all are taken to be things; '
                   'convert it with --things, or set model.things in its configuration')
    return Guess(chosen, classes, list(classes), remarks)


def known_labels(classes: Sequence[str]) -> tuple[LabelSet | None, tuple[str, ...]]:
    """The data set with these classes, or with as many where they are placeholders, and what models of it are for."""
    for labels, tasks in _KNOWN:
        if len(labels) != len(classes):
            continue
        alike = sum(_plain(one) == _plain(other) for one, other in zip(classes, labels.names, strict=True))
        if are_placeholders(classes) or alike > _ALIKE * len(labels):
            return labels, tasks
    return None, ()


def are_placeholders(classes: Sequence[str]) -> bool:
    """Whether the names are those that ``transformers`` invents, or this package."""
    return all(re.fullmatch(rf'(LABEL_|class ){index}', str(name)) for index, name in enumerate(classes))


def names_of(folder: Path) -> list[str]:
    """What the model in a folder is called: the folder's name, and the id behind a folder of a hub's cache."""
    folder = folder.absolute()
    names = [folder.name]
    if folder.parent.name == 'snapshots':
        names.append(folder.parent.parent.name)
    return names


def _task_in(names: Iterable[str]) -> str | None:
    """The one task that a name has in it; None for a name with none or several."""
    for name in names:
        found = [task for task in TASKS if task in name.lower()]
        if len(found) == 1:
            return found[0]
    return None


def _plain(name: str) -> str:
    """The first of a name's synonyms, without spelling."""
    return re.sub(r'[\W_]+', ' ', re.split('[,;]', str(name).lower())[0]).strip()
