"""The model card: ``README.md`` of a model folder, with the front matter that ModelScope's hub shows.

What a card says comes from the folder: the network from ``configuration.json``, the measured average precision from
``evaluation.json``. What is not known is not said. A card that somebody wrote is completed, not rewritten; see
``card_file``.
"""
from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelscope_fastinst.card_file import CardError, completed, front_matter
from modelscope_fastinst.card_sections import class_names, measured_titles, sections, tags, task_of
from modelscope_fastinst.card_widget import EXAMPLE_FILE, earlier_widgets, is_enabled, widget
from modelscope_fastinst.checkpoints import find_weights
from modelscope_fastinst.checkpoints.writing import write_whole
from modelscope_fastinst.evaluation.record import RECORD_FILE, check_record, check_weights, read_record
from modelscope_fastinst.network_names import TITLES, backbone_tag
from modelscope_fastinst.structures import TASKS

CARD_FILE = 'README.md'
EXAMPLE_SIDE = 1024   # pixels; longer examples are made smaller


def write_model_card(folder: str | os.PathLike, *, model_id: str | None = None, source: str | None = None,
                     base_model: str | None = None, metrics: Mapping[str, Any] | str | os.PathLike | None = None,
                     licence: str | None = None, trained: bool = True,
                     example: str | os.PathLike | None = None) -> Path:
    """Writes or completes the ``README.md`` of a model folder; all of it or nothing.

    Args:
        folder: a model folder with ``configuration.json``.
        model_id: the ``owner/name`` under which the model can be had, for the examples of code.
        source: a sentence on where the weights come from.
        base_model: the id of the model from which this one was fine-tuned or converted.
        metrics: a record of an evaluation (see ``evaluation.record``) or its file; default the folder's
            ``evaluation.json``. Without one the card says that the model was not measured.
        licence: of the weights, such as ``'Apache License 2.0'``. Without one the card names none.
        trained: False says that the decoder's weights are random.
        example: an image for the hub's widget; goes into the folder as ``example.jpg``, small and without EXIF data.

    Returns:
        The path of the card.

    Raises:
        CardError: the configuration is missing or describes no model of ours, the card's own front matter is broken or
            names another licence, or the example is no image. Card and folder stay as they were.
        RecordError: the record of the evaluation is broken, or measured other weights.
    """
    folder = Path(folder)
    card = folder / CARD_FILE
    text = read_card(card)
    picture = example_picture(Path(example)) if example is not None else None
    written = card_text(folder, text, model_id=model_id, source=source, base_model=base_model, metrics=metrics,
                        licence=licence, trained=trained, has_example=picture is not None or None)
    if picture is not None and (not (folder / EXAMPLE_FILE).is_file()
                                or (folder / EXAMPLE_FILE).read_bytes() != picture):
        write_whole(folder / EXAMPLE_FILE, picture)
    if written != text:
        write_whole(card, written.encode())
    return card


def card_text(folder: Path, text: str = '', *, model_id: str | None = None, source: str | None = None,
              base_model: str | None = None, metrics: Mapping[str, Any] | str | os.PathLike | None = None,
              licence: str | None = None, trained: bool = True, has_example: bool | None = None,
              result: Sequence[tuple[str, str]] | None = None, widget_enabled: bool = False) -> str:
    """What ``write_model_card`` would write; nothing is written.

    Args:
        text: the card so far.
        has_example: whether there will be an ``example.jpg``; default whether there is.
        result: how much of which class the model finds in the example, as in ``('12', 'nucleus')``, of which
            ``example_result.jpg`` will be a picture. None: not known, and what the card says stays.
        widget_enabled: the hub shows the widget; one that the card has turned on stays on.
    """
    where = str(folder / CARD_FILE)
    configuration = _configuration(folder)
    record = _record(folder, metrics)
    if has_example is None:
        has_example = (folder / EXAMPLE_FILE).is_file()
    trained = trained and says_trained(text)
    entries = _entries(configuration, record, base_model, licence, trained)
    earlier = [_entries(configuration, None, base_model, licence, trained)]
    there = front_matter(text, where)
    _check_licence(there, licence, where)
    task = entries['tasks'][0]
    entries['widgets'] = [widget(task, has_example, widget_enabled or is_enabled(there))]
    earlier += [{'widgets': [box]} for box in earlier_widgets(task)]
    parts = sections(configuration, record, folder, model_id, source, base_model, trained, new=not text,
                     result=result if has_example else None)
    return completed(text, entries, parts, where, earlier)


