"""Studio folders: demo/ as it stands, and what ``studio --write`` makes."""
from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from modelscope_fastinst.card_file import front_matter
from modelscope_fastinst.cli import main
from modelscope_fastinst.studio import folder as studio_folder
from modelscope_fastinst.studio.folder import StudioFolderError, write_studio_folder
from modelscope_fastinst.studio.hosted import Settings, settings
from modelscope_fastinst.version import __version__
from tests.plugin.model_folders import write_stock_folder

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / 'demo'
UPLOADED = ('app.py', 'README.md', 'requirements.txt', 'ms_deploy.json')


@pytest.fixture(scope='module')
def written(tmp_path_factory) -> Path:
    """A studio folder with a model of the maker's and one of the hub's."""
    place = tmp_path_factory.mktemp('studio')
    model = write_stock_folder(place / 'my model')
    (model / 'epoch_3.pth').write_bytes(b'not part of the model')
    write_studio_folder(place / 'made', [str(model), 'damo/other'])
    return place / 'made'


# demo/

def test_the_demo_folder_is_what_would_be_written():
    assert (DEMO / 'app.py').read_text('utf-8') == studio_folder.app()
    assert (DEMO / 'ms_deploy.json').read_text('utf-8') == studio_folder.deployment()
    assert front_matter((DEMO / 'README.md').read_text('utf-8'), 'README.md') == studio_folder.front_matter()


def test_the_demo_folder_asks_for_this_release_with_what_the_studio_needs():
    lines = (DEMO / 'requirements.txt').read_text('utf-8').splitlines()
    assert [line for line in lines if not line.startswith('#')] == [f'modelscope-fastinst[demo]=={__version__}']


def test_every_script_of_the_demo_folder_is_explained():
    explained = set(re.findall(r'^\| `(\w+\.py)', (DEMO / 'README.md').read_text('utf-8'), re.MULTILINE))
    # two make the documentation's pictures: for who works on this project, not for who copies an example
    scripts = {path.name for path in DEMO.glob('*.py')}
    assert scripts - {'pictures.py', 'screenshots.py'} <= explained <= scripts


# what is written

def test_a_written_folder_holds_sources_configurations_model_and_licence(written):
    assert {'app.py', 'README.md', 'requirements.txt', 'ms_deploy.json', 'LICENSE', 'modelscope_fastinst', 'models'} \
        == {path.name for path in written.iterdir()}
    package = {path.relative_to(ROOT / 'modelscope_fastinst').as_posix()
               for path in (ROOT / 'modelscope_fastinst').rglob('*')
               if path.is_file() and path.suffix != '.pyc'}
    configurations = {f'configs/{path.name}' for path in (ROOT / 'configs').glob('*.json')}
    there = {path.relative_to(written / 'modelscope_fastinst').as_posix()
             for path in (written / 'modelscope_fastinst').rglob('*') if path.is_file()}
    assert there == package | configurations
    assert sorted(path.name for path in (written / 'models' / 'my_model').iterdir()) \
        == ['configuration.json', 'pytorch_model.pt']


def test_its_requirements_are_public_packages_with_gradio_and_video(written):
    lines = (written / 'requirements.txt').read_text('utf-8').splitlines()
    names = {re.match(r'[\w-]+', line)[0] for line in lines}
    assert {'torch', 'modelscope', 'gradio', 'av'} <= names and not names & {'modelscope-fastinst', 'pytest', 'ruff'}
    assert not [line for line in lines if ';' in line or '/' in line]


def test_its_sources_are_used_from_anywhere_and_know_their_configurations(written, tmp_path):
    program = ('import sys; sys.path.insert(0, sys.argv[1]); import modelscope_fastinst as package\n'
               'from modelscope_fastinst import zoo\n'
               'print(package.__file__, zoo.configuration_file("fastinst_d3_r50"), sep="\\n")')
    shown = subprocess.run([sys.executable, '-c', program, str(written)], cwd=tmp_path, capture_output=True, text=True,
                           check=True)
    assert shown.stdout.split() == [str(written / 'modelscope_fastinst' / '__init__.py'),
                                    str(written / 'modelscope_fastinst' / 'configs' / 'fastinst_d3_r50.json')]


def test_its_card_names_the_hub_s_models_and_its_app_all_of_them(written):
    card = (written / 'README.md').read_text('utf-8')
    assert front_matter(card, 'README.md')['models'] == ['damo/other']
    assert front_matter(card, 'README.md')['deployspec'] == {'entry_file': 'app.py'}
    assert 'https://modelscope.cn/models/damo/other' in card and '`my_model`' in card
    assert "['models/my_model', 'damo/other'])" in (written / 'app.py').read_text('utf-8')
    assert json.loads((written / 'ms_deploy.json').read_text('utf-8'))['sdk_type'] == 'gradio'


