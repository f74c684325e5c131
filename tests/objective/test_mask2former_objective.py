"""Matching, losses and gradients of learnt queries against those of ``transformers``' Mask2Former."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from modelscope_fastinst.objective.criterion import build_criterion
from modelscope_fastinst.structures import NetworkOutput, Prediction, Target
from tests.models.test_mask2former_parity import CLASSES, QUERIES, authors_names, pair, random_features

POINTS = 144


@pytest.fixture(autouse=True)
def points_by_shape(monkeypatch):
    """Both draw their points by ``torch.rand``; here equal shapes give equal numbers, which differ along each axis."""
    def rand(*shape, device=None, **_):
        shape = shape[0] if isinstance(shape[0], (tuple, list)) else shape
        generator = torch.Generator().manual_seed(hash(tuple(shape)) % 2 ** 31)
        return torch.empty(shape).uniform_(generator=generator)
    monkeypatch.setattr(torch, 'rand', rand)


def reference():
    from transformers import Mask2FormerConfig
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerForUniversalSegmentation
    config = Mask2FormerConfig(
        backbone_config={'model_type': 'swin', 'embed_dim': 8, 'depths': [1, 1, 1, 1], 'num_heads': [1, 1, 1, 1],
                         'out_features': ['stage1', 'stage2', 'stage3', 'stage4']},
        feature_size=32, mask_feature_size=16, hidden_dim=32, num_attention_heads=4, encoder_layers=1,
        encoder_feedforward_dim=16, dim_feedforward=16, decoder_layers=2, num_queries=QUERIES,
        num_labels=CLASSES, train_num_points=POINTS)
    return Mask2FormerForUniversalSegmentation(config)


def truth(counts, sizes, canvas, seed=0) -> tuple[list[Target], dict]:
    """Random rectangles of images of these sizes on a canvas: ours, and the same as ``transformers`` wants them."""
    generator = np.random.default_rng(seed)
    targets = []
    for count, (height, width) in zip(counts, sizes, strict=True):
        masks = torch.zeros(count, height, width, dtype=torch.bool)
        for mask in masks:
            top, left = generator.integers(0, (height - 8, width - 8))
            mask[top:top + generator.integers(4, height), left:left + generator.integers(4, width)] = True
        labels = torch.from_numpy(generator.integers(0, CLASSES, count))
        targets.append(Target(labels, masks).on_canvas(*canvas))
    padded = [target.pad_to(*canvas) for target in targets]
    return targets, {'mask_labels': [target.masks.float() for target in padded],
                     'class_labels': [target.labels for target in padded]}


def predictions(batch, size, heads=3) -> list[Prediction]:
    generator = torch.Generator().manual_seed(5)
    return [Prediction(torch.randn(batch, QUERIES, CLASSES + 1, generator=generator, requires_grad=True),
                       (3 * torch.randn(batch, QUERIES, *size, generator=generator)).requires_grad_())
            for _ in range(heads)]


CASES = [
    pytest.param([3, 2], [(64, 96), (64, 96)], id='equal images'),
    pytest.param([1, 4], [(64, 50), (61, 96)], id='padded images'),
    pytest.param([0, 3], [(64, 96), (40, 40)], id='no object in the first image'),
    pytest.param([2, 0], [(64, 96), (64, 96)], id='no object in the last image'),
    pytest.param([0, 0], [(64, 96), (64, 96)], id='no object at all'),
    pytest.param([QUERIES + 4, 1], [(64, 96), (64, 96)], id='more objects than queries'),
]


@pytest.mark.parametrize('counts, sizes', CASES)
def test_matching_equals_that_of_transformers(counts, sizes):
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerHungarianMatcher
    targets, labels = truth(counts, sizes, (64, 96))
    criterion = build_criterion({'num_points': POINTS}, CLASSES, proposals=False)
    theirs = Mask2FormerHungarianMatcher(cost_class=2.0, cost_mask=5.0, cost_dice=5.0, num_points=POINTS)
    for prediction in predictions(len(counts), (16, 24)):
        expected = theirs(prediction.masks, prediction.logits, **labels)
        for (queries, objects), (rows, columns) in zip(criterion.match(prediction, None, targets), expected,
                                                       strict=True):
            assert queries.tolist() == rows.tolist()
            assert objects.tolist() == columns.tolist()


@pytest.mark.parametrize('counts, sizes', CASES)
@pytest.mark.parametrize('settings', [
    pytest.param({}, id='published weights'),
    pytest.param({'class_weight': 1.5, 'mask_weight': 20.0, 'dice_weight': 1.0, 'no_object_weight': 0.3},
                 id='other weights'),
])
def test_every_loss_equals_that_of_transformers(counts, sizes, settings):
    targets, labels = truth(counts, sizes, (64, 96))
    *auxiliary, final = predictions(len(counts), (16, 24))
    model = reference()
    for name, value in settings.items():
        setattr(model.config, name, value)
    model = type(model)(model.config)
    expected = model.get_loss_dict(final.masks, final.logits, **labels, auxiliary_predictions=[
        {'masks_queries_logits': head.masks, 'class_queries_logits': head.logits} for head in auxiliary])
    sum(expected.values()).backward()
    gradients = [tensor.grad for head in (*auxiliary, final) for tensor in (head.logits, head.masks)]
    for head in (*auxiliary, final):
        head.logits.grad = head.masks.grad = None

    criterion = build_criterion({'num_points': POINTS, **settings}, CLASSES, proposals=False)
    losses = criterion(NetworkOutput(final, auxiliary, canvas=(64, 96), sizes=sizes), targets)
    sum(losses.values()).backward()
    assert len(losses) == len(expected) == 9
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name.replace('loss_ce', 'loss_cross_entropy')], rtol=1e-5, atol=1e-6,
                                   msg=name)
    for tensor, gradient in zip((tensor for head in (*auxiliary, final) for tensor in (head.logits, head.masks)),
                                gradients, strict=True):
        torch.testing.assert_close(tensor.grad, gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize('counts, size', [
    pytest.param([3, 5], (16, 24), id='objects in both images'),
    pytest.param([0, 2], (24, 16), id='no object in one image'),
    pytest.param([0, 0], (8, 8), id='no object at all'),
])
def test_decoder_and_objective_learn_what_those_of_transformers_learn(counts, size):
    decoder, head, ours = pair()
    for module in (decoder, head, ours):
        module.float()
    features = random_features(size)
    features = type(features)([x.float() for x in features.maps], features.mask_features.float())
    canvas = (4 * size[0], 4 * size[1])
    targets, labels = truth(counts, [canvas] * 2, canvas)

    theirs = decoder(features.maps, features.mask_features)
    heads = [{'masks_queries_logits': masks, 'class_queries_logits': head(state.transpose(0, 1))}
             for masks, state in zip(theirs.masks_queries_logits, theirs.intermediate_hidden_states, strict=True)]
    expected = reference().get_loss_dict(**heads.pop(), **labels, auxiliary_predictions=heads)
    sum(expected.values()).backward()
    for module in (decoder, head):
        for parameter in module.parameters():
            parameter.data = parameter.grad

    criterion = build_criterion({'num_points': POINTS}, CLASSES, proposals=False)
    output = ours(features, canvas=canvas, sizes=[canvas] * 2, targets=targets, match=criterion.match)
    losses = criterion(output, targets)
    total = sum(losses.values())
    total.backward()
    torch.testing.assert_close(total, sum(expected.values()), rtol=1e-5, atol=1e-5)
    gradients = authors_names(decoder, head)
    overall = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    for name, gradient in gradients.items():
        own = ours.get_parameter(name).grad
        assert (own - gradient).norm() < 1e-3 * gradient.norm() + 1e-6 * overall, name
