"""Multi-scale deformable attention: each query looks at a few points of every feature map, at places that it chooses.

Deformable DETR (Zhu et al., ICLR 2021, arXiv 2010.04159), equation 3. Points are in pixels of their map: the centre of
the first pixel is (0, 0), and what lies outside of a map is 0.
"""
from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KERNELS = ('torch', 'mmcv')
Shapes = Sequence['tuple[int, int]']


class MSDeformAttn(nn.Module):
    """Multi-scale deformable attention.

    Keys: ``sampling_offsets``, ``attention_weights``, ``value_proj``, ``output_proj``. At first each head looks along
    a direction of its own, at 1, 2, ... pixels' distance, with equal weights, as published.

    Args:
        channels: C, width of queries and of the memory; a multiple of ``num_heads``.
        num_levels: L, feature maps.
        num_heads: attention heads, which share the channels.
        num_points: P, points of each head in each map.
        kernel: ``'torch'``; or ``'mmcv'`` for mmcv's compiled kernel wherever tensors are on a GPU.

    Raises:
        ValueError: heads do not divide the channels, or the kernel is unknown.
        ImportError: mmcv's kernel is asked for and not installed.
    """

    def __init__(self, channels: int = 256, num_levels: int = 3, num_heads: int = 8, num_points: int = 4,
                 kernel: str = 'torch'):
        super().__init__()
        if channels % num_heads:
            raise ValueError(f'deformable attention shares its channels among heads: {channels} channels are no '
                             f'multiple of {num_heads} heads')
        if kernel not in KERNELS:
            raise ValueError(f'encoder kernel {kernel!r} is unknown; choose one of {list(KERNELS)}')
        if kernel == 'mmcv':
            _mmcv_kernel()   # a missing package is to be known before anything is computed
        self.num_levels, self.num_heads, self.num_points, self.kernel = num_levels, num_heads, num_points, kernel
        points = num_heads * num_levels * num_points
        self.sampling_offsets = nn.Linear(channels, points * 2)
        self.attention_weights = nn.Linear(channels, points)
        self.value_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """The initialisation of the authors of Deformable DETR."""
        for linear in (self.sampling_offsets, self.attention_weights, self.value_proj, self.output_proj):
            nn.init.zeros_(linear.bias)
        nn.init.zeros_(self.sampling_offsets.weight)
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.xavier_uniform_(self.value_proj.weight)
        nn.init.xavier_uniform_(self.output_proj.weight)
        angles = torch.arange(self.num_heads, dtype=torch.float32) * (2 * math.pi / self.num_heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
        directions /= directions.abs().amax(dim=-1, keepdim=True)
        distances = torch.arange(1, self.num_points + 1, dtype=torch.float32)
        offsets = directions[:, None, None, :] * distances[:, None]
        self.sampling_offsets.bias.copy_(offsets.expand(-1, self.num_levels, -1, -1).flatten())

    def forward(self, queries: Tensor, references: Tensor, memory: Tensor, shapes: Shapes) -> Tensor:
        """Attends.

        Args:
            queries: ``[B, Q, C]``, content and position.
            references: ``[Q, 2]``, (x, y) in [0, 1] of every map, from which the queries' offsets count.
            memory: ``[B, S, C]``, the pixels of all maps, row by row and map by map.
            shapes: (height, width) of each of the L maps; S pixels in all.

        Returns:
            ``[B, Q, C]``.
        """
        batch, count, channels = queries.shape
        split = (batch, count, self.num_heads, self.num_levels, self.num_points)
        value = self.value_proj(memory).view(batch, -1, self.num_heads, channels // self.num_heads)
        # Half precision has too few digits for places in a map.
        exact = torch.promote_types(value.dtype, torch.float32)
        offsets = self.sampling_offsets(queries).to(exact).view(*split, 2)
        weights = self.attention_weights(queries).to(exact).view(*split[:3], -1).softmax(dim=-1).view(split)
        sizes = torch.tensor([[width, height] for height, width in shapes], dtype=exact, device=value.device)
        centres = (references.to(exact)[:, None] * sizes - 0.5)[:, None, :, None]
        # Written out for every point, rows are added several times as fast.
        pixels = offsets + centres.expand(-1, -1, -1, self.num_points, -1).contiguous()
        sampled = self._sample(value.to(exact), shapes, pixels, weights)
        return self.output_proj(sampled.to(value.dtype))

    def _sample(self, value: Tensor, shapes: Shapes, pixels: Tensor, weights: Tensor) -> Tensor:
        if self.kernel == 'mmcv' and value.is_cuda:
            return sample_by_mmcv(value, shapes, pixels, weights)
        # What is exported or compiled is grid_sample, which other runtimes and GPUs have.
        if value.is_cpu and not (torch.compiler.is_compiling() or torch.jit.is_tracing()):
            return sample_by_bags(value, shapes, pixels, weights)
        return sample_by_grid(value, shapes, pixels, weights)

    def extra_repr(self) -> str:
        return f'levels={self.num_levels}, heads={self.num_heads}, points={self.num_points}, kernel={self.kernel!r}'


def sample_by_grid(value: Tensor, shapes: Shapes, pixels: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of bilinear samples, through ``grid_sample``, one call a map.

    Args:
        value: ``[B, S, heads, C / heads]``, the pixels of all maps.
        shapes: (height, width) of each of the L maps.
        pixels: ``[B, Q, heads, L, P, 2]``, (x, y) in pixels of the map.
        weights: ``[B, Q, heads, L, P]``.

    Returns:
        ``[B, Q, C]``.
    """
    batch, _, heads, width = value.shape
    count = pixels.shape[1]
    result = value.new_zeros(())
    maps = value.permute(0, 2, 3, 1).split([h * w for h, w in shapes], dim=-1)
    for level, (plane, (h, w)) in enumerate(zip(maps, shapes, strict=True)):
        # grid_sample's own coordinates: -1 and 1 are the outer edges of a map.
        grid = (2 * pixels[:, :, :, level] + 1) / pixels.new_tensor([w, h]) - 1
        # Queries last, for grid_sample and the sum over points run along the last axis: neighbours lie side by side.
        grid = grid.permute(0, 2, 3, 1, 4).flatten(0, 1)
        sampled = F.grid_sample(plane.reshape(batch * heads, width, h, w), grid, mode='bilinear',
                                padding_mode='zeros', align_corners=False)
        share = weights[:, :, :, level].permute(0, 2, 3, 1).reshape(batch * heads, 1, -1, count)
        result = result + (sampled * share).sum(dim=2)
    return result.view(batch, heads * width, count).transpose(1, 2)


def sample_by_bags(value: Tensor, shapes: Shapes, pixels: Tensor, weights: Tensor) -> Tensor:
    """The same through ``embedding_bag``: every query and head sums 4 L P rows of a table.

    On a CPU this is several times as fast (``benchmarks/deformable_attention.py``), because the channels of a pixel lie
    side by side and no sample is written down. Arguments and result as those of ``sample_by_grid``.
    """
    batch, _, heads, width = value.shape
    count, points = pixels.shape[1], weights.shape[4]
    table, starts = _bordered(value, shapes)
    widths = [w + 2 for _, w in shapes]

    def of_points(numbers: Sequence[int], dtype: torch.dtype) -> Tensor:
        """One number a map as one a point, ``[L P]``: whole rows are computed several times as fast."""
        return torch.tensor(numbers, dtype=dtype, device=value.device).repeat_interleave(points)

    corners, fractions = [], []
    for axis in (0, 1):
        far = of_points([shape[1 - axis] for shape in shapes], pixels.dtype)
        places = pixels[..., axis].flatten(3).clamp(min=-1).minimum(far)
        corners.append(places.detach().floor())
        fractions.append(places - corners[-1])
    # Whole numbers, exact in float32 for maps of less than 2^24 pixels. What is no number, in a training that has
    # diverged, remains so in the fractions, but is no row of the table.
    first = (corners[0] + corners[1] * of_points(widths, pixels.dtype)).nan_to_num().int() * heads
    begin = of_points([start + w + 1 for start, w in zip(starts, widths, strict=True)], torch.int32)
    below = begin + of_points(widths, torch.int32)
    steps = torch.stack([begin, begin + 1, below, below + 1]) * heads
    steps = steps + torch.arange(heads, dtype=torch.int32, device=value.device)[:, None, None]
    images = torch.arange(batch, dtype=torch.int32, device=value.device) * (table.shape[1] * heads)
    index = first[..., None, :] + (steps + images[:, None, None, None, None])

    weights, (right, down) = weights.flatten(3), fractions
    lower = weights * down
    upper = weights - lower
    upper_right, lower_right = upper * right, lower * right
    shares = torch.stack([upper - upper_right, upper_right, lower - lower_right, lower_right], dim=-2)
    bags = batch * count * heads
    sums = F.embedding_bag(index.view(bags, -1), table.view(-1, width), mode='sum',
                           per_sample_weights=shares.view(bags, -1))
    return sums.view(batch, count, heads * width)


def _bordered(value: Tensor, shapes: Shapes) -> tuple[Tensor, list[int]]:
    """All maps with a border of zeros around each, ``[B, rows, C]``, and the row at which each begins.

    Points outside of a map then need no special treatment. Corners of a point at the end of a border run into the next
    row or map, with a weight of 0; hence some rows more at the very end.
    """
    batch = len(value)
    parts = [F.pad(plane.reshape(batch, h, w, -1), (0, 0, 1, 1, 1, 1)).flatten(1, 2)
             for plane, (h, w) in zip(value.split([h * w for h, w in shapes], dim=1), shapes, strict=True)]
    starts = [0]
    for part in parts[:-1]:
        starts.append(starts[-1] + part.shape[1])
    parts.append(value.new_zeros(batch, max(w for _, w in shapes) + 4, parts[0].shape[2]))
    return torch.cat(parts, dim=1), starts


def sample_by_mmcv(value: Tensor, shapes: Shapes, pixels: Tensor, weights: Tensor) -> Tensor:
    """The same through mmcv's compiled kernel, for tensors on a GPU.

    Raises:
        ImportError: mmcv, or its compiled operators, are not installed.
    """
    kernel = _mmcv_kernel()
    sizes = torch.tensor(list(shapes), device=value.device)
    starts = torch.cat([sizes.new_zeros(1), sizes.prod(dim=1).cumsum(0)[:-1]])
    locations = (pixels + 0.5) / sizes.flip(1)[:, None]
    return kernel.apply(value.contiguous(), sizes, starts, locations.contiguous(), weights.contiguous(), len(value))


def _mmcv_kernel() -> type[torch.autograd.Function]:
    try:
        from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction
    except ImportError as error:
        raise ImportError(f'model.encoder.kernel is "mmcv", but mmcv with its compiled operators is not installed '
                          f'({error}); install mmcv (not mmcv-lite), or leave "kernel" out') from error
    return MultiScaleDeformableAttnFunction
