"""Model folders of Hugging Face's: a Mask2Former runs and trains as it lies there, others are left to ModelScope."""
from __future__ import annotations

import json
import os
import shutil

import pytest
from modelscope.models import Model
from modelscope.pipelines import pipeline
from modelscope.preprocessors import Preprocessor
from modelscope.trainers import build_trainer
from modelscope.utils.config import Config
from PIL import Image

import modelscope_fastinst
from modelscope_fastinst.checkpoints import CheckpointError
from modelscope_fastinst.cli import main
from modelscope_fastinst.data.label_sets import ADE20K, CITYSCAPES, COCO_INSTANCE, COCO_PANOPTIC
from modelscope_fastinst.plugin.guessed_task import guess_task
from modelscope_fastinst.plugin.huggingface import describe, is_huggingface_folder
from modelscope_fastinst.plugin.huggingface_images import preprocessor_section
from modelscope_fastinst.plugin.huggingface_network import HuggingFaceError, network_sections
from tests.parity.networks import CLASSES, folder_of, network, picture
from tests.plugin.hub_client import client_of
from tests.plugin.loopback_hub import serve
from tests.plugin.trainer_runs import shapes

BARE = [pytest.param(None, id='no configuration.json'),
        pytest.param({'framework': 'Pytorch', 'task': 'image-segmentation'}, id='bare'),
        pytest.param({'framework': 'Pytorch', 'task': 'universal-segmentation', 'allow_remote': True},
                     id='allow_remote and another task')]
SIZE = {'shortest_edge': 96, 'longest_edge': 128}


@pytest.fixture(scope='module')
def original(tmp_path_factory):
    return folder_of(network(encoder_layers=1, decoder_layers=2, train_num_points=64),
                     tmp_path_factory.mktemp('saved') / 'net', size=SIZE)


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / 'net')


def state_of(folder):
    return {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in folder.iterdir()}


def change(folder, name, **values):
    content = json.loads((folder / name).read_text('utf-8'))
    (folder / name).write_text(json.dumps({**content, **values}), 'utf-8')


@pytest.mark.parametrize('configuration', BARE)
def test_a_folder_runs_and_nothing_is_written_into_it(folder, configuration):
    if configuration is not None:
        (folder / 'configuration.json').write_text(json.dumps(configuration), 'utf-8')
    before = state_of(folder)
    segment = pipeline('image-segmentation', model=str(folder), device='cpu', score_thr=0.0)
    found = segment(picture(60, 90))
    assert set(found['labels']) <= set(CLASSES) and found['masks'][0].shape == (60, 90)
    model = Model.from_pretrained(str(folder))
    assert type(model).__module__ == 'modelscope_fastinst.plugin.model' and model.weights_loaded
    assert Preprocessor.from_pretrained(str(folder)).multiple_of == 32
    assert state_of(folder) == before


@pytest.mark.parametrize('task', ['instance', 'semantic', 'panoptic'])
def test_a_caller_can_say_what_it_was_trained_for(folder, task, caplog):
    segment = pipeline('image-segmentation', model=str(folder), device='cpu', default_task=task)
    found = segment(picture(60, 90))
    assert segment.model.task == task
    assert ('id_map' in found, 'label_map' in found) == (task == 'panoptic', task == 'semantic')
    assert 'taken to be for' not in caplog.text


def test_a_training_starts_from_it_and_leaves_a_folder_of_ours(folder, tmp_path):
    before = state_of(folder)
    trainer = build_trainer('fastinst-trainer', default_args={
        'model': str(folder), 'train_dataset': shapes(2), 'work_dir': str(tmp_path / 'work'), 'device': 'cpu',
        'max_epochs': 1, 'cfg_options': {'train': {'dataloader': {'batch_size_per_gpu': 2, 'workers_per_gpu': 0},
                                                   'optimizer': {'type': 'AdamW', 'lr': 1e-4}},
                                         'preprocessor.train': {'min_sizes': [64], 'max_size': 64}}})
    trainer.train()
    heads = {'sem_seg_head.predictor.class_embed.weight', 'sem_seg_head.predictor.class_embed.bias'}
    assert set(trainer.new_weights) == heads
    segment = pipeline('image-segmentation', model=str(tmp_path / 'work' / 'output'), device='cpu')
    assert segment.model.classes == ['ellipse', 'rectangle'] and segment.preprocessor.multiple_of == 32
    assert state_of(folder) == before


def test_the_command_line_takes_it(folder, tmp_path, capsys):
    before = state_of(folder)
    assert main(['info', str(folder)]) == 0
    assert 'Mask2Former' in capsys.readouterr().out
    target = tmp_path / 'converted'
    assert main(['convert', str(folder), str(target), '--device', 'cpu', '--things', 'ant,bee']) == 0
    model = json.loads((target / 'configuration.json').read_text('utf-8'))['model']
    assert (model['task'], model['things'], model['classes']) == ('panoptic', ['ant', 'bee'], CLASSES)
    assert state_of(folder) == before


