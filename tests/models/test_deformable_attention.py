"""Deformable attention against its definition, its ways of computing against each other, and mmcv's kernel."""
from __future__ import annotations

import importlib.util
import math

import pytest
import torch

from modelscope_fastinst.models.deformable_attention import (
    MSDeformAttn,
    sample_by_bags,
    sample_by_grid,
    sample_by_mmcv,
)

WAYS = [sample_by_grid, sample_by_bags]
HAS_MMCV_OPS = importlib.util.find_spec('mmcv') is not None and importlib.util.find_spec('mmcv._ext') is not None


def scene(shapes: list[tuple[int, int]], *, batch: int = 2, queries: int = 7, heads: int = 2, width: int = 3,
          points: int = 4, dtype: torch.dtype = torch.float64, spread: float = 3.0) -> tuple[torch.Tensor, ...]:
    """(value, pixels, weights); points lie inside and outside of the maps."""
    generator = torch.Generator().manual_seed(5)
    pixels = sum(h * w for h, w in shapes)
    value = torch.randn(batch, pixels, heads, width, generator=generator, dtype=dtype)
    places = torch.randn(batch, queries, heads, len(shapes), points, 2, generator=generator, dtype=dtype) * spread + 2
    weights = torch.rand(batch, queries, heads, len(shapes), points, generator=generator, dtype=dtype)
    return value, places, weights


def by_definition(value, shapes, pixels, weights):
    """Equation 3 of the paper, one sample at a time."""
    batch, _, heads, width = value.shape
    result = torch.zeros(batch, pixels.shape[1], heads, width, dtype=value.dtype)
    start = 0
    for level, (h, w) in enumerate(shapes):
        plane = value[:, start:start + h * w].unflatten(1, (h, w))
        start += h * w
        for b, q, head, point in torch.cartesian_prod(*map(torch.arange, (*result.shape[:3], pixels.shape[4]))):
            x, y = pixels[b, q, head, level, point].tolist()
            for row in (math.floor(y), math.floor(y) + 1):
                for column in (math.floor(x), math.floor(x) + 1):
                    if 0 <= row < h and 0 <= column < w:
                        share = (1 - abs(y - row)) * (1 - abs(x - column)) * weights[b, q, head, level, point]
                        result[b, q, head] += share * plane[b, row, column, head]
    return result.flatten(2)


@pytest.mark.parametrize('sample', WAYS)
@pytest.mark.parametrize('shapes', [
    pytest.param([(4, 5)], id='one map'),
    pytest.param([(2, 3), (5, 4), (7, 9)], id='three maps'),
    pytest.param([(1, 1), (1, 6), (6, 1)], id='maps of one pixel, row or column'),
])
def test_sums_what_the_definition_says(sample, shapes):
    value, pixels, weights = scene(shapes)
    torch.testing.assert_close(sample(value, shapes, pixels, weights), by_definition(value, shapes, pixels, weights))


@pytest.mark.parametrize('sample', WAYS)
@pytest.mark.parametrize(('place', 'expected'), [
    pytest.param((0.0, 0.0), 1.0, id='the centre of the first pixel'),
    pytest.param((2.0, 1.0), 6.0, id='the centre of the last pixel'),
    pytest.param((0.5, 0.0), 1.5, id='between two'),
    pytest.param((-0.5, 0.0), 0.5, id='half outside'),
    pytest.param((-1.0, 0.0), 0.0, id='outside to the left'),
    pytest.param((3.0, 1.0), 0.0, id='outside to the right, where the next row begins'),
    pytest.param((2.5, 1.5), 1.5, id='beyond the last corner'),
    pytest.param((0.0, 2.0), 0.0, id='below'),
    pytest.param((1e6, -1e6), 0.0, id='far away'),
])
def test_places(sample, place, expected):
    value = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 100.0]).view(1, 7, 1, 1)   # 2 x 3, and another map
    pixels = torch.tensor([place, (50.0, 50.0)]).view(1, 1, 1, 2, 1, 2)
    result = sample(value, [(2, 3), (1, 1)], pixels, torch.ones(1, 1, 1, 2, 1))
    assert result.item() == pytest.approx(expected)


def test_both_ways_have_the_same_gradients():
    shapes = [(3, 4), (6, 8)]
    inputs = [x.requires_grad_() for x in scene(shapes, spread=2.0)]
    grads = [torch.autograd.grad(way(inputs[0], shapes, *inputs[1:]).sin().sum(), inputs) for way in WAYS]
    assert all(bool(x.any()) for x in grads[0])
    for first, second in zip(*grads, strict=True):
        torch.testing.assert_close(first, second)


