"""The published Mask2Former models: their configurations, and what is said of them."""
from __future__ import annotations

import json
import math
import re
import runpy
from pathlib import Path

import pytest
import torch

from modelscope_fastinst import zoo
from modelscope_fastinst.cli import main
from modelscope_fastinst.cli.info import describe
from modelscope_fastinst.data.label_sets import LABEL_SETS
from modelscope_fastinst.models.build import build_network

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
SOURCE = runpy.run_path(str(CONFIGS / 'source' / 'mask2former.py'))
EVERY_MODEL = pytest.mark.parametrize('name', zoo.MASK2FORMER_NAMES)
# One of each data set and task: what the backbone does not change.
ONE_OF_EACH = pytest.mark.parametrize('name', [name for name in zoo.MASK2FORMER_NAMES if name.endswith('_r50')])


def data_task_backbone(name):
    return name.removeprefix('mask2former_').split('_', 2)


def test_the_files_are_those_that_the_one_description_gives():
    files = {file.stem for file in CONFIGS.glob('mask2former_*.json')}
    assert files == set(zoo.MASK2FORMER_NAMES)
    for name in zoo.MASK2FORMER_NAMES:
        assert zoo.configuration_file(name).read_text('utf-8') == SOURCE['content'](name), \
            f'{name}: run python configs/source/mask2former.py'


@pytest.mark.parametrize(('value', 'expected'), [
    pytest.param({'a': [1, 2.5], 'b': None}, '{\n  "a": [1, 2.5],\n  "b": null\n}', id='short values on one line'),
    pytest.param({'a': {'b': 'x' * 120, 'c': True}}, f'{{\n  "a": {{\n    "b": "{"x" * 120}",\n    "c": true\n  }}\n}}',
                 id='a long section is opened'),
    pytest.param({'a': ['one two'] * 20}, None, id='no name is broken in two'),
    pytest.param({'a': ['größer, "so"'] * 20}, None, id='any characters'),
])
def test_the_files_are_json_for_people(value, expected):
    text = SOURCE['text'](value)
    assert json.loads(text) == value and (expected is None or text == expected)
    assert all(len(line) <= 120 or 'x' * 120 in line for line in text.splitlines())
    assert not re.search(r'"one$', text, re.M)


@EVERY_MODEL
def test_the_network_is_the_published_one(name):
    model = zoo.configuration(name)['model']
    data, task, backbone = data_task_backbone(name)
    with torch.device('meta'):
        network = build_network(model)
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    published = zoo.published(name).parameters
    if published is not None:
        assert round(millions) == published
    else:   # that of COCO with fewer classes: the authors say nothing
        assert millions == pytest.approx(zoo.published(f'mask2former_coco_panoptic_{backbone}').parameters, abs=0.6)
    # 200 queries with Swin-L, but for semantic segmentation
    assert network.num_queries == (200 if backbone == 'swin_l' and task != 'semantic' else 100)
    assert network.num_classes == len(set(model['classes']))


@EVERY_MODEL
def test_classes_and_things_are_the_data_set_s(name):
    model = zoo.configuration(name)['model']
    data, task, _ = data_task_backbone(name)
    labels = LABEL_SETS[{'coco': f'coco-{task}', 'ade20k': 'ade20k', 'cityscapes': 'cityscapes'}[data]]
    assert model['task'] == task
    if task == 'instance':
        assert model['classes'] == list(labels.things) and 'things' not in model
    else:
        assert model['classes'] == list(labels.names)
        assert model.get('things') == (list(labels.things) if task == 'panoptic' else None)


@EVERY_MODEL
def test_what_is_one_data_set_s_and_task_s_differs_by_the_backbone_only(name):
    data, task, backbone = data_task_backbone(name)
    same = [zoo.configuration(other) for other in (name, f'mask2former_{data}_{task}_r50')]
    for configuration in same:
        del configuration['train']['backbone_weights'], configuration['model']['backbone']
        configuration['train'].pop('sync_batchnorm', None)   # of the ResNets' norms
        if backbone == 'swin_l':
            del configuration['model']['decoder']['num_queries']
            if data == 'coco':   # 100 epochs
                del configuration['train']['max_iters'], configuration['train']['lr_scheduler']['milestones']
        if (data, task) == ('ade20k', 'semantic') and backbone in ('swin_b', 'swin_b_in21k', 'swin_l'):
            del configuration['preprocessor']   # sizes of 640 instead of 512
    assert same[0] == same[1]


