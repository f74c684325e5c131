"""The whole network against ``transformers``: a saved folder, read by us, gives the logits of every layer."""
from __future__ import annotations

import pytest
import torch
from modelscope.models import Model

import modelscope_fastinst  # noqa: F401
from tests.parity.networks import BACKBONES, folder_of, network, picture, swin

SIZES = [pytest.param((96, 128), id='96 x 128'), pytest.param((160, 96), id='160 x 96'),
         pytest.param((64, 64), id='one window and less')]


@pytest.fixture(scope='module', params=[pytest.param(name, id=name) for name in BACKBONES])
def pair(request, tmp_path_factory):
    """The network of ``transformers`` and ours from its folder."""
    theirs = network(BACKBONES[request.param]())
    folder = folder_of(theirs, tmp_path_factory.mktemp('folder'))
    return theirs, Model.from_pretrained(str(folder), device='cpu').eval()


def layers(theirs, ours, pixels):
    """Class and mask logits of every set of heads, theirs and ours, in the order of the layers."""
    sizes = [tuple(pixels.shape[-2:])] * len(pixels)
    with torch.inference_mode():
        expected = theirs(pixel_values=pixels)
        parts = ours.network.sem_seg_head
        found = parts.predictor(parts.pixel_decoder(ours.network.backbone(pixels)), canvas=sizes[0], sizes=sizes,
                                targets=[])
    expected = [*((layer['class_queries_logits'], layer['masks_queries_logits'])
                  for layer in expected.auxiliary_logits),
                (expected.class_queries_logits, expected.masks_queries_logits)]
    return expected, [(layer.logits, layer.masks) for layer in (*found.auxiliary, found.final)]


@pytest.mark.parametrize('size', SIZES)
def test_every_layer_has_the_logits_of_transformers(pair, size):
    torch.manual_seed(1)
    expected, found = layers(*pair, torch.randn(2, 3, *size))
    assert len(found) == len(expected) == 5
    for (logits, masks), (own_logits, own_masks) in zip(expected, found, strict=True):
        torch.testing.assert_close(own_logits, logits, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(own_masks, masks, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('changes', [
    pytest.param({'pre_norm': True}, id='norms before the blocks'),
    pytest.param({'enforce_input_projection': True}, id='input projections'),
    pytest.param({'num_queries': 3, 'encoder_layers': 1, 'decoder_layers': 2}, id='small'),
])
def test_settings_of_the_configuration_reach_the_network(tmp_path, changes):
    theirs = network(**changes)
    ours = Model.from_pretrained(str(folder_of(theirs, tmp_path)), device='cpu').eval()
    expected, found = layers(theirs, ours, torch.randn(1, 3, 96, 96))
    for (logits, masks), (own_logits, own_masks) in zip(expected, found, strict=True):
        torch.testing.assert_close(own_logits, logits, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(own_masks, masks, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('size', [pytest.param((480, 640), id='landscape'), pytest.param((97, 61), id='small'),
                                  pytest.param((300, 900), id='limited by its long side')])
def test_a_picture_becomes_the_logits_of_transformers(tmp_path, size):
    """The image processor's resize, scaling and normalisation, and ours, which are done in two places."""
    from modelscope.preprocessors import Preprocessor
    from transformers.models.mask2former.image_processing_pil_mask2former import Mask2FormerImageProcessorPil
    theirs = network(encoder_layers=1, decoder_layers=2)
    folder = folder_of(theirs, tmp_path, size={'shortest_edge': 128, 'longest_edge': 224})
    ours = Model.from_pretrained(str(folder), device='cpu').eval()
    image = picture(*size)
    pixels = Mask2FormerImageProcessorPil.from_pretrained(folder)(image, return_tensors='pt')['pixel_values']
    sample = Preprocessor.from_pretrained(str(folder))(image[:, :, ::-1].copy())
    assert sample.image.shape == pixels.shape[1:]
    torch.testing.assert_close(ours.network.place([sample.image])[0], pixels, rtol=1e-5, atol=1e-5)
    with torch.inference_mode():
        expected, found = theirs(pixel_values=pixels), ours([sample.image])
    assert found.canvas == tuple(pixels.shape[-2:])
    torch.testing.assert_close(found.final.logits, expected.class_queries_logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.final.masks, expected.masks_queries_logits, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_network_of_the_published_size(tmp_path):
    published = {'hidden_dim': 256, 'feature_size': 256, 'mask_feature_size': 256, 'num_attention_heads': 8,
                 'encoder_layers': 6, 'decoder_layers': 10, 'dim_feedforward': 2048, 'encoder_feedforward_dim': 1024,
                 'num_queries': 100}
    theirs = network(swin(embed_dim=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24]),
                     [f'class {index}' for index in range(133)], **published)
    ours = Model.from_pretrained(str(folder_of(theirs, tmp_path)), device='cpu').eval()
    assert ours.task == 'panoptic' and len(ours.thing_classes) == 80
    for size in ((256, 320), (384, 384)):
        expected, found = layers(theirs, ours, torch.randn(1, 3, *size))
        for (logits, masks), (own_logits, own_masks) in zip(expected, found, strict=True):
            torch.testing.assert_close(own_logits, logits, rtol=1e-3, atol=1e-3)
            torch.testing.assert_close(own_masks, masks, rtol=1e-3, atol=1e-3)
