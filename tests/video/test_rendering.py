"""The video that is written: its frames, times, length, sound and size; its records; and what is refused."""
from __future__ import annotations

import json
import threading
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modelscope_fastinst import video
from modelscope_fastinst.video.encoders import CODECS, CONTAINERS, ENCODERS, choose
from tests.video.media import ball, find_bright, images_of, length_of, stamps_of, with_damage, write_video

LOOK = {'tags': False}


def available(codec: str) -> bool:
    import av
    return any(encoder.codec == codec and encoder.name in av.codecs_available for encoder in ENCODERS)


@pytest.fixture
def clip(tmp_path):
    return write_video(tmp_path / 'clip.mp4', 20)


def test_all_frames_are_written_with_their_times_and_the_length_stays(clip, tmp_path):
    done = video.render(clip, tmp_path / 'out.mp4', find_bright, look=LOOK)

    assert stamps_of(tmp_path / 'out.mp4') == pytest.approx([0.04 * index for index in range(20)], abs=1e-6)
    assert length_of(tmp_path / 'out.mp4') == pytest.approx(length_of(clip), abs=1e-3) == pytest.approx(0.8)
    assert (done.frames, done.skipped, done.broken, done.stopped) == (20, 0, [], False)
    assert (done.seconds, done.fps) == (pytest.approx(0.8), pytest.approx(25))
    assert done.output == tmp_path / 'out.mp4'


def test_objects_are_drawn_and_the_rest_stays_as_it_was(clip, tmp_path):
    video.render(clip, tmp_path / 'out.mp4', find_bright, look=LOOK)

    before, after = images_of(clip)[5], images_of(tmp_path / 'out.mp4')[5]
    changed = np.abs(before.astype(int) - after).max(-1)
    inside = find_bright([before[:, :, ::-1]])[0]['boxes'][0]
    left, top, right, bottom = (round(side) for side in inside)
    assert changed[top + 4:bottom - 4, left + 4:right - 4].min() > 12
    assert changed[:, right + 10:].mean() < 4


@pytest.mark.parametrize('suffix', [pytest.param(suffix, id=suffix) for suffix in CONTAINERS])
def test_every_kind_of_file_is_written_by_what_is_there(clip, tmp_path, suffix):
    done = video.render(clip, tmp_path / f'out{suffix}', find_bright, look=LOOK, max_frames=5)

    assert stamps_of(done.output) == pytest.approx([0, 0.04, 0.08, 0.12, 0.16], abs=1e-3)
    assert length_of(done.output) == pytest.approx(0.2, abs=2e-3)


@pytest.mark.parametrize('codec', CODECS)
def test_every_codec_is_written_where_ffmpeg_has_it(clip, tmp_path, codec):
    if not available(codec):
        pytest.skip(f'the FFmpeg of this PyAV has no encoder for {codec}')

    done = video.render(clip, tmp_path / 'out.mkv', find_bright, look=LOOK, codec=codec, max_frames=3)

    assert video.probe(done.output).codec.replace('libdav1d', 'av1') == codec
    assert len(stamps_of(done.output)) == 3


@pytest.mark.parametrize('suffix', ['.mp4', '.mkv'])
def test_times_of_a_variable_frame_rate_are_kept(tmp_path, suffix):
    stamps = [0, 7, 50, 51, 300, 1000, 1010]
    path = write_video(tmp_path / 'vfr.mkv', stamps=stamps)

    video.render(path, tmp_path / f'out{suffix}', find_bright, look=LOOK)

    assert stamps_of(tmp_path / f'out{suffix}') == pytest.approx([stamp / 1000 for stamp in stamps], abs=1e-6)


def test_a_pause_does_not_make_the_last_frame_longer(tmp_path):
    path = write_video(tmp_path / 'vfr.mp4', stamps=[0, 40, 80, 1000, 3000, 3500])
    assert length_of(path) == pytest.approx(3.54, abs=1e-3)

    done = video.render(path, tmp_path / 'out.mp4', find_bright, look=LOOK)

    assert length_of(done.output) == pytest.approx(3.54, abs=1e-3) == pytest.approx(done.seconds, abs=1e-3)


