"""The network's input sizes and the training recipe's augmentation, on images and masks together.

Random numbers come from torch's default generator, which a DataLoader seeds differently in every worker.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from modelscope_fastinst.data.arguments import factors, height_and_width, known_keys, positive, probability, sizes
from modelscope_fastinst.data.chance import between, choice, happens, uniform
from modelscope_fastinst.data.color import Colors
from modelscope_fastinst.data.copy_paste import check_settings
from modelscope_fastinst.data.geometry import Crop, Flip, Plan, Resize, Transpose, resize_image, resized_size, to_tensor
from modelscope_fastinst.structures import Sample, Target

__all__ = ['InferenceTransform', 'TrainTransform', 'resize_image', 'resized_size', 'to_tensor']

RECIPE_SIZES = (416, 448, 480, 512, 544, 576, 608, 640)
RECIPE_CROP = {'probability': 0.5, 'min_sizes': (400, 500, 600), 'size_range': (384, 600)}
LARGE_SCALE_JITTER = {'range': (0.1, 2.0), 'size': 1024}


class InferenceTransform:
    """Resizes the short side to ``min_size``, unless the long side would then exceed ``max_size``.

    Args:
        min_size, max_size: in pixels; the defaults are those of the authors' D3 models. ``max_size`` None for no limit.
    """

    def __init__(self, min_size: int = 640, max_size: int | None = 853) -> None:
        self.min_size = positive('min_size', min_size)
        self.max_size = None if max_size is None else positive('max_size', max_size)

    def plan(self, height: int, width: int) -> Plan:
        """The geometry for an image of this size in pixels; the same at every call."""
        return Plan(height, width, [Resize(*resized_size(height, width, self.min_size, self.max_size))])

    def finish(self, sample: Sample) -> Sample:
        """What remains to be done after the geometry: nothing."""
        return sample

    def __call__(self, sample: Sample) -> Sample:
        """The sample at the network's input size; ``original_size`` is filled in where it is missing."""
        return _apply(self, sample)


