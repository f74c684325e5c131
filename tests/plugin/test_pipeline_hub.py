"""A model of a hub by its id: ``pipeline('image-segmentation', model='damo/...')``, against a hub on the loopback."""
from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from modelscope.pipelines import pipeline
from PIL import Image

import modelscope_fastinst  # noqa: F401
from tests.plugin.loopback_hub import serve
from tests.plugin.model_folders import scene, write_stock_folder

MODEL = 'damo/cv_resnet50_fast-instance-segmentation_coco'
OPTIONS = {'device': 'cpu', 'mask_format': 'rle', 'min_size': 128, 'max_size': 160, 'score_thr': 0.2}

# In a process of its own, because ModelScope reads the hub's address when it is imported.
PROGRAM = '''
import json, sys
import modelscope_fastinst
from modelscope.pipelines import pipeline
segment = pipeline('image-segmentation', model=sys.argv[1], **json.loads(sys.argv[3]))
print(json.dumps([type(segment).__module__, segment(sys.argv[2])]))
'''


def test_stock_model_of_the_hub(tmp_path):
    folder = write_stock_folder(tmp_path / 'hub' / MODEL)
    image = str(tmp_path / 'image.png')
    Image.fromarray(scene()[:, :, ::-1].copy()).save(image)
    with serve(tmp_path / 'hub') as address:
        environment = {**os.environ, 'MODELSCOPE_CACHE': str(tmp_path / 'cache'), 'MODELSCOPE_ENDPOINT': address,
                       'MODELSCOPE_DOMAIN': address.removeprefix('http://')}
        done = subprocess.run([sys.executable, '-c', PROGRAM, MODEL, image, json.dumps(OPTIONS)], text=True,
                              capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr
    module, result = json.loads(done.stdout.splitlines()[-1])
    assert module == 'modelscope_fastinst.plugin.pipeline'
    expected = pipeline('image-segmentation', model=str(folder), **OPTIONS)(image)
    assert len(result['scores']) > 3 and result['labels'] == expected['labels']
    assert result['scores'] == pytest.approx(expected['scores'], abs=1e-4)
