"""Every pixel decoder with every transformer decoder, its ways to make queries, and guidance: one network's options."""
from __future__ import annotations

import pytest
import torch

from modelscope_fastinst.models.build import build_network
from modelscope_fastinst.models.mask2former import MaskedAttentionDecoder
from modelscope_fastinst.models.position import sine_positions
from modelscope_fastinst.objective.criterion import build_criterion
from modelscope_fastinst.structures import PixelFeatures, Target
from tests.models.test_fastinst import published
from tests.tiny import model_config
from tests.variants import ALL, variant_config


def build(*variant):
    torch.manual_seed(0)
    return build_network(variant_config(*variant))


def square(size=(64, 64)) -> Target:
    masks = torch.zeros(2, *size, dtype=torch.bool)
    masks[0, 8:40, 8:40] = masks[1, 40:64, 20:64] = True
    return Target(torch.tensor([1, 2]), masks)


def nothing(size=(64, 64)) -> Target:
    return Target(torch.zeros(0, dtype=torch.int64), torch.zeros(0, *size, dtype=torch.bool))


def train_once(network, targets, amp=False):
    criterion = build_criterion({'num_points': 64}, 3)
    images = [torch.randint(0, 256, (3, *target.masks.shape[1:]), dtype=torch.uint8) for target in targets]
    with torch.autocast('cpu', torch.bfloat16, enabled=amp):
        output = network.train()(images, targets, match=criterion.match)
        losses = criterion(output, targets)
    sum(losses.values()).backward()
    return output, losses


@pytest.mark.parametrize('objects', [pytest.param(True, id='objects'), pytest.param(False, id='no objects')])
@pytest.mark.parametrize('variant', ALL, ids=lambda variant: ' '.join(map(str, variant)))
def test_every_parameter_has_a_gradient_in_every_step(variant, objects):
    network = build(*variant)
    _, decoder, queries, guidance = variant
    output, losses = train_once(network, [square() if objects else nothing(), nothing((50, 70))])
    without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert without == []
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
    layers = network.sem_seg_head.predictor.num_layers
    assert len(output.auxiliary) == (2 * layers if guidance else layers)
    heads = {'', *(f'_{index}' for index in range(len(output.auxiliary)))}
    expected = {f'loss_{kind}{head}' for kind in ('ce', 'mask', 'dice') for head in heads}
    proposals = queries == 'activation-guided'
    assert set(losses) == expected | ({'loss_proposal'} if proposals else set())
    assert (output.proposal_logits is not None) == (output.query_locations is not None) == proposals
    assert (output.guided_matching is not None) == guidance


@pytest.mark.parametrize('changes', [
    pytest.param({'decoder': {'dec_layers': 2, 'enforce_input_project': True}}, id='fewer layers than scales'),
    pytest.param({'type': 'fastinst', 'encoder': {'type': 'msdeformattn'}}, id='a map that nobody reads'),
])
def test_what_is_of_no_use_is_not_trained(changes):
    """Several processes that train together would wait for gradients that never come."""
    encoder = {'convs_dim': 32, 'nheads': 2, 'enc_layers': 1, 'dim_feedforward': 32, **changes.get('encoder', {})}
    decoder = {'num_classes': 3, 'hidden_dim': 32, 'nheads': 2, 'num_queries': 9, **changes.get('decoder', {})}
    network = build_network({
        'type': changes.get('type', 'mask2former'), 'encoder': encoder, 'decoder': decoder,
        'backbone': {'type': 'swin', 'embed_dim': 4, 'depths': [1, 1, 1, 1], 'num_heads': [1, 1, 1, 1]}})
    train_once(network, [square()])
    idle = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert idle == {name for name, parameter in network.named_parameters() if parameter.grad is None}
    assert len(idle) == 2


@pytest.mark.parametrize('variant', [
    pytest.param(('msdeformattn', 'masked-attention', 'static', False), id='Mask2Former'),
    pytest.param(('ppm-fpn', 'masked-attention', 'activation-guided', True), id='masked attention in FastInst'),
    pytest.param(('ppm-fpn', 'query', 'static', True), id='single path with learnt queries'),
])
def test_half_precision_trains(variant):
    network = build(*variant)
    _, losses = train_once(network, [square(), nothing()], amp=True)
    assert all(loss.isfinite() and loss.dtype == torch.float32 for loss in losses.values())
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize('variant', ALL[::2], ids=lambda variant: ' '.join(map(str, variant[:3])))
def test_inference_classifies_once_and_of_any_size(variant):
    network = build(*variant).eval()
    with torch.no_grad():
        output = network([torch.randint(0, 256, (3, 33, 65), dtype=torch.uint8)])
    assert output.canvas == (64, 96)
    stride = 4 if variant[:2] == ('msdeformattn', 'masked-attention') else 8
    assert output.final.masks.shape == (1, 9, 64 // stride, 96 // stride)
    assert output.final.logits.shape == (1, 9, 4)
    assert all(prediction.logits is None for prediction in output.auxiliary)
    assert len(output.auxiliary) == (0 if variant[1] == 'masked-attention' else 2)
    assert output.query_locations is output.guided_matching is None


def test_the_single_path_has_the_published_names_less_those_of_the_pixels():
    name = 'fastinst_R50_ppm-fpn_x3_640'
    config = model_config(backbone={'depth': 50, 'stem_out_channels': 64, 'res2_out_channels': 256},
                          encoder={'convs_dim': 256, 'mask_dim': 256},
                          decoder={'num_classes': 80, 'hidden_dim': 256, 'num_queries': 100, 'num_aux_queries': 8,
                                   'nheads': 8, 'dim_feedforward': 1024, 'dec_layers': 3, 'mask_dim': 256,
                                   'path': 'query'})
    with torch.device('meta'):
        own = {key: tuple(value.shape) for key, value in build_network(config).state_dict().items()}
    assert own == {key: shape for key, shape in published(name).items()
                   if not key.endswith('criterion.empty_weight') and 'transformer_mask_' not in key}


def test_the_single_path_leaves_the_pixels_as_they_are():
    for path, same in (('query', True), ('dual', False)):
        network = build('ppm-fpn', path, 'activation-guided', True).eval()
        seen = []
        for head in network.sem_seg_head.predictor.mask_features_layers:
            head.register_forward_hook(lambda _, arguments, __, seen=seen: seen.append(arguments[0]))
        network([torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)])
        assert len(seen) == 3
        assert torch.equal(seen[0], seen[2]) == same


