"""The network made ready for inference against the plain one, at full size.

Attention masks are a threshold on logits: rounding can flip a pixel whose logit is nearly 0, and that one flip moves
the class logits of a query by up to 1e-2 with these weights. The flip says nothing about the folding, so the masks of
the plain network are replayed.
"""
from __future__ import annotations

import pytest
import torch

from modelscope_fastinst.models.optimize import optimize_for_inference
from tests.golden_cases import cases, load
from tests.models.test_golden_eval import build


@pytest.mark.parametrize('name', cases('eval'))
def test_optimising_moves_logits_by_rounding_only(name):
    case = load(name)
    network = build(case)
    fast = optimize_for_inference(network)
    images, _ = case.scenes()
    recorded = []
    predictor = network.sem_seg_head.predictor
    attend = predictor._attend_to_foreground
    predictor._attend_to_foreground = lambda masks: recorded.append(attend(masks)) or recorded[-1]
    with torch.no_grad():
        plain = network(images).final
        flips = []
        compute = fast.sem_seg_head.predictor._attend_to_foreground

        def replayed(masks):
            kept = recorded[len(flips)]
            flips.append((compute(masks) != kept).sum().item())
            return kept
        fast.sem_seg_head.predictor._attend_to_foreground = replayed
        optimized = fast(images).final
    torch.testing.assert_close(optimized.logits, plain.logits, rtol=0, atol=1e-3)
    torch.testing.assert_close(optimized.masks, plain.masks, rtol=0, atol=2e-3)
    assert sum(flips) <= 5