@pytest.mark.parametrize(('name', 'test', 'train'), [
    pytest.param('coco_instance_r50', (800, 1333), None, id='COCO'),
    pytest.param('coco_panoptic_swin_l', (800, 1333), None, id='COCO, Swin-L'),
    pytest.param('ade20k_semantic_r50', (512, 2048), (512, 512), id='ADE20K, semantic'),
    pytest.param('ade20k_semantic_swin_s', (512, 2048), (512, 512), id='ADE20K, semantic, Swin-S'),
    pytest.param('ade20k_semantic_swin_b', (640, 2560), (640, 640), id='ADE20K, semantic, Swin-B'),
    pytest.param('ade20k_panoptic_r50', (640, 2560), (640, 640), id='ADE20K, panoptic'),
    pytest.param('ade20k_instance_swin_l', (640, 2560), (640, 640), id='ADE20K, instances'),
    pytest.param('cityscapes_semantic_r50', (1024, 2048), (512, 1024), id='Cityscapes'),
])
def test_sizes_and_augmentation(name, test, train):
    from modelscope_fastinst.plugin.dataset import build_transforms
    training, evaluation = build_transforms(zoo.configuration(f'mask2former_{name}')['preprocessor'])
    assert (evaluation.min_size, evaluation.max_size) == test
    assert (training.flip, training.vertical_flip, training.rotate, training.copy_paste) == (0.5, 0, 0, None)
    if train is None:
        assert training.large_scale_jitter == {'range': (0.1, 2.0), 'size': (1024, 1024)}
        assert training.window is None and not any(training.color.values())
    else:
        # As the authors write them, rounded down from 0.5 to 2 times the crop's height (the test's on Cityscapes).
        assert training.min_sizes == tuple(int(tenths * 0.1 * test[0]) for tenths in range(5, 21))
        assert (training.max_size, training.window, training.crop) == (4 * test[0], train, None)
        assert training.large_scale_jitter is None and training.color['saturation'] == 0.5


@pytest.mark.parametrize(('name', 'iterations', 'rates'), [
    pytest.param('coco_instance_r50', 368750, {0: 1, 327777: 1, 327778: 0.1, 355092: 0.01}, id='COCO, 50 epochs'),
    pytest.param('coco_panoptic_swin_l', 737500, {0: 1, 655555: 1, 655556: 0.1, 710184: 0.01}, id='COCO, 100 epochs'),
    pytest.param('ade20k_panoptic_swin_l', 160000, {0: 1, 80000: 0.5 ** 0.9, 159999: (1 / 160000) ** 0.9},
                 id='ADE20K'),
    pytest.param('cityscapes_semantic_r50', 90000, {0: 1, 45000: 0.5 ** 0.9}, id='Cityscapes'),
])
def test_the_schedule(name, iterations, rates):
    from modelscope_fastinst.plugin.optimizer import lr_factor
    train = zoo.configuration(f'mask2former_{name}')['train']
    assert train['max_iters'] == iterations
    factor = lr_factor(train['lr_scheduler'], iterations)
    assert {done: factor(done) for done in rates} == pytest.approx(rates)


@ONE_OF_EACH
def test_the_optimiser_clips_the_whole_gradient_at_a_hundredth(name):
    from modelscope_fastinst.plugin.optimize_hook import OptimizeHook
    optimizer = zoo.configuration(name)['train']['optimizer']
    assert (optimizer['type'], optimizer['lr'], optimizer['weight_decay']) == ('AdamW', 1e-4, 0.05)
    assert optimizer['backbone_multiplier'] == 0.1
    assert OptimizeHook(**optimizer['options']).grad_clip == {'max_norm': 0.01, 'norm_type': 2.0}


@EVERY_MODEL
def test_the_trainer_accepts_every_key_and_value(name):
    from modelscope.utils.config import Config

    from modelscope_fastinst.plugin.dataset import build_transforms
    from modelscope_fastinst.plugin.trainer_config import check_values, metric_settings
    from modelscope_fastinst.plugin.trainer_keys import check_keys
    configuration = zoo.configuration(name)
    check_keys(configuration, name)
    check_values(Config(zoo.configuration(name)), has_train=True, has_eval=True, file=name)
    build_transforms(configuration['preprocessor'])
    assert metric_settings(configuration['evaluation']['metrics'], name) == configuration['evaluation']['metrics']


@ONE_OF_EACH
def test_a_model_and_its_postprocessor_are_made_of_it(name):
    from modelscope_fastinst.plugin.model import Mask2FormerModel
    from modelscope_fastinst.plugin.postprocessor import build_postprocessor
    configuration = zoo.configuration(name)
    del configuration['model']['type']   # which ModelScope reads
    with torch.device('meta'):
        model = Mask2FormerModel(pretrained=False, **configuration['model'])
    _, task, _ = data_task_backbone(name)
    assert model.task == task
    assert len(model.thing_classes) == {'instance': len(model.classes), 'semantic': 0,
                                        'panoptic': len(configuration['model'].get('things', ()))}[task]
    build_postprocessor(None, configuration['postprocessor'], model.classes, task, model.thing_classes)


