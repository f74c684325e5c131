"""What a visitor takes away: the overlay, the instances as COCO-style JSON, and a black and white PNG for each mask."""
from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modelscope_fastinst.checkpoints.writing import write_together
from modelscope_fastinst.studio.drawing import Look, draw
from modelscope_fastinst.studio.messages import Refused
from modelscope_fastinst.studio.segmentation import Segmentation

OVERLAY, JSON, MASKS = 'overlay.png', 'instances.json', 'masks.zip'
_EARLIEST = (1980, 1, 1, 0, 0, 0)   # of a file in a zip


@dataclass(frozen=True)
class Downloads:
    """Files in a visit's folder, of names that nothing a visitor sends has a part in.

    Attributes:
        overlay: PNG of the picture's size, as it was drawn.
        json: ``coco_json`` of the result.
        masks: zip of ``mask_0001.png`` and so on, one for each annotation of the JSON file in its order: black, white
            where the mask is, of the picture's size.
    """
    overlay: Path
    json: Path
    masks: Path


def coco_json(segmentation: Segmentation, file_name: str | None = None) -> dict[str, Any]:
    """The result in the form of COCO's annotation files, with scores.

    Args:
        file_name: of the picture; None for the upload's own.

    Returns:
        ``images``, one; ``categories``, all of the model's classes with id = label + 1; and ``annotations``, best
        first: ``id`` from 1, ``image_id``, ``category_id``, ``segmentation`` (compressed RLE with text counts),
        ``area`` in pixels, ``bbox`` (x, y, width, height), ``score`` and ``iscrowd`` 0. A panoptic result's have
        ``isthing`` as well.
    """
    height, width = segmentation.size
    result = segmentation.result
    segments = result.get('segments', [{}] * len(segmentation))
    # Of classes that share a name the first, for a result has names.
    labels = {name: label for label, name in reversed(list(enumerate(segmentation.classes)))}
    annotations = []
    columns = zip(result['labels'], result['scores'], segmentation.areas(), result['boxes'], result['masks'], segments,
                  strict=True)
    for number, (label, score, area, (left, top, right, bottom), mask, segment) in enumerate(columns, start=1):
        annotations.append({
            'id': number, 'image_id': 1, 'category_id': labels[label] + 1,
            'bbox': [float(side) for side in (left, top, right - left, bottom - top)], 'area': area,
            'score': float(score), 'iscrowd': 0,
            'segmentation': {'size': [int(side) for side in mask['size']], 'counts': mask['counts']},
            **({'isthing': bool(segment['isthing'])} if segment else {})})
    categories = [{'id': label + 1, 'name': name} for label, name in enumerate(segmentation.classes)]
    image = {'id': 1, 'file_name': file_name or segmentation.file_name or 'picture', 'height': height, 'width': width}
    return {'images': [image], 'categories': categories, 'annotations': annotations}


def write_downloads(segmentation: Segmentation, look: Look | None = None) -> Downloads:
    """Writes the three files, whole or not at all, unless they are there from an equal call.

    Raises:
        Refused: 'expired'.
    """
    look = Look() if look is None else look
    if not segmentation.folder.is_dir():
        raise Refused('expired')
    asked = repr((segmentation.model, sorted(segmentation.options.items()), astuple(look)))
    folder = segmentation.folder / hashlib.sha256(asked.encode('utf-8', 'replace')).hexdigest()[:16]
    files = Downloads(folder / OVERLAY, folder / JSON, folder / MASKS)
    if not all(file.is_file() for file in astuple(files)):
        folder.mkdir(exist_ok=True)
        write_together({files.overlay: lambda stream: stream.write(overlay_content(segmentation, look)),
                        files.json: lambda stream: stream.write(json_content(segmentation)),
                        files.masks: lambda stream: write_masks(segmentation, stream)})
    return files


def overlay_content(segmentation: Segmentation, look: Look) -> bytes:
    """The overlay as PNG."""
    from PIL import Image
    content = io.BytesIO()
    Image.fromarray(draw(segmentation, look)).save(content, format='PNG', compress_level=1)
    return content.getvalue()


def json_content(segmentation: Segmentation) -> bytes:
    """``coco_json`` as a file: UTF-8, except for characters that a file cannot hold, which are escaped."""
    text = json.dumps(coco_json(segmentation), ensure_ascii=False, allow_nan=False)
    if any('\ud800' <= letter <= '\udfff' for letter in text):   # half of a character, from a broken name
        text = json.dumps(coco_json(segmentation), allow_nan=False)
    return text.encode() + b'\n'


def write_masks(segmentation: Segmentation, stream: Any) -> None:
    """The zip; one mask at a time is decoded."""
    with zipfile.ZipFile(stream, 'w', zipfile.ZIP_STORED) as archive:
        for number, (mask, box) in enumerate(zip(segmentation.result['masks'], segmentation.result['boxes'],
                                                 strict=True), start=1):
            archive.writestr(zipfile.ZipInfo(f'mask_{number:04d}.png', _EARLIEST), mask_content(mask, box))


def mask_content(mask: dict[str, Any], box: Sequence[float]) -> bytes:
    """A black and white PNG of one bit a pixel, white where the mask is.

    Args:
        mask: COCO RLE.
        box: xyxy in pixels, tight. Only what is in it is looked at: of a large picture that is next to nothing.
    """
    from pycocotools import mask as coco_mask
    height, width = mask['size']
    left, top, right, bottom = (int(side) for side in box)
    rows = np.zeros((bottom - top, width), np.uint8)
    rows[:, left:right] = coco_mask.decode(mask)[top:bottom, left:right]
    lines = np.zeros((height, 1 + -(-width // 8)), np.uint8)   # each begins with the number of its filter, 0 for none
    lines[top:bottom, 1:] = np.packbits(rows, axis=1)
    # Written by hand, for Pillow would unpack the bits of the whole picture first.
    header = struct.pack('>IIBBBBB', width, height, 1, 0, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + b''.join(
        struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))
        for name, data in ((b'IHDR', header), (b'IDAT', zlib.compress(lines, 1)), (b'IEND', b'')))
