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

from modelscope_fastinst.card_file import CardError, Section, completed, front_matter
from modelscope_fastinst.checkpoints import find_weights
from modelscope_fastinst.checkpoints.writing import write_whole
from modelscope_fastinst.evaluation.record import RECORD_FILE, check_record, check_weights, read_record

CARD_FILE = 'README.md'
EXAMPLE_FILE = 'example.jpg'
EXAMPLE_SIDE = 1024   # pixels; longer examples are made smaller
MANY_CLASSES = 20     # more are folded
MOST_CLASSES = 400    # more are cut

_CITATION = """```bibtex
@inproceedings{he2023fastinst,
  title     = {FastInst: A Simple Query-Based Model for Real-Time Instance Segmentation},
  author    = {He, Junjie and Li, Pengyu and Geng, Yifeng and Xie, Xuansong},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year      = {2023},
  note      = {arXiv:2303.08594}
}
```"""
_MEASURES = (('segm_mAP', 'segm AP'), ('segm_mAP_50', 'AP50'), ('segm_mAP_75', 'AP75'), ('segm_mAP_s', 'AP small'),
             ('segm_mAP_m', 'AP medium'), ('segm_mAP_l', 'AP large'), ('bbox_mAP', 'box AP'))


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
        CardError: the configuration is missing or describes no FastInst, the card's own front matter is broken or names
            another licence, or the example is no image. Card and folder stay as they were.
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
              licence: str | None = None, trained: bool = True, has_example: bool | None = None) -> str:
    """What ``write_model_card`` would write; nothing is written.

    Args:
        text: the card so far.
        has_example: whether there will be an ``example.jpg``; default whether there is.
    """
    where = str(folder / CARD_FILE)
    configuration = _configuration(folder)
    record = _record(folder, metrics)
    if has_example is None:
        has_example = (folder / EXAMPLE_FILE).is_file()
    trained = trained and says_trained(text)
    entries = _entries(configuration, record, base_model, licence, has_example, trained)
    earlier = _entries(configuration, None, base_model, licence, False, trained)
    _check_licence(text, licence, where)
    sections = _sections(configuration, record, folder, model_id, source, base_model, trained, new=not text)
    return completed(text, entries, sections, where, earlier)


def says_trained(text: str) -> bool:
    """Whether a card has no section of ours that says that the decoder's weights are random."""
    return '<!-- modelscope-fastinst untrained ' not in text


def network_name(model: Mapping[str, Any]) -> str:
    """The paper's name for a network: ``FastInst-D3 R50-d-DCN`` for the ``model`` section of such a configuration."""
    backbone = _section(model, 'backbone')
    name = f'R{backbone.get("depth", 50)}'
    if backbone.get('type', 'resnet') == 'resnet_d':
        name += '-d'
    if backbone.get('deform_stages'):
        name += '-DCN'
    return f'FastInst-D{_section(model, "decoder").get("dec_layers", 3)} {name}'


def backbone_name(model: Mapping[str, Any]) -> str:
    """The backbone as a tag: ``resnet50``, ``resnet50d-dcn``."""
    name = network_name(model).split()[1]
    return f'resnet{name[1:].replace("-d", "d", 1).replace("-DCN", "-dcn")}'


