"""Uploads are judged by their content, and refused before they cost anything."""
from __future__ import annotations

import os

import numpy as np
import pytest

from modelscope_fastinst.studio.limits import Limits
from modelscope_fastinst.studio.messages import Refused
from modelscope_fastinst.studio.uploads import check_video, read_picture
from tests.studio.hostile import encoded, png, video

LIMITS = Limits(upload_bytes=200_000, pixels=100_000, side=2000, video_bytes=100_000, video_seconds=2, video_frames=20,
                video_pixels=50_000)
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><script>alert(1)</script></svg>'
EPS = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(/etc/passwd) (r) file\n'


def code(function, *arguments) -> str:
    with pytest.raises(Refused) as refused:
        function(*arguments)
    return refused.value.code


@pytest.mark.parametrize('content, expected', [
    pytest.param(b'', 'file_empty', id='empty'),
    pytest.param(b'hello' * 99, 'not_a_picture', id='text'),
    pytest.param(SVG, 'not_a_picture', id='SVG'),
    pytest.param(EPS, 'not_a_picture', id='EPS, for which Pillow would start another program'),
    pytest.param(b'%PDF-1.4\n', 'not_a_picture', id='PDF'),
    pytest.param(b'PK\x03\x04' + bytes(99), 'not_a_picture', id='zip'),
    pytest.param(encoded(IMAGE)[:400], 'picture_damaged', id='PNG, cut off'),
    pytest.param(encoded(IMAGE, 'JPEG')[:600], 'picture_damaged', id='JPEG, cut off'),
    pytest.param(encoded(IMAGE)[:20], 'picture_damaged', id='cut off in its header'),
    pytest.param(encoded(IMAGE, 'GIF')[:1200], 'picture_damaged', id='GIF, cut off'),
    pytest.param(png(400, 400, bytes(400 * 401)), 'too_many_pixels', id='too many pixels'),
    pytest.param(png(60_000, 60_000, b'', bits=1), 'too_many_pixels', id='huge dimensions in a tiny file'),
    pytest.param(png(2 ** 31 - 1, 2 ** 31 - 1, b''), 'too_many_pixels', id='the hugest dimensions'),
    pytest.param(png(10_000, 10_000, bytes(10_001 * 10_000)), 'too_many_pixels', id='bomb'),
    pytest.param(png(3000, 2, bytes(3001 * 2)), 'side_too_long', id='long and thin'),
    pytest.param(bytes(200_001), 'file_too_large', id='too many bytes'),
])
def test_what_is_no_picture_that_can_be_taken_is_refused(tmp_path, content, expected):
    file = tmp_path / 'innocent.png'
    file.write_bytes(content)
    assert code(read_picture, file, LIMITS) == expected
    assert code(read_picture, content, LIMITS) == expected


def test_the_size_is_in_the_message():
    for width, height in ((400, 300), (60_000, 50_000)):   # by our limit, and by Pillow's
        with pytest.raises(Refused) as refused:
            read_picture(png(width, height, b''), LIMITS)
        assert refused.value.values == {'width': width, 'height': height, 'limit': 100_000}


def test_a_jpeg_of_very_many_scans_is_refused():
    """Decoding takes as long as there are scans, whatever the file's size."""
    content = encoded(IMAGE, 'JPEG', progressive=True)
    assert read_picture(content, LIMITS).shape == IMAGE.shape
    start = content.rindex(b'\xff\xda')
    assert code(read_picture, content[:-2] + content[start:-2] * 200 + b'\xff\xd9', LIMITS) == 'picture_damaged'


@pytest.mark.parametrize('content, tolerance', [
    pytest.param(encoded(IMAGE), 0, id='PNG'),
    pytest.param(encoded(IMAGE, mode='RGBA'), 0, id='RGBA'),
    pytest.param(encoded(IMAGE, 'TIFF', mode='CMYK'), 1, id='CMYK'),
    pytest.param(encoded(IMAGE, 'WEBP', lossless=True), 0, id='WebP'),
    pytest.param(encoded(IMAGE, 'BMP'), 0, id='BMP'),
])
def test_pictures_of_many_kinds_are_read(content, tolerance):
    found = read_picture(content, LIMITS)
    assert found.dtype == np.uint8 and found.shape == IMAGE.shape
    assert np.abs(found.astype(int) - IMAGE).max() <= tolerance


def test_sixteen_bits_are_scaled():
    gray = np.linspace(0, 65535, 2400).astype(np.uint16).reshape(40, 60)
    found = read_picture(encoded(gray), LIMITS)
    assert found.shape == (40, 60, 3) and found[0, 0, 0] == 0 and found[-1, -1, 0] == 255


def test_an_exif_rotation_is_followed():
    from PIL import Image
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read_picture(encoded(IMAGE, 'JPEG', exif=exif), LIMITS).shape == (60, 40, 3)


