"""``modelscope-fastinst convert``: from files as they are found to model folders that run."""
from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import modelscope_fastinst  # noqa: F401  (registers the pipeline)
from modelscope_fastinst import zoo
from modelscope_fastinst.checkpoints import read_state_dict
from modelscope_fastinst.cli import main
from modelscope_fastinst.plugin.conversion import convert
from tests.convert_files import error_of, listing, write_configuration, write_golden, write_resnet18
from tests.golden_cases import load
from tests.plugin.hub_client import client_of
from tests.plugin.loopback_hub import serve
from tests.plugin.model_folders import SINGLE_IMAGE_CASE, assert_same, scene, write_stock_folder

OPTIONS = {'device': 'cpu', 'mask_format': 'rle', 'min_size': 128, 'max_size': 160, 'score_thr': 0.2}


def results(folder) -> dict:
    from modelscope.pipelines import pipeline
    return pipeline('image-segmentation', model=str(folder), **OPTIONS)(scene())


@pytest.fixture(scope='module')
def golden(tmp_path_factory) -> Path:
    return write_golden(tmp_path_factory.mktemp('golden'))


@pytest.fixture(scope='module')
def resnet18(tmp_path_factory) -> Path:
    return write_resnet18(tmp_path_factory.mktemp('resnet'))


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
    assert main(['convert', str(tmp_path / 'first'), str(tmp_path / 'again'), '--device', 'cpu']) == 0
    assert 'not trained' in (tmp_path / 'again' / 'README.md').read_text('utf-8').lower()


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
