"""The pipeline's ``tile``: pictures far larger than the network's input."""
from __future__ import annotations

import numpy as np
import pytest
from modelscope.pipelines import pipeline
from PIL import Image

import modelscope_fastinst
from modelscope_fastinst.plugin.pipeline_results import as_result
from modelscope_fastinst.results.rle import decode
from modelscope_fastinst.results.seams import SeamJoiner
from modelscope_fastinst.results.tiling import Grid
from modelscope_fastinst.structures import Instances
from tests.golden_cases import fill
from tests.plugin.model_folders import assert_same, scene, write_map_folder, write_stock_folder
from tests.slides import fit, seam_scene

SIZES = {'min_size': 64, 'max_size': 96}
TILES = {'tile': 64, 'tile_overlap': 0.3}
ON_SEAMS = ('vertical seam', 'horizontal seam', 'crossing')


@pytest.fixture(scope='module')
def nuclei():
    return pipeline('image-segmentation', model=modelscope_fastinst.default_model(), device='cpu')


@pytest.fixture(scope='module')
def segment(tmp_path_factory):
    folder = str(write_stock_folder(tmp_path_factory.mktemp('stock')))
    return pipeline('image-segmentation', model=folder, device='cpu', **SIZES)


@pytest.fixture(scope='module')
def panoptic(tmp_path_factory):
    folder = str(write_map_folder(tmp_path_factory.mktemp('panoptic'), 'panoptic', overlap_threshold=0.0))
    return pipeline('image-segmentation', model=folder, device='cpu', min_size=64, max_size=96)


def picture(height=100, width=130, seed=0):
    return np.ascontiguousarray(fill.make_scene(height, width, seed)[0][:, :, ::-1])


def check_slide(segment, size, tile, count, slack):
    """Nuclei of a drawn slide are found as often as there are, each once, on seams as well as elsewhere."""
    drawn = seam_scene(size, tile, 0.25, count)
    found = segment(drawn.bgr, tile=tile, tile_overlap=0.25, mask_format='rle')
    fits = fit(drawn, found)
    assert (fits.ious > 0.6).all() and (fits.ious > 0.7).mean() > 0.98 and fits.ious.mean() > 0.88
    assert fits.mean(*ON_SEAMS) > fits.mean('anywhere') - 0.03
    # A network may say the same thing twice in other words; a seam may not make it do so.
    assert abs(len(found['masks']) - count) <= slack and (fits.matches == 1).mean() > 0.97
    assert (fits.matches[np.isin(fits.kinds, ON_SEAMS)] == 1).mean() > 0.97


def test_nuclei_on_seams_are_found_once_and_as_well_as_others(nuclei):
    check_slide(nuclei, (900, 1200), tile=480, count=40, slack=1)


@pytest.mark.slow
def test_200_nuclei_in_24_megapixels(nuclei):
    check_slide(nuclei, (4000, 6000), tile=480, count=200, slack=3)


# ----------------------------------------------------------------------------- the same as without

@pytest.mark.parametrize('options', [
    pytest.param({'tile': 130}, id='as large as the picture'),
    pytest.param({'tile': (100, 999)}, id='as high and wider'),
    pytest.param({'tile': 5000, 'mask_format': 'rle', 'max_instances': 2}, id='with other options'),
])
def test_a_picture_that_fits_into_a_tile_gives_what_it_gives_without(segment, options):
    without = {name: value for name, value in options.items() if name != 'tile'}
    assert_same(segment(picture(), score_thr=0.1, **options), segment(picture(), score_thr=0.1, **without))
    assert_same(segment([picture()], score_thr=0.1, **options)[0], segment(picture(), score_thr=0.1, **without))


def test_tiles_are_off_unless_asked_for(segment):
    assert_same(segment(picture(), tile=None), segment(picture()))
    assert segment(picture(), **TILES)['scores'] != segment(picture())['scores']


