"""The pictures of a report, by matplotlib without a window."""
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from modelscope_fastinst.fonts import as_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from modelscope_fastinst.evaluation.report import EvaluationReport

# With more classes than this, only the best and the worst ones are named, and the matrix bears no numbers.
_NAMED = 10
_NUMBERED = 20
_GREY = '0.82'
_INK = '0.15'


def precision_recall(report: EvaluationReport) -> Figure:
    """Precision against recall at the IoUs 0.5 and 0.75: the mean over the classes, and every class."""
    figure, axes = _panels(2, 'Precision and recall of masks')
    recall = np.linspace(0, 1, 101)
    for axis, row, iou in zip(axes, (0, 5), ('0.5', '0.75'), strict=True):
        curves = {name: precision[row] for name, precision in report.precision.items()}
        _lines(axis, recall, curves, {name: float(curve.mean()) for name, curve in curves.items()}, 'AP')
        _finish(axis, f'IoU {iou}', 'recall', 'precision')
    return figure


def f1_curves(report: EvaluationReport) -> Figure:
    """F1 against the score threshold: all classes with one threshold, and every class with its best marked."""
    figure, (axis,) = _panels(1, 'F1 of masks by score threshold (IoU 0.5)')
    grid = np.linspace(0, 1, 401)
    curves = {name: _f1_on(curve, grid) for name, curve in report.curves.items() if curve.objects}
    worth = {name: report.curves[name].values_at(report.thresholds[name])['f1'] for name in curves}
    colors = _lines(axis, grid, curves, worth, 'F1', mean=('one threshold for all', _f1_on(report.overall, grid)))
    for name, color in colors.items():
        axis.plot(report.thresholds[name], worth[name], 'o', color=color, markersize=5)
    axis.axvline(report.threshold, color=_INK, linewidth=0.8, linestyle=':')
    axis.annotate(f'{report.threshold:.2f}', (report.threshold, 1.005), ha='center', va='bottom', fontsize=8,
                  color=_INK, annotation_clip=False)
    _finish(axis, '', 'score threshold', 'F1')
    return figure


def confusion(report: EvaluationReport) -> Figure:
    """True classes by predicted classes, shares of each true class, with the counts where there is room.

    Classes that are neither there nor found are left out, such as the stuff of a panoptic model.
    """
    counts, names = report.confusion, [*report.classes, 'background']
    seen = np.flatnonzero(counts.sum(0) + counts.sum(1))
    shown = [index for index in range(len(names)) if index in seen or index == len(names) - 1]
    names = [names[index] for index in shown]
    return confusion_matrix(counts[np.ix_(shown, shown)], names, names, 'Found as which class',
                            'predicted (background: missed)', 'true (background: nothing there)',
                            f'masks at IoU 0.5, scores from {report.threshold:.3g}')


