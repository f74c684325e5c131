"""Copy-paste: what is pasted, what it covers, and what is left out."""
from __future__ import annotations

import pytest
import torch

from modelscope_fastinst.data.augment import TrainTransform
from modelscope_fastinst.data.coco import CocoInstances
from modelscope_fastinst.data.copy_paste import CopyPaste, paste, with_copy_paste
from modelscope_fastinst.data.shapes import ShapesDataset
from modelscope_fastinst.structures import Sample, Target


def boxes(height, width, *objects, value=0, name=''):
    """A sample of one grey value whose objects are ``(label, top, left, bottom, right)``, as bright as ten labels."""
    image = torch.full((3, height, width), value, dtype=torch.uint8)
    masks = torch.zeros(len(objects), height, width, dtype=torch.bool)
    for mask, (label, top, left, bottom, right) in zip(masks, objects, strict=True):
        mask[top:bottom, left:right] = True
        image[:, mask] = 10 * label % 250
    return Sample(image, Target(torch.tensor([box[0] for box in objects], dtype=torch.long), masks), file_name=name)


def test_objects_come_with_their_pixels_and_cover_what_is_below():
    below = boxes(20, 30, (1, 0, 0, 10, 10), (2, 0, 20, 10, 30))
    above = boxes(20, 30, (3, 5, 5, 15, 15), value=200)
    result = paste(below, above, 10)
    assert result.target.labels.tolist() == [1, 2, 3]
    first, second, pasted = result.target.masks
    assert torch.equal(pasted, above.target.masks[0])
    assert torch.equal(first, below.target.masks[0] & ~pasted) and torch.equal(second, below.target.masks[1])
    assert (result.image[:, pasted] == 30).all()
    assert torch.equal(result.image[:, ~pasted], below.image[:, ~pasted])
    assert torch.equal(below.image, boxes(20, 30, (1, 0, 0, 10, 10), (2, 0, 20, 10, 30)).image)   # is left as it was


@pytest.mark.parametrize(('covered', 'kept'), [
    pytest.param(100, False, id='all of it'), pytest.param(91, False, id='nearly all'),
    pytest.param(90, True, id='to the threshold'), pytest.param(50, True, id='half')])
def test_objects_of_which_too_little_is_seen_are_left_out(covered, kept):
    below = boxes(1, 200, (1, 0, 0, 1, 100), (2, 0, 150, 1, 160))
    result = paste(below, boxes(1, 200, (3, 0, 0, 1, covered)), 10, min_visible=0.1)
    assert result.target.labels.tolist() == ([1, 2, 3] if kept else [2, 3])


def test_without_a_threshold_one_pixel_is_enough_and_none_is_not():
    below = boxes(1, 20, (1, 0, 0, 1, 10), (2, 0, 10, 1, 19))
    result = paste(below, boxes(1, 20, (3, 0, 1, 1, 19)), 10, min_visible=0.0)
    assert result.target.labels.tolist() == [1, 3]


def test_masks_that_a_crop_emptied_before_stay():
    below = boxes(4, 4, (1, 0, 0, 0, 0), (2, 0, 0, 4, 4))
    assert paste(below, boxes(4, 4, (3, 0, 0, 2, 2)), 1).target.labels.tolist() == [1, 2, 3]


@pytest.mark.parametrize('size', [pytest.param((10, 40), id='lower and wider'), pytest.param((60, 10), id='higher'),
                                  pytest.param((7, 9), id='smaller'), pytest.param((90, 120), id='larger')])
@pytest.mark.parametrize('scale', [pytest.param((1.0, 1.0), id='as it is'), pytest.param((0.3, 2.5), id='scaled')])
def test_images_of_any_size_fit(size, scale):
    """What is pasted is the pasted colour everywhere, wherever it comes to lie, and nothing else is."""
    height, width = size
    below = boxes(20, 30, value=5)
    above = boxes(height, width, (7, 0, 0, height, width))
    for seed in range(5):
        torch.manual_seed(seed)
        result = paste(below, above, 10, scale, min_visible=0.0)
        assert result.image.shape == (3, 20, 30) and result.target.masks.shape == (1, 20, 30)
        pasted = result.target.masks[0]
        assert (result.image[:, pasted] == 70).all() and (result.image[:, ~pasted] == 5).all()
        if scale == (1.0, 1.0):
            factor = min(1, 20 / height, 30 / width)
            assert pasted.sum() == int(height * factor + 0.5) * int(width * factor + 0.5)


