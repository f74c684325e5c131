"""The preprocessor: images of all kinds to samples, and samples to training samples."""
from __future__ import annotations

import io
import re
import socket
import threading
import warnings

import numpy as np
import pytest
import torch
from modelscope.preprocessors import Preprocessor
from modelscope.preprocessors.builder import PREPROCESSORS
from modelscope.utils.config import Config
from PIL import Image

import modelscope_fastinst  # noqa: F401
from modelscope_fastinst.data.augment import TrainTransform
from modelscope_fastinst.data.image import ImageError
from modelscope_fastinst.plugin.preprocessor import FastInstPreprocessor
from modelscope_fastinst.structures import Sample, Target
from tests.plugin.loopback_hub import serve

# 2 x 3 pixels, RGB
COLORS = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[9, 99, 199], [255, 255, 255], [0, 0, 0]]], np.uint8)


def from_section(tmp_path, section, mode='inference'):
    config = Config({'framework': 'pytorch', 'task': 'image-segmentation', 'preprocessor': section,
                     'pipeline': {'type': 'fast-instance-segmentation'}, 'model': {'type': 'fastinst'}})
    return Preprocessor.from_pretrained(str(tmp_path), cfg_dict=config, preprocessor_mode=mode)


def png(image, **options):
    file = io.BytesIO()
    image.save(file, 'PNG', **options)
    return file.getvalue()


@pytest.fixture
def same_size():
    return FastInstPreprocessor(min_size=2, max_size=None)


@pytest.mark.parametrize('source', [
    pytest.param(Image.fromarray(COLORS), id='PIL RGB'),
    pytest.param(Image.fromarray(COLORS).convert('RGBA'), id='PIL RGBA'),
    pytest.param(Image.fromarray(COLORS).convert('P', palette=Image.Palette.ADAPTIVE), id='PIL palette'),
    pytest.param(np.ascontiguousarray(COLORS[:, :, ::-1]), id='BGR array'),
    pytest.param(np.dstack([COLORS[:, :, ::-1], np.full((2, 3), 7, np.uint8)]), id='BGRA array'),
    pytest.param(png(Image.fromarray(COLORS)), id='bytes of a file'),
    pytest.param(COLORS[:, :, ::-1].astype(np.uint16) * 257, id='16-bit BGR array'),
])
def test_every_form_gives_the_same_sample(same_size, source):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        sample = same_size(source)
    assert sample.image.dtype == torch.uint8
    np.testing.assert_array_equal(sample.image.permute(1, 2, 0).numpy(), COLORS)
    assert sample.original_size == (2, 3)


@pytest.mark.parametrize('source', [
    pytest.param(np.array([[0, 128, 255]], np.uint8), id='gray array'),
    pytest.param(Image.fromarray(np.array([[0, 128, 255]], np.uint8)), id='gray PIL'),
    pytest.param(Image.fromarray(np.array([[0, 128 * 257, 65535]], np.uint16)), id='16-bit PIL'),
    pytest.param(png(Image.fromarray(np.array([[0, 128 * 257, 65535]], np.uint16))), id='16-bit PNG'),
])
def test_gray_is_repeated_on_three_channels(source):
    sample = FastInstPreprocessor(min_size=1, max_size=None)(source)
    np.testing.assert_array_equal(sample.image.numpy(), np.repeat([[[0, 128, 255]]], 3, axis=0))


def test_cmyk_is_seen_in_colour(same_size):
    image = same_size(Image.fromarray(COLORS).convert('CMYK')).image.permute(1, 2, 0).numpy()
    np.testing.assert_allclose(image, COLORS, atol=1)


@pytest.mark.parametrize('as_file', [pytest.param(True, id='path'), pytest.param(False, id='PIL image')])
def test_exif_orientation_turns_the_image_upright(same_size, tmp_path, as_file):
    image = Image.fromarray(COLORS)
    exif = Image.Exif()
    exif[0x0112] = 6   # stored on its side: to be turned 90 degrees clockwise
    image.save(tmp_path / 'photo.png', exif=exif)
    source = tmp_path / 'photo.png' if as_file else Image.open(tmp_path / 'photo.png')
    sample = same_size(source)
    assert sample.original_size == (3, 2)
    np.testing.assert_array_equal(sample.image.permute(1, 2, 0).numpy(), np.rot90(COLORS, -1))


def test_url_is_fetched_and_named(same_size, tmp_path):
    (tmp_path / 'a picture.png').write_bytes(png(Image.fromarray(COLORS)))
    (tmp_path / 'words.jpg').write_text('no picture')
    with serve(tmp_path) as hub:
        url = f'{hub.address}/files/a%20picture.png'
        sample = same_size(url)
        np.testing.assert_array_equal(sample.image.permute(1, 2, 0).numpy(), COLORS)
        assert sample.file_name == url
        for name, message in (('words.jpg', 'is not an image'), ('nothing.png', 'cannot be downloaded.*404')):
            with pytest.raises(ImageError, match=f'{hub.address}/files/{name}: .*{message}'):
                same_size(f'{hub.address}/files/{name}')


@pytest.mark.parametrize('name', [
    pytest.param('/files/a picture.png', id='blank in the path'),
    pytest.param('/files/b\u00e4r.png', id='not ASCII'),
])
def test_url_as_a_browser_takes_it(same_size, tmp_path, name):
    (tmp_path / name.rpartition('/')[2]).write_bytes(png(Image.fromarray(COLORS)))
    with serve(tmp_path) as hub:
        url = hub.address.replace('http', 'HTTP') + name
        sample = same_size(url)
    np.testing.assert_array_equal(sample.image.permute(1, 2, 0).numpy(), COLORS)
    assert sample.file_name == url