def test_gradients_are_those_of_small_changes():
    shapes = [(3, 4), (2, 2)]
    inputs = [x.requires_grad_() for x in scene(shapes, batch=1, queries=2, heads=1, points=2)]
    assert torch.autograd.gradcheck(lambda *x: sample_by_bags(x[0], shapes, *x[1:]), inputs)


@pytest.mark.parametrize('sample', WAYS)
def test_places_that_are_no_numbers_do_not_reach_foreign_memory(sample):
    """A training that has diverged: the loss is to say so, not the process to die."""
    value, pixels, weights = scene([(3, 4)])
    pixels[0, 0] = float('nan')
    result = sample(value, [(3, 4)], pixels, weights)
    assert bool(torch.isfinite(result[1]).all())


def test_first_looks_around_with_equal_weights():
    attention = MSDeformAttn(16, num_levels=2, num_heads=8, num_points=3)
    offsets = attention.sampling_offsets(torch.randn(1, 1, 16)).view(8, 2, 3, 2)
    assert torch.allclose(offsets[0, 1], torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]))
    assert torch.allclose(offsets[1, 0, 1], torch.tensor([2.0, 2.0]))   # the corner of a square, not of a circle
    assert torch.allclose(offsets[6, 0, 0], torch.tensor([0.0, -1.0]), atol=1e-6)
    assert not attention.attention_weights.weight.any() and not attention.attention_weights.bias.any()


def _attention() -> tuple[MSDeformAttn, tuple]:
    torch.manual_seed(0)
    shapes = ((2, 3), (4, 6))
    attention = MSDeformAttn(16, num_levels=2, num_heads=2, num_points=2).eval()
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return attention, (torch.randn(1, 30, 16), torch.rand(30, 2), torch.randn(1, 30, 16), shapes)


@pytest.mark.filterwarnings('ignore')   # torch.jit.trace, which older exporters use, is deprecated
def test_what_is_exported_is_grid_sample():
    attention, arguments = _attention()

    class Exported(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = attention

        def forward(self, queries, references, memory):
            return self.attention(queries, references, memory, arguments[3])

    with torch.no_grad():
        program = torch.export.export(Exported(), arguments[:3])
        names = [str(node.target) for node in program.graph.nodes]
        assert sum('grid_sampler' in name for name in names) == 2 and not any('embedding_bag' in name for name in names)
        torch.testing.assert_close(program.module()(*arguments[:3]), attention(*arguments))
        traced = torch.jit.trace(Exported(), arguments[:3])
        assert 'grid_sampler' in str(traced.inlined_graph)
        torch.testing.assert_close(traced(*arguments[:3]), attention(*arguments))


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_does_not_blur_places(dtype):
    """Offsets of a network in half precision are rounded once, not their sum with places of hundreds of pixels."""
    attention, _ = _attention()
    attention = attention.to(dtype)
    shapes, count = ((1, 500), (1, 500)), 1000
    references = torch.tensor([[0.7010, 0.5]]).expand(1, 2)
    torch.nn.init.zeros_(attention.sampling_offsets.weight)
    torch.nn.init.zeros_(attention.sampling_offsets.bias)
    torch.nn.init.eye_(attention.value_proj.weight)
    torch.nn.init.zeros_(attention.value_proj.bias)
    torch.nn.init.eye_(attention.output_proj.weight)
    torch.nn.init.zeros_(attention.output_proj.bias)
    memory = torch.zeros(1, count, 16, dtype=dtype)
    memory[:, 350] = memory[:, 850] = 1.0   # 0.7010 * 500 - 0.5 = 350.0
    result = attention(torch.zeros(1, 1, 16, dtype=dtype), references, memory, shapes)
    assert result.dtype == dtype and bool((result > 0.98).all())


@pytest.mark.skipif(HAS_MMCV_OPS, reason='mmcv\'s operators are installed')
def test_asking_for_mmcvs_kernel_without_mmcv_is_an_error_that_says_so():
    with pytest.raises(ImportError, match='model.encoder.kernel is "mmcv", but mmcv with its compiled operators is not '
                                          'installed .*install mmcv .*or leave "kernel" out'):
        MSDeformAttn(kernel='mmcv')


@pytest.mark.skipif(not (HAS_MMCV_OPS and torch.cuda.is_available()), reason='mmcv\'s operators and a GPU are needed')
def test_mmcvs_kernel_computes_the_same():
    shapes = [(4, 6), (8, 12), (16, 24)]
    value, pixels, weights = (x.cuda() for x in scene(shapes, width=8, dtype=torch.float32))
    torch.testing.assert_close(sample_by_mmcv(value, shapes, pixels, weights),
                               sample_by_grid(value, shapes, pixels, weights), rtol=1e-4, atol=1e-4)
