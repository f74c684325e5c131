"""One result from several views of an image (test-time augmentation).

Follows weighted boxes fusion (Solovyev, Wang and Gabruseva 2021, https://arxiv.org/abs/1910.13302), with masks for
boxes: what several views agree on becomes one instance whose mask is their vote, weighted by score; what a view does
not see lowers the score.
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modelscope_fastinst.results.rle import decode, encode
from modelscope_fastinst.structures import Instances

IOU = 0.5


def flipped(instances: Instances, width: int) -> Instances:
    """The instances of a mirrored image (masks as RLE), as they lie in the image itself, ``width`` pixels wide."""
    boxes = np.array(instances.boxes, np.float32).reshape(-1, 4)
    filled = boxes[:, 2] > boxes[:, 0]
    boxes[filled, 0], boxes[filled, 2] = width - boxes[filled, 2], width - boxes[filled, 0]
    masks = [encode(decode([mask])[:, :, ::-1])[0] for mask in instances.masks]
    return Instances(instances.scores, instances.labels, masks, boxes)


def merge_views(views: Sequence[Instances], max_instances: int = 100) -> Instances:
    """Fuses the instances that several views of one image gave.

    By falling score, an instance joins the first group of its class that has none of its view yet and whose best mask
    it overlaps with an IoU of at least 0.5, or begins one. A group's score is the sum of its scores over the number of
    views; its mask is where instances of more than half of the group's summed scores are. The order of the views
    decides between equal scores.

    Args:
        views: of the same image at the same size, masks as RLE.
        max_instances: at most so many are kept, the best.

    Returns:
        Best first, masks as RLE.
    """
    from pycocotools import mask as coco_mask
    if len(views) == 1:
        return views[0]
    items = [(float(score), int(label), number, mask)
             for number, view in enumerate(views)
             for score, label, mask in zip(view.scores, view.labels, view.masks, strict=True)]
    items = [items[row] for row in np.argsort([-item[0] for item in items], kind='stable')]
    groups: list[list[int]] = []
    if items:
        masks = [item[3] for item in items]
        ious = np.asarray(coco_mask.iou(masks, masks, [0] * len(masks)))
    for row, (_, label, number, _) in enumerate(items):
        for group in groups:
            if (items[group[0]][1] == label and ious[row, group[0]] >= IOU
                    and all(items[member][2] != number for member in group)):
                group.append(row)
                break
        else:
            groups.append([row])
    scores = [sum(items[row][0] for row in group) / len(views) for group in groups]
    best = np.argsort([-score for score in scores], kind='stable')[:max_instances]
    found = [_vote([items[row] for row in groups[index]]) for index in best]
    return Instances(scores=np.array([scores[index] for index in best], np.float32),
                     labels=np.array([items[groups[index][0]][1] for index in best], np.int64), masks=found,
                     boxes=np.array([_box(mask) for mask in found], np.float32).reshape(-1, 4))


def _vote(members: Sequence[tuple[float, int, int, dict]]) -> dict:
    """The mask where members of more than half of the summed scores are; a lone or dominating one as it is."""
    total = sum(member[0] for member in members)
    if len(members) == 1 or 2 * members[0][0] > total:
        return members[0][3]
    share = np.zeros(tuple(members[0][3]['size']), np.float64)
    for score, _, _, mask in members:   # one at a time, for large images
        share += decode([mask])[0] * score
    return encode((2 * share > total)[None])[0]


def _box(mask: dict) -> list[float]:
    from pycocotools import mask as coco_mask
    left, top, width, height = coco_mask.toBbox(mask)
    return [left, top, left + width, top + height]