def says_trained(text: str) -> bool:
    """Whether a card has no section of ours that says that the decoder's weights are random."""
    return '<!-- modelscope-fastinst untrained ' not in text


def _entries(configuration: Mapping[str, Any], record: Mapping[str, Any] | None, base_model: str | None,
             licence: str | None, trained: bool) -> dict[str, Any]:
    """The front matter but for the widgets, in the order in which the hub's own cards have it."""
    model = configuration['model']
    task = str(configuration.get('task', 'image-segmentation'))
    entries = {
        'tasks': [task],
        'domain': ['cv'],
        'frameworks': [str(configuration.get('framework', 'pytorch'))],
        'backbone': [backbone_tag(model)],
        'metrics': measured_titles(model, record['measures']) if record else None,
        'license': licence,
        'language': ['en'],
        'tags': tags(model),
        'base_model': [base_model] if base_model else None,
        'datasets': _datasets(configuration, record, trained) or None,
    }
    return {key: value for key, value in entries.items() if value is not None}


def _datasets(configuration: Mapping[str, Any], record: Mapping[str, Any] | None,
              trained: bool) -> dict[str, list[str]]:
    dataset = configuration.get('dataset')
    train = _data_name(dataset.get('train')) if isinstance(dataset, Mapping) and trained else None
    return {split: [name] for split, name in (('train', train), ('test', record and record['data'])) if name}


def _data_name(split: Any) -> str | None:
    """The name of a split of the configuration's dataset section, without its place on somebody's machine."""
    if not isinstance(split, Mapping):
        return None
    if split.get('root'):
        return f'{_last_part(split["root"])} ({split.get("split", "train")})'
    return _last_part(split['annotation_file']) if split.get('annotation_file') else None


def _last_part(path: Any) -> str:
    return re.split(r'[/\\]', str(path).rstrip('/\\'))[-1]


def _configuration(folder: Path) -> dict[str, Any]:
    path = folder / 'configuration.json'
    try:
        configuration = json.loads(path.read_text('utf-8'))
    except OSError as error:
        raise CardError(f'{path}: cannot be read ({error.strerror}); a card describes a model folder') from error
    except ValueError as error:
        raise CardError(f'{path}: not JSON: {error}') from error
    model = configuration.get('model') if isinstance(configuration, Mapping) else None
    if not isinstance(model, Mapping) or model.get('type') not in TITLES:
        raise CardError(f'{path}: model.type must be "fastinst" or "mask2former" for a card of such a model')
    if task_of(model) not in TASKS:
        raise CardError(f'{path}: model.task is {model["task"]!r}; it must be one of {", ".join(TASKS)}')
    if not class_names(model):
        raise CardError(f'{path}: model.classes is empty; it must name the classes')
    return configuration


def _record(folder: Path, metrics: Mapping[str, Any] | str | os.PathLike | None) -> Mapping[str, Any] | None:
    if isinstance(metrics, Mapping):
        record, where = metrics, 'metrics'
        check_record(record, where)
    else:
        path = folder / RECORD_FILE if metrics is None else Path(metrics)
        if metrics is None and not path.is_file():
            return None
        record, where = read_record(path), str(path)
    check_weights(record, find_weights(folder), where)
    return record


def read_card(card: Path) -> str:
    """The text of a card; empty if there is none. Raises CardError if it is no text."""
    try:
        return card.read_bytes().decode('utf-8-sig') if card.exists() else ''
    except UnicodeDecodeError as error:
        raise CardError(f'{card}: is no UTF-8 text (byte {error.start}); save it as UTF-8') from error


def _check_licence(entries: Mapping[str, Any], licence: str | None, where: str) -> None:
    there = entries.get('license')
    if licence is not None and there is not None and there != licence:
        raise CardError(f'{where}: says license: {there}, but {licence} was asked for; change one of them')


def example_picture(file: Path) -> bytes:
    """The JPEG that the card shows of an image: at most ``EXAMPLE_SIDE`` pixels long, pixels only.

    Raises:
        CardError: it is no image.
    """
    from PIL import Image

    from modelscope_fastinst.data.image import ImageError, read_image
    try:
        image = Image.fromarray(read_image(file))
    except ImageError as error:
        raise CardError(f'example: {error}') from error
    image.thumbnail((EXAMPLE_SIDE, EXAMPLE_SIDE))
    content = io.BytesIO()
    image.save(content, format='JPEG', quality=90)
    return content.getvalue()
