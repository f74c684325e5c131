"""``predict --tile``, and what ``predict`` refuses before it writes anything."""
from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from modelscope.pipelines import pipeline
from PIL import Image

from modelscope_fastinst.cli import main
from modelscope_fastinst.cli.predict import TileProgress
from tests.golden_cases import fill
from tests.plugin.model_folders import write_configuration, write_stock_folder


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    folder = write_stock_folder(tmp_path_factory.mktemp('model'))
    configuration = json.loads((folder / 'configuration.json').read_text('utf-8'))
    configuration['preprocessor'] = {'type': 'fastinst-preprocessor', 'min_size': 64, 'max_size': 96}
    write_configuration(folder, configuration)
    return str(folder)


@pytest.fixture
def picture(tmp_path):
    Image.fromarray(fill.make_scene(100, 130, 0)[0]).save(tmp_path / 'large.png')
    return str(tmp_path / 'large.png')


@pytest.fixture
def pixel_limit(monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 5000)   # PIL refuses pictures of more than twice as many


@pytest.mark.parametrize('words, options', [
    pytest.param(['--tile'], {'tile': 'auto'}, id='as large as the input of the network'),
    pytest.param(['--tile', '80', '--tile-overlap', '0.4'], {'tile': 80, 'tile_overlap': 0.4}, id='in pixels'),
])
def test_predict_cuts_into_tiles_as_the_pipeline_does(model, picture, tmp_path, capsys, words, options):
    assert main(['predict', picture, '--model', model, '--output', str(tmp_path / 'out'), '--json', *words]) == 0
    assert '\r' not in capsys.readouterr().err   # no progress where no terminal is
    expected = pipeline('image-segmentation', model=model, device='cpu')(picture, mask_format='rle', **options)
    found = json.loads((tmp_path / 'out' / 'large.json').read_text('utf-8'))['instances']
    assert expected['scores'] and [one['score'] for one in found] == expected['scores']
    assert [one['mask'] for one in found] == expected['masks']
    assert np.asarray(Image.open(tmp_path / 'out' / 'large.png')).shape == (100, 130, 3)


def test_a_terminal_sees_the_tiles_pass(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: True)
    progress = TileProgress('slide.tif')
    progress(1, 2)
    assert 'slide.tif: tile 1 of 2, 0 s left' in capsys.readouterr().err
    progress(2, 2)
    assert capsys.readouterr().err == '\r\x1b[K'   # the line makes room for the result


@pytest.mark.parametrize('words, message', [
    pytest.param(['--tile-overlap', '0.2'], '--tile-overlap: goes with --tile', id='overlap without tiles'),
    pytest.param(['--classes', 'unicorn'], 'unicorn', id='no such class'),
    pytest.param(['--task', 'panoptic'], "task is 'panoptic'", id='no such task'),
    pytest.param(['--font', '{picture}'], 'large.png: is no font file', id='a font that is none'),
    pytest.param(['--model', '{picture}'], 'large.png', id='no model'),
])
def test_what_is_refused_leaves_no_folder(model, picture, tmp_path, capsys, words, message):
    words = [word.format(picture=picture) for word in words]
    assert main(['predict', picture, '--model', model, '--output', str(tmp_path / 'new' / 'out'), *words]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'new').exists()


@pytest.mark.parametrize('words, message', [
    pytest.param(['--tile', 'x.png'], 'pictures come before a bare --tile', id='a picture after --tile'),
    pytest.param(['--tile', '8'], 'a side in pixels, at least 32', id='a tile too small'),
    pytest.param(['--tile', '64', '--tile-overlap', '0.6'], 'above 0 and at most 0.5', id='too much overlap'),
    pytest.param(['--max-megapixels', '0'], 'a number above 0', id='no pixels'),
])
def test_wrong_values_are_refused_at_once(capsys, words, message):
    with pytest.raises(SystemExit):
        main(['predict', 'x.png', *words])
    assert message in capsys.readouterr().err


def test_more_pixels_than_pil_allows_have_to_be_asked_for(model, picture, tmp_path, capsys, pixel_limit, recwarn):
    words = ['predict', picture, '--model', model, '--output', str(tmp_path / 'out'), '--tile']
    assert main(words) == 1
    assert 'has too many pixels' in (error := capsys.readouterr().err) and '--max-megapixels' in error
    assert main([*words, '--max-megapixels', '0.012']) == 1
    assert 'has too many pixels' in capsys.readouterr().err
    assert main([*words, '--max-megapixels', '0.013']) == 0