@pytest.mark.parametrize('task', ['semantic', 'panoptic'])
def test_the_command_line_believes_the_task_that_it_is_asked_for(folder, tmp_path, task):
    Image.fromarray(picture(60, 90)).save(tmp_path / 'a.png')
    output = tmp_path / 'out'
    assert main(['predict', str(tmp_path / 'a.png'), '--model', str(folder), '--device', 'cpu', '--task', task,
                 '--output', str(output)]) == 0
    assert (output / 'a.png').is_file() and list(output.glob('*.json'))


@pytest.mark.parametrize('files', [
    pytest.param({'config.json': {'model_type': 'maskformer'}}, id='another network'),
    pytest.param({'config.json': {'model_type': 'mask2former'},
                  'configuration.json': {'task': 'image-segmentation', 'pipeline': {'type': 'somebody'}}},
                 id='a pipeline of its own'),
    pytest.param({'config.json': {'model_type': 'mask2former'},
                  'configuration.json': {'task': 'image-segmentation', 'model': {'type': 'somebody'}}},
                 id='a model of its own'),
    pytest.param({'config.json': []}, id='no settings'),
    pytest.param({}, id='nothing'),
])
def test_other_folders_are_left_to_modelscope(tmp_path, files):
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content), 'utf-8')
    assert not is_huggingface_folder(tmp_path)
    if 'configuration.json' in files:
        assert Config.from_file(os.path.join(tmp_path, 'configuration.json'))._cfg_dict == files['configuration.json']
    else:
        with pytest.raises(ValueError, match='File does not exist'):
            Config.from_file(os.path.join(tmp_path, 'configuration.json'))


def test_without_us_modelscope_reads_folders_as_before(folder):
    modelscope_fastinst.deactivate()
    try:
        with pytest.raises(ValueError, match='File does not exist'):
            Config.from_file(str(folder / 'configuration.json'))
    finally:
        modelscope_fastinst.activate()
    assert Config.from_file(str(folder / 'configuration.json')).model.type == 'mask2former'


@pytest.mark.parametrize('model, configuration', [
    pytest.param('owner/mask2former-tiny', None, id='by its name'),
    pytest.param('owner/segmenter', {'framework': 'Pytorch', 'task': 'image-segmentation'}, id='by its files'),
])
def test_an_id_of_a_hub(original, tmp_path, model, configuration):
    place = shutil.copytree(original, tmp_path / 'hub' / model)
    if configuration is not None:
        (place / 'configuration.json').write_text(json.dumps(configuration), 'utf-8')
    with serve(tmp_path / 'hub') as hub, client_of(hub, tmp_path / 'cache'):
        segment = pipeline('image-segmentation', model=model, device='cpu', score_thr=0.0)
        assert set(segment(picture(60, 90))['labels']) <= set(CLASSES)
        hub.requests.clear()
        assert Model.from_pretrained(model).classes == CLASSES
        assert hub.requests == []


def test_weights_in_several_files(folder):
    from safetensors.torch import load_file, save_file
    state = load_file(folder / 'model.safetensors')
    (folder / 'model.safetensors').unlink()
    names = sorted(state)
    parts = {'model-00001-of-00002.safetensors': names[::2], 'model-00002-of-00002.safetensors': names[1::2]}
    for file, keys in parts.items():
        save_file({key: state[key] for key in keys}, folder / file)
    index = folder / 'model.safetensors.index.json'
    index.write_text(json.dumps({'weight_map': {key: file for file, keys in parts.items() for key in keys}}), 'utf-8')
    assert Model.from_pretrained(str(folder)).weights_loaded
    (folder / 'model-00002-of-00002.safetensors').unlink()
    with pytest.raises(CheckpointError, match='index.json: names model-00002-of-00002.safetensors, which the folder'):
        Model.from_pretrained(str(folder))


@pytest.mark.parametrize('content, section', [
    pytest.param({}, {'min_size': 800, 'max_size': 1333, 'multiple_of': 32}, id='nothing said'),
    pytest.param({'size': 512, 'max_size': 2048, 'size_divisor': 32, 'reduce_labels': True},
                 {'min_size': 512, 'max_size': 2048, 'multiple_of': 32}, id='the old form'),
    pytest.param({'size': 640, '_max_size': 2560, 'size_divisibility': 16},
                 {'min_size': 640, 'max_size': 2560, 'multiple_of': 16}, id='the oldest names'),
    pytest.param({'size': {'shortest_edge': 480, 'longest_edge': 1333}, 'do_reduce_labels': False},
                 {'min_size': 480, 'max_size': 1333, 'multiple_of': 32}, id='the new form'),
    pytest.param({'size': {'height': 384, 'width': 384}, '_max_size': 1333, 'size_divisor': 32,
                  'image_mean': [0.48500001430511475, 0.4560000002384186, 0.4059999883174896],
                  'image_std': [0.2290000021457672, 0.2239999920129776, 0.22499999403953552]},
                 {'size': [384, 384], 'multiple_of': 32}, id='a fixed size, as published'),
])
def test_both_forms_of_the_image_settings(content, section):
    assert preprocessor_section(content, 'file') == {'type': 'fastinst-preprocessor', **section}


