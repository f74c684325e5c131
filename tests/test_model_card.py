"""The model card: its front matter read back as YAML, its text, and what happens to a card that somebody wrote."""
from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from modelscope_fastinst import zoo
from modelscope_fastinst.card_file import CardError, Section, completed, front_matter
from modelscope_fastinst.checksum import file_sha256
from modelscope_fastinst.evaluation.record import RecordError
from modelscope_fastinst.model_card import write_model_card
from modelscope_fastinst.network_names import backbone_tag, network_name
from tests.tiny import model_config

HAZARDS = ['colon: here', "it's", '"quoted"', '# not a heading', '- not a list', '`code`', 'a|b', '<b>', '{brace}',
           '细胞核', '细胞: "核"', 'two\nlines', '---', 'yes', '100']


def write_folder(folder: Path, *classes: str, **changes: Any) -> Path:
    """A model folder with next to no weights: a card is about the configuration."""
    folder.mkdir(parents=True)
    names = list(classes) or ['ant', 'bee', 'cat']
    configuration = {'framework': 'pytorch', 'task': 'image-segmentation',
                     'pipeline': {'type': 'fast-instance-segmentation'},
                     'model': model_config(classes=names, decoder={'num_classes': len(names)}), **changes}
    (folder / 'configuration.json').write_text(json.dumps(configuration), 'utf-8')
    (folder / 'model.safetensors').write_bytes(b'weights')
    return folder


def record(folder: Path, **changes: Any) -> dict[str, Any]:
    return {'command': 'modelscope-fastinst evaluate --model my_model --data shapes --record', 'date': '2026-01-31',
            'data': 'instances_val.json', 'images': 1234,
            'measures': {'segm_mAP': 0.4371, 'segm_mAP_50': 0.7, 'segm_mAP_s': -1.0, 'bbox_mAP': 0.39},
            'weights': {'file': 'model.safetensors', 'sha256': file_sha256(folder / 'model.safetensors')},
            'versions': {'modelscope-fastinst': '1.2.3'}, **changes}


def card_of(folder: Path, **arguments: Any) -> str:
    return write_model_card(folder, **arguments).read_text('utf-8')


def entries(text: str) -> dict[str, Any]:
    """The front matter as the hub reads it."""
    return yaml.safe_load(re.match(r'---\n(.*?)\n---\n', text, re.DOTALL)[1])


def section(text: str, title: str) -> str:
    found = re.search(rf'^## {title}\n(.*?)(?=^## |\Z)', text, re.DOTALL | re.MULTILINE)
    assert found, f'no section {title}'
    return found[1]


# a new card

def test_the_front_matter_has_what_the_hub_shows(tmp_path):
    folder = write_folder(tmp_path / 'm', dataset={'train': {'annotation_file': '/somewhere/instances_train.json'}})
    (folder / 'evaluation.json').write_text(json.dumps(record(folder)), 'utf-8')
    Image.new('RGB', (40, 30)).save(tmp_path / 'picture.png')
    assert entries(card_of(folder, licence='MIT License', base_model='damo/other',
                           example=tmp_path / 'picture.png')) == {
        'tasks': ['image-segmentation'], 'domain': ['cv'], 'frameworks': ['pytorch'], 'backbone': ['resnet18'],
        'metrics': ['segm AP'], 'license': 'MIT License', 'language': ['en'],
        'tags': ['instance segmentation', 'FastInst'], 'base_model': ['damo/other'],
        'datasets': {'train': ['instances_train.json'], 'test': ['instances_val.json']},
        'widgets': [{'enable': False, 'version': 1, 'task': 'image-segmentation',
                     'inputs': [{'type': 'image', 'displayType': 'ImageUploader',
                                 'validator': {'max_size': '10M', 'max_resolution': '5000*5000'}}],
                     'output': {'displayType': 'ImageSegmentation',
                                'displayValueMapping': {'boxes': 'boxes', 'masks': 'masks', 'scores': 'scores',
                                                        'labels': 'labels'}},
                     'examples': [{'inputs': [{'data': 'git://example.jpg'}]}],
                     'inferencespec': {'cpu': 2, 'memory': 4096}}]}


