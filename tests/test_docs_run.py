"""README and docs: what a page says to type is typed, in its order, in a folder with what it names, beside a hub."""
from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from urllib.error import HTTPError

import pytest
from PIL import Image

from tests.docs_folders import PREPARED, write_hub
from tests.docs_pages import ROOT, SERVER, Block, blocks
from tests.docs_session import Reader
from tests.plugin.loopback_hub import Hub, serve
from tests.plugin.loopback_uploads import TOKEN, UploadHandler, commits

# What a page leaves behind, beside nothing that it did not name.
LEFT = {
    'README.md': [],
    'docs/inference.md': [],
    'docs/models.md': ['my_model/model.safetensors', 'for_modelscope/pytorch_model.pt',
                       'my_mask2former/configuration.json'],
    'docs/fine-tune.md': [
        'checked/samples_all.png', 'work_dir/output/configuration.json', 'work_dir/output_raw/model.safetensors',
        'work_dir/evaluation/confusion_matrix.png', 'work_dir/evaluation/worst', 'work_dir/curves.png',
        'work_dir/log.csv', 'work_dir/log.jsonl', 'work_dir/epoch_30_trainer_state.pth', 'two_processes/output',
        'panoptic/output', 'report/worst', 'work_dir/output/evaluation.json', 'outlined/IMG_0001.json',
        'from_python/output'],
    'docs/publishing.md': ['my_model/evaluation.json', 'my_model/example.jpg', 'my_model/README.md'],
}
UPLOADED = {'docs/fine-tune.md': ['my-name/my-photos'], 'docs/publishing.md': ['my-name/nuclei']}


def read_through(page: str, folder: Path) -> Hub:
    """Types the page in a folder, and gives the hub that it spoke to."""
    PREPARED[page](folder)
    (folder.parent / 'hub').mkdir()
    write_hub(folder.parent / 'hub')
    with serve(folder.parent / 'hub', UploadHandler) as hub:
        environment = {**hub.environment(folder.parent / 'cache'), 'MODELSCOPE_API_TOKEN': TOKEN}
        with Reader(folder, environment) as reader:
            for block in blocks(page):
                reader.type(block)
    return hub


@pytest.mark.slow
@pytest.mark.parametrize('page', PREPARED)
def test_a_page_as_written(page, tmp_path):
    (tmp_path / 'here').mkdir()
    hub = read_through(page, tmp_path / 'here')
    for name in LEFT[page]:
        assert (tmp_path / 'here' / name).exists(), name
    assert [commit['model'] for commit in commits(hub)] == UPLOADED.get(page, [])
    for model in UPLOADED.get(page, []):
        assert (hub.root / model / 'model.safetensors').is_file()


@pytest.mark.slow
def test_the_pictures_can_be_made_anew(tmp_path):
    done = subprocess.run([sys.executable, str(ROOT / 'demo' / 'pictures.py'), str(tmp_path)], capture_output=True,
                          text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    made = sorted(file.name for file in tmp_path.glob('*.jpg'))
    assert made == sorted(file.name for file in (ROOT / 'docs' / 'images').glob('*.jpg'))
    for name in made:   # sizes, for the pixels are those of the torch that is installed
        with Image.open(tmp_path / name) as new, Image.open(ROOT / 'docs' / 'images' / name) as shown:
            assert new.size == shown.size, name


# the reader itself

def block_of(text: str, language: str = 'bash', marker: str = '') -> Block:
    return Block('x.md', 7, language, text, marker)


@pytest.fixture
def reader(tmp_path):
    with Reader(tmp_path, {}) as reader:
        yield reader


@pytest.mark.parametrize(('language', 'text', 'message'), [
    pytest.param('bash', 'true\nfalse\ntrue\n', 'x.md:7', id='a command that fails, in the middle'),
    pytest.param('bash', 'false | true\n', 'x.md:7', id='a command that fails before a pipe'),
    pytest.param('python', 'x = 1\nx / 0\n', 'ZeroDivisionError', id='a program that fails'),
    pytest.param('python', 'raise SystemExit\n', 'SystemExit', id='a program that ends'),
])
def test_a_failure_is_told(language, text, message, reader):
    with pytest.raises(AssertionError, match=message):
        reader.type(block_of(text, language))


def test_programs_share_their_names_and_are_main(reader):
    reader.type(block_of('import os\nx = 3\n', 'python'))
    reader.type(block_of('assert __name__ == "__main__"\nos.write(1, b"noise")\nprint(x + 1)\n', 'python'))
    assert reader.printed == '4\n'


def test_what_is_shown_has_to_be_what_is_printed(reader):
    reader.type(block_of('echo "3 nuclei in 0.25 s: out.png"\n'))
    reader.type(block_of('4 nuclei in 1 s:\nout.png\n', 'text'))
    reader.type(block_of('something else\n', 'text', 'no output'))
    with pytest.raises(AssertionError, match='3 nuclei'):
        reader.type(block_of('4 cells in 1 s: out.png\n', 'text'))


def test_an_excused_block_is_not_typed(reader, tmp_path):
    reader.type(block_of('touch typed\n', marker='not run: it installs packages'))
    assert not (tmp_path / 'typed').exists()


@pytest.mark.parametrize(('status', 'fails'), [(200, False), (500, True)])
def test_a_server_is_asked_and_stopped(status, fails, reader, tmp_path):
    (tmp_path / 'serve.py').write_text(SERVING.format(status=status), 'utf-8')
    block = block_of(f'{sys.executable} serve.py\n', marker=SERVER)
    if fails:
        with pytest.raises(HTTPError):
            reader.type(block)
    else:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)   # as of a process in the background
        try:
            reader.type(block)
        finally:
            signal.signal(signal.SIGINT, before)
        assert (tmp_path / 'stopped').is_file()


SERVING = """\
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response({status})
        self.end_headers()
server = HTTPServer(('127.0.0.1', 0), Handler)
print(f'see http://127.0.0.1:{{server.server_port}} now', flush=True)
try:
    server.serve_forever()
except KeyboardInterrupt:
    open('stopped', 'w').close()
"""
