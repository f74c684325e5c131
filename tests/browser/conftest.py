"""A real studio in a process of its own, and a real browser that looks at it."""
from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BROWSERS = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', 'chrome')
START_SECONDS = 300   # importing PyTorch and Gradio on a busy machine
LANGUAGES = {'en': 'en-US', 'zh': 'zh-CN'}
# A script that a class of a model is called, and what it would leave if it ran. The others are the ways in which the
# page itself puts texts together.
MARK = 'studio-was-here'
HOSTILE = (f'<script>document.title="{MARK}"</script>', f'<img src=x onerror=document.title="{MARK}">',
           f'${{document.title="{MARK}"}}', f'{{{{document.title="{MARK}"}}}}',
           f'[x](javascript:document.title="{MARK}")')


@pytest.fixture(scope='session')
def browser() -> Iterator[object]:
    """A headless Chromium; none of playwright's own is downloaded."""
    from playwright.sync_api import sync_playwright
    found = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if found is None:
        pytest.fail(f'no browser on the PATH ({", ".join(BROWSERS)}): install Chromium, as in apt-get install chromium')
    with sync_playwright() as playwright:
        # Without a sandbox, which wants rights that a container's root does not have; it sees our own pages only.
        chromium = playwright.chromium.launch(executable_path=found, args=[
            '--no-sandbox', '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream'])
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser, studio) -> Iterator[Callable]:
    """Opens the studio as a visitor with a language and a window of a size; a page that asked another machine for
    something, or in which a script failed, fails the test."""
    contexts, asked, failed = [], [], []

    def opened(language: str = 'en', size: tuple[int, int] = (1280, 900), locale: str | None = None,
               address: str = '', permissions: tuple[str, ...] = ()):
        context = browser.new_context(locale=locale or LANGUAGES[language], accept_downloads=True,
                                      permissions=permissions, viewport={'width': size[0], 'height': size[1]})
        contexts.append(context)
        page = context.new_page()
        page.on('request', lambda request: asked.append(request.url))
        page.on('pageerror', lambda error: failed.append(str(error)))
        page.goto(studio + address)
        page.locator('#run').wait_for()
        return page

    yield opened
    for context in contexts:
        context.close()
    elsewhere = [url for url in asked if not url.startswith((studio, 'data:', 'blob:'))]
    assert elsewhere == []
    assert failed == []


@pytest.fixture(scope='session')
def studio(hostile_model, tmp_path_factory) -> Iterator[str]:
    """The address of a studio with the embedded model and one whose classes have hostile names."""
    arguments = ['studio', '--port', '0', '--no-browser', '--device', 'cpu', '--model', 'embedded', '--model',
                 str(hostile_model), '--max-pixels', '4000000', '--max-upload', '2', '--max-video', '2',
                 '--max-seconds', '5']
    yield from running(arguments, tmp_path_factory.mktemp('studio'))


def running(arguments: list[str], folder: Path) -> Iterator[str]:
    """The address of a studio that runs as long as somebody wants it."""
    # A proxy of the machine's would stand between the server and its own check that it is there.
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'no_proxy': '127.0.0.1', 'OMP_NUM_THREADS': '1'}
    log = folder / 'log.txt'
    with log.open('w') as errors, subprocess.Popen(
            [sys.executable, '-m', 'modelscope_fastinst', *arguments], cwd=folder, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=errors) as process:
        limit = threading.Timer(START_SECONDS, process.kill)
        limit.start()
        address = next((found.group() for line in process.stdout
                        if (found := re.search(r'http://127\.0\.0\.1:\d+/', line))), None)
        limit.cancel()
        try:
            assert address, f'the studio did not start:\n{log.read_text("utf-8")}'
            yield address
        finally:
            process.terminate()


@pytest.fixture(scope='session')
def hostile_model(tmp_path_factory) -> Path:
    """A model with random weights whose classes are called what nobody should execute, and one in Chinese."""
    from tests.golden_cases import load
    from tests.plugin.model_folders import SINGLE_IMAGE_CASE, stock_configuration, write_stock_folder
    case = load(SINGLE_IMAGE_CASE)
    number = case.model_config['decoder']['num_classes']
    names = [*HOSTILE, '细胞', *(f'class {index}' for index in range(number))][:number]
    configuration = stock_configuration(case, classes=names)
    configuration['preprocessor'] = {'type': 'fastinst-preprocessor', 'min_size': 128, 'max_size': 160}
    configuration['postprocessor'] = {'type': 'fastinst-postprocessor', 'score_thr': 0.05}
    return write_stock_folder(tmp_path_factory.mktemp('models') / 'hostile', configuration=configuration)


@pytest.fixture(scope='session')
def cells(tmp_path_factory) -> Path:
    """A drawn picture of nuclei, as a file."""
    from PIL import Image

    from modelscope_fastinst.data.microscope import draw_nuclei
    path = tmp_path_factory.mktemp('pictures') / 'cells.png'
    Image.fromarray(draw_nuclei(480, 640, 30, seed=5).image).save(path)
    return path


@pytest.fixture
def saved(tmp_path) -> Callable:
    """Clicks a download of a page and returns the file."""
    def save(page, name: str) -> Path:
        with page.expect_download() as download:
            page.locator(f'#download_{name}').click()
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        return path
    return save


@pytest.fixture(scope='session')
def film(tmp_path_factory) -> Path:
    """Two seconds of nuclei that pass by, as a file that browsers play."""
    import av
    import numpy as np

    from modelscope_fastinst.data.microscope import draw_nuclei
    image = draw_nuclei(120, 240, 10, seed=2).image
    path = tmp_path_factory.mktemp('films') / 'film.mp4'
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('mpeg4', rate=5)
        stream.width, stream.height, stream.pix_fmt = 160, 120, 'yuv420p'
        for shift in range(10):
            part = np.ascontiguousarray(image[:, 4 * shift:4 * shift + 160])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(part, format='rgb24')))
        container.mux(stream.encode())
    return path
