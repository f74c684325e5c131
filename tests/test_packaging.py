"""What is installed: a wheel of a copy of the sources."""
from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE', 'modelscope_fastinst', 'configs')


@pytest.fixture(scope='module')
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    place = tmp_path_factory.mktemp('wheel')
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, place / name, ignore=shutil.ignore_patterns('__pycache__'))
        else:
            shutil.copyfile(source, place / name)
    program = 'from setuptools import build_meta; build_meta.build_wheel("made")'
    subprocess.run([sys.executable, '-c', program], cwd=place, check=True, capture_output=True)
    [file] = (place / 'made').glob('*.whl')
    with zipfile.ZipFile(file) as opened:
        yield opened


def test_a_wheel_holds_modules_embedded_model_fonts_and_configurations(wheel):
    package = ROOT / 'modelscope_fastinst'
    wanted = {path.relative_to(ROOT).as_posix() for path in [
        *package.rglob('*.py'), *(path for path in (package / 'assets').rglob('*') if path.is_file())]
        if '__pycache__' not in path.parts}
    wanted |= {f'modelscope_fastinst/configs/{path.name}' for path in (ROOT / 'configs').glob('*.json')}
    assert {name for name in wheel.namelist() if '.dist-info/' not in name} == wanted
    assert [name for name in wheel.namelist() if name.endswith('licenses/LICENSE')]


def test_a_wheel_brings_the_commands_and_the_extras(wheel):
    def content(name: str) -> str:
        return wheel.read(next(file for file in wheel.namelist() if file.endswith(f'.dist-info/{name}'))).decode()

    points = configparser.ConfigParser()
    points.read_string(content('entry_points.txt'))
    assert dict(points['console_scripts']) == {'modelscope-fastinst': 'modelscope_fastinst.cli:main'}
    extras = {}
    for line in Parser().parsestr(content('METADATA')).get_all('Requires-Dist'):
        requirement, _, condition = line.partition(';')
        extras.setdefault(condition.partition('==')[2].strip(' "'), set()).add(requirement.split('>')[0].split('<')[0])
    assert extras['video'] == {'av'} and extras['demo'] == {'av', 'gradio'} and extras['supervision'] == {'supervision'}
    assert extras['demo'] | extras['supervision'] <= extras['test'] & extras['dev']
    assert not extras[''] & {'av', 'gradio', 'supervision', 'pytest'}


def test_the_description_leads_nowhere_that_an_index_of_packages_does_not_have(wheel):
    metadata = wheel.read(next(file for file in wheel.namelist() if file.endswith('.dist-info/METADATA'))).decode()
    description = Parser().parsestr(metadata).get_payload()
    targets = re.findall(r'\]\(([^)\s]+)\)', description)
    assert targets and all(target.startswith('https://') for target in targets)
    readme = (ROOT / 'README.md').read_text('utf-8')
    assert re.findall('^#.*|```.*', description, re.MULTILINE) == re.findall('^#.*|```.*', readme, re.MULTILINE)
