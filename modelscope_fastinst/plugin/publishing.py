"""From a model folder to a model of ModelScope's hub that everybody can name.

A folder is published only if ``pipeline()`` loads and runs it. What belongs to a model is uploaded, nothing else.
"""
from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelscope_fastinst.card_file import front_matter
from modelscope_fastinst.card_widget import EXAMPLE_FILE, RESULT_FILE, is_enabled
from modelscope_fastinst.checkpoints import find_weights
from modelscope_fastinst.checkpoints.reading import WEIGHT_FILES
from modelscope_fastinst.checkpoints.writing import write_whole
from modelscope_fastinst.checksum import file_sha256
from modelscope_fastinst.evaluation.record import RECORD_FILE, read_record
from modelscope_fastinst.model_card import (
    CARD_FILE,
    card_text,
    example_picture,
    read_card,
    says_trained,
)
from modelscope_fastinst.version import __version__

from .configuration import CONFIGURATION_FILE, read_configuration
from .hub import HubError, has_form_of_id
from .hub_writing import VISIBILITIES, HubRepository
from .huggingface import is_huggingface_folder

LICENCE_FILES = ('LICENSE', 'LICENSE.txt', 'LICENSE.md', 'NOTICE')
PICTURES = ('.png', '.jpg', '.jpeg', '.gif', '.svg', '.webp')
LARGEST_PICTURE = 10 * 2**20   # bytes; of those that the card shows


class PublishError(ValueError):
    """A folder or a request that is not published; the message says why."""


@dataclass
class Publication:
    """What is uploaded, or would be.

    Attributes:
        model_id: owner/name.
        files: size in bytes and SHA-256 by name, of everything that the model on the hub consists of.
        left_out: what lies in the folder and does not belong to the model, with the reason.
        card: the text of the completed card.
        found: how much of which class the model finds in the example picture; None without one.
        notes: what the publisher should know.
        uploaded: names of the files that the hub did not have like this before; None after a dry run.
        address: the page of the model; None after a dry run.
        visibility: on the hub; None after a dry run.
    """
    model_id: str
    files: dict[str, tuple[int, str]]
    left_out: dict[str, str]
    card: str
    found: list[tuple[str, str]] | None = None
    notes: list[str] = field(default_factory=list)
    uploaded: list[str] | None = None
    address: str | None = None
    visibility: str | None = None


