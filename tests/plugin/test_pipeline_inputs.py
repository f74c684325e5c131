"""Images of every form through the whole pipeline, and those that are none."""
from __future__ import annotations

import io

import numpy as np
import pytest
from modelscope.pipelines import pipeline
from PIL import Image

import modelscope_fastinst  # noqa: F401
from modelscope_fastinst.data.image import ImageError
from tests.plugin.loopback_hub import serve
from tests.plugin.model_folders import assert_same, scene, write_stock_folder


@pytest.fixture(scope='module')
def segment(tmp_path_factory):
    folder = write_stock_folder(tmp_path_factory.mktemp('stock'))
    return pipeline('image-segmentation', model=str(folder), device='cpu', min_size=128, max_size=160, score_thr=0.0)


@pytest.fixture(scope='module')
def rgb():
    return Image.fromarray(scene()[:, :, ::-1].copy())


def saved(image, path, **options):
    image.save(path, **options)
    return str(path)


def opened_from_bytes(image, **options):
    file = io.BytesIO()
    image.save(file, 'PNG', **options)
    return file.getvalue()


@pytest.mark.parametrize('form', [
    pytest.param(lambda image, folder: saved(image, folder / 'image.png'), id='path'),
    pytest.param(lambda image, folder: folder / saved(image, folder / 'image.png'), id='pathlib path'),
    pytest.param(lambda image, folder: saved(image, folder / 'ein Bild ü 图.png'), id='unicode and spaces'),
    pytest.param(lambda image, folder: opened_from_bytes(image), id='bytes'),
    pytest.param(lambda image, folder: image, id='PIL'),
    pytest.param(lambda image, folder: image.convert('RGBA'), id='RGBA'),
    pytest.param(lambda image, folder: np.dstack([scene(), np.zeros((128, 160), np.uint8)]), id='BGRA array'),
    pytest.param(lambda image, folder: scene().astype(np.uint16) * 257, id='16-bit array'),
    pytest.param(lambda image, folder: scene().astype(np.float64) / 255, id='float array'),
    pytest.param(lambda image, folder: np.asfortranarray(scene()), id='array in another memory order'),
])
def test_every_form_of_an_image_gives_the_same_instances(segment, rgb, tmp_path, form):
    assert_same(segment(form(rgb, tmp_path)), segment(scene()))


def test_url(segment, rgb, tmp_path):
    saved(rgb, tmp_path / 'image.png')
    with serve(tmp_path) as hub:
        assert_same(segment(f'{hub.address}/files/image.png'), segment(scene()))


def test_gray_forms_agree(segment, rgb, tmp_path):
    gray = np.asarray(rgb.convert('L'))
    expected = segment(np.dstack([gray] * 3))
    sixteen = gray.astype(np.uint16) * 257
    files = [saved(Image.fromarray(array), tmp_path / f'{array.dtype}.png') for array in (gray, sixteen)]
    for form in (gray, gray[:, :, None], Image.fromarray(gray), sixteen, Image.fromarray(sixteen), *files):
        assert_same(segment(form), expected)


@pytest.mark.parametrize('mode', ['P', 'CMYK', '1', 'LA', 'HSV', 'YCbCr'])
def test_other_colour_modes_are_seen_as_PIL_converts_them(segment, rgb, mode):
    image = rgb.convert(mode)
    assert_same(segment(image), segment(image.convert('RGB')))


@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_orientation_for_paths_and_PIL_alike(segment, rgb, tmp_path, orientation):
    from PIL import ImageOps
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(rgb, tmp_path / 'photo.png', exif=exif)
    expected = segment(ImageOps.exif_transpose(Image.open(path)))
    assert expected['masks'][0].shape == ((128, 160) if orientation < 5 else (160, 128))
    assert_same(segment(path), expected)
    assert_same(segment(Image.open(path)), expected)


def broken_png(folder, rgb):
    content = opened_from_bytes(rgb)
    (folder / 'broken.png').write_bytes(content[:len(content) // 2])
    return folder / 'broken.png'


def empty_file(folder, _):
    (folder / 'empty.jpg').write_bytes(b'')
    return folder / 'empty.jpg'


def text_file(folder, _):
    (folder / 'words.jpg').write_text('this is no picture')
    return folder / 'words.jpg'


def bomb(folder, _):
    Image.new('1', (20000, 20000)).save(folder / 'bomb.png')
    return folder / 'bomb.png'


@pytest.mark.parametrize('make, message', [
    pytest.param(broken_png, 'damaged', id='cut in the middle'),
    pytest.param(empty_file, 'empty', id='zero bytes'),
    pytest.param(text_file, 'not an image', id='text named .jpg'),
    pytest.param(bomb, 'too many pixels', id='decompression bomb'),
    pytest.param(lambda folder, _: folder / 'nothing.jpg', 'cannot be opened', id='no such file'),
    pytest.param(lambda folder, _: folder, 'cannot be opened', id='a folder'),
])
def test_malformed_files_are_named(segment, rgb, tmp_path, make, message):
    path = str(make(tmp_path, rgb))
    with pytest.raises(ImageError, match=f'^{path}: .*{message}'):
        segment(path)
    with pytest.raises(ImageError, match=f'^input 2: {path}: .*{message}'):
        segment([scene(), scene(), path], batch_size=2)
    with pytest.raises(ImageError, match=f'^input 1: {path}: .*{message}'):
        segment([scene(), path])


@pytest.mark.parametrize('value, message', [
    pytest.param(np.zeros((4, 5, 2), np.uint8), r'got shape \(4, 5, 2\)', id='two channels'),
    pytest.param(np.zeros((0, 5, 3), np.uint8), 'has no pixels', id='no rows'),
    pytest.param(np.full((4, 5), np.nan), '0..255', id='NaN'),
    pytest.param(np.full((4, 5), -1.0), '0..255', id='negative'),
    pytest.param(np.full((4, 5), 'x'), 'type', id='an array of text'),
    pytest.param(None, 'got NoneType', id='nothing'),
    pytest.param({'image': 'a.png'}, 'got dict', id='a dict'),
    pytest.param(7, 'got int', id='a number'),
])
def test_what_is_no_image_is_a_clear_error(segment, value, message):
    with pytest.raises(ImageError, match=message):
        segment(value)
    with pytest.raises(ImageError, match=f'^input 0: .*{message}'):
        segment([value], batch_size=3)
