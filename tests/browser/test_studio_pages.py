"""What a visitor does with the studio, in English and in Chinese, through a real browser."""
from __future__ import annotations

import io
import json
import re
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.browser.conftest import HOSTILE, MARK

pytestmark = pytest.mark.slow
SECONDS = 60_000   # milliseconds; a busy machine takes its time
BOLD = 'cell => getComputedStyle(document.querySelector(cell)).fontWeight >= 600'


def upload(page, path: Path) -> None:
    """Chooses a file in the tab for pictures; one that is there already is taken away first."""
    remove = page.locator('#picture button[aria-label="Remove Image"]')
    if remove.count():
        remove.click()
    page.locator('#picture input[type=file]').set_input_files(path)


def wait_for_facts(page, pattern: str) -> str:
    facts = page.locator('#facts').filter(has_text=re.compile(pattern))
    facts.wait_for(timeout=SECONDS)
    return facts.inner_text()


def rows(page) -> int:
    """The number of rows of the table, those that are not scrolled into view included."""
    return int(page.locator('#instances [role=grid]').get_attribute('aria-rowcount')) - 1


def set_score(page, score: str) -> None:
    field = page.locator('#image_score input[type=number]')
    field.fill(score)
    field.press('Enter')


def click_pixel(page, x: float, y: float) -> None:
    """Clicks a pixel of the result, which the page shows at some scale, centred."""
    image = page.locator('#result_picture img')
    image.scroll_into_view_if_needed()
    box = image.bounding_box()
    width, height = image.evaluate('image => [image.naturalWidth, image.naturalHeight]')
    scale = min(box['width'] / width, box['height'] / height)
    left, top = (box['width'] - width * scale) / 2, (box['height'] - height * scale) / 2
    image.click(position={'x': left + (x + 0.5) * scale, 'y': top + (y + 0.5) * scale})


def picture_shown(page) -> np.ndarray:
    """The picture of the result as the page has it."""
    content = page.evaluate('''async () => {
        const answer = await fetch(document.querySelector('#result_picture img').src);
        return [...new Uint8Array(await answer.arrayBuffer())];
    }''')
    return np.asarray(Image.open(io.BytesIO(bytes(content))).convert('RGB')).astype(int)


WORDS = {
    'en': {'found': r'\d+ found', 'chosen': 'No. {}:', 'column': 'Score', 'run': 'Segment', 'score': 'Minimum score',
           'no_picture': 'not a picture', 'bomb': 'at most 4,000,000', 'tab': 'Video', 'nothing': 'Nothing found'},
    'zh': {'found': '找到 \\d+ 个', 'chosen': '第 {} 个', 'column': '置信度', 'run': '开始分割', 'score': '最低置信度',
           'no_picture': '不是图片', 'bomb': '最多允许 4,000,000', 'tab': '视频', 'nothing': '未找到'},
}


@pytest.fixture(scope='session')
def expected(cells):
    """What ``pipeline()`` itself finds in the picture with the options of the page."""
    from modelscope.pipelines import pipeline

    from modelscope_fastinst import default_model
    segment = pipeline('image-segmentation', model=default_model(), device='cpu')
    bgr = np.asarray(Image.open(cells).convert('RGB'))[:, :, ::-1]

    def found(score: float) -> dict:
        return segment(bgr, score_thr=score, min_size=288, max_instances=100, mask_format='rle')

    return found


@pytest.mark.parametrize('language', ['en', 'zh'])
def test_a_picture_from_upload_to_download(visit, saved, cells, expected, language):
    words = WORDS[language]
    page = visit(language)
    assert page.locator('#run').inner_text() == words['run']
    assert words['score'] in page.locator('#image_score').inner_text()
    upload(page, cells)
    wait_for_facts(page, words['found'])
    assert rows(page) == len(expected(0.7)['scores'])
    assert words['column'] in page.locator('#instances').inner_text()
    overlay = picture_shown(page)
    plain = np.asarray(Image.open(cells).convert('RGB')).astype(int)
    assert overlay.shape == plain.shape
    assert 0.01 < (np.abs(overlay - plain).max(axis=2) > 40).mean() < 0.9

    several = len(expected(0.96)['scores'])
    assert 0 < several < rows(page)
    set_score(page, '0.96')
    wait_for_facts(page, f'\\b{several}\\b')
    assert rows(page) == several

    content = json.loads(saved(page, 'json').read_text('utf-8'))
    compare_with_pipeline(content, expected(0.96))
    with zipfile.ZipFile(saved(page, 'masks')) as archive:
        assert len(archive.namelist()) == several
    with Image.open(saved(page, 'overlay')) as picture:
        assert picture.size == (640, 480)

    before = picture_shown(page)
    number = largest(content)
    click_pixel(page, *inside(content['annotations'][number - 1]['segmentation']))
    wait_for_facts(page, words['chosen'].format(number))
    highlighted = picture_shown(page)
    assert (highlighted != before).any()
    page.wait_for_function(BOLD, arg=f'[data-testid=cell-{number - 1}-1]', timeout=SECONDS)   # and so does its row
    page.locator('#show_all').click()
    page.locator('#facts .chosen').wait_for(state='detached')
    np.testing.assert_array_equal(picture_shown(page), before)
    page.locator(f'[data-testid=cell-{number - 1}-1]').click()   # the same one in the table
    wait_for_facts(page, words['chosen'].format(number))
    np.testing.assert_array_equal(picture_shown(page), highlighted)


