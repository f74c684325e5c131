"""Real data sets: what is found in them is there, counted again by other means."""
from __future__ import annotations

import hashlib
import itertools
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from modelscope_fastinst.data.checking import check_data
from modelscope_fastinst.data.formats import read_source


@pytest.mark.slow
def test_what_is_found_in_coco_is_there(shared_data, capsys):
    from pycocotools.coco import COCO
    root = shared_data / 'coco-tiny'
    report = check_data({split: read_source(root, split) for split in ('train', 'val')})
    expected: set[tuple] = set()
    pixels, objects = {}, {}
    for split in ('train', 'val'):
        coco = COCO(str(root / 'annotations' / f'instances_{split}2017.json'))
        names = {one['id']: one['name'] for one in coco.loadCats(coco.getCatIds())}
        objects[split] = Counter(names[one['category_id']] for one in coco.anns.values() if not one['iscrowd'])
        most = objects[split].most_common(1)[0][1]
        for image in coco.loadImgs(coco.getImgIds()):
            picture = np.asarray(Image.open(root / f'{split}2017' / image['file_name']).convert('RGB'))
            assert picture.shape[:2] == (image['height'], image['width'])
            pixels[split, image['id']] = hashlib.sha256(picture.tobytes()).digest()
            annotations = coco.loadAnns(coco.getAnnIds(imgIds=image['id'], iscrowd=False))
            assert 0 < len(annotations) <= 100
            short, long = sorted(picture.shape[:2])
            scale = min(640 / short, 853 / long)
            masks = [coco.annToMask(one).astype(bool) for one in annotations]
            for one, mask in zip(annotations, masks, strict=True):
                assert mask.any()
                if mask.sum() * scale ** 2 < 64:
                    expected.add(('tiny-object', split, f'annotation {one["id"]}'))
            for (one, mask), (two, other) in itertools.combinations(zip(annotations, masks, strict=True), 2):
                common = (mask & other).sum()
                iou = common / (mask.sum() + other.sum() - common)
                if one['category_id'] == two['category_id']:
                    assert iou < 0.5
                    expected |= {('nested-object', split, f'annotation {name["id"]}')
                                 for name, area in ((one, mask.sum()), (two, other.sum())) if common >= 0.9 * area}
                elif iou >= 0.95:
                    expected.add(('two-classes', split, f'annotation {max(one["id"], two["id"])}'))
        if split == 'train':
            expected |= {('class-imbalance', split, f'category {name!r}') for name, number in objects[split].items()
                         if most > 20 * number}
    assert len(set(pixels.values())) == len(pixels) == 160
    assert objects['train'].keys() == objects['val'].keys() == set(names.values())
    assert {(finding.code, finding.split, finding.item) for finding in report.findings} == expected
    assert len(report.findings) == len(expected)
    assert report.count('error') == 0
    for split in report.splits:
        assert {name: one.objects for name, one in split.classes.items()} == objects[split.name]


@pytest.mark.slow
def test_nuclei_and_nuts(shared_data):
    nuts = check_data({'all': read_source(shared_data / 'nuts')})
    assert nuts.findings == [] and nuts.advice == []
    root = shared_data / 'nuclei'
    nuclei = check_data({split: read_source(root, split) for split in ('train', 'val')})
    assert {(finding.code, finding.image) for finding in nuclei.findings} == {
        ('too-many-objects', '6c67b78e81648010.png'), ('too-many-objects', 'cbca32daaae36a87.png'),
        ('too-many-objects', '2dd3356f2dcf470a.png')}
