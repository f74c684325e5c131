"""Draws a training's log: the loss, and the average precision where it was measured. Needs the extra ``plot``."""
import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use('Agg')   # no screen needed
from matplotlib import pyplot as plt  # noqa: E402


def column(records: list[dict], mode: str, name: str) -> tuple[list[int], list[float]]:
    """Iterations and values of what the log calls ``name``."""
    rows = [record for record in records if record['mode'] == mode and name in record]
    return [row['iter'] for row in rows], [row[name] for row in rows]


if __name__ == '__main__':
    work_dir = Path(sys.argv[1] if len(sys.argv) > 1 else 'work_dir')
    records = [json.loads(line) for line in (work_dir / 'log.jsonl').read_text('utf-8').splitlines()]
    figure, loss = plt.subplots(figsize=(8, 4.5), layout='constrained')
    loss.plot(*column(records, 'train', 'loss'), color='tab:gray', linewidth=1)
    loss.set(xlabel='iteration', ylabel='training loss')
    precision = loss.twinx()
    for name, color in (('segm_mAP', 'tab:blue'), ('segm_mAP_50', 'tab:cyan')):
        precision.plot(*column(records, 'eval', name), color=color, marker='.', label=name)
    precision.set(ylabel='average precision', ylim=(0, 1))
    precision.legend(loc='center right')
    figure.savefig(work_dir / 'curve.png', dpi=120)
    print(work_dir / 'curve.png')
