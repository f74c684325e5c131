"""The widget of a model card: the box on the model's page in which a visitor tries a picture.

Its form is version 1 of what ModelScope documents for the front matter's ``widgets`` ("Widget Configuration
Documentation" and "Frontend Component Documentation"). The hub shows the box only where ``enable`` is true, and runs
the model on machines of its own.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

EXAMPLE_FILE = 'example.jpg'
RESULT_FILE = 'example_result.jpg'   # what the model finds in it
LIMITS = {'max_size': '10M', 'max_resolution': '5000*5000'}   # of a picture, as the hub's own cards have them
MACHINE = {'cpu': 2, 'memory': 4096}   # MB
# What the hub's page draws over the picture, and where in the pipeline's result it is; that of any task has all four.
DRAWN = ('boxes', 'masks', 'scores', 'labels')


def widget(task: str, has_example: bool, enabled: bool = False) -> dict[str, Any]:
    """An element of ``widgets``.

    Args:
        task: ModelScope's name of the pipeline's task; must be one of the card's ``tasks``.
        has_example: ``example.jpg`` lies beside the card.
        enabled: the hub shows the box.
    """
    return {
        'enable': enabled, 'version': 1, 'task': task,
        # no name: with one, the pipeline would be given a dictionary instead of the picture
        'inputs': [{'type': 'image', 'displayType': 'ImageUploader', 'validator': dict(LIMITS)}],
        'output': {'displayType': 'ImageSegmentation', 'displayValueMapping': {name: name for name in DRAWN}},
        'examples': [{'inputs': [{'data': f'git://{EXAMPLE_FILE}'}]}] if has_example else [],
        'inferencespec': dict(MACHINE)}


def earlier_widgets(task: str) -> Iterator[dict[str, Any]]:
    """What this package may have written for a model when it knew less."""
    for enabled in (False, True):
        for has_example in (False, True):
            yield widget(task, has_example, enabled)
    for has_example in (False, True):   # a form without a version, which gave the pipeline a dictionary
        example = {'name': 1, 'title': 'example', 'inputs': [{'name': 'image', 'data': f'git://{EXAMPLE_FILE}'}]}
        yield {'task': task, 'inputs': [{'type': 'image', 'name': 'image', 'title': 'image'}],
               'examples': [example] if has_example else [], 'inferencespec': dict(MACHINE)}


def is_enabled(entries: Mapping[str, Any]) -> bool:
    """Whether a card's front matter turns its widget on. The hub reads the first one only."""
    widgets = entries.get('widgets')
    first = widgets[0] if isinstance(widgets, list) and widgets else None
    return isinstance(first, Mapping) and first.get('enable') is True
