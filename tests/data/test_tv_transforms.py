"""A user's torchvision.transforms.v2 as the training's augmentation."""
from __future__ import annotations

import pytest
import torch
from torchvision.transforms import v2

from modelscope_fastinst.data.shapes import ShapesDataset
from modelscope_fastinst.data.tv_transforms import V2Transform, adapted, is_v2
from modelscope_fastinst.structures import Sample, Target


def painted(height=60, width=80):
    """A black image with a white object at the top left, and an empty mask."""
    masks = torch.zeros(2, height, width, dtype=torch.bool)
    masks[0, 10:30, 20:50] = True
    return Sample(masks[:1].repeat(3, 1, 1).byte() * 255, Target(torch.tensor([2, 1]), masks), image_id=7)


def test_image_and_masks_move_together():
    torch.manual_seed(0)
    sample = V2Transform(v2.Compose([v2.RandomHorizontalFlip(1.0), v2.Resize((30, 40), antialias=False),
                                     v2.RandomCrop((20, 24))]))(painted())
    assert type(sample.image) is type(sample.target.masks) is torch.Tensor
    assert sample.image.shape == (3, 20, 24) and sample.target.masks.shape == (2, 20, 24)
    assert sample.image.dtype == torch.uint8 and sample.target.masks.dtype == torch.bool
    assert ((sample.image[0] > 127) != sample.target.masks[0]).sum() < 40   # of 480: the border is soft
    assert sample.target.masks[0].any()
    assert (sample.image_id, sample.original_size, sample.target.labels.tolist()) == (7, (60, 80), [2, 1])


def test_boxes_are_tight_around_the_masks():
    seen = {}

    def look(given):
        seen.update(given)
        return given
    V2Transform(look)(painted())
    assert seen['boxes'].tolist() == [[20, 10, 50, 30], [0, 0, 0, 0]]
    assert seen['boxes'].canvas_size == (60, 80)


def test_objects_that_a_crop_lost_are_left_out_with_their_labels():
    torch.manual_seed(1)
    transform = V2Transform(v2.Compose([v2.RandomIoUCrop(), v2.SanitizeBoundingBoxes()]))
    for _ in range(5):
        sample = transform(painted())
        assert sample.target.labels.tolist() == [2]
        assert sample.target.masks.shape[1:] == sample.image.shape[1:]


def test_floats_of_zero_to_one_become_colours_again():
    sample = V2Transform(v2.ToDtype(torch.float32, scale=True))(painted())
    assert torch.equal(sample.image, painted().image)


def test_without_ground_truth():
    sample = V2Transform(v2.Compose([v2.Resize((10, 12))]))(Sample(torch.zeros(3, 20, 24, dtype=torch.uint8)))
    assert sample.target is None and sample.image.shape == (3, 10, 12)


def test_an_image_without_objects():
    empty = Sample(torch.zeros(3, 8, 8, dtype=torch.uint8),
                   Target(torch.zeros(0, dtype=torch.long), torch.zeros(0, 8, 8, dtype=torch.bool)))
    sample = V2Transform(v2.Compose([v2.Resize((4, 4)), v2.SanitizeBoundingBoxes()]))(empty)
    assert sample.target.masks.shape == (0, 4, 4)


def test_as_the_transform_of_a_data_set():
    transform = V2Transform(v2.Compose([v2.ScaleJitter((48, 64)), v2.RandomRotation(20)]))
    data = ShapesDataset(2, (48, 64), transform=transform)
    torch.manual_seed(0)
    for index in range(2):
        sample = data[index]
        assert sample.target.masks.shape[1:] == sample.image.shape[1:]


@pytest.mark.parametrize(('transform', 'message'), [
    pytest.param(v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.1] * 3)]),
                 'leave out Normalize, the network does it', id='normalised'),
    pytest.param(v2.Grayscale(), r'must give an RGB image \[3, H, W\]; got \(1, 60, 80\)', id='grey'),
    pytest.param(lambda given: {**given, 'image': given['image'][:, :5]}, 'do not fit together', id='image alone'),
    pytest.param(lambda given: {**given, 'labels': given['labels'][:1]}, 'do not fit together', id='labels alone'),
])
def test_what_cannot_be_used_is_named(transform, message):
    with pytest.raises(ValueError, match=message):
        V2Transform(transform)(painted())


def test_which_transforms_are_adapted():
    compose = v2.Compose([v2.RandomHorizontalFlip()])
    assert is_v2(compose) and adapted(compose).transform is compose
    assert not is_v2(None) and adapted(painted) is painted
