"""A video is a long work: its memory is flat, and what ends it half-way leaves a file that plays."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.video.media import ball, length_of, stamps_of, write_video

ROOT = Path(__file__).resolve().parents[2]


def start(*words: object, module: str = 'tests.video.work') -> subprocess.Popen:
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}
    return subprocess.Popen([sys.executable, '-m', module, *map(str, words)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, env=environment)


def peaks_of(process: subprocess.Popen) -> dict[int, int]:
    """By the number of frames that are done: the peak of memory in MiB."""
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return {int(line.split()[0]): int(line.split()[1]) for line in output.splitlines() if line[0].isdigit()}


@pytest.mark.parametrize(('keep', 'flat'), [
    pytest.param(0, True, id='rendering'),
    pytest.param(1, False, id='with frames that are kept, so that this test could fail'),
])
def test_the_memory_of_300_frames_is_that_of_60(tmp_path, keep, flat):
    # A frame has 0.44 MiB: 240 of them have 105, 90 of them 40.
    image = ball(0, (480, 320))
    path = write_video(tmp_path / 'clip.mp4', 300 if flat else 150, size=(480, 320), draw=lambda index, size: image)

    if not Path('/proc/self/status').exists():
        pytest.skip('the peak of memory is read from /proc')
    peaks = peaks_of(start(path, tmp_path / 'out.mp4', 0, keep))

    grown = peaks[max(peaks)] - peaks[60]
    assert (grown < 15) is flat, grown
    if flat:
        assert max(peaks) == 300 == len(stamps_of(tmp_path / 'out.mp4'))
        assert length_of(tmp_path / 'out.mp4') == pytest.approx(12.0, abs=1e-3)


@pytest.mark.parametrize('suffix', ['.mp4', '.mkv', pytest.param('.webm', marks=pytest.mark.slow)])
def test_what_is_left_of_a_killed_process_plays_up_to_there(tmp_path, suffix):
    path, output = write_video(tmp_path / 'clip.mp4', 120), tmp_path / f'out{suffix}'
    process = start(path, output, 0.01, 0)
    for line in process.stdout:
        if line.startswith('60 '):
            break
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    process.communicate()

    stamps = stamps_of(output)
    assert 35 <= len(stamps) < 120   # half a second of it, 13 frames, may have been on its way
    assert stamps == pytest.approx([0.04 * index for index in range(len(stamps))], abs=1e-3)


def test_an_interrupt_finishes_the_file(tmp_path):
    path, output = write_video(tmp_path / 'clip.mp4', 120), tmp_path / 'out.mp4'
    process = start(path, output, 0.01, 0)
    for line in process.stdout:
        if line.startswith('60 '):
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)

    assert 'KeyboardInterrupt' in errors
    stamps = stamps_of(output)
    assert 60 <= len(stamps) < 120
    assert length_of(output) == pytest.approx(0.04 * len(stamps), abs=1e-3)   # nothing that was done is lost


@pytest.mark.parametrize(('number', 'status'), [
    pytest.param(signal.SIGINT, 130, id='Ctrl-C'),
    pytest.param(signal.SIGTERM, 143, id='SIGTERM', marks=pytest.mark.slow),
])
def test_the_command_finishes_the_file_when_it_is_told_to_stop(tmp_path, number, status):
    path, output = write_video(tmp_path / 'clip.mp4', 2000), tmp_path / 'out.mp4'
    process = start('video', path, '--output', output, '--min-size', 32, '--json', '--device', 'cpu',
                    module='modelscope_fastinst')
    lines = output.with_suffix('.jsonl')
    while process.poll() is None and not (lines.exists() and len(lines.read_text().splitlines()) > 10):
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
    process.send_signal(number)
    printed, errors = process.communicate(timeout=60)

    assert process.returncode == status, errors
    stamps = stamps_of(output)
    assert 0 < len(stamps) < 2000 and f'{len(stamps)} frames (stopped early)' in printed
    assert length_of(output) == pytest.approx(0.04 * len(stamps), abs=1e-3)
    assert len(lines.read_text().splitlines()) == len(stamps)
    assert 'the video is finished' in errors and 'Traceback' not in errors
