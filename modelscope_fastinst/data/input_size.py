"""The input sizes of Hugging Face's image processors, which are whole multiples of a number and never padded.

The authors of FastInst and Mask2Former resize an image and pad it to a multiple of 32 pixels; ``transformers``
stretches it to that multiple instead, or to a fixed size, whatever its shape.
"""
from __future__ import annotations

from collections.abc import Sequence

from modelscope_fastinst.data.arguments import height_and_width, positive
from modelscope_fastinst.data.augment import InferenceTransform
from modelscope_fastinst.data.geometry import Plan, Resize


def build_inference_transform(min_size: int = 640, max_size: int | None = 853, multiple_of: int | None = None,
                              size: int | Sequence[int] | None = None) -> InferenceTransform:
    """``InferenceTransform``, or ``StretchTransform`` if there is a ``multiple_of`` or a ``size``.

    Raises:
        ValueError: naming the argument and its value.
    """
    if multiple_of is None and size is None:
        return InferenceTransform(min_size, max_size)
    return StretchTransform(min_size, max_size, 1 if multiple_of is None else multiple_of, size)


class StretchTransform(InferenceTransform):
    """Resizes to a size whose height and width are multiples of a number.

    Args:
        min_size, max_size: short side and longest long side in pixels, before they are rounded up.
        multiple_of: in pixels.
        size: (height, width) in pixels, or one number for both, in the place of ``min_size`` and ``max_size``.

    Raises:
        ValueError: naming the argument and its value.
    """

    def __init__(self, min_size: int = 800, max_size: int | None = 1333, multiple_of: int = 32,
                 size: int | Sequence[int] | None = None) -> None:
        super().__init__(min_size, max_size)
        self.multiple_of = positive('multiple_of', multiple_of)
        self.size = None if size is None else height_and_width('size', size)

    def plan(self, height: int, width: int) -> Plan:
        """The geometry for an image of this size in pixels; the same at every call."""
        sides = self.size or _kept_shape(height, width, self.min_size, self.max_size)
        return Plan(height, width, [Resize(*(-(-side // self.multiple_of) * self.multiple_of for side in sides))])


def _kept_shape(height: int, width: int, min_size: int, max_size: int | None) -> tuple[int, int]:
    """(height, width) with the short side ``min_size``, rounded as ``transformers`` rounds: the long side down, so that
    what is a whole multiple there is the same here."""
    short, long = min(height, width), max(height, width)
    side: float = min_size
    if max_size is not None and long / short * min_size > max_size:
        side = max_size * short / long
    if short == round(side):
        return height, width
    other = int(side * long / short)
    return (round(side), other) if height <= width else (other, round(side))
