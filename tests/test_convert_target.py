"""The folder that ``modelscope-fastinst convert`` makes: all of it or nothing, and nothing of somebody's is lost."""
from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

import modelscope_fastinst  # noqa: F401  (registers the pipeline)
from modelscope_fastinst.cli import main
from modelscope_fastinst.plugin.new_folder import new_folder
from tests.convert_files import error_of, listing, write_golden
from tests.plugin.model_folders import write_stock_folder


@pytest.fixture(scope='module')
def golden(tmp_path_factory) -> Path:
    return write_golden(tmp_path_factory.mktemp('golden'))


def test_ctrl_c_leaves_nothing(golden, tmp_path, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt
    monkeypatch.setattr('modelscope.pipelines.pipeline', interrupted)
    assert main(['convert', str(golden / 'model_final.pth'), str(tmp_path / 'new' / 'made'),
                 '--config', str(golden / 'configuration.json')]) == 130
    assert 'interrupted' in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


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


def test_a_terminated_program_leaves_nothing_and_says_so_in_its_status(tmp_path):
    with pytest.raises(SystemExit) as end, new_folder(tmp_path / 'new' / 'made') as folder:
        (folder / 'file').write_text('x', 'utf-8')
        os.kill(os.getpid(), signal.SIGTERM)
    assert end.value.code == 128 + signal.SIGTERM
    assert os.listdir(tmp_path) == []
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_somebody_s_own_handler_of_sigterm_stays(tmp_path):
    received = []
    former = signal.signal(signal.SIGTERM, lambda *_: received.append('TERM'))
    try:
        with new_folder(tmp_path / 'made'):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, former)
    assert received == ['TERM'] and os.listdir(tmp_path) == ['made']


@pytest.mark.parametrize('target', [
    pytest.param('file/made', id='in a file'),
    pytest.param('file/new/made', id='below a file'),
    pytest.param('new/' + 'x' * 300 + '/made', id='with a name that is too long'),
])
def test_a_place_where_nothing_can_be_made_is_named(target, tmp_path):
    (tmp_path / 'file').write_text('x', 'utf-8')
    with pytest.raises(OSError, match='cannot be made in .*; give a folder in a place') as error, \
            new_folder(tmp_path / target):
        pass
    assert str(error.value).startswith(f'{tmp_path / target}: ') and 'Errno' not in str(error.value)
    assert os.listdir(tmp_path) == ['file']
