"""Reads the golden vectors: numbers that the authors' implementation computed (tests/golden/README.md).

The folder is ``FASTINST_GOLDEN`` if set, else the copy in the repository. Everything about a case (configuration,
scenes, sizes) comes from its file's ``meta``, so that further vectors of the same form run without a change here.
"""
from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modelscope_fastinst import zoo
from modelscope_fastinst.structures import Target

OWN = Path(__file__).parent / 'golden'
FOLDER = Path(os.environ.get('FASTINST_GOLDEN') or OWN)

# The authors' configurations and ours.
CONFIGS = {
    'fastinst_R50_ppm-fpn_x1_576': 'fastinst_d1_r50',
    'fastinst_R50_ppm-fpn_x3_640': 'fastinst_d3_r50',
    'fastinst_R101_ppm-fpn_x3_640': 'fastinst_d3_r101',
    'fastinst_R50-vd-dcn_ppm-fpn_x1_576': 'fastinst_d1_r50d_dcn',
    'fastinst_R50-vd-dcn_ppm-fpn_x3_640': 'fastinst_d3_r50d_dcn',
}
# Where detectron2's options stand in a configuration.json's ``model`` section.
OPTIONS = {
    'MODEL.RESNETS.STEM_OUT_CHANNELS': ['backbone.stem_out_channels'],
    'MODEL.RESNETS.RES2_OUT_CHANNELS': ['backbone.res2_out_channels'],
    'MODEL.RESNETS.WIDTH_PER_GROUP': ['backbone.width_per_group'],
    'MODEL.SEM_SEG_HEAD.CONVS_DIM': ['encoder.convs_dim'],
    'MODEL.SEM_SEG_HEAD.MASK_DIM': ['encoder.mask_dim', 'decoder.mask_dim'],
    'MODEL.SEM_SEG_HEAD.NUM_CLASSES': ['decoder.num_classes'],
    'MODEL.FASTINST.HIDDEN_DIM': ['decoder.hidden_dim'],
    'MODEL.FASTINST.NUM_OBJECT_QUERIES': ['decoder.num_queries'],
    'MODEL.FASTINST.NUM_AUX_QUERIES': ['decoder.num_aux_queries'],
    'MODEL.FASTINST.NHEADS': ['decoder.nheads'],
    'MODEL.FASTINST.DIM_FEEDFORWARD': ['decoder.dim_feedforward'],
    'MODEL.FASTINST.DEC_LAYERS': ['decoder.dec_layers'],
    'MODEL.FASTINST.PRE_NORM': ['decoder.pre_norm'],
    'MODEL.FASTINST.TRAIN_NUM_POINTS': ['criterion.num_points'],
}
# The thing classes of the authors' data sets, where a file's ``meta`` does not name them (tests/golden/README.md).
THINGS = {'golden_tiny_pan': range(4)}


def vectors(name: str) -> Path:
    """The file of that name in the folder asked for; one that it does not have is the repository's own."""
    return FOLDER / name if (FOLDER / name).is_file() else OWN / name


