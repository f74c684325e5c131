"""Colours: presets, and further transforms of torchvision by name."""
from __future__ import annotations

import pickle

import pytest
import torch

from modelscope_fastinst.data.color import PHOTOMETRIC, PRESETS, Colors


def picture():
    return torch.randint(0, 256, (3, 24, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize('name', PRESETS)
def test_presets_have_the_strengths_that_they_name(name):
    colors = Colors(name)
    assert {key: value for key, value in colors.strengths.items() if value} == \
        {key: value for key, value in PRESETS[name].items() if key != 'probability'}
    torch.manual_seed(0)
    assert any(not torch.equal(colors(picture()), picture()) for _ in range(5))


def test_a_preset_can_be_changed():
    assert Colors({'preset': 'ssd', 'hue': 0.0}).strengths == {**Colors('ssd').strengths, 'hue': 0.0}


def test_each_of_the_four_happens_with_the_probability():
    colors = Colors({'brightness': 0.5, 'probability': 0.25})
    torch.manual_seed(0)
    changed = sum(not torch.equal(colors(picture()), picture()) for _ in range(200))
    assert 30 < changed < 70


@pytest.mark.parametrize('entry', [
    {'type': 'ColorJitter', 'brightness': 0.5}, {'type': 'GaussianBlur', 'kernel_size': 5}, {'type': 'GaussianNoise'},
    {'type': 'JPEG', 'quality': [5, 20]}, {'type': 'RandomAdjustSharpness', 'sharpness_factor': 3, 'p': 1},
    {'type': 'RandomAutocontrast', 'p': 1}, {'type': 'RandomChannelPermutation'}, {'type': 'RandomEqualize', 'p': 1},
    {'type': 'RandomGrayscale', 'p': 1}, {'type': 'RandomInvert', 'p': 1}, {'type': 'RandomPhotometricDistort', 'p': 1},
    {'type': 'RandomPosterize', 'bits': 2, 'p': 1}, {'type': 'RandomSolarize', 'threshold': 90, 'p': 1},
], ids=lambda entry: entry['type'])
def test_further_transforms_change_colours_only(entry):
    assert entry['type'] in PHOTOMETRIC
    colors = pickle.loads(pickle.dumps(Colors({'extra': [entry]})))
    torch.manual_seed(1)
    image = colors(picture() // 2)   # RandomAutocontrast has something to do
    assert image.shape == picture().shape and image.dtype == torch.uint8
    assert not torch.equal(image, picture() // 2)


def test_further_transforms_have_a_probability():
    colors = Colors({'extra': [{'type': 'RandomInvert', 'p': 1.0, 'probability': 0.5}]})
    torch.manual_seed(0)
    assert 30 < sum(not torch.equal(colors(picture()), picture()) for _ in range(100)) < 70


@pytest.mark.parametrize(('settings', 'message'), [
    pytest.param('loud', r"name of a preset \(light, ssd, strong\).* got 'loud'", id='no such preset'),
    pytest.param({'preset': 'loud'}, 'color.preset must be one of', id='no such preset in a mapping'),
    pytest.param({'extra': {'type': 'JPEG'}}, 'color.extra must be a list', id='no list'),
    pytest.param({'extra': [{'type': 'RandomCrop', 'size': 3}]}, r'color.extra\[0\] must be a mapping whose `type` is',
                 id='a transform of places'),
    pytest.param({'extra': [{'type': 'GaussianBlur', 'kernel_size': 4}]},
                 r'color.extra\[0\]: GaussianBlur does not take these settings', id='wrong argument'),
    pytest.param({'extra': [{'type': 'GaussianBlur', 'kernel': 3}]},
                 r'color.extra\[0\]: GaussianBlur does not take these settings', id='unknown argument'),
    pytest.param({'probability': 3}, 'color.probability is a probability', id='probability'),
])
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Colors(settings)
