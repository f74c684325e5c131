"""The example scripts of demo/ run as they stand."""
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modelscope_fastinst.data.microscope import draw_nuclei

DEMO = Path(__file__).resolve().parents[1] / 'demo'


def run(script: str, *arguments: str, folder: Path) -> str:
    """What a script prints, started in ``folder``."""
    done = subprocess.run([sys.executable, str(DEMO / script), *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_segment_draws_an_image_and_outlines_it(tmp_path):
    shown = run('segment.py', folder=tmp_path).splitlines()
    assert shown[-1] == 'outlined.png'
    assert sum(line.startswith('nucleus ') for line in shown) > 10
    assert Image.open(tmp_path / 'outlined.png').size == (640, 480)


@pytest.mark.slow
def test_finetune_writes_a_model_and_prints_the_average_precision_by_class(tmp_path):
    images, annotations = [], []
    (tmp_path / 'data' / 'images').mkdir(parents=True)
    for number in range(1, 6):
        scene = draw_nuclei(64, 64, count=3, seed=number)
        Image.fromarray(scene.image).save(tmp_path / 'data' / 'images' / f'{number}.png')
        images.append({'id': number, 'file_name': f'{number}.png', 'height': 64, 'width': 64})
        for mask in scene.masks:
            rows, columns = np.nonzero(mask)
            left, top, right, bottom = (int(side) for side in (columns.min(), rows.min(), columns.max() + 1,
                                                               rows.max() + 1))
            annotations.append({
                'id': len(annotations) + 1, 'image_id': number, 'category_id': 1 + len(annotations) % 2, 'iscrowd': 0,
                'bbox': [left, top, right - left, bottom - top], 'area': (right - left) * (bottom - top),
                'segmentation': [[left, top, right, top, right, bottom, left, bottom]]})
    content = {'images': images, 'annotations': annotations,
               'categories': [{'id': 1, 'name': 'odd'}, {'id': 2, 'name': 'even'}]}
    (tmp_path / 'data' / 'all.json').write_text(json.dumps(content), 'utf-8')
    shown = run('finetune.py', 'data', folder=tmp_path)
    assert 'segm_mAP' in shown and 'odd' in shown and 'even' in shown
    assert (tmp_path / 'work_dir' / 'output' / 'configuration.json').is_file()


@pytest.mark.slow
@pytest.mark.parametrize('network', ['fastinst', 'mask2former'])
def test_train_panoptic_shapes_trains_and_measures_either_network(network, tmp_path):
    (tmp_path / 'demo').mkdir()
    (tmp_path / 'demo' / 'train.py').write_text((DEMO / 'train_panoptic_shapes.py').read_text('utf-8'), 'utf-8')
    (tmp_path / 'configs').mkdir()
    for recipe in (DEMO.parent / 'configs').glob('shapes_panoptic*.json'):   # as they are, but for the time they take
        content = json.loads(recipe.read_text('utf-8'))
        content['train']['max_iters'] = 2
        (tmp_path / 'configs' / recipe.name).write_text(json.dumps(content), 'utf-8')
    done = subprocess.run([sys.executable, 'demo/train.py', network, 'work'], cwd=tmp_path, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    assert 'PQ_th' in done.stdout + done.stderr and 'mIoU' in done.stdout + done.stderr
    model = json.loads((tmp_path / 'work' / 'output' / 'configuration.json').read_text('utf-8'))['model']
    assert (model['type'], model['task']) == (network, 'panoptic')


def test_train_panoptic_shapes_names_the_networks_it_knows():
    done = subprocess.run([sys.executable, str(DEMO / 'train_panoptic_shapes.py'), 'unet'], capture_output=True,
                          text=True)
    assert done.returncode != 0 and "'unet' is no network of this script; choose one of fastinst" in done.stderr
