"""`Instances` from a pipeline's result, and in the forms of COCO and supervision."""
from __future__ import annotations

import json
import re
import sys

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from modelscope_fastinst.structures import Instances

SIZE = (40, 60)


def rectangle(left, top, right, bottom):
    mask = np.zeros(SIZE, np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


MASKS = np.stack([rectangle(10, 5, 30, 25), rectangle(0, 0, 60, 40), rectangle(0, 0, 0, 0)])
BOXES = [[10.0, 5.0, 30.0, 25.0], [0.0, 0.0, 60.0, 40.0], [0.0, 0.0, 0.0, 0.0]]


def encoded(text=True):
    found = coco_mask.encode(np.asfortranarray(MASKS.transpose(1, 2, 0)))
    return [{**mask, 'counts': mask['counts'].decode()} if text else mask for mask in found]


def plain():
    """Runs as numbers, as COCO's annotations of crowds have them."""
    edges = [np.flatnonzero(np.diff(mask.T.ravel(), prepend=2, append=2)) for mask in MASKS]
    return [{'size': list(SIZE), 'counts': [*([0] if mask[0, 0] else []), *np.diff(places).tolist()]}
            for mask, places in zip(MASKS, edges, strict=True)]


def result(masks=MASKS, labels=('cat', 'dog', 'cat')):
    return {'scores': [0.9, 0.8, 0.7], 'labels': list(labels), 'masks': list(masks), 'boxes': BOXES}


@pytest.mark.parametrize('masks', [
    pytest.param(MASKS, id='arrays'), pytest.param(MASKS > 0, id='bool'), pytest.param(encoded(), id='RLE'),
    pytest.param(encoded(text=False), id='RLE of bytes'), pytest.param(plain(), id='RLE of numbers')])
def test_coco_records_of_masks_in_any_form(masks):
    records = Instances.from_result(result(masks), ('dog', 'cat')).to_coco(image_id=7)
    assert [record['segmentation'] for record in records] == encoded()
    assert [record['area'] for record in records] == [400, 2400, 0]
    assert [record['bbox'] for record in records] == [[10, 5, 20, 20], [0, 0, 60, 40], [0, 0, 0, 0]]
    assert [(record['image_id'], record['category_id'], record['category_name']) for record in records] == \
        [(7, 2, 'cat'), (7, 1, 'dog'), (7, 2, 'cat')]
    assert [record['score'] for record in records] == pytest.approx([0.9, 0.8, 0.7])
    assert json.loads(json.dumps(records)) == records


def test_coco_records_are_read_by_coco_tools(tmp_path):
    from pycocotools.coco import COCO
    truth = tmp_path / 'truth.json'
    truth.write_text(json.dumps({'images': [{'id': 7, 'height': 40, 'width': 60}], 'annotations': [],
                                 'categories': [{'id': 1, 'name': 'dog'}, {'id': 2, 'name': 'cat'}]}))
    loaded = COCO(str(truth)).loadRes(Instances.from_result(result(), ('dog', 'cat')).to_coco(7))
    assert np.array_equal(loaded.annToMask(loaded.anns[1]), MASKS[0]) and loaded.anns[2]['category_id'] == 1


@pytest.mark.parametrize('ids, expected', [
    pytest.param([18, 17], [17, 18, 17], id='by label'),
    pytest.param({'cat': 17, 'dog': 18}, [17, 18, 17], id='by name')])
def test_category_ids_of_a_data_set(ids, expected):
    records = Instances.from_result(result(), ('dog', 'cat')).to_coco(category_ids=ids)
    assert [record['category_id'] for record in records] == expected


def test_tensors_are_exchanged_as_well():
    import torch
    found = Instances(torch.tensor([0.5]), torch.tensor([1]), torch.from_numpy(MASKS[:1]), torch.tensor(BOXES[:1]))
    record, = found.to_coco()
    assert 'category_name' not in record and record['category_id'] == 2 and record['segmentation'] == encoded()[0]
    assert found.to_supervision().mask.shape == (1, 40, 60)


def test_names_of_classes_are_those_of_the_result_or_the_model():
    own = Instances.from_result(result(labels=('b', 'a', 'b')))
    assert own.classes == ('b', 'a') and own.labels.tolist() == [0, 1, 0] and own.labels.dtype == np.int64
    of_model = Instances.from_result(result(labels=('b', 'a', 'b')), ['a', 'x', 'b'])
    assert of_model.classes == ('a', 'x', 'b') and of_model.labels.tolist() == [2, 0, 2]
    assert own.masks.dtype == np.uint8 and own.masks.shape == (3, 40, 60) and own.boxes.dtype == np.float32


def test_nothing_found_is_exchanged():
    nothing = Instances.from_result({'scores': [], 'labels': [], 'masks': [], 'boxes': []}, ['cat'])
    assert len(nothing) == 0 and nothing.boxes.shape == (0, 4) and nothing.to_coco() == []
    assert len(nothing.to_supervision()) == 0


@pytest.mark.parametrize('change, message', [
    pytest.param({'boxes': None}, 'a result without boxes', id='missing list'),
    pytest.param({'scores': [0.5]}, 'got 1 scores, 3 labels', id='lengths'),
    pytest.param({'labels': ['cat', 'cow', 'cat']}, "labels[1] is 'cow', which is none of the 2 classes", id='class'),
    pytest.param({'masks': [MASKS[0], encoded()[1], MASKS[2]]}, 'masks[1] is not of the kind of masks[0]', id='kinds'),
    pytest.param({'masks': [MASKS[0], MASKS[1][:20], MASKS[2]]}, 'masks[1] is 20 x 60, masks[0] 40 x 60', id='sizes'),
])
def test_a_result_that_is_none_is_refused(change, message):
    broken = {name: value for name, value in {**result(), **change}.items() if value is not None}
    with pytest.raises(ValueError) as caught:
        Instances.from_result(broken, ('dog', 'cat'))
    assert message in str(caught.value)


@pytest.mark.parametrize('ids, classes, message', [
    pytest.param([1], ('dog', 'cat'), 'category_ids has 1 ids; there is none for label 1', id='label'),
    pytest.param({'cat': 1}, ('dog', 'cat'), "category_ids has no id for the class 'dog'", id='name'),
    pytest.param({'cat': 1}, None, 'set classes', id='no names')])
def test_category_ids_that_are_missing_are_named(ids, classes, message):
    found = Instances.from_result(result(), ('dog', 'cat'))
    found.classes = classes
    with pytest.raises(ValueError, match=message.replace('[', r'\[')):
        found.to_coco(category_ids=ids)


def test_a_pipeline_s_result_goes_to_coco_and_back():
    import modelscope_fastinst
    from modelscope_fastinst.data.microscope import draw_nuclei
    from modelscope_fastinst.plugin.build import build_segmenter
    segment = build_segmenter(modelscope_fastinst.default_model(), 'cpu')
    image = draw_nuclei(160, 200, count=6, seed=1).image[:, :, ::-1]
    arrays = Instances.from_result(segment(image), ('nucleus',))
    assert len(arrays) > 0
    for record, mask, box in zip(arrays.to_coco(), arrays.masks, arrays.boxes, strict=True):
        assert np.array_equal(coco_mask.decode(record['segmentation']), mask) and record['area'] == mask.sum()
        assert coco_mask.toBbox(record['segmentation']).tolist() == [*box[:2], *(box[2:] - box[:2])] == record['bbox']


@pytest.mark.parametrize('masks', [pytest.param(MASKS, id='arrays'), pytest.param(encoded(), id='RLE')])
def test_supervision_gets_the_same(masks):
    pytest.importorskip('supervision')
    detections = Instances.from_result(result(masks), ('dog', 'cat')).to_supervision()
    np.testing.assert_array_equal(detections.mask, MASKS > 0)
    np.testing.assert_allclose(detections.xyxy, BOXES)
    np.testing.assert_allclose(detections.confidence, [0.9, 0.8, 0.7], rtol=1e-6)
    assert detections.class_id.tolist() == [1, 0, 1] and detections.data['class_name'].tolist() == ['cat', 'dog', 'cat']
    assert len(detections[detections.class_id == 1]) == 2 and detections.mask.dtype == bool


def test_supervision_need_not_know_names():
    pytest.importorskip('supervision')
    found = Instances.from_result(result())
    found.classes = None
    assert 'class_name' not in found.to_supervision().data


def test_without_supervision_the_mend_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'supervision', None)   # as where it is not installed
    with pytest.raises(ImportError, match=re.escape('pip install "modelscope-fastinst[supervision]"')):
        Instances([], [], [], []).to_supervision()
