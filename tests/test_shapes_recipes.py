"""The two recipes for drawn shapes and patterns are one recipe for two networks."""
from __future__ import annotations

import json
from pathlib import Path

import torch

from modelscope_fastinst.data.shapes_panoptic import PanopticShapes
from modelscope_fastinst.models.build import build_network

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
FASTINST, MASK2FORMER = (json.loads((CONFIGS / f'shapes_panoptic_{name}.json').read_text('utf-8'))
                         for name in ('r18', 'mask2former_r18'))


def test_recipes_differ_in_the_network_and_the_iterations_that_fit_into_the_time():
    one, other = json.loads(json.dumps([FASTINST, MASK2FORMER]))
    for recipe in (one, other):
        for section, key in (('pipeline', 'type'), ('train', 'max_iters'), ('model', 'type'), ('model', 'encoder'),
                             ('model', 'decoder')):
            recipe[section].pop(key)
    assert one == other


def test_both_know_the_classes_of_the_data():
    data = PanopticShapes(1)
    for recipe in (FASTINST, MASK2FORMER):
        assert (recipe['model']['classes'], recipe['model']['things']) == (data.classes, data.things)


def test_the_networks_are_of_one_size():
    with torch.device('meta'):
        sizes = [sum(one.numel() for one in build_network(recipe['model']).parameters())
                 for recipe in (FASTINST, MASK2FORMER)]
    assert 0.9 < sizes[0] / sizes[1] < 1.1
