"""Boundary IoU (Cheng et al., CVPR 2021, arXiv 2103.16562): how well the outlines of two masks agree.

Mask IoU of large objects hardly sees their outline. Boundary AP is AP with the smaller of both IoUs in the matching of
results and objects, as in the paper's published evaluation; for a crowd the mask IoU alone counts.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

DILATION_RATIO = 0.02   # of the image's diagonal: how far from the outline a pixel is part of the boundary


def boundary(rle: dict, ratio: float = DILATION_RATIO) -> dict:
    """The pixels of a mask that lie near its outline, as RLE.

    A pixel belongs to them if the square around it, of ``ratio`` times the image's diagonal to each side (at least one
    pixel), is not all inside the mask; what lies outside the image is not inside.
    """
    import cv2
    from pycocotools import mask as coco_mask
    height, width = rle['size']
    reach = max(1, int(round(ratio * float(np.hypot(height, width)))))
    left, top, wide, high = (int(value) for value in coco_mask.toBbox(rle))
    if not wide or not high:
        return rle
    mask = coco_mask.decode(rle)
    # Outside its box a mask is empty, so nothing further away than one pixel matters.
    cut = np.pad(mask[top:top + high, left:left + wide], 1)
    inner = cv2.erode(cut, np.ones((3, 3), np.uint8), iterations=reach)[1:-1, 1:-1]
    mask[top:top + high, left:left + wide] -= inner
    return coco_mask.encode(mask)


def with_boundaries(records: list[dict]) -> list[dict]:
    """COCO records (``segmentation`` as RLE) with a ``boundary`` each, as RLE."""
    return [{**record, 'boundary': boundary(record['segmentation'])} for record in records]


def combined(mask_ious: Callable[[Any, Any], Any], truth: list[dict], found: list[dict], most: int) -> Callable:
    """What computes the IoUs of an engine's matching, with boundaries.

    Args:
        mask_ious: the engine's own, called with the ids of image and class; gives ``[D, G]``: the class's results, best
            first, by its objects.
        truth, found: the image's records as ``with_boundaries`` gives them, in the order in which the engine has them.
        most: at most so many results of a class are matched.
    """
    from pycocotools import mask as coco_mask

    def ious(image: Any, label: Any) -> Any:
        values = mask_ious(image, label)
        objects = [record for record in truth if record['category_id'] == label]
        results = sorted((record for record in found if record['category_id'] == label),
                         key=lambda record: -record['score'])[:most]
        if not objects or not results:
            return values
        values = np.array(values, np.float64)
        whole = np.array([not record['iscrowd'] for record in objects])
        near = coco_mask.iou([record['boundary'] for record in results], [record['boundary'] for record in objects],
                             [int(record['iscrowd']) for record in objects])
        values[:, whole] = np.minimum(values, near)[:, whole]
        return values

    return ious
