"""The rules of the house: who may import whom, and when; how long a file may be; what a file may not say."""
from __future__ import annotations

import ast
import functools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / 'modelscope_fastinst'
MODULES = sorted(PACKAGE.rglob('*.py'))
CONFIGS = sorted((ROOT / 'configs').glob('**/*.json'))

ROOMS = {'models', 'objective', 'data', 'results', 'evaluation', 'checkpoints', 'plugin', 'cli', 'visualize', 'video',
         'studio', 'runtime'}
# What a room may import of this package, besides itself, structures.py, checksum.py and version.py. The core knows
# nothing of the plugin; what training minimises, the data, the results and the evaluation know nothing of the networks
# or each other.
MAY_IMPORT = {
    'models': set(), 'objective': set(), 'data': set(), 'results': set(), 'evaluation': set(),
    'checkpoints': {'models'}, 'visualize': set(), 'structures': set(), 'version': set(), 'checksum': set(),
    'zoo': set(), 'published': set(), 'network_names': set(), 'card_file': set(), 'card_widget': set(),
    'card_sections': {'models', 'data'}, 'model_card': {'evaluation', 'checkpoints', 'data'},
    'video': {'results', 'data', 'visualize'}, 'studio': ROOMS - {'cli'},
    'plugin': ROOMS - {'studio', 'video'}, 'cli': ROOMS, 'runtime': ROOMS - {'plugin', 'cli', 'studio', 'video'},
    '__main__': {'cli'}, '__init__': {'plugin'}, 'exchange': {'results'}, 'assets': set(), 'fonts': set(),
}
WHERE_USED = {'torchvision', 'cv2', 'pycocotools', 'scipy', 'PIL', 'transformers', 'matplotlib', 'av', 'supervision',
              'gradio', 'hypothesis', 'pytest'}
NEVER = {'mmcv', 'mmdet', 'timm', 'detectron2'}
# But for one compiled kernel, which a configuration has to ask for by name.
WHERE_ASKED_FOR = {'models/deformable_attention.py': {'mmcv'}}


def room_of(file: Path) -> str:
    """'plugin' for modelscope_fastinst/plugin/model.py, 'structures' for modelscope_fastinst/structures.py."""
    return file.relative_to(PACKAGE).parts[0].removesuffix('.py')


@functools.cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text('utf-8'))


def imports(file: Path, top_level: bool = False) -> set[str]:
    """Absolute names of the modules a file imports; with ``top_level`` only when it is itself imported."""
    tree = parsed(file)
    nodes = _run_at_import(tree.body) if top_level else ast.walk(tree)
    package = ('modelscope_fastinst', *file.relative_to(PACKAGE).parts[:-1])
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found.update(name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = '.'.join(package[:len(package) - node.level + 1]) if node.level else ''
            module = '.'.join(part for part in (base, node.module) if part)
            found.update(f'{module}.{name.name}' for name in node.names)
    return found


def _run_at_import(body: list[ast.stmt]) -> list[ast.stmt]:
    """Statements that run when a module is imported: not those in functions, nor those for type checkers."""
    found = []
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.If) and 'TYPE_CHECKING' in ast.unparse(node.test):
            continue
        found.append(node)
        for part in ('body', 'orelse', 'finalbody'):
            found += _run_at_import(getattr(node, part, []))
        for handler in getattr(node, 'handlers', []):
            found += _run_at_import(handler.body)
    return found


def tracked_texts() -> list[Path]:
    """Text files of the project, as git lists them; in an archive without git, all of them."""
    listed = subprocess.run(['git', 'ls-files', '--cached', '--others', '--exclude-standard'], cwd=ROOT,
                            capture_output=True, text=True)
    files = ([ROOT / line for line in listed.stdout.splitlines()] if listed.returncode == 0 else
             [file for folder in ('modelscope_fastinst', 'tests', 'configs', 'docs', 'benchmarks', 'demo')
              for file in (ROOT / folder).rglob('*')])
    texts = {'.py', '.md', '.json', '.toml', '.txt', '.cfg', '.yml', '.yaml', '.sh', ''}
    return [file for file in files if file.is_file() and file.suffix in texts]


