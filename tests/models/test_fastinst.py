"""The network: sizes, options, published names, errors."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from modelscope_fastinst import zoo
from modelscope_fastinst.models.fastinst import build_fastinst
from modelscope_fastinst.models.optimize import optimize_for_inference
from modelscope_fastinst.models.queries import activation_scores
from modelscope_fastinst.structures import Target
from tests.golden_cases import CONFIGS, load
from tests.tiny import model_config

GOLDEN = Path(__file__).parents[1] / 'golden'
BATCHES_SEEN = 'num_batches_tracked'


def published(name: str) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for line in (GOLDEN / 'keys' / f'{name}.txt').read_text().splitlines():
        if line.strip():
            key, rest = line.split(' ', 1)
            numbers = rest[rest.index('(') + 1:rest.index(')')].split(',')
            shapes[key] = tuple(int(number) for number in numbers if number)
    return shapes


@pytest.mark.parametrize('name, millions', [
    pytest.param('fastinst_R50_ppm-fpn_x1_576', 29.66, id='D1 R50'),
    pytest.param('fastinst_R50_ppm-fpn_x3_640', 34.18, id='D3 R50'),
    pytest.param('fastinst_R101_ppm-fpn_x3_640', 53.12, id='D3 R101'),
    pytest.param('fastinst_R50-vd-dcn_ppm-fpn_x1_576', 30.17, id='D1 R50-d-DCN'),
    pytest.param('fastinst_R50-vd-dcn_ppm-fpn_x3_640', 34.69, id='D3 R50-d-DCN'),
])
def test_names_and_shapes_are_the_published_ones(name, millions):
    with torch.device('meta'):
        network = build_fastinst(zoo.configuration(CONFIGS[name])['model'])
    own = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    expected = {key: shape for key, shape in published(name).items() if not key.endswith('criterion.empty_weight')}
    assert own == expected
    trainable = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    assert round(trainable / 1e6, 2) == millions


def test_names_and_shapes_are_those_of_the_stock_model_with_ordinary_batch_norm():
    config = load('d3_r50_eval').model_config
    config['backbone']['norm'], config['encoder']['norm'] = 'BN', ''
    own = {key: list(value.shape) for key, value in build_fastinst(config).state_dict().items()}
    stock = json.loads((GOLDEN / 'stock_keys_r50_d3.json').read_text())
    assert own == {key: list(shape) for key, shape in stock.items()}


@pytest.mark.parametrize('height, width', [
    pytest.param(1, 1, id='one pixel'),
    pytest.param(1, 300, id='one row'),
    pytest.param(33, 31, id='just over one cell'),
    pytest.param(64, 96, id='fewer positions than queries'),
    pytest.param(200, 120, id='more positions than queries'),
])
def test_any_image_size_works(height, width):
    network = build_fastinst(model_config(decoder={'num_queries': 100})).eval()
    output = network([torch.randint(0, 256, (3, height, width), dtype=torch.uint8)])
    canvas = tuple(-(-size // 32) * 32 for size in (height, width))
    queries = min(100, canvas[0] * canvas[1] // 256)
    assert output.canvas == canvas
    assert output.sizes == [(height, width)]
    assert output.final.logits.shape == (1, queries, 4)
    assert output.final.masks.shape == (1, queries, canvas[0] // 8, canvas[1] // 8)
    assert output.final.masks.isfinite().all()


def test_a_list_and_a_tensor_of_equal_images_give_the_same():
    network = build_fastinst(model_config()).eval()
    images = torch.randint(0, 256, (2, 3, 50, 70), dtype=torch.uint8)
    torch.testing.assert_close(network(images).final.masks, network(list(images)).final.masks, rtol=0, atol=0)


def test_an_image_alone_and_in_a_batch_of_its_canvas_give_the_same():
    network = build_fastinst(model_config()).eval()
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in ((50, 70), (64, 96), (33, 65))]
    together = network(images).final
    for index, image in enumerate(images):
        alone = network([image]).final
        torch.testing.assert_close(alone.logits[0], together.logits[index], rtol=0, atol=1e-4)
        torch.testing.assert_close(alone.masks[0], together.masks[index], rtol=0, atol=1e-4)


@pytest.mark.parametrize('changes', [
    pytest.param({'backbone': {'depth': 34}}, id='ResNet 34'),
    pytest.param({'backbone': {'depth': 50, 'res2_out_channels': 32, 'width_per_group': 8}}, id='thin ResNet 50'),
    pytest.param({'backbone': {'norm': 'BN'}}, id='ordinary batch norm'),
    pytest.param({'backbone': {'norm': 'SyncBN'}}, id='synchronised batch norm'),
    pytest.param({'backbone': {'freeze_at': 2}}, id='frozen stages'),
    pytest.param({'backbone': {'out_features': ['res2', 'res3', 'res4']},
                  'encoder': {'in_features': ['res2', 'res3', 'res4']}}, id='strides 4, 8, 16'),
    pytest.param({'backbone': {'res5_dilation': 2}}, id='dilation instead of stride'),
    pytest.param({'decoder': {'num_aux_queries': 0}}, id='no auxiliary queries'),
    pytest.param({'decoder': {'pre_norm': True}}, id='pre-norm'),
    pytest.param({'decoder': {'dec_layers': 1}}, id='one layer'),
    pytest.param({'decoder': {'position_grid': 7, 'position_in_content': True}}, id='positions in the content'),
])
def test_options_build_and_optimising_changes_nothing_but_rounding(changes):
    torch.manual_seed(0)
    network = build_fastinst(model_config(**changes)).eval()
    for module in network.modules():  # statistics that are not those of a fresh norm, so that folding shows
        if hasattr(module, 'running_mean'):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    plain = network(images).final
    fast = optimize_for_inference(network)
    assert not any(hasattr(module, 'running_mean') for module in fast.modules())
    torch.testing.assert_close(fast(images).final.logits, plain.logits, rtol=0, atol=1e-3)
    torch.testing.assert_close(fast(images).final.masks, plain.masks, rtol=0, atol=1e-3)
    torch.testing.assert_close(network(images).final.masks, plain.masks, rtol=0, atol=0)


def test_frozen_stages_get_no_gradient_and_the_others_do():
    network = build_fastinst(model_config(backbone={'freeze_at': 2, 'norm': 'BN'}))
    trained = {name.split('.')[1] for name, parameter in network.backbone.named_parameters(prefix='backbone')
               if parameter.requires_grad}
    assert trained == {'res3', 'res4', 'res5'}


def test_the_position_embedding_is_initialised():
    # Trap: the authors leave it as whatever lay in memory.
    values = build_fastinst(model_config(decoder={'num_queries': 100})).sem_seg_head.predictor.meta_pos_embed
    assert values.shape == (1, 32, 10, 10)
    assert 0.9 < values.square().mean() < 1.1
    # Every position has an embedding of its own, and neighbours are more alike than distant ones.
    flat = values[0].flatten(1).T
    alike = (flat @ flat.T / 32).view(10, 10, 10, 10)
    assert alike[4, 4, 4, 5] > 0.5
    assert alike[4, 4, 9, 9] < 0.2
    assert (torch.cdist(flat, flat) + 9 * torch.eye(100)).min() > 0.1


def test_with_positions_in_the_content_equal_surroundings_give_different_masks():
    # On an image of one colour all positions but those at the rim look alike.
    image = torch.full((1, 3, 512, 512), 120, dtype=torch.uint8)
    for in_content in (False, True):
        torch.manual_seed(0)
        network = build_fastinst(model_config(decoder={'position_in_content': in_content})).eval()
        first = network(image).auxiliary[0].masks[0, :, 24:40, 24:40]
        spread = (first - first.mean((1, 2), keepdim=True)).abs().mean()
        assert (spread > 1e-2) == in_content


def test_local_maxima_of_a_class_are_picked_first():
    # Class 0 is best everywhere but at the lower right, whose class 1 no neighbour of class 0 may suppress.
    probabilities = torch.tensor([[.30, .40, .30], [.30, .35, .45], [.30, .30, .10]])
    other = torch.full((3, 3), .05)
    other[2, 2] = .40
    logits = torch.stack([probabilities, other, 1 - probabilities - other]).log()[None]
    scores = activation_scores(logits)[0].view(3, 3)
    assert (scores > 1).nonzero().tolist() == [[1, 2], [2, 2]]
    torch.testing.assert_close(scores[1, 2], torch.tensor(1.45))


def test_half_precision_keeps_the_order_of_proposals():
    logits = torch.randn(1, 4, 16, 16)
    rounded = logits.bfloat16()
    torch.testing.assert_close(activation_scores(rounded), activation_scores(rounded.float()), rtol=0, atol=0)


@pytest.mark.parametrize('changes, message', [
    pytest.param({'backbone': {'deph': 50}}, "backbone has unknown keys ['deph']", id='misspelt key'),
    pytest.param({'decoder': {'layers': 3}}, "decoder has unknown keys ['layers']", id='unknown decoder key'),
    pytest.param({'encoder': {'width': 3}}, "encoder has unknown keys ['width']", id='unknown encoder key'),
    pytest.param({'backbone': {'depth': 51}}, 'depth 51 is unknown', id='unknown depth'),
    pytest.param({'backbone': {'norm': 'LN'}}, "unknown norm 'LN'", id='unknown norm'),
    pytest.param({'backbone': {'out_features': ['res9']}}, "['res9'] must be some of", id='unknown stage'),
    pytest.param({'encoder': {'in_features': ['res2', 'res3', 'res4']}}, "['res2'] are not among", id='missing stage'),
    pytest.param({'encoder': {'in_features': ['res3', 'res4']}}, 'three backbone stages', id='two levels'),
    pytest.param({'encoder': {'convs_dim': 64}}, 'must be equal', id='widths that differ'),
    pytest.param({'encoder': {'convs_dim': 40}, 'decoder': {'hidden_dim': 40}}, '32 groups', id='odd width'),
    pytest.param({'decoder': {'nheads': 3}}, 'not divisible by nheads 3', id='heads that do not divide'),
    pytest.param({'decoder': None}, 'model.decoder is missing', id='section missing'),
])
def test_a_wrong_configuration_says_what_is_wrong(changes, message):
    with pytest.raises(ValueError) as error:
        build_fastinst(model_config(**changes))
    assert message in str(error.value)


def test_the_configuration_is_left_as_it_is():
    config = model_config()
    build_fastinst(config)
    build_fastinst(config)
    assert config == model_config()


@pytest.mark.parametrize('images, message', [
    pytest.param([], 'batch is empty', id='nothing'),
    pytest.param([torch.zeros(1, 8, 8)], 'RGB tensor', id='one channel'),
    pytest.param([torch.zeros(3, 0, 8)], 'RGB tensor', id='no rows'),
    pytest.param([torch.zeros(8, 8)], 'RGB tensor', id='two axes'),
])
def test_what_is_no_image_is_refused(images, message):
    with pytest.raises(ValueError, match=message):
        build_fastinst(model_config())(images)


def test_targets_need_a_matcher():
    target = Target(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 8, 8, dtype=torch.bool))
    with pytest.raises(ValueError, match='matcher'):
        build_fastinst(model_config())([torch.zeros(3, 8, 8)], [target])