def compare_with_pipeline(content: dict, result: dict) -> None:
    """A downloaded COCO file and a result, equal but for rounding."""
    from pycocotools import mask as coco_mask
    names = {category['id']: category['name'] for category in content['categories']}
    annotations = content['annotations']
    assert [names[one['category_id']] for one in annotations] == result['labels']
    np.testing.assert_allclose([one['score'] for one in annotations], result['scores'], atol=1e-3)
    assert content['images'][0]['height'], content['images'][0]['width'] == (480, 640)
    for one, mask, (left, top, right, bottom) in zip(annotations, result['masks'], result['boxes'], strict=True):
        assert coco_mask.iou([one['segmentation']], [mask], [0])[0, 0] > 0.99
        np.testing.assert_allclose(one['bbox'], [left, top, right - left, bottom - top], atol=1)


def largest(content: dict) -> int:
    """The number of the largest instance of a COCO file."""
    return max(content['annotations'], key=lambda one: one['area'])['id']


def inside(segmentation: dict) -> tuple[int, int]:
    """(x, y) of a pixel well inside a mask."""
    from pycocotools import mask as coco_mask
    from scipy.ndimage import distance_transform_edt
    depth = distance_transform_edt(coco_mask.decode(segmentation))
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    return int(x), int(y)


def write_bomb(path: Path) -> Path:
    """A PNG file of a few bytes that promises 60000 x 60000 pixels."""
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))
    header = struct.pack('>IIBBBBB', 60_000, 60_000, 8, 2, 0, 0, 0)
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(b'\0' * 10_000))
                     + chunk(b'IEND', b''))
    return path


@pytest.mark.parametrize('language', ['en', 'zh'])
def test_hostile_uploads_get_a_message_and_a_good_one_goes_on(visit, cells, tmp_path, language):
    words = WORDS[language]
    page = visit(language)
    text = tmp_path / '<img src=x onerror=alert(1)>.png'
    text.write_text('this is no picture')
    upload(page, text)
    told = wait_for_facts(page, words['no_picture'])
    upload(page, write_bomb(tmp_path / 'bomb.png'))
    told += wait_for_facts(page, words['bomb'])
    upload(page, cells)
    wait_for_facts(page, words['found'])
    assert rows(page) > 5
    assert 'Traceback' not in told and str(tmp_path) not in told


@pytest.mark.parametrize('language', ['en', 'zh'])
def test_class_names_are_shown_as_text_and_never_run(visit, cells, saved, language):
    page = visit(language)
    page.locator('#model input').click()
    page.get_by_role('option', name='hostile').click()
    page.locator('#model_facts').filter(has_text='<script>').wait_for(timeout=SECONDS)
    assert '细胞' in page.locator('#model_facts').inner_text()
    page.locator('#image_classes input').click()
    choices = page.get_by_role('option').all_inner_texts()
    assert [any(name in choice for choice in choices) for name in HOSTILE] == [True] * len(HOSTILE)
    page.keyboard.press('Escape')
    set_score(page, '0.05')
    upload(page, cells)
    wait_for_facts(page, WORDS[language]['found'])
    label = page.locator('[data-testid=cell-0-1]').inner_text()
    page.locator('[data-testid=cell-0-1]').click()
    assert label in wait_for_facts(page, WORDS[language]['chosen'].format(1))
    assert {one['name'] for one in json.loads(saved(page, 'json').read_text('utf-8'))['categories']} >= set(HOSTILE)
    assert MARK not in page.title()


@pytest.mark.parametrize(('locale', 'address', 'word'), [
    pytest.param('zh-CN', '', '开始分割', id='Chinese as Gradio calls it'),
    pytest.param('zh', '', '开始分割', id='Chinese of no country'),
    pytest.param('zh-Hans-SG', '', '开始分割', id='Chinese with its script'),
    pytest.param('zh-TW', '', '开始分割', id='traditional characters'),
    pytest.param('en-GB', '', 'Segment', id='another English'),
    pytest.param('fr-FR', '', 'Segment', id='neither'),
    pytest.param('en-US', '?lang=zh', '开始分割', id='Chinese asked for'),
    pytest.param('zh-CN', '?lang=en', 'Segment', id='English asked for'),
])
def test_labels_and_answers_are_in_the_language_of_the_browser(visit, locale, address, word):
    page = visit(locale=locale, address=address)
    page.locator('#run').filter(has_text=word).wait_for(timeout=SECONDS)
    page.locator('#model_facts').filter(has_text='细胞核' if word == '开始分割' else 'nuclei').wait_for(timeout=SECONDS)
    assert page.locator('html').get_attribute('lang') == ('zh-CN' if word == '开始分割' else 'en')