def _entries(configuration: Mapping[str, Any], record: Mapping[str, Any] | None, base_model: str | None,
             licence: str | None, has_example: bool, trained: bool) -> dict[str, Any]:
    """The front matter, in the order in which the hub's own cards have it."""
    model = configuration['model']
    task = str(configuration.get('task', 'image-segmentation'))
    entries = {
        'tasks': [task],
        'domain': ['cv'],
        'frameworks': [str(configuration.get('framework', 'pytorch'))],
        'backbone': [backbone_name(model)],
        'metrics': ['segm AP'] if record else None,
        'license': licence,
        'language': ['en'],
        'tags': ['instance segmentation', 'FastInst'],
        'base_model': [base_model] if base_model else None,
        'datasets': _datasets(configuration, record, trained) or None,
        'widgets': [_widget(task, has_example)],
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


def _widget(task: str, has_example: bool) -> dict[str, Any]:
    """The box on the model's page in which a visitor tries an image."""
    example = {'name': 1, 'title': 'example', 'inputs': [{'name': 'image', 'data': f'git://{EXAMPLE_FILE}'}]}
    return {'task': task, 'inputs': [{'type': 'image', 'name': 'image', 'title': 'image'}],
            'examples': [example] if has_example else [], 'inferencespec': {'cpu': 2, 'memory': 4096}}


def _sections(configuration: Mapping[str, Any], record: Mapping[str, Any] | None, folder: Path, model_id: str | None,
              source: str | None, base_model: str | None, trained: bool, new: bool) -> list[Section]:
    classes = _classes(configuration['model'])
    model = model_id or folder.resolve().name   # by its folder's name, wherever that lies on the reader's machine
    name = network_name(configuration['model'])
    title = f'{name} for {_code(classes[0])}' if len(classes) == 1 else f'{name}, {len(classes)} classes'
    about = (f'{name} finds the objects in an image and outlines each of them: a mask, a box, a class and a score for '
             f'every instance.')
    untrained = Section('untrained', 'Not trained yet', 'Only the weights of the backbone are trained, the others are '
                        'random. It is a start for training and finds nothing as it is.')
    origin = [source] if source else []
    if base_model:
        origin.append(f'Made from {_code(base_model)}.')
    return [
        Section('title', title, about, level=1),
        *([] if trained else [untrained]),
        Section('network', 'Network', _network(configuration), also=frozenset({'model', 'architecture'})),
        Section('classes', 'Classes', _class_list(classes), also=frozenset({'labels'})),
        Section('usage', 'How to run it', _usage(model), keep=model_id is None,
                also=frozenset({'usage', 'how to use', 'how to use it', 'how to run'})),
        Section('fine-tuning', 'How to fine-tune it', _fine_tuning(model), keep=model_id is None,
                also=frozenset({'fine-tuning', 'training', 'how to fine-tune'})),
        Section('measured', 'Measured', _measured(record), also=frozenset({'evaluation', 'results', 'metrics'})),
        *([Section('source', 'Source', '\n'.join(origin) or 'Not said by whoever wrote this card.',
                   also=frozenset({'provenance', 'origin'}))] if origin or new else []),
        Section('licence', 'Licence', 'That of the weights is the `license` entry at the top of this file; without '
                'one, ask whoever published them. The code is modelscope-fastinst, Apache License 2.0.',
                also=frozenset({'license'})),
        Section('citation', 'Citation', _CITATION, also=frozenset({'citing', 'cite', 'bibtex'})),
    ]


def _network(configuration: Mapping[str, Any]) -> str:
    from modelscope_fastinst.data.augment import InferenceTransform
    model = configuration['model']
    size = {**vars(InferenceTransform()), **_section(configuration, 'preprocessor')}
    decoder = _section(model, 'decoder')
    longest = f', long side at most {size["max_size"]}' if size['max_size'] else ''
    rows = [('network', network_name(model)), ('backbone', backbone_name(model)),
            ('decoder layers', decoder.get('dec_layers', 3)), ('queries', decoder.get('num_queries', 100)),
            *([('input', f'short side {size["min_size"]}{longest} pixels')] if 'preprocessor' in configuration else []),
            ('parameters', f'{_parameters(model) / 1e6:.2f} million')]
    return '\n'.join(['| | |', '|---|---|', *(f'| {name} | {value} |' for name, value in rows)])


def _parameters(model: Mapping[str, Any]) -> int:
    import torch

    from modelscope_fastinst.models.build import build_network
    sections = {key: model[key] for key in ('backbone', 'encoder', 'decoder') if key in model}
    sections['decoder'] = {**_section(model, 'decoder'), 'num_classes': len(_classes(model))}
    with torch.device('meta'):   # shapes without memory
        network = build_network(sections)
    return sum(parameter.numel() for parameter in network.parameters())


def _class_list(classes: Sequence[str]) -> str:
    listed = ', '.join(map(_code, classes[:MOST_CLASSES]))
    if len(classes) > MOST_CLASSES:
        listed += f', and {len(classes) - MOST_CLASSES} more: see `model.classes` in configuration.json'
    if len(classes) <= MANY_CLASSES:
        return f'{len(classes)}: {listed}'
    return f'<details><summary>{len(classes)} classes</summary>\n\n{listed}\n\n</details>'


def _code(text: str) -> str:
    """Text as Markdown code, so that no character of it means anything."""
    text = ' '.join(text.split())
    fence = '`' * (max(map(len, re.findall('`+', text)), default=0) + 1)
    space = ' ' if text.startswith('`') or text.endswith('`') else ''
    return f'{fence}{space}{text}{space}{fence}'


def _usage(model: str) -> str:
    return f"""With `modelscope-fastinst` installed, in one line:

```
modelscope-fastinst predict image.jpg --model {_quoted(model)}
```

or from Python:

```python
import modelscope_fastinst
from modelscope.pipelines import pipeline

result = pipeline('image-segmentation', model={model!r})('image.jpg')
result['labels'], result['scores'], result['boxes'], result['masks']
```"""


def _fine_tuning(model: str) -> str:
    return f"""On images of your own, annotated in COCO's format; the classes are those of the annotations:

```
modelscope-fastinst train --model {_quoted(model)} --data my_data --work-dir work_dir
```

or from Python:

```python
import modelscope_fastinst
from modelscope.trainers import build_trainer

trainer = build_trainer('fastinst-trainer', default_args={{
    'model': {model!r}, 'work_dir': 'work_dir',
    'train_dataset': {{'root': 'my_data', 'split': 'train'}}, 'eval_dataset': {{'root': 'my_data', 'split': 'val'}}}})
trainer.train()   # the model is then in work_dir/output
```"""


def _measured(record: Mapping[str, Any] | None) -> str:
    if record is None:
        return 'Not measured with `modelscope-fastinst evaluate --record`.'
    measures = record['measures']
    known = [(title, measures[key]) for key, title in _MEASURES if key in measures]
    versions = ', '.join(f'{name} {version}' for name, version in record.get('versions', {}).items())
    return f"""On {_code(record['data'])} ({record['images']:,} images), {record['date']}\
{f', with {versions}' if versions else ''}:

| {' | '.join(title for title, _ in known)} |
|{'---|' * len(known)}
| {' | '.join('-' if value == -1 else f'{value:.3f}' for _, value in known)} |

```
{record['command'].strip()}
```"""


def _quoted(text: str) -> str:
    return text if re.fullmatch(r'[\w./-]+', text) else f'"{text}"'


def _configuration(folder: Path) -> dict[str, Any]:
    path = folder / 'configuration.json'
    try:
        configuration = json.loads(path.read_text('utf-8'))
    except OSError as error:
        raise CardError(f'{path}: cannot be read ({error.strerror}); a card describes a model folder') from error
    except ValueError as error:
        raise CardError(f'{path}: not JSON: {error}') from error
    model = configuration.get('model') if isinstance(configuration, Mapping) else None
    if not isinstance(model, Mapping) or model.get('type') != 'fastinst':
        raise CardError(f'{path}: model.type must be "fastinst" for a card of a FastInst model')
    if not _classes(model):
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


def _check_licence(text: str, licence: str | None, where: str) -> None:
    there = front_matter(text, where).get('license')
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


def _section(mapping: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    section = mapping.get(key)
    return section if isinstance(section, Mapping) else {}


def _classes(model: Mapping[str, Any]) -> list[str]:
    classes = model.get('classes')
    return [str(name) for name in classes] if isinstance(classes, Sequence) and not isinstance(classes, str) else []