def publish(folder: str | os.PathLike, model_id: str, *, token: str | None = None, visibility: str | None = None,
            licence: str | None = None, base_model: str | None = None, revision: str | None = None,
            message: str | None = None, example: str | os.PathLike | None = None,
            metrics: str | os.PathLike | None = None, endpoint: str | None = None, dry_run: bool = False,
            device: str | None = None, verbose: bool = False, widget: bool = False) -> Publication:
    """Publishes a model folder, after running it once; completes its card.

    The hub has the whole new state afterwards, or what it had before. Of a new model, a failed upload leaves the
    empty repository there, which publishing again fills. The folder is only written to after a success: its
    ``README.md`` is then the published one, ``example.jpg`` and ``evaluation.json`` are added if they were given, and
    ``example_result.jpg``, what the model finds in the example, if there is one.

    Args:
        folder: the model folder.
        model_id: owner/name; made on the hub if it is not there.
        token: see ``hub_writing.HubRepository``.
        visibility: 'public' or 'private' (the default) for a new model. That of an existing one stays.
        licence: of the weights; default what the card says.
        base_model: id of the model from which this one was fine-tuned.
        revision: branch; default 'master'.
        message: of the commit.
        example, metrics: see ``model_card.write_model_card``.
        endpoint: the hub's address; default ModelScope's.
        dry_run: check and describe everything, ask no hub and write nothing.
        device: where it is run, as ``pipeline()`` takes it.
        verbose: let ModelScope's log through.
        widget: the card turns on the box on the model's page in which visitors try it. The hub runs the model for it
            on machines of its own. Once on, it stays on.

    Raises:
        PublishError: the id has another form, the folder does not load and run, or the licence is not known.
        CardError, RecordError: see ``model_card.write_model_card``.
        HubError: the hub refuses, cannot be reached, or does not have afterwards what was sent.
    """
    folder = Path(folder)
    for name, option in ((model_id, '--id'), (base_model, '--base-model')):
        if name is not None and not has_form_of_id(name):
            raise PublishError(f'{option} {name}: must have the form owner/name, as in my-name/nuclei, and not end as '
                               'a file of weights or a configuration does')
    if visibility is not None and visibility not in VISIBILITIES:
        raise PublishError(f'visibility {visibility!r}: choose one of {", ".join(VISIBILITIES)}')
    files = _files(folder, example, metrics)
    said = {'model_id': model_id, 'base_model': base_model, 'metrics': metrics, 'licence': licence,
            'has_example': EXAMPLE_FILE in files, 'widget_enabled': widget}
    text = read_card(folder / CARD_FILE)
    card = card_text(folder, text, **said)   # first without the example's result: its errors cost nothing
    licence = front_matter(card, CARD_FILE).get('license')
    if not isinstance(licence, str) or not licence.strip():
        raise PublishError(f'{folder}: the licence is not known, and the hub notes one for every model: give it, as in '
                           '--license "Apache License 2.0"')
    found, picture = _run(folder, device, verbose, files.get(EXAMPLE_FILE))
    if picture is not None:
        files[RESULT_FILE] = picture
        card = card_text(folder, text, **said, result=found)
    contents = {CARD_FILE: card.encode(), **files}
    contents |= _pictures(folder, card, contents)
    publication = Publication(model_id, {name: _sum(content) for name, content in contents.items()},
                              _left_out(folder, contents), card, found, list(_notes(folder, contents)))
    if dry_run:
        return publication

    repository = HubRepository(model_id, token, endpoint, revision)
    present = repository.visibility()
    there: Mapping[str, tuple[int, str | None]] = {}
    if present is None:
        repository.create(visibility or 'private', licence)
    else:
        there = repository.files()
        _check_weights_there(folder, model_id, contents, there)
        if visibility not in (None, present) and present != 'unknown':
            publication.notes.append(f'{model_id} was there already and stays {present}; its settings on the hub '
                                     'change that')
    publication.uploaded = [name for name, sum_ in publication.files.items() if there.get(name) != sum_]
    if publication.uploaded:
        try:
            repository.upload({name: contents[name] for name in publication.uploaded}, publication.files,
                              message or f'Publish with modelscope-fastinst {__version__}')
        except HubError as error:
            if present is not None:
                raise
            raise HubError(f'{error}; the new, empty repository {model_id} stays, and publishing again fills '
                           'it') from error
    repository.verify(publication.files)
    publication.address, publication.visibility = repository.address, present or visibility or 'private'
    _write_back(folder, contents, publication)
    return publication


def _files(folder: Path, example: str | os.PathLike | None,
           metrics: str | os.PathLike | None) -> dict[str, bytes | Path]:
    """The files of the model but for its card, by name: bytes of what goes into the commit, paths of what is large."""
    configuration = _configuration(folder)
    weights = find_weights(folder)
    contents: dict[str, bytes | Path] = {CONFIGURATION_FILE: configuration, weights.name: weights}
    if example is not None:
        contents[EXAMPLE_FILE] = example_picture(Path(example))
    elif (folder / EXAMPLE_FILE).is_file():
        contents[EXAMPLE_FILE] = (folder / EXAMPLE_FILE).read_bytes()
    record = Path(metrics) if metrics is not None else folder / RECORD_FILE
    if metrics is not None or record.is_file():
        read_record(record)
        contents[RECORD_FILE] = record.read_bytes()
    return contents | {name: (folder / name).read_bytes() for name in LICENCE_FILES if (folder / name).is_file()}


def _configuration(folder: Path) -> bytes:
    if not folder.is_dir():
        raise PublishError(f'{folder}: no such folder; publish takes a model folder')
    if is_huggingface_folder(folder):
        raise PublishError(f'{folder}: is a folder of Hugging Face\'s; publish what "modelscope-fastinst convert '
                           f'{folder} TARGET" makes of it')
    model = read_configuration(folder)['model']
    if model['type'] not in ('fastinst', 'mask2former'):
        raise PublishError(f'{folder / CONFIGURATION_FILE}: model.type is {model["type"]!r}, not "fastinst" or '
                           '"mask2former"')
    if model.get('pretrained') is False:
        raise PublishError(f'{folder / CONFIGURATION_FILE}: model.pretrained is false, so the model would run with '
                           'random weights instead of those beside it; set it to true')
    return (folder / CONFIGURATION_FILE).read_bytes()


def _pictures(folder: Path, card: str, contents: Mapping[str, Any]) -> Iterator[tuple[str, bytes | Path]]:
    """Pictures in the folder that the card shows."""
    for name in sorted(set(re.findall(r'[^\s()\[\]"\'<>`]+', card))):
        path = folder / name.removeprefix('./')
        if path.suffix.lower() not in PICTURES or '..' in path.parts or name.startswith('/') or not path.is_file():
            continue
        key = path.relative_to(folder).as_posix()
        if key not in contents and not _is_hidden(key) and path.stat().st_size <= LARGEST_PICTURE:
            yield key, path