@pytest.mark.parametrize(('name', 'network', 'backbone', 'parameters'), [
    ('fastinst_d1_r50', 'FastInst-D1 R50', 'resnet50', '29.66'),
    ('fastinst_d3_r50', 'FastInst-D3 R50', 'resnet50', '34.18'),
    ('fastinst_d3_r101', 'FastInst-D3 R101', 'resnet101', '53.12'),
    ('fastinst_d1_r50d_dcn', 'FastInst-D1 R50-d-DCN', 'resnet50d-dcn', '30.17'),
    ('fastinst_d3_r50d_dcn', 'FastInst-D3 R50-d-DCN', 'resnet50d-dcn', '34.69'),
])
def test_a_published_model_has_the_name_of_the_paper(name, network, backbone, parameters, tmp_path):
    configuration = zoo.configuration(name)
    assert network_name(configuration['model']) == network
    assert backbone_tag(configuration['model']) == backbone
    (tmp_path / 'configuration.json').write_text(json.dumps(configuration), 'utf-8')
    text = card_of(tmp_path)
    assert f'# {network}, 80 classes' in text
    assert f'| parameters | {parameters} million |' in text
    assert f'short side {configuration["preprocessor"]["min_size"]}, long side at most ' in text
    assert entries(text)['backbone'] == [backbone] and 'datasets' not in entries(text)


def test_a_network_without_deformable_stages():
    assert backbone_tag({'backbone': {'type': 'resnet_d', 'depth': 50}}) == 'resnet50d'


@pytest.mark.parametrize(('arguments', 'name'), [
    pytest.param({'model_id': 'me/insects'}, 'me/insects', id='by id'),
    pytest.param({}, 'my model', id='by folder'),
])
def test_how_to_run_and_to_fine_tune_it(arguments, name, tmp_path):
    text = card_of(write_folder(tmp_path / 'my model'), **arguments)
    shell = name if ' ' not in name else f'"{name}"'
    assert f'modelscope-fastinst predict image.jpg --model {shell}\n' in section(text, 'How to run it')
    assert f'modelscope-fastinst train --model {shell} --data my_data' in section(text, 'How to fine-tune it')
    assert str(tmp_path) not in text
    for code in re.findall(r'```python\n(.*?)```', text, re.DOTALL):
        compile(code, 'card', 'exec')
        assert repr(name) in code


# other architectures and tasks

THINGS, STUFF = ['ant', 'bee'], ['leaf', 'soil']


def mask2former(task: str, **parts: Any) -> dict[str, Any]:
    """A small Mask2Former on Swin-T's shape, for two things and two kinds of stuff."""
    model = {'type': 'mask2former', 'task': task, 'classes': THINGS + STUFF,
             'backbone': {'type': 'swin', 'embed_dim': 96, 'depths': [2, 2, 6, 2], 'num_heads': [3, 6, 12, 24]},
             'encoder': {'convs_dim': 64, 'enc_layers': 1, 'dim_feedforward': 64},
             'decoder': {'num_classes': 4, 'hidden_dim': 64, 'dim_feedforward': 64, 'mask_dim': 64}, **parts}
    return {**model, 'things': THINGS} if task == 'panoptic' else model


@pytest.mark.parametrize(('task', 'others', 'tags', 'kind', 'results'), [
    pytest.param('instance', [], ['instance segmentation', 'Mask2Former'], None, 'boxes', id='instances'),
    pytest.param('semantic', [], ['semantic segmentation', 'Mask2Former'], 'semantic-png', 'label_map', id='semantic'),
    pytest.param('panoptic', ['instance', 'semantic'], ['panoptic segmentation', 'instance segmentation',
                                                        'semantic segmentation', 'Mask2Former'],
                 'coco-panoptic', 'segments', id='panoptic'),
])
def test_a_card_tells_what_the_weights_do(task, others, tags, kind, results, tmp_path):
    text = card_of(write_folder(tmp_path / 'm', model=mask2former(task)))
    assert '# Mask2Former Swin-T, 4 classes' in text
    assert entries(text)['tags'] == tags and entries(text)['backbone'] == ['swin-t']
    network = section(text, 'Network')
    for row in ('backbone | swin-t', 'pixel decoder | MSDeformAttn', 'decoder layers | 9', f'trained for | {task} '):
        assert f'| {row}' in network
    usage, fine_tuning = section(text, 'How to run it'), section(text, 'How to fine-tune it')
    assert f"result['{results}']" in usage
    assert re.findall(r"task='(\w+)'", usage) == others
    assert (f'--format {kind}' in fine_tuning and f"'format': '{kind}'" in fine_tuning) if kind else (
        'format' not in fine_tuning.replace("COCO's format", ''))
    for code in re.findall(r'```python\n(.*?)```', text, re.DOTALL):
        compile(code, 'card', 'exec')
    if task == 'panoptic':
        assert 'Things: 2: `ant`, `bee`' in text and 'Kinds of stuff: 2: `leaf`, `soil`' in text
    else:
        assert '4: `ant`, `bee`, `leaf`, `soil`' in section(text, 'Classes')