def test_a_full_disk_is_told_with_the_name_of_the_records(clip, tmp_path):
    if not Path('/dev/full').exists():
        pytest.skip('this system has no device that is always full')
    (tmp_path / 'out.jsonl').symlink_to('/dev/full')

    with pytest.raises(video.VideoError, match=r'out\.jsonl: cannot be written \(No space left'):
        video.render(clip, None, find_bright, json=tmp_path / 'out.jsonl')


def test_uneven_frame_rates_of_television_are_kept_exactly(tmp_path):
    path = write_video(tmp_path / 'ntsc.mp4', 30, time_base=Fraction(1, 30000), step=1001)

    video.render(path, tmp_path / 'out.mp4', find_bright, look=LOOK)

    assert stamps_of(tmp_path / 'out.mp4') == pytest.approx([index * 1001 / 30000 for index in range(30)], abs=1e-9)


def test_an_encoder_with_coarse_times_is_as_near_as_it_can(tmp_path):
    # MPEG-4 counts at most 65535 in a second.
    path = write_video(tmp_path / 'fine.mkv', stamps=[0, 33, 67, 100])

    recipe = choose(tmp_path / 'out.mp4', (64, 48), Fraction(30), Fraction(1, 90000), 'mpeg4')

    assert recipe.time_base == Fraction(1, 60000)
    video.render(path, tmp_path / 'out.mp4', find_bright, look=LOOK, codec='mpeg4')
    assert stamps_of(tmp_path / 'out.mp4') == pytest.approx([0, 0.033, 0.067, 0.1], abs=1e-4)


def test_frames_between_keep_the_length_and_the_last_result(clip, tmp_path):
    done = video.render(clip, tmp_path / 'out.mp4', find_bright, look=LOOK, every=5, json=tmp_path / 'out.jsonl')

    assert done.frames == 20 and length_of(done.output) == pytest.approx(0.8, abs=1e-3)
    assert [json.loads(line)['frame'] for line in (tmp_path / 'out.jsonl').read_text().splitlines()] == [0, 5, 10, 15]


def test_a_broken_frame_is_left_out_and_the_length_stays(tmp_path):
    path = with_damage(write_video(tmp_path / 'clip.mkv', 10, codec='mjpeg', pix_fmt='yuvj420p'), 4)

    done = video.render(path, tmp_path / 'out.mp4', find_bright, look=LOOK)

    assert [tuple(item)[:2] for item in done.broken] == [(4, pytest.approx(0.16))]
    assert (done.frames, done.skipped) == (9, 1)
    assert stamps_of(done.output) == pytest.approx([0.04 * index for index in range(10) if index != 4], abs=1e-6)


def test_odd_sizes_are_made_even(tmp_path):
    path = write_video(tmp_path / 'odd.mkv', 3, codec='ffv1', pix_fmt='yuv444p', size=(63, 47))

    done = video.render(path, tmp_path / 'out.mp4', find_bright, look=LOOK)

    assert images_of(done.output)[0].shape == (48, 64, 3)


def test_one_frame_makes_a_video_of_one_frame(tmp_path):
    done = video.render(write_video(tmp_path / 'one.mp4', 1), tmp_path / 'out.mp4', find_bright, look=LOOK)

    assert (done.frames, done.seconds) == (1, pytest.approx(0.04))
    assert len(images_of(done.output)) == 1


