"""Matching, losses and gradients against the authors' numbers."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from modelscope_fastinst.models.fastinst import build_fastinst
from modelscope_fastinst.objective import points
from modelscope_fastinst.objective.criterion import build_criterion
from tests.golden_cases import assert_stats, assert_sub, cases, fill, load
from tests.models.test_golden_eval import CLASS_LOGITS, MASK_LOGITS, Recorder, check_inside


@pytest.fixture
def ruled_points(monkeypatch):
    """Points by rule 3 in place of random ones. The kind follows from the number of points asked for."""
    def install(num_points):
        kinds = {num_points: 'match', int(3 * num_points): 'oversample',
                 num_points - int(0.75 * num_points): 'random'}
        monkeypatch.setattr(points, 'draw',
                            lambda shape, device: torch.from_numpy(fill.points(kinds[shape[1]], shape)))
    return install


@pytest.mark.parametrize('name', cases('train'))
def test_training_equals_the_authors(name, ruled_points):
    case = load(name)
    config = case.model_config
    network = build_fastinst(config)
    network.load_state_dict(case.weights(), strict=True)
    network.train()
    criterion = build_criterion(config['criterion'], network.num_classes)
    ruled_points(criterion.num_points)
    seen, matchings = Recorder(network), []
    for matcher in ('query_matcher', 'proposal_matcher'):
        record_calls(criterion, matcher, matchings)
    images, targets = case.scenes()

    output = network(images, targets, match=criterion.match)
    losses = criterion(output, targets)
    total = sum(losses.values())
    total.backward()

    check_inside(case, network, seen)
    predictions = {'main': output.final} | {f'aux{i}': p for i, p in enumerate(output.auxiliary)}
    for key, prediction in predictions.items():
        assert_sub(case[f'{key}/pred_logits/sub'], prediction.logits, CLASS_LOGITS)
        if f'{key}/pred_masks/sub' in case:
            assert_sub(case[f'{key}/pred_masks/sub'], prediction.masks, MASK_LOGITS)
        assert_stats(case[f'{key}/pred_masks/stats'], prediction.masks, MASK_LOGITS)
    check_matchings(case, matchings)
    check_losses(case, losses, total)
    check_gradients(case, network)


def record_calls(criterion, name, matchings):
    matcher = getattr(criterion, name)

    def recorded(*args):
        result = matcher(*args)
        matchings.append((name, result))
        return result
    setattr(criterion, name, recorded)


def check_matchings(case, matchings):
    order = case.json('matching/order')
    assert len(matchings) == len(order)
    # The authors' order: guided pairs, proposal, last layer, other heads. Ours has the last layer before the proposal.
    guided, main, proposal, *rest = matchings
    assert (guided[0], main[0], proposal[0]) == ('query_matcher', 'query_matcher', 'proposal_matcher')
    for index, (_, matching) in enumerate([guided, proposal, main, *rest]):
        for image, pairs in enumerate(matching):
            np.testing.assert_array_equal(torch.stack(pairs).numpy(), case[f'matching/{index}/image{image}'],
                                          err_msg=f'{order[index]}, image {image}')


def check_losses(case, losses, total):
    names = case.json('losses/names')
    assert sorted(losses) == sorted(names)
    np.testing.assert_allclose([losses[name].item() for name in names], case['losses/weighted'], rtol=1e-4)
    np.testing.assert_allclose(total.item(), case['losses/total'], rtol=1e-4)


def check_gradients(case, network):
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    names = case.json('grads/names')
    assert sorted(names) == sorted(gradients)
    assert [name for name in names if gradients[name] is None] == case.json('grads/none')
    norms = np.array([gradients[name].double().norm().item() for name in names])
    np.testing.assert_allclose(norms, case['grads/l2'], rtol=5e-3, atol=1e-6)
    np.testing.assert_allclose([gradients[name].abs().max().item() for name in names], case['grads/absmax'],
                               rtol=2e-2, atol=1e-6)
    for name, expected, norm in zip(names, case['grads/first4'], norms, strict=True):
        first = gradients[name].flatten()[:4].numpy()
        np.testing.assert_allclose(first, expected[:len(first)], atol=5e-3 * norm, rtol=0, err_msg=name)
    np.testing.assert_allclose(np.sqrt((norms ** 2).sum()), case['grads/total_l2'], rtol=1e-3)