def test_the_place_is_random():
    places = set()
    for seed in range(20):
        torch.manual_seed(seed)
        places.add(tuple(paste(boxes(20, 30), boxes(5, 5, (1, 0, 0, 5, 5)), 1).target.masks[0].nonzero()[0].tolist()))
    assert len(places) > 10


def test_never_more_than_the_most_objects():
    above = boxes(20, 30, *[(label, 0, label, 20, label + 1) for label in range(1, 21)])
    numbers = set()
    for seed in range(40):
        torch.manual_seed(seed)
        labels = paste(boxes(20, 30), above, 4).target.labels.tolist()
        assert len(set(labels)) == len(labels)
        numbers.add(len(labels))
    assert numbers == {1, 2, 3, 4}


def test_objects_cut_off_at_the_border_are_not_pasted():
    """Enlarged twice, of a source that fills the image, a part of the objects lies outside."""
    above = boxes(20, 20, *[(row * 10 + column, row * 2, column * 2, row * 2 + 2, column * 2 + 2)
                            for row in range(10) for column in range(10)])
    for seed in range(10):
        torch.manual_seed(seed)
        result = paste(boxes(20, 20), above, 100, (2.0, 2.0), min_visible=0.6)
        assert 1 <= len(result.target) <= 36 and (result.target.masks.flatten(1).sum(1) >= 0.6 * 16).all()


@pytest.mark.parametrize('above', [pytest.param(boxes(4, 4), id='without objects'),
                                   pytest.param(boxes(4, 4, (1, 0, 0, 0, 0)), id='with an empty one')])
def test_nothing_to_paste(above):
    below = boxes(4, 4, (2, 0, 0, 2, 2))
    assert paste(below, above, 10) is below


def test_how_often_and_from_which_image():
    data = [boxes(6, 6, (label, 0, 0, 3, 3), name=f'{label}.png') for label in range(4)]
    torch.manual_seed(0)
    samples = [CopyPaste(data, probability=0.5)[index % 4] for index in range(200)]
    pasted = [sample for sample in samples if ' with objects of ' in sample.file_name]
    assert 70 < len(pasted) < 130
    pairs = {tuple(sample.file_name.split(' with objects of ')) for sample in pasted}
    assert pairs == {(f'{a}.png', f'{b}.png') for a in range(4) for b in range(4) if a != b}


def test_one_image_alone_stays_as_it_is():
    data = [boxes(6, 6, (1, 0, 0, 3, 3))]
    assert CopyPaste(data, probability=1.0)[0] is data[0]


def test_polygons_and_run_lengths_from_a_file(tmp_path):
    transform = TrainTransform(64, None, None, copy_paste={'probability': 1.0, 'min_visible': 0.0})
    shapes = ShapesDataset(4, (64, 80), objects=(2, 3))
    file, images = shapes.write_coco(tmp_path)
    data = with_copy_paste(CocoInstances(file, images, transform=transform), transform)
    assert (data.classes, data.sizes, len(data)) == (shapes.classes, [(64, 80)] * 4, 4)
    torch.manual_seed(0)
    assert max(len(data[index].target) - len(shapes[index].target) for index in range(4)) >= 1


def test_without_the_setting_the_data_set_is_itself():
    data = [boxes(6, 6)]
    assert with_copy_paste(data, TrainTransform()) is data
    assert with_copy_paste(None, TrainTransform(copy_paste={})) is None
    assert with_copy_paste(data, lambda sample: sample) is data


@pytest.mark.parametrize(('settings', 'message'), [
    pytest.param({'probability': 2}, r'copy_paste.probability is a probability .* got 2', id='probability'),
    pytest.param({'max_objects': 0}, 'copy_paste.max_objects must be a whole number of objects', id='no object'),
    pytest.param({'scale': [2, 1]}, r'copy_paste.scale must be \[smallest, largest\]', id='scale that falls'),
    pytest.param({'scale': 0.5}, 'copy_paste.scale must be', id='one scale'),
    pytest.param({'scale': [0, 1]}, 'copy_paste.scale must be', id='scale zero'),
    pytest.param({'min_visible': -1}, 'copy_paste.min_visible is a probability', id='share'),
    pytest.param({'chance': 1}, r"copy_paste has unknown keys \['chance'\]", id='unknown key'),
    pytest.param(True, 'copy_paste must be a mapping', id='no mapping'),
])
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainTransform(copy_paste=settings)
