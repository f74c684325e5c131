"""Panoptic quality of files in COCO's form."""
from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from modelscope_fastinst.data.shapes_panoptic import PanopticShapes
from modelscope_fastinst.evaluation.panoptic import PanopticEvaluator
from modelscope_fastinst.evaluation.panoptic_files import evaluate_panoptic_results
from modelscope_fastinst.structures import PanopticMap, Segment


@pytest.fixture
def files(tmp_path):
    """Ground truth and, as results, the same maps moved to the right: (annotation file, its folder, results file)."""
    data = PanopticShapes(2, 64, num_classes=2, seed=1, void=True)
    annotations, folder, _ = data.write_coco_panoptic(tmp_path, 'val')
    content = json.loads((tmp_path / 'annotations' / 'panoptic_val.json').read_text('utf-8'))
    results = tmp_path / 'found.json'
    (tmp_path / 'found').mkdir()
    for record in content['annotations']:
        pixels = np.roll(np.asarray(Image.open(tmp_path / 'panoptic_val' / record['file_name'])), 4, axis=1)
        record['file_name'] = f'{record["image_id"]}.png'
        Image.fromarray(pixels).save(tmp_path / 'found' / record['file_name'])
    results.write_text(json.dumps({'annotations': content['annotations'][::-1]}), 'utf-8')
    return annotations, folder, results


def test_equals_the_evaluator_on_the_maps_themselves(files):
    annotations, folder, results = files
    data = PanopticShapes(2, 64, num_classes=2, seed=1, void=True)
    evaluator = PanopticEvaluator(data.classes, {0, 1})
    for index in range(2):
        _, truth = data.draw_map(index)
        found = [Segment(one.id, one.label, 1.0, one.isthing, one.area, one.bbox) for one in truth.segments]
        evaluator.add(index + 1, truth, PanopticMap(np.roll(truth.ids, 4, axis=1), found))
    values = evaluate_panoptic_results(annotations, results, folder)
    assert values == evaluator.evaluate() and 0 < values['PQ'] < 1
    assert evaluate_panoptic_results(annotations, annotations, folder, folder)['PQ'] == 1


@pytest.mark.parametrize(('change', 'message'), [
    pytest.param(lambda content: content['annotations'].pop(), 'found.json: has no result for image 1 of ',
                 id='no result'),
    pytest.param(lambda content: content['annotations'][0]['segments_info'][0].update(category_id=99),
                 'found.json: image 2: segment 1 has the category 99', id='unknown category'),
    pytest.param(lambda content: content['annotations'][0]['segments_info'].pop(),
                 "image 2: the result's segment .* is in the map, but not in the list", id='no record of a segment'),
])
def test_results_that_do_not_fit_are_named(files, change, message):
    annotations, folder, results = files
    content = json.loads(results.read_text('utf-8'))
    change(content)
    results.write_text(json.dumps(content), 'utf-8')
    with pytest.raises(ValueError, match=message):
        evaluate_panoptic_results(annotations, results, folder)


def test_a_map_of_one_channel_is_named(files):
    annotations, folder, results = files
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(results.with_suffix('') / '2.png')
    with pytest.raises(ValueError, match='2.png: has not three channels'):
        evaluate_panoptic_results(annotations, results, folder)
