"""``modelscope-fastinst video``: its files, its words, and what it refuses before a model is loaded."""
from __future__ import annotations

import json
import os
import sys

import pytest

from modelscope_fastinst.cli import main
from modelscope_fastinst.cli.arguments.video import CODECS
from modelscope_fastinst.cli.video import _Bar
from modelscope_fastinst.data.microscope import draw_nuclei
from modelscope_fastinst.video import Progress, encoders
from tests.video.media import ball, images_of, length_of, stamps_of, with_damage, write_video


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_model(monkeypatch):
    def build(*_, **__):
        raise AssertionError('the model is loaded after everything else was checked')
    monkeypatch.setattr('modelscope_fastinst.plugin.build.build_segmenter', build)


def test_a_video_is_segmented_with_the_embedded_model(here, capsys):
    field = draw_nuclei(120, 200, 12, 3).image
    write_video(here / 'cells.mp4', 4, size=(160, 120), draw=lambda index, size: field[:, index:index + 160])

    assert main(['video', 'cells.mp4', '--json', '--device', 'cpu', '--every', '2', '--batch', '2']) == 0

    output = here / 'fastinst_out' / 'cells.mp4'
    assert stamps_of(output) == pytest.approx([0, 0.04, 0.08, 0.12])
    lines = [json.loads(line) for line in output.with_suffix('.jsonl').read_text().splitlines()]
    assert [line['frame'] for line in lines] == [0, 2]
    labels = {entry['label'] for line in lines for entry in line['instances']}
    tracks = [{entry['track'] for entry in line['instances']} for line in lines]
    assert labels == {'nucleus'} and len(tracks[0] & tracks[1]) >= 3
    assert 'cells.mp4: 4 frames, 0.16 s of video' in capsys.readouterr().out


def test_broken_frames_are_listed_at_the_end_and_the_command_succeeds(here, capsys):
    with_damage(write_video(here / 'clip.mkv', 6, codec='mjpeg', pix_fmt='yuvj420p', draw=ball), 2, 3)

    assert main(['video', 'damaged-clip.mkv', '--output', 'o.mp4', '--device', 'cpu', '--min-size', '32']) == 0

    assert 'damaged-clip.mkv that cannot be read and were passed over: 2 (2, 3)' in capsys.readouterr().err
    assert length_of(here / 'o.mp4') == pytest.approx(0.24, abs=1e-3) and len(images_of(here / 'o.mp4')) == 4


@pytest.mark.parametrize(('words', 'told'), [
    pytest.param(['none.mp4'], 'none.mp4: no such file', id='no such file'),
    pytest.param(['text.mp4'], 'text.mp4: is no video', id='text'),
    pytest.param(['clip.mp4', '--output', 'clip.mp4'], 'clip.mp4: is the input', id='the input'),
    pytest.param(['clip.mp4', '--output', 'out.gif'], 'out.gif: .gif is no kind of video', id='suffix'),
    pytest.param(['clip.mp4', '--output', 'o.webm', '--codec', 'h264'], 'h264 does not go into .webm', id='codec'),
    pytest.param(['clip.mp4', '--font', 'none.ttf'], '--font none.ttf: no such file', id='font'),
    pytest.param(['clip.mp4', '--no-video'], '--no-video: leaves nothing to write', id='nothing to write'),
    pytest.param(['clip.mp4', '--no-video', '--json', '--output', 'o.mp4'], 'with --no-video the name of the JSON',
                 id='a video that is not wanted'),
    pytest.param(['97'], 'camera 97: cannot be opened', id='camera'),
])
def test_refusals_come_before_a_model_is_loaded_and_write_nothing(here, capsys, request, words, told):
    if words != ['97']:   # a camera is opened once, with the model waiting for it
        request.getfixturevalue('no_model')
    write_video(here / 'clip.mp4', 2)
    (here / 'text.mp4').write_text('text')

    assert main(['video', *words]) == 1

    assert told in capsys.readouterr().err
    assert sorted(file.name for file in here.iterdir()) == ['clip.mp4', 'text.mp4']


def test_options_that_the_model_refuses_write_nothing(here, capsys):
    write_video(here / 'clip.mp4', 2)

    assert main(['video', 'clip.mp4', '--classes', 'cat', '--device', 'cpu']) == 1

    assert 'cat' in capsys.readouterr().err and [file.name for file in here.iterdir()] == ['clip.mp4']


def test_a_name_in_the_output_folder_is_not_overwritten(here, capsys):
    (here / 'fastinst_out').mkdir()
    write_video(here / 'fastinst_out' / 'clip.mp4', 2)

    assert main(['video', 'fastinst_out/clip.mp4', '--device', 'cpu', '--min-size', '32']) == 0

    assert sorted(file.name for file in (here / 'fastinst_out').iterdir()) == ['clip-2.mp4', 'clip.mp4']


def test_records_alone(here):
    write_video(here / 'clip.mp4', 2)

    assert main(['video', 'clip.mp4', '--no-video', '--json', '--device', 'cpu', '--min-size', '32']) == 0

    assert [file.name for file in (here / 'fastinst_out').iterdir()] == ['clip.jsonl']


@pytest.mark.parametrize('columns', [pytest.param(100, id='as wide as it is'),
                                     pytest.param(0, id='of a container, which says that it has no columns')])
def test_a_terminal_sees_frames_per_second_and_the_time_that_is_left(monkeypatch, columns):
    pty, fcntl = pytest.importorskip('pty'), pytest.importorskip('fcntl')
    import struct
    import termios
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack('HHHH', 24, columns, 0, 0))
    with os.fdopen(slave, 'w') as terminal:
        monkeypatch.setattr(sys, 'stderr', terminal)
        with _Bar() as bar:
            bar.show(Progress(3, 10, 1.0, 3.0, 2.3))
        seen = os.read(master, 4096).decode()
    os.close(master)
    assert '3/10' in seen and 'frames/s' in seen and '<' in seen


def test_the_codecs_of_the_command_line_are_those_that_can_be_written():
    assert set(CODECS) == set(encoders.CODECS)
