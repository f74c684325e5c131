"""Images in every form a user may hold them in, and the files that are none."""
from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from modelscope_fastinst.data.image import EXIF_ORIENTATION, ImageError, image_size, read_image

RGB = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3
GRAY = RGB[:, :, 0]


def encoded(image: Image.Image, kind: str = 'PNG', **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def as_rgb(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[:, :, None], 3, axis=2)


def bomb() -> bytes:
    """A PNG of a few bytes that claims 60000 x 60000 pixels."""
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))
    header = struct.pack('>IIBBBBB', 60000, 60000, 8, 2, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', b'') + chunk(b'IEND', b'')


PALETTE = Image.fromarray(GRAY).convert('P')
TRANSPARENT = Image.fromarray(np.dstack([RGB, np.full((4, 6), 90, np.uint8)]))


@pytest.mark.parametrize('source, expected', [
    pytest.param(RGB[:, :, ::-1], RGB, id='BGR array'),
    pytest.param(np.dstack([RGB[:, :, ::-1], GRAY]), RGB, id='BGRA array'),
    pytest.param(GRAY, as_rgb(GRAY), id='gray array'),
    pytest.param(GRAY[:, :, None], as_rgb(GRAY), id='gray array with a channel'),
    pytest.param(np.array([[0, 128, 65535, 25700]], np.uint16), as_rgb(np.array([[0, 0, 255, 100]])), id='16 bit'),
    pytest.param(np.array([[0, 0.5, 1]], np.float32), as_rgb(np.array([[0, 128, 255]])), id='float up to 1'),
    pytest.param(np.array([[0, 0.4, 254.6]]), as_rgb(np.array([[0, 0, 255]])), id='float up to 255'),
    pytest.param(np.array([[0, 1]], np.float16), as_rgb(np.array([[0, 255]])), id='half precision'),
    pytest.param(np.array([[False, True]]), as_rgb(np.array([[0, 255]])), id='bool'),
    pytest.param(np.array([[0, 7, 255]]), as_rgb(np.array([[0, 7, 255]])), id='int64'),
    pytest.param(np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1, 3)), id='one pixel'),
    pytest.param(np.zeros((1, 4000), np.uint8), np.zeros((1, 4000, 3)), id='1 x 4000'),
])
def test_arrays(source, expected):
    image = read_image(source)
    assert image.dtype == np.uint8 and image.flags.c_contiguous
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize('source, expected', [
    pytest.param(Image.fromarray(RGB), RGB, id='RGB'),
    pytest.param(Image.fromarray(GRAY), as_rgb(GRAY), id='gray'),
    pytest.param(PALETTE, np.asarray(PALETTE.convert('RGB')), id='palette'),
    pytest.param(TRANSPARENT, RGB, id='RGBA'),
    pytest.param(Image.fromarray(np.dstack([GRAY, GRAY])), as_rgb(GRAY), id='gray with alpha'),
    pytest.param(Image.fromarray(GRAY > 30), as_rgb((GRAY > 30) * np.uint8(255)), id='1 bit'),
    pytest.param(Image.fromarray(GRAY.astype(np.uint16) * 257), as_rgb(GRAY), id='16 bit'),
    pytest.param(Image.fromarray(GRAY.astype(np.int32) * 257), as_rgb(GRAY), id='16 bit in 32'),
    pytest.param(Image.fromarray(GRAY.astype(np.int32)), as_rgb(GRAY), id='8 bit in 32'),
    pytest.param(Image.fromarray(GRAY.astype(np.float32)), as_rgb(GRAY), id='float'),
    pytest.param(Image.fromarray(RGB).convert('CMYK'), RGB, id='CMYK'),
])
def test_pil_images(source, expected):
    np.testing.assert_array_equal(read_image(source), expected)


