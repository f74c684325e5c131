"""Copy-paste augmentation: objects of a second training image are laid over the first, as they are outlined there.

After Ghiasi et al., "Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation" (CVPR 2021):
both images go through the same augmentation first, a random choice of the second one's objects is pasted without
blending (which the paper found to make no difference), and what they cover is taken away from the masks below.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from modelscope_fastinst.data.arguments import factors, known_keys, positive, probability
from modelscope_fastinst.data.chance import between, happens, subset, uniform
from modelscope_fastinst.data.geometry import Crop, Plan, Resize, to_tensor
from modelscope_fastinst.structures import Sample, Target

DEFAULTS: dict[str, Any] = {'probability': 0.5, 'max_objects': 10, 'scale': (1.0, 1.0), 'min_visible': 0.1}


class CopyPaste(Dataset):
    """A data set of ``Sample`` whose images now and then carry objects of another of its images.

    The other image is drawn when the sample is, from torch's default generator like the rest of the augmentation:
    where samples are seeded (``plugin.sampling.SeededSamples``), it follows from the sample's seed.

    Args:
        dataset: gives samples with targets, already resized and augmented; no image is pasted onto itself.
        probability: that a sample gets objects of another one.
        max_objects: at most so many are pasted; how many is drawn from 1 to this.
        scale: (smallest, largest) factor by which the other image is resized before, after it has been shrunk to fit
            into the first one where it is larger. With a large-scale jitter objects come in all sizes already.
        min_visible: an object of which less than this share of its pixels would be seen is left out: below, where
            others are pasted onto it, and among the pasted, where they reach out of the image. 0 keeps all of which a
            pixel is seen. Masks that were empty before are left as they are.

    Attributes:
        classes, sizes: the data set's; None if it does not say.

    Raises:
        ValueError: naming the setting and its value.
    """

    def __init__(self, dataset: Any, **settings: Any) -> None:
        self.dataset = dataset
        self.settings = check_settings(settings)

    @property
    def classes(self) -> list[str] | None:
        return getattr(self.dataset, 'classes', None)

    @property
    def sizes(self) -> list[tuple[int, int]] | None:
        return getattr(self.dataset, 'sizes', None)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        sample = self.dataset[index]
        count = len(self)
        if count < 2 or not happens(self.settings['probability']):
            return sample
        other = (index + between(1, count - 1)) % count
        return paste(sample, self.dataset[other], self.settings['max_objects'], self.settings['scale'],
                     self.settings['min_visible'])


def with_copy_paste(dataset: Any, transform: Any) -> Any:
    """The training set with copy-paste, if the transform's settings ask for it (``TrainTransform.copy_paste``)."""
    settings = getattr(transform, 'copy_paste', None)
    return dataset if dataset is None or settings is None else CopyPaste(dataset, **settings)


def check_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of ``CopyPaste``, complete.

    Raises:
        ValueError: naming the setting and its value.
    """
    given = {**DEFAULTS, **known_keys('copy_paste', settings, DEFAULTS)}
    return {'probability': probability('copy_paste.probability', given['probability']),
            'max_objects': positive('copy_paste.max_objects', given['max_objects'], 'objects'),
            'scale': factors('copy_paste.scale', given['scale']),
            'min_visible': probability('copy_paste.min_visible', given['min_visible'])}


def paste(sample: Sample, source: Sample, max_objects: int, scale: tuple[float, float] = (1.0, 1.0),
          min_visible: float = 0.1) -> Sample:
    """``sample`` with objects of ``source`` laid over it; both stay as they are.

    The source is shrunk to fit into the sample where it is larger, then scaled, and laid over the sample at a random
    place where the two overlap most: along each axis one lies inside the other.

    Args:
        sample, source: with targets; sizes may differ.
        max_objects, scale, min_visible: as in ``CopyPaste``.

    Returns:
        A sample of the first one's size and id, its own objects first; ``sample`` itself where nothing is pasted.
    """
    if sample.target is None or source.target is None or not len(source.target):
        return sample
    height, width = source.image.shape[-2:]
    # Objects of a close-up would bury an image that was drawn small.
    fitting = min(1.0, sample.image.shape[-2] / height, sample.image.shape[-1] / width)
    factor = fitting * (uniform(*scale) if scale[0] < scale[1] else scale[0])
    plan = Plan(height, width, [Resize(max(int(height * factor + 0.5), 1), max(int(width * factor + 0.5), 1))])
    whole = source.target.masks.flatten(1).sum(1) * (plan.size[0] * plan.size[1] / (height * width))
    rows, top = _overlap(plan.size[0], sample.image.shape[-2])
    columns, left = _overlap(plan.size[1], sample.image.shape[-1])
    plan.add(Crop(rows.start, columns.start, len(rows), len(columns)))
    masks = torch.from_numpy(plan.masks(source.target.masks.numpy()))
    seen = masks.flatten(1).sum(1)
    eligible = torch.nonzero((seen > 0) & (seen >= min_visible * whole)).flatten()
    if not len(eligible):
        return sample
    chosen = eligible[subset(len(eligible), between(1, min(max_objects, len(eligible))))]

    above = torch.zeros((len(chosen), *sample.image.shape[-2:]), dtype=torch.bool)
    place = slice(top, top + len(rows)), slice(left, left + len(columns))
    above[:, place[0], place[1]] = masks[chosen]
    cover = above.any(0)
    image = sample.image.clone()
    pixels = to_tensor(plan.image(np.ascontiguousarray(source.image.permute(1, 2, 0).numpy())))
    image[:, cover] = pixels[:, cover[place]]
    below, labels = _uncovered(sample.target, cover, min_visible)
    target = Target(torch.cat((labels, source.target.labels[chosen])), torch.cat((below, above)))
    name = f'{sample.file_name} with objects of {source.file_name}' if sample.file_name else ''
    return replace(sample, image=image, target=target, file_name=name, annotations=[])


def _overlap(source: int, frame: int) -> tuple[range, int]:
    """Along one axis: which of the source's pixels lie in the frame, and where there the first of them lies."""
    if source > frame:
        start = between(0, source - frame)
        return range(start, start + frame), 0
    return range(source), between(0, frame - source)


def _uncovered(target: Target, cover: torch.Tensor, min_visible: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Masks and labels of the objects of which enough is still seen; those that were empty stay."""
    masks = target.masks & ~cover
    before, after = target.masks.flatten(1).sum(1), masks.flatten(1).sum(1)
    kept = (before == 0) | ((after > 0) & (after >= min_visible * before))
    return masks[kept], target.labels[kept]
