"""Masks read as bytes give what float pictures of the whole canvas give."""
from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from modelscope_fastinst.objective import points
from modelscope_fastinst.objective.objects import BatchObjects, inside_cells
from modelscope_fastinst.structures import Target


def targets_of(*shapes, canvas):
    """Random masks ``(N, H, W)`` an image, on a canvas or, for None, on their own size."""
    generator = torch.Generator().manual_seed(0)
    found = [Target(torch.arange(shape[0]), torch.rand(shape, generator=generator) > 0.6) for shape in shapes]
    return [target.on_canvas(*canvas) if canvas else target for target in found]


def floats(targets):
    canvas = targets[0].canvas or targets[0].masks.shape[1:]
    return torch.cat([target.pad_to(*canvas).masks for target in targets]).float()


CASES = [
    pytest.param([(3, 32, 64)], None, id='one image'),
    pytest.param([(2, 20, 33), (0, 32, 64), (3, 32, 7)], (32, 64), id='images smaller than the canvas, one empty'),
    pytest.param([(0, 32, 64)], (32, 64), id='no object'),
    pytest.param([(1, 1, 1)], (32, 32), id='one pixel'),
]


@pytest.mark.parametrize('shapes, canvas', CASES)
def test_samples_are_those_of_the_padded_float_masks(shapes, canvas):
    targets = targets_of(*shapes, canvas=canvas)
    objects = BatchObjects(targets)
    at = torch.rand(len(objects), 500, 2)
    at[:, :4] = torch.tensor([[0., 0], [1, 1], [0, 1], [1, 0]])          # corners
    at[:, 4:8] = (torch.randint(0, 32, (len(objects), 4, 2)) + 0.5) / 32  # on or between pixels' centres
    expected = points.sample(floats(targets)[:, None], at)[:, 0]
    torch.testing.assert_close(objects.sample(at), expected, rtol=0, atol=1e-5)
    if len(objects):
        chosen = torch.tensor([len(objects) - 1, 0, 0])
        torch.testing.assert_close(objects.sample(at[chosen], chosen), expected[chosen], rtol=0, atol=1e-5)


def test_objects_are_numbered_over_the_batch():
    objects = BatchObjects(targets_of((2, 8, 8), (0, 8, 8), (1, 8, 8), canvas=None))
    assert (objects.counts, objects.starts, objects.image.tolist()) == ([2, 0, 1], [0, 2, 2], [0, 0, 2])
    assert objects.labels.tolist() == [0, 1, 0]


@pytest.mark.parametrize('grid', [pytest.param((2, 4), id='cells of 16 pixels'), pytest.param((8, 8), id='4 x 8'),
                                  pytest.param((32, 64), id='single pixels'), pytest.param((1, 1), id='one cell'),
                                  pytest.param((5, 7), id='cells of unequal size')])
@pytest.mark.parametrize('shape', [(2, 32, 64), (2, 17, 33), (0, 32, 64), (1, 1, 1)])
def test_cells_are_those_of_adaptive_max_pooling(shape, grid):
    target, = targets_of(shape, canvas=(32, 64))
    target.masks &= torch.rand(shape) > 0.97
    expected = F.adaptive_max_pool2d(floats([target])[None], grid)[0] > 0 if shape[0] else torch.zeros(0, *grid) > 0
    torch.testing.assert_close(inside_cells(target, grid), expected)


def test_a_canvas_smaller_than_the_masks_is_refused():
    with pytest.raises(ValueError, match='40 x 8 pixels does not fit on a canvas of 32 x 32'):
        targets_of((1, 40, 8), canvas=(32, 32))
