"""``modelscope-fastinst convert``: from files as they are found to model folders that run, and nothing half done."""
from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import modelscope_fastinst  # noqa: F401  (registers the pipeline)
from modelscope_fastinst import zoo
from modelscope_fastinst.checkpoints import CheckpointError, read_state_dict
from modelscope_fastinst.checkpoints.reading import WeightFile
from modelscope_fastinst.checkpoints.sources import recognise
from modelscope_fastinst.cli import main
from modelscope_fastinst.models.fastinst import build_fastinst
from modelscope_fastinst.plugin.conversion import convert
from modelscope_fastinst.plugin.new_folder import new_folder
from modelscope_fastinst.plugin.weight_configuration import choose_configuration
from tests.checkpoints.pickles import Calls
from tests.golden_cases import load, vectors
from tests.plugin.hub_client import client_of
from tests.plugin.loopback_hub import serve
from tests.plugin.model_folders import (
    SINGLE_IMAGE_CASE,
    assert_same,
    scene,
    write_stock_folder,
)
from tests.tiny import model_config

OPTIONS = {'device': 'cpu', 'mask_format': 'rle', 'min_size': 128, 'max_size': 160, 'score_thr': 0.2}


def results(folder) -> dict:
    from modelscope.pipelines import pipeline
    return pipeline('image-segmentation', model=str(folder), **OPTIONS)(scene())


def error_of(capsys) -> str:
    """What a failed command says: one line."""
    captured = capsys.readouterr().err
    lines = [line for line in captured.splitlines() if line.startswith('error: ')]
    assert 'Traceback' not in captured
    assert len(lines) == 1, captured
    return lines[0]


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*'))


def write_configuration(file: Path, **model) -> Path:
    """A configuration of the tiny test network."""
    file.write_text(json.dumps({'framework': 'pytorch', 'task': 'image-segmentation',
                                'pipeline': {'type': 'fast-instance-segmentation'}, 'model': model_config(**model),
                                'preprocessor': {'type': 'fastinst-preprocessor', 'min_size': 64, 'max_size': 96}}),
                    'utf-8')
    return file


@pytest.fixture(scope='module')
def golden(tmp_path_factory) -> Path:
    """The weights of a small golden model as the authors' code writes them, and the configuration beside them."""
    folder = tmp_path_factory.mktemp('golden')
    case = load(SINGLE_IMAGE_CASE)
    weights = torch.ones(11)
    torch.save({'model': {**case.weights(), 'criterion.empty_weight': weights,
                          'sem_seg_head.predictor.criterion.empty_weight': weights},
                'optimizer': {'state': {0: torch.ones(3)}}, 'iteration': np.int64(368750), '__author__': 'x'},
               folder / 'model_final.pth')
    (folder / 'configuration.json').write_text(json.dumps({
        'framework': 'pytorch', 'task': 'image-segmentation', 'pipeline': {'type': 'fast-instance-segmentation'},
        'model': case.model_config}), 'utf-8')
    return folder


@pytest.fixture(scope='module')
def resnet18(tmp_path_factory) -> Path:
    import torchvision
    file = tmp_path_factory.mktemp('resnet') / 'resnet18.pth'
    torch.manual_seed(0)
    torch.save(torchvision.models.resnet18().state_dict(), file)
    return file


@pytest.fixture
def resnet18_config(tmp_path) -> Path:
    return write_configuration(tmp_path / 'resnet18.json', backbone={'stem_out_channels': 64, 'res2_out_channels': 64})


# whole models

