"""The network in inference against the authors' numbers."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from modelscope_fastinst.models import decoder as decoder_module
from modelscope_fastinst.models.fastinst import build_fastinst
from modelscope_fastinst.structures import TASKS
from tests.golden_cases import assert_stats, assert_sub, cases, load

FEATURES, CLASS_LOGITS, MASK_LOGITS, SCORES = 2e-4, 1e-3, 2e-3, 5e-4


def build(case):
    network = build_fastinst(case.model_config)
    network.load_state_dict(case.weights(), strict=True)
    return network.eval()


class Recorder:
    """Keeps what passes through the parts of a network during one forward pass."""

    def __init__(self, network):
        self.features, self.pyramid, self.proposed, self.states, self.attend = {}, {}, None, [], []
        predictor = network.sem_seg_head.predictor
        network.backbone.register_forward_hook(lambda _, __, out: self.features.update(out))
        network.sem_seg_head.pixel_decoder.register_forward_hook(
            lambda _, __, out: self.pyramid.update(zip(('s32', 's16', 's8'), out.maps, strict=True)))
        predictor.query_proposal.register_forward_hook(lambda _, __, out: setattr(self, 'proposed', out))
        update = predictor._update

        def recorded(layer, state, positions, attend):
            after = update(layer, state, positions, attend)
            self.states.append(after)
            self.attend.append(attend)
            return after
        predictor._update = recorded


@pytest.mark.parametrize('name', cases('eval', TASKS))
def test_inference_equals_the_authors(name):
    case = load(name)
    network = build(case)
    seen = Recorder(network)
    images, _ = case.scenes()
    with torch.no_grad():
        output = network(images)
    check_inside(case, network, seen)
    check_heads(case, output)


def check_inside(case, network, seen):
    for stage, features in seen.features.items():
        assert list(features.shape) == case[f'backbone/{stage}/shape'].tolist()
        assert_sub(case[f'backbone/{stage}/sub'], features, FEATURES)
        assert_stats(case[f'backbone/{stage}/stats'], features, FEATURES)
    for level, features in seen.pyramid.items():
        assert list(features.shape) == case[f'pixel_decoder/{level}/shape'].tolist()
        assert_sub(case[f'pixel_decoder/{level}/sub'], features, FEATURES)
        assert_stats(case[f'pixel_decoder/{level}/stats'], features, FEATURES)
    proposed = seen.proposed
    assert_sub(case['proposal/logits/sub'], proposed.logits, CLASS_LOGITS)
    np.testing.assert_array_equal(proposed.indices.numpy(), case['proposal/topk_indices'])
    np.testing.assert_allclose(proposed.scores.numpy(), case['proposal/topk_scores'], atol=SCORES)
    assert_sub(case['proposal/query_features/sub'], proposed.content.transpose(1, 2), FEATURES)
    assert_sub(case['proposal/query_pos/sub'], proposed.position.transpose(1, 2), FEATURES)
    if 'proposal/locations' in case:
        np.testing.assert_allclose(proposed.locations.numpy(), case['proposal/locations'], atol=1e-6)

    layers = network.sem_seg_head.predictor.num_layers
    heads = case.model_config['decoder']['nheads']
    assert f'decoder/call{len(seen.states)}/query/sub' not in case
    for call, (state, attend) in enumerate(zip(seen.states, seen.attend, strict=True)):
        # The authors' layouts are (N, B, C); they block where we attend, once a head.
        assert_sub(case[f'decoder/call{call}/query/sub'], state.queries.transpose(0, 1), CLASS_LOGITS)
        assert_sub(case[f'decoder/call{call}/pixel/sub'], state.pixels.transpose(0, 1), CLASS_LOGITS)
        key = (f'decoder/head{call}/attn_mask_true' if call < layers
               else f'decoder/head{layers}/gt_attn_mask_true')
        blocked = (~attend).sum(dim=-1).repeat_interleave(heads, dim=0)
        np.testing.assert_array_equal(blocked.numpy(), case[key])


def check_heads(case, output):
    np.testing.assert_allclose(output.final.logits.numpy(), case['pred_logits'], atol=CLASS_LOGITS)
    predictions = {'': output.final} | {f'aux{i}/': p for i, p in enumerate(output.auxiliary)}
    for prefix, prediction in predictions.items():
        masks = prediction.masks
        assert list(masks.shape) == case[f'{prefix}pred_masks/shape'].tolist()
        sub = case[f'{prefix}pred_masks/sub']
        strided = masks if sub.shape == tuple(masks.shape) else masks[:, :, 1::4, 1::4]
        np.testing.assert_allclose(strided.numpy(), sub, atol=MASK_LOGITS)
        np.testing.assert_allclose(masks.double().mean((2, 3)).numpy(), case[f'{prefix}pred_masks/mean'],
                                   atol=MASK_LOGITS)
        np.testing.assert_array_less(np.abs((masks > 0).sum((2, 3)).numpy() - case[f'{prefix}pred_masks/pos']), 11)
    assert all(prediction.logits is None for prediction in output.auxiliary)


def test_the_guided_pass_is_not_run_in_inference(monkeypatch):
    case = load('tiny_eval')
    network = build(case)
    monkeypatch.setattr(decoder_module.DualPathDecoder, '_attend_to_objects', None)
    with torch.no_grad():
        assert network(case.scenes()[0]).guided_matching is None
