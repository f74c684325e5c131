"""How instances look: lines that show on any background, tags that keep clear of each other, what stands out."""
from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelscope_fastinst.fonts import as_line
from modelscope_fastinst.structures import Instances
from modelscope_fastinst.visualize import draw_instances, palette
from modelscope_fastinst.visualize.colors import contrast, luminance
from modelscope_fastinst.visualize.lettering import ELLIPSIS, Lettering, lettering
from modelscope_fastinst.visualize.shapes import Shape
from modelscope_fastinst.visualize.tags import with_tags

SIZE = (480, 640)


def rectangle(left, top, right, bottom, size=SIZE):
    mask = np.zeros(size, np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def uniform(color, size=SIZE):
    return np.full((*size, 3), color, np.uint8)


def shapes(boxes, label='cell', score=0.5):
    """Shapes of which each has a colour of its own, so that one knows whose tag a pixel is."""
    return [Shape(np.ones((bottom - top, right - left), bool), top, left, (bottom - top) * (right - left),
                  (label, f'{score:.2f}'), (10 + number, 200, 90))
            for number, (left, top, right, bottom) in enumerate(boxes)]


def tag_boxes(canvas):
    """For each colour of `shapes` that a tag has, the bounds of its pixels (top, left, bottom, right)."""
    from scipy.ndimage import find_objects
    owner = np.where((canvas[..., 1] == 200) & (canvas[..., 2] == 90), canvas[..., 0].astype(np.int32) - 9, 0)
    found = {number: (place[0].start, place[1].start, place[0].stop, place[1].stop)
             for number, place in enumerate(find_objects(owner)) if place is not None}
    return found


@pytest.mark.parametrize('color', palette(12), ids=str)
def test_an_outline_shows_on_any_background(color):
    backgrounds = list(itertools.product((0, 70, 128, 190, 255), repeat=3))
    image = uniform(0)
    for number, background in enumerate(backgrounds):   # one below the other, three rows each
        image[40 + 3 * number:43 + 3 * number] = background
    drawn = draw_instances(image, None, ['a'], [rectangle(200, 20, 420, 460)], colors=[color], tags=False, opacity=0)
    for number, background in enumerate(backgrounds):
        across = drawn[41 + 3 * number, 190:210]
        assert max(contrast(pixel, background) for pixel in across.tolist()) > 2


@pytest.mark.parametrize('color', palette(48)[::3], ids=str)
def test_a_line_has_an_edge_that_stands_out_from_it(color):
    drawn = draw_instances(uniform(color), None, ['a'], [rectangle(200, 150, 420, 330)], colors=[color], tags=False)
    assert max(contrast(pixel, color) for pixel in drawn[240, 185:215].tolist()) > 4


def test_small_objects_are_not_swallowed_by_their_outline():
    drawn = draw_instances(uniform((255, 255, 255)), None, ['a'], [rectangle(100, 100, 112, 112)], tags=False,
                           colors=[(240, 168, 36)], opacity=1)
    assert (drawn[104:108, 104:108] == (240, 168, 36)).all()
    assert (drawn != 255).any(2).sum() < 20 * 20


@given(st.lists(st.tuples(st.integers(0, 600), st.integers(0, 440), st.integers(6, 250), st.integers(6, 250)),
                min_size=1, max_size=60))
@settings(max_examples=8, deadline=None)
def test_tags_do_not_cover_each_other(boxes):
    boxes = [(left, top, min(640, left + wide), min(480, top + high)) for left, top, wide, high in boxes]
    found = tag_boxes(with_tags(uniform(0), shapes(boxes), None))
    assert found and 0 in found   # the best has its tag in any case
    for one, other in itertools.combinations(found.values(), 2):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


@pytest.mark.parametrize('box', [
    pytest.param((0, 100, 40, 160), id='left'), pytest.param((600, 100, 640, 160), id='right'),
    pytest.param((300, 0, 340, 40), id='top'), pytest.param((300, 440, 340, 480), id='bottom'),
    pytest.param((0, 0, 20, 20), id='corner'), pytest.param((0, 0, 640, 480), id='all of it')])
@pytest.mark.parametrize('label', ['cell', 'a name that is longer than the picture is wide ' * 20])
def test_tags_at_the_border_are_whole(box, label):
    whole, here = (tag_boxes(with_tags(uniform(0), shapes([place], label=label), None))[0]
                   for place in ((250, 200, 400, 260), box))
    assert (here[2] - here[0], here[3] - here[1]) == (whole[2] - whole[0], whole[3] - whole[1])


def test_a_long_name_is_shortened_and_its_score_is_not():
    short, long, other = (with_tags(uniform(0), shapes([(100, 100, 500, 300)], label=label, score=score), None)
                          for label, score in (('cell', 0.5), ('cell' * 125, 0.5), ('cell' * 125, 0.75)))
    (top, left, bottom, right), = tag_boxes(long).values()
    small, = tag_boxes(short).values()
    assert small[3] - small[1] < right - left < 400 and small[2] - small[0] == bottom - top
    changed = np.flatnonzero((long != other).any((0, 2)))
    assert len(changed) and changed.min() > (left + right) / 2


@pytest.mark.parametrize('size', [(1, 1), (3, 200), (200, 3), (12, 40), (20, 60), (40, 40)], ids=str)
@pytest.mark.parametrize('options', [{}, {'highlight': 0}, {'boxes_drawn': True}, {'scale': 0.3}, {'scale': 7.3}],
                         ids=str)
def test_tiny_pictures(size, options):
    drawn = draw_instances(uniform(90, size), [0.9], ['a name'], [np.ones(size, np.uint8)], **options)
    assert drawn.shape[:2] == tuple(max(1, round(side * options.get('scale', 1))) for side in size)
    assert (drawn != 90).any()


@pytest.mark.parametrize('label', [
    pytest.param('two\nlines\tand\x00more\x1b[0m', id='control characters'),
    pytest.param('x' * 500, id='500 characters'),
    pytest.param('', id='none'),
    pytest.param(' \u200b\u202e\ufeff', id='nothing visible'),
    pytest.param('\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 abc', id='right to left'),
    pytest.param('\u202eevil', id='turned round'),
    pytest.param('\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467\u2764\ufe0f', id='emoji'),
    pytest.param('Z\u0351\u036b\u0343' * 40, id='piled-up accents'),
    pytest.param('\ud800 half', id='half a character'),
    pytest.param('<script>alert(1)</script>', id='script'),
    pytest.param('$\\frac{1}{$', id='formula'),
    pytest.param('\u2474\u3008\u7ec6\u3009\ufb01', id='what stands for other characters'),
    pytest.param(17, id='a number'),
])
def test_any_class_name_is_drawn(label):
    arguments = (uniform(90), [0.9], [label], [rectangle(200, 150, 420, 330)])
    tagged, plain = draw_instances(*arguments), draw_instances(*arguments, tags=False)
    rows, columns = np.nonzero((tagged != plain).any(2))
    assert 10 < np.ptp(rows) < 40 and 20 < np.ptp(columns) < 400


@given(st.text(max_size=12))
@settings(max_examples=80, deadline=None)
def test_no_text_stops_a_drawing(text):
    letters = lettering(None, 12)
    line = as_line(text)
    assert letters.painted(line).shape == (letters.ascent + letters.descent, max(1, letters.length(line)))
    assert as_line(line) == line


def said(monkeypatch, canvas, objects):
    """The texts of tags that are drawn."""
    texts = []
    painted = Lettering.painted
    monkeypatch.setattr(Lettering, 'painted', lambda letters, text: texts.append(text) or painted(letters, text))
    with_tags(canvas, objects, None)
    return [' '.join(text.split()) for text in texts]


def grid(side, apart, count=20):
    return [(30 + apart * (number % 5), 40 + apart * (number // 5), 30 + apart * (number % 5) + side,
             40 + apart * (number // 5) + side) for number in range(count)]


@pytest.mark.parametrize('side, apart, label, expected', [
    pytest.param(30, 110, 'nucleus', {'nucleus 0.50'}, id='room beside objects that are narrower than their tags'),
    pytest.param(34, 38, 'nucleus', {'nucleus 0.50', '0.50'}, id='a crowd'),
    pytest.param(30, 110, 'a name that is much longer than objects are wide', {'0.50'}, id='a long name'),
])
def test_names_of_many_objects_are_whole_or_left_out(side, apart, label, expected, monkeypatch):
    texts = said(monkeypatch, uniform(0), shapes(grid(side, apart), label))
    assert set(texts) == expected


def test_names_of_many_objects_without_scores_are_shortened(monkeypatch):
    objects = shapes(grid(60, 62), 'nucleus of a cell')
    for item in objects:
        item.text = (item.text[0], '')
    texts = said(monkeypatch, uniform(0), objects)
    assert len(texts) == 20 and any(text.endswith(ELLIPSIS) for text in texts)


def test_tags_of_many_objects_that_are_wider_than_they_hide_no_object():
    boxes = grid(34, 60)
    canvas = with_tags(uniform(0), shapes(boxes, 'nucleus'), None)
    owner = np.zeros(SIZE, int)
    for number, (left, top, right, bottom) in enumerate(boxes, start=1):
        owner[top:bottom, left:right] = number
    wide = {number: box for number, box in tag_boxes(canvas).items() if box[3] - box[1] > 50}
    assert wide
    for number, (top, left, bottom, right) in wide.items():
        assert set(np.unique(owner[top:bottom, left:right])) <= {0, number + 1}


def test_a_highlighted_instance_keeps_its_picture_and_the_others_step_back():
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    masks = [rectangle(50, 100, 150, 200), rectangle(250, 100, 350, 200), rectangle(450, 100, 550, 200)]
    drawn = draw_instances(image, [0.9, 0.8, 0.7], ['a', 'b', 'c'], masks, highlight=1)

    def kept(left, right):
        """How much of a patch's contrast is left."""
        return drawn[120:180, left:right].std() / image[120:180, left:right].std()
    assert kept(270, 330) > 0.75 > 0.5 > kept(70, 130) and kept(470, 530) < 0.5 and kept(380, 420) < 0.5
    np.testing.assert_array_equal(drawn, draw_instances(image, [0.9, 0.8, 0.7], ['a', 'b', 'c'], masks, highlight=[1]))
    two = draw_instances(image, [0.9, 0.8, 0.7], ['a', 'b', 'c'], masks, highlight=[2, 1])
    assert two[120:180, 470:530].std() > 0.75 * image[120:180, 470:530].std()


def test_a_highlighted_instance_has_its_tag_even_where_others_are_hidden_by_it():
    masks = [rectangle(x, y, x + 10, y + 10) for x in range(20, 580, 40) for y in range(20, 440, 40)]
    arguments = (uniform(60), [0.5] * len(masks), ['cell'] * len(masks), masks)
    drawn, plain = (draw_instances(*arguments, highlight=9, tags=tags) for tags in (True, False))
    assert (drawn != plain).any()


def test_fill_outline_and_boxes_can_be_chosen():
    image, mask = uniform(60), rectangle(100, 100, 300, 300) | rectangle(250, 250, 400, 350)
    color = np.array(palette(1)[0])

    def drawn(**options):
        return draw_instances(image, None, ['a'], [mask], tags=False, **options)
    assert (drawn(opacity=0, outline=False) == image).all()
    solid = drawn(opacity=1, outline=False)
    assert (solid[mask > 0] == color).all() and (solid[mask == 0] == 60).all()
    boxed = drawn(opacity=0, outline=False, boxes_drawn=True)
    assert (boxed[100, 350] != 60).any() and (boxed[350, 150:160] != 60).any() and (boxed[200, 200] == 60).all()
    given = draw_instances(image, None, ['a'], [mask], [(10, 20, 600, 400)], tags=False, opacity=0, outline=False,
                           boxes_drawn=True)
    assert (given[20, 300] != 60).any() and (given[100, 350] == 60).all()


def test_a_mask_of_noise_is_drawn():
    noise = np.random.default_rng(0).integers(0, 2, SIZE, np.uint8)
    drawn = draw_instances(uniform(60), None, ['a'], [noise], tags=False)
    assert (drawn[noise > 0] != 60).any(1).all() and (drawn[noise == 0] == 60).all()


@pytest.mark.parametrize('options, message', [
    pytest.param({'opacity': 1.5}, 'opacity is 1.5', id='opacity'),
    pytest.param({'highlight': 1}, 'highlight is 1; there are 1 instances', id='highlight'),
    pytest.param({'highlight': [-1]}, 'highlight is -1', id='highlight from the end'),
    pytest.param({'highlight': 'a'}, "highlight is 'a'", id='highlight by name'),
    pytest.param({'colors': []}, '0 colors for 1 labels', id='colours'),
])
def test_what_cannot_be_drawn_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        draw_instances(uniform(60), [0.5], ['a'], [rectangle(1, 1, 9, 9)], **options)


@pytest.mark.parametrize('counts', [
    pytest.param('!!', id='no digits'), pytest.param('PPPP', id='no end'), pytest.param([5, 10 ** 7], id='too many'),
    pytest.param([5, -3, 9], id='negative'), pytest.param([[1.0, 2.0]], id='polygon')])
def test_broken_run_lengths_are_named(counts):
    with pytest.raises(ValueError, match='mask 0: RLE counts'):
        draw_instances(uniform(60), None, ['a'], [{'size': list(SIZE), 'counts': counts}])


masks_drawn = st.tuples(st.integers(1, 20), st.integers(1, 20)).flatmap(
    lambda size: st.binary(min_size=size[0] * size[1], max_size=size[0] * size[1]).map(
        lambda data: (np.frombuffer(data, np.uint8) % 5 > 2).reshape(size)))


@given(masks_drawn)
def test_run_lengths_are_decoded_within_their_bounds(mask):
    from pycocotools import mask as coco_mask

    from modelscope_fastinst.visualize.shapes import within_bounds
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    runs = np.diff(np.flatnonzero(np.diff(np.concatenate(([2], mask.T.ravel(), [2])))))
    plain = {'size': encoded['size'], 'counts': [*([0] if mask.T.ravel()[0] else []), *runs.tolist()]}
    expected, top, left = within_bounds(mask)
    whole = np.zeros(mask.shape, bool)
    whole[top:top + expected.shape[0], left:left + expected.shape[1]] = expected
    np.testing.assert_array_equal(whole, mask)
    assert not len(expected) or expected[0].any() and expected[-1].any() and expected[:, 0].any()
    text = {**encoded, 'counts': encoded['counts'].decode()}
    for form in (encoded, text, plain):
        found, *place = within_bounds(form)
        np.testing.assert_array_equal(found, expected)
        assert place == [top, left]


@pytest.mark.parametrize('scale', [0.5, 1.7, 3])
def test_masks_are_enlarged_as_the_picture_is(scale):
    import cv2

    mask = rectangle(30, 20, 90, 70, (120, 160))
    mask[0:15, 100:160] = 1   # at the border
    size = (round(120 * scale), round(160 * scale))
    whole = cv2.resize(mask * 255, size[::-1], interpolation=cv2.INTER_LINEAR) > 127
    item = Shape.build(mask, mask.shape, size, 'a', None, (0, 0, 0))
    found = np.zeros(size, bool)
    item.window(found)[:] = item.crop
    assert (found != whole).mean() < 0.002


def test_results_as_the_pipeline_gives_them_are_drawn_as_the_arrays_are():
    mask = rectangle(100, 100, 300, 300)
    found = Instances.from_result({'scores': [0.9], 'labels': ['a'], 'masks': [mask], 'boxes': [[100, 100, 300, 300]]})
    encoded = found.to_coco()[0]['segmentation']
    np.testing.assert_array_equal(draw_instances(uniform(9), [0.9], ['a'], [encoded]),
                                  draw_instances(uniform(9), found.scores, ['a'], found.masks, found.boxes))


def test_luminance_is_that_of_the_guidelines():
    assert luminance((255, 255, 255)) == pytest.approx(1) and contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast((119, 119, 119), (255, 255, 255)) == pytest.approx(4.48, abs=0.01)   # the grey next to 4.5
