"""Instances in the forms of other tools: COCO results, supervision's detections; and back from a pipeline's result."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modelscope_fastinst.structures import Instances

LISTS = ('scores', 'labels', 'masks', 'boxes')


def from_result(result: Mapping[str, Any], classes: Sequence[str] | None) -> dict[str, Any]:
    """The fields of `Instances` for a result of ``pipeline('image-segmentation')``; see `Instances.from_result`."""
    missing = [name for name in LISTS if name not in result]
    if missing:
        raise ValueError(f'a result without {", ".join(missing)}; pass what pipeline() returned for one image')
    lengths = {name: len(result[name]) for name in LISTS}
    if len(set(lengths.values())) > 1:
        raise ValueError('a result has one entry an instance in every list; got '
                         + ', '.join(f'{number} {name}' for name, number in lengths.items()))
    names = tuple(dict.fromkeys(result['labels'])) if classes is None else tuple(classes)
    places = {name: place for place, name in reversed(list(enumerate(names)))}
    for number, label in enumerate(result['labels']):
        if label not in places:
            raise ValueError(f'labels[{number}] is {label!r}, which is none of the {len(names)} classes that were '
                             'named; pass the classes of the model that made the result')
    return {'scores': np.asarray(result['scores'], np.float32).reshape(-1),
            'labels': np.array([places[label] for label in result['labels']], np.int64),
            'masks': _together(result['masks']),
            'boxes': np.asarray(result['boxes'], np.float32).reshape(-1, 4), 'classes': names}


def to_coco(found: Instances, image_id: int | str,
            category_ids: Sequence[int] | Mapping[str, int] | None) -> list[dict[str, Any]]:
    """Records of a COCO results file; see `Instances.to_coco`."""
    from pycocotools import mask as coco_mask
    labels, scores, boxes = _numbers(found.labels), _numbers(found.scores), _numbers(found.boxes).reshape(-1, 4)
    records = []
    for label, score, box, mask in zip(labels.tolist(), scores.tolist(), boxes.tolist(), found.masks, strict=True):
        encoded = _encoded(mask)
        name = None if found.classes is None else found.classes[label]
        records.append({'image_id': image_id, 'category_id': _category(label, name, category_ids),
                        **({} if name is None else {'category_name': name}),
                        'bbox': [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                        'area': int(coco_mask.area(encoded)), 'score': score, 'segmentation': encoded})
    return records


def to_supervision(found: Instances) -> Any:
    """``supervision.Detections``; see `Instances.to_supervision`."""
    try:
        from supervision import Detections
    except ImportError as error:
        raise ImportError('to_supervision() needs supervision; install it with '
                          'pip install "modelscope-fastinst[supervision]"') from error
    if not len(found):
        return Detections.empty()
    labels = _numbers(found.labels).astype(np.int64)
    data = {} if found.classes is None else {'class_name': np.array([found.classes[label] for label in labels])}
    return Detections(xyxy=_numbers(found.boxes).astype(np.float32).reshape(-1, 4), mask=_decoded(found.masks),
                      confidence=_numbers(found.scores).astype(np.float32), class_id=labels, data=data)


def _category(label: int, name: str | None, ids: Sequence[int] | Mapping[str, int] | None) -> int:
    if ids is None:
        return label + 1
    if isinstance(ids, Mapping):
        if name is None:
            raise ValueError('category_ids are by class name, and these instances do not know the names; set classes')
        if name not in ids:
            raise ValueError(f'category_ids has no id for the class {name!r}')
        return int(ids[name])
    if not 0 <= label < len(ids):
        raise ValueError(f'category_ids has {len(ids)} ids; there is none for label {label}')
    return int(ids[label])


def _numbers(values: Any) -> np.ndarray:
    """An array of an array, a tensor on any device, or a list."""
    return np.asarray(values.cpu() if hasattr(values, 'cpu') else values)


def _together(masks: Sequence[Any]) -> Any:
    """Masks of one kind and size: RLE dicts as a list, arrays as one of uint8 ``[N, H, W]``."""
    encoded = [isinstance(mask, Mapping) for mask in masks]
    if any(encoded) and not all(encoded):
        raise ValueError(f'masks[{encoded.index(not encoded[0])}] is not of the kind of masks[0]; give arrays or RLE')
    sizes = [tuple(mask['size']) if kind else np.shape(mask) for mask, kind in zip(masks, encoded, strict=True)]
    for number, size in enumerate(sizes):
        if size != sizes[0] or len(size) != 2:
            raise ValueError(f'masks[{number}] is {" x ".join(map(str, size))}, masks[0] '
                             f'{" x ".join(map(str, sizes[0]))}; masks of one image have its height and width')
    if all(encoded):
        return [dict(mask) for mask in masks] if masks else np.zeros((0, 0, 0), np.uint8)
    stacked = np.empty((len(masks), *sizes[0]), np.uint8)
    for target, mask in zip(stacked, masks, strict=True):
        np.not_equal(mask, 0, out=target.view(np.bool_))
    return stacked


def _encoded(mask: Any) -> dict[str, Any]:
    """COCO RLE, compressed, with counts as text, of a mask in any form."""
    if isinstance(mask, Mapping):
        height, width = (int(side) for side in mask['size'])
        counts = mask['counts']
        if isinstance(counts, (list, tuple)):
            from pycocotools import mask as coco_mask
            counts = coco_mask.frPyObjects({'size': [height, width], 'counts': list(counts)}, height, width)['counts']
        return {'size': [height, width], 'counts': counts.decode('ascii') if isinstance(counts, bytes) else counts}
    from modelscope_fastinst.results.rle import encode_region
    mask = _numbers(mask)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return encode_region(np.zeros((0, 0), np.bool_), mask.shape)
    top, left = int(rows[0]), int(columns[0])
    inside = mask[top:rows[-1] + 1, left:columns[-1] + 1] != 0
    return encode_region(inside.T, mask.shape, top, left)


def _decoded(masks: Any) -> np.ndarray:
    """bool ``[N, H, W]`` of masks in any form, of which there is at least one."""
    if isinstance(masks[0], Mapping):
        from modelscope_fastinst.results.rle import decode
        return decode([_encoded(mask) for mask in masks]).view(np.bool_)
    return np.stack([_numbers(mask) for mask in masks]) != 0
