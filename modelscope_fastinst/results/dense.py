"""What panoptic and semantic maps start from: a batch's images, their class probabilities and their mask logits."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from modelscope_fastinst.structures import NetworkOutput

if TYPE_CHECKING:
    from torch import Tensor

Image = tuple[int, 'Tensor', 'Tensor', 'tuple[int, int]', 'tuple[int, int]', 'tuple[int, int]']


def checked_images(output: NetworkOutput, original_sizes: Sequence[tuple[int, int]]) -> Iterator[Image]:
    """Index, class logits, mask logits, canvas, size on it and original size of each image of a batch.

    Raises:
        ValueError: numbers of images that differ, or an image without pixels.
    """
    logits, masks = output.final.logits.detach(), output.final.masks.detach()
    if not len(logits) == len(masks) == len(output.sizes) == len(original_sizes):
        raise ValueError(f'{len(original_sizes)} original sizes and {len(output.sizes)} input sizes were given for '
                         f'{len(masks)} images')
    for index, (size, original) in enumerate(zip(output.sizes, original_sizes, strict=True)):
        height, width = int(original[0]), int(original[1])
        if height < 1 or width < 1:
            raise ValueError(f'image {index} has the original size {height} x {width}; it needs at least 1 x 1 pixels')
        yield index, logits[index], masks[index], output.canvas, size, (height, width)


def probabilities_of(logits: Tensor, index: int) -> np.ndarray:
    """Class probabilities float32 ``[Q, K + 1]`` of one image's class logits.

    Raises:
        ValueError: logits that are not finite.
    """
    logits = logits.float().cpu()
    if not logits.isfinite().all():
        raise ValueError(f'class logits of image {index} are not finite: the network diverged, or overflowed in half '
                         'precision')
    return logits.softmax(-1).numpy()


def logits_of(masks: Tensor, index: int) -> Tensor:
    """One image's mask logits as float32.

    Raises:
        ValueError: logits that are not finite.
    """
    masks = masks.float()
    if not masks.isfinite().all():
        raise ValueError(f'mask logits of image {index} are not finite: the network diverged, or overflowed in half '
                         'precision')
    return masks