def test_a_tile_is_to_the_network_an_image_of_its_own(segment):
    image, grid = picture(), Grid.build((100, 130), (100, 80), 0.25)
    joiner = SeamJoiner(grid)
    for index, tile in enumerate(grid.tiles):
        alone = segment(np.ascontiguousarray(image[tile.window]), mask_format='rle')
        labels = [segment.model.classes.index(label) for label in alone['labels']]
        joiner.add(index, Instances(alone['scores'], labels, alone['masks'], alone['boxes']))
    whole = segment(image, tile=(100, 80), tile_overlap=0.25, mask_format='rle')
    assert len(grid) == 2 and whole['scores']
    assert_same(whole, as_result(joiner.joined(), segment.model.classes))


# ----------------------------------------------------------------------------- options

def test_the_options_mean_what_they_mean_without_tiles(segment):
    everything = segment(picture(), **TILES, score_thr=0.4)
    assert everything['scores'] == sorted(everything['scores'], reverse=True) and len(everything['scores']) > 7
    assert min(everything['scores']) >= 0.4
    best = segment(picture(), **TILES, score_thr=0.4, max_instances=3)
    assert_same(best, {name: values[:3] for name, values in everything.items()})
    runs = segment(picture(), **TILES, score_thr=0.4, mask_format='rle')
    np.testing.assert_array_equal(decode(runs['masks']), np.stack(everything['masks']))
    label = everything['labels'][0]
    assert set(everything['labels']) > {label}
    assert set(segment(picture(), **TILES, score_thr=0.4, classes=[label])['labels']) == {label}


def test_tiles_can_be_the_pipelines_default(segment):
    default = pipeline('image-segmentation', model=segment.model, device='cpu', optimize=False, **SIZES, **TILES)
    assert_same(default(picture()), segment(picture(), **TILES))
    assert_same(default(picture(), tile=None), segment(picture()))
    assert_same(default(picture(), tile_overlap=0.5), segment(picture(), tile=64, tile_overlap=0.5))


def test_an_automatic_tile_is_as_large_as_the_input_of_the_network(segment):
    assert_same(segment(picture(), tile='auto'), segment(picture(), tile=64))
    assert_same(segment(picture(), tile='auto', min_size=80), segment(picture(), tile=80, min_size=80))


def test_lists_may_mix_pictures_of_any_size(segment):
    images = [picture(), picture(40, 60, 1), picture(70, 80, 2), picture(40, 60, 3)]
    for batch_size in (1, 3):
        for result, image in zip(segment(images, batch_size=batch_size, **TILES), images, strict=True):
            assert_same(result, segment(image, **TILES))


def test_the_network_gets_as_many_tiles_at_once_as_it_is_told(segment, monkeypatch):
    sizes = []
    found = segment._found
    monkeypatch.setattr(segment, '_found', lambda tiles, options: sizes.append(len(tiles)) or found(tiles, options))
    number = len(Grid.build((100, 130), (64, 64), 0.3))
    segment(picture(), **TILES)
    assert sizes == [number] and number <= 8
    sizes.clear()
    segment(picture(), **TILES, batch_size=4)
    assert sizes == [4, number - 4]


def test_progress_counts_tiles(segment):
    steps = []
    segment(picture(), **TILES, batch_size=4, tile_progress=lambda *step: steps.append(step))
    assert steps == [(4, 6), (6, 6)]


# ----------------------------------------------------------------------------- inputs

def test_gray_and_16_bit_pictures_are_read_as_ever(segment, tmp_path):
    gray = picture()[:, :, 0]
    expected = segment(gray, **TILES)
    assert expected['scores']
    assert_same(segment(gray.astype(np.uint16) * 257, **TILES), expected)
    Image.fromarray(gray.astype(np.uint16) * 257).save(tmp_path / 'gray.png')
    assert_same(segment(str(tmp_path / 'gray.png'), **TILES), expected)
    assert_same(segment((tmp_path / 'gray.png').read_bytes(), **TILES), expected)


def test_a_broken_picture_is_named(segment, tmp_path):
    (tmp_path / 'broken.png').write_bytes(b'no picture')
    with pytest.raises(ValueError, match='input 1: .*broken.png: is not an image'):
        segment([picture(), str(tmp_path / 'broken.png')], **TILES)


