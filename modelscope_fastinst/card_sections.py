"""What a model card says about a model: the sections below its front matter."""
from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from modelscope_fastinst.card_file import Section
from modelscope_fastinst.card_widget import EXAMPLE_FILE, RESULT_FILE
from modelscope_fastinst.network_names import (
    PIXEL_DECODERS,
    TITLES,
    architecture,
    backbone_tag,
    decoder_layers,
    network_name,
    pixel_decoder,
)
from modelscope_fastinst.structures import TASKS

MANY_CLASSES = 20     # more are folded
MOST_CLASSES = 400    # more are cut
MOST_COUNTED = 10     # classes of what is found in the example; more are only counted

# What a record of an evaluation can hold, by task, the task's own measure first.
MEASURES = {
    'instance': (('segm_mAP', 'segm AP'), ('segm_mAP_50', 'AP50'), ('segm_mAP_75', 'AP75'), ('segm_mAP_s', 'AP small'),
                 ('segm_mAP_m', 'AP medium'), ('segm_mAP_l', 'AP large'), ('boundary_mAP', 'boundary AP'),
                 ('bbox_mAP', 'box AP')),
    'semantic': (('mIoU', 'mIoU'), ('fwIoU', 'frequency-weighted IoU'), ('mACC', 'mean accuracy'),
                 ('pACC', 'pixel accuracy')),
    'panoptic': (('PQ', 'PQ'), ('SQ', 'SQ'), ('RQ', 'RQ'), ('PQ_th', 'PQ things'), ('PQ_st', 'PQ stuff')),
}
_ABOUT = {
    'instance': '{} finds the objects in an image and outlines each of them: a mask, a box, a class and a score for '
                'every instance.',
    'semantic': '{} says of every pixel of an image what class it belongs to.',
    'panoptic': '{} divides an image into segments, one for every object (things) and one for every kind of '
                'surroundings (stuff): a mask, a class and a score for each, and no pixel in two of them.',
}
_RESULTS = {
    'instance': "result['labels'], result['scores'], result['boxes'], result['masks']",
    'semantic': "result['label_map']   # the pixels' class indices\nresult['labels'], result['masks']",
    'panoptic': "result['id_map'], result['segments']   # which segment a pixel is in; label, score, isthing of each",
}
_CITATIONS = {
    'fastinst': """@inproceedings{he2023fastinst,
  title     = {FastInst: A Simple Query-Based Model for Real-Time Instance Segmentation},
  author    = {He, Junjie and Li, Pengyu and Geng, Yifeng and Xie, Xuansong},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year      = {2023},
  note      = {arXiv:2303.08594}
}""",
    'mask2former': """@inproceedings{cheng2022mask2former,
  title     = {Masked-attention Mask Transformer for Universal Image Segmentation},
  author    = {Cheng, Bowen and Misra, Ishan and Schwing, Alexander G. and Kirillov, Alexander and Girdhar, Rohit},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year      = {2022},
  note      = {arXiv:2112.01527}
}""",
    'swin': """@inproceedings{liu2021swin,
  title     = {Swin Transformer: Hierarchical Vision Transformer using Shifted Windows},
  author    = {Liu, Ze and Lin, Yutong and Cao, Yue and Hu, Han and Wei, Yixuan and Zhang, Zheng and Lin, Stephen
               and Guo, Baining},
  booktitle = {Proceedings of the IEEE/CVF International Conference on Computer Vision (ICCV)},
  year      = {2021},
  note      = {arXiv:2103.14030}
}""",
}


def task_of(model: Mapping[str, Any]) -> str:
    """What the weights were trained for."""
    return str(model.get('task') or 'instance')


def tags(model: Mapping[str, Any]) -> list[str]:
    """Words by which the hub finds the model: what its weights can be asked for, and the architecture."""
    return [*(f'{task} segmentation' for task in TASKS.get(task_of(model), ())), TITLES[architecture(model)]]


def measured_titles(model: Mapping[str, Any], measures: Mapping[str, float]) -> list[str]:
    """The main measure of every task that a record has one of, the model's own task first."""
    return [MEASURES[task][0][1] for task in _tasks(model) if MEASURES[task][0][0] in measures]


