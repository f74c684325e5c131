"""Semantic and panoptic maps, and a panoptic model's instances, against the authors' numbers."""
from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
import torch

from modelscope_fastinst.models.build import build_network
from modelscope_fastinst.results.instances import InstancePostprocessor
from modelscope_fastinst.results.panoptic import PanopticPostprocessor
from modelscope_fastinst.results.semantic import SemanticPostprocessor
from tests.golden_cases import assert_stats, assert_sub, cases, load
from tests.results.test_instances import check_golden_instances

SCORES, PIXELS = 5e-4, 10   # tolerances of tests/golden/README.md; pixels that may have another class


@lru_cache(maxsize=1)
def output_of_case(name):
    case = load(name)
    network = build_network(case.model_config).eval()
    network.load_state_dict(case.weights(), strict=True)
    with torch.no_grad():
        return network(case.scenes()[0])


@pytest.mark.parametrize('name', cases('eval', ('semantic', 'panoptic')))
def test_semantic_maps_equal_the_authors(name):
    case, output = load(name), output_of_case(name)
    post = SemanticPostprocessor(before_resize=case.task == 'semantic')
    for index, found in enumerate(post(output, case.original_sizes)):
        prefix = f'image{index}/sem_seg'
        scores = post.class_scores(output, case.original_sizes, index)
        assert list(scores.shape) == case[f'{prefix}/shape'].tolist()
        assert_sub(case[f'{prefix}/sub'], scores, SCORES)
        assert_stats(case[f'{prefix}/stats'], scores, SCORES)
        expected = case[f'{prefix}/argmax']
        assert found.labels.shape == expected.shape and found.labels.dtype == np.int16
        assert np.count_nonzero(found.labels != expected) <= PIXELS


@pytest.mark.parametrize('name', cases('eval', ('panoptic',)))
def test_panoptic_maps_equal_the_authors(name):
    case, output = load(name), output_of_case(name)
    post = PanopticPostprocessor(case.things, **case.thresholds)
    for index, found in enumerate(post(output, case.original_sizes)):
        expected = case[f'image{index}/panoptic/map']
        assert found.ids.shape == expected.shape and found.ids.dtype == np.int32
        assert np.count_nonzero(found.ids != expected) <= PIXELS
        assert [{'id': segment.id, 'isthing': segment.isthing, 'category_id': segment.label}
                for segment in found.segments] == case.json(f'image{index}/panoptic/segments')


@pytest.mark.parametrize('name', cases('eval', ('panoptic',)))
def test_instances_of_a_panoptic_model_equal_the_authors(name):
    case, output = load(name), output_of_case(name)
    post = InstancePostprocessor(score_thr=0.0, max_instances=None, candidates=case.candidates, things=case.things)
    for index, instances in enumerate(post(output, case.original_sizes)):
        assert set(instances.labels.tolist()) <= case.things
        check_golden_instances(case, index, instances, case.original_sizes[index])
