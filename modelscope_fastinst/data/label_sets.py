"""The classes of the published data sets: their ids in the files, their names, and which of them are things.

Ids and names are those of the data sets' own publications: COCO (``panoptic_coco_categories.json`` of the COCO panoptic
API), ADE20K (the scene parsing challenge's 150 classes, by the first of each class' synonyms, as its instance challenge
names its 100 things) and Cityscapes (``labels.py`` of cityscapesScripts).
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class LabelSet:
    """The classes of a data set, in the order of the class indices ``[0, K)``.

    Attributes:
        name: of the data set.
        ids: what stands for each class in the files; every other value is void.
        names: of the classes, none twice.
        things: the names of the classes that count objects; the others are stuff.
    """
    name: str
    ids: tuple[int, ...]
    names: tuple[str, ...]
    things: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.names):
            raise ValueError(f'{self.name}: {len(self.ids)} ids for {len(self.names)} names')

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def index_of(self) -> Mapping[int, int]:
        """Class index by id."""
        return {number: index for index, number in enumerate(self.ids)}

    @cached_property
    def thing_indices(self) -> frozenset[int]:
        """The class indices of the things."""
        things = set(self.things)
        return frozenset(index for index, name in enumerate(self.names) if name in things)

    def only_things(self, name: str) -> LabelSet:
        """The things alone, as an instance challenge counts them: indices ``[0, number of things)``."""
        kept = sorted(self.thing_indices)
        names = tuple(self.names[index] for index in kept)
        return LabelSet(name, tuple(self.ids[index] for index in kept), names, names)


_COCO_THINGS = (
    'person', 'bicycle', 'car', 'motorcycle', 'airplane', 'bus', 'train', 'truck', 'boat', 'traffic light',
    'fire hydrant', 'stop sign', 'parking meter', 'bench', 'bird', 'cat', 'dog', 'horse', 'sheep', 'cow', 'elephant',
    'bear', 'zebra', 'giraffe', 'backpack', 'umbrella', 'handbag', 'tie', 'suitcase', 'frisbee', 'skis', 'snowboard',
    'sports ball', 'kite', 'baseball bat', 'baseball glove', 'skateboard', 'surfboard', 'tennis racket', 'bottle',
    'wine glass', 'cup', 'fork', 'knife', 'spoon', 'bowl', 'banana', 'apple', 'sandwich', 'orange', 'broccoli',
    'carrot', 'hot dog', 'pizza', 'donut', 'cake', 'chair', 'couch', 'potted plant', 'bed', 'dining table', 'toilet',
    'tv', 'laptop', 'mouse', 'remote', 'keyboard', 'cell phone', 'microwave', 'oven', 'toaster', 'sink',
    'refrigerator', 'book', 'clock', 'vase', 'scissors', 'teddy bear', 'hair drier', 'toothbrush',
)
# COCO numbered 91 things and then annotated 80 of them.
_COCO_UNUSED = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
_COCO_THING_IDS = tuple(number for number in range(1, 91) if number not in _COCO_UNUSED)

_COCO_STUFF = {
    92: 'banner', 93: 'blanket', 95: 'bridge', 100: 'cardboard', 107: 'counter', 109: 'curtain', 112: 'door-stuff',
    118: 'floor-wood', 119: 'flower', 122: 'fruit', 125: 'gravel', 128: 'house', 130: 'light', 133: 'mirror-stuff',
    138: 'net', 141: 'pillow', 144: 'platform', 145: 'playingfield', 147: 'railroad', 148: 'river', 149: 'road',
    151: 'roof', 154: 'sand', 155: 'sea', 156: 'shelf', 159: 'snow', 161: 'stairs', 166: 'tent', 168: 'towel',
    171: 'wall-brick', 175: 'wall-stone', 176: 'wall-tile', 177: 'wall-wood', 178: 'water-other', 180: 'window-blind',
    181: 'window-other', 184: 'tree-merged', 185: 'fence-merged', 186: 'ceiling-merged', 187: 'sky-other-merged',
    188: 'cabinet-merged', 189: 'table-merged', 190: 'floor-other-merged', 191: 'pavement-merged',
    192: 'mountain-merged', 193: 'grass-merged', 194: 'dirt-merged', 195: 'paper-merged', 196: 'food-other-merged',
    197: 'building-other-merged', 198: 'rock-merged', 199: 'wall-other-merged', 200: 'rug-merged',
}

_ADE20K = (
    'wall', 'building', 'sky', 'floor', 'tree', 'ceiling', 'road', 'bed', 'windowpane', 'grass', 'cabinet', 'sidewalk',
    'person', 'earth', 'door', 'table', 'mountain', 'plant', 'curtain', 'chair', 'car', 'water', 'painting', 'sofa',
    'shelf', 'house', 'sea', 'mirror', 'rug', 'field', 'armchair', 'seat', 'fence', 'desk', 'rock', 'wardrobe', 'lamp',
    'bathtub', 'railing', 'cushion', 'base', 'box', 'column', 'signboard', 'chest of drawers', 'counter', 'sand',
    'sink', 'skyscraper', 'fireplace', 'refrigerator', 'grandstand', 'path', 'stairs', 'runway', 'case', 'pool table',
    'pillow', 'screen door', 'stairway', 'river', 'bridge', 'bookcase', 'blind', 'coffee table', 'toilet', 'flower',
    'book', 'hill', 'bench', 'countertop', 'stove', 'palm', 'kitchen island', 'computer', 'swivel chair', 'boat',
    'bar', 'arcade machine', 'hovel', 'bus', 'towel', 'light', 'truck', 'tower', 'chandelier', 'awning', 'streetlight',
    'booth', 'television receiver', 'airplane', 'dirt track', 'apparel', 'pole', 'land', 'bannister', 'escalator',
    'ottoman', 'bottle', 'buffet', 'poster', 'stage', 'van', 'ship', 'fountain', 'conveyer belt', 'canopy', 'washer',
    'plaything', 'swimming pool', 'stool', 'barrel', 'basket', 'waterfall', 'tent', 'bag', 'minibike', 'cradle',
    'oven', 'ball', 'food', 'step', 'tank', 'trade name', 'microwave', 'pot', 'animal', 'bicycle', 'lake',
    'dishwasher', 'screen', 'blanket', 'sculpture', 'hood', 'sconce', 'vase', 'traffic light', 'tray', 'ashcan', 'fan',
    'pier', 'crt screen', 'plate', 'monitor', 'bulletin board', 'shower', 'radiator', 'glass', 'clock', 'flag',
)
_ADE20K_STUFF = {
    'wall', 'building', 'sky', 'floor', 'tree', 'ceiling', 'road', 'grass', 'sidewalk', 'earth', 'mountain', 'plant',
    'water', 'house', 'sea', 'rug', 'field', 'rock', 'base', 'sand', 'skyscraper', 'grandstand', 'path', 'runway',
    'stairway', 'river', 'bridge', 'blind', 'hill', 'bar', 'hovel', 'tower', 'dirt track', 'land', 'escalator',
    'buffet', 'poster', 'stage', 'conveyer belt', 'canopy', 'swimming pool', 'waterfall', 'tent', 'cradle', 'tank',
    'lake', 'blanket', 'pier', 'crt screen', 'shower',
}
_ADE20K_THINGS = tuple(name for name in _ADE20K if name not in _ADE20K_STUFF)

# In the order of the train ids 0..18.
_CITYSCAPES = {
    7: 'road', 8: 'sidewalk', 11: 'building', 12: 'wall', 13: 'fence', 17: 'pole', 19: 'traffic light',
    20: 'traffic sign', 21: 'vegetation', 22: 'terrain', 23: 'sky', 24: 'person', 25: 'rider', 26: 'car', 27: 'truck',
    28: 'bus', 31: 'train', 32: 'motorcycle', 33: 'bicycle',
}

COCO_PANOPTIC = LabelSet('coco-panoptic', (*_COCO_THING_IDS, *_COCO_STUFF), (*_COCO_THINGS, *_COCO_STUFF.values()),
                         _COCO_THINGS)
COCO_INSTANCE = COCO_PANOPTIC.only_things('coco-instance')
# Ids in the one-channel PNGs of the scene parsing challenge; 0 is "other", void.
ADE20K = LabelSet('ade20k', tuple(range(1, 151)), _ADE20K, _ADE20K_THINGS)
# Ids in the JSON files that MaskFormer's and Mask2Former's preparation writes: one less.
ADE20K_PANOPTIC = LabelSet('ade20k-panoptic', tuple(range(150)), _ADE20K, _ADE20K_THINGS)
ADE20K_INSTANCE = ADE20K_PANOPTIC.only_things('ade20k-instance')
# Ids in the *_labelIds.png, and, times 1000 plus a running number, in the *_instanceIds.png; of the 34 ids 0..33 the
# others are void. The class index is the *_labelTrainIds.png's value.
CITYSCAPES = LabelSet('cityscapes', tuple(_CITYSCAPES), tuple(_CITYSCAPES.values()),
                      ('person', 'rider', 'car', 'truck', 'bus', 'train', 'motorcycle', 'bicycle'))
CITYSCAPES_INSTANCE = CITYSCAPES.only_things('cityscapes-instance')

LABEL_SETS: Mapping[str, LabelSet] = {labels.name: labels for labels in (
    COCO_INSTANCE, COCO_PANOPTIC, ADE20K, ADE20K_PANOPTIC, ADE20K_INSTANCE, CITYSCAPES, CITYSCAPES_INSTANCE)}