def sections(configuration: Mapping[str, Any], record: Mapping[str, Any] | None, folder: Path, model_id: str | None,
             source: str | None, base_model: str | None, trained: bool, new: bool,
             result: Sequence[tuple[str, str]] | None = None) -> list[Section]:
    """The sections of a card, in their order; see ``model_card.write_model_card``.

    Args:
        new: there is no card yet.
        result: how much of which class the model finds in the example picture, as in ``('12', 'nucleus')``; None
            without an example.
    """
    network = configuration['model']
    classes = class_names(network)
    model = model_id or folder.resolve().name   # by its folder's name, wherever that lies on the reader's machine
    name = network_name(network)
    title = f'{name} for {_code(classes[0])}' if len(classes) == 1 else f'{name}, {len(classes)} classes'
    untrained = Section('untrained', 'Not trained yet', 'Only the weights of the backbone are trained, the others are '
                        'random. It is a start for training and finds nothing as it is.')
    origin = [source] if source else []
    if base_model:
        origin.append(f'Made from {_code(base_model)}.')
    return [
        Section('title', title, _ABOUT[task_of(network)].format(name), level=1),
        *([] if trained else [untrained]),
        *([Section('example', 'Example', _example(result), also=frozenset({'examples', 'demo'}))]
          if result is not None else []),
        Section('network', 'Network', _network(configuration), also=frozenset({'model', 'architecture'})),
        Section('classes', 'Classes', _classes(network), also=frozenset({'labels'})),
        Section('usage', 'How to run it', _usage(model, task_of(network)), keep=model_id is None,
                also=frozenset({'usage', 'how to use', 'how to use it', 'how to run'})),
        Section('fine-tuning', 'How to fine-tune it', _fine_tuning(model, task_of(network)), keep=model_id is None,
                also=frozenset({'fine-tuning', 'training', 'how to fine-tune'})),
        Section('measured', 'Measured', _measured(network, record),
                also=frozenset({'evaluation', 'results', 'metrics'})),
        *([Section('source', 'Source', '\n'.join(origin) or 'Not said by whoever wrote this card.',
                   also=frozenset({'provenance', 'origin'}))] if origin or new else []),
        Section('licence', 'Licence', _licence(network), also=frozenset({'license'})),
        Section('citation', 'Citation', _citation(network), also=frozenset({'citing', 'cite', 'bibtex'})),
    ]


def _example(result: Sequence[tuple[str, str]]) -> str:
    """The picture beside what the model finds in it."""
    found = ', '.join(f'{number} {_code(label)}' for number, label in result[:MOST_COUNTED]).replace('|', r'\|')
    more = f', and {len(result) - MOST_COUNTED} more classes' if len(result) > MOST_COUNTED else ''
    return f"""| a picture | what the model finds in it: {found or 'nothing'}{more} |
|---|---|
| ![a picture]({EXAMPLE_FILE}) | ![what the model finds in it]({RESULT_FILE}) |"""


def class_names(model: Mapping[str, Any]) -> list[str]:
    """``model.classes`` of a configuration; empty where there is no list."""
    classes = model.get('classes')
    return [str(name) for name in classes] if isinstance(classes, Sequence) and not isinstance(classes, str) else []


def _tasks(model: Mapping[str, Any]) -> Iterable[str]:
    """All tasks, the model's own first."""
    return sorted(MEASURES, key=lambda task: task != task_of(model))


def _network(configuration: Mapping[str, Any]) -> str:
    from modelscope_fastinst.data.augment import InferenceTransform
    model = configuration['model']
    size = {**vars(InferenceTransform()), **(configuration.get('preprocessor') or {})}
    longest = f', long side at most {size["max_size"]}' if size['max_size'] else ''
    seen = f'short side {size["min_size"]}{longest}' if not size.get('size') else f'resized to {size["size"]}'
    decoder = pixel_decoder(model)
    rows = [('network', network_name(model)), ('backbone', backbone_tag(model)),
            *([('pixel decoder', PIXEL_DECODERS.get(decoder, decoder))] if decoder != 'ppm-fpn' else []),
            ('decoder layers', decoder_layers(model)),
            ('queries', (model.get('decoder') or {}).get('num_queries', 100)),
            *([('trained for', f'{task_of(model)} segmentation')] if model.get('task') else []),
            *([('input', f'{seen} pixels')] if 'preprocessor' in configuration else []),
            ('parameters', f'{_parameters(model) / 1e6:.2f} million')]
    return '\n'.join(['| | |', '|---|---|', *(f'| {name} | {value} |' for name, value in rows)])


def _parameters(model: Mapping[str, Any]) -> int:
    import torch

    from modelscope_fastinst.models.build import build_network
    parts = {key: model[key] for key in ('type', 'backbone', 'encoder', 'decoder') if key in model}
    parts['decoder'] = {**(model.get('decoder') or {}), 'num_classes': len(class_names(model))}
    with torch.device('meta'):   # shapes without memory
        network = build_network(parts)
    return sum(parameter.numel() for parameter in network.parameters())


def _classes(model: Mapping[str, Any]) -> str:
    """The classes; a panoptic model's things and stuff apart."""
    classes = class_names(model)
    if task_of(model) != 'panoptic':
        return _class_list(classes, 'classes')
    things = {str(name) for name in model.get('things') or ()}
    groups = {'things': [name for name in classes if name in things],
              'kinds of stuff': [name for name in classes if name not in things]}
    return '\n\n'.join(_class_list(names, title) if len(names) > MANY_CLASSES else
                       f'{title.capitalize()}: {_class_list(names, title)}' for title, names in groups.items() if names)