def test_the_authors_file_becomes_a_model_folder_that_finds_the_same(golden, tmp_path, capsys):
    stock = write_stock_folder(tmp_path / 'stock')
    target = tmp_path / 'made'
    assert main(['convert', str(golden / 'model_final.pth'), str(target), '--device', 'cpu',
                 '--config', str(golden / 'configuration.json')]) == 0
    assert listing(tmp_path / 'made') == ['README.md', 'configuration.json', 'model.safetensors']
    assert sorted(os.listdir(tmp_path)) == ['made', 'stock']
    found = results(target)
    assert_same(found, results(stock))
    assert len(found['scores']) > 3
    said = capsys.readouterr().out
    entries = len(load(SINGLE_IMAGE_CASE).weights())
    assert f'{entries + 2} entries, {entries} of them taken over' in said
    assert '2 left out: the constant class weights' in said
    assert f'the model: {target}' in said
    assert str(tmp_path) not in (target / 'README.md').read_text('utf-8')
    assert 'made.' not in (target / 'README.md').read_text('utf-8')


def test_verbose_says_of_every_entry_what_became_of_it(golden, tmp_path, capsys):
    assert main(['convert', str(golden / 'model_final.pth'), str(tmp_path / 'made'), '--verbose', '--device', 'cpu',
                 '--config', str(golden / 'configuration.json')]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if ' -> ' in line or ' -- ' in line]
    mapped = {line[0]: line[2] for line in lines if line[1] == '->'}
    assert mapped == {key: key for key in load(SINGLE_IMAGE_CASE).weights()}
    assert [line[0] for line in lines if line[1] == '--'] == ['criterion.empty_weight',
                                                              'sem_seg_head.predictor.criterion.empty_weight']


def test_the_api_accounts_for_every_entry(golden, tmp_path):
    done = convert(golden / 'model_final.pth', tmp_path / 'made', config=str(golden / 'configuration.json'),
                   device='cpu')
    state = read_state_dict(tmp_path / 'made')
    assert set(done.mapping.values()) == set(state) and done.new == []
    assert len(done.unused) == 2 and done.kind == 'fastinst-authors'
    torch.testing.assert_close(state, load(SINGLE_IMAGE_CASE).weights(), rtol=0, atol=0)


def test_a_published_model_needs_no_configuration(tmp_path, capsys):
    torch.save({'model': load('d1_r50_eval').weights(), '__author__': 'x'}, tmp_path / 'fastinst_r50_x1.pth')
    assert main(['convert', str(tmp_path / 'fastinst_r50_x1.pth'), str(tmp_path / 'made'), '--device', 'cpu']) == 0
    assert 'the configuration is the published fastinst_d1_r50' in capsys.readouterr().out
    written = json.loads((tmp_path / 'made' / 'configuration.json').read_text('utf-8'))
    expected = zoo.configuration('fastinst_d1_r50')
    assert written['preprocessor'] == expected['preprocessor'] and written['model']['classes'][79] == 'toothbrush'
    assert 'train' not in written   # who fine-tunes it does not want the weeks on COCO again


def without_training(name: str) -> dict[str, Any]:
    """A published configuration less the training that a finished model has behind it."""
    configuration = zoo.configuration(name)
    del configuration['train'], configuration['evaluation']
    return configuration


def weight_file(name: str, **decoder) -> WeightFile:
    """The names and shapes of a published model's weights, without their numbers."""
    model = zoo.configuration(name)['model']
    model['decoder'].update(decoder)
    with torch.device('meta'):
        state = build_fastinst(model).state_dict()
    return WeightFile(Path('weights.pth'), {key: torch.zeros(()).expand(tensor.shape) for key, tensor in state.items()})


@pytest.mark.parametrize('name', zoo.NAMES)
def test_each_published_model_is_known_by_its_keys_and_shapes(name):
    configuration, remarks = choose_configuration(recognise(weight_file(name)), None, None, None)
    assert configuration == without_training(name)
    assert remarks == [f'the configuration is the published {name}']


def test_the_hub_s_file_alone_is_known_as_well():
    shapes = json.loads(vectors('stock_keys_r50_d3.json').read_text('utf-8'))
    state = {key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}
    source = recognise(WeightFile(Path('pytorch_model.pt'), state, 'model'))
    assert source.kind == 'fastinst-modelscope'
    configuration, _ = choose_configuration(source, None, None, None)
    assert configuration == without_training('fastinst_d3_r50')