# what is published

def test_weights_have_addresses_of_their_own():
    models = [zoo.published(name) for name in zoo.MASK2FORMER_NAMES]
    assert len({model.weights for model in models}) == len({model.file_name for model in models}) == len(models)
    assert all(re.fullmatch(r'model_final_[0-9a-f]{6}\.pkl', model.file_name) for model in models)
    assert {zoo.licence_of_weights(model.file_name) for model in models} == {'CC BY-NC 4.0'}
    assert zoo.licence_of_weights('model_final.pth') is None
    assert zoo.published('fastinst_d3_r50').weights is zoo.published('fastinst_d3_r50').file_name is None


@pytest.mark.parametrize(('name', 'measures'), [
    pytest.param('mask2former_coco_panoptic_swin_l', {'PQ': 57.8, 'AP': 48.6, 'mIoU': 67.4}, id='COCO, panoptic'),
    pytest.param('mask2former_coco_instance_r50', {'AP': 43.7, 'boundary AP': 30.6}, id='COCO, instances'),
    pytest.param('fastinst_d3_r50', {'AP': 37.9, 'AP test-dev': 38.6}, id='FastInst'),
])
def test_published_figures(name, measures):
    assert zoo.published(name).measures == measures


@pytest.mark.parametrize('name', zoo.ALL_NAMES)
def test_the_table_of_the_recipes_says_what_was_published(name):
    readme = (CONFIGS / 'README.md').read_text('utf-8')
    row = re.search(rf'^\| `{name}(?:\.json)?` \|.*$', readme, re.M)
    assert row, f'configs/README.md has no row for {name}'
    cells = [cell.strip() for cell in row[0].strip('|').split('|')]
    for measure, value in zoo.published(name).measures.items():
        assert math.isfinite(value) and str(value) in cells, f'{name}: {measure} {value} is not in {row[0]}'


def test_no_published_model_of_this_name():
    with pytest.raises(ValueError, match=r"'mask2former_r50' is none .*, mask2former_ade20k_panoptic_\{r50,swin_l\}"):
        zoo.published('mask2former_r50')


# info

@pytest.mark.parametrize(('name', 'lines'), [
    pytest.param('mask2former_coco_panoptic_swin_t', {
        'network': 'Mask2Former Swin-T', 'trained for': 'panoptic segmentation',
        'published': 'PQ 53.2, AP 43.3, mIoU 63.2 (by the authors, not measured here)',
        'published weights': 'https://dl.fbaipublicfiles.com/maskformer/mask2former/coco/panoptic/'
                             'maskformer2_swin_tiny_bs16_50ep/model_final_9fd0ae.pkl, CC BY-NC 4.0',
        'gives': 'panoptic, instance, semantic', 'parameters': '47.44 million', 'backbone': 'Swin-T, windows of 7',
        'pixel decoder': 'MSDeformAttn', 'queries': '100', 'decoder layers': '9',
        'things': '80: person, bicycle, car, motorcycle, airplane, bus, train, truck, ... (72 more)',
        'stuff': '53: banner, blanket, bridge, cardboard, counter, curtain, door-stuff, floor-wood, ... (45 more)',
        'object mask threshold': '0.8', 'overlap threshold': '0.8', 'score threshold': '0.5'}, id='panoptic'),
    pytest.param('mask2former_ade20k_semantic_r50', {
        'network': 'Mask2Former R50', 'trained for': 'semantic segmentation', 'backbone': 'ResNet-50'}, id='semantic'),
])
def test_info_tells_task_and_architecture(name, lines, capsys):
    assert main(['info', name]) == 0
    rows = {line[:24].strip(): line[24:] for line in capsys.readouterr().out.splitlines()}
    assert {key: rows.get(key) for key in lines} == lines
    if 'semantic' in name:   # nothing is counted
        assert not {'things', 'stuff', 'gives', 'score threshold', 'instances', 'overlap threshold'} & set(rows)


@pytest.mark.parametrize(('preprocessor', 'line'), [
    pytest.param({'min_size': 64, 'max_size': 96}, 'short side 64 pixels, long side at most 96 pixels', id='ours'),
    pytest.param({'min_size': 64, 'max_size': None}, 'short side 64 pixels, long side any length', id='no limit'),
    pytest.param({'min_size': 64, 'max_size': 96, 'multiple_of': 32},
                 'short side 64 pixels, long side at most 96 pixels, in multiples of 32', id='of transformers'),
    pytest.param({'size': [64, 96]}, '64 x 96 pixels whatever the shape', id='of a fixed size'),
])
def test_info_tells_the_input_s_size(preprocessor, line):
    rows = describe('a.json', {**zoo.configuration('fastinst_d1_r50'), 'preprocessor': preprocessor})
    assert next(value for name, value in rows if name == 'network input') == line
