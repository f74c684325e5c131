"""Maps in PNGs of one channel: class indices, or Cityscapes' instance ids."""
from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from modelscope_fastinst.data.label_sets import LabelSet
from modelscope_fastinst.data.maps.label_map import LabelMap, locate
from modelscope_fastinst.data.maps.pictures import MapError, read_channels, read_indices

_GROUP_BELOW = 1000   # Cityscapes: smaller ids are classes as a whole, larger ones class * 1000 + number of the object


class LabelReader:
    """Reads PNGs whose pixels are class numbers.

    Args:
        files: one an image.
        label_of: class index by number, -1 for void.
        others_are_void: numbers that ``label_of`` does not have are void as well; else they are a fault.
        what: a sentence that says which numbers there may be, for messages.
    """

    def __init__(self, files: Sequence[str], label_of: Mapping[int, int], *, others_are_void: bool = False,
                 what: str = '') -> None:
        self.files, self.others_are_void, self.what = files, others_are_void, what
        self.numbers = np.array(sorted(number for number, label in label_of.items() if label >= 0), np.int64)
        self.void = np.array(sorted(number for number, label in label_of.items() if label < 0), np.int64)
        self.labels = np.array([label_of[number] for number in self.numbers.tolist()], np.int64)
        self.crowds = np.zeros(len(self.numbers), bool)

    def __call__(self, index: int, faults: list[tuple[str, str]]) -> LabelMap:
        values = read_indices(self.files[index])
        places = locate(values, self.numbers)
        if not self.others_are_void:
            unclear = values[places < 0]
            unclear = unclear[locate(unclear, self.void) < 0]
            if unclear.size:
                strange, counts = np.unique(unclear, return_counts=True)
                shown = ', '.join(f'{value} ({count} pixels)' for value, count in list(zip(strange, counts))[:6])
                more = f' and {len(strange) - 6} more' if len(strange) > 6 else ''
                faults.append(('unknown-label', f'{self.files[index]}: has the values {shown}{more}, which are no '
                                                f'class; {self.what}'))
        return LabelMap(places, self.numbers, self.labels, self.crowds)


class CityscapesReader:
    """Reads ``*_instanceIds.png``: ids from 1000 on are objects, class id times 1000 plus a number; smaller ones are
    class ids, of stuff, or of a group of things, which is a crowd.

    Source: cityscapesScripts, ``json2instanceImg.py`` and ``createPanopticImgs.py``.
    """

    def __init__(self, files: Sequence[str], labels: LabelSet) -> None:
        self.files, self.labels = files, labels

    def __call__(self, index: int, faults: list[tuple[str, str]]) -> LabelMap:
        values = read_indices(self.files[index])
        numbers = np.flatnonzero(np.bincount(values.ravel()))
        classes = np.where(numbers < _GROUP_BELOW, numbers, numbers // 1000)
        known = np.isin(classes, self.labels.ids)
        strange = numbers[classes > 33]
        if len(strange):
            faults.append(('unknown-label', f'{self.files[index]}: has the values {strange[:6].tolist()}, which are no '
                                            'ids of Cityscapes (class 0 to 33, or that times 1000 plus a number)'))
        numbers, classes = numbers[known], classes[known]
        labels = np.array([self.labels.index_of[one] for one in classes.tolist()], np.int64)
        crowds = (numbers < _GROUP_BELOW) & np.isin(labels, list(self.labels.thing_indices))
        return LabelMap(locate(values, numbers), numbers.astype(np.int64), labels, crowds)


class AdeInstanceReader:
    """Reads ADE20K's ``annotations_instance``: red is the class, 1 to 100, green the number of the object, 0 for none.

    Source: the Places challenge 2017; the order of the classes is that of the 100 things among the 150 classes.
    """

    def __init__(self, files: Sequence[str], classes: int) -> None:
        self.files, self.classes = files, classes

    def __call__(self, index: int, faults: list[tuple[str, str]]) -> LabelMap:
        channels = read_channels(self.files[index]).astype(np.int32)
        values = np.where(channels[:, :, 1] > 0, channels[:, :, 0] * 256 + channels[:, :, 1], 0)
        numbers = np.flatnonzero(np.bincount(values.ravel()))
        numbers = numbers[numbers > 0]
        labels = numbers // 256 - 1
        strange = (labels < 0) | (labels >= self.classes)
        if strange.any():
            faults.append(('unknown-label', f'{self.files[index]}: has the classes '
                                            f'{np.unique(labels[strange] + 1).tolist()[:6]} in its red channel, which '
                                            f'must be 1 to {self.classes} where the green one is not 0'))
        numbers, labels = numbers[~strange], labels[~strange]
        return LabelMap(locate(values, numbers), numbers.astype(np.int64), labels.astype(np.int64),
                        np.zeros(len(numbers), bool))


def index_table(count: int, offset: int = 0, void: int | None = 255) -> dict[int, int]:
    """What the numbers of a label PNG mean: class i is number i + ``offset``, ``void`` no class.

    Raises:
        ValueError: a class has the void number.
    """
    table = {index + offset: index for index in range(count)}
    if void is not None:
        if void in table:
            raise ValueError(f'void_label {void} is the number of class {table[void]} (label_offset {offset}, {count} '
                             'classes); give another void_label, or null where every pixel has a class')
        table[void] = -1
    for number in range(offset):   # what is below the first class is none
        table.setdefault(number, -1)
    return table


def check_map_size(file: str, found: tuple[int, int], image: str, wanted: tuple[int, int]) -> None:
    """Raises a MapError where a map is not as large as its image, (height, width) in pixels."""
    if tuple(found) != tuple(wanted):
        raise MapError(f'{file}: is {found[1]} x {found[0]} pixels (width x height), its image {image} '
                       f'{wanted[1]} x {wanted[0]}: one of them was scaled, restore it', 'size-mismatch')
