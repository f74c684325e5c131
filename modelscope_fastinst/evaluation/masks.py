"""Masks in any of COCO's forms, as the one that is evaluated: compressed RLE."""
from __future__ import annotations

from typing import Any

import numpy as np

from modelscope_fastinst.structures import PanopticMap


def as_rle(mask: Any, size: tuple[int, int], where: str) -> dict:
    """A mask as compressed RLE with text counts.

    Args:
        mask: polygons, RLE in any form, or an array ``[H, W]``; anything but 0 is inside.
        size: (height, width) in pixels that the mask must have.
        where: what to call the mask in an error.

    Raises:
        ValueError: the mask has another size.
    """
    from pycocotools import mask as coco_mask
    if isinstance(mask, list):
        rle = coco_mask.merge(coco_mask.frPyObjects(mask, *size))
    elif not isinstance(mask, dict):
        rle = coco_mask.encode(np.asfortranarray(np.asarray(mask) != 0).astype(np.uint8, order='F'))
    elif isinstance(mask['counts'], list):
        rle = coco_mask.frPyObjects(mask, *mask['size'])
    else:
        rle = mask
    if tuple(rle['size']) != size:
        raise ValueError(f'{where}: the mask is {rle["size"][0]} x {rle["size"][1]} pixels, the image {size[0]} x '
                         f'{size[1]}; masks must have the original size')
    counts = rle['counts']
    return {'size': list(size), 'counts': counts.decode('ascii') if isinstance(counts, bytes) else counts}


def area(rle: dict) -> float:
    """Pixels inside."""
    from pycocotools import mask as coco_mask
    return float(coco_mask.area(rle))


def box(rle: dict) -> list[float]:
    """The tight box, xywh in pixels."""
    from pycocotools import mask as coco_mask
    return [float(value) for value in coco_mask.toBbox(rle)]


def overlaps(found: list[dict], truth: list[dict]) -> np.ndarray:
    """IoU of every result with every object, float64 ``[D, G]``; with a crowd, how much of the result is inside it.

    Args:
        found, truth: records with ``segmentation`` as RLE, and ``iscrowd`` in ``truth``.
    """
    from pycocotools import mask as coco_mask
    if not found or not truth:
        return np.zeros((len(found), len(truth)))
    return np.asarray(coco_mask.iou([record['segmentation'] for record in found],
                                    [record['segmentation'] for record in truth],
                                    [int(record['iscrowd']) for record in truth]), np.float64)


def thing_annotations(truth: PanopticMap) -> list[dict]:
    """The things of a panoptic map as COCO's instance records, crowds included."""
    return [{'category_id': segment.label, 'segmentation': as_rle(truth.ids == segment.id, truth.ids.shape, ''),
             'area': float(segment.area), 'bbox': [float(value) for value in segment.bbox],
             'iscrowd': int(segment.iscrowd)} for segment in truth.segments if segment.isthing]