@pytest.mark.parametrize(('parts', 'name', 'papers'), [
    pytest.param({}, 'Mask2Former Swin-T', ['2112.01527', '2103.14030'], id='Mask2Former'),
    pytest.param({'backbone': {'depth': 18}}, 'Mask2Former R18', ['2112.01527'], id='with a ResNet'),
    pytest.param({'encoder': {'type': 'ppm-fpn', 'convs_dim': 64, 'in_features': ['res3', 'res4', 'res5']}},
                 'Mask2Former Swin-T with PPM-FPN', ['2303.08594', '2112.01527', '2103.14030'],
                 id='with the pixel decoder of FastInst'),
    pytest.param({'backbone': {'depth': 18}, 'decoder': {'type': 'dual-path', 'hidden_dim': 64, 'dec_layers': 3}},
                 'FastInst-D3 R18 with MSDeformAttn', ['2303.08594', '2112.01527'], id='with the decoder of FastInst'),
    pytest.param({'backbone': {'depth': 18}, 'decoder': {'queries': 'activation-guided', 'hidden_dim': 64,
                                                         'mask_dim': 64}},
                 'Mask2Former R18', ['2303.08594', '2112.01527'], id='with the queries of FastInst'),
    pytest.param({'backbone': {'depth': 18}, 'decoder': {'dec_layers': 3, 'hidden_dim': 64, 'mask_dim': 64}},
                 'Mask2Former-D3 R18', ['2112.01527'], id='with fewer layers'),
])
def test_a_card_names_the_parts_and_cites_their_papers(parts, name, papers, tmp_path):
    text = card_of(write_folder(tmp_path / 'm', model=mask2former('instance', **parts)))
    assert f'# {name}, 4 classes' in text
    assert re.findall(r'arXiv:([\d.]+)', section(text, 'Citation')) == papers
    assert ('CC BY-NC 4.0' in section(text, 'Licence')) == name.startswith('Mask2Former')


@pytest.mark.parametrize(('measures', 'titles', 'tables'), [
    pytest.param({'PQ': 0.5, 'SQ': 0.75, 'PQ_th': 0.4, 'PQ_st': -1}, ['PQ'],
                 ['| PQ | SQ | PQ things | PQ stuff |\n|---|---|---|---|\n| 0.500 | 0.750 | 0.400 | - |'],
                 id='panoptic quality'),
    pytest.param({'mIoU': 0.25, 'IoU/ant': 0.2, 'PQ': 0.5, 'segm_mAP': 0.125}, ['PQ', 'segm AP', 'mIoU'],
                 ['| PQ |\n|---|\n| 0.500 |', '| segm AP |\n|---|\n| 0.125 |', '| mIoU |\n|---|\n| 0.250 |'],
                 id='all three, its own first'),
])
def test_measures_of_every_task_come_into_the_card(measures, titles, tables, tmp_path):
    folder = write_folder(tmp_path / 'm', model=mask2former('panoptic'))
    (folder / 'evaluation.json').write_text(json.dumps(record(folder, measures=measures)), 'utf-8')
    text = card_of(folder)
    assert entries(text)['metrics'] == titles
    assert re.findall(r'(?:^\|.*\n)+', section(text, 'Measured'), re.M) == [f'{table}\n' for table in tables]


