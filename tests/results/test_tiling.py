"""Where pictures are cut into tiles, and what a semantic map is put together from."""
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelscope_fastinst.results.tiling import Grid, SemanticMosaic, checked_overlap, checked_tile
from modelscope_fastinst.structures import SemanticMap

sides = st.integers(1, 400)


@given(st.tuples(sides, sides), st.tuples(st.integers(8, 120), st.integers(8, 120)), st.floats(0.01, 0.5))
def test_tiles_of_one_size_cover_the_picture_and_overlap_enough(size, tile, overlap):
    grid = Grid.build(size, tile, overlap)
    assert grid.size == size and len(grid) == len(grid.tiles)
    expected = tuple(min(length, side) for length, side in zip(size, tile, strict=True))
    assert {(one.bottom - one.top, one.right - one.left) for one in grid.tiles} == {expected}
    for spans, side in zip((grid.rows, grid.columns), tile, strict=True):
        assert spans[0][0] == 0
        for one, other in zip(spans, spans[1:]):
            assert one[0] < other[0] and one[1] - other[0] >= round(overlap * side)


@given(st.tuples(sides, sides), st.tuples(st.integers(8, 120), st.integers(8, 120)), st.floats(0.01, 0.5))
def test_cores_fill_the_picture_once_and_lie_in_their_tiles(size, tile, overlap):
    grid = Grid.build(size, tile, overlap)
    covered = np.zeros(size, int)
    for core, one in zip(grid.cores, grid.tiles, strict=True):
        covered[core.window] += 1
        assert one.top <= core.top < core.bottom <= one.bottom and one.left <= core.left < core.right <= one.right
    assert (covered == 1).all()


@pytest.mark.parametrize('size, number', [
    pytest.param((100, 100), 1, id='as large as a tile'),
    pytest.param((100, 101), 2, id='a pixel more'),
    pytest.param((100, 175), 2, id='two with the overlap asked for'),
    pytest.param((100, 176), 3, id='a pixel more than two'),
])
def test_there_are_no_more_tiles_than_needed(size, number):
    assert len(Grid.build(size, (100, 100), 0.25)) == number


@pytest.mark.parametrize('tile', [
    pytest.param(31, id='too small'), pytest.param('large', id='a word'), pytest.param(512.0, id='a float'),
    pytest.param(True, id='a truth value'), pytest.param((512,), id='one side of two'),
    pytest.param((512, 0), id='no width'), pytest.param({512, 256}, id='sides without order'),
])
def test_a_tile_that_cannot_be_is_named(tile):
    with pytest.raises(ValueError, match='tile is .*; it must be a side in pixels, at least 32'):
        checked_tile(tile)


@pytest.mark.parametrize('overlap', [pytest.param(0, id='none'), pytest.param(0.51, id='more than half'),
                                     pytest.param('0.2', id='a string'), pytest.param(float('nan'), id='no number')])
def test_an_overlap_that_cannot_be_is_named(overlap):
    with pytest.raises(ValueError, match='tile_overlap is .*above 0 and at most 0.5'):
        checked_overlap(overlap)


def test_sides_are_taken_as_they_are_given():
    assert checked_tile(np.int64(64)) == (64, 64) and checked_tile([40, 50]) == (40, 50)
    assert checked_tile(None) is None and checked_tile('auto') == 'auto'


def test_a_mosaic_is_the_map_it_was_cut_from():
    random = np.random.default_rng(0)
    labels = random.integers(-1, 3, (50, 70)).astype(np.int16)
    grid = Grid.build(labels.shape, (20, 30), 0.3)
    mosaic = SemanticMosaic(grid, 4)
    for index, tile in enumerate(grid.tiles):
        # What a tile says outside of its core is not looked at.
        said, core = np.full((tile.bottom - tile.top, tile.right - tile.left), 3, np.int16), grid.cores[index]
        said[core.top - tile.top:core.bottom - tile.top,
             core.left - tile.left:core.right - tile.left] = labels[core.window]
        mosaic.add(index, SemanticMap(said, np.array([0.2, index / 10, 0.4, 0.9], np.float32)))
    found = mosaic.finished()
    np.testing.assert_array_equal(found.labels, labels)
    share = np.array([np.count_nonzero(labels[core.window] == 1) for core in grid.cores]) / (labels == 1).sum()
    np.testing.assert_allclose(found.scores, [0.2, (share * np.arange(len(grid)) / 10).sum(), 0.4, 0], rtol=1e-5)