def _load_fill():
    path = vectors('fill.py')
    spec = importlib.util.spec_from_file_location('golden_fill', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fill = _load_fill()


class Case:
    """One golden file: arrays by key, ``meta``, and what follows from it."""

    def __init__(self, name: str):
        self.name = name
        self.arrays = np.load(vectors(f'{name}.npz'))
        self.meta = json.loads(bytes(self.arrays['meta']))
        options = self.meta['opts']
        self.options = dict(zip(options[::2], options[1::2], strict=True))

    def __getitem__(self, key: str) -> np.ndarray:
        return self.arrays[key]

    def __contains__(self, key: str) -> bool:
        return key in self.arrays.files

    def json(self, key: str) -> Any:
        return json.loads(bytes(self.arrays[key]))

    @property
    def model_config(self) -> dict[str, Any]:
        """The ``model`` section of the zoo's configuration.json with the case's changes to it."""
        model = zoo.configuration(CONFIGS[self.meta['config']])['model']
        for option, value in self.options.items():
            for place in OPTIONS.get(option, ()):
                section, key = place.split('.')
                model[section][key] = value
        model['classes'] = [f'class {index}' for index in range(model['decoder']['num_classes'])]
        return model

    @property
    def candidates(self) -> int:
        return self.options.get('TEST.DETECTIONS_PER_IMAGE', 100)

    @property
    def task(self) -> str:
        """What the case is about: a panoptic one holds all three kinds of results, others one."""
        return task_of(self.options)

    @property
    def things(self) -> frozenset[int]:
        """The thing classes of a panoptic case."""
        given = self.meta.get('things')
        if given is None:
            given = next((THINGS[name] for name in self.options.get('DATASETS.TRAIN', ()) if name in THINGS), None)
        if given is None:   # of another data set: what its results show to be things
            given = {segment['category_id'] for key in self.arrays.files if key.endswith('/panoptic/segments')
                     for segment in self.json(key) if segment['isthing']}
            given |= {label for key in self.arrays.files if key.endswith('/instances/classes') for label in self[key]}
        return frozenset(int(index) for index in given)

    @property
    def thresholds(self) -> dict[str, float]:
        """Those of panoptic maps."""
        return {name: self.options.get(f'MODEL.FASTINST.TEST.{name.upper()}', 0.8)
                for name in ('object_mask_threshold', 'overlap_threshold')}

    @property
    def original_sizes(self) -> list[tuple[int, int]]:
        return [(scene['out_h'], scene['out_w']) for scene in self.meta['scenes']]

    def weights(self) -> dict[str, torch.Tensor]:
        """Weights by rule 1 under their official keys (the two constant ``criterion.empty_weight`` left out)."""
        names, shapes = self.json('params/names'), self.json('params/shapes')
        return {name: torch.from_numpy(fill.fill_value(name, shape))
                for name, shape in zip(names, shapes, strict=True) if not fill.skip_key(name)}

    def scenes(self) -> tuple[list[torch.Tensor], list[Target]]:
        """Images and targets by rule 2: uint8 RGB ``[3, H, W]`` and their objects."""
        images, targets = [], []
        for index, scene in enumerate(self.meta['scenes']):
            classes = self.options.get('MODEL.SEM_SEG_HEAD.NUM_CLASSES', 80)
            image, labels, masks = fill.make_scene(scene['h'], scene['w'], scene['seed'], scene['num_shapes'], classes)
            if len(scene['labels']) > len(labels):
                labels, masks = append_edge_objects(labels, masks, index)
            assert labels.tolist() == scene['labels']
            assert masks.sum((1, 2)).tolist() == scene['mask_areas']
            images.append(torch.from_numpy(image).permute(2, 0, 1).contiguous())
            targets.append(Target(torch.from_numpy(labels), torch.from_numpy(masks)))
        return images, targets


def append_edge_objects(labels: np.ndarray, masks: np.ndarray, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Rule 2's extra objects of the edge cases: one without a pixel, one of 2x2 pixels."""
    extra = np.zeros((2, *masks.shape[1:]), bool)
    extra[1, 41:43, 50:52] = True
    return np.append(labels, [3 + index, 7 + index]), np.concatenate([masks, extra])


@lru_cache(maxsize=2)
def load(name: str) -> Case:
    return Case(name)


def task_of(options: dict[str, Any]) -> str:
    """The task of a case with these of detectron2's options."""
    def on(name: str, default: bool) -> bool:
        return bool(options.get(f'MODEL.FASTINST.TEST.{name}_ON', default))
    if on('PANOPTIC', False):
        return 'panoptic'
    return 'semantic' if on('SEMANTIC', False) and not on('INSTANCE', True) else 'instance'


def cases(suffix: str, tasks: Collection[str] = ('instance',)) -> list:
    """Parameters for every golden case of this kind ('eval' or 'train') and these tasks whose configuration this
    project builds."""
    found = []
    for path in sorted(FOLDER.glob('*.npz')):
        if path.stem in ('preprocess', 'optim'):
            continue
        meta = json.loads(bytes(np.load(path)['meta']))
        task = task_of(dict(zip(meta['opts'][::2], meta['opts'][1::2], strict=True)))
        if meta['config'] in CONFIGS and meta['train'] == (suffix == 'train') and task in tasks:
            found.append(pytest.param(path.stem, id=f'golden-{path.stem}'))
    return found


def assert_stats(expected: np.ndarray, actual: torch.Tensor, tolerance: float) -> None:
    np.testing.assert_allclose(fill.stats(actual.detach().float().numpy()), expected, atol=tolerance, rtol=0)


def assert_sub(expected: np.ndarray, actual: torch.Tensor, tolerance: float) -> None:
    """Compares with a vector that holds all of ``actual`` or a ``fill.sub`` of it: an odd stride over the values."""
    flat = actual.detach().float().contiguous().numpy().reshape(-1)
    stride = next((stride for stride in range(1, flat.size + 1, 2) if -(-flat.size // stride) <= expected.size), 1)
    np.testing.assert_allclose(flat[::stride], expected.reshape(-1), atol=tolerance, rtol=0)
