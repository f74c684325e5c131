"""Trainings that start from ImageNet weights of the backbone: from a file, a name or a URL."""
from __future__ import annotations

import hashlib
import logging
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torchvision

from modelscope_fastinst.checkpoints import CheckpointError
from modelscope_fastinst.models.resnet_d import ResNetD
from modelscope_fastinst.plugin.backbone_weights import BackboneError, backbone_file
from modelscope_fastinst.plugin.trainer_keys import ConfigurationError
from tests.plugin.loopback_hub import serve

from .trainer_runs import log_lines, shapes, trainer_for, weights

RESNET = {'depth': 18, 'norm': 'FrozenBN'}
DEFORMABLE = {'type': 'resnet_d', 'depth': 50, 'norm': 'FrozenBN', 'deform_stages': [3, 4], 'stem_width': 4,
              'stem_out_channels': 8, 'res2_out_channels': 16}


@pytest.fixture(scope='module')
def torchvision_file(tmp_path_factory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A file as torchvision publishes them, its name with the hash of its content, and what is in it."""
    folder = tmp_path_factory.mktemp('torchvision')
    state = torchvision.models.resnet18().state_dict()
    torch.save(state, folder / 'new.pth')
    digest = hashlib.sha256((folder / 'new.pth').read_bytes()).hexdigest()
    return (folder / 'new.pth').rename(folder / f'resnet18-{digest[:8]}.pth'), state


@pytest.fixture(scope='module')
def deformable_file(tmp_path_factory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A ResNet-D under timm's names: no offsets, a classifier, counters of batches."""
    options: dict[str, Any] = {key: value for key, value in DEFORMABLE.items() if key not in ('type', 'deform_stages')}
    state = ResNetD(**{**options, 'norm': 'BN'}).state_dict()
    state.update({'fc.weight': torch.zeros(10, 128), 'fc.bias': torch.zeros(10)})
    file = tmp_path_factory.mktemp('timm') / 'resnet50d.pth'
    torch.save(state, file)
    return file, state


@pytest.fixture(autouse=True)
def downloads(tmp_path, monkeypatch) -> Path:
    """An empty cache, and no way to the network but to this machine."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    monkeypatch.setattr(torch.hub, '_hub_dir', None)
    find = socket.getaddrinfo

    def only_here(host, *args, **options):
        if host not in ('127.0.0.1', 'localhost'):
            raise socket.gaierror(-3, 'Temporary failure in name resolution')
        return find(host, *args, **options)

    monkeypatch.setattr(socket, 'getaddrinfo', only_here)
    return tmp_path / 'torch' / 'hub' / 'checkpoints'


def started(folder: Path, source: Any, backbone: dict[str, Any] | None = None, **arguments: Any) -> Any:
    return trainer_for(folder, {'model.backbone': backbone or RESNET, 'train.backbone_weights': source,
                                'train.max_epochs': 1, 'train.optimizer.backbone_multiplier': 0.1}, **arguments)


def is_new(name: str) -> bool:
    return not name.startswith('backbone.')


def test_backbone_of_a_file(torchvision_file, tmp_path, caplog):
    file, state = torchvision_file
    with caplog.at_level(logging.INFO):
        trainer = started(tmp_path, str(file))
    loaded = weights(trainer)
    torch.testing.assert_close(loaded['backbone.stem.conv1.weight'], state['conv1.weight'], rtol=0, atol=0)
    torch.testing.assert_close(loaded['backbone.res5.1.conv2.norm.running_var'], state['layer4.1.bn2.running_var'],
                               rtol=0, atol=0)
    assert trainer.new_weights == [name for name in loaded if is_new(name)]
    assert f'backbone weights of {file}' in caplog.text
    assert 'new: everything outside of the backbone' in caplog.text


def test_offsets_of_deformable_stages_are_new_and_named(deformable_file, tmp_path, caplog):
    file, state = deformable_file
    with caplog.at_level(logging.INFO):
        trainer = started(tmp_path, str(file), DEFORMABLE)
    loaded = weights(trainer)
    offsets = {name for name in loaded if '.conv2_offset.' in name}
    assert len(offsets) == 2 * (6 + 3)
    assert set(trainer.new_weights) == offsets | {name for name in loaded if is_new(name)}
    assert 'and 18 tensors in it: backbone.layer3.0.conv2_offset.weight' in caplog.text
    assert not any(loaded[name].any() for name in offsets)
    for name, tensor in loaded.items():
        if not is_new(name) and name not in offsets:
            assert torch.equal(tensor, state[name.removeprefix('backbone.')]), name


@pytest.mark.parametrize('amp', [pytest.param(None, id='float32'), pytest.param('bf16', id='bfloat16')])
@pytest.mark.parametrize('modulated', [pytest.param(False, id='version 1'), pytest.param(True, id='version 2')])
def test_deformable_convolutions_learn(amp, modulated, tmp_path):
    """Offsets start at zero; after a few steps on a CPU they, and the weights that they move, are others."""
    trainer = trainer_for(tmp_path, {'model.backbone': {**DEFORMABLE, 'deform_modulated': modulated}, 'train.amp': amp,
                                     'train.max_epochs': 1}, train_dataset=shapes(6))
    before = weights(trainer)
    trainer.train()
    assert len(log_lines(tmp_path)) == 3
    assert all(0 < line['loss'] < 1000 for line in log_lines(tmp_path))
    after = weights(trainer)
    for name in ('layer3.1.conv2_offset.weight', 'layer4.2.conv2_offset.bias', 'layer4.0.conv2.weight'):
        assert torch.isfinite(after[f'backbone.{name}']).all()
        assert not torch.equal(after[f'backbone.{name}'], before[f'backbone.{name}'])


def test_offsets_that_are_no_numbers_spoil_the_result_and_not_the_process(tmp_path):
    network = trainer_for(tmp_path, {'model.backbone': DEFORMABLE}).network.eval()
    with torch.no_grad():
        network.backbone.layer4[2].conv2_offset.bias[3] = torch.nan
        features = network.backbone(torch.rand(1, 3, 64, 64))
    assert features['res5'].isnan().all() and features['res4'].isfinite().all()


@pytest.mark.parametrize('source', [pytest.param(None, id='no such setting'), pytest.param('none', id='none'),
                                    pytest.param('None', id='None')])
def test_random_weights_on_purpose(source, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        trainer = started(tmp_path, source)
    assert trainer.new_weights == list(weights(trainer))
    assert 'training from random weights' in caplog.text


@pytest.mark.parametrize(('source', 'message'), [
    pytest.param('nowhere.pth', "'nowhere.pth': no such file", id='no such file'),
    pytest.param('ResNet49_Weights.IMAGENET1K_V1', 'torchvision has no such weights', id='no such name'),
    pytest.param('ResNet50_Weights.V9', 'torchvision has no such weights', id='no such version'),
    pytest.param('https://example.org/resnet50.pth', 'says nothing of its SHA-256', id='URL without hash'),
    pytest.param('http://example.org/resnet50-0676ba61.pth', 'must begin with https://', id='URL without encryption'),
    pytest.param('file:///resnet50-0676ba61.pth', 'must begin with https://', id='URL of a file'),
    pytest.param(7, 'must name weights, or be "none"; got 7', id='number'),
])
def test_wrong_setting(source, message, tmp_path):
    with pytest.raises(ConfigurationError, match=message):
        started(tmp_path, source)


def test_another_backbone(torchvision_file, tmp_path):
    with pytest.raises(CheckpointError, match='backbone of the network is another'):
        started(tmp_path, str(torchvision_file[0]), DEFORMABLE)


# Downloads

def url_of(hub, file: Path) -> str:
    return f'{hub.address}/files/{file.name}'


def test_a_url_is_fetched_once(torchvision_file, downloads, tmp_path):
    file, state = torchvision_file
    with serve(file.parent) as hub:
        trainer = started(tmp_path / 'first', url_of(hub, file))
        assert len(hub.requests) == 1
        started(tmp_path / 'second', url_of(hub, file))
        assert len(hub.requests) == 1
    assert torch.equal(weights(trainer)['backbone.stem.conv1.weight'], state['conv1.weight'])
    assert [path.name for path in downloads.iterdir()] == [file.name]


def test_a_name_is_fetched_from_where_torchvision_has_it(torchvision_file, monkeypatch):
    file, _ = torchvision_file
    with serve(file.parent) as hub:
        monkeypatch.setattr(torchvision.models, 'get_weight', lambda name: SimpleNamespace(url=url_of(hub, file)))
        assert backbone_file('ResNet18_Weights.IMAGENET1K_V1').read_bytes() == file.read_bytes()


@pytest.mark.parametrize(('source', 'url'), [
    pytest.param('ResNet50_Weights.IMAGENET1K_V1', 'https://download.pytorch.org/models/resnet50-0676ba61.pth',
                 id='name'),
    pytest.param('https://example.org/resnet50d_ra2-464e36ba.pth', 'https://example.org/resnet50d_ra2-464e36ba.pth',
                 id='URL'),
])
def test_without_network_it_says_what_to_fetch_and_where_to_put_it(source, url, downloads):
    with pytest.raises(BackboneError) as caught:
        backbone_file(source)
    message = str(caught.value)
    assert '\n' not in message
    for part in (source, 'Temporary failure in name resolution', f'fetch {url}',
                 f'copy it to {downloads / Path(url).name}', '"--backbone FILE"', 'train.backbone_weights', '"none"'):
        assert part in message
    assert list(downloads.iterdir()) == []


def test_put_where_it_is_looked_for_it_needs_no_network(torchvision_file, downloads):
    file, _ = torchvision_file
    downloads.mkdir(parents=True)
    (downloads / file.name).write_bytes(file.read_bytes())
    assert backbone_file(f'https://example.org/{file.name}') == downloads / file.name


@pytest.mark.parametrize(('fault', 'name'), [
    pytest.param('cut', None, id='cut connection'), pytest.param('', 'other-0123456789.pth', id='other content'),
    pytest.param('', 'missing-0123456789.pth', id='no such file'),
])
def test_what_does_not_arrive_whole_leaves_nothing(fault, name, torchvision_file, downloads):
    file, _ = torchvision_file
    if name == 'other-0123456789.pth':
        (file.parent / name).write_bytes(b'something else')
    with serve(file.parent) as hub:
        hub.faults = {file.name: fault} if fault else {}
        with pytest.raises(BackboneError, match='cannot be fetched'):
            backbone_file(f'{hub.address}/files/{name or file.name}')
    assert list(downloads.iterdir()) == []


def test_a_damaged_file_in_the_cache_is_not_taken(torchvision_file, downloads):
    file, _ = torchvision_file
    downloads.mkdir(parents=True)
    (downloads / file.name).write_bytes(file.read_bytes()[:-100])
    with pytest.raises(BackboneError, match='is damaged, its SHA-256 does not begin with .*; delete it'):
        backbone_file(f'https://example.org/{file.name}')


# Where there is nothing to load it into

def test_resumed_it_is_not_needed(torchvision_file, tmp_path, caplog):
    started(tmp_path, str(torchvision_file[0])).train()
    with caplog.at_level(logging.INFO):
        trainer = started(tmp_path, 'gone.pth', resume_from='latest')
        trainer.train()
    assert 'train.backbone_weights gone.pth are not used: the training is resumed' in caplog.text
    assert trainer.new_weights == []


def test_resuming_nothing_starts_from_it(torchvision_file, tmp_path):
    trainer = started(tmp_path, str(torchvision_file[0]), resume_from='latest')
    assert torch.equal(weights(trainer)['backbone.stem.conv1.weight'], torchvision_file[1]['conv1.weight'])


def test_a_model_has_a_backbone_of_its_own(torchvision_file, tmp_path, caplog):
    from modelscope.trainers import build_trainer
    started(tmp_path, str(torchvision_file[0])).train()
    with caplog.at_level(logging.INFO):
        trainer = build_trainer('fastinst-trainer', default_args={
            'model': str(tmp_path / 'work' / 'output'), 'work_dir': str(tmp_path / 'tuned'), 'device': 'cpu',
            'train_dataset': shapes(), 'cfg_options': {'train.backbone_weights': 'gone.pth'}})
    assert 'gone.pth are not used: the training starts from all weights of a model' in caplog.text
    assert trainer.new_weights == []


def test_the_result_does_not_say_where_they_lay(torchvision_file, tmp_path):
    started(tmp_path, str(torchvision_file[0])).train()
    text = (tmp_path / 'work' / 'output' / 'configuration.json').read_text('utf-8')
    assert 'backbone_weights' not in text
