"""``evaluation.json``: what a model was measured to reach, on what and by which command, beside its weights."""
from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelscope_fastinst.checksum import file_sha256

RECORD_FILE = 'evaluation.json'
_TEXTS = ('command', 'date', 'data')
# Of these a record has at least one: the value that stands for the evaluation of each task.
MAIN_MEASURES = ('segm_mAP', 'PQ', 'mIoU')


class RecordError(ValueError):
    """A record of an evaluation that cannot be read, or that measured something else."""


def read_record(file: str | os.PathLike) -> dict[str, Any]:
    """A record, checked.

    Returns:
        ``command`` (as typed), ``date`` (``2026-01-31``), ``data`` (name of the annotation file or of the data set),
        ``images`` (how many), ``measures`` (``segm_mAP``, ``PQ``, ``mIoU`` and so on, in [0, 1], -1 for "no such
        objects"), and if known ``weights`` (``{'file', 'sha256'}``) and ``versions`` (by package).

    Raises:
        RecordError: no such file, no JSON, or an entry that is missing or of the wrong kind; names it.
    """
    try:
        record = json.loads(Path(file).read_text('utf-8'))
    except OSError as error:
        raise RecordError(f'{file}: cannot be read ({error.strerror})') from error
    except ValueError as error:
        raise RecordError(f'{file}: not JSON: {error}') from error
    check_record(record, str(file))
    return record


def check_record(record: Any, where: str) -> None:
    """Raises RecordError, naming the entry, if this is no record as ``read_record`` describes it."""
    remedy = 'modelscope-fastinst evaluate --record writes such a file'
    if not isinstance(record, Mapping):
        raise RecordError(f'{where}: is no record of an evaluation; {remedy}')
    for key in _TEXTS:
        if not isinstance(record.get(key), str) or not record[key].strip():
            raise RecordError(f'{where}: {key} is {record.get(key)!r}; must be a text. {remedy}')
    images = record.get('images')
    if isinstance(images, bool) or not isinstance(images, int) or images < 1:
        raise RecordError(f'{where}: images is {images!r}; must be the number of images. {remedy}')
    measures = record.get('measures')
    if not isinstance(measures, Mapping) or not set(MAIN_MEASURES).intersection(measures):
        raise RecordError(f'{where}: measures has no segm_mAP, nor PQ or mIoU; {remedy}')
    for name, value in measures.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not (value == -1 or 0 <= value <= 1):
            raise RecordError(f'{where}: measures.{name} is {value!r}; must be between 0 and 1, or -1 for "none there"')
    for key in ('weights', 'versions'):
        if not isinstance(record.get(key, {}), Mapping):
            raise RecordError(f'{where}: {key} is {record[key]!r}; must hold "name": "text" entries')


def check_weights(record: Mapping[str, Any], weights: Path, where: str) -> None:
    """Raises RecordError if the record says which weights it measured, and they are others than these."""
    measured = record.get('weights', {}).get('sha256')
    if measured is not None and measured != file_sha256(weights):
        raise RecordError(f'{where}: measured other weights than {weights.name} as it is now; measure again with '
                          f'"modelscope-fastinst evaluate --record", or remove the record')


def make_record(*, command: str, date: str, data: str, images: int, measures: Mapping[str, float], weights: Path,
                versions: Mapping[str, str]) -> dict[str, Any]:
    """A record with the entries of ``read_record``.

    Args:
        weights: the measured weight file, whose name and checksum are noted.

    Raises:
        RecordError: an entry that a record cannot have, such as no images.
    """
    record = {'command': command, 'date': date, 'data': data, 'images': images, 'measures': dict(measures),
              'weights': {'file': weights.name, 'sha256': file_sha256(weights)}, 'versions': dict(versions)}
    check_record(record, 'the record of this evaluation')
    return record