def _class_list(classes: Sequence[str], title: str) -> str:
    listed = ', '.join(map(_code, classes[:MOST_CLASSES]))
    if len(classes) > MOST_CLASSES:
        listed += f', and {len(classes) - MOST_CLASSES} more: see `model.classes` in configuration.json'
    if len(classes) <= MANY_CLASSES:
        return f'{len(classes)}: {listed}'
    return f'<details><summary>{len(classes)} {title}</summary>\n\n{listed}\n\n</details>'


def _code(text: str) -> str:
    """Text as Markdown code, so that no character of it means anything."""
    text = ' '.join(text.split())
    fence = '`' * (max(map(len, re.findall('`+', text)), default=0) + 1)
    space = ' ' if text.startswith('`') or text.endswith('`') else ''
    return f'{fence}{space}{text}{space}{fence}'


def _usage(model: str, task: str) -> str:
    usage = f"""With `modelscope-fastinst` installed, in one line:

```
modelscope-fastinst predict image.jpg --model {_quoted(model)}
```

or from Python:

```python
import modelscope_fastinst
from modelscope.pipelines import pipeline

result = pipeline('image-segmentation', model={model!r})('image.jpg')
{_RESULTS[task]}
```"""
    others = [other for other in TASKS[task] if other != task]
    if not others:
        return usage
    calls = '\n'.join(f"result = segment('image.jpg', task={other!r})\n{_RESULTS[other]}" for other in others)
    return f"""{usage}

The same weights do {' and '.join(others)} segmentation:

```python
segment = pipeline('image-segmentation', model={model!r})
{calls}
```"""


_DATA = {
    'instance': ("On images of your own, annotated in COCO's format; the classes are those of the annotations:", ''),
    'semantic': ('On images of your own, each with a PNG of class indices (`images/` and `labels/`):', 'semantic-png'),
    'panoptic': ("On images of your own, with COCO's panoptic JSON and PNGs; classes and things are those of the "
                 'annotations:', 'coco-panoptic'),
}


def _fine_tuning(model: str, task: str) -> str:
    text, kind = _DATA[task]
    option = f' --format {kind}' if kind else ''
    key = f", 'format': {kind!r}" if kind else ''
    return f"""{text}

```
modelscope-fastinst train --model {_quoted(model)} --data my_data{option} --work-dir work_dir
```

or from Python:

```python
import modelscope_fastinst
from modelscope.trainers import build_trainer

trainer = build_trainer('fastinst-trainer', default_args={{
    'model': {model!r}, 'work_dir': 'work_dir',
    'train_dataset': {{'root': 'my_data', 'split': 'train'{key}}},\
{" " if not kind else f"{chr(10)}    "}'eval_dataset': {{'root': 'my_data', 'split': 'val'{key}}}}})
trainer.train()   # the model is then in work_dir/output
```"""


def _measured(model: Mapping[str, Any], record: Mapping[str, Any] | None) -> str:
    if record is None:
        return 'Not measured with `modelscope-fastinst evaluate --record`.'
    versions = ', '.join(f'{name} {version}' for name, version in record.get('versions', {}).items())
    tables = [_table([(title, record['measures'][key]) for key, title in MEASURES[task] if key in record['measures']])
              for task in _tasks(model)]
    return f"""On {_code(record['data'])} ({record['images']:,} images), {record['date']}\
{f', with {versions}' if versions else ''}:

{(chr(10) * 2).join(filter(None, tables))}

```
{record['command'].strip()}
```"""


def _table(known: Sequence[tuple[str, float]]) -> str:
    if not known:
        return ''
    return f"""| {' | '.join(title for title, _ in known)} |
|{'---|' * len(known)}
| {' | '.join('-' if value == -1 else f'{value:.3f}' for _, value in known)} |"""


def _licence(model: Mapping[str, Any]) -> str:
    text = ('That of the weights is the `license` entry at the top of this file; without one, ask whoever published '
            'them. The code is modelscope-fastinst, Apache License 2.0.')
    if architecture(model) == 'mask2former':
        text += (' The authors of Mask2Former publish the weights of their model zoo under CC BY-NC 4.0 (no commercial '
                 'use). Weights made from theirs carry that restriction.')
    return text


def _citation(model: Mapping[str, Any]) -> str:
    """The papers whose parts the network has."""
    decoder = model.get('decoder') or {}
    kinds = {architecture(model), {'ppm-fpn': 'fastinst', 'msdeformattn': 'mask2former'}.get(pixel_decoder(model))}
    if decoder.get('queries') == 'activation-guided':
        kinds.add('fastinst')
    if (model.get('backbone') or {}).get('type') == 'swin':
        kinds.add('swin')
    return '```bibtex\n' + '\n\n'.join(text for kind, text in _CITATIONS.items() if kind in kinds) + '\n```'


def _quoted(text: str) -> str:
    return text if re.fullmatch(r'[\w./-]+', text) else f'"{text}"'
