"""The objective on what real data brings: nothing to find, too much to find, objects without a pixel."""
from __future__ import annotations

import logging

import pytest
import torch

from modelscope_fastinst.models.fastinst import build_fastinst
from modelscope_fastinst.objective import points
from modelscope_fastinst.objective.criterion import build_criterion
from modelscope_fastinst.objective.matcher import QueryMatcher, assign_images, mask_costs
from modelscope_fastinst.objective.objects import BatchObjects
from modelscope_fastinst.structures import Prediction, Target
from tests.tiny import model_config


def target(*boxes: tuple[int, int, int, int], size: tuple[int, int] = (64, 64)) -> Target:
    """Rectangles (top, left, bottom, right) as objects of classes 0, 1, 2, 0, ..."""
    masks = torch.zeros(len(boxes), *size, dtype=torch.bool)
    for mask, (top, left, bottom, right) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    return Target(torch.arange(len(boxes)) % 3, masks)


def train_once(targets: list[Target], *, config: dict | None = None, amp: bool = False):
    torch.manual_seed(0)
    config = config or model_config()
    network = build_fastinst(config).train()
    criterion = build_criterion(config.get('criterion'), network.num_classes)
    images = [torch.randint(0, 256, (3, *t.masks.shape[1:]), dtype=torch.uint8) for t in targets]
    with torch.autocast('cpu', torch.bfloat16, enabled=amp):
        output = network(images, targets, match=criterion.match)
        losses = criterion(output, targets)
    sum(losses.values()).backward()
    return network, output, losses


BOX = (8, 8, 40, 40)


@pytest.mark.parametrize('amp', [pytest.param(False, id='float32'), pytest.param(True, id='bfloat16')])
@pytest.mark.parametrize('targets', [
    pytest.param([target(BOX), target((0, 0, 9, 9), (20, 20, 60, 60))], id='objects in both images'),
    pytest.param([target(), target()], id='no object in the batch'),
    pytest.param([target(BOX), target()], id='no object in the last image'),
    pytest.param([target(), target(BOX, BOX)], id='no object in the first image'),
    pytest.param([target((0, 0, 0, 0))], id='an object that a crop emptied'),
    pytest.param([target((3, 3, 4, 4))], id='an object smaller than a feature cell'),
    pytest.param([target(*[(i, i, i + 9, i + 9) for i in range(30)])], id='more objects than queries'),
    pytest.param([target(BOX, size=(40, 70)), target(BOX, size=(61, 33))], id='images of different sizes'),
])
def test_losses_and_gradients_are_finite(targets, amp):
    network, output, losses = train_once(targets, amp=amp)
    assert len(losses) == 3 * (2 * 2 + 1) + 1
    assert all(loss.isfinite() and loss.dtype == torch.float32 for loss in losses.values())
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    for (queries, objects), t in zip(output.guided_matching, targets, strict=True):
        assert len(queries) == len(objects) == min(len(t), output.final.logits.shape[1])
        assert len(set(objects.tolist())) == len(objects)


def test_without_objects_only_classification_is_learnt():
    _, _, losses = train_once([target(), target()])
    assert losses['loss_mask'] == losses['loss_dice'] == 0
    assert losses['loss_ce'] > 0
    assert losses['loss_proposal'] > 0


def test_losses_are_divided_by_the_number_of_objects():
    # The same image twice has the same mean loss an object as once.
    network, output, losses = train_once([target(BOX), target(BOX)])
    criterion = build_criterion(model_config()['criterion'], 3)
    for targets, expected in (([target(BOX), target(BOX, BOX)], 3), ([target(), target()], 1)):
        assert criterion._normalisers(output, BatchObjects(targets)).objects == expected


def test_surplus_objects_are_said_once(caplog):
    crowd = target(*[(i, i, i + 9, i + 9) for i in range(30)])
    matcher = QueryMatcher(num_points=16)
    prediction = Prediction(torch.randn(1, 9, 4), torch.randn(1, 9, 8, 8))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            matcher(prediction, torch.rand(1, 9, 2), [crowd])
    assert [record.getMessage()[:33] for record in caplog.records] == ['an image has 30 objects but the n']


def test_a_query_inside_an_object_takes_it_even_from_a_better_mask():
    t = target((0, 0, 32, 32))
    logits = torch.tensor([[[0.0, 0, 0, 5], [9.0, 0, 0, 0]]])
    good = torch.full((8, 8), -9.0)
    good[:4, :4] = 9
    masks = torch.stack([-good, good])[None]
    inside_first = torch.tensor([[[.2, .2], [.9, .9]]])
    (queries, objects), = QueryMatcher(num_points=64)(Prediction(logits, masks), inside_first, [t])
    assert (queries.tolist(), objects.tolist()) == ([0], [0])
    nowhere = torch.tensor([[[.8, .8], [.9, .9]]])
    (queries, _), = QueryMatcher(num_points=64)(Prediction(logits, masks), nowhere, [t])
    assert queries.tolist() == [1]