@pytest.mark.parametrize('mode', ['YCbCr', 'HSV', 'LAB', 'La', 'PA', 'RGBa', 'RGBX'])
def test_other_pil_modes(mode):
    gray = Image.new('L', (6, 4), 120)
    source = gray.convert({'La': 'LA', 'PA': 'LA', 'RGBa': 'RGBA'}.get(mode, 'RGB'))
    if mode == 'LAB':
        source = Image.new('LAB', (6, 4), (127, 128, 128))
    elif source.mode != mode:
        source = source.convert(mode)
    image = read_image(source)
    assert image.shape == (4, 6, 3)
    assert np.abs(image.astype(int) - 120).max() <= 4


@pytest.mark.parametrize('kind, image, options', [
    pytest.param('PNG', Image.fromarray(RGB), {}, id='png'),
    pytest.param('PNG', Image.fromarray(RGB).quantize(100), {'transparency': 3}, id='palette with transparency'),
    pytest.param('JPEG', Image.fromarray(RGB), {}, id='jpeg'),
    pytest.param('JPEG', Image.fromarray(RGB).convert('CMYK'), {}, id='CMYK jpeg'),
    pytest.param('GIF', Image.fromarray(RGB), {'save_all': True, 'append_images': [Image.new('RGB', (6, 4))]},
                 id='animation'),
    pytest.param('TIFF', Image.fromarray(RGB), {'save_all': True, 'append_images': [Image.new('RGB', (6, 4))]},
                 id='stack'),
    pytest.param('BMP', Image.fromarray(RGB), {}, id='bmp'),
    pytest.param('WEBP', Image.fromarray(RGB), {'lossless': True}, id='webp'),
])
def test_files(tmp_path, kind, image, options, recwarn):
    content = encoded(image, kind, **options)
    path = tmp_path / 'ein Bild, 图片.img'
    path.write_bytes(content)
    expected = np.asarray(Image.open(io.BytesIO(content)).convert('RGBA').convert('RGB')
                          if image.mode == 'P' else Image.open(io.BytesIO(content)).convert('RGB'))
    recwarn.clear()
    for source in (path, str(path), content, memoryview(content)):
        np.testing.assert_array_equal(read_image(source), expected)
    assert not len(recwarn)


def test_16_bit_png_is_scaled_not_clipped(tmp_path):
    path = tmp_path / 'deep.png'
    Image.fromarray(GRAY.astype(np.uint16) * 257).save(path)
    np.testing.assert_array_equal(read_image(path), as_rgb(GRAY))


@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_orientation(orientation, tmp_path):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    content = encoded(Image.fromarray(RGB), 'PNG', exif=exif)
    (tmp_path / 'a.png').write_bytes(content)
    stored = Image.open(io.BytesIO(content))
    upright = np.asarray(ImageOps.exif_transpose(stored))
    np.testing.assert_array_equal(read_image(content), upright)
    np.testing.assert_array_equal(read_image(Image.open(io.BytesIO(content))), upright)
    np.testing.assert_array_equal(read_image(content, orient=False), RGB)
    assert image_size(tmp_path / 'a.png') == ((4, 6), upright.shape[:2])


def test_unknown_orientation_is_upright():
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 77
    np.testing.assert_array_equal(read_image(encoded(Image.fromarray(RGB), exif=exif)), RGB)


def test_damaged_exif_leaves_the_picture_readable():
    content = encoded(Image.fromarray(RGB), 'JPEG', exif=b'Exif\0\0II*\0\xff\xff\xff\x7f garbage')
    np.testing.assert_array_equal(read_image(content), np.asarray(Image.open(io.BytesIO(content))))


def test_the_users_pil_image_is_left_as_it_was():
    image = Image.fromarray(RGB).convert('P')
    read_image(image)
    assert image.mode == 'P' and image.size == (6, 4)


PNG = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)))
JPEG = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)), 'JPEG')