def test_frames_of_differing_sizes_are_made_to_fit_the_first(tmp_path):
    folder = tmp_path / 'frames'
    folder.mkdir()
    for number, size in enumerate([(64, 48), (32, 48), (128, 96)]):
        Image.fromarray(np.full((size[1], size[0], 3), 255, np.uint8)).save(folder / f'{number}.png')

    done = video.render(folder, tmp_path / 'out.mp4', find_bright, look=LOOK, every=3, fps=2)

    images = images_of(done.output)
    assert [image.shape for image in images] == [(48, 64, 3)] * 3
    assert images[1][:, :12].max() < 40 and images[1][:, 20:44].min() > 215   # black beside it
    assert images[2].min() > 215
    assert 'another size' in done.notes[0] and done.seconds == pytest.approx(1.5)


def test_a_video_is_enlarged_where_it_is_wished(clip, tmp_path):
    done = video.render(clip, tmp_path / 'out.mp4', find_bright, look={**LOOK, 'scale': 2}, max_frames=2)

    assert images_of(done.output)[0].shape == (96, 128, 3)


def test_pixels_that_are_not_square_stay_so(tmp_path):
    done = video.render(write_video(tmp_path / 'clip.mkv', 2, aspect='4:3'), tmp_path / 'out.mp4', find_bright,
                        look=LOOK)

    assert video.probe(done.output).aspect == video.probe(tmp_path / 'clip.mkv').aspect == Fraction(4, 3)


def test_sound_is_copied_as_far_as_the_picture_goes(tmp_path):
    import av
    path = write_video(tmp_path / 'clip.mp4', 50, sound=True)

    whole = video.render(path, tmp_path / 'whole.mp4', find_bright, look=LOOK)
    half = video.render(path, tmp_path / 'half.mp4', find_bright, look=LOOK, max_seconds=1)

    def sound(file):
        with av.open(str(file)) as container:
            return [bytes(packet) for packet in container.demux(audio=0) if packet.size]
    assert whole.notes == []
    first, *heard = sound(path)   # the first packet lies before the first frame
    assert len(heard) > 80 and sound(whole.output) == heard
    assert 0.45 < len(sound(half.output)) / len(sound(path)) < 0.55


def test_sound_that_does_not_go_into_the_file_is_left_out_and_said(tmp_path):
    path = write_video(tmp_path / 'clip.mp4', 5, sound=True)

    done = video.render(path, tmp_path / 'out.webm', find_bright, look=LOOK)

    assert done.frames == 5 and 'sound was not copied' in done.notes[0] and 'aac' in done.notes[0]
    assert not video.probe(done.output).audio


def test_records_say_what_was_found_and_which_track_it_is(clip, tmp_path):
    video.render(clip, tmp_path / 'out.mp4', find_bright, look=LOOK, json=tmp_path / 'out.jsonl')

    lines = [json.loads(line) for line in (tmp_path / 'out.jsonl').read_text().splitlines()]
    expected = list(video.segment(clip, find_bright))
    assert len(lines) == 20
    for line, frame in zip(lines, expected, strict=True):
        assert line == {'frame': frame.index, 'time': pytest.approx(frame.time), 'height': 48, 'width': 64,
                        'instances': [{'score': 0.9, 'label': 'disc', 'box': frame.result['boxes'][0],
                                       'mask': frame.result['masks'][0], 'track': 1}]}


def test_records_alone_are_written_without_a_video(clip, tmp_path):
    done = video.render(clip, None, find_bright, json=tmp_path / 'out.jsonl', every=10)

    assert len((tmp_path / 'out.jsonl').read_text().splitlines()) == 2 == done.frames
    assert sorted(file.name for file in tmp_path.iterdir()) == ['clip.mp4', 'out.jsonl']


