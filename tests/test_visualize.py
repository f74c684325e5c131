"""Pictures of instances."""
from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from modelscope_fastinst import fonts
from modelscope_fastinst.visualize import draw_instances, palette, side_by_side

GREY = np.full((120, 160, 3), 128, np.uint8)


def rectangle(left, top, right, bottom, size=(120, 160)):
    mask = np.zeros(size, np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def changed(picture, image=GREY):
    return (picture != image).any(2)


def draw(*boxes, labels=None, scores=None, **options):
    masks = [rectangle(*box) for box in boxes]
    return draw_instances(GREY, scores, labels or ['cat'] * len(boxes), masks, **options)


def test_a_mask_is_tinted_inside_outlined_at_its_border_and_untouched_outside():
    image = GREY.copy()
    picture = draw_instances(image, None, ['cat'], [rectangle(40, 30, 100, 90)], tags=False)
    color = np.array(palette(1)[0])
    np.testing.assert_allclose(picture[60, 70], 0.62 * 128 + 0.38 * color, atol=1)
    np.testing.assert_allclose(picture[60, 40].astype(int), color, atol=45)   # antialiased
    outside = changed(picture)
    outside[27:93, 37:103] = False
    assert not outside.any()
    assert not changed(image).any() and picture.dtype == np.uint8


@pytest.mark.parametrize('masks', [
    pytest.param(np.stack([rectangle(10, 10, 40, 40), rectangle(60, 50, 90, 80)]), id='one array'),
    pytest.param([rectangle(10, 10, 40, 40) > 0, rectangle(60, 50, 90, 80) > 0], id='bool arrays'),
    pytest.param([coco_mask.encode(np.asfortranarray(rectangle(*box)))
                  for box in ((10, 10, 40, 40), (60, 50, 90, 80))], id='RLE'),
])
def test_masks_may_come_in_any_form(masks):
    boxes = [(10, 10, 40, 40), (60, 50, 90, 80)]
    picture = draw_instances(GREY, [0.9, 0.8], ['cat', 'dog'], masks, boxes)
    np.testing.assert_array_equal(picture, draw(*boxes, labels=['cat', 'dog'], scores=[0.9, 0.8]))


def fill_colors(picture, *points):
    return [tuple(picture[y, x]) for x, y in points]


def test_colours_by_instance_and_by_class():
    boxes, points = [(5, 5, 45, 45), (55, 5, 95, 45), (105, 5, 145, 45)], [(25, 25), (75, 25), (125, 25)]
    labels = ['dog', 'cat', 'dog']
    by_instance = fill_colors(draw(*boxes, labels=labels, tags=False), *points)
    assert len(set(by_instance)) == 3
    first, second, third = fill_colors(draw(*boxes, labels=labels, color_by='class', tags=False), *points)
    assert first == third != second


def test_a_class_keeps_its_colour_from_picture_to_picture():
    options = {'color_by': 'class', 'classes': ['bird', 'cat', 'dog'], 'tags': False}
    alone = fill_colors(draw((5, 5, 45, 45), labels=['dog'], **options), (25, 25))
    assert fill_colors(draw((5, 5, 45, 45), (55, 5, 95, 45), labels=['cat', 'dog'], **options), (75, 25)) == alone


def test_palette_is_stable_and_distinct():
    colors = palette(60)
    assert colors[:20] == palette(20) and len(set(colors)) == 60
    neighbours = np.abs(np.diff(np.array(colors), axis=0)).sum(1)
    assert neighbours.min() > 60


def tags_of(picture, untagged):
    """Number of separate tags: connected regions in which two pictures differ."""
    from scipy import ndimage
    return ndimage.label((picture != untagged).any(2))[1]


def test_every_object_with_room_has_a_tag_and_tags_do_not_overlap():
    image = np.full((400, 600, 3), 60, np.uint8)
    boxes = [(20, 60, 180, 180), (220, 60, 380, 180), (420, 60, 580, 180), (20, 240, 180, 380)]
    arguments = (image, [0.9, 0.8, 0.7, 0.6], list('abcd'), [rectangle(*box, size=(400, 600)) for box in boxes])
    assert tags_of(draw_instances(*arguments), draw_instances(*arguments, tags=False)) == 4


def test_small_objects_in_a_crowd_have_no_tags():
    image = np.full((400, 600, 3), 60, np.uint8)
    masks = [rectangle(x, y, x + 10, y + 10, (400, 600)) for x in range(20, 580, 40) for y in range(20, 380, 40)]
    masks.append(rectangle(200, 100, 420, 300, (400, 600)))
    arguments = (image, [0.5] * len(masks), ['cell'] * len(masks), masks)
    assert tags_of(draw_instances(*arguments), draw_instances(*arguments, tags=False)) == 1


def test_a_tag_does_not_hide_another_object():
    # Right above the large object, where its tag would go first, lies a small one.
    image = np.full((400, 600, 3), 60, np.uint8)
    small = rectangle(290, 186, 310, 198, (400, 600))
    masks = [rectangle(200, 200, 400, 350, (400, 600)), small]
    for number in (1, 2):
        arguments = (image, [0.9, 0.8][:number], ['plate', 'pea'][:number], masks[:number])
        tag = changed(draw_instances(*arguments), draw_instances(*arguments, tags=False))
        assert tag[small > 0].any() == (number == 1)


@pytest.mark.parametrize('image', [
    pytest.param(np.zeros((1, 1, 3), np.uint8), id='one pixel'),
    pytest.param(np.zeros((1, 300, 3), np.uint8), id='a line'),
    pytest.param(np.zeros((300, 1, 3), np.uint8), id='a column'),
])
def test_images_too_small_for_tags(image):
    picture = draw_instances(image, [0.9], ['cat'], np.ones((1, *image.shape[:2]), np.uint8))
    assert picture.shape == image.shape and picture.any()


def test_nothing_found_and_empty_masks_leave_the_image_as_it_is():
    assert not changed(draw_instances(GREY, [], [], np.zeros((0, 120, 160), np.uint8))).any()
    assert not changed(draw_instances(GREY, [0.9], ['cat'], np.zeros((1, 120, 160), np.uint8))).any()


def test_scale_enlarges_image_and_masks():
    picture = draw((40, 30, 100, 90), scale=2.5, tags=False)
    assert picture.shape == (300, 400, 3)
    rows, columns = np.nonzero(changed(picture, np.full_like(picture, 128)))
    bounds = np.array([columns.min(), rows.min(), columns.max(), rows.max()])
    assert np.abs(bounds - [100, 75, 249, 224]).max() <= 3   # half a line and its edge


def test_pictures_stand_side_by_side_with_titles():
    sheet = side_by_side([np.zeros((50, 60, 3), np.uint8), np.full((80, 40, 3), 9, np.uint8)], ['truth', 'found'])
    assert (sheet == 0).all(2).sum() >= 50 * 60 and (sheet == 9).all(2).sum() >= 80 * 40
    assert sheet.shape[0] > 80 and sheet.shape[1] > 100 and (sheet[-1] == 255).all()
    with pytest.raises(ValueError, match='1 titles for 2 pictures'):
        side_by_side([GREY, GREY], ['one'])


def test_a_title_wider_than_its_picture_is_not_cut_off():
    narrow = np.zeros((400, 30, 3), np.uint8)
    short, long = (side_by_side([narrow, narrow], ['', title]) for title in ('', 'found: 12 of 20 false, PQ 0.40'))
    dark = (long < 128).all(2)
    assert long.shape[1] > short.shape[1] and not dark[:, -3:].any()   # the last letter lies within the sheet
    assert dark[-50].sum() == 60   # and both pictures are as wide as they were


@pytest.mark.parametrize('arguments, message', [
    pytest.param((GREY.astype(float), [0.5], ['cat'], [rectangle(0, 0, 9, 9)]), 'must be uint8', id='float image'),
    pytest.param((GREY[..., 0], [0.5], ['cat'], [rectangle(0, 0, 9, 9)]), 'must be uint8', id='grey image'),
    pytest.param((GREY, [0.5, 0.4], ['cat'], [rectangle(0, 0, 9, 9)]), '2 scores for 1 labels', id='scores'),
    pytest.param((GREY, [0.5], ['cat'], []), '0 masks for 1 labels', id='masks'),
    pytest.param((GREY, [0.5], ['cat'], [rectangle(0, 0, 9, 9, (60, 80))]), 'mask 0 is 60 x 80', id='mask size'),
])
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        draw_instances(*arguments)


# Of a private use area, where only fonts made for somebody's own purposes have anything.
UNHEARD_OF = '\U000f1234'


def test_labels_that_no_font_can_draw_are_told_once(monkeypatch, caplog):
    monkeypatch.setattr(fonts, '_warned', False)
    draw((20, 40, 90, 90), labels=['cell nucleus \u7ec6\u80de\u6838 \u0443\u03b3\u306e'])
    draw((20, 40, 90, 90), labels=[UNHEARD_OF], tags=False)
    assert not caplog.records
    for size in (90, 91):
        draw((20, 40, 90, size), labels=[f'{UNHEARD_OF} A'])
        draw((20, 40, 90, size), labels=[f'{UNHEARD_OF} B'])
    [record] = caplog.records
    assert '\\U000f1234' in record.getMessage() and '--font' in record.getMessage() and 'A' not in record.getMessage()


def test_a_font_file_is_used():
    usual, other = (draw((20, 40, 90, 90), labels=['cat'], font=file) for file in (None, _dejavu()))
    assert changed(other, usual).any()


def test_what_a_font_file_lacks_comes_from_another():
    two, one = (draw((20, 40, 110, 90), labels=[label], font=_dejavu()) for label in ('\u7ec6\u80de', '\u7ec6\u7ec6'))
    assert changed(two, one).any()   # two characters, no boxes


def _dejavu():
    import matplotlib
    return f'{matplotlib.get_data_path()}/fonts/ttf/DejaVuSerif.ttf'


def test_a_font_that_is_none_is_named(tmp_path):
    with pytest.raises(ValueError, match='gone.ttf: is no font file that can be read'):
        draw((20, 40, 90, 90), font=tmp_path / 'gone.ttf')


def test_an_unknown_colour_scheme_is_refused():
    with pytest.raises(ValueError, match="color_by is 'size'; it must be one of instance, class"):
        draw(color_by='size')


def test_real_images_with_many_objects(shared_data):
    from pycocotools.coco import COCO
    coco = COCO(str(shared_data / 'nuclei' / 'instances_val.json'))
    image_id = max(coco.getImgIds(), key=lambda key: len(coco.imgToAnns[key]))
    file = shared_data / 'nuclei' / 'val' / coco.imgs[image_id]['file_name']
    image = np.array(Image.open(file).convert('RGB'))
    annotations = coco.imgToAnns[image_id]
    masks = [coco.annToRLE(annotation) for annotation in annotations]
    picture = draw_instances(image, None, ['nucleus'] * len(masks), masks, tags=False)
    union = coco_mask.decode(coco_mask.merge(masks)) > 0
    assert changed(picture, image)[union].mean() > 0.98