@pytest.mark.parametrize('content, message', [
    pytest.param(b'', 'is empty', id='zero bytes'),
    pytest.param(b'no image, just text\n' * 10, 'is not an image of a known format', id='text named jpg'),
    pytest.param(PNG[:len(PNG) // 2], 'is damaged', id='png cut off'),
    pytest.param(JPEG[:len(JPEG) // 2], 'is damaged', id='jpeg cut off'),
    pytest.param(PNG[:20], 'is not an image|is damaged', id='png header alone'),
    pytest.param(PNG[:200] + b'\0' * 400 + PNG[600:], 'is damaged', id='png with a hole'),
    pytest.param(bomb(), 'has too many pixels', id='decompression bomb'),
    pytest.param(b'\xff\xd8\xff\xe0' + b'\0' * 50, 'is not an image|is damaged', id='jpeg without a picture'),
    pytest.param(b'GIF89a' + b'\xff' * 30, 'is not an image|is damaged', id='gif without a picture'),
])
def test_broken_files_are_named(tmp_path, content, message):
    path = tmp_path / 'broken.jpg'
    path.write_bytes(content)
    with pytest.raises(ImageError, match=f'broken.jpg: .*({message})'):
        read_image(path)
    with pytest.raises(ImageError, match=f'from the web: .*({message})'):
        read_image(content, name='from the web')


@pytest.mark.parametrize('content, message', [
    pytest.param(b'', 'is empty', id='zero bytes'),
    pytest.param(b'text', 'is not an image', id='text'),
    pytest.param(bomb(), 'has too many pixels', id='decompression bomb'),
])
def test_sizes_of_broken_files(tmp_path, content, message):
    (tmp_path / 'broken.jpg').write_bytes(content)
    with pytest.raises(ImageError, match=f'broken.jpg: {message}'):
        image_size(tmp_path / 'broken.jpg')


@pytest.mark.parametrize('name, message', [
    pytest.param('missing.png', r'missing.png: cannot be opened \(No such file', id='missing'),
    pytest.param('.', r'cannot be opened \(Is a directory', id='folder'),
    pytest.param('a\0b.png', 'cannot be opened', id='null in the name'),
])
def test_paths_that_are_no_files(tmp_path, name, message):
    with pytest.raises(ImageError, match=message):
        read_image(f'{tmp_path}/{name}')


@pytest.mark.parametrize('source, message', [
    pytest.param(np.zeros((4, 6, 2), np.uint8), r'must be H x W.*got shape \(4, 6, 2\)', id='two channels'),
    pytest.param(np.zeros((3, 4, 6), np.uint8), r'got shape \(3, 4, 6\)', id='channels first'),
    pytest.param(np.zeros(5, np.uint8), r'got shape \(5,\)', id='one dimension'),
    pytest.param(np.zeros((1, 4, 6, 3), np.uint8), r'got shape', id='batch'),
    pytest.param(np.zeros((0, 6, 3), np.uint8), 'has no pixels', id='no rows'),
    pytest.param(np.full((2, 2), np.nan), 'must lie in 0..255', id='NaN'),
    pytest.param(np.full((2, 2), np.inf), 'must lie in 0..255', id='infinite'),
    pytest.param(np.full((2, 2), -1), r'got -1..-1', id='negative'),
    pytest.param(np.full((2, 2), 300), r'got 300..300', id='too large'),
    pytest.param(np.full((2, 2), 'a'), 'cannot use an array of type', id='strings'),
    pytest.param(np.full((2, 2), 1j), 'cannot use an array of type', id='complex'),
    pytest.param(None, 'got NoneType', id='nothing'),
    pytest.param(3, 'got int', id='number'),
    pytest.param('https://example.com/a.png', 'is a URL', id='URL'),
    pytest.param(Image.new('RGB', (0, 0)), 'has no pixels', id='empty PIL image'),
])
def test_what_is_no_image(source, message):
    with pytest.raises(ImageError, match=message):
        read_image(source)
