"""What can be read, how it stands, when its frames are, and what is said of the rest."""
from __future__ import annotations

import shutil
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from modelscope_fastinst import video
from tests.video.media import ball, images_of, turned, with_damage, write_video


def corners(index: int, size: tuple[int, int]) -> np.ndarray:
    """A frame whose quarters tell which way is up: red, green over blue, white."""
    width, height = size
    image = np.zeros((height, width, 3), np.uint8)
    image[:height // 2, :width // 2, 0] = 255
    image[:height // 2, width // 2:, 1] = 255
    image[height // 2:, :width // 2, 2] = 255
    image[height // 2:, width // 2:] = 255
    return image


def names(image: np.ndarray) -> str:
    """The colours of the quarters, as 'RG/BW'."""
    height, width = image.shape[:2]
    letters = {(True, False, False): 'R', (False, True, False): 'G', (False, False, True): 'B', (True,) * 3: 'W'}
    rows = [[letters[tuple((image[y, x] > 128).tolist())] for x in (width // 4, 3 * width // 4)]
            for y in (height // 4, 3 * height // 4)]
    return '/'.join(map(''.join, rows))


def test_a_file_gives_its_frames_upright_in_rgb_with_their_times(tmp_path):
    path = write_video(tmp_path / 'plain.mp4', 3, draw=corners)

    frames = list(video.read(path))

    assert [frame.index for frame in frames] == [0, 1, 2]
    assert [frame.time for frame in frames] == pytest.approx([0, 0.04, 0.08])
    assert names(frames[0].image) == 'RG/BW'


@pytest.mark.parametrize(('matrix', 'expected'), [
    pytest.param((1, 0, 0, 1), 'RG/BW', id='as it is'),
    pytest.param((0, 1, -1, 0), 'BR/WG', id='a quarter turn clockwise'),
    pytest.param((-1, 0, 0, -1), 'WB/GR', id='upside down'),
    pytest.param((0, -1, 1, 0), 'GW/RB', id='a quarter turn counterclockwise'),
    pytest.param((-1, 0, 0, 1), 'GR/WB', id='mirrored'),
])
def test_a_display_matrix_is_applied(tmp_path, matrix, expected):
    path = turned(write_video(tmp_path / 'clip.mp4', 2, draw=corners), matrix)

    facts = video.probe(path)
    frame = next(video.read(path))

    assert names(frame.image) == expected
    assert (facts.height, facts.width) == frame.image.shape[:2] == ((64, 48) if matrix[0] == 0 else (48, 64))


def test_times_of_a_variable_frame_rate_are_kept(tmp_path):
    stamps = [0, 10, 50, 51, 300, 1000]
    path = write_video(tmp_path / 'vfr.mp4', stamps=stamps)

    assert [frame.time for frame in video.read(path)] == pytest.approx([stamp / 1000 for stamp in stamps], abs=1e-6)


def test_times_count_from_the_first_frame(tmp_path):
    path = write_video(tmp_path / 'late.mkv', stamps=[700, 740, 790])

    assert [frame.time for frame in video.read(path)] == pytest.approx([0, 0.04, 0.09])


@pytest.mark.parametrize(('codec', 'pix_fmt', 'size'), [
    pytest.param('ffv1', 'yuv420p10le', (64, 48), id='10 bits'),
    pytest.param('ffv1', 'yuva420p', (64, 48), id='with alpha'),
    pytest.param('ffv1', 'gray', (64, 48), id='grey'),
    pytest.param('ffv1', 'yuv444p', (63, 47), id='odd size'),
    pytest.param('ffv1', 'yuv444p', (1, 1), id='one pixel'),
    pytest.param('mjpeg', 'yuvj422p', (64, 48), id='full range'),
])
def test_pixels_of_any_kind_become_8_bit_rgb(tmp_path, codec, pix_fmt, size):
    path = write_video(tmp_path / 'clip.mkv', 2, codec=codec, pix_fmt=pix_fmt, size=size,
                       draw=lambda index, size: np.full((size[1], size[0], 3), 200, np.uint8))

    frames = list(video.read(path))

    assert [frame.image.shape for frame in frames] == [(size[1], size[0], 3)] * 2
    assert frames[0].image.dtype == np.uint8
    assert abs(int(frames[0].image[0, 0, 0]) - 200) <= 3


def test_one_frame_is_a_video(tmp_path):
    assert len(list(video.read(write_video(tmp_path / 'one.mp4', 1)))) == 1


def test_every_nth_frame_is_what_is_read_without_the_others(tmp_path):
    path = write_video(tmp_path / 'clip.mp4', 10)
    everything = list(video.read(path))

    some = list(video.read(path, every=4))

    assert [frame.index for frame in some] == [0, 4, 8]
    assert all(np.array_equal(frame.image, everything[frame.index].image) for frame in some)


@pytest.mark.parametrize(('limit', 'expected'), [
    pytest.param({'max_frames': 4}, 4, id='frames'),
    pytest.param({'max_seconds': 0.2}, 5, id='seconds'),
])
def test_reading_ends_at_a_limit(tmp_path, limit, expected):
    assert len(list(video.read(write_video(tmp_path / 'clip.mp4', 10), **limit))) == expected


def test_frames_in_the_file_that_cannot_be_decoded_are_told_and_passed_over(tmp_path):
    path = with_damage(write_video(tmp_path / 'clip.mkv', 12, codec='mjpeg', pix_fmt='yuvj420p'), 3, 7)
    broken = []

    frames = list(video.read(path, broken=broken))

    assert [frame.index for frame in frames] == [0, 1, 2, 4, 5, 6, 8, 9, 10, 11]
    assert [frame.time for frame in frames] == pytest.approx([0.04 * frame.index for frame in frames], abs=1e-6)
    assert [(item.index, round(item.time, 3)) for item in broken] == [(3, 0.12), (7, 0.28)]
    assert all('decoded' in item.reason for item in broken)


def test_broken_frames_are_logged(tmp_path, caplog):
    path = with_damage(write_video(tmp_path / 'clip.mkv', 5, codec='mjpeg', pix_fmt='yuvj420p'), 2)

    list(video.read(path))

    assert 'frame 2 at 0.080 s is passed over' in caplog.text


def test_a_broken_first_frame_does_not_shift_the_others(tmp_path):
    path = with_damage(write_video(tmp_path / 'clip.mkv', 5, codec='mjpeg', pix_fmt='yuvj420p'), 0)
    broken = []

    frames = list(video.read(path, broken=broken))

    assert [(frame.index, round(frame.time, 3)) for frame in frames] == [(1, 0.04), (2, 0.08), (3, 0.12), (4, 0.16)]
    assert [item.index for item in broken] == [0]


def test_a_file_that_was_cut_off_gives_what_is_there_and_says_that_more_was_announced(tmp_path):
    whole = write_video(tmp_path / 'clip.avi', 40, time_base=Fraction(1, 25), step=1, codec='mjpeg',
                        pix_fmt='yuvj420p')
    cut = tmp_path / 'cut.avi'
    cut.write_bytes(whole.read_bytes()[:whole.stat().st_size // 2])
    broken = []

    frames = list(video.read(cut, broken=broken))

    assert 10 < len(frames) < 30
    assert '40 frames were announced' in broken[-1].reason


def test_a_folder_gives_its_pictures_in_the_order_of_their_numbers(tmp_path):
    for number in (10, 9, 1, 2, 100):
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(tmp_path / f'frame{number}.png')
    (tmp_path / 'notes.txt').write_text('no picture')

    frames = list(video.read(tmp_path, fps=10))

    assert [int(frame.image[0, 0, 0]) for frame in frames] == [1, 2, 9, 10, 100]
    assert [frame.time for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_a_picture_of_a_folder_that_cannot_be_read_is_passed_over(tmp_path):
    for number in range(3):
        Image.fromarray(ball(number)).save(tmp_path / f'{number}.png')
    (tmp_path / '1.png').write_bytes(b'not a picture')
    broken = []

    assert [frame.index for frame in video.read(tmp_path, broken=broken)] == [0, 2]
    assert broken[0].index == 1 and '1.png' in broken[0].reason


def test_facts_are_those_of_the_file(tmp_path):
    facts = video.probe(write_video(tmp_path / 'clip.mp4', 25, sound=True))

    assert (facts.kind, facts.width, facts.height, facts.frames, facts.codec, facts.audio) \
        == ('file', 64, 48, 25, 'mpeg4', True)
    assert (facts.fps, facts.seconds) == (pytest.approx(25), pytest.approx(1))


def playlist(path):
    """A file that names another, as FFmpeg's HLS reader would follow it."""
    write_video(path.with_name('secret.ts'), 5, time_base=Fraction(1, 25), step=1, codec='mpeg2video')
    path.write_text('#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n')


def only_sound(path):
    import av
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('aac', rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format='fltp', layout='mono')
        frame.sample_rate = 44100
        container.mux([*stream.encode(frame), *stream.encode(None)])


def without_index(path):
    whole = write_video(path.with_name('whole.mp4'), 20)
    path.write_bytes(whole.read_bytes()[:whole.stat().st_size // 2])


@pytest.mark.parametrize(('make', 'told'), [
    pytest.param(lambda path: None, 'no such file', id='missing'),
    pytest.param(lambda path: path.write_bytes(b''), 'is empty', id='empty'),
    pytest.param(lambda path: path.write_text('just text\n' * 100), 'is no video', id='text'),
    pytest.param(lambda path: Image.fromarray(ball(0)).save(path, format='PNG'), 'is no video', id='a picture'),
    pytest.param(playlist, 'is no video', id='a playlist of other files'),
    pytest.param(only_sound, 'holds no video', id='only sound'),
    pytest.param(without_index, 'is no video, or damaged', id='cut off before its index'),
    pytest.param(lambda path: path.mkdir(), 'no pictures in this folder', id='a folder without pictures'),
])
def test_what_is_no_video_is_refused_at_once_by_its_name(tmp_path, make, told):
    path = tmp_path / 'clip.mp4'
    make(path)

    with pytest.raises(video.VideoError, match=told) as raised:
        video.read(path)

    assert str(path) in str(raised.value)


def test_a_file_without_a_frame_that_can_be_decoded_is_refused(tmp_path):
    path = with_damage(write_video(tmp_path / 'clip.mkv', 3, codec='mjpeg', pix_fmt='yuvj420p'), 0, 1, 2)

    with pytest.raises(video.VideoError, match='none of its frames can be read'):
        video.read(path)


def test_a_name_that_looks_like_a_protocol_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.move(write_video(tmp_path / 'clip.mp4', 2), tmp_path / 'concat:clip.mp4')

    assert len(list(video.read('concat:clip.mp4'))) == 2


def test_frames_beyond_a_limit_of_pixels_are_refused(tmp_path):
    path = write_video(tmp_path / 'clip.mp4', 2)

    with pytest.raises(video.VideoError, match='64 x 48 pixels; at most 3000'):
        video.probe(path, max_pixels=3000)


def test_a_camera_that_is_not_there_is_refused():
    with pytest.raises(video.VideoError, match='camera 97: cannot be opened'):
        video.read(97)


@pytest.mark.parametrize('option', [
    pytest.param({'every': 0}, id='every 0'), pytest.param({'every': 1.5}, id='every one and a half'),
    pytest.param({'fps': -1}, id='negative rate'), pytest.param({'max_frames': True}, id='true is no number'),
])
def test_options_out_of_range_are_refused_at_once(tmp_path, option):
    with pytest.raises(ValueError, match=next(iter(option))):
        video.read(write_video(tmp_path / 'clip.mp4', 2), **option)


def test_a_camera_gives_frames_with_times_of_the_clock(tmp_path):
    # OpenCV opens a file where a camera's name is expected.
    from modelscope_fastinst.video.folders import Camera
    path = write_video(tmp_path / 'clip.avi', 5, codec='mjpeg', pix_fmt='yuvj420p')
    camera = Camera(str(path))

    items = list(camera.items())
    camera.close()

    assert [item.index for item in items] == [0, 1, 2, 3, 4, 5]
    assert np.allclose(items[0].image(), images_of(path)[0], atol=12)
    times = [item.time for item in items[:5]]
    assert times[0] == 0 and times == sorted(set(times))
    assert 'no more frames' in items[5].reason


def test_a_second_recording_in_a_file_goes_on_where_the_first_ends():
    from types import SimpleNamespace

    from modelscope_fastinst.video.files import _Clock
    clock = _Clock(SimpleNamespace(time_base=Fraction(1, 1000), start_time=5000), 25.0)

    assert [clock.time(stamp) for stamp in (5000, 8000, 8040, 100, 140, None)] \
        == pytest.approx([0, 3, 3.04, 3.08, 3.12, 3.16])


def concatenated(folder, *sizes):
    """A stream of JPEG pictures whose size changes on its way, one frame of each."""
    import io
    parts = []
    for size in sizes:
        content = io.BytesIO()
        Image.fromarray(ball(0, size)).save(content, format='JPEG')
        parts.append(content.getvalue())
    path = folder / 'changing.mjpeg'
    path.write_bytes(b''.join(parts))
    return path


def test_frames_come_in_their_own_size(tmp_path):
    path = concatenated(tmp_path, (64, 48), (96, 80), (64, 48))

    assert [frame.image.shape[:2] for frame in video.read(path)] == [(48, 64), (80, 96), (48, 64)]


def test_a_frame_that_grows_beyond_the_limit_on_the_way_is_passed_over(tmp_path):
    path = concatenated(tmp_path, (64, 48), (640, 480), (64, 48))
    broken = []

    frames = list(video.read(path, max_pixels=4096, broken=broken))

    assert [frame.index for frame in frames] == [0, 2] and [item.index for item in broken] == [1]


def test_colors_of_large_pictures_that_do_not_say_what_they_are_are_those_of_television(tmp_path):
    import av
    # A saturated green, compressed with the matrix of BT.709 and no tag that says so.
    path = tmp_path / 'hd.mkv'
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('mpeg4', rate=25)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, 'yuv420p'
        frame = av.VideoFrame.from_ndarray(np.full((720, 1280, 3), (30, 200, 40), np.uint8), format='rgb24')
        frame = frame.reformat(format='yuv420p', dst_colorspace=1)
        frame.colorspace = 2
        container.mux([*stream.encode(frame), *stream.encode(None)])

    assert np.abs(next(video.read(path)).image[300, 300].astype(int) - (30, 200, 40)).max() <= 4
