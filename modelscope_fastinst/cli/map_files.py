"""What ``predict`` writes for panoptic and semantic maps beside the pictures: files that other programs read."""
from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modelscope_fastinst.cli.predict import write_json, write_picture

# Where they lie in the output folder: a folder of PNG files and a JSON file of the same name, as COCO has them.
MAPS = {'panoptic': 'panoptic', 'semantic': 'labels'}


class MapFiles:
    """Writes the maps of a run.

    For 'panoptic' these are COCO's panoptic files: ``panoptic/NAME.png``, whose pixels are R + 256 G + 65536 B = id of
    the segment (0: void), and ``panoptic.json`` for all of them. For 'semantic' they are ``labels/NAME.png``, in one
    channel the index of each pixel's class (8 bits, or 16 for more than 255 classes; the largest number: void), and
    ``labels.json``, which names the classes.

    Args:
        folder: for the PNG files; the JSON file lies beside it.
        task: 'panoptic' or 'semantic'.
        classes: names of the model's classes.
        things: indices of the thing classes.
    """

    def __init__(self, folder: Path, task: str, classes: Sequence[str], things: Collection[int] = ()) -> None:
        self.folder, self.task, self.classes = folder, task, list(classes)
        ids = category_ids(self.classes)
        self.categories = [{'id': number, 'name': name, 'isthing': int(index in things)}
                           for index, (number, name) in enumerate(zip(ids, self.classes, strict=True))]
        self._id_of = {name: number for number, name in zip(reversed(ids), reversed(self.classes), strict=True)}
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self.folder.mkdir(parents=True, exist_ok=True)

    def add(self, picture: Path, name: str, found: dict[str, Any]) -> None:
        """Writes the map of a picture as ``name`` (with .png) and notes what the JSON file says of it."""
        values = found['label_map' if self.task == 'semantic' else 'id_map']
        write_picture(self.folder / name, self._index_image(values) if self.task == 'semantic' else as_rgb(values))
        self._images.append({'file_name': picture.name, 'height': values.shape[0], 'width': values.shape[1]})
        if self.task == 'semantic':
            self._images[-1]['labels'] = name
        else:
            self._annotations.append({'file_name': name, 'segments_info': [
                {'id': one['id'], 'category_id': self._id_of[one['label']], 'area': one['area'], 'bbox': one['bbox'],
                 'iscrowd': 0, 'score': one['score']} for one in found['segments']]})

    def finish(self) -> Path:
        """Writes the JSON file; gives its path."""
        path = self.folder.with_suffix('.json')
        if self.task == 'semantic':
            write_json(path, {'classes': self.classes, 'void': self._void, 'images': self._images})
            return path
        for number, image, annotation in zip(self._image_ids(), self._images, self._annotations, strict=True):
            image['id'] = annotation['image_id'] = number
        write_json(path, {'images': self._images, 'annotations': self._annotations, 'categories': self.categories})
        return path

    def _image_ids(self) -> list[int]:
        """COCO names its pictures after their ids; others are numbered."""
        stems = [Path(image['file_name']).stem for image in self._images]
        if all(stem.isascii() and stem.isdigit() for stem in stems):
            numbers = [int(stem) for stem in stems]
            if len(set(numbers)) == len(numbers):
                return numbers
        return list(range(1, len(stems) + 1))

    @property
    def _void(self) -> int:
        return 255 if len(self.classes) <= 255 else 65535

    def _index_image(self, labels: np.ndarray) -> np.ndarray:
        return np.where(labels < 0, self._void, labels).astype(np.uint8 if self._void == 255 else np.uint16)


def as_rgb(ids: np.ndarray) -> np.ndarray:
    """Segment ids as COCO's panoptic PNG files hold them: uint8 ``[H, W, 3]``."""
    return np.stack([ids >> shift & 255 for shift in (0, 8, 16)], axis=2).astype(np.uint8)


def category_ids(classes: Sequence[str]) -> list[int]:
    """The ids that the files give these classes: those of the published data set that has them, else 1, 2, ..."""
    from modelscope_fastinst.data import label_sets
    for known in (label_sets.COCO_PANOPTIC, label_sets.ADE20K_PANOPTIC, label_sets.CITYSCAPES):
        if list(classes) == list(known.names):
            return list(known.ids)
    return list(range(1, len(classes) + 1))
