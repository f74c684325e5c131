"""The network's input, pixel by pixel as the authors' code makes it (vectors ``preprocess``)."""
from __future__ import annotations

import json
import zlib
from functools import lru_cache

import numpy as np
import pytest
import torch

from modelscope_fastinst.data.augment import InferenceTransform, resized_size
from modelscope_fastinst.structures import Sample
from tests import golden_cases
from tests.golden_cases import fill


def _rows() -> list:
    path = golden_cases.vectors('preprocess.npz')
    if not path.is_file():
        return []
    return [pytest.param(row, id=f'golden-preprocess-{row["key"]}')
            for row in json.loads(bytes(np.load(path)['meta']))['rows']]


@lru_cache(maxsize=1)  # the cases of one image follow each other
def _scene(height, width, seed, num_shapes):
    return fill.make_scene(height, width, seed, num_shapes)[0]


@pytest.fixture(scope='module')
def vectors():
    return np.load(golden_cases.vectors('preprocess.npz'))


@pytest.mark.parametrize('row', _rows())
def test_resized_image_equals_the_authors(row, vectors):
    height, width = row['in_hw']
    assert resized_size(height, width, row['min'], row['max']) == tuple(row['out_hw'])
    sample = Sample(torch.from_numpy(_scene(height, width, row['seed'], row['num_shapes'])).permute(2, 0, 1))

    resized = InferenceTransform(row['min'], row['max'])(sample)

    assert resized.original_size == (height, width)
    pixels = resized.image.permute(1, 2, 0).contiguous().numpy()
    assert pixels.shape == (*row['out_hw'], 3)
    np.testing.assert_array_equal(fill.sub(pixels, 3000), vectors[f'{row["key"]}/sub'])
    assert zlib.crc32(pixels.tobytes()) == vectors[f'{row["key"]}/crc32']
    assert pixels.mean() == pytest.approx(row['mean'], abs=1e-9)