@pytest.mark.parametrize('url', [
    pytest.param('http://localhost:port/x.png', id='port that is no number'),
    pytest.param('http://[::1/x.png', id='cut off address'),
    pytest.param('http:///x.png', id='no host'),
])
def test_malformed_url_is_named(same_size, url):
    with pytest.raises(ImageError, match=f'{re.escape(url)}: cannot be downloaded'):
        same_size(url)


def test_answer_that_is_cut_off_is_named(same_size):
    with socket.create_server(('127.0.0.1', 0)) as server:
        def answer():
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\ntoo short')
        thread = threading.Thread(target=answer)
        thread.start()
        url = f'http://127.0.0.1:{server.getsockname()[1]}/x.png'
        with pytest.raises(ImageError, match=f'{url}: cannot be downloaded: .*9 bytes read, 991 more'):
            same_size(url)
        thread.join()


def test_server_that_is_not_there_is_named(same_size):
    with pytest.raises(ImageError, match='http://127.0.0.1:1/x.png: cannot be downloaded'):
        same_size('http://127.0.0.1:1/x.png')


@pytest.mark.parametrize('size, options, expected', [
    pytest.param((100, 200), {}, (32, 64), id='configured'),
    pytest.param((100, 200), {'min_size': 16}, (16, 32), id='short side'),
    pytest.param((100, 200), {'max_size': 40}, (20, 40), id='long side'),
    pytest.param((1, 4000), {}, (1, 64), id='a line'),
    pytest.param((1, 1), {'min_size': 5}, (5, 5), id='a pixel'),
])
def test_sizes(size, options, expected):
    preprocessor = FastInstPreprocessor(min_size=32, max_size=64)
    sample = preprocessor(np.zeros((*size, 3), np.uint8), **options)
    assert tuple(sample.image.shape[1:]) == expected
    assert sample.original_size == size


@pytest.mark.parametrize('options', [
    pytest.param({'min_size': 0}, id='zero'),
    pytest.param({'max_size': -5}, id='negative'),
])
def test_sizes_must_be_positive(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        FastInstPreprocessor()(np.zeros((2, 2), np.uint8), **options)


def a_sample():
    return Sample(image=torch.zeros(3, 40, 60, dtype=torch.uint8), original_size=(40, 60),
                  target=Target(torch.tensor([1]), torch.ones(1, 40, 60, dtype=torch.bool)))


@pytest.mark.parametrize('section', [
    pytest.param({'type': 'fastinst-preprocessor', 'min_size': 20, 'max_size': 90,
                  'train': {'type': 'fastinst-preprocessor', 'min_sizes': [10], 'max_size': 50, 'crop': None}},
                 id='training inside'),
    pytest.param({'train': {'type': 'fastinst-preprocessor', 'min_sizes': [10], 'max_size': 50, 'crop': None},
                  'val': {'type': 'fastinst-preprocessor', 'min_size': 20, 'max_size': 90}},
                 id="ModelScope's train and val"),
])
def test_mode_chooses_between_training_and_evaluation(tmp_path, section):
    sizes = {mode: tuple(from_section(tmp_path, section, mode)(a_sample()).image.shape[1:])
             for mode in ('train', 'eval', 'inference')}
    assert sizes == {'train': (10, 15), 'eval': (20, 30), 'inference': (20, 30)}


def test_evaluation_resizes_the_target_as_well():
    sample = FastInstPreprocessor(mode='eval', min_size=20)(a_sample())
    assert sample.target.masks.shape == (1, 20, 30)
    assert sample.original_size == (40, 60)


def test_training_defaults_to_the_recipe(tmp_path):
    preprocessor = from_section(tmp_path, {'type': 'fastinst-preprocessor'}, 'train')
    settings, recipe = ({name: vars(value) if name == '_colors' else value for name, value in vars(transform).items()}
                        for transform in (preprocessor.augment, TrainTransform()))
    assert settings == recipe


def test_training_can_be_another_registered_preprocessor(tmp_path):
    @PREPROCESSORS.register_module('cv', module_name='test-blackout', force=True)
    class Blackout(Preprocessor):
        def __init__(self, strength, model_dir=None, mode='train'):
            super().__init__(mode)
            self.strength = strength

        def __call__(self, data):
            return f'black {self.strength}'

    section = {'type': 'fastinst-preprocessor', 'train': {'type': 'test-blackout', 'strength': 3}}
    assert from_section(tmp_path, section, 'train')(a_sample()) == 'black 3'


def test_training_needs_a_sample():
    with pytest.raises(ValueError, match='takes a Sample of a data set, got str'):
        FastInstPreprocessor(mode='train')('image.png')


@pytest.mark.parametrize('settings, message', [
    pytest.param({'min_sise': 5}, 'min_sise', id='unknown setting'),
    pytest.param({'train': {'min_sise': [5]}}, 'preprocessor.train: .*min_sise', id='unknown setting of training'),
    pytest.param({'train': {}, 'flip': 0.5}, r"unknown settings \['flip'\]", id='training settings in two places'),
    pytest.param({'min_size': -1}, 'min_size', id='out of range'),
])
def test_wrong_settings_are_clear_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        FastInstPreprocessor(**settings)
