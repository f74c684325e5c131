"""The network made ready for inference against the plain one, at full size.

Attention masks are a threshold on logits: rounding can flip a pixel whose logit is nearly 0, and that one flip moves
the class logits of a query by up to 1e-2 with these weights. The flip says nothing about the folding, so the masks of
the plain network are replayed.
"""
from __future__ import annotations

import pytest
import torch

from modelscope_fastinst.models.build import build_network
from modelscope_fastinst.models.convolution import FrozenBatchNorm2d
from modelscope_fastinst.models.optimize import optimize_for_inference
from tests.checkpoints.backbone_networks import trained
from tests.golden_cases import cases, load
from tests.models.test_golden_eval import build
from tests.models.test_swin import randomised
from tests.tiny import model_config


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


@pytest.mark.parametrize('backbone', [
    pytest.param({'depth': 18, 'norm': 'BN', 'stem_out_channels': 8, 'res2_out_channels': 8,
                  'out_features': ['res2', 'res3', 'res4', 'res5']}, id='ResNet'),
    pytest.param({'type': 'swin', 'embed_dim': 8, 'depths': [1, 1, 2, 1], 'num_heads': [1, 1, 2, 2]}, id='Swin'),
])
def test_backbone_and_pixel_decoder_of_mask2former_give_the_same(backbone):
    config = model_config(type='mask2former')
    network = build_network(config | {
        'backbone': backbone, 'encoder': {'convs_dim': 32, 'nheads': 2, 'enc_layers': 2, 'dim_feedforward': 48},
        'decoder': {'num_classes': 3, 'hidden_dim': 32, 'num_queries': 9, 'nheads': 2, 'dec_layers': 1,
                    'dim_feedforward': 32, 'mask_dim': 16}})
    trained(randomised(network))
    fast = optimize_for_inference(network)
    assert not any(isinstance(module, (torch.nn.BatchNorm2d, FrozenBatchNorm2d)) for module in fast.modules())
    batch, _ = network.place([torch.rand(3, 70, 100) * 255, torch.rand(3, 90, 60) * 255])
    with torch.no_grad():
        plain = network.sem_seg_head.pixel_decoder(network.backbone(batch))
        optimized = fast.sem_seg_head.pixel_decoder(fast.backbone(batch))
    for first, second in zip([*optimized.maps, optimized.mask_features], [*plain.maps, plain.mask_features],
                             strict=True):
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-3)