# ----------------------------------------------------------------------------- maps

def test_a_semantic_map_is_put_together_from_the_tiles(panoptic):
    image = scene('tiny_panoptic', 1)
    tile = image.shape[0]   # as high as the picture
    found = panoptic(image, task='semantic', tile=(tile, 60), tile_overlap=0.2)
    grid = Grid.build(image.shape[:2], (tile, 60), 0.2)
    assert len(grid) == 2
    for one, core in zip(grid.tiles, grid.cores, strict=True):
        alone = panoptic(np.ascontiguousarray(image[one.window]), task='semantic')['label_map']
        np.testing.assert_array_equal(found['label_map'][core.window],
                                      alone[:, core.left - one.left:core.right - one.left])
    present = np.unique(found['label_map']).tolist()
    assert found['labels'] == [panoptic.model.classes[label] for label in present]
    assert all(score > 0 for score in found['scores'])


def test_panoptic_maps_are_refused(panoptic, tmp_path):
    with pytest.raises(ValueError, match="for task 'panoptic' pictures cannot be cut .* task 'instance' or 'semantic'"):
        panoptic(picture(), tile=64)
    with pytest.raises(ValueError, match='set tile to None'):
        pipeline('image-segmentation', model=panoptic.model, device='cpu', tile=64)
    assert panoptic(picture(), task='instance', tile=64, score_thr=0.1)['scores']


# ----------------------------------------------------------------------------- parts of a user's own

class Plain:
    """A postprocessor that knows no option but the threshold, and gives masks as arrays."""

    def __init__(self, instances):
        self.instances = instances

    def __call__(self, output, original_sizes, score_thr=0.5):
        from dataclasses import replace
        return replace(self.instances, score_thr=score_thr)(output, original_sizes)


def test_a_postprocessor_of_ones_own_gets_no_options_that_nobody_gave(segment):
    own = pipeline('image-segmentation', model=segment.model, device='cpu', optimize=False, **SIZES,
                   postprocessor=Plain(segment.postprocessor.instances))
    found, expected = own(picture(), score_thr=0.5, **TILES), segment(picture(), score_thr=0.5, **TILES)
    assert found['labels'] == expected['labels'] and found['boxes'] == expected['boxes']
    np.testing.assert_allclose(found['scores'], expected['scores'], rtol=1e-5)   # masks are made in another order


def test_a_preprocessor_of_ones_own_needs_a_tile_in_pixels(segment):
    def preprocess(image):
        return segment.preprocessor(image, **SIZES)
    own = pipeline('image-segmentation', model=segment.model, device='cpu', optimize=False, preprocessor=preprocess)
    assert_same(own(picture(), **TILES), segment(picture(), **TILES))
    with pytest.raises(ValueError, match="tile is 'auto'; the preprocessor function does not say"):
        own(picture(), tile='auto')


# ----------------------------------------------------------------------------- what will not do

@pytest.mark.parametrize('options, message', [
    pytest.param({'tile': 0}, 'tile is 0', id='no side'),
    pytest.param({'tile': 'huge'}, "tile is 'huge'", id='a word'),
    pytest.param({'tile': 64, 'tile_overlap': 0}, 'tile_overlap is 0', id='no overlap'),
    pytest.param({'tile_overlap': 0.9}, 'tile_overlap is 0.9', id='too much overlap'),
    pytest.param({'tile': 64, 'tile_progress': 'bar'}, "tile_progress is 'bar'", id='progress that is no function'),
    pytest.param({'tile': 64, 'batch_size': 0}, 'batch_size is 0', id='no tile at a time'),
])
def test_wrong_options_are_clear_errors_before_the_network_runs(segment, monkeypatch, options, message):
    monkeypatch.setattr(segment, 'forward', None)
    with pytest.raises(ValueError, match=message):
        segment(picture(), **options)
    if not {'tile_progress', 'batch_size'} & set(options):
        with pytest.raises(ValueError, match=message):
            pipeline('image-segmentation', model=segment.model, device='cpu', **options)
