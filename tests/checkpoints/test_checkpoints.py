"""Weights on disk: formats, strictness, new classes, broken and hostile files."""
from __future__ import annotations

import logging
import os
import pickle

import pytest
import torch

from modelscope_fastinst.checkpoints import (
    CheckpointError,
    find_weights,
    load_for_finetuning,
    load_weights,
    read_state_dict,
    save_weights,
)
from modelscope_fastinst.models.fastinst import build_fastinst
from tests.tiny import model_config


def network(seed: int = 0, **changes):
    torch.manual_seed(seed)
    return build_fastinst(model_config(**changes))


def assert_equal(first, second):
    torch.testing.assert_close(dict(first.state_dict()), dict(second.state_dict()), rtol=0, atol=0)


def write_stock(folder, net):
    torch.save({'model': net.state_dict()}, folder / 'pytorch_model.pt')


def write_bare(folder, net):
    torch.save(net.state_dict(), folder / 'pytorch_model.bin')


def write_wrapped(folder, net):
    torch.save({'state_dict': net.state_dict(), 'epoch': 3}, folder / 'pytorch_model.pt')


def write_authors(folder, net):
    weights = {'criterion.empty_weight': torch.ones(4), 'sem_seg_head.predictor.criterion.empty_weight': torch.ones(4)}
    torch.save({'model': {**net.state_dict(), **weights}, 'iteration': 7}, folder / 'pytorch_model.pt')


def write_safetensors(folder, net):
    save_weights(net, folder / 'model.safetensors')


@pytest.mark.parametrize('write', [
    pytest.param(write_stock, id='stock hub file'), pytest.param(write_bare, id='bare state dict'),
    pytest.param(write_wrapped, id='under state_dict'), pytest.param(write_authors, id='with constant class weights'),
    pytest.param(write_safetensors, id='safetensors'),
])
def test_every_format_gives_the_same_weights(tmp_path, write):
    source, target = network(1), network(2)
    write(tmp_path, source)
    load_weights(target, tmp_path)
    assert_equal(source, target)


def test_safetensors_are_preferred(tmp_path):
    write_stock(tmp_path, network(1))
    write_safetensors(tmp_path, network(2))
    assert find_weights(tmp_path).name == 'model.safetensors'