@pytest.mark.parametrize(('words', 'message'), [
    pytest.param(['--model', 'nowhere'], 'nowhere: no such folder, and no model id', id='a model that is nowhere'),
    pytest.param(['--any-model'], '--write with --any-model', id='a studio of any model'),
    pytest.param(['--model', '.'], 'holds no weights', id='a folder that is no model'),
])
def test_what_would_not_work_there_is_refused_and_nothing_is_left(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(['studio', '--write', 'made', *words]) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_stays_as_it_is(tmp_path, capsys):
    (tmp_path / 'mine').write_text('mine')
    assert main(['studio', '--write', str(tmp_path)]) == 1
    assert 'is there already' in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ['mine']


def test_an_installation_without_the_extra_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(studio_folder.metadata, 'requires', lambda name: ['torch>=2.6', 'pytest; extra == "test"'])
    with pytest.raises(StudioFolderError, match='no extra "demo"; install it again'):
        write_studio_folder(tmp_path / 'made')


# what a hosted studio reads

@pytest.mark.parametrize(('environment', 'expected'), [
    pytest.param({}, Settings(), id='nothing: this machine, the embedded model'),
    pytest.param({'GRADIO_SERVER_NAME': '0.0.0.0', 'GRADIO_SERVER_PORT': '7860'}, Settings((), '0.0.0.0', 7860),
                 id="the platform's address"),
    pytest.param({'FASTINST_MODEL': 'damo/one, me/two'}, Settings(('damo/one', 'me/two')), id='models of the hub'),
    pytest.param({'GRADIO_SERVER_NAME': ' ', 'GRADIO_SERVER_PORT': '', 'FASTINST_MODEL': ','}, Settings(),
                 id='set, but empty'),
])
def test_the_environment_says_address_and_models(environment, expected, tmp_path):
    assert settings(tmp_path, environment) == expected


def test_a_model_beside_the_app_is_found_from_anywhere_and_the_environment_wins(tmp_path):
    (tmp_path / 'models' / 'ants').mkdir(parents=True)
    assert settings(tmp_path, {}, ['models/ants']).models == (str(tmp_path / 'models' / 'ants'),)
    assert settings(tmp_path, {'FASTINST_MODEL': 'me/bees'}, ['models/ants']).models == ('me/bees',)


@pytest.mark.parametrize('port', ['http', '0', '65536', '-1'])
def test_a_port_that_is_none_is_an_error(port, tmp_path):
    with pytest.raises(ValueError, match='GRADIO_SERVER_PORT'):
        settings(tmp_path, {'GRADIO_SERVER_PORT': port})


# it runs

def free_port() -> int:
    with socket.socket() as one:
        one.bind(('127.0.0.1', 0))
        return one.getsockname()[1]


def said_by(process: subprocess.Popen, output: Path, wanted: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while wanted not in output.read_text('utf-8'):
        assert time.monotonic() < end and process.poll() is None, output.read_text('utf-8')
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['demo', 'written'])
def test_the_folder_alone_serves_the_studio_and_ends_when_told(kind, written, tmp_path):
    if kind == 'demo':
        folder = tmp_path / 'uploaded'
        folder.mkdir()
        for name in UPLOADED:
            (folder / name).write_bytes((DEMO / name).read_bytes())
        environment = {}
    else:
        folder, environment = written, {'FASTINST_MODEL': 'models/my_model'}   # damo/other would be downloaded
    port = free_port()
    environment = {**os.environ, 'GRADIO_SERVER_NAME': '127.0.0.1', 'GRADIO_SERVER_PORT': str(port),
                   'TMPDIR': str(tmp_path / 'temporary'), **environment}
    (tmp_path / 'temporary').mkdir()
    with open(tmp_path / 'said', 'w') as said:
        process = subprocess.Popen([sys.executable, str(folder / 'app.py')], cwd=tmp_path, env=environment, stdout=said,
                                   stderr=subprocess.STDOUT)
    try:
        said_by(process, tmp_path / 'said', f'studio: http://127.0.0.1:{port}/', seconds=300)
        with urllib.request.urlopen(f'http://127.0.0.1:{port}/', timeout=20) as page:
            assert 'FastInst Studio' in page.read().decode()
        assert list((tmp_path / 'temporary').glob('fastinst-studio-*'))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
    finally:
        process.kill()
    assert not list((tmp_path / 'temporary').glob('fastinst-studio-*'))   # where visitors' files would lie
