"""What ``modelscope-fastinst convert`` cannot convert: one line that says why, and nothing half done."""
from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

import modelscope_fastinst  # noqa: F401  (registers the pipeline)
from modelscope_fastinst.cli import main
from tests.checkpoints.pickles import Calls
from tests.convert_files import error_of, listing, write_configuration, write_golden, write_resnet18
from tests.golden_cases import load
from tests.plugin.model_folders import SINGLE_IMAGE_CASE


@pytest.fixture(scope='module')
def golden(tmp_path_factory) -> Path:
    return write_golden(tmp_path_factory.mktemp('golden'))


@pytest.fixture(scope='module')
def resnet18(tmp_path_factory) -> Path:
    return write_resnet18(tmp_path_factory.mktemp('resnet'))


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
    torch.save({'model': {'sem_seg_head.predictor.label_enc.weight': torch.zeros(1)}}, folder / 'maskdino.pth')
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
    pytest.param(['maskdino.pth'], 'holds another network: MaskDINO', id='another network'),
    pytest.param(['{golden}'], 'fits none of the published configurations', id='no configuration fits'),
    pytest.param(['{golden}', '--config', 'fastinst_d3_r50'], 'not the weights of this network', id='another width'),
    pytest.param(['{golden}', '--config', 'fastinst_d3_r50d_dcn'], 'the backbone of the network is another',
                 id='another backbone'),
    pytest.param(['{golden}', '--config', 'other.json'], 'is for 10 classes, other.json names 3', id='other classes'),
    pytest.param(['{golden}', '--config', 'fewer.json'], 'give --classes', id='too few names'),
    pytest.param(['{golden}', '--config', 'fewer.json', '--classes-file', 'two.txt'], '2 names were given',
                 id='too few names in a file'),
    pytest.param(['{golden}', '--config', 'broken.json'], 'broken.json: not JSON', id='broken configuration'),
    pytest.param(['{golden}', '--config', 'nowhere.json'],
                 'error: nowhere.json: no such configuration file, nor one of fastinst_d1_r50, ',
                 id='missing configuration'),
    pytest.param(['{golden}', '--config', 'fastinst_d3_r5'],
                 'error: fastinst_d3_r5: no such configuration file, nor one of fastinst_d1_r50, ',
                 id='a misspelt published model'),
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
