"""FastInst as a ModelScope model: loading, forward, saving."""
from __future__ import annotations

import json

import pytest
import torch
from modelscope.models import Model
from safetensors.torch import load_file, save_file

import modelscope_fastinst  # noqa: F401
from modelscope_fastinst.checkpoints import CheckpointError
from modelscope_fastinst.plugin.model import FastInstModel
from modelscope_fastinst.structures import NetworkOutput
from tests.golden_cases import load
from tests.plugin.model_folders import (
    SINGLE_IMAGE_CASE,
    stock_configuration,
    stock_weights,
    write_configuration,
    write_stock_folder,
)


@pytest.fixture(scope='module')
def stock(tmp_path_factory):
    return write_stock_folder(tmp_path_factory.mktemp('stock'))


def build(**changes):
    case = load(SINGLE_IMAGE_CASE)
    return FastInstModel(**{**case.model_config, **changes})


def test_stock_folder_loads_every_weight(stock):
    model = Model.from_pretrained(str(stock))
    assert isinstance(model, FastInstModel)
    expected = stock_weights(load(SINGLE_IMAGE_CASE))
    state = model.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert model.classes == [f'class {index}' for index in range(10)]


def test_safetensors_are_preferred(stock, tmp_path):
    write_stock_folder(tmp_path)
    weights = {name: torch.zeros_like(tensor) for name, tensor in stock_weights(load(SINGLE_IMAGE_CASE)).items()}
    save_file(weights, tmp_path / 'model.safetensors')
    assert not any(parameter.any() for parameter in Model.from_pretrained(str(tmp_path)).parameters())


@pytest.mark.parametrize('model', [
    pytest.param({'pretrained': True}, id='asked for'),
    pytest.param({'pretrained': None}, id='not refused'),
])
def test_missing_weights_are_an_error(tmp_path, model):
    write_stock_folder(tmp_path, weights=False, **model)
    with pytest.raises(CheckpointError, match=f'{tmp_path}: the model folder holds no weights'):
        Model.from_pretrained(str(tmp_path))


def test_random_weights_can_be_asked_for(tmp_path):
    write_stock_folder(tmp_path, weights=False, pretrained=False)
    assert not Model.from_pretrained(str(tmp_path)).weights_loaded


def test_weights_of_another_network_are_an_error(stock, tmp_path):
    configuration = stock_configuration(load(SINGLE_IMAGE_CASE))
    configuration['model']['decoder']['dec_layers'] = 1
    write_stock_folder(tmp_path, configuration=configuration)
    with pytest.raises(CheckpointError, match='unexpected'):
        Model.from_pretrained(str(tmp_path))


@pytest.mark.parametrize('changes, message', [
    pytest.param({'classes': None}, r'classes: needs the list of class names.*10', id='no class names'),
    pytest.param({'classes': 'nucleus'}, r"classes: needs the list of class names.*'nucleus'", id='one string'),
    pytest.param({'classes': ['a', 'b']}, r'2 classes, but decoder.num_classes is 10', id='number of classes'),
    pytest.param({'decodr': {}}, r"unknown settings \['decodr'\]; known are backbone", id='unknown section'),
    pytest.param({'decoder': None}, r'model.decoder is missing', id='no decoder'),
    pytest.param({'backbone': {'depht': 50}}, r"backbone has unknown keys \['depht'\]", id='unknown key'),
    pytest.param({'criterion': {'points': 5}}, r"criterion has unknown keys \['points'\]", id='unknown loss setting'),
    pytest.param({'pretrained': True}, r'there is no model_dir', id='weights from nowhere'),
])
def test_wrong_settings_are_clear_errors(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)


def test_building_does_not_change_the_configuration():
    case = load(SINGLE_IMAGE_CASE)
    settings, before = case.model_config, case.model_config
    FastInstModel(**settings)
    FastInstModel(**settings)
    assert settings == before


def test_evaluation_gives_the_networks_output():
    images, _ = load(SINGLE_IMAGE_CASE).scenes()
    with torch.no_grad():
        assert isinstance(build().eval()(images=images), NetworkOutput)