def test_maps_are_drawn_and_recorded_too(clip, tmp_path):
    def map_halves(images, batch_size=1, mask_format='rle', **_):
        results = []
        for image in images:
            labels = np.zeros(image.shape[:2], np.int16)
            labels[24:] = 1
            results.append({'scores': [1.0, 1.0], 'labels': ['sky', 'sea'], 'boxes': [[0, 0, 64, 24], [0, 24, 64, 48]],
                            'masks': [labels == 0, labels == 1], 'label_map': labels})
        return results

    video.render(clip, tmp_path / 'out.mp4', map_halves, look={**LOOK, 'classes': ['sky', 'sea']}, max_frames=2,
                 json=tmp_path / 'out.jsonl')

    image = images_of(tmp_path / 'out.mp4')[0]
    assert np.abs(image[4, 50].astype(int) - image[44, 50]).max() > 20
    line = json.loads((tmp_path / 'out.jsonl').read_text().splitlines()[0])
    assert [entry['label'] for entry in line['classes']] == ['sky', 'sea'] and 'track' not in line['classes'][0]


def test_colors_stay_with_their_objects_when_their_order_changes(tmp_path):
    def two(index, size):
        image = np.full((48, 64, 3), 20, np.uint8)
        image[4:20, 4:24] = 200
        image[28:44, 40:60] = 200
        return image

    def swapping(images, batch_size=1, mask_format='rle', **_):
        results = []
        for image in images:
            masks = np.zeros((2, *image.shape[:2]), np.uint8)
            masks[0, 4:20, 4:24] = masks[1, 28:44, 40:60] = 1
            swapping.count += 1
            order = [0, 1] if swapping.count % 2 else [1, 0]
            results.append({'scores': [0.9, 0.8], 'labels': ['a', 'a'], 'masks': list(masks[order]),
                            'boxes': [[0, 0, 1, 1]] * 2})
        return results

    path = write_video(tmp_path / 'clip.mp4', 6, draw=two)
    swapping.count = 0
    video.render(path, tmp_path / 'tracked.mp4', swapping, look=LOOK)
    swapping.count = 0
    video.render(path, tmp_path / 'loose.mp4', swapping, look=LOOK, track=False)

    def spread(file):
        return np.ptp([image[12, 14] for image in images_of(file)], axis=0).max()
    assert spread(tmp_path / 'tracked.mp4') < 12 < 30 < spread(tmp_path / 'loose.mp4')


def test_progress_is_told_after_every_frame(clip, tmp_path):
    told = []

    video.render(clip, tmp_path / 'out.mp4', find_bright, look=LOOK, progress=told.append, max_frames=8)

    assert [item.done for item in told] == list(range(1, 9))
    assert {item.total for item in told} == {8} and told[-1].left == 0 and told[4].left > 0 < told[4].fps


def test_a_stop_finishes_the_file_at_the_last_frame(clip, tmp_path):
    stop = threading.Event()

    done = video.render(clip, tmp_path / 'out.mp4', find_bright, look=LOOK, stop=stop,
                        progress=lambda progress: progress.done == 7 and stop.set())

    assert done.stopped and done.frames == 7 == len(stamps_of(done.output))
    assert length_of(done.output) == pytest.approx(0.28)


def test_an_error_of_the_network_leaves_what_was_done_playable(clip, tmp_path):
    def failing(images, **options):
        failing.calls += 1
        if failing.calls == 6:
            raise RuntimeError('out of memory')
        return find_bright(images)
    failing.calls = 0

    with pytest.raises(RuntimeError, match='out of memory'):
        video.render(clip, tmp_path / 'out.mp4', failing, look=LOOK)

    assert len(stamps_of(tmp_path / 'out.mp4')) == 5


def never(images, **options):
    raise AssertionError('nothing is segmented before outputs are checked')


