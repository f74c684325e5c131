"""Pictures of panoptic and semantic maps."""
from __future__ import annotations

import numpy as np
import pytest

from modelscope_fastinst.visualize import draw_panoptic, draw_semantic, palette
from modelscope_fastinst.visualize.colors import shade
from modelscope_fastinst.visualize.maps import _parts
from modelscope_fastinst.visualize.shapes import within_bounds

GREY = np.full((240, 320, 3), 128, np.uint8)
NAMES = ['person', 'dog', 'sky', 'grass']


def halves(*ids):
    """A map of upright stripes with these ids."""
    return np.repeat(np.asarray(ids, np.int32), -(-320 // len(ids)))[None, :320].repeat(240, axis=0)


def segments(*items):
    return [{'id': number, 'label': label, 'isthing': label in NAMES[:2], 'score': 0.9} for number, label in items]


def inside(picture, stripe, of):
    """The colour at the bottom of a stripe, away from tags and borders."""
    return picture[200, int((stripe + 0.3) * 320 / of)].astype(int)


def saturation(color):
    return int(color.max() - color.min())


def test_stuff_is_muted_things_are_not_and_void_stays():
    picture = draw_panoptic(GREY, halves(1, 2, 0), segments((1, 'person'), (2, 'sky')), classes=NAMES, tags=False)
    thing, stuff, void = (inside(picture, number, 3) for number in range(3))
    assert saturation(thing) > 2 * saturation(stuff) > 0
    assert void.tolist() == [128] * 3
    assert (GREY == 128).all()


def test_objects_of_a_class_are_told_apart_and_look_alike():
    picture = draw_panoptic(GREY, halves(1, 2, 3), segments((1, 'person'), (2, 'person'), (3, 'dog')), classes=NAMES,
                            tags=False)
    first, second, other = (inside(picture, number, 3) for number in range(3))
    near, far = np.abs(first - second).sum(), np.abs(first - other).sum()
    assert 8 < near < far


def test_shades_of_a_class_differ_from_one_another():
    colors = [shade(5, turn) for turn in range(20)]
    assert colors[0] == palette(6)[5] and len(set(colors)) == 20
    assert np.abs(np.diff(np.array(colors), axis=0)).sum(1).min() > 15


@pytest.mark.parametrize('draw', [
    pytest.param(lambda ids, names: draw_panoptic(GREY, ids, segments(*enumerate(names, 1)), classes=NAMES, tags=False),
                 id='panoptic'),
    pytest.param(lambda ids, names: draw_semantic(GREY, np.array([-1, *map(NAMES.index, names)])[ids], NAMES,
                                                    tags=False),
                 id='semantic'),
])
def test_a_class_keeps_its_colour_from_picture_to_picture(draw):
    alone = inside(draw(halves(1), ['grass']), 0, 1)
    among = draw(halves(1, 2, 3), ['sky', 'dog', 'grass'])
    assert inside(among, 2, 3).tolist() == alone.tolist() != inside(among, 0, 3).tolist()


def test_semantic_classes_are_filled_and_void_stays():
    picture = draw_semantic(GREY, halves(0, -1, 3).astype(np.int16), NAMES, tags=False)
    first, void, second = (inside(picture, number, 3) for number in range(3))
    assert void.tolist() == [128] * 3 and saturation(first) > 20 and saturation(second) > 20
    assert np.abs(first - second).sum() > 30


def changed(first, second):
    return (first != second).any(2)


def test_names_stand_inside_their_regions():
    labels = halves(2, 2, 3)
    plain, tagged = (draw_semantic(GREY, labels, NAMES, tags=tags) for tags in (False, True))
    tags = changed(plain, tagged)
    assert tags[labels == 2].any() and tags[labels == 3].any()
    assert not tags[:, 205:222].any()   # no name reaches over the border between the two


def test_a_region_too_small_for_its_name_has_none():
    labels = np.full((240, 320), 2, np.int16)
    labels[100:110, 100:110] = 3
    with_name, without = (draw_semantic(GREY, np.where(labels == 3, value, labels), ['', '', 'sky', name], tags=True)
                          for value, name in ((3, 'grass'), (3, '')))
    np.testing.assert_array_equal(with_name, without)


def test_objects_have_scores_and_stuff_has_none():
    ids = halves(1, 2)
    texts = []
    for score in (0.11, 0.99):
        found = [{**one, 'score': score} for one in segments((1, 'person'), (2, 'sky'))]
        texts.append(draw_panoptic(GREY, ids, found, classes=NAMES))
    differs = changed(*texts)
    assert differs[:, :160].any() and not differs[:, 160:].any()


@pytest.mark.parametrize('type_', [np.uint8, np.int16, np.int32, np.uint32, np.int64, np.uint64, np.float32])
@pytest.mark.parametrize('wanted', [
    pytest.param([3, 0, 7, 200], id='one of them nowhere'), pytest.param([], id='none'),
    pytest.param([250, 70000], id='large ones'), pytest.param([5, -1], id='negative ones')])
def test_a_map_is_taken_apart_whatever_its_numbers_are(type_, wanted):
    values = np.random.default_rng(0).choice([0, 3, 5, 7, 250], (40, 50)).astype(type_)
    values[10:] = values[0, 0]
    values[39, 49] = np.iinfo(type_).max if type_ != np.float32 else 70000
    for value, (part, top, left) in zip(wanted, _parts(values, wanted), strict=True):
        expected, *place = within_bounds(values == value)
        np.testing.assert_array_equal(part, expected)
        assert not part.size or [top, left] == place


def test_scale_enlarges_the_picture():
    assert draw_panoptic(GREY, halves(1, 2), segments((1, 'person'), (2, 'sky')), scale=1.5).shape == (360, 480, 3)
    assert draw_semantic(GREY, halves(1), NAMES, scale=0.5).shape == (120, 160, 3)


@pytest.mark.parametrize('size', [(1, 1), (1, 300), (300, 1)])
def test_images_too_small_for_names(size):
    image = np.zeros((*size, 3), np.uint8)
    assert draw_semantic(image, np.full(size, 2), NAMES).any()
    assert draw_panoptic(image, np.ones(size, np.int32), segments((1, 'person'))).any()


@pytest.mark.parametrize('image, values, message', [
    pytest.param(GREY.astype(float), halves(1), 'must be uint8', id='float image'),
    pytest.param(GREY, halves(1)[:100], 'map is 100 x 320 pixels, the image 240 x 320', id='size'),
])
def test_what_does_not_fit_is_refused(image, values, message):
    with pytest.raises(ValueError, match=message):
        draw_panoptic(image, values, segments((1, 'person')))
    with pytest.raises(ValueError, match=message):
        draw_semantic(image, values, NAMES)