def test_another_number_of_classes_still_fits_and_their_names_are_asked_for():
    source = recognise(weight_file('fastinst_d3_r50', num_classes=3))
    configuration, remarks = choose_configuration(source, None, None, None)
    assert configuration['model']['classes'] == ['class 0', 'class 1', 'class 2']
    assert configuration['model']['decoder']['num_classes'] == 3
    assert '--classes' in remarks[1]
    configuration, remarks = choose_configuration(source, None, None, ['ant', 'bee', 'cat'])
    assert configuration['model']['classes'] == ['ant', 'bee', 'cat'] and len(remarks) == 1


@pytest.mark.parametrize(('decoder', 'shown'), [
    pytest.param({'dec_layers': 2}, 'fastinst_d', id='two layers'),
    pytest.param({'num_queries': 300}, r'meta_pos_embed \(1, 256, 17, 17\) instead of \(1, 256, 10, 10\)',
                 id='more queries'),
    pytest.param({'dim_feedforward': 512}, 'linear1.weight', id='a narrower feed-forward'),
    pytest.param({'num_aux_queries': 4}, r'empty_query_features.weight \(4, 256\)', id='fewer auxiliary queries'),
])
def test_what_fits_no_published_model_is_compared_with_the_nearest(decoder, shown):
    with pytest.raises(CheckpointError, match=f'(?s)fits none of the published configurations. Nearest is .*{shown}.*'
                                              'Give --config'):
        choose_configuration(recognise(weight_file('fastinst_d3_r50', **decoder)), None, None, None)


@pytest.mark.parametrize('words', [
    pytest.param(['--classes', 'a,b,c,d,e,f,g,h,i,j'], id='on the command line'),
    pytest.param(['--classes-file', '{folder}/names.txt'], id='from a file'),
])
def test_classes_can_be_named(words, golden, tmp_path):
    (tmp_path / 'names.txt').write_text('a\nb\n c \n\nd\ne\nf\ng\nh\ni\nj\n', 'utf-8')
    assert main(['convert', str(golden / 'model_final.pth'), str(tmp_path / 'made'), '--device', 'cpu', '--config',
                 str(golden / 'configuration.json'), *(word.format(folder=tmp_path) for word in words)]) == 0
    model = json.loads((tmp_path / 'made' / 'configuration.json').read_text('utf-8'))['model']
    assert model['classes'] == list('abcdefghij')


def test_a_model_of_the_hub_is_converted_by_its_id(tmp_path, capsys):
    write_stock_folder(tmp_path / 'hub' / 'somebody' / 'nuclei')
    with serve(tmp_path / 'hub') as hub, client_of(hub, tmp_path / 'cache'):
        assert main(['convert', 'somebody/nuclei', str(tmp_path / 'made'), '--device', 'cpu']) == 0
        assert main(['convert', 'somebody/missing', str(tmp_path / 'other'), '--device', 'cpu']) == 1
    assert 'somebody/missing' in error_of(capsys)
    assert not (tmp_path / 'other').exists()
    assert_same(results(tmp_path / 'made'), results(tmp_path / 'hub' / 'somebody' / 'nuclei'))
    assert 'from somebody/nuclei' in (tmp_path / 'made' / 'README.md').read_text('utf-8')


# backbones