def test_half_precision_on_disk_is_float32_in_the_network(tmp_path):
    source, target = network(1), network(2)
    save_weights(source, tmp_path / 'model.safetensors', dtype=torch.float16)
    load_weights(target, tmp_path)
    assert all(value.dtype != torch.float16 for value in target.state_dict().values())
    torch.testing.assert_close(dict(source.state_dict()), dict(target.state_dict()), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('written, read', [
    pytest.param('BN', 'FrozenBN', id='counters of batches that nobody wants'),
    pytest.param('FrozenBN', 'BN', id='counters of batches that are not there'),
])
def test_frozen_and_ordinary_batch_norm_read_each_other(tmp_path, written, read):
    source, target = network(1, backbone={'norm': written}), network(2, backbone={'norm': read})
    write_stock(tmp_path, source)
    load_weights(target, tmp_path)
    own = target.state_dict()
    for key, value in source.state_dict().items():
        if not key.endswith('num_batches_tracked'):
            torch.testing.assert_close(own[key], value, rtol=0, atol=0)


def test_biases_that_only_the_configuration_knows_are_zero(tmp_path):
    source, target = network(1), network(2, encoder={'norm': ''})
    write_stock(tmp_path, source)
    load_weights(target, tmp_path)
    for module in (source, target):
        module.eval()
    image = torch.randint(0, 256, (1, 3, 64, 64))
    torch.testing.assert_close(target(image).final.masks, source(image).final.masks)


def test_the_position_embedding_is_resized_for_another_number_of_queries(tmp_path, caplog):
    source, target = network(1, decoder={'num_queries': 9}), network(2, decoder={'num_queries': 25})
    write_safetensors(tmp_path, source)
    with caplog.at_level(logging.INFO):
        load_weights(target, tmp_path)
    resized = target.sem_seg_head.predictor.meta_pos_embed
    assert resized.shape == (1, 32, 5, 5)
    torch.testing.assert_close(resized[..., 2, 2], source.sem_seg_head.predictor.meta_pos_embed[..., 1, 1])
    assert 'resized from (3, 3) to (5, 5)' in caplog.text


def test_all_faults_are_listed_and_nothing_is_loaded(tmp_path):
    source, target = network(1, decoder={'num_classes': 5}), network(2)
    state = source.state_dict()
    state['backbone.surplus'] = torch.zeros(1)
    del state['backbone.stem.conv1.weight']
    torch.save({'model': state}, tmp_path / 'pytorch_model.pt')
    before = {key: value.clone() for key, value in target.state_dict().items()}
    with pytest.raises(CheckpointError) as error:
        load_weights(target, tmp_path)
    message = str(error.value)
    assert '1 missing:\n  backbone.stem.conv1.weight' in message
    assert '1 unexpected:\n  backbone.surplus' in message
    assert 'class_embed_layers.2.layers.2.weight (6, 32) instead of (4, 32)' in message
    torch.testing.assert_close(dict(target.state_dict()), before, rtol=0, atol=0)


def test_finetuning_renews_exactly_what_depends_on_the_classes(tmp_path):
    source, target = network(1, decoder={'num_classes': 5}), network(2)
    write_safetensors(tmp_path, source)
    fresh = {key: value.clone() for key, value in target.state_dict().items()}
    new = load_for_finetuning(target, tmp_path)
    heads = [f'sem_seg_head.predictor.class_embed_layers.{h}.layers.2.{k}'
             for h in range(3) for k in ('weight', 'bias')]
    proposal = [f'sem_seg_head.predictor.query_proposal.conv_proposal_cls_logits.2.{k}' for k in ('weight', 'bias')]
    assert sorted(new) == sorted(heads + proposal)
    theirs = source.state_dict()
    for key, value in target.state_dict().items():
        torch.testing.assert_close(value, fresh[key] if key in new else theirs[key], rtol=0, atol=0)


def test_finetuning_with_as_many_classes_renews_nothing(tmp_path):
    source, target = network(1), network(2)
    write_safetensors(tmp_path, source)
    assert load_for_finetuning(target, tmp_path) == []
    assert_equal(source, target)


def test_finetuning_for_as_many_other_classes_renews_all_that_depends_on_them(tmp_path):
    source, target = network(1), network(2)
    write_safetensors(tmp_path, source)
    fresh = {key: value.clone() for key, value in target.state_dict().items()}
    new = load_for_finetuning(target, tmp_path, renew_classes=True)
    assert len(new) == 8
    theirs = source.state_dict()
    for key, value in target.state_dict().items():
        torch.testing.assert_close(value, fresh[key] if key in new else theirs[key], rtol=0, atol=0)


def test_finetuning_does_not_hide_another_architecture(tmp_path):
    write_safetensors(tmp_path, network(1, decoder={'dec_layers': 1}))
    with pytest.raises(CheckpointError, match='missing'):
        load_for_finetuning(network(2), tmp_path)


class Hostile:
    def __reduce__(self):
        return os.mkdir, ('hostile-code-ran',)


@pytest.mark.parametrize('name, content, message', [
    pytest.param('pytorch_model.pt', b'', 'broken or cut off', id='zero bytes'),
    pytest.param('pytorch_model.pt', b'no pickle at all', 'weights', id='text'),
    pytest.param('model.safetensors', b'\x10\x00', 'broken or cut off', id='safetensors cut in the header'),
    pytest.param('pytorch_model.pt', pickle.dumps(Hostile()), 'can run code', id='pickle that runs code'),
    pytest.param('pytorch_model.pt', None, 'no state dict', id='something else in the file'),
])
def test_a_bad_file_is_named_and_runs_nothing(tmp_path, monkeypatch, name, content, message):
    monkeypatch.chdir(tmp_path)
    if content is None:
        torch.save({'model': {'a': 1}}, tmp_path / name)
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError) as error:
        read_state_dict(tmp_path)
    assert name in str(error.value)
    assert message in str(error.value)
    assert not (tmp_path / 'hostile-code-ran').exists()


@pytest.mark.parametrize('write', [pytest.param(write_stock, id='pytorch_model.pt'),
                                   pytest.param(write_safetensors, id='model.safetensors')])
def test_a_file_cut_off_in_the_middle_is_named(tmp_path, write):
    write(tmp_path, network())
    path = find_weights(tmp_path)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(CheckpointError, match='broken or cut off'):
        load_weights(network(), tmp_path)


@pytest.mark.parametrize('source', [pytest.param('', id='folder without weights'),
                                    pytest.param('nowhere', id='folder that does not exist')])
def test_missing_weights_are_an_error(tmp_path, source):
    with pytest.raises(CheckpointError, match='weights'):
        load_weights(network(), tmp_path / source)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    file = tmp_path / 'model.safetensors'
    save_weights(network(1), file)
    before = file.read_bytes()

    def full_disk(_):
        raise OSError(28, 'No space left on device')
    monkeypatch.setattr(os, 'fsync', full_disk)
    with pytest.raises(OSError, match='No space left'):
        save_weights(network(2), file)
    assert file.read_bytes() == before
    assert os.listdir(tmp_path) == ['model.safetensors']
