"""The masked-attention decoder against that of ``transformers``, with equal random weights."""
from __future__ import annotations

import pytest
import torch

from modelscope_fastinst.models.mask2former import MaskedAttentionDecoder
from modelscope_fastinst.models.position import sine_positions
from modelscope_fastinst.structures import PixelFeatures

CLASSES, WIDTH, QUERIES, LAYERS = 5, 32, 11, 6
# (height, width) at stride 4; the maps have strides 8, 16, 32
SIZES = [pytest.param((16, 24), id='64 x 96'), pytest.param((40, 24), id='160 x 96'),
         pytest.param((8, 8), id='one cell at stride 32')]


def reference(**changes):
    """The decoder of ``transformers`` and its class head, with random weights."""
    from transformers import Mask2FormerConfig
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerTransformerModule
    config = Mask2FormerConfig(feature_size=WIDTH, mask_feature_size=16, hidden_dim=WIDTH, num_attention_heads=4,
                               dim_feedforward=48, decoder_layers=LAYERS + 1, num_queries=QUERIES, dropout=0.0,
                               num_labels=CLASSES, **changes)
    torch.manual_seed(0)
    decoder = Mask2FormerTransformerModule(WIDTH, config)
    # Up to 5.20 a list, whose projections were neither saved nor moved.
    decoder.input_projections = torch.nn.ModuleList(decoder.input_projections)
    head = torch.nn.Linear(WIDTH, CLASSES + 1)
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.25)
    return decoder.double(), head.double()


def authors_names(decoder, head) -> dict[str, torch.Tensor]:
    """The weights of ``reference`` under the names of the authors' files."""
    theirs, ours = decoder.state_dict(), {}
    for name in ('query_feat', 'query_embed'):
        ours[f'{name}.weight'] = theirs[{'query_feat': 'queries_features', 'query_embed': 'queries_embedder'}[name]
                                        + '.weight']
    ours['level_embed.weight'] = theirs['level_embed.weight']
    for kind in ('weight', 'bias'):
        ours[f'decoder_norm.{kind}'] = theirs[f'decoder.layernorm.{kind}']
        ours[f'class_embed.{kind}'] = head.state_dict()[kind]
        for index in range(3):
            ours[f'mask_embed.layers.{index}.{kind}'] = theirs[f'decoder.mask_predictor.mask_embedder.{index}.0.{kind}']
            if f'input_projections.{index}.{kind}' in theirs:
                ours[f'input_proj.{index}.{kind}'] = theirs[f'input_projections.{index}.{kind}']
        for index in range(LAYERS):
            layer = f'decoder.layers.{index}'
            attention = f'transformer_self_attention_layers.{index}'
            ours[f'{attention}.self_attn.in_proj_{kind}'] = torch.cat(
                [theirs[f'{layer}.self_attn.{part}_proj.{kind}'] for part in 'qkv'])
            ours[f'{attention}.self_attn.out_proj.{kind}'] = theirs[f'{layer}.self_attn.out_proj.{kind}']
            ours[f'{attention}.norm.{kind}'] = theirs[f'{layer}.self_attn_layer_norm.{kind}']
            attention = f'transformer_cross_attention_layers.{index}'
            ours[f'{attention}.multihead_attn.in_proj_{kind}'] = theirs[f'{layer}.cross_attn.in_proj_{kind}']
            ours[f'{attention}.multihead_attn.out_proj.{kind}'] = theirs[f'{layer}.cross_attn.out_proj.{kind}']
            ours[f'{attention}.norm.{kind}'] = theirs[f'{layer}.cross_attn_layer_norm.{kind}']
            block = f'transformer_ffn_layers.{index}'
            ours[f'{block}.linear1.{kind}'] = theirs[f'{layer}.fc1.{kind}']
            ours[f'{block}.linear2.{kind}'] = theirs[f'{layer}.fc2.{kind}']
            ours[f'{block}.norm.{kind}'] = theirs[f'{layer}.final_layer_norm.{kind}']
    return ours