class TrainTransform:
    """The recipe's augmentation (the authors' ``fastinst_instance`` mapper; no large-scale jitter), all adjustable.

    In this order: with ``crop['probability']`` a resize to one of ``crop['min_sizes']`` (short side, no limit on the
    long one) and a crop whose sides are drawn from ``crop['size_range']``; a resize to one of ``min_sizes``; a crop to
    ``window``; flips and rotation; colours; objects of another image (done by the trainer, which knows the data set).
    Crops never leave the image, and nothing is padded: the network pads a batch to its largest image.

    Args:
        min_sizes: short sides in pixels to choose from, or one.
        max_size: limit of the long side in pixels; None for no limit.
        crop: the recipe's crop before the resize; missing keys keep the recipe's values; None switches it off.
        large_scale_jitter: in the place of ``min_sizes``, ``max_size`` and ``crop``: the image is resized to fit into
            ``size`` (height and width in pixels, or one number for both; default 1024) times a factor drawn from
            ``range`` (default 0.1 to 2), and what exceeds ``size`` is cropped at a random place. After Ghiasi et al.
            2021, who train several times longer with it. Their images are padded to ``size``; here a smaller one stays
            as small as it is: the network pads a batch itself, to its largest image, and keeps no record of padding.
        window: (height, width) in pixels, or one number for both, of a crop after the resize; a side longer than the
            image becomes the image's. This is the crop for small images with many small objects. None for no crop.
        flip, vertical_flip: probabilities of mirroring left to right and top to bottom.
        rotate: probability of a rotation by 90 degrees (with both flips at 0.5: one of the eight orientations).
        color: see ``color.Colors``; None, the recipe's value, leaves the colours alone.
        copy_paste: settings of ``copy_paste.CopyPaste``, which the trainer then puts around the training set; an empty
            mapping for its defaults, None, the recipe's value, for no pasting.
        drop_empty: leave out objects of which the crop left no pixel. The authors keep them, as all-zero masks; None
            is the same, except that a large-scale jitter, which loses many more, leaves them out.

    Raises:
        ValueError: naming the argument or key and its value.
    """

    def __init__(self, min_sizes: int | Sequence[int] = RECIPE_SIZES, max_size: int | None = 853,
                 crop: Mapping | None = RECIPE_CROP, window: int | Sequence[int] | None = None, flip: float = 0.5,
                 vertical_flip: float = 0.0, rotate: float = 0.0, color: Mapping | str | None = None,
                 drop_empty: bool | None = None, large_scale_jitter: Mapping | None = None,
                 copy_paste: Mapping | None = None) -> None:
        self.min_sizes = sizes('min_sizes', min_sizes)
        self.max_size = None if max_size is None else positive('max_size', max_size)
        self.crop = None if crop is None else _crop_settings(crop)
        self.large_scale_jitter = None if large_scale_jitter is None else _jitter_settings(large_scale_jitter)
        self.window = None if window is None else height_and_width('window', window)
        self.flip = probability('flip', flip)
        self.vertical_flip = probability('vertical_flip', vertical_flip)
        self.rotate = probability('rotate', rotate)
        self._colors = Colors(color)
        self.copy_paste = None if copy_paste is None else check_settings(copy_paste)
        if drop_empty not in (None, True, False):
            raise ValueError(f'drop_empty must be true or false; got {drop_empty!r}')
        self.drop_empty = self.large_scale_jitter is not None if drop_empty is None else bool(drop_empty)

    @property
    def color(self) -> dict[str, float]:
        """The strengths, 0 where nothing happens."""
        return self._colors.strengths

    def plan(self, height: int, width: int) -> Plan:
        """Draws the geometry for an image of this size in pixels."""
        plan = Plan(height, width)
        if self.large_scale_jitter:
            box, factor = self.large_scale_jitter['size'], uniform(*self.large_scale_jitter['range'])
            scale = factor * min(box[0] / height, box[1] / width)
            plan.add(Resize(max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)))
            _add_crop(plan, *box)
        else:
            self._add_recipe(plan)
        if self.window:
            _add_crop(plan, *self.window)
        if happens(self.flip):
            plan.add(Flip())
        if happens(self.vertical_flip):
            plan.add(Flip(vertical=True))
        if happens(self.rotate):
            plan.add(Transpose())
            plan.add(Flip())
        return plan

    def _add_recipe(self, plan: Plan) -> None:
        """The authors' crop and resize."""
        if self.crop and happens(self.crop['probability']):
            plan.add(Resize(*resized_size(*plan.size, choice(self.crop['min_sizes']))))
            low, high = self.crop['size_range']
            _add_crop(plan, *(between(min(side, low), min(side, high)) for side in plan.size))
        plan.add(Resize(*resized_size(*plan.size, choice(self.min_sizes), self.max_size)))

    def finish(self, sample: Sample) -> Sample:
        """What remains to be done after the geometry: colours, and leaving out emptied objects where asked for."""
        target = sample.target
        if self.drop_empty and target is not None:
            kept = target.masks.flatten(1).any(1)
            target = Target(target.labels[kept], target.masks[kept])
        return replace(sample, image=self._colors(sample.image), target=target)

    def __call__(self, sample: Sample) -> Sample:
        """The sample with image and masks transformed together; ``original_size`` is filled in where it is missing."""
        return _apply(self, sample)


def _apply(transform: InferenceTransform | TrainTransform, sample: Sample) -> Sample:
    height, width = sample.image.shape[-2:]
    plan = transform.plan(height, width)
    image = plan.image(np.ascontiguousarray(sample.image.permute(1, 2, 0).numpy()))
    target = sample.target
    if target is not None:
        target = Target(target.labels, torch.from_numpy(plan.masks(target.masks.numpy())))
    original = sample.original_size if any(sample.original_size) else (height, width)
    return transform.finish(replace(sample, image=to_tensor(image), target=target, original_size=original))


def _add_crop(plan: Plan, height: int, width: int) -> None:
    """A crop of this size at a random place; sides are clamped to the image."""
    height, width = min(height, plan.size[0]), min(width, plan.size[1])
    top, left = between(0, plan.size[0] - height), between(0, plan.size[1] - width)
    plan.add(Crop(top, left, height, width))


def _crop_settings(crop: Mapping) -> dict:
    crop = {**RECIPE_CROP, **known_keys('crop', crop, sorted(RECIPE_CROP), 'null for no crop')}
    size_range = sizes('crop.size_range', crop['size_range'])
    if len(size_range) != 2 or size_range[0] > size_range[1]:
        raise ValueError(f'crop.size_range must be (smallest, largest) in pixels; got {crop["size_range"]}')
    return {'probability': probability('crop.probability', crop['probability']),
            'min_sizes': sizes('crop.min_sizes', crop['min_sizes']), 'size_range': size_range}


def _jitter_settings(jitter: Mapping) -> dict:
    jitter = {**LARGE_SCALE_JITTER, **known_keys('large_scale_jitter', jitter, LARGE_SCALE_JITTER)}
    return {'range': factors('large_scale_jitter.range', jitter['range']),
            'size': height_and_width('large_scale_jitter.size', jitter['size'])}