def test_mask_costs_are_those_of_the_definition():
    logits, truth = torch.randn(4, 50, dtype=torch.float64), torch.rand(3, 50, dtype=torch.float64)
    mask_cost, dice_cost = mask_costs(logits, truth)
    for q in range(4):
        for n in range(3):
            bce = torch.nn.functional.binary_cross_entropy_with_logits(logits[q], truth[n])
            s = logits[q].sigmoid()
            dice = 1 - (2 * (s * truth[n]).sum() + 1) / (s.sum() + truth[n].sum() + 1)
            torch.testing.assert_close(mask_cost[q, n], bce)
            torch.testing.assert_close(dice_cost[q, n], dice)


@pytest.mark.parametrize('value', [pytest.param(float('nan'), id='NaN'), pytest.param(float('inf'), id='infinity'),
                                   pytest.param(float('-inf'), id='minus infinity')])
def test_costs_that_are_not_finite_are_replaced_and_told(value):
    cost = torch.tensor([[1.0, 2.0], [value, 0.5], [3.0, 0.7]])
    matching = assign_images([cost, torch.zeros(2, 0)], torch.device('cpu'))
    assert [[len(pair) for pair in image] for image in matching] == [[2, 2], [0, 0]]
    assert not matching.finite
    assert assign_images([torch.ones(2, 2)], torch.device('cpu')).finite
    if value > 0 or value != value:
        assert [part.tolist() for part in matching[0]] == [[0, 1], [0, 1]]   # never the pair that is not finite


@pytest.mark.parametrize('where', ['masks', 'guided', 'proposal'])
def test_a_cost_that_is_not_finite_makes_every_loss_nan(where):
    targets = [target(BOX), target()]
    network, output, losses = train_once(targets)
    assert all(loss.isfinite() for loss in losses.values())
    criterion = build_criterion(model_config()['criterion'], 3)
    if where == 'masks':
        output.auxiliary[-1].masks[0, 2] = torch.nan   # a single query, which need not be matched
    elif where == 'guided':
        output.guided_matching.finite = False
    else:
        output.proposal_logits[0, 0, 0, 0] = torch.inf
    losses = criterion(output, targets)
    assert all(loss.isnan() for loss in losses.values())


def test_uncertain_points_lie_where_the_mask_is_undecided():
    torch.manual_seed(0)
    logits = torch.full((1, 1, 32, 32), 8.0)
    logits[..., 15:17] = 0.0  # a vertical border in the middle
    at = points.uncertain_points(logits, 400)
    assert at.shape == (1, 400, 2)
    # Outside of the map is 0, so its rim counts as undecided as well.
    rim = (at[0] - 0.5).abs().amax(dim=-1) > 0.5 - 0.5 / 32
    undecided = ((at[0, :, 0] - 0.5).abs() < 1.5 / 32) | rim
    # Of 1200 candidates about 15% are undecided, and all of them are taken.
    assert undecided[:300].sum() > 120
    assert undecided[300:].float().mean() < 0.4


@pytest.mark.parametrize('config, proposals, message', [
    pytest.param({'points': 3}, True, "unknown keys ['points']", id='misspelt key'),
    pytest.param({'proposal_weight': 5}, False, 'criterion.proposal_weight is 5, but with static queries',
                 id='a loss of proposals without proposals'),
    pytest.param({'location_weight': 9.0}, False, 'criterion.location_weight is 9.0, but with static queries',
                 id='a cost of locations without locations'),
])
def test_a_wrong_criterion_section_is_refused(config, proposals, message):
    with pytest.raises(ValueError) as error:
        build_criterion(config, 3, proposals=proposals)
    assert message in str(error.value)


def test_weights_of_proposals_may_be_zero_where_there_are_none():
    criterion = build_criterion({'proposal_weight': 0, 'location_weight': 0.0, 'class_weight': 3}, 3, proposals=False)
    assert criterion.weights['ce'] == 3


def test_a_model_refuses_a_weight_that_its_network_gives_nothing_to_weigh():
    from modelscope_fastinst.plugin.model import FastInstModel
    section = model_config(decoder={'queries': 'static'}, criterion={'proposal_weight': 5.0})
    with pytest.raises(ValueError, match='model.criterion.proposal_weight is 5.0'):
        FastInstModel(**{key: value for key, value in section.items() if key != 'type'})


def test_without_proposals_a_cost_that_is_not_finite_makes_every_loss_nan():
    targets = [target(BOX), target()]
    config = model_config(decoder={'queries': 'static', 'guidance': False})
    _, output, losses = train_once(targets, config=config)
    assert all(loss.isfinite() for loss in losses.values())
    output.auxiliary[0].masks[0, 2] = torch.nan
    losses = build_criterion(config['criterion'], 3)(output, targets)
    assert all(loss.isnan() for loss in losses.values())


def test_guidance_can_be_switched_off_and_then_every_head_is_matched():
    _, output, losses = train_once([target(BOX)], config=model_config(decoder={'guidance': False}))
    assert output.guided_matching is None
    assert len(losses) == 3 * (2 + 1) + 1


def test_without_deep_supervision_only_the_last_layer_counts():
    _, _, losses = train_once([target(BOX)], config=model_config(criterion={'deep_supervision': False}))
    assert sorted(losses) == ['loss_ce', 'loss_dice', 'loss_mask', 'loss_proposal']
