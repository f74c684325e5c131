"""Pictures of a report that show one bar a class."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from modelscope_fastinst.evaluation.figures import short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from modelscope_fastinst.evaluation.panoptic_report import PanopticReport
    from modelscope_fastinst.evaluation.semantic_report import SemanticReport

# With more classes than this, only the best and the worst ones are shown.
_SHOWN = 40
_INK, _THING, _STUFF = '0.15', '#2f6fb4', '#3a9d7a'


def panoptic_quality(report: PanopticReport) -> Figure:
    """PQ, SQ and RQ of every class, the best first: things and stuff in colours of their own."""
    metrics = report.metrics
    title = 'Panoptic quality by class'
    parts = [f'{name} PQ {metrics[key]:.3f}' for name, key in
             (('all', 'PQ'), ('things', 'PQ_th'), ('stuff', 'PQ_st')) if metrics[key] >= 0]
    colors = {name: _THING if index in report.things else _STUFF for index, name in enumerate(report.classes)}
    groups = {_THING: 'thing', _STUFF: 'stuff'}
    return _bars(metrics, report.classes, ('PQ', 'SQ', 'RQ'), colors, groups, f'{title}\n{", ".join(parts)}')


def class_ious(report: SemanticReport) -> Figure:
    """IoU and accuracy of every class, the best first."""
    metrics = report.metrics
    parts = [f'{name} {metrics[name]:.3f}' for name in ('mIoU', 'fwIoU', 'mACC', 'pACC')]
    return _bars(metrics, report.classes, ('IoU', 'ACC'), dict.fromkeys(report.classes, _THING), {},
                 f'Intersection over union by class\n{", ".join(parts)}')


def _bars(metrics: Mapping[str, float], classes: Sequence[str], kinds: Sequence[str], colors: Mapping[str, str],
          groups: Mapping[str, str], title: str) -> Figure:
    """A panel for each kind of value, a bar for each class that has one; sorted by the first kind.

    Args:
        groups: by colour, what a legend calls it; none for a single colour.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch
    ranked = sorted((name for name in classes if metrics[f'{kinds[0]}/{name}'] >= 0),
                    key=lambda name: (-metrics[f'{kinds[0]}/{name}'], name))
    left_out = len(ranked) - _SHOWN if len(ranked) > _SHOWN else 0
    shown = ranked[:_SHOWN // 2] + ranked[-(_SHOWN // 2):] if left_out else ranked
    figure = Figure(figsize=(3.6 * len(kinds) + 1.5, max(2.6, 0.26 * len(shown) + 1.6)), layout='constrained')
    figure.suptitle(title, fontsize=12)
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    places = [index + (1 if left_out and index >= _SHOWN // 2 else 0) for index in range(len(shown))]
    for axis, kind in zip(panels, kinds, strict=True):
        values = [metrics[f'{kind}/{name}'] for name in shown]
        axis.barh(places, values, color=[colors[name] for name in shown], height=0.72)
        for place, value in zip(places, values, strict=True):
            axis.text(value + 0.015, place, f'{value:.2f}', va='center', fontsize=7, color=_INK)
        axis.set(xlim=(0, 1.12), xlabel=kind)
        axis.set_xticks([0, 0.5, 1])
        axis.grid(axis='x', color='0.92')
        axis.set_axisbelow(True)
        for side in ('top', 'right'):
            axis.spines[side].set_visible(False)
    panels[0].set_yticks(places, [short(name) for name in shown], fontsize=8)
    panels[0].set_ylim(max(places, default=0) + 0.6, -0.6)   # the best on top; shared by all panels
    if left_out:
        panels[0].text(0.02, _SHOWN // 2, f'{left_out} classes between', va='center', fontsize=7, color='0.45')
    if groups:
        figure.legend(handles=[Patch(color=color, label=name) for color, name in groups.items()], fontsize=8,
                      loc='outside lower center', ncols=len(groups), frameon=False)
    return figure