def test_source_licence_and_paper(tmp_path):
    text = card_of(write_folder(tmp_path / 'm'), source='Trained on my ants.', base_model='me/base')
    assert 'Trained on my ants.' in section(text, 'Source') and '`me/base`' in section(text, 'Source')
    assert 'license' in section(text, 'Licence') and 'license' not in entries(text)
    assert '2303.08594' in section(text, 'Citation') and 'CVPR' in section(text, 'Citation')


def test_a_model_that_is_not_trained_says_so(tmp_path):
    folder = write_folder(tmp_path / 'm', dataset={'train': {'root': 'data/ants', 'split': 'train'}})
    assert 'random' in section(text := card_of(folder, trained=False), 'Not trained yet')
    assert 'datasets' not in entries(text)
    text = card_of(folder, model_id='me/m')   # a later call does not know better
    assert '## Not trained yet' in text and 'datasets' not in entries(text)


# classes

def test_every_class_is_named_whatever_its_name_is(tmp_path):
    text = card_of(write_folder(tmp_path / 'm', *HAZARDS))
    assert entries(text)['tasks'] == ['image-segmentation']
    listed = section(text, 'Classes')
    assert listed.startswith('\n15: ')
    for name in HAZARDS:
        assert ' '.join(name.split()) in listed
    assert '`` `code` ``' in listed


def test_a_single_class_is_in_the_title(tmp_path):
    assert '# FastInst-D2 R18 for `细胞核`\n' in card_of(write_folder(tmp_path / 'm', '细胞核'))


@pytest.mark.parametrize(('number', 'folded', 'left_out'), [
    pytest.param(20, False, 0, id='few'),
    pytest.param(21, True, 0, id='many: folded'),
    pytest.param(450, True, 50, id='very many: cut, with the number of the rest'),
])
def test_many_classes_take_little_room(number, folded, left_out, tmp_path):
    listed = section(card_of(write_folder(tmp_path / 'm', *(f'class {i}' for i in range(number)))), 'Classes')
    assert ('<details>' in listed) == folded
    assert listed.count('`class ') == number - left_out
    assert (f'{left_out} more' in listed) == bool(left_out)


# measures

def test_without_a_record_the_card_says_that_nothing_was_measured(tmp_path):
    text = card_of(write_folder(tmp_path / 'm'))
    assert section(text, 'Measured').strip().startswith('Not measured')
    assert not {'datasets', 'metrics'} & set(entries(text))


def test_measures_are_those_of_the_record_with_the_command(tmp_path):
    folder = write_folder(tmp_path / 'm')
    (folder / 'evaluation.json').write_text(json.dumps(record(folder)), 'utf-8')
    measured = section(card_of(folder), 'Measured')
    assert '| segm AP | AP50 | AP small | box AP |\n' in measured
    assert '| 0.437 | 0.700 | - | 0.390 |\n' in measured
    assert 'modelscope-fastinst evaluate --model my_model --data shapes --record\n' in measured
    assert 'instances_val.json' in measured and '1,234 images' in measured and '2026-01-31' in measured


def test_a_later_measurement_comes_into_the_card(tmp_path):
    folder = write_folder(tmp_path / 'm', dataset={'train': {'root': 'data/ants', 'split': 'train'}})
    card_of(folder)
    text = card_of(folder, metrics=record(folder))
    assert '0.437' in section(text, 'Measured') and 'Not measured' not in text
    assert entries(text)['metrics'] == ['segm AP']
    assert entries(text)['datasets'] == {'train': ['ants (train)'], 'test': ['instances_val.json']}


@pytest.mark.parametrize(('changes', 'message'), [
    pytest.param({'weights': {'sha256': '0' * 64}}, 'measured other weights', id='of other weights'),
    pytest.param({'measures': {'segm_mAP': 43.7}}, 'measures.segm_mAP is 43.7', id='in per cent'),
    pytest.param({'measures': {'bbox_mAP': 0.1}}, 'no segm_mAP', id='without the main measure'),
    pytest.param({'measures': {'segm_mAP': float('nan')}}, 'segm_mAP is nan', id='not a number'),
    pytest.param({'command': ''}, 'command', id='without the command'),
    pytest.param({'images': 0}, 'images is 0', id='without images'),
])
def test_a_record_that_cannot_be_is_refused(changes, message, tmp_path):
    folder = write_folder(tmp_path / 'm')
    (folder / 'evaluation.json').write_text(json.dumps(record(folder, **changes)), 'utf-8')
    with pytest.raises(RecordError, match=re.escape(message)):
        write_model_card(folder)
    assert not (folder / 'README.md').exists()