def pair(**changes):
    """Theirs (decoder, class head) and ours, with equal weights, in double precision."""
    decoder, head = reference(**changes)
    ours = MaskedAttentionDecoder(num_classes=CLASSES, hidden_dim=WIDTH, num_queries=QUERIES, nheads=4,
                                  dim_feedforward=48, dec_layers=LAYERS, mask_dim=16,
                                  pre_norm=changes.get('pre_norm', False),
                                  enforce_input_project=changes.get('enforce_input_projection', False)).double()
    ours.load_state_dict(authors_names(decoder, head), strict=True)
    return decoder.train(), head, ours.train()


def random_features(size, batch=2) -> PixelFeatures:
    generator = torch.Generator().manual_seed(size[0])
    maps = [torch.randn(batch, WIDTH, size[0] // step, size[1] // step, generator=generator, dtype=torch.float64)
            for step in (8, 4, 2)]
    return PixelFeatures(maps, torch.randn(batch, 16, *size, generator=generator, dtype=torch.float64))


def decode(ours, features):
    """Every head's prediction, the initial ones first; as in training, where all of them classify."""
    batch, _, height, width = features.mask_features.shape
    output = ours(features, canvas=(4 * height, 4 * width), sizes=[(4 * height, 4 * width)] * batch, targets=[])
    assert output.guided_matching is output.proposal_logits is output.query_locations is None
    return [*output.auxiliary, output.final]


@pytest.mark.parametrize('changes', [
    pytest.param({}, id='as published'),
    pytest.param({'pre_norm': True}, id='pre-norm'),
    pytest.param({'enforce_input_projection': True}, id='projected maps'),
])
@pytest.mark.parametrize('size', SIZES)
def test_every_head_and_every_gradient_equals_that_of_transformers(size, changes):
    decoder, head, ours = pair(**changes)
    features = random_features(size)
    theirs = decoder(features.maps, features.mask_features)
    logits = [head(state.transpose(0, 1)) for state in theirs.intermediate_hidden_states]
    predictions = decode(ours, features)
    assert len(predictions) == len(logits) == len(theirs.masks_queries_logits) == LAYERS + 1
    for prediction, expected, masks in zip(predictions, logits, theirs.masks_queries_logits, strict=True):
        torch.testing.assert_close(prediction.logits, expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(prediction.masks, masks, rtol=0, atol=1e-5)

    generator = torch.Generator().manual_seed(1)
    total, expected_total = 0, 0
    for prediction, expected, masks in zip(predictions, logits, theirs.masks_queries_logits, strict=True):
        of_logits, of_masks = (torch.randn(x.shape, generator=generator, dtype=x.dtype) for x in (expected, masks))
        total += (of_logits * prediction.logits).sum() + (of_masks * prediction.masks).sum()
        expected_total += (of_logits * expected).sum() + (of_masks * masks).sum()
    total.backward()
    expected_total.backward()
    for module in (decoder, head):   # gradients in the place of weights go through the same table of names
        for parameter in module.parameters():
            parameter.data = parameter.grad
    for name, expected in authors_names(decoder, head).items():
        torch.testing.assert_close(ours.get_parameter(name).grad, expected, rtol=1e-4,
                                   atol=1e-5 * expected.norm().item() + 1e-8, msg=name)


def test_queries_without_a_foreground_look_everywhere_as_in_transformers():
    decoder, head, ours = pair()
    features = random_features((16, 24))
    features.mask_features[:, 0] = 1
    for predictor in (ours.mask_embed.layers[2], decoder.decoder.mask_predictor.mask_embedder.get_submodule('2.0')):
        predictor.bias.data[0] = -500
    theirs = decoder(features.maps, features.mask_features).masks_queries_logits
    assert all((masks < 0).all() for masks in theirs)
    for prediction, masks in zip(decode(ours, features), theirs, strict=True):
        torch.testing.assert_close(prediction.masks, masks, rtol=0, atol=1e-5)


@pytest.mark.parametrize('height, width', [(1, 1), (1, 9), (20, 27)])
def test_positions_equal_those_of_transformers(height, width):
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerSinePositionEmbedding
    theirs = Mask2FormerSinePositionEmbedding(24, normalize=True)(torch.Size((1, 48, height, width)), 'cpu',
                                                                  torch.float32)
    torch.testing.assert_close(sine_positions(height, width, 48), theirs, rtol=0, atol=1e-6)
