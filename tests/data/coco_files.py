"""A small COCO annotation file, and ways to spoil it."""
from __future__ import annotations

import json

import numpy as np
from pycocotools import mask as coco_mask

SQUARE = [[2.0, 3.0, 10.0, 3.0, 10.0, 8.0, 2.0, 8.0]]


def rle(height=20, width=30, top=5, left=6, kind='list'):
    mask = np.zeros((height, width), np.uint8, order='F')
    mask[top:top + 4, left:left + 7] = 1
    if kind == 'list':
        flat = np.concatenate(([0], mask.ravel(order='F')))
        changes = np.flatnonzero(np.diff(flat, append=1 - flat[-1]))
        return {'size': [height, width], 'counts': np.diff(changes, prepend=0).tolist()}
    encoded = coco_mask.encode(mask)
    return {'size': [height, width], 'counts': encoded['counts'].decode()}


def content():
    """Three images: two objects and a crowd; one object; none. Gapped and zero-based ids, one class never used."""
    return {
        'images': [{'id': 11, 'file_name': 'bär 1.png', 'height': 20, 'width': 30},
                   {'id': 7, 'file_name': '图 2.png', 'height': 20, 'width': 30},
                   {'id': 9, 'file_name': 'empty.png', 'height': 20, 'width': 30}],
        'annotations': [
            {'id': 100, 'image_id': 11, 'category_id': 90, 'segmentation': [SQUARE[0][:]], 'area': 40.0, 'iscrowd': 0,
             'bbox': [2, 3, 8, 5]},
            {'id': 3, 'image_id': 7, 'category_id': 0, 'segmentation': rle(), 'iscrowd': 0},
            {'id': 5, 'image_id': 11, 'category_id': 0, 'segmentation': rle(kind='str'), 'iscrowd': 0, 'area': 28},
            {'id': 6, 'image_id': 11, 'category_id': 0, 'segmentation': rle(top=10, left=1), 'iscrowd': 1},
        ],
        'categories': [{'id': 90, 'name': 'teddy bear'}, {'id': 0, 'name': '人物'}, {'id': 4, 'name': 'unused'}],
    }


def write(folder, data) -> str:
    path = folder / 'instances.json'
    path.write_text(data if isinstance(data, str) else json.dumps(data, ensure_ascii=False), encoding='utf-8')
    return str(path)


def change(path, value):
    """``content()`` with one value replaced, or removed where ``value`` is ..."""
    data = content()
    place = data
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return data
