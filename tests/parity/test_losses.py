"""A training step against ``transformers``: matching and losses of every layer, with equal weights and equal points.

Both draw their points by ``torch.rand`` in the same order, so an equal seed gives equal points. Semantic, instance and
panoptic training differ in their masks only.
"""
from __future__ import annotations

import pytest
import torch
from modelscope.models import Model

import modelscope_fastinst  # noqa: F401
from modelscope_fastinst.structures import Target
from tests.parity.networks import BACKBONES, CLASSES, folder_of, network

HEIGHT, WIDTH = 96, 128
NAMES = {'ce': 'loss_cross_entropy', 'mask': 'loss_mask', 'dice': 'loss_dice'}


@pytest.fixture(scope='module', params=['swin', 'resnet'])
def pair(request, tmp_path_factory):
    theirs = network(BACKBONES[request.param]())
    return theirs, Model.from_pretrained(str(folder_of(theirs, tmp_path_factory.mktemp('folder'))), device='cpu')


def rectangles(seed: int, count: int, overlap: bool = False) -> torch.Tensor:
    """``count`` masks; without ``overlap`` a pixel is in one at most."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(count, HEIGHT, WIDTH, dtype=torch.bool)
    for mask in masks:
        top, left = (int(torch.randint(0, side - 30, (), generator=generator)) for side in (HEIGHT, WIDTH))
        mask[top:top + 30, left:left + 40] = True
    if not overlap:
        masks &= masks.cumsum(0) <= 1
    return masks


def instance_targets() -> list[Target]:
    return [Target(torch.tensor([1, 1, 3]), rectangles(0, 3, overlap=True)),
            Target(torch.tensor([4]), rectangles(1, 1))]


def panoptic_targets() -> list[Target]:
    """Things and one region of stuff, which fills what they leave."""
    things = rectangles(2, 3)
    return [Target(torch.tensor([1, 2, 1, 0]), torch.cat([things, ~things.any(0, keepdim=True)])),
            Target(torch.tensor([0]), torch.ones(1, HEIGHT, WIDTH, dtype=torch.bool))]


def semantic_targets() -> list[Target]:
    """One mask a present class; the second image has every class."""
    halves = torch.zeros(2, HEIGHT, WIDTH, dtype=torch.bool)
    halves[0, :40], halves[1, 40:] = True, True
    stripes = torch.zeros(5, HEIGHT, WIDTH, dtype=torch.bool)
    for index, stripe in enumerate(stripes):
        stripe[:, index * 25:(index + 1) * 25] = True
    return [Target(torch.tensor([0, 3]), halves), Target(torch.arange(5), stripes)]


@pytest.mark.parametrize('targets', [pytest.param(instance_targets, id='instance'),
                                     pytest.param(panoptic_targets, id='panoptic'),
                                     pytest.param(semantic_targets, id='semantic')])
def test_matching_and_losses_of_every_layer(pair, targets):
    theirs, ours = pair
    targets = targets()
    theirs.eval(), ours.eval()   # batch norms as in the published training, which freezes them
    torch.manual_seed(3)
    pixels = torch.randn(2, 3, HEIGHT, WIDTH)
    labels = {'mask_labels': [target.masks.float() for target in targets],
              'class_labels': [target.labels for target in targets]}
    torch.manual_seed(4)
    expected = theirs(pixel_values=pixels, **labels)
    output = ours.network.sem_seg_head.predictor(
        ours.network.sem_seg_head.pixel_decoder(ours.network.backbone(pixels)), canvas=(HEIGHT, WIDTH),
        sizes=[(HEIGHT, WIDTH)] * 2, targets=targets)
    torch.manual_seed(4)
    found = ours.criterion(output, targets)

    torch.manual_seed(4)
    reference = theirs.criterion(
        masks_queries_logits=expected.masks_queries_logits, class_queries_logits=expected.class_queries_logits,
        **labels, auxiliary_predictions=expected.auxiliary_logits)
    for suffix in ('', *(f'_{index}' for index in range(4))):
        for own, name in NAMES.items():
            torch.testing.assert_close(found[f'loss_{own}{suffix}'],
                                       reference[f'{name}{suffix}'] * ours.criterion.weights[own],
                                       rtol=1e-4, atol=1e-5)
    assert len(found) == len(reference) == 15
    total = sum(reference[f'{name}{suffix}'] * ours.criterion.weights[own]
                for suffix in ('', *(f'_{index}' for index in range(4))) for own, name in NAMES.items())
    torch.testing.assert_close(sum(found.values()), total, rtol=1e-4, atol=1e-5)

    torch.manual_seed(5)
    pairs = theirs.criterion.matcher(expected.masks_queries_logits, expected.class_queries_logits, **labels)
    torch.manual_seed(5)
    for (queries, objects), (own_queries, own_objects) in zip(
            pairs, ours.criterion.match(output.final, None, [target.on_canvas(HEIGHT, WIDTH) for target in targets]),
            strict=True):
        assert own_queries.tolist() == queries.tolist() and own_objects.tolist() == objects.tolist()
    for parameter in (*theirs.parameters(), *ours.parameters()):
        parameter.grad = None
    total.backward()
    sum(found.values()).backward()
    torch.testing.assert_close(ours.network.sem_seg_head.predictor.query_feat.weight.grad,
                               theirs.model.transformer_module.queries_features.weight.grad, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(ours.network.sem_seg_head.pixel_decoder.mask_features.weight.grad,
                               theirs.model.pixel_level_module.decoder.mask_projection.weight.grad, rtol=1e-3,
                               atol=1e-5)


def test_the_settings_of_the_losses_are_those_of_the_folder(tmp_path):
    theirs = network(class_weight=1.5, mask_weight=4.0, dice_weight=3.0, no_object_weight=0.3, train_num_points=64,
                     oversample_ratio=2.0, importance_sample_ratio=0.5, encoder_layers=1, decoder_layers=2)
    criterion = Model.from_pretrained(str(folder_of(theirs, tmp_path)), device='cpu').criterion
    assert criterion.weights == {'ce': 1.5, 'mask': 4.0, 'dice': 3.0}
    assert criterion.no_object_weight == 0.3
    assert (criterion.num_points, criterion.oversample_ratio, criterion.importance_sample_ratio) == (64, 2.0, 0.5)
    assert Model.from_pretrained(str(tmp_path), device='cpu').classes == CLASSES
