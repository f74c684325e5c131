"""Colours that can be told apart, with all kinds of cones or without one, and that are the same everywhere."""
from __future__ import annotations

import itertools

import numpy as np
import pytest

from modelscope_fastinst.visualize import class_colors, draw_instances, draw_semantic, instance_colors, palette
from modelscope_fastinst.visualize.colors import contrast, opposite, shade

# What people without one kind of cone see, for linear RGB: G. M. Machado, M. M. Oliveira, L. A. F. Fernandes, "A
# Physiologically-based Model for Simulation of Color Vision Deficiency", 2009, severity 1.
SEEN = {
    'all cones': np.eye(3),
    'protanopia': [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    'deuteranopia': [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    'tritanopia': [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]}
# CIE XYZ of linear sRGB, relative to its white, which is D65
XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
                [0.0193339, 0.1191920, 0.9503041]])


def lab(colors, seen):
    """CIELAB, in which a distance of 2.3 is just noticeable, of colours as they are seen."""
    share = np.array(colors) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ np.array(SEEN[seen]).T, 0, 1)
    relative = linear @ (XYZ / XYZ.sum(1, keepdims=True)).T
    x, y, z = np.where(relative > 216 / 24389, np.cbrt(relative), (relative * 24389 / 27 + 16) / 116).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def nearest(colors, seen):
    points = lab(colors, seen)
    return min(np.linalg.norm(one - other) for one, other in itertools.combinations(points, 2))


def test_the_simulation_shows_what_dichromats_confuse():
    # The Stop and Go of a signal, and two colours that lack blue cones to be told apart.
    assert nearest([(213, 94, 0), (110, 130, 0)], 'all cones') > 50
    assert nearest([(213, 94, 0), (110, 130, 0)], 'deuteranopia') < 15
    assert nearest([(0, 150, 170), (0, 160, 120)], 'tritanopia') < 10


@pytest.mark.parametrize('seen', SEEN)
@pytest.mark.parametrize('number, distance', [(6, 20), (8, 16), (12, 12), (20, 8)])
def test_the_first_colours_can_be_told_apart(seen, number, distance):
    assert nearest(palette(number), seen) > distance


def test_a_longer_palette_goes_on_where_a_shorter_one_ends():
    colors = palette(300)
    assert all(colors[:number] == palette(number) for number in (0, 1, 12, 47, 48, 49))
    assert len(set(colors)) == 300
    assert np.abs(np.diff(np.array(colors), axis=0)).sum(1).min() > 60


def test_every_colour_stands_out_from_what_is_written_on_it_and_lines_it():
    assert min(contrast(color, opposite(color)) for color in palette(200)) > 4.5


def test_muted_colours_keep_their_hue_and_lose_their_strength():
    assert max(max(color) - min(color) for color in palette(20, 0.06)) < 90
    assert all(np.argmax(muted) == np.argmax(color) for muted, color in zip(palette(4, 0.06), palette(4), strict=True))


def test_views_share_their_colours():
    names = ['bird', 'cat', 'dog']
    assert list(class_colors(names)) == names and list(class_colors(names).values()) == palette(3)
    assert class_colors([*names, 'cat', 'eel'])['cat'] == class_colors(names)['cat']   # a name twice takes one colour
    assert instance_colors(5) == palette(5)
    assert shade(7, 0) == palette(8)[7]


@pytest.mark.parametrize('draw', [
    pytest.param(lambda image, mask: draw_instances(image, None, ['dog'], [mask], color_by='class', tags=False,
                                                    classes=['bird', 'cat', 'dog'], opacity=1, outline=False),
                 id='instances'),
    pytest.param(lambda image, mask: draw_instances(image, None, ['x'] * 3, [mask * 0, mask * 0, mask], tags=False,
                                                    opacity=1, outline=False), id='third instance'),
])
def test_what_is_drawn_has_the_colour_of_the_table(draw):
    image, mask = np.zeros((40, 40, 3), np.uint8), np.zeros((40, 40), np.uint8)
    mask[10:30, 10:30] = 1
    assert tuple(draw(image, mask)[20, 20]) == class_colors(['bird', 'cat', 'dog'])['dog']


def test_a_semantic_map_has_the_hues_of_the_table():
    image, labels = np.zeros((40, 40, 3), np.uint8), np.full((40, 40), 2)
    drawn = draw_semantic(image, labels, ['bird', 'cat', 'dog'], tags=False)[20, 20]
    assert np.argmax(drawn) == np.argmax(class_colors(['bird', 'cat', 'dog'])['dog'])