@pytest.mark.parametrize(('name', 'options', 'told'), [
    pytest.param('clip.mp4', {}, 'is the input', id='the input'),
    pytest.param('link.mp4', {}, 'is the input', id='the input by another name'),
    pytest.param('out.avi', {}, 'is no kind of video', id='another container'),
    pytest.param('out', {}, 'without suffix', id='no suffix'),
    pytest.param('folder.mp4', {}, 'is a folder', id='a folder'),
    pytest.param('notes.txt/out.mp4', {}, 'is a file, not a folder', id='below a file'),
    pytest.param('out.webm', {'codec': 'h264'}, 'h264 does not go into .webm; use vp9', id='codec and container'),
    pytest.param('out.mp4', {'json': 'out.mp4'}, 'is the output of the video as well', id='one file for both'),
    pytest.param('out.mp4', {'json': 'clip.mp4'}, 'is the input', id='records over the input'),
    pytest.param(None, {}, 'nothing to write', id='nothing'),
    pytest.param('out.mp4', {'look': {'scale': 2000}}, 'no encoder for', id='too large for any encoder'),
])
def test_what_cannot_be_written_is_refused_before_anything_is_segmented(clip, tmp_path, name, options, told):
    (tmp_path / 'link.mp4').hardlink_to(clip)
    (tmp_path / 'folder.mp4').mkdir()
    (tmp_path / 'notes.txt').write_text('')
    content, files = clip.read_bytes(), sorted(tmp_path.iterdir())
    if 'json' in options:
        options = {**options, 'json': tmp_path / options['json']}

    with pytest.raises(video.VideoError, match=told):
        video.render(clip, name and tmp_path / name, never, **options)

    assert clip.read_bytes() == content and sorted(tmp_path.iterdir()) == files


def test_a_frame_of_a_folder_is_not_overwritten(tmp_path):
    Image.fromarray(ball(0)).save(tmp_path / '0.png')
    (tmp_path / '0.mp4').symlink_to(tmp_path / '0.png')

    with pytest.raises(video.VideoError, match='is the input'):
        video.render(tmp_path, tmp_path / '0.mp4', never)


def test_what_was_there_stays_if_the_first_frame_fails(clip, tmp_path):
    output = tmp_path / 'out.mp4'
    output.write_bytes(b'of last week')

    with pytest.raises(AssertionError):
        video.render(clip, output, never)

    assert output.read_bytes() == b'of last week'


def test_the_folder_of_the_output_is_made(clip, tmp_path):
    done = video.render(clip, tmp_path / 'new' / 'folder' / 'out.mp4', find_bright, look=LOOK, max_seconds=0.1)

    assert done.frames == 3 and done.output.is_file()


def test_objects_of_a_panoptic_map_keep_their_shade(tmp_path):
    def map_two(images, batch_size=1, mask_format='rle', **_):
        results = []
        for image in images:
            map_two.count += 1
            ids = np.zeros(image.shape[:2], np.int32)
            order = (1, 2) if map_two.count % 2 else (2, 1)   # the numbers of a picture's segments mean nothing
            ids[4:20, 4:24], ids[28:44, 40:60] = order
            segments = [{'id': id, 'label': 'cat', 'isthing': True, 'score': 0.9, 'area': 320, 'bbox': [0, 0, 1, 1]}
                        for id in (1, 2)]
            results.append({'scores': [0.9] * 2, 'labels': ['cat'] * 2, 'boxes': [[0, 0, 1, 1]] * 2, 'id_map': ids,
                            'masks': [ids == 1, ids == 2], 'segments': segments})
        return results

    path = write_video(tmp_path / 'clip.mp4', 6, draw=lambda index, size: np.full((48, 64, 3), 120, np.uint8))
    map_two.count = 0
    video.render(path, tmp_path / 'tracked.mp4', map_two, look=LOOK, json=tmp_path / 'out.jsonl')
    map_two.count = 0
    video.render(path, tmp_path / 'loose.mp4', map_two, look=LOOK, track=False)

    def spread(file):
        return np.ptp([image[12, 14] for image in images_of(file)], axis=0).max()
    assert spread(tmp_path / 'tracked.mp4') < 6 < 10 < spread(tmp_path / 'loose.mp4')
    lines = [json.loads(line) for line in (tmp_path / 'out.jsonl').read_text().splitlines()]
    assert [[(entry['id'], entry['track']) for entry in line['segments']] for line in lines[:2]] \
        == [[(1, 1), (2, 2)], [(1, 2), (2, 1)]]