def confusion_matrix(counts: np.ndarray, rows: Sequence[str], columns: Sequence[str], title: str, predicted: str,
                     true: str, note: str = '') -> Figure:
    """A matrix of counts by true (row) and by predicted class (column), drawn as shares of each row.

    Args:
        counts: int ``[R, C]``; where the last row or column is none of the classes, its name is 'background' or 'none'.
        title, note: above the matrix, in lines of their own.
        predicted, true: what columns and rows are.
    """
    from matplotlib.figure import Figure
    number = max(len(rows), len(columns))
    side = min(16.0, max(5.0, 0.55 * number + 2.5)) if number <= _NUMBERED + 1 else min(22.0, 0.17 * number + 4)
    figure = Figure(figsize=(side + 1.2, side), layout='constrained')
    axis = figure.add_subplot()
    totals = counts.sum(1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    shown = np.ma.masked_equal(np.where(counts > 0, shares, -1), -1)
    picture = axis.imshow(shown, cmap='Blues', vmin=0, vmax=1)
    size = 9 if number <= 12 else 7 if number <= 40 else 6
    axis.set_xticks(range(len(columns)), [short(name) for name in columns], rotation=90 if number > 6 else 0,
                    fontsize=size)
    axis.set_yticks(range(len(rows)), [f'{short(name)} ({_count(total)})' if number <= _NUMBERED + 1 else short(name)
                                       for name, total in zip(rows, totals[:, 0], strict=True)], fontsize=size)
    axis.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
    axis.grid(which='minor', color='0.9', linewidth=0.5)
    axis.tick_params(which='minor', length=0)
    for names, line in ((rows, axis.axhline), (columns, axis.axvline)):
        if names[-1] in ('background', 'none'):
            line(len(names) - 1.5, color='0.5', linewidth=0.8)
    if number <= _NUMBERED + 1:
        for row, column in np.argwhere(counts > 0):
            axis.text(column, row, f'{shares[row, column]:.2f}\n{_count(counts[row, column])}', ha='center',
                      va='center', fontsize=size - 1, color='white' if shares[row, column] > 0.6 else _INK)
    axis.set_xlabel(predicted)
    axis.set_ylabel(true)
    axis.set_title(f'{title}: share of each row{", and count" if number <= _NUMBERED + 1 else ""}'
                   + (f'\n{note}' if note else ''), fontsize=11)
    figure.colorbar(picture, ax=axis, fraction=0.035, pad=0.02)
    return figure


def _count(number: int) -> str:
    """Objects as they are; millions of pixels shortened."""
    number = int(number)
    if number < 100_000:
        return str(number)
    return f'{number / 1e3:.0f} k' if number < 10_000_000 else f'{number / 1e6:.0f} M'


def _panels(number: int, title: str) -> tuple[Any, Sequence[Any]]:
    from matplotlib.figure import Figure
    figure = Figure(figsize=(7.6 * number, 5.2), layout='constrained')
    figure.suptitle(title)
    return figure, figure.subplots(1, number, squeeze=False)[0]


def _lines(axis: Any, x: np.ndarray, curves: dict[str, np.ndarray], worth: dict[str, float], what: str,
           mean: tuple[str, np.ndarray] | None = None) -> dict[str, Any]:
    """Draws a line for each class and a thick one for all; names every class, or of many the best and the worst.

    Returns:
        The colours of the named classes.
    """
    ranked = sorted(curves, key=lambda name: (-worth[name], name))
    named = ranked if len(ranked) <= _NAMED else ranked[:_NAMED // 2] + ranked[-_NAMED // 2:]
    for name in ranked:
        if name not in named:
            axis.plot(x, curves[name], color=_GREY, linewidth=0.7, zorder=1)
    if len(named) < len(ranked):
        axis.plot([], [], color=_GREY, linewidth=0.7, label=f'{len(ranked) - len(named)} other classes')
    if mean is None and curves:
        mean = 'mean of the classes', np.mean(list(curves.values()), 0)
        worth = {**worth, mean[0]: float(np.mean(list(worth.values())))}
    colors = {}
    for index, name in enumerate(named):
        # more lines than colours: the second half, with many classes the worst ones, is dashed
        style = '-' if index < _NAMED // 2 else '--'
        line, = axis.plot(x, curves[name], style, color=f'C{index}', linewidth=1.2, zorder=2,
                          label=f'{short(name)}  {what} {worth[name]:.3f}')
        colors[name] = line.get_color()
    if mean is not None and len(curves) != 1:
        value = worth.get(mean[0], float(mean[1].max(initial=0)))
        axis.plot(x, mean[1], color=_INK, linewidth=2.2, zorder=3, label=f'{mean[0]}  {what} {value:.3f}')
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8, loc='upper left', bbox_to_anchor=(1.01, 1.0), frameon=False)   # beside, not over
    return colors


def _finish(axis: Any, title: str, x: str, y: str) -> None:
    axis.set(xlim=(0, 1), ylim=(0, 1.02), xlabel=x, ylabel=y)
    axis.set_title(title, fontsize=11)
    axis.grid(color='0.92')
    axis.set_axisbelow(True)
    for side in ('top', 'right'):
        axis.spines[side].set_visible(False)


def _f1_on(curve: Any, grid: np.ndarray) -> np.ndarray:
    """F1 at thresholds that need not be scores."""
    if not len(curve.scores):
        return np.zeros(len(grid))
    number = np.searchsorted(-curve.scores, -grid, side='right')
    return np.where(number > 0, curve.f1[np.maximum(number, 1) - 1], 0.0)


def short(name: str) -> str:
    """A class name as text that matplotlib takes for nothing but text: no formula, nor a line to be left out."""
    name = as_line(name)
    name = name if len(name) <= 18 else name[:17] + '…'
    return (' ' if name.startswith('_') else '') + name.replace('$', r'\$')