@pytest.mark.parametrize('content, message', [
    pytest.param({'do_normalize': False}, 'do_normalize is False', id='no normalisation'),
    pytest.param({'do_rescale': False}, 'do_rescale is False', id='no scaling'),
    pytest.param({'rescale_factor': 1.0}, 'rescale_factor is 1.0; the network is for 1/255', id='another scale'),
    pytest.param({'image_mean': [0.5, 0.5, 0.5]}, r'image_mean is \[0.5, 0.5, 0.5\]', id='another mean'),
    pytest.param({'image_std': [0.5, 0.5, 0.5]}, r'image_std is \[0.5, 0.5, 0.5\]', id='another deviation'),
    pytest.param({'resample': 3}, 'resample is 3', id='bicubic'),
    pytest.param({'size': {'max_height': 3}}, r'size is \{.max_height.: 3\}', id='another size'),
])
def test_image_settings_that_are_not_ours_are_named(content, message):
    with pytest.raises(HuggingFaceError, match=f'^file: {message}'):
        preprocessor_section(content, 'file')


@pytest.mark.parametrize('config, message', [
    pytest.param({'backbone_config': {'model_type': 'convnext'}}, "model_type is 'convnext'", id='another backbone'),
    pytest.param({'backbone_config': {'model_type': 'timm_backbone', 'backbone': 'vit'}}, "with the backbone 'vit'",
                 id='another backbone of timm'),
    pytest.param({'backbone_config': {'model_type': 'swin', 'patch_size': 2}}, 'patch_size is 2', id='small patches'),
    pytest.param({'backbone_config': {'model_type': 'resnet', 'depths': [1, 1, 1, 1]}}, 'depths', id='a short ResNet'),
    pytest.param({'backbone_config': {'model_type': 'swin', 'out_features': ['stage4']}}, 'out_features',
                 id='one stage'),
    pytest.param({'hidden_dim': 128}, 'feature_size is 256 and hidden_dim 128', id='two widths'),
    pytest.param({'activation_function': 'gelu'}, "activation_function is 'gelu'", id='another activation'),
    pytest.param({'common_stride': 8}, 'common_stride is 8', id='coarse masks'),
])
def test_networks_that_are_not_ours_are_named(config, message):
    with pytest.raises(HuggingFaceError, match=f'^file.*{message}'):
        network_sections(config, 'file')


def test_a_config_that_leaves_out_what_is_usual_means_the_usual():
    sections = network_sections({'model_type': 'mask2former', 'backbone_config': {'model_type': 'swin'}}, 'file')
    assert (sections['backbone']['embed_dim'], sections['backbone']['depths']) == (96, [2, 2, 6, 2])
    assert (sections['decoder']['dec_layers'], sections['decoder']['num_queries']) == (9, 100)
    assert network_sections({}, 'file')['backbone']['depths'] == [2, 2, 18, 2]
    assert network_sections({'backbone': 'resnet50'}, 'file')['backbone']['depth'] == 50


@pytest.mark.parametrize('classes, names, task, things, guesses', [
    pytest.param(COCO_PANOPTIC.names, [], 'panoptic', 80, 0, id='COCO panoptic'),
    pytest.param(COCO_INSTANCE.names, [], 'instance', None, 0, id='COCO'),
    pytest.param(ADE20K.names, [], 'semantic', None, 1, id='ADE20K, of which there are two'),
    pytest.param(ADE20K.names, ['mask2former-swin-large-ade-panoptic'], 'panoptic', 100, 0, id='ADE20K by name'),
    pytest.param(CITYSCAPES.names, ['master', 'facebook--mask2former-swin-tiny-cityscapes-panoptic'], 'panoptic', 8, 0,
                 id='Cityscapes by the name of its id'),
    pytest.param([f'LABEL_{index}' for index in range(133)], [], 'panoptic', 80, 1, id='placeholders'),
    pytest.param(['cell', 'debris'], [], 'instance', None, 1, id='unknown'),
    pytest.param(['cell', 'debris'], ['cells-semantic'], 'semantic', None, 0, id='unknown by name'),
    pytest.param(['cell', 'debris'], ['my-panoptic'], 'panoptic', 2, 1, id='unknown things'),
    pytest.param([f'thing {index}' for index in range(133)], [], 'instance', None, 1, id='133 others'),
])
def test_the_task_is_told_or_guessed_and_a_guess_is_said(classes, names, task, things, guesses):
    guess = guess_task(classes, names)
    assert (guess.task, None if guess.things is None else len(guess.things)) == (task, things)
    assert len(guess.remarks) == guesses
    assert guess.classes == list(COCO_PANOPTIC.names if classes[0] == 'LABEL_0' else classes)
    assert guess_task(classes, names, 'semantic').task == 'semantic'


def test_a_broken_file_is_named(folder):
    change(folder, 'config.json', id2label={'0': 'ant', '2': 'bee'})
    with pytest.raises(HuggingFaceError, match=r'config.json: id2label has the 2 keys \[0, 2\]'):
        describe(folder)
    (folder / 'preprocessor_config.json').write_text('{', 'utf-8')
    with pytest.raises(HuggingFaceError, match='preprocessor_config.json: cannot be read as JSON'):
        describe(folder)
