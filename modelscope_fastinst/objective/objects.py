"""The objects of a batch in one buffer of one byte a pixel, read where points fall: no mask ever becomes float."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..structures import Target


class BatchObjects:
    """Labels and masks of all the objects of a batch, image after image.

    Each mask keeps its own image's size and lies at the top left of its canvas; a rim of zeros around it makes every
    bilinear sample four reads without a question of borders.

    Args:
        targets: one an image, all on one device.

    Attributes:
        counts: N of each image, in Python, for no device has to be asked.
        starts: each image's first object.
        labels: int64 ``[sum of N]``.
        image: int64 ``[sum of N]``, the image that each object is in.
    """

    def __init__(self, targets: Sequence[Target]):
        device = targets[0].masks.device
        self.counts = [len(target) for target in targets]
        self.starts = [sum(self.counts[:index]) for index in range(len(targets))]
        self.labels = torch.cat([target.labels for target in targets])
        # On the host, so that one small copy is all that goes to the device.
        image, base, stride, height, width, across, down = [], [], [], [], [], [], []
        end = 0
        for index, target in enumerate(targets):
            count, rows, columns = target.masks.shape
            canvas = target.canvas or (rows, columns)
            image += [index] * count
            stride += [columns + 3] * count
            # Where pixel (0, 0) lies in the buffer.
            base += [end + number * (rows + 3) * (columns + 3) + columns + 4 for number in range(count)]
            height, width = height + [rows] * count, width + [columns] * count
            down, across = down + [canvas[0]] * count, across + [canvas[1]] * count
            end += count * (rows + 3) * (columns + 3)
        table = torch.tensor([image, base, stride, height, width, down, across], dtype=torch.int64)
        table = to_device(table, device)
        self.image = table[0]
        # 32 bits are read faster than 64, and are enough for 2 GB of masks.
        self._index = torch.int32 if end < 2 ** 31 else torch.int64
        self._base, self._stride = (table[row].to(self._index)[:, None] for row in (1, 2))
        self._height, self._width, self._down, self._across = (table[row].float()[:, None] for row in (3, 4, 5, 6))
        # Two columns and rows behind: a sample that is clamped to the border reads one further.
        self._pixels = torch.cat([F.pad(target.masks.bool().view(torch.uint8), (1, 2, 1, 2)).flatten()
                                  for target in targets])

    def __len__(self) -> int:
        return len(self.labels)

    @torch.no_grad()
    def sample(self, points: Tensor, objects: Tensor | None = None) -> Tensor:
        """Bilinear samples of masks, zero outside, corners not aligned, as ``points.sample`` gives them.

        Args:
            points: float32 ``[M, P, 2]``, (x, y) in [0, 1] of the canvas.
            objects: int64 ``[M]``, whose masks; None for all objects.

        Returns:
            float32 ``[M, P]`` in [0, 1].
        """
        def of(table: Tensor) -> Tensor:
            return table if objects is None else table[objects]
        x = torch.minimum(points[..., 0] * of(self._across) - 0.5, of(self._width)).clamp_(min=-1)
        y = torch.minimum(points[..., 1] * of(self._down) - 0.5, of(self._height)).clamp_(min=-1)
        left, top = x.floor(), y.floor()
        x, y = x.sub_(left), y.sub_(top)   # the weights of the right and the lower neighbours
        stride = of(self._stride)
        index = top.to(self._index).mul_(stride).add_(left.to(self._index)).add_(of(self._base))
        upper = self._read(index).lerp_(self._read(index.add_(1)), x)
        lower_right = self._read(index.add_(stride))
        lower = self._read(index.sub_(1)).lerp_(lower_right, x)
        return upper.lerp_(lower, y)

    def _read(self, index: Tensor) -> Tensor:
        # index_select reads bytes several times faster than indexing does.
        return self._pixels.index_select(0, index.flatten()).view(index.shape).float()


def inside_cells(target: Target, grid: tuple[int, int]) -> Tensor:
    """Which cells of a grid over the canvas hold at least one pixel of an object: bool ``[N, h, w]``.

    Equal to adaptive max pooling of the masks on the canvas, on bytes.
    """
    count, height, width = target.masks.shape
    canvas = target.canvas or (height, width)
    if canvas[0] % grid[0] or canvas[1] % grid[1]:
        # Cells of unequal size, which published strides never give.
        masks = target.pad_to(*canvas).masks
        return torch.cat([F.adaptive_max_pool2d(mask[None].float(), grid) > 0 for mask in masks]) if count else \
            torch.zeros(0, *grid, dtype=torch.bool, device=masks.device)
    cell = canvas[0] // grid[0], canvas[1] // grid[1]
    rows, columns = -(-height // cell[0]), -(-width // cell[1])
    masks = F.pad(target.masks.bool().view(torch.uint8), (0, columns * cell[1] - width, 0, rows * cell[0] - height))
    masks = _any(masks.reshape(count, rows, cell[0], columns * cell[1]), 2)   # whole lines first: the fast direction
    masks = _any(masks.reshape(count, rows, columns, cell[1]), 3)
    return F.pad(masks, (0, grid[1] - columns, 0, grid[0] - rows)).view(torch.bool)


def _any(values: Tensor, axis: int) -> Tensor:
    """The bitwise "or" of uint8 numbers along an axis, by halves."""
    while values.shape[axis] > 1:
        half = values.shape[axis] // 2
        both = values.narrow(axis, 0, half) | values.narrow(axis, half, half)
        if values.shape[axis] % 2:
            both.narrow(axis, 0, 1).bitwise_or_(values.narrow(axis, 2 * half, 1))
        values = both
    return values.squeeze(axis)


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on the device, without waiting for the device."""
    if device.type == 'cuda':
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def to_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors of one dtype and device on the host, with one transfer and hence one wait for all of them."""
    if not tensors:
        return []
    if tensors[0].device.type == 'cpu':
        return list(tensors)
    moved = torch.cat([tensor.flatten() for tensor in tensors]).cpu()
    parts = moved.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