def test_a_backbone_gives_a_start_for_training_and_says_so(resnet18, resnet18_config, tmp_path, capsys):
    words = ['convert', str(resnet18), '--config', str(resnet18_config), '--classes', 'a,b', '--device', 'cpu']
    for name in ('first', 'second'):
        torch.manual_seed(hash(name) % 1000)   # whatever the process drew before
        assert main([*words, str(tmp_path / name)]) == 0
    said = capsys.readouterr().out
    assert 'freshly initialised: sem_seg_head.predictor' in said and 'finds nothing before it is trained' in said
    assert 'the ImageNet classifier' in said
    first, second = (read_state_dict(tmp_path / name) for name in ('first', 'second'))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    origin = torch.load(resnet18, weights_only=True)
    assert torch.equal(first['backbone.res3.0.shortcut.norm.bias'], origin['layer2.0.downsample.1.bias'])
    assert 'not trained' in (tmp_path / 'first' / 'README.md').read_text('utf-8').lower()
    configuration = json.loads((tmp_path / 'first' / 'configuration.json').read_text('utf-8'))
    assert configuration['model']['classes'] == ['a', 'b'] and configuration['model']['pretrained'] is True


def test_the_larger_published_model_is_taken_for_a_backbone(tmp_path, capsys):
    import timm
    torch.save(timm.create_model('resnet50d').state_dict(), tmp_path / 'resnet50d.pth')
    assert main(['convert', str(tmp_path / 'resnet50d.pth'), str(tmp_path / 'made'), '--device', 'cpu']) == 0
    said = capsys.readouterr().out
    assert 'the configuration is the published fastinst_d3_r50d_dcn' in said
    assert '18 new, freshly initialised: backbone (conv2_offset)' in said


def test_a_detectron2_backbone_of_unknown_origin_comes_with_a_warning(resnet18, resnet18_config, tmp_path, capsys):
    from modelscope_fastinst.checkpoints.backbones import from_torchvision
    state = torch.load(resnet18, weights_only=True)
    (tmp_path / 'R-18.pkl').write_bytes(pickle.dumps(
        {'model': {from_torchvision(key): tensor.numpy() for key, tensor in state.items()}, '__author__': 'me'}))
    assert main(['convert', str(tmp_path / 'R-18.pkl'), str(tmp_path / 'made'), '--config', str(resnet18_config),
                 '--device', 'cpu']) == 0
    assert 'MSRA' in next(line for line in capsys.readouterr().out.splitlines() if line.startswith('note: '))


# what cannot be converted