def _left_out(folder: Path, contents: Mapping[str, Any]) -> dict[str, str]:
    """What lies in the folder and is not uploaded, with the reason."""
    reasons = {}
    for path in sorted(path for path in folder.rglob('*') if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if name not in contents:
            reasons[name] = ('hidden' if _is_hidden(name) else
                             f'{next(key for key in WEIGHT_FILES if key in contents)} is loaded instead'
                             if name in WEIGHT_FILES else 'not part of a model')
    return reasons


def _is_hidden(name: str) -> bool:
    return any(part.startswith('.') for part in name.split('/'))


def _run(folder: Path, device: str | None, verbose: bool,
         example: bytes | Path | None) -> tuple[list[tuple[str, str]] | None, bytes | None]:
    """Runs the model once, on the example if there is one: what it finds there, and a picture of that."""
    from modelscope_fastinst.data.image import read_image

    from .conversion import run_once
    from .example_result import result_counts, result_picture
    image = None if example is None else read_image(example, name=str(folder / EXAMPLE_FILE))
    try:
        found = run_once(folder, device, verbose, image if image is None else image[:, :, ::-1])
    except Exception as error:   # whatever a broken folder leads to
        if verbose:
            raise
        reason = (str(error).splitlines() or [''])[0]
        raise PublishError(f'{folder}: is not published, because it does not load and run: '
                           f'{reason or type(error).__name__}') from error
    if image is None:
        return None, None
    classes = read_configuration(folder)['model']['classes']
    return result_counts(found), result_picture(image, found, classes)


def _check_weights_there(folder: Path, model_id: str, contents: Mapping[str, Any], there: Mapping[str, Any]) -> None:
    """An older weight file on the hub must not be loaded instead of the new one."""
    for name in WEIGHT_FILES:
        if name in contents:
            return
        if name in there:
            raise PublishError(f'{model_id}: the hub has a {name} of it, which would be loaded instead of the '
                               f'{find_weights(folder).name} of {folder}; convert the folder first '
                               f'("modelscope-fastinst convert {folder} TARGET"), or remove the file on the hub')


def _notes(folder: Path, contents: Mapping[str, bytes | Path]) -> Iterator[str]:
    weights = find_weights(folder)
    if weights.suffix != '.safetensors':
        yield (f'{weights.name} is a pickle, which many will not load from a stranger; "modelscope-fastinst convert '
               f'{folder} TARGET" makes a folder with safetensors')
    if not says_trained(contents[CARD_FILE].decode()):
        yield 'not trained yet: the card says that only the backbone is, so the model finds nothing'
    if RECORD_FILE not in contents:
        yield f'not measured: run "modelscope-fastinst evaluate --model {folder} --record" first, with --data'
    if EXAMPLE_FILE not in contents:
        yield 'no example picture: --example IMAGE adds one'
    if is_enabled(front_matter(contents[CARD_FILE].decode(), CARD_FILE)):
        yield ('the widget is on: the hub runs the model with the ModelScope it has itself; where that lacks '
               'modelscope-fastinst, only a folder of "modelscope-fastinst convert --to stock" runs')
    for key, value in _absolute_paths(read_configuration(folder)):
        yield f'{CONFIGURATION_FILE}: {key} names a place on this machine, and is published: {value}'


def _absolute_paths(value: Any, key: str = '') -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _absolute_paths(item, f'{key}.{name}' if key else str(name))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _absolute_paths(item, f'{key}[{number}]')
    elif isinstance(value, str) and re.match(r'/[^/\s]|[A-Za-z]:\\|~/', value):
        yield key, value


def _sum(content: bytes | Path) -> tuple[int, str]:
    if isinstance(content, Path):
        return content.stat().st_size, file_sha256(content)
    return len(content), hashlib.sha256(content).hexdigest()


def _write_back(folder: Path, contents: Mapping[str, bytes | Path], publication: Publication) -> None:
    """The folder gets the card, example, its result and the record that were published."""
    for name in (CARD_FILE, EXAMPLE_FILE, RESULT_FILE, RECORD_FILE):
        content = contents.get(name)
        if isinstance(content, bytes) and (not (folder / name).is_file() or (folder / name).read_bytes() != content):
            try:
                write_whole(folder / name, content)
            except OSError as error:
                publication.notes.append(f'{folder / name}: is published, but could not be written here '
                                         f'({error.strerror})')
