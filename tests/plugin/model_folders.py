"""Small model folders for tests, as a user or a hub would have them."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.golden_cases import Case, load

SINGLE_IMAGE_CASE = 'tiny_prenorm_noaux_eval'   # one image of 128 x 160 pixels, ten classes


def stock_configuration(case: Case, **model: Any) -> dict[str, Any]:
    """A configuration.json with nothing in it that ModelScope's own FastInst does not know, but for a ResNet-D."""
    section = case.model_config
    del section['criterion']
    section['backbone']['norm'] = 'BN'
    if section['backbone'].get('type', 'resnet') == 'resnet':
        section['backbone'] |= {'num_groups': 1, 'stride_in_1x1': False, 'res4_dilation': 1, 'res5_dilation': 1,
                                'res5_multi_grid': [1, 1, 1]}
    return {'framework': 'pytorch', 'task': 'image-segmentation', 'pipeline': {'type': 'fast-instance-segmentation'},
            'model': {**section, 'pretrained': True, **model}}


def stock_weights(case: Case) -> dict[str, torch.Tensor]:
    """Golden weights under ModelScope's own keys: the official ones and batch norm's counters."""
    weights = case.weights()
    counters = {name.replace('running_var', 'num_batches_tracked'): torch.tensor(0)
                for name in weights if name.endswith('running_var')}
    return {**weights, **counters}


def write_stock_folder(folder: Path, case_name: str = SINGLE_IMAGE_CASE, *, weights: bool = True,
                       configuration: dict[str, Any] | None = None, **model: Any) -> Path:
    """A folder of configuration.json and pytorch_model.pt in the form of the hub's own model."""
    case = load(case_name)
    folder.mkdir(parents=True, exist_ok=True)
    write_configuration(folder, configuration or stock_configuration(case, **model))
    if weights:
        torch.save({'model': stock_weights(case)}, folder / 'pytorch_model.pt')
    return folder


def write_configuration(folder: Path, configuration: dict[str, Any]) -> None:
    (folder / 'configuration.json').write_text(json.dumps(configuration), encoding='utf-8')


def scene(case_name: str = SINGLE_IMAGE_CASE, index: int = 0) -> np.ndarray:
    """A golden scene as a BGR array, as ModelScope takes it."""
    image = load(case_name).scenes()[0][index]
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy()[:, :, ::-1])


def assert_same(actual: dict[str, list], expected: dict[str, list]) -> None:
    """Two results of a pipeline, equal to the last bit."""
    assert list(actual) == list(expected)
    assert actual['scores'] == expected['scores']
    assert actual['labels'] == expected['labels']
    assert actual['boxes'] == expected['boxes']
    np.testing.assert_equal(actual['masks'], expected['masks'])


MAP_CASES = {'panoptic': 'tiny_panoptic', 'semantic': 'tiny_semantic_only'}


def write_map_folder(folder: Path, task: str, **postprocessor: Any) -> Path:
    """A folder of a panoptic or a semantic model with golden weights, ten classes, of which 0 to 3 are things."""
    case = load(MAP_CASES[task])
    model = {'task': task}
    if task == 'panoptic':
        model['things'] = [f'class {index}' for index in sorted(case.things)]
        postprocessor = {**case.thresholds, **postprocessor}
    configuration = stock_configuration(case, **model)
    configuration['preprocessor'] = {'type': 'fastinst-preprocessor', 'min_size': 128, 'max_size': 160}
    configuration['postprocessor'] = postprocessor
    return write_stock_folder(folder, case.name, configuration=configuration)
