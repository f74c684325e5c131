"""A stock folder with golden weights through the pipeline gives the authors' instances."""
from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from modelscope.pipelines import pipeline

import modelscope_fastinst  # noqa: F401
from modelscope_fastinst.plugin.preprocessor import FastInstPreprocessor
from modelscope_fastinst.results.rle import decode
from tests.golden_cases import cases, load
from tests.plugin.model_folders import write_stock_folder

SCORES, AREA = 5e-4, 10   # tolerances of tests/golden/README.md; areas in pixels


class AsItIs(FastInstPreprocessor):
    """Golden scenes are network inputs already, and their instances are given at a size of their own."""

    def __init__(self, case):
        super().__init__()
        self.sizes = {(scene['h'], scene['w']): (scene['out_h'], scene['out_w']) for scene in case.meta['scenes']}

    def __call__(self, data, **_):
        height, width = data.shape[:2]
        sample = super().__call__(data, min_size=min(height, width), max_size=max(height, width))
        assert tuple(sample.image.shape[1:]) == (height, width)
        return replace(sample, original_size=self.sizes[height, width])


def check(case, index, result):
    """A result against the authors' instances of an image, whose order is of no meaning (trap T7)."""
    prefix = f'image{index}/instances'
    classes = [f'class {label}' for label in case[f'{prefix}/classes']]
    expected = sorted(zip(classes, case[f'{prefix}/scores'].tolist(), case[f'{prefix}/areas'].tolist(),
                          bytes(case[f'{prefix}/rle']).decode().split('\n'), strict=True))
    scores = np.array([score for _, score, _, _ in expected])
    assert len(result['scores']) == len(expected)
    np.testing.assert_allclose(np.array(sorted(result['scores'])), np.sort(scores), atol=SCORES)
    size = case[f'{prefix}/image_size'].tolist()
    unmatched = list(range(len(expected)))
    for label, score, mask in zip(result['labels'], result['scores'], result['masks'], strict=True):
        assert mask.dtype == np.uint8 and list(mask.shape) == size
        close = [i for i in unmatched if expected[i][0] == label and abs(expected[i][1] - score) <= SCORES
                 and abs(expected[i][2] - int(mask.sum())) <= AREA and differing(expected[i][3], mask) <= 2 * AREA]
        assert close, (label, score)
        unmatched.remove(close[0])
    assert not unmatched


def differing(counts, mask):
    """How many pixels of a mask differ from a golden one."""
    golden = decode([{'size': list(mask.shape), 'counts': counts}])[0]
    return int((golden != mask).sum())


@pytest.mark.parametrize('optimize', [pytest.param(False, id='reference'), pytest.param(True, id='optimized')])
@pytest.mark.parametrize('name', [case for case in cases('eval') if 'tiny' in case.id])
def test_instances_equal_the_authors(tmp_path, name, optimize):
    run_case(tmp_path, name, optimize)


@pytest.mark.slow
@pytest.mark.parametrize('name', [case for case in cases('eval') if 'tiny' not in case.id])
def test_instances_of_published_sizes_equal_the_authors(tmp_path, name):
    run_case(tmp_path, name, optimize=False)


def run_case(folder, name, optimize):
    case = load(name)
    segment = pipeline('image-segmentation', model=str(write_stock_folder(folder, name)), device='cpu',
                       optimize=optimize, preprocessor=AsItIs(case), postprocessor={'candidates': case.candidates})
    images = [np.ascontiguousarray(image.permute(1, 2, 0).numpy()[:, :, ::-1]) for image in case.scenes()[0]]
    if len(images) == 1:
        results = [segment(images[0], score_thr=0)]
    else:
        # The authors padded these images to one canvas, which a call never does: it would change their results.
        samples = [segment.preprocess(image) for image in images]
        with torch.no_grad():
            results = segment.postprocess(segment.forward(samples), [sample.original_size for sample in samples],
                                          score_thr=0)
    for index, result in enumerate(results):
        check(case, index, result)


PROGRAM = '''
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

VISION = ('vit', 'swin', 'detr', 'maskformer', 'mask2former', 'resnet', 'convnext', 'oneformer', 'segformer', 'beit',
          'clip', 'sam')

class Failing:
    """In this process mmcv, timm and the vision models of transformers are there, but importing them fails."""
    def find_spec(self, name, path=None, target=None):
        first, second, *rest = name.split('.') + ['', '']
        model = rest[0] if (first, second) == ('transformers', 'models') else ''
        if first in ('mmcv', 'mmdet', 'timm', 'detectron2') or any(word in model for word in VISION):
            return ModuleSpec(name, self)
    def create_module(self, spec):
        raise ImportError(spec.name + ' is not to be imported')
    def exec_module(self, module):
        pass

sys.meta_path.insert(0, Failing())
for name in ('mmcv', 'timm', 'transformers.models.swin.modeling_swin'):
    try:
        __import__(name)
    except ImportError:
        continue
    raise SystemExit(name + ' was imported')
import modelscope_fastinst
from tests.plugin import test_pipeline_golden
test_pipeline_golden.run_case(Path(sys.argv[1]), sys.argv[2], optimize=False)
print('equal')
'''


@pytest.mark.parametrize('name', [
    pytest.param('tiny_prenorm_noaux_eval', id='golden-tiny_prenorm_noaux_eval'),
    pytest.param('d1_r50_eval', id='golden-d1_r50_eval', marks=pytest.mark.slow),
])
def test_without_mmcv_timm_and_vision_models_of_transformers(tmp_path, name):
    done = subprocess.run([sys.executable, '-c', PROGRAM, str(tmp_path), name], capture_output=True, text=True,
                          cwd=Path(__file__).parents[2])
    assert done.stdout.endswith('equal\n'), done.stderr
