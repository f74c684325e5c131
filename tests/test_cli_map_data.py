"""Panoptic and semantic data from the command line: checked, converted, trained on, measured."""
from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modelscope_fastinst.cli import main
from modelscope_fastinst.data.coco import CocoInstances
from modelscope_fastinst.data.label_sets import CITYSCAPES, COCO_PANOPTIC
from modelscope_fastinst.data.layouts import find_coco
from tests.data.maps.trees import city_scenes, scenes, write_cityscapes, write_coco, write_semantic
from tests.plugin.trainer_runs import write_configuration


@pytest.fixture
def coco(tmp_path) -> Path:
    for split, names, seed in (('train', ('1', '2'), 0), ('val', ('3', '4'), 5)):
        write_coco(tmp_path / 'coco', scenes(COCO_PANOPTIC, names, ('person', 'kite'), ('sea', 'sand'), seed=seed),
                   COCO_PANOPTIC, split)
    return tmp_path / 'coco'


def test_check_says_what_is_in_the_maps(coco, tmp_path, capsys):
    words = ['data', 'check', str(coco), '--output', str(tmp_path / 'out'), '--json', str(tmp_path / 'found.json')]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert 'format coco-panoptic\nchecked for model.task "panoptic" and a model with 100 queries' in text
    assert 'void                       12.5% of all pixels' in text
    assert re.search(r'^person +4 +2 +\d+\.\d% +4 +2 +\d+\.\d%$', text, re.MULTILINE)
    record = json.loads((tmp_path / 'found.json').read_text('utf-8'))
    assert record['splits'][0]['classes']['person']['segments'] == 4
    for split in ('train', 'val'):
        with Image.open(tmp_path / f'out/samples_{split}.png') as sheet:
            assert sheet.width > 100
    (coco / 'panoptic_val2017/3.png').unlink()
    assert main([*words, '--samples', '0']) == 1
    assert 'val: annotations/panoptic_val2017.json: image 3' in capsys.readouterr().out


def test_check_for_another_task(coco, tmp_path, capsys):
    assert main(['data', 'check', str(coco), '--task', 'semantic', '--samples', '0', '--num-queries', '9']) == 0
    assert 'checked for model.task "semantic" and a model with 9 queries' in capsys.readouterr().out
    assert main(['data', 'check', str(coco), '--task', 'instance', '--samples', '0']) == 0
    assert re.search('^person +4 +2 +4 +2$', capsys.readouterr().out, re.MULTILINE)
    write_semantic(tmp_path / 'png/images', tmp_path / 'png/labels', city_scenes())
    words = ['data', 'check', str(tmp_path / 'png'), '--samples', '0']
    assert main(words) == 1
    assert 'nothing names the classes' in capsys.readouterr().err
    assert main([*words, '--classes', ','.join(CITYSCAPES.names)]) == 0
    assert 'model.task "semantic"' in capsys.readouterr().out
    assert main([*words, '--task', 'panoptic']) == 1
    assert 'It has data for "semantic" (semantic-png)' in capsys.readouterr().err


def test_convert_makes_objects_of_the_things(tmp_path, capsys):
    for split in ('train', 'val'):
        write_cityscapes(tmp_path / 'city', city_scenes(split), split)
    target = tmp_path / 'objects'
    assert main(['data', 'convert', str(tmp_path / 'city'), str(target)]) == 0
    assert 'train: 2 images, 8 objects of 2 of 8 classes of format cityscapes' in capsys.readouterr().out
    data = CocoInstances(*find_coco(target, 'train'))
    assert data.classes == list(CITYSCAPES.things)
    assert [len(data[index].target) for index in range(2)] == [3, 3]
    assert sum(one['iscrowd'] for one in data[0].annotations) == 1
    write_semantic(tmp_path / 'png/images', tmp_path / 'png/labels', city_scenes())
    assert main(['data', 'convert', str(tmp_path / 'png'), str(tmp_path / 'no')]) == 1
    assert 'nothing for model.task "instance". It has data for "semantic"' in capsys.readouterr().err


def test_train_and_evaluate(coco, tmp_path, capsys):
    config = write_configuration(tmp_path / 'recipe', {'train.max_epochs': 1})
    words = ['train', '--config', config, '--data', str(coco), '--work-dir', str(tmp_path / 'work'), '--device', 'cpu']
    assert main(words) == 1
    assert 'set model.task to "panoptic" or "semantic" (--task)' in capsys.readouterr().err
    assert main([*words, '--task', 'panoptic']) == 0
    output = tmp_path / 'work/output'
    model = json.loads((output / 'configuration.json').read_text('utf-8'))['model']
    assert (model['task'], len(model['classes']), len(model['things'])) == ('panoptic', 133, 80)
    capsys.readouterr()
    assert main(['evaluate', '--model', str(output), '--data', str(coco), '--json', '--device', 'cpu']) == 0
    assert 'PQ' in json.loads(capsys.readouterr().out)


def test_label_pngs_whose_classes_count_from_one(tmp_path, capsys):
    """0 is void in them, as in ADE20K: the options of ``train``, ``evaluate`` and ``data check`` say so."""
    classes = ','.join(CITYSCAPES.names)
    for split in ('train', 'val'):
        write_semantic(tmp_path / f'png/images/{split}', tmp_path / f'png/labels/{split}', city_scenes(split), offset=1,
                       void=0)
    data = [str(tmp_path / 'png'), '--classes', classes]
    numbers = ['--label-offset', '1', '--void-label', '200']
    check = ['data', 'check', *data, '--samples', '0']
    assert main(check) == 1
    assert 'has the values 19 ' in capsys.readouterr().out
    assert main([*check, *numbers]) == 0
    void = np.mean([scene.labels < 0 for scene in city_scenes()])
    assert f'void                       {void:.1%}' in capsys.readouterr().out
    config = write_configuration(tmp_path / 'recipe', {'train.max_iters': 1})
    train = ['train', '--config', config, '--task', 'semantic', '--work-dir', str(tmp_path / 'work'), '--device', 'cpu']
    assert main([*train, *numbers]) == 1
    assert '--label-offset is for --data' in capsys.readouterr().err
    assert main([*train, '--data', *data, *numbers]) == 0
    evaluate = ['evaluate', '--model', str(tmp_path / 'work/output'), '--data', data[0], '--json', '--device', 'cpu']
    capsys.readouterr()
    assert main([*evaluate, *numbers]) == 0
    values = json.loads(capsys.readouterr().out)
    present = {name for name in CITYSCAPES.names if values[f'IoU/{name}'] >= 0}
    assert present == {CITYSCAPES.names[label] for scene in city_scenes('val') for label in np.unique(scene.labels)
                       if label >= 0}


def test_a_setting_of_data_that_an_option_names_is_an_error(coco, tmp_path, capsys):
    words = ['train', '--model', 'embedded', '--task', 'panoptic', '--data', str(coco), '--work-dir', str(tmp_path)]
    assert main([*words, '--set', 'dataset.train.skip_empty=false']) == 1
    assert '--set dataset.train.skip_empty: is not read, for the options name the data: root, split' in \
        capsys.readouterr().err
    assert main([*words, '--label-offset', '1']) == 1
    assert 'label_offset 1 is for label PNGs' in capsys.readouterr().err
