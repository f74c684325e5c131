"""The images whose maps are worst, kept as a whole so that they can be looked at."""
from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from modelscope_fastinst.evaluation.evidence import rising
from modelscope_fastinst.evaluation.worst import as_jpeg
from modelscope_fastinst.structures import PanopticMap, SemanticMap


@dataclass
class WorstMap:
    """An image with all that is needed to draw it.

    Attributes:
        image_id, name: the data set's.
        quality: the image's own PQ or mIoU.
        picture: the image as a JPEG file's content, None where it was not given.
    """
    image_id: Any
    name: str
    quality: float
    picture: bytes | None
    _truth: Packed
    _found: Packed

    @property
    def truth(self) -> PanopticMap | SemanticMap:
        """The ground truth at the original size."""
        return self._truth.map

    @property
    def found(self) -> PanopticMap | SemanticMap:
        """The result at the same size."""
        return self._found.map

    @property
    def key(self) -> tuple:
        """Sorts the worst first: by quality, then by id."""
        return self.quality, rising(self.image_id)


class Packed:
    """A map whose pixels are compressed: some per cent of their size."""

    def __init__(self, one: PanopticMap | SemanticMap) -> None:
        self._attribute = 'ids' if isinstance(one, PanopticMap) else 'labels'
        pixels = np.ascontiguousarray(getattr(one, self._attribute))
        self._shape, self._dtype = pixels.shape, pixels.dtype.str
        self._content = zlib.compress(pixels.tobytes(), 1)
        self._rest = replace(one, **{self._attribute: None})

    @property
    def map(self) -> PanopticMap | SemanticMap:
        """What was packed."""
        pixels = np.frombuffer(zlib.decompress(self._content), self._dtype).reshape(self._shape)
        return replace(self._rest, **{self._attribute: pixels})


class WorstMaps:
    """The worst of all images that are offered, the same whatever their order.

    Args:
        number: how many.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._kept: dict[Any, WorstMap] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def offer(self, image_id: Any, quality: float, truth: PanopticMap | SemanticMap, found: PanopticMap | SemanticMap,
              image: Any, name: str) -> None:
        """Keep an image if it is one of the worst so far; see ``panoptic.PanopticEvaluator.add``."""
        key = quality, rising(image_id)
        if self.number and (len(self._kept) < self.number or key < max(one.key for one in self._kept.values())):
            self._kept[image_id] = WorstMap(image_id, str(name or image_id), quality,
                                            as_jpeg(image) if image is not None else None, Packed(truth), Packed(found))
            self._shrink()

    def merge(self, other: WorstMaps) -> None:
        """Take in what another process has kept."""
        self.number = max(self.number, other.number)
        self._kept = {**other._kept, **self._kept}
        self._shrink()

    def images(self) -> list[WorstMap]:
        """What is kept, the worst first."""
        return sorted(self._kept.values(), key=lambda one: one.key)

    def _shrink(self) -> None:
        self._kept = {one.image_id: one for one in self.images()[:self.number]}
