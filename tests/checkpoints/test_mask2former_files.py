"""Mask2Former's weight files: Hugging Face's names and the authors', and what can be read from the tensors."""
from __future__ import annotations

import json
import pickle

import pytest
import torch

from modelscope_fastinst.checkpoints.architecture import UnknownArchitectureError, read_architecture
from modelscope_fastinst.checkpoints.conversion import convert_weights
from modelscope_fastinst.checkpoints.formats import CheckpointError
from modelscope_fastinst.checkpoints.huggingface import to_huggingface, translate
from modelscope_fastinst.checkpoints.reading import read_weights
from modelscope_fastinst.checkpoints.sources import recognise
from modelscope_fastinst.cli import main
from modelscope_fastinst.models.build import build_network
from tests.parity.networks import BACKBONES, network


@pytest.fixture(scope='module', params=list(BACKBONES))
def saved(request, tmp_path_factory):
    """A network of ``transformers``, and the file that it saves."""
    model = network(BACKBONES[request.param](), encoder_layers=1, decoder_layers=3)
    folder = tmp_path_factory.mktemp('saved')
    model.save_pretrained(folder)
    return model, folder / 'model.safetensors'


def test_every_tensor_is_mapped_once_and_back(saved):
    state = read_weights(saved[1]).state
    found = translate(state)
    assert not found.unknown
    assert found.names.keys() | found.left_out.keys() == state.keys() and not found.names.keys() & found.left_out.keys()
    single = [name for name in found.names.values() if name not in found.joined]
    assert len(single) == len(set(single))
    assert all(len(keys) == 3 for keys in found.joined.values())
    source = recognise(read_weights(saved[1]))
    own = build_network(read_architecture(source.published()))
    names = {name for name in own.state_dict() if not name.endswith('.relative_position_index')}
    assert {name for name in found.names.values() if not name.endswith('num_batches_tracked')} == names
    back = to_huggingface(source.published())
    assert back.keys() == found.names.keys()
    assert all(torch.equal(back[key], state[key]) for key in back)


def test_the_names_in_the_memory_of_version_5_are_read_as_well(saved):
    in_memory = translate(saved[0].state_dict())
    assert not in_memory.unknown
    assert set(in_memory.names.values()) == set(translate(read_weights(saved[1]).state).names.values())


def test_what_such_a_network_does_not_have_is_refused(saved, tmp_path):
    state = {**saved[0].state_dict(), 'model.extra.weight': torch.zeros(1)}
    torch.save(state, tmp_path / 'pytorch_model.bin')
    source = recognise(read_weights(tmp_path))
    own = build_network(read_architecture(recognise(read_weights(saved[1])).published()))
    with pytest.raises(CheckpointError, match=r'1 unexpected \(model.extra.weight\)'):
        convert_weights(source, own)
    with pytest.raises(ValueError, match='extra.weight: Hugging Face'):
        to_huggingface({'extra.weight': torch.zeros(1)})


def authors_file(saved, file, old=False):
    """What the authors would have released: numpy arrays under 'model', beside detectron2's notes."""
    published = recognise(read_weights(saved[1])).published()
    state = {name: tensor for name, tensor in published.items() if not name.endswith('num_batches_tracked')}
    state['criterion.empty_weight'] = torch.ones(6)
    if old:   # of the first weeks: the head's own name was not there, and queries were called otherwise
        state = {name.replace('.pixel_decoder.', '.').replace('.query_feat.', '.static_query.'): tensor
                 for name, tensor in state.items()}
    file.write_bytes(pickle.dumps({'model': {name: tensor.numpy() for name, tensor in state.items()},
                                   '__author__': 'third_party', 'matching_heuristics': True}))
    return published


@pytest.mark.parametrize('old', [pytest.param(False, id='today'), pytest.param(True, id='old names')])
def test_the_authors_files_are_converted_without_a_configuration(saved, tmp_path, old):
    published = authors_file(saved, tmp_path / 'model_final.pkl', old)
    target = tmp_path / 'model'
    assert main(['convert', str(tmp_path / 'model_final.pkl'), str(target), '--device', 'cpu', '--task', 'semantic',
                 '--classes', 'a,b,c,d,e']) == 0
    model = json.loads((target / 'configuration.json').read_text('utf-8'))['model']
    assert (model['type'], model['task'], model['classes']) == ('mask2former', 'semantic', ['a', 'b', 'c', 'd', 'e'])
    written = read_weights(target).state
    for name, tensor in written.items():
        if not name.endswith('.relative_position_index'):
            assert torch.equal(tensor, published[name])
    # back in the authors' layout it is the plain state dict
    assert recognise(read_weights(target)).kind == 'mask2former'


def test_the_network_is_read_from_the_tensors(saved):
    published = recognise(read_weights(saved[1])).published()
    sections = read_architecture(published)
    config = saved[0].config
    decoder, encoder = sections['decoder'], sections['encoder']
    assert (decoder['num_classes'], decoder['num_queries'], decoder['dec_layers'], decoder['nheads']) == (
        5, config.num_queries, config.decoder_layers - 1, config.num_attention_heads)
    assert (encoder['enc_layers'], encoder['dim_feedforward'], encoder['mask_dim'], encoder['convs_dim']) == (
        config.encoder_layers, config.encoder_feedforward_dim, config.mask_feature_size, config.feature_size)
    with pytest.raises(UnknownArchitectureError, match='mask_features.weight is missing'):
        read_architecture({name: tensor for name, tensor in published.items() if 'mask_features' not in name})