def cut(content: bytes) -> bytes:
    return content[:len(content) // 2]


def write_bad_files(folder: Path, golden: Path) -> None:
    good = (golden / 'model_final.pth').read_bytes()
    (folder / 'cut.pth').write_bytes(cut(good))
    (folder / 'cut.pkl').write_bytes(cut(pickle.dumps({'model': {'a': np.zeros(9)}})))
    (folder / 'cut.safetensors').write_bytes(b'\x20\0\0\0\0\0\0\0{"a":')
    (folder / 'empty.pth').write_bytes(b'')
    (folder / 'text.pth').write_text('<html>404</html>', 'utf-8')
    (folder / 'hostile.pkl').write_bytes(pickle.dumps({'model': Calls(os.system, 'echo hostile > ran')}))
    torch.save({'model': load(SINGLE_IMAGE_CASE).weights(), 'x': Calls(os.mkdir, 'ran')}, folder / 'hostile.pth')
    torch.save({'model': {'sem_seg_head.predictor.query_feat.weight': torch.zeros(1)}}, folder / 'mask2former.pth')
    (folder / 'nothing').mkdir()
    (folder / 'broken.json').write_text('{"framework":', 'utf-8')
    write_configuration(folder / 'other.json')
    fewer = json.loads((golden / 'configuration.json').read_text('utf-8'))
    fewer['model']['classes'] = ['a', 'b']
    fewer['model']['decoder']['num_classes'] = 2
    (folder / 'fewer.json').write_text(json.dumps(fewer), 'utf-8')
    (folder / 'two.txt').write_text('a\nb\n', 'utf-8')
    fails = json.loads((golden / 'configuration.json').read_text('utf-8'))
    fails['preprocessor'] = {'type': 'no-such-preprocessor'}
    (folder / 'fails_at_the_end.json').write_text(json.dumps(fails), 'utf-8')


@pytest.mark.parametrize(('words', 'message'), [
    pytest.param(['cut.pth'], 'broken or cut off', id='cut-off PyTorch file'),
    pytest.param(['cut.pkl'], 'broken or cut off', id='cut-off pickle'),
    pytest.param(['cut.safetensors'], 'broken or cut off', id='cut-off safetensors'),
    pytest.param(['empty.pth'], 'it is empty', id='empty'),
    pytest.param(['text.pth'], 'is a text file', id='text'),
    pytest.param(['nothing'], 'holds no weights', id='folder without weights'),
    pytest.param(['nowhere.pth'], 'no such file or folder', id='missing'),
    pytest.param(['hostile.pkl'], 'wants to build', id='hostile pickle'),
    pytest.param(['hostile.pth'], 'wants to build', id='hostile PyTorch file'),
    pytest.param(['mask2former.pth'], 'holds another network: Mask2Former', id='another network'),
    pytest.param(['{golden}'], 'fits none of the published configurations', id='no configuration fits'),
    pytest.param(['{golden}', '--config', 'fastinst_d3_r50'], 'not the weights of this network', id='another width'),
    pytest.param(['{golden}', '--config', 'fastinst_d3_r50d_dcn'], 'the backbone of the network is another',
                 id='another backbone'),
    pytest.param(['{golden}', '--config', 'other.json'], 'is for 10 classes, other.json names 3', id='other classes'),
    pytest.param(['{golden}', '--config', 'fewer.json'], 'give --classes', id='too few names'),
    pytest.param(['{golden}', '--config', 'fewer.json', '--classes-file', 'two.txt'], '2 names were given',
                 id='too few names in a file'),
    pytest.param(['{golden}', '--config', 'broken.json'], 'broken.json: not JSON', id='broken configuration'),
    pytest.param(['{golden}', '--config', 'nowhere.json'], 'nowhere.json', id='missing configuration'),
    pytest.param(['{golden}', '--classes-file', 'nowhere.txt'], 'nowhere.txt', id='missing file of names'),
    pytest.param(['{golden}', '--config', 'fails_at_the_end.json'], 'no-such-preprocessor', id='does not run'),
    pytest.param(['{golden}', '--revision', 'v1'], 'goes with a model id', id='a revision of a file'),
    pytest.param(['{resnet18}'], 'none of the published configurations has that backbone', id='unpublished backbone'),
    pytest.param(['{resnet18}', '--config', 'fastinst_d3_r50'], 'ResNet-18', id='wrong backbone'),
    pytest.param(['{resnet18}', '--config', 'other.json', '--to', 'stock'], 'takes a whole model',
                 id='a backbone to stock'),
    pytest.param(['{embedded}', '--to', 'stock'], 'basic blocks', id='what stock cannot represent'),
])
def test_bad_input_is_one_line_and_leaves_nothing(words, message, golden, resnet18, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_bad_files(tmp_path, golden)
    before = listing(tmp_path)
    places = {'golden': golden / 'model_final.pth', 'resnet18': resnet18,
              'embedded': modelscope_fastinst.default_model()}
    source, *options = [word.format(**places) for word in words]
    assert main(['convert', source, 'new/parent/made', '--device', 'cpu', *options]) == 1
    assert message in error_of(capsys)
    assert listing(tmp_path) == before


def test_ctrl_c_leaves_nothing(golden, tmp_path, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt
    monkeypatch.setattr('modelscope.pipelines.pipeline', interrupted)
    assert main(['convert', str(golden / 'model_final.pth'), str(tmp_path / 'new' / 'made'),
                 '--config', str(golden / 'configuration.json')]) == 130
    assert 'interrupted' in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


# the target

@pytest.fixture
def old_model(tmp_path) -> Path:
    folder = tmp_path / 'made'
    folder.mkdir()
    (folder / 'configuration.json').write_text('{"old": true}', 'utf-8')
    (folder / 'notes.txt').write_text('mine', 'utf-8')
    return folder


def test_an_existing_folder_is_replaced_only_when_asked(golden, old_model, tmp_path, capsys):
    words = ['convert', str(golden / 'model_final.pth'), str(old_model), '--device', 'cpu',
             '--config', str(golden / 'configuration.json')]
    assert main(words) == 1
    assert 'exists and is not empty' in error_of(capsys)
    assert listing(tmp_path) == ['made', 'made/configuration.json', 'made/notes.txt']
    assert main([*words, '--overwrite']) == 0
    assert listing(tmp_path) == ['made', 'made/README.md', 'made/configuration.json', 'made/model.safetensors']


def test_a_failed_replacement_keeps_the_old_folder(golden, old_model, tmp_path, capsys, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError('no memory left')
    monkeypatch.setattr('modelscope.pipelines.pipeline', fails)
    before = {name: (tmp_path / name).read_bytes() for name in listing(tmp_path) if (tmp_path / name).is_file()}
    assert main(['convert', str(golden / 'model_final.pth'), str(old_model), '--overwrite', '--device', 'cpu',
                 '--config', str(golden / 'configuration.json')]) == 1
    assert 'no memory left' in error_of(capsys)
    assert {name: (tmp_path / name).read_bytes() for name in listing(tmp_path)
            if (tmp_path / name).is_file()} == before


def test_an_empty_folder_is_as_good_as_none(golden, tmp_path):
    (tmp_path / 'made').mkdir()
    assert main(['convert', str(golden / 'model_final.pth'), str(tmp_path / 'made'), '--device', 'cpu',
                 '--config', str(golden / 'configuration.json')]) == 0
    assert 'model.safetensors' in os.listdir(tmp_path / 'made')


@pytest.mark.parametrize(('prepare', 'target', 'message'), [
    pytest.param(lambda folder: (folder / 'made').write_text('x', 'utf-8'), 'made', 'is a file', id='a file'),
    pytest.param(lambda folder: (folder / 'photos').mkdir() or (folder / 'photos' / 'a.jpg').write_bytes(b'x'),
                 'photos', 'is no model folder', id='a folder of something else'),
    pytest.param(lambda folder: write_stock_folder(folder / 'stock'), 'stock', 'is the folder of what is to be',
                 id='the source itself'),
])
def test_what_must_not_be_lost_is_not_replaced(prepare, target, message, golden, tmp_path, capsys):
    prepare(tmp_path)
    before = listing(tmp_path)
    source = tmp_path / 'stock' if target == 'stock' else golden / 'model_final.pth'
    assert main(['convert', str(source), str(tmp_path / target), '--overwrite']) == 1
    assert message in error_of(capsys)
    assert listing(tmp_path) == before


def test_a_folder_that_cannot_be_put_in_its_place_is_removed(tmp_path):
    with pytest.raises(OSError), new_folder(tmp_path / 'made') as folder:
        assert folder.name == 'made'
        (folder / 'file').write_text('x', 'utf-8')
        (tmp_path / 'made').write_text('somebody was faster', 'utf-8')
    assert os.listdir(tmp_path) == ['made'] and (tmp_path / 'made').is_file()


# help

def test_help_shows_examples_and_loads_no_network():
    program = ('import sys\nfrom modelscope_fastinst.cli import main\n'
               'try:\n    main(["convert", "--help"])\nexcept SystemExit as end:\n    assert end.code == 0\n'
               'heavy = ("torchvision", "modelscope.pipelines", "modelscope_fastinst.models", "safetensors")\n'
               'assert not [name for name in sys.modules if name.startswith(heavy)]')
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('  modelscope-fastinst convert ') == 2 and '--to stock' in done.stdout
    for option in ('--config', '--classes', '--classes-file', '--verbose', '--overwrite', '--revision', '--device'):
        assert option in done.stdout