def test_a_slider_that_is_moved_while_the_network_works_is_obeyed(visit, cells, expected):
    page = visit()
    upload(page, cells)
    set_score(page, '0.96')
    wait_for_facts(page, f'\\b{len(expected(0.96)["scores"])} found')


def test_pictures_come_from_the_clipboard_and_the_camera(visit):
    page = visit(permissions=('camera', 'clipboard-read', 'clipboard-write'))
    page.evaluate('''async () => {
        const canvas = document.createElement('canvas');
        [canvas.width, canvas.height] = [320, 240];
        const brush = canvas.getContext('2d');
        brush.fillRect(0, 0, 320, 240);
        brush.fillStyle = '#999';
        brush.arc(100, 100, 15, 0, 7);
        brush.fill();
        const content = await new Promise(done => canvas.toBlob(done, 'image/png'));
        await navigator.clipboard.write([new ClipboardItem({'image/png': content})]);
    }''')
    page.locator('#picture button[aria-label="Paste from clipboard"]').click()
    wait_for_facts(page, 'found in 320 × 240|Nothing found')
    page.locator('#picture button[aria-label="Remove Image"]').click()
    page.locator('#facts .facts').wait_for(state='detached')
    page.locator('#picture button[aria-label="Capture from camera"]').click()
    page.locator('#picture [title="grant webcam access"], #picture button:has(.icon-wrap)').first.click()
    # Before its first frame there is nothing to capture.
    page.wait_for_function('document.querySelector("#picture video")?.currentTime > 0.5', timeout=SECONDS)
    page.locator('#picture button[aria-label="capture photo"]').click()
    wait_for_facts(page, 'found|Nothing found')


def test_an_example_is_one_click(visit):
    page = visit()
    page.locator('#examples_tab button, button.gallery-item').first.click()
    wait_for_facts(page, WORDS['en']['found'])


def test_a_narrow_window_needs_no_sideways_scrolling_and_shows_the_result_before_the_settings(visit, cells):
    page = visit(size=(390, 800))
    upload(page, cells)
    wait_for_facts(page, WORDS['en']['found'])
    assert page.evaluate('document.documentElement.scrollWidth') <= 390
    result, score = (page.locator(name).bounding_box()['y'] for name in ('#result_picture', '#image_score'))
    assert result < score
    assert page.locator('#result_picture img').bounding_box()['width'] > 300


def test_the_keyboard_alone_does_it(visit, cells):
    page = visit()
    upload(page, cells)
    first = wait_for_facts(page, WORDS['en']['found'])
    page.locator('#image_score input[type=range]').focus()
    for _ in range(25):
        page.keyboard.press('ArrowRight')
    wait_for_facts(page, '^(?!' + re.escape(first.splitlines()[0]) + ')')
    page.locator('[data-testid=cell-0-0]').focus()
    page.keyboard.press('Enter')
    page.locator('#run').focus()
    page.keyboard.press('Enter')
    wait_for_facts(page, r'network')


def test_two_visitors_have_their_own_results(visit, cells, saved, tmp_path):
    from modelscope_fastinst.data.microscope import draw_nuclei
    other = tmp_path / 'other.png'
    Image.fromarray(draw_nuclei(240, 320, 6, seed=1).image).save(other)
    first, second = visit('en'), visit('zh')
    upload(first, cells)
    upload(second, other)
    wait_for_facts(first, '640 × 480')
    wait_for_facts(second, '320 × 240')
    sizes = [(content['images'][0]['width'], content['images'][0]['file_name'])
             for content in (json.loads(saved(page, 'json').read_text('utf-8')) for page in (first, second))]
    assert sizes == [(640, 'cells.png'), (320, 'other.png')]


@pytest.mark.parametrize('language', ['en', 'zh'])
def test_a_video_from_upload_to_download(visit, film, tmp_path, language):
    import av
    page = visit(language)
    page.get_by_role('tab', name=WORDS[language]['tab']).click()
    page.locator('#video input[type=file]').set_input_files(film)
    page.locator('#video [data-testid$=player], #video video').first.wait_for(timeout=SECONDS)
    page.locator('#video_run').click()
    page.locator('#video_download').wait_for(timeout=SECONDS)
    assert ('10 frames' if language == 'en' else '10 帧') in page.locator('#video_facts').inner_text()
    with page.expect_download() as download:
        page.locator('#video_download').click()
    download.value.save_as(tmp_path / 'film.mp4')
    with av.open(str(tmp_path / 'film.mp4')) as container:
        assert sum(1 for _ in container.decode(video=0)) == 10
