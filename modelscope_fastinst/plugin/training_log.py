"""The training's log on disk: ``log.jsonl`` as it comes, a table and TensorBoard's events made of it."""
from __future__ import annotations

import csv
import io
import json
import math
import os
from pathlib import Path
from typing import Any

from modelscope_fastinst.checkpoints.writing import write_whole

from .processes import is_first

LOG_FILE = 'log.jsonl'
TABLE_FILE = 'log.csv'
TENSORBOARD_DIR = 'tensorboard'


class TrainingLog:
    """Records of a training: one line each in ``log.jsonl``, which the first process writes.

    ``log.csv`` has the same records as rows, with a column for every name; it is written anew from ``log.jsonl`` now
    and then, so that it is whole after any interruption. TensorBoard's events lie in ``tensorboard``.

    A record has ``mode`` ('train' or 'eval'), ``epoch`` and ``iter`` (finished ones), and numbers by name.

    Args:
        work_dir: the folder of them all.
        tensorboard: whether to write TensorBoard's events as well.
    """

    def __init__(self, work_dir: str | os.PathLike, tensorboard: bool = False):
        self.file = Path(work_dir, LOG_FILE)
        self._tensorboard = tensorboard
        self._events: Any = None
        self.records = self.evaluations = 0   # written so far

    def begin(self, iteration: int, evaluated_at: int | None = None) -> None:
        """Leaves in the log what was logged up to the iteration from which the training goes on.

        An evaluation of that very iteration goes as well where ``evaluated_at``, the last one's iteration as far as
        the training knows, is an earlier one: it will be made again.

        What an earlier training wrote into the same folder is kept as ``log.1.jsonl`` (2, ...) where this one starts
        from the beginning.
        """
        if not is_first():
            return
        if iteration:
            forget_log_after(self.file.parent, iteration, evaluated_at)
        elif self.file.exists():
            number = 1
            while (kept := self.file.with_name(f'log.{number}.jsonl')).exists():
                number += 1
            os.replace(self.file, kept)
        if self._tensorboard:
            from torch.utils.tensorboard import SummaryWriter
            # Points of an interrupted training beyond this step do not count any more.
            self._events = SummaryWriter(str(self.file.with_name(TENSORBOARD_DIR)), purge_step=iteration + 1)

    def write(self, record: dict[str, Any]) -> None:
        """Appends a record."""
        self.records += 1
        self.evaluations += record['mode'] == 'eval'
        if not is_first():
            return
        with open(self.file, 'a', encoding='utf-8') as file:
            file.write(json.dumps({name: _shortened(value) for name, value in record.items()}) + '\n')
        if self._events is not None:
            for name, value in record.items():
                if name not in ('mode', 'iter') and isinstance(value, (int, float)) and math.isfinite(value):
                    self._events.add_scalar(f'{record["mode"]}/{name}', value, record['iter'])
            self._events.flush()

    def write_table(self) -> None:
        """Writes ``log.csv`` anew."""
        if not is_first():
            return
        records = read_log(self.file)
        if not records:
            return
        names = list(dict.fromkeys(name for record in records for name in record))
        text = io.StringIO(newline='')
        table = csv.DictWriter(text, names, lineterminator='\n')
        table.writeheader()
        table.writerows(records)
        write_whole(self.file.with_name(TABLE_FILE), text.getvalue().encode('utf-8'))

    def close(self) -> None:
        """Ends TensorBoard's file."""
        if self._events is not None:
            self._events.close()
            self._events = None


def read_log(file: str | os.PathLike) -> list[dict[str, Any]]:
    """The records of a ``log.jsonl``, in their order; none where there is no file.

    A last line without its end, which an interruption leaves, does not count.

    Raises:
        ValueError: a line is no JSON object.
    """
    try:
        with open(file, encoding='utf-8') as lines:
            whole = [line for line in lines if line.endswith('\n')]
    except FileNotFoundError:
        return []
    records = []
    for number, line in enumerate(whole, 1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ValueError(f'{file}: line {number} is not JSON ({error}); remove the line') from error
        if not isinstance(record, dict):
            raise ValueError(f'{file}: line {number} is {record!r}, not a record; remove the line')
        records.append(record)
    return records


def _shortened(value: Any) -> Any:
    """A number as the log has it; None for one that JSON has not."""
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        return None
    return round(value, 6) if abs(value) >= 0.01 else value


def write_log(trainer: Any, record: dict[str, Any]) -> None:
    """Appends a record to a trainer's log."""
    trainer.training_log.write(record)


def forget_log_after(work_dir: str | os.PathLike, iteration: int, evaluated_at: int | None = None) -> None:
    """Takes out of ``log.jsonl`` what was logged after the iteration from which a training is resumed.

    Args:
        evaluated_at: the last evaluation's iteration, None where it is not known.
    """
    file = Path(work_dir, LOG_FILE)
    if is_first() and file.exists():
        last = {'eval': iteration if evaluated_at is None else min(iteration, evaluated_at)}
        kept = [record for record in read_log(file) if record['iter'] <= last.get(record['mode'], iteration)]
        write_whole(file, ''.join(json.dumps(record) + '\n' for record in kept).encode('utf-8'))