def test_of_an_animation_the_first_frame_is_taken():
    from PIL import Image
    content = encoded(IMAGE, 'GIF', save_all=True, append_images=[Image.new('RGB', (60, 40), 'red')])
    np.testing.assert_array_equal(read_picture(content, LIMITS), read_picture(encoded(IMAGE, 'GIF'), LIMITS))


@pytest.mark.parametrize('source', [
    pytest.param('../../../etc/passwd\x00.png', id='zero byte'),
    pytest.param('x' * 5000, id='long name'),
    pytest.param(os.curdir, id='folder'),
    pytest.param(7, id='number'),
    pytest.param(np.zeros((4, 4), np.float64), id='array of another kind'),
    pytest.param(np.zeros((4, 4, 7), np.uint8), id='array of another shape'),
])
def test_what_is_no_upload_is_refused(source):
    assert code(read_picture, source, LIMITS) == 'not_a_picture'


@pytest.mark.parametrize('source', ['no such file.png', 'http://localhost/picture.png'])
def test_an_upload_that_is_gone_is_said_to_be(source):
    assert code(read_picture, source, LIMITS) == code(check_video, source, LIMITS) == 'expired'


@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='no pipes with names here')
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / 'picture.png')
    assert code(read_picture, tmp_path / 'picture.png', LIMITS) == 'not_a_picture'
    assert code(check_video, tmp_path / 'picture.png', LIMITS) == 'not_a_video'


@pytest.mark.parametrize('array', [
    pytest.param(IMAGE, id='RGB'),
    pytest.param(np.dstack((IMAGE, IMAGE[:, :, 0])), id='RGBA'),
    pytest.param(IMAGE[:, :, 0], id='gray'),
])
def test_arrays_are_taken_in_rgb_order(array):
    found = read_picture(array, LIMITS)
    assert found.shape == (40, 60, 3) and found.flags.c_contiguous
    np.testing.assert_array_equal(found[..., 0], IMAGE[..., 0])


def test_arrays_have_limits_too():
    assert code(read_picture, np.zeros((400, 400), np.uint8), LIMITS) == 'too_many_pixels'
    assert code(read_picture, np.zeros((0, 4, 3), np.uint8), LIMITS) == 'nothing_uploaded'
    assert code(read_picture, None, LIMITS) == 'nothing_uploaded'


class TestVideos:
    """With PyAV."""

    @pytest.fixture(autouse=True)
    def _av(self):
        pytest.importorskip('av')

    @pytest.mark.parametrize('kind, container', [('mp4', 'mp4'), ('matroska', 'matroska'), ('avi', 'avi')])
    def test_facts(self, tmp_path, kind, container):
        file = tmp_path / 'upload.txt'   # its name does not matter
        file.write_bytes(video(5, kind=kind))
        facts = check_video(file, LIMITS)
        assert (facts.width, facts.height, facts.container, facts.fps) == (128, 96, container, 10)
        assert facts.frames in (5, None) and abs(facts.seconds - 0.5) < 0.11

    @pytest.mark.parametrize('content, expected', [
        pytest.param(b'', 'file_empty', id='empty'),
        pytest.param(b'#EXTM3U\n#EXTINF:1,\n/etc/passwd\n', 'not_a_video', id='playlist'),
        pytest.param(b'ffconcat version 1.0\nfile /etc/passwd\n', 'not_a_video', id='list to concatenate'),
        pytest.param(b'v=0\nm=video 5000 RTP/AVP 96\n', 'not_a_video', id='stream description'),
        pytest.param(SVG, 'not_a_video', id='SVG'),
        pytest.param(encoded(IMAGE), 'not_a_video', id='picture'),
        pytest.param(b'\0\0\0\x18ftypisom' + bytes(400), 'video_damaged', id='a beginning and nothing more'),
        pytest.param(b'\x1aE\xdf\xa3' + bytes(400), 'video_damaged', id='the same of another kind'),
        pytest.param(bytes(100_001), 'file_too_large', id='too many bytes'),
    ])
    def test_what_is_no_video_is_refused(self, tmp_path, content, expected):
        file = tmp_path / 'holiday.mp4'
        file.write_bytes(content)
        assert code(check_video, file, LIMITS) == expected

    def test_a_video_that_is_cut_off_is_refused(self, tmp_path):
        file = tmp_path / 'holiday.mp4'
        content = video(5)
        file.write_bytes(content[:len(content) // 2])
        assert code(check_video, file, LIMITS) == 'video_damaged'

    @pytest.mark.parametrize('frames, size, limits, expected', [
        pytest.param(30, (96, 128), {}, 'video_too_long', id='seconds'),
        pytest.param(30, (96, 128), {'video_seconds': 9}, 'video_too_many_frames', id='frames'),
        pytest.param(3, (256, 256), {}, 'video_frame_too_large', id='pixels'),
    ])
    def test_too_much_video_is_refused(self, tmp_path, frames, size, limits, expected):
        from dataclasses import replace
        file = tmp_path / 'holiday.mp4'
        file.write_bytes(video(frames, size))
        assert code(check_video, file, replace(LIMITS, **limits)) == expected
