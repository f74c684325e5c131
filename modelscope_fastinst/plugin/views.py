"""Test-time augmentation: the model looks at each image several times, larger, smaller, mirrored."""
from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.nn.functional import interpolate

from modelscope_fastinst.results.views import flipped, merge_views
from modelscope_fastinst.structures import Instances

_FACTORS_UP_TO = 8.0   # a larger scale is a short side in pixels

Finder = Callable[[Sequence[Tensor], Sequence[tuple[int, int]]], 'list[Instances]']


def find_in_views(find: Finder, images: Sequence[Tensor], original_sizes: Sequence[tuple[int, int]],
                  views: Sequence[tuple[float, bool]], max_instances: int = 100) -> list[Instances]:
    """The instances of each image, fused from all views.

    Args:
        find: gives the instances (masks as RLE) of images at the sizes asked for.
        images: ``[3, H, W]`` tensors as the preprocessor gives them; views are resized from these.
        original_sizes: (height, width) in pixels at which results are wanted.
        views: scale (a factor, or above 8 a short side in pixels) and whether to mirror left and right.
        max_instances: at most so many of an image.
    """
    seen: list[list[Instances]] = [[] for _ in images]
    for scale, mirror in views:
        found = find([_view(image, scale, mirror) for image in images], original_sizes)
        for index, (_, width) in enumerate(original_sizes):
            seen[index].append(flipped(found[index], width) if mirror else found[index])
    return [merge_views(instances, max_instances) for instances in seen]


def _view(image: Tensor, scale: float, mirror: bool) -> Tensor:
    height, width = image.shape[-2:]
    factor = scale if scale <= _FACTORS_UP_TO else scale / min(height, width)
    size = max(1, round(height * factor)), max(1, round(width * factor))
    if size != (height, width):
        resized = interpolate(image[None].float(), size=size, mode='bilinear', antialias=True)[0]
        image = resized.round().clamp(0, 255).to(image.dtype) if not image.is_floating_point() else resized
    return image.flip(-1) if mirror else image