def test_training_gives_a_loss_and_its_parts():
    images, targets = load(SINGLE_IMAGE_CASE).scenes()
    model = build(criterion={'num_points': 64}).train()
    result = model(images=images, targets=targets)
    parts = dict(result['log_vars'])
    assert parts.pop('loss') == pytest.approx(result['loss'].item(), rel=1e-6)
    assert sum(parts.values()) == pytest.approx(result['loss'].item(), rel=1e-4)
    assert {'loss_ce', 'loss_mask', 'loss_dice', 'loss_proposal'} <= set(parts)
    result['loss'].backward()
    assert model.network.backbone.stem.conv1.weight.grad.abs().sum() > 0


def test_training_without_targets_is_an_error():
    with pytest.raises(ValueError, match='training mode needs targets'):
        build().train()(images=load(SINGLE_IMAGE_CASE).scenes()[0])


def test_saved_folder_loads_again(stock, tmp_path):
    model = Model.from_pretrained(str(stock), device='cpu')
    with torch.no_grad():
        next(model.parameters()).zero_()
    model.save_pretrained(tmp_path / 'saved')
    assert sorted(path.name for path in (tmp_path / 'saved').iterdir()) == ['configuration.json', 'model.safetensors']
    again = Model.from_pretrained(str(tmp_path / 'saved'))
    assert not next(again.parameters()).any()
    assert again.state_dict().keys() == model.state_dict().keys() == load_file(
        tmp_path / 'saved' / 'model.safetensors').keys()


def test_saved_configuration_holds_nothing_of_the_loaders(stock, tmp_path):
    from modelscope.pipelines import pipeline
    model = Model.from_pretrained(str(stock), device='cpu')
    pipeline('image-segmentation', model=model, device='cpu')   # writes the model into the configuration it shares
    model.save_pretrained(tmp_path)
    original = json.loads((stock / 'configuration.json').read_text())
    assert json.loads((tmp_path / 'configuration.json').read_text()) == original


def test_a_model_started_at_random_is_saved_to_be_loaded(tmp_path):
    write_stock_folder(tmp_path / 'new', weights=False, pretrained=False)
    Model.from_pretrained(str(tmp_path / 'new')).save_pretrained(tmp_path / 'saved')
    assert Model.from_pretrained(str(tmp_path / 'saved')).weights_loaded


def test_a_model_without_a_configuration_file_writes_one(tmp_path):
    build().save_pretrained(tmp_path)
    assert Model.from_pretrained(str(tmp_path)).classes == build().classes


def test_saving_over_a_file_is_an_error(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(ValueError, match='is a file; save_pretrained needs a folder'):
        build().save_pretrained(tmp_path / 'file')


def test_optimized_copy_leaves_the_model_as_it_was_and_cannot_be_saved(tmp_path):
    model = build().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fast = model.optimized()
    images, _ = load(SINGLE_IMAGE_CASE).scenes()
    with torch.no_grad():
        assert torch.allclose(fast(images=images).final.logits, model(images=images).final.logits, atol=1e-2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    for forbidden in (lambda: fast.save_pretrained(tmp_path), fast.state_dict, lambda: fast.load_state_dict(before)):
        with pytest.raises(RuntimeError, match='optimised for inference'):
            forbidden()


def test_pickles_with_code_are_refused(tmp_path):
    import os
    import pickle
    write_stock_folder(tmp_path, weights=False)

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'executed'),)
    (tmp_path / 'pytorch_model.pt').write_bytes(pickle.dumps({'model': Evil()}, protocol=2))
    with pytest.raises(CheckpointError, match='pytorch_model.pt'):
        Model.from_pretrained(str(tmp_path))
    assert not (tmp_path / 'executed').exists()


def test_a_configuration_object_of_another_folder_can_be_given(stock, tmp_path):
    from modelscope.utils.config import Config
    configuration = stock_configuration(load(SINGLE_IMAGE_CASE), classes=[f'thing {index}' for index in range(10)])
    write_configuration(tmp_path, configuration)
    model = Model.from_pretrained(str(stock), cfg_dict=Config.from_file(str(tmp_path / 'configuration.json')))
    assert model.classes[3] == 'thing 3'