@pytest.mark.parametrize('file', MODULES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_room_imports_only_the_rooms_it_may(file):
    room = room_of(file)
    assert room in MAY_IMPORT, f'{room} is a new room: say in this test what it may import'
    used = {name.split('.')[1] for name in imports(file) if name.startswith('modelscope_fastinst.')} & ROOMS
    assert used <= MAY_IMPORT[room] | {room}


@pytest.mark.parametrize('file', MODULES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_modelscope_is_imported_by_the_plugin_only_and_some_packages_never(file):
    used = {name.split('.')[0] for name in imports(file)}
    assert not used & (NEVER - WHERE_ASKED_FOR.get(file.relative_to(PACKAGE).as_posix(), set()))
    if room_of(file) != 'plugin':
        assert not used & {'modelscope', 'modelscope_hub'}


@pytest.mark.parametrize('file', MODULES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_heavy_packages_are_imported_where_they_are_used(file):
    # The studio's pages are Gradio from top to bottom, and imported only to be served.
    allowed = {'gradio'} if room_of(file) == 'studio' and file.name.startswith('app') else set()
    assert not {name.split('.')[0] for name in imports(file, top_level=True)} & (WHERE_USED | NEVER) - allowed


def test_top_level_imports_are_told_from_those_in_functions(tmp_path):
    file = PACKAGE / 'models' / 'example.py'   # a name only; the text is elsewhere
    source = tmp_path / 'models' / 'example.py'
    source.parent.mkdir()
    source.write_text('import a\ntry:\n    import b\nexcept ImportError:\n    from . import c\n'
                      'class D:\n    from ..d import e\n    def f(self):\n        import g\n'
                      'if TYPE_CHECKING:\n    import h\n', 'utf-8')
    assert file.parent.is_dir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[__name__], 'PACKAGE', tmp_path)
        here = 'modelscope_fastinst'
        assert imports(source, top_level=True) == {'a', 'b', f'{here}.models.c', f'{here}.d.e'}
        assert imports(source) == {'a', 'b', f'{here}.models.c', f'{here}.d.e', 'g', 'h'}


def test_importing_the_package_loads_no_heavy_package():
    heavy = sorted(WHERE_USED | NEVER | {'datasets', 'modelscope.pipelines'})
    program = f'import sys, modelscope_fastinst; print([name for name in {heavy} if name in sys.modules])'
    shown = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert shown.stdout.strip() == '[]'


@pytest.mark.parametrize('file', MODULES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_file_reads_in_one_sitting(file):
    assert len(file.read_text('utf-8').splitlines()) <= 400
    assert file.stem not in {'utils', 'util', 'misc', 'common', 'helpers'}


@pytest.mark.parametrize('file', MODULES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_module_says_what_it_is_and_hides_no_error(file):
    tree = ast.parse(file.read_text('utf-8'))
    assert ast.get_docstring(tree), 'no docstring'
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f'line {node.lineno}: a bare except'
            assert [type(statement) for statement in node.body] != [ast.Pass], f'line {node.lineno}: except: pass'


def test_no_file_names_a_place_on_somebodys_machine():
    # written in pieces, for this file is one of those read
    machine = re.compile('|'.join((r'(?<![\w.])/(?:wo' + r'rk|ho' + r'me|ro' + r'ot|tm' + r'p|op' + r't)/\w',
                                   r'find-' + r'links', r'extra-' + r'index-url', r'[A-Z]:\\\\Us' + r'ers')))
    found = [f'{file.relative_to(ROOT)}:{number}: {line.strip()}' for file in tracked_texts()
             if file.name != 'LICENSE'
             for number, line in enumerate(file.read_text('utf-8', errors='replace').splitlines(), 1)
             if machine.search(line)]
    assert found == []


def test_the_readme_names_only_make_targets_that_exist():
    targets = set(re.findall(r'^([a-z][\w-]*):', (ROOT / 'Makefile').read_text('utf-8'), re.MULTILINE))
    named = set(re.findall(r'make (demo|test-all|test|lint|clean|[a-z-]+)(?=[`\s]*$|`)',
                           (ROOT / 'README.md').read_text('utf-8'), re.MULTILINE))
    assert {'demo', 'test'} <= named <= targets


def test_continuous_integration_calls_make_test():
    lines = (ROOT / '.ci' / 'run').read_text('utf-8').splitlines()
    assert lines[0] == '#!/usr/bin/env bash'
    assert lines[-1] == 'make test'


@pytest.mark.parametrize('file', CONFIGS, ids=lambda file: str(file.relative_to(ROOT / 'configs')))
def test_a_config_describes_a_model_that_can_be_built(file):
    import torch

    from modelscope_fastinst.models.fastinst import build_fastinst
    from modelscope_fastinst.plugin.configuration import check_configuration
    from modelscope_fastinst.plugin.trainer_keys import check_keys
    configuration = json.loads(file.read_text('utf-8'))
    check_configuration(configuration, file.name)
    check_keys(configuration, file.name)
    model = dict(configuration['model'])
    model['decoder'] = {'num_classes': len(model.get('classes') or [''] * 80), **model['decoder']}
    with torch.device('meta'):   # shapes without numbers
        network = build_fastinst(model)
    assert network.num_classes == len(model.get('classes') or [''] * network.num_classes)


def test_the_version_has_one_home():
    from importlib.metadata import version

    import modelscope_fastinst
    assert version('modelscope-fastinst') == modelscope_fastinst.__version__
    assert f'## [{modelscope_fastinst.__version__}]' in (ROOT / 'CHANGELOG.md').read_text('utf-8')


def test_the_embedded_model_is_small_and_says_what_it_is():
    import modelscope_fastinst
    folder = Path(modelscope_fastinst.default_model())
    assert (folder / 'model.safetensors').stat().st_size <= 12_000_000
    assert 'segm' in (folder / 'README.md').read_text('utf-8')
    configuration = json.loads((folder / 'configuration.json').read_text('utf-8'))
    assert 'dataset' not in configuration and configuration['model']['pretrained'] is True


def test_every_requirement_says_what_it_is_for():
    lines = (ROOT / 'setup.py').read_text('utf-8').splitlines()
    start = lines.index('CORE = [')
    requirements = [index for index in range(start + 1, lines.index('}', start))
                    if re.match(r"\s+'[A-Za-z][\w-]*(\[\w+\])?([<>=,.\d]*)',", lines[index])]
    assert len(requirements) > 10
    for index in requirements:
        assert '#' in lines[index] or lines[index - 1].strip().startswith('#'), lines[index]
