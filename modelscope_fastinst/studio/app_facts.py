"""What is written beside a result: how many, how long, the chosen instance, and why something was refused.

All of it is HTML made here, so all that comes from a visitor or a model is escaped here.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from modelscope_fastinst.studio.messages import Refused
from modelscope_fastinst.studio.texts import STAGES, answer, refusal, stage

COLUMNS = ('number', 'label', 'score', 'area', 'box')
HIGHLIGHT = 'background-color: var(--color-accent-soft); font-weight: 600;'
WORTH_SAYING = 0.01   # seconds of waiting
MANY_CLASSES = 6   # of a model's classes, this many are named


def found(language: str, count: int, size: tuple[int, int]) -> str:
    """'12 found in 640 × 480 pixels'.

    Args:
        size: (height, width) of the picture in pixels.
    """
    if not count:
        return answer(language, 'nothing')
    return answer(language, 'found', count=count, height=size[0], width=size[1])


def seconds(language: str, stages: Mapping[str, float]) -> str:
    """'read 12 ms · network 310 ms', in the order in which they come; a wait only if there was one."""
    shown = {name: stages[name] for name in (*STAGES, *stages) if name in stages}
    return ' · '.join(f'{stage(language, name)} {_duration(language, value)}' for name, value in shown.items()
                      if name != 'wait' or value >= WORTH_SAYING)


def _duration(language: str, value: float) -> str:
    if value >= 1:
        return answer(language, 'seconds', value=f'{value:.2f}')
    return answer(language, 'milliseconds', value=f'{value * 1000:.0f}' if value >= 0.01 else f'{value * 1000:.1f}')


def facts(language: str, sentence: str, stages: Mapping[str, float] | None = None, chosen: str = '') -> str:
    """The lines under a result, as HTML.

    Args:
        sentence, chosen: plain text.
    """
    lines = [f'<strong>{escape(sentence)}</strong>']
    if chosen:
        lines[0] += f' · <span class="chosen">{escape(chosen)}</span>'
    if stages:
        lines.append(f'<span class="stages">{escape(seconds(language, stages))}</span>')
    return f'<div class="facts" role="status">{"<br>".join(lines)}</div>'


def shows_result(html: str | None) -> bool:
    """Whether the lines under a result, as a page has them, are of one."""
    return 'class="stages"' in (html or '')


def table(language: str, rows: Sequence[Sequence[Any]], chosen: int | None = None) -> dict[str, Any]:
    """What a Dataframe shows: headers in the language, and the chosen row marked.

    Args:
        rows: a number, a label, a score, an area and a box for each instance.
        chosen: index of the row that stands out.
    """
    data = [list(row) for row in rows]
    content: dict[str, Any] = {'headers': [answer(language, f'column_{name}') for name in COLUMNS], 'data': data}
    if chosen is not None:
        content['metadata'] = {'styling': [[HIGHLIGHT if index == chosen else ''] * len(row)
                                           for index, row in enumerate(data)]}
    return content


def model_line(language: str, name: str, classes: Sequence[str]) -> str:
    """'owner/name: 80 classes (person, bicycle, …)', as HTML."""
    names = ', '.join(classes[:MANY_CLASSES])
    if len(classes) > MANY_CLASSES:
        names = answer(language, 'and_more', names=names)
    key = 'model_ready_one' if len(classes) == 1 else 'model_ready'
    return f'<div class="facts">{escape(answer(language, key, name=name, count=len(classes), classes=names))}</div>'


def refused(language: str, error: Refused) -> str:
    """Why something was refused, as HTML. In the page: Gradio's own boxes in the corner have an English title."""
    return f'<div class="notice" role="alert">{escape(refusal(language, error.code, error.values))}</div>'
