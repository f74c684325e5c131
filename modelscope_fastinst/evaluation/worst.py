"""The images on which a model fares worst, kept as a whole so that they can be looked at."""
from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelscope_fastinst.evaluation.evidence import Evidence, rising
from modelscope_fastinst.evaluation.masks import overlaps

_KEPT = 2   # times as many are kept as asked for: the last choice needs thresholds that only the end knows


@dataclass
class WorstImage:
    """An image with all that is needed to draw it.

    Attributes:
        image_id, name: the data set's.
        quality: see ``best_f1``.
        truth, found: COCO records at the original size, masks as RLE.
        picture: the image as a JPEG file's content, None where it was not given.
    """
    image_id: Any
    name: str
    quality: float
    truth: list[dict]
    found: list[dict]
    picture: bytes | None

    def matched(self, thresholds: Sequence[float]) -> tuple[list[dict], set[int], set[int]]:
        """What is right and what is wrong with the thresholds of all classes.

        Returns:
            The results that reach their class's threshold, best first; the indices of those that are wrong; and the
            indices of the objects in ``truth`` that none of them found. Crowds and what lies in them are neither.
        """
        found = sorted((record for record in self.found if record['score'] >= thresholds[record['category_id']]),
                       key=lambda record: -record['score'])
        ious = overlaps(found, self.truth)
        crowds = {column for column, record in enumerate(self.truth) if record['iscrowd']}
        missed = set(range(len(self.truth))) - crowds
        wrong = set()
        for row, record in enumerate(found):
            own = [column for column, one in enumerate(self.truth)
                   if one['category_id'] == record['category_id'] and ious[row, column] >= 0.5]
            free = [column for column in own if column in missed]
            if free:
                missed.remove(max(free, key=lambda column: ious[row, column]))
            elif not crowds.intersection(own):
                wrong.add(row)
        return found, wrong, missed

    def rate(self, thresholds: Sequence[float]) -> float:
        """F1 with the thresholds of all classes; 1 where nothing is there and nothing found."""
        found, wrong, missed = self.matched(thresholds)
        objects = sum(not record['iscrowd'] for record in self.truth)
        right = objects - len(missed)
        return 2 * right / (objects + right + len(wrong)) if objects + right + len(wrong) else 1.0

    @property
    def key(self) -> tuple:
        """Sorts the worst first: by quality, then the more objects, then by id."""
        return self.quality, -len(self.truth), rising(self.image_id)


class WorstImages:
    """The worst of all images that are offered, the same whatever their order.

    Args:
        number: how many are wanted; twice as many are kept, whatever the number of images.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._kept: dict[Any, WorstImage] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def offer(self, image_id: Any, evidence: Evidence, truth: list[dict], found: list[dict], image: Any,
              name: str) -> None:
        """Keep an image if it is one of the worst so far; see ``coco.CocoEvaluator.add``."""
        if not self.number:
            return
        candidate = WorstImage(image_id, str(name or image_id), best_f1(evidence), truth, found, None)
        if len(self._kept) < _KEPT * self.number or candidate.key < max(one.key for one in self._kept.values()):
            candidate.picture = as_jpeg(image) if image is not None else None
            self._kept[image_id] = candidate
            self._shrink()

    def merge(self, other: WorstImages) -> None:
        """Take in what another process has kept."""
        self.number = max(self.number, other.number)
        self._kept = {**other._kept, **self._kept}
        self._shrink()

    def images(self) -> list[WorstImage]:
        """What is kept, the worst first."""
        return sorted(self._kept.values(), key=lambda one: one.key)

    def _shrink(self) -> None:
        self._kept = {one.image_id: one for one in self.images()[:_KEPT * self.number]}


def best_f1(evidence: Evidence) -> float:
    """The best F1 that an image reaches at any score threshold, masks matched at an IoU of 0.5.

    Needs no threshold, which is found at the end only. An image without objects has one minus its best result's score.
    """
    results = evidence.results
    # the first bit is that of all object sizes and the IoU threshold 0.5
    match, ignore = (np.unpackbits(results[f'segm_{part}'], axis=1)[:, 0].astype(bool) for part in ('match', 'ignore'))
    right, counted = (match & ~ignore), ~ignore
    objects = int(evidence.truth['counts'][:, 0].sum())
    if not objects:
        return 1.0 - float(results['score'][counted].max(initial=0.0))
    order = np.argsort(-results['score'], kind='stable')
    found, wanted = np.cumsum(right[order]), np.cumsum(counted[order]) + objects
    return float((2 * found / wanted).max(initial=0.0))


def as_jpeg(image: Any) -> bytes:
    """``[3, H, W]`` RGB, 0 to 255, as a JPEG file's content."""
    from PIL import Image
    content = io.BytesIO()
    pixels = image.cpu().numpy() if hasattr(image, 'cpu') else np.asarray(image)
    pixels = pixels.clip(0, 255).astype(np.uint8)   # a user's preprocessor may give floats
    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(content, format='JPEG', quality=92)
    return content.getvalue()