# cards that are there already

def test_a_second_run_changes_nothing(tmp_path):
    folder = write_folder(tmp_path / 'm')
    arguments = {'model_id': 'me/m', 'source': 'Mine.', 'licence': 'MIT License', 'metrics': record(folder)}
    text = card_of(folder, **arguments)
    before = (folder / 'README.md').stat()
    assert card_of(folder, **arguments) == text
    assert (folder / 'README.md').stat().st_mtime_ns == before.st_mtime_ns
    assert (folder / 'README.md').stat().st_ino == before.st_ino
    # a run that knows less does not forget: only measures must be there again
    assert section(card_of(folder, metrics=record(folder)), 'Source') == section(text, 'Source')


OWN = '''\
---
# how I like it
license: cc-by-4.0
tags: ["ants",   bees]   # quoted
custom: 2020-01-01
---

# My ants

Some text: of my own.

## Usage

```
# Classes
```
'''


def test_what_somebody_wrote_stays_and_what_is_missing_comes(tmp_path):
    folder = write_folder(tmp_path / 'm')
    (folder / 'README.md').write_text(OWN, 'utf-8')
    text = card_of(folder)
    front, body = OWN.split('---\n')[1:]
    assert text.startswith(f'---\n{front}') and body.rstrip('\n') in text
    found = entries(text)
    assert found['license'] == 'cc-by-4.0' and found['tags'] == ['ants', 'bees'] and found['backbone'] == ['resnet18']
    titles = re.findall(r'^#+ .*', re.sub(r'```.*?```', '', body := text.split('---\n', 2)[2], flags=re.DOTALL), re.M)
    assert titles == ['# My ants', '## Usage', '## Network', '## Classes', '## How to fine-tune it', '## Measured',
                      '## Licence', '## Citation']
    assert body.count('# My ants') == 1
    assert card_of(folder) == text


def test_a_changed_section_is_somebody_s_own(tmp_path):
    folder = write_folder(tmp_path / 'm')
    text = card_of(folder)
    (folder / 'README.md').write_text(text.replace('Not measured', 'I will measure it tomorrow, not'), 'utf-8')
    assert 'tomorrow' in section(card_of(folder, metrics=record(folder)), 'Measured')


def test_an_example_that_comes_later_is_shown(tmp_path):
    folder = write_folder(tmp_path / 'm')
    assert entries(card_of(folder))['widgets'][0]['examples'] == []
    Image.new('RGB', (9, 9)).save(tmp_path / 'a.png')
    found = entries(card_of(folder, example=tmp_path / 'a.png'))
    assert found['widgets'][0]['examples'][0]['inputs'][0]['data'] == 'git://example.jpg'


@pytest.mark.parametrize(('text', 'expected'), [
    pytest.param('# Only text\n', '# Only text\n', id='no front matter'),
    pytest.param('---\n---\n# T\n', '# T\n', id='empty front matter'),
    pytest.param('---\n{license: mit, tags: [a]}\n---\n# T\n', '# T\n', id='front matter in braces'),
    pytest.param('---\r\nlicense: mit\r\n---\r\n# T\r\n', '# T\n', id='Windows line ends'),
    pytest.param('\ufeff---\nlicense: mit\n---\n# T\n', '# T\n', id='a byte order mark'),
    pytest.param('A line\n---\nand more\n', 'A line\n---\nand more\n', id='a rule in the text'),
])
def test_cards_of_other_forms_are_completed(text, expected, tmp_path):
    folder = write_folder(tmp_path / 'm')
    (folder / 'README.md').write_bytes(text.encode())
    write_model_card(folder)
    written = (folder / 'README.md').read_bytes().decode()
    assert ('\r\n' in written) == ('\r\n' in text)
    found = entries(written.replace('\r\n', '\n'))
    assert found['tasks'] == ['image-segmentation']
    assert found.get('license') == ('mit' if 'license' in text else None)
    assert expected in written.replace('\r\n', '\n')
    write_model_card(folder)
    assert (folder / 'README.md').read_bytes().decode() == written


