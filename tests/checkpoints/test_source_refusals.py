"""Weights that do not fit: what they are is said, and what would fit."""
from __future__ import annotations

import pytest
import torch

from modelscope_fastinst.checkpoints import CheckpointError, load_backbone
from modelscope_fastinst.checkpoints.reading import read_weights
from modelscope_fastinst.checkpoints.sources import recognise
from tests.checkpoints.backbone_networks import Backbone, published


@pytest.mark.parametrize(('origin', 'network', 'names'), [
    pytest.param('resnet50d', 'fastinst_d3_r50', ['fastinst_d1_r50d_dcn', 'fastinst_d3_r50d_dcn'],
                 id='timm\'s into the plain one'),
    pytest.param('resnet50', 'fastinst_d3_r50d_dcn', ['fastinst_d1_r50', 'fastinst_d3_r50'],
                 id='torchvision\'s into the deep stem'),
    pytest.param('resnet101', 'fastinst_d1_r50', ['fastinst_d3_r101'], id='too deep'),
])
def test_the_wrong_backbone_names_the_right_configurations(origin, network, names, request, tmp_path):
    torch.save(request.getfixturevalue(origin).state_dict(), tmp_path / 'weights.pth')
    target = published(network)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    with pytest.raises(CheckpointError) as error:
        load_backbone(target, tmp_path / 'weights.pth')
    assert str(error.value).startswith(str(tmp_path / 'weights.pth')) and '\n' not in str(error.value)
    assert all(name in str(error.value) for name in names)
    torch.testing.assert_close(dict(target.state_dict()), before, rtol=0, atol=0)


def test_a_backbone_without_a_published_configuration_is_said_to_be_so(tmp_path):
    import torchvision
    torch.save(torchvision.models.resnet34().state_dict(), tmp_path / 'resnet34.pth')
    with pytest.raises(CheckpointError, match='ResNet-34; .*none of the published'):
        load_backbone(Backbone(depth=18), tmp_path / 'resnet34.pth')


@pytest.mark.filterwarnings('ignore:Validating sparse tensor invariants')
@pytest.mark.parametrize(('change', 'message'), [
    pytest.param(lambda state: state.pop('layer1.0.conv1.weight'), r'1 missing \(backbone.res2.0.conv1.weight\)',
                 id='missing'),
    pytest.param(lambda state: state.update(surplus=torch.zeros(1)), r'1 unexpected \(surplus\)', id='unexpected'),
    pytest.param(lambda state: state.update({'bn1.bias': torch.zeros(3)}),
                 r'backbone.stem.conv1.norm.bias \(3,\) instead of \(64,\)', id='of another shape'),
    pytest.param(lambda state: state.update({'bn1.bias': torch.full((64,), float('nan'))}),
                 'stem.conv1.norm.bias has values that are infinite or no numbers', id='no numbers'),
    pytest.param(lambda state: state.update({'bn1.bias': torch.zeros(64).to_sparse()}), 'bn1.bias is sparse',
                 id='sparse'),
])
def test_every_key_is_accounted_for_or_it_is_an_error(change, message, tmp_path):
    import torchvision
    state = torchvision.models.resnet18().state_dict()
    change(state)
    torch.save(state, tmp_path / 'resnet18.pth')
    with pytest.raises(CheckpointError, match=message):
        load_backbone(Backbone(depth=18), tmp_path / 'resnet18.pth')


@pytest.mark.parametrize(('keys', 'name'), [
    pytest.param(['sem_seg_head.predictor.query_feat.weight', 'sem_seg_head.predictor.label_enc.weight'], 'MaskDINO',
                 id='MaskDINO'),
    pytest.param(['model.transformer_module.queries_embedder.weight'], 'Transformers\' MaskFormer', id='MaskFormer'),
    pytest.param(['backbone.bottom_up.stem.conv1.weight', 'proposal_generator.rpn_head.conv.weight'], 'Mask R-CNN',
                 id='Mask R-CNN of detectron2'),
    pytest.param(['backbone.body.conv1.weight', 'roi_heads.box_head.fc6.weight'], 'Mask R-CNN',
                 id='Mask R-CNN of torchvision'),
    pytest.param(['backbone.0.body.conv1.weight', 'class_embed.weight'], 'DETR', id='DETR'),
    pytest.param(['patch_embed.proj.weight', 'layers.0.blocks.0.norm1.weight', 'layers.0.blocks.0.attn.logit_scale'],
                 'a Swin transformer of version 2', id='Swin V2'),
    pytest.param(['patch_embed.proj.weight', 'cls_token', 'blocks.0.norm1.weight'], 'a vision transformer', id='ViT'),
])
def test_other_networks_are_known_by_name(keys, name, tmp_path):
    torch.save({'model': {key: torch.zeros(1) for key in keys}}, tmp_path / 'other.pth')
    with pytest.raises(CheckpointError, match=f'holds another network: .*{name}'):
        recognise(read_weights(tmp_path / 'other.pth'))


def test_an_unknown_network_is_shown_with_what_is_understood(tmp_path):
    torch.save({f'net.{index}.weight': torch.zeros(1) for index in range(9)}, tmp_path / 'other.pth')
    with pytest.raises(CheckpointError) as error:
        recognise(read_weights(tmp_path / 'other.pth'))
    assert 'its 9 entries begin with net.0.weight, net.1.weight' in str(error.value)
    assert all(word in str(error.value) for word in ('FastInst', 'torchvision', 'timm', 'detectron2'))
