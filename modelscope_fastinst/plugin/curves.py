"""Curves of a training: its losses, learning rate, and AP, PQ or mIoU over the iterations, from ``log.jsonl``."""
from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelscope_fastinst.checkpoints.writing import write_whole
from modelscope_fastinst.fonts import matplotlib_fonts

from .training_log import LOG_FILE, read_log

CURVES_FILE = 'curves.png'
# Metrics that are drawn where the log has them, each with its colour.
_METRICS = {'segm_mAP': 'tab:blue', 'segm_mAP_50': 'tab:cyan', 'bbox_mAP': 'tab:orange', 'boundary_mAP': 'tab:olive',
            'PQ': 'tab:red', 'PQ_th': 'tab:pink', 'PQ_st': 'tab:brown', 'mIoU': 'tab:green', 'pACC': 'tab:gray'}
_KINDS = {'loss': 'black', 'ce': 'tab:blue', 'mask': 'tab:orange', 'dice': 'tab:green', 'proposal': 'tab:red'}
_NOT_LOSSES = {'mode', 'epoch', 'iter', 'lr', 'iters_per_second', 'images_per_second', 'memory_mb', 'eta_seconds',
               'grad_norm', 'iters_left_out'}


def write_curves(work_dir: str | os.PathLike) -> Path | None:
    """Draws a work folder's ``log.jsonl`` into its ``curves.png``, which appears whole or not at all.

    Returns:
        The picture's path, None where nothing has been logged.

    Raises:
        ValueError: the log has a line that is no record.
        OSError: the picture cannot be written; an older one stays.
    """
    records = read_log(Path(work_dir, LOG_FILE))
    if not records:
        return None
    picture = io.BytesIO()
    with matplotlib_fonts(name for record in records for name in record):   # metrics of classes bear their names
        draw(records).savefig(picture, format='png', dpi=110)
    file = Path(work_dir, CURVES_FILE)
    write_whole(file, picture.getvalue())
    return file


def draw(records: Sequence[Mapping[str, Any]]) -> Any:
    """A log's records as a ``matplotlib`` figure: losses by kind, learning rate, what the evaluations gave."""
    from matplotlib.figure import Figure
    training = [record for record in records if record['mode'] == 'train']
    evaluations = [record for record in records if record['mode'] == 'eval']
    figure = Figure(figsize=(9, 8 if evaluations else 5.5), layout='constrained')
    panels = figure.subplots(3 if evaluations else 2, 1, sharex=True,
                             height_ratios=[3, 1, 3] if evaluations else [3, 1])
    _draw_losses(panels[0], training)
    panels[1].plot(*_column(training, 'lr'), color='tab:gray')
    panels[1].set(ylabel='learning rate', ylim=(0, None))
    if evaluations:
        _draw_metrics(panels[2], evaluations)
    panels[-1].set_xlabel('iteration')
    for panel in panels:
        panel.grid(alpha=0.3)
    return figure


def _draw_losses(panel: Any, records: Sequence[Mapping[str, Any]]) -> None:
    by_kind = [{'iter': record['iter'], **losses_by_kind({
        name: value for name, value in record.items() if name not in _NOT_LOSSES and value is not None})}
        for record in records]
    kinds = list(dict.fromkeys(kind for record in by_kind for kind in record if kind != 'iter'))
    positive = False
    for kind in sorted(kinds, key=lambda kind: list(_KINDS).index(kind) if kind in _KINDS else len(_KINDS)):
        iterations, values = _column(by_kind, kind)
        positive = positive or any(value > 0 for value in values)
        panel.plot(iterations, values, linewidth=1.5 if kind == 'loss' else 1, color=_KINDS.get(kind),
                   label='total' if kind == 'loss' else kind, **_marker(values))
    panel.set_ylabel('training loss')
    if positive:   # the total is tens of times its smallest part
        from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
        panel.set_yscale('log')
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter(StrMethodFormatter('{x:g}'))
        panel.yaxis.set_minor_formatter(NullFormatter())
    if kinds:
        panel.legend(loc='upper right', ncols=min(len(kinds), 5), fontsize='small')


def _draw_metrics(panel: Any, records: Sequence[Mapping[str, Any]]) -> None:
    averaged = any(name.startswith('raw/') for record in records for name in record)
    drawn = 0
    for metric, color in _METRICS.items():
        for name, style in ((metric, '-'), (f'raw/{metric}', ':')):
            iterations, values = _column(records, name)
            if any(value >= 0 for value in values):   # else there is nothing of the kind
                label = name if not averaged else f'{metric} ({"raw" if name.startswith("raw/") else "averaged"})'
                panel.plot(iterations, values, style, color=color, marker='.', label=label)
                drawn += 1
    if not drawn:   # metrics of the user's own
        names = list(dict.fromkeys(name for record in records for name, value in record.items()
                                   if name not in _NOT_LOSSES and '/' not in name and isinstance(value, float)))
        for name in names[:8]:
            panel.plot(*_column(records, name), marker='.', label=name)
        drawn = len(names)
    else:
        panel.set_ylim(0, 1)
    panel.set_ylabel('evaluation')
    if drawn:
        panel.legend(loc='upper left', fontsize='small')


def _column(records: Sequence[Mapping[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Iterations and values of what the records call ``name``, where they have it; AP of -1 means nothing to find."""
    rows = [record for record in records if record.get(name) is not None]
    return [row['iter'] for row in rows], [row[name] for row in rows]


def _marker(values: Sequence[float]) -> dict[str, str]:
    """A single point is no line."""
    return {'marker': '.'} if len(values) == 1 else {}


def losses_by_kind(losses: Mapping[str, float]) -> dict[str, float]:
    """Total, and each kind of loss summed over the layers that have it (``loss_ce_0``, ``loss_ce_1``, ...)."""
    kinds: dict[str, float] = {}
    for name, value in losses.items():
        kind = name.rstrip('0123456789').rstrip('_').removeprefix('loss_')
        kinds[kind] = kinds.get(kind, 0.0) + value
    return kinds