@pytest.mark.parametrize('decoder', ['dual', 'masked-attention'])
def test_static_queries_are_the_same_for_every_image_and_are_learnt(decoder):
    network = build('ppm-fpn', decoder, 'static', False)
    predictor = network.sem_seg_head.predictor
    assert predictor.query_feat.weight.shape == predictor.query_embed.weight.shape == (9, 32)
    first = []
    norm = predictor.decoder_query_norm_layers[0] if decoder == 'dual' else predictor.decoder_norm
    norm.register_forward_hook(lambda _, arguments, __: first.append(arguments[0]))
    network.eval()([torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8) for _ in range(2)])
    for image in first[0]:
        torch.testing.assert_close(image, predictor.query_feat.weight, rtol=0, atol=0)


def record_calls(layers):
    """(index, arguments, result) of every call of the layers, in order."""
    calls = []
    for index, layer in enumerate(layers):
        layer.register_forward_hook(
            lambda _, arguments, result, index=index: calls.append((index, arguments, result)))
    return calls


def test_masked_attention_is_guided_at_each_layers_scale_on_its_own_output():
    network = build('msdeformattn', 'masked-attention', 'static', True)
    predictor = network.sem_seg_head.predictor
    attentions = record_calls(predictor.transformer_cross_attention_layers)
    outputs = record_calls(predictor.transformer_ffn_layers)
    target = square((128, 128))
    output, _ = train_once(network, [target])
    (queries, objects), = output.guided_matching
    assert [index for index, *_ in attentions] == [0, 1, 2, 3] * 2
    for layer in range(4):
        stride = (32, 16, 8)[layer % 3]
        _, (x, _, memory, _, attend), _ = attentions[4 + layer]
        assert torch.equal(x, outputs[layer][2])
        assert memory.shape[1] == (128 // stride) ** 2
        expected = torch.ones(9, memory.shape[1], dtype=torch.bool)
        for query, mask in zip(queries, target.masks[objects, ::stride, ::stride].flatten(1), strict=True):
            expected[query] = mask if mask.any() else True
        assert torch.equal(attend[0], expected)


def test_masked_attention_with_guided_queries_starts_at_the_picked_pixels():
    torch.manual_seed(0)
    decoder = MaskedAttentionDecoder(num_classes=3, hidden_dim=16, num_queries=5, nheads=2, dim_feedforward=8,
                                     dec_layers=1, mask_dim=8, queries='activation-guided')
    maps = [torch.randn(1, 16, side, side) for side in (2, 4, 8)]
    calls = record_calls(decoder.transformer_cross_attention_layers)
    picked = []
    decoder.query_proposal.register_forward_hook(lambda _, __, result: picked.append(result))
    decoder(PixelFeatures(maps, torch.randn(1, 8, 16, 16)), canvas=(64, 64), sizes=[(64, 64)])
    (_, (queries, positions, *_), _), = calls
    at = picked[0].indices[0]
    torch.testing.assert_close(queries[0], maps[1][0].flatten(1).T[at], rtol=0, atol=0)
    torch.testing.assert_close(positions[0], sine_positions(4, 4, 16)[0].flatten(1).T[at], rtol=0, atol=0)


def test_guidance_needs_a_matcher_and_nothing_else_does():
    images, targets = [torch.zeros(3, 64, 64)], [square()]
    for decoder in ('dual', 'masked-attention'):
        with pytest.raises(ValueError, match='pass match=criterion.match'):
            build('ppm-fpn', decoder, 'static', True)(images, targets)
        assert build('ppm-fpn', decoder, 'static', False)(images, targets).guided_matching is None


@pytest.mark.parametrize('changes, message', [
    pytest.param({'queries': 'learnt'}, "queries 'learnt' is unknown; choose one of activation-guided, static",
                 id='queries'),
    pytest.param({'path': 'single'}, "path 'single' is unknown; choose one of dual, query", id='path'),
    pytest.param({'type': 'masked-attention'}, r"unknown keys \['num_aux_queries'\]", id="another decoder's option"),
])
def test_an_unknown_choice_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        build_network(model_config(decoder=changes))


def test_masked_attention_without_mask_features_says_what_is_missing():
    decoder = MaskedAttentionDecoder(num_classes=3, hidden_dim=16, nheads=2)
    with pytest.raises(ValueError, match='needs mask features'):
        decoder(PixelFeatures([torch.zeros(1, 16, 2, 2)] * 3), canvas=(64, 64), sizes=[(64, 64)])
    with pytest.raises(ValueError, match='hidden_dim 18 must be a multiple of 4'):
        MaskedAttentionDecoder(num_classes=3, hidden_dim=18, nheads=2)