@pytest.mark.parametrize(('text', 'message'), [
    pytest.param('---\ntags: [a, b\nlicense: mit\n---\n', 'README.md: line 3: the front matter is no YAML',
                 id='no YAML'),
    pytest.param('---\n- a\n- b\n---\n', 'must hold "key: value" lines', id='a list'),
    pytest.param('---\nlicense: mit\n\n# Title\n', 'no line of --- closes it', id='not closed'),
    pytest.param('---\nlicense: mit\n---\n', 'says license: mit, but MIT License was asked for', id='another licence'),
])
def test_a_broken_front_matter_is_an_error_and_stays(text, message, tmp_path):
    folder = write_folder(tmp_path / 'm')
    (folder / 'README.md').write_text(text, 'utf-8')
    with pytest.raises(CardError, match=re.escape(message)):
        write_model_card(folder, licence='MIT License')
    assert (folder / 'README.md').read_text('utf-8') == text


def test_a_card_in_another_encoding_is_an_error_and_stays(tmp_path):
    folder = write_folder(tmp_path / 'm')
    (folder / 'README.md').write_bytes('# Zellen für alle'.encode('latin-1'))
    with pytest.raises(CardError, match='no UTF-8'):
        write_model_card(folder)
    assert (folder / 'README.md').read_bytes() == '# Zellen für alle'.encode('latin-1')


_TEXT = st.text(st.characters(codec='utf-8', exclude_characters='\r'), max_size=30)


@given(body=_TEXT, values=st.dictionaries(st.sampled_from(['license', 'tags', 'own']), _TEXT, max_size=3))
def test_any_text_and_any_values_stay(body, values):
    front = f'---\n{yaml.safe_dump(values, allow_unicode=True)}---\n'
    sections = [Section('network', 'Network', 'text'), Section('classes', 'Classes', 'text')]
    once = completed(front + body, {'license': 'x', 'tasks': ['y']}, sections, 'card')
    assert front_matter(once, 'card') == {'license': 'x', 'tasks': ['y'], **values}
    assert body.strip() in once
    assert completed(once, {'license': 'x', 'tasks': ['y']}, sections, 'card') == once


# the example, and folders that are none

def test_the_example_is_small_and_has_no_exif(tmp_path):
    folder = write_folder(tmp_path / 'm')
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = 'my camera', 6   # maker; turned by a quarter
    image = np.zeros((500, 2000, 3), np.uint8)
    image[:, :1000] = 255
    Image.fromarray(image).save(tmp_path / 'photo.jpg', exif=exif)
    write_model_card(folder, example=tmp_path / 'photo.jpg')
    with Image.open(folder / 'example.jpg') as example:
        assert example.size == (256, 1024) and not example.getexif() and example.getpixel((128, 100))[0] > 250
    assert b'my camera' not in (folder / 'example.jpg').read_bytes()


def test_an_example_that_is_no_image_is_an_error_and_nothing_is_written(tmp_path):
    folder = write_folder(tmp_path / 'm')
    (tmp_path / 'a.png').write_bytes(b'not a picture')
    with pytest.raises(CardError, match=r'a\.png'):
        write_model_card(folder, example=tmp_path / 'a.png')
    assert sorted(path.name for path in folder.iterdir()) == ['configuration.json', 'model.safetensors']


@pytest.mark.parametrize(('configuration', 'message'), [
    pytest.param(None, 'cannot be read', id='no configuration'),
    pytest.param('{', 'not JSON', id='a broken one'),
    pytest.param('{"model": {"type": "bert"}}', 'must be "fastinst" or "mask2former"', id='another model'),
    pytest.param('{"model": {"type": "fastinst"}}', 'model.classes is empty', id='no classes'),
    pytest.param('{"model": {"type": "fastinst", "task": "depth"}}', "model.task is 'depth'", id='another task'),
])
def test_a_folder_that_is_no_model_is_an_error(configuration, message, tmp_path):
    if configuration is not None:
        (tmp_path / 'configuration.json').write_text(configuration, 'utf-8')
    with pytest.raises(CardError, match=message):
        write_model_card(tmp_path)
    assert not (tmp_path / 'README.md').exists()
