"""Files of a whole FastInst: the authors', ModelScope's, and those that a training writes on the way."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from modelscope_fastinst.checkpoints import CheckpointError, load_backbone, load_weights
from modelscope_fastinst.checkpoints.conversion import NOT_BACKBONE
from modelscope_fastinst.checkpoints.formats import _numpy_allowed
from modelscope_fastinst.checkpoints.reading import read_weights
from modelscope_fastinst.checkpoints.sources import recognise
from modelscope_fastinst.models.fastinst import FastInst, build_fastinst
from tests.checkpoints.backbone_networks import assert_accounted_for
from tests.checkpoints.pickles import Calls
from tests.tiny import model_config


def fastinst(seed=0, **changes) -> FastInst:
    torch.manual_seed(seed)
    return build_fastinst(model_config(**changes))


def training_state(network):
    """What detectron2's checkpointer writes during a training: optimizer, scheduler, numbers of numpy."""
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    weights = torch.ones(4)
    return {'model': {**network.state_dict(), 'criterion.empty_weight': weights,
                      'sem_seg_head.predictor.criterion.empty_weight': weights},
            'optimizer': optimizer.state_dict(), 'scheduler': {'last_epoch': np.int64(7), 'milestones': [1, 2]},
            'iteration': 7, 'trainer': {'hooks': {'best': np.float64(37.9), 'seen': np.arange(3)}},
            '__author__': 'the authors'}


@pytest.mark.parametrize('zipped', [pytest.param(True, id='torch.save'), pytest.param(False, id='old torch.save')])
def test_the_authors_file_with_all_of_a_training_in_it(zipped, tmp_path):
    source, network = fastinst(1), fastinst(2)
    torch.save(training_state(source), tmp_path / 'model_final.pth', _use_new_zipfile_serialization=zipped)
    file = read_weights(tmp_path / 'model_final.pth')
    assert recognise(file).kind == 'fastinst-authors' and file.author == 'the authors'
    assert {'optimizer', 'scheduler', 'trainer', 'iteration'} <= set(file.others)
    load_weights(network, tmp_path / 'model_final.pth')
    torch.testing.assert_close(dict(network.state_dict()), dict(source.state_dict()), rtol=0, atol=0)


def test_reading_numpy_s_numbers_leaves_nothing_allowed_in_the_process(tmp_path):
    own = [(dict, 'somebody.dict'), np.dtype]
    before = torch.serialization.get_safe_globals()
    with torch.serialization.safe_globals(own):
        during = set(torch.serialization.get_safe_globals())
        torch.save(training_state(fastinst()), tmp_path / 'model.pth')
        read_weights(tmp_path / 'model.pth')
        torch.save({'n': np.float64(1), 'bad': Calls(eval, '1'), 'model': {}}, tmp_path / 'model.pth')
        with pytest.raises(CheckpointError, match=r'wants to build (builtins\.)?eval'):
            read_weights(tmp_path / 'model.pth')
        assert set(torch.serialization.get_safe_globals()) == during
    assert set(torch.serialization.get_safe_globals()) == set(before)


def test_what_others_allow_meanwhile_stays_allowed():
    others, meanwhile = (dict, 'somebody.dict'), (list, 'somebody.list')
    with torch.serialization.safe_globals([others, meanwhile, np.dtype]):
        with torch.serialization.safe_globals([meanwhile]):
            pass   # it is not allowed now
        with _numpy_allowed():
            during = torch.serialization.get_safe_globals()
            assert others in during and np.dtype not in during   # two of one name would be a matter of chance
            torch.serialization.add_safe_globals([meanwhile])
        assert {others, meanwhile, np.dtype} <= set(torch.serialization.get_safe_globals())


@pytest.mark.parametrize(('state', 'kind'), [
    pytest.param(lambda: fastinst().state_dict(), 'fastinst', id='a bare state dict'),
    pytest.param(lambda: fastinst(backbone={'norm': 'BN'}).state_dict(), 'fastinst-modelscope', id='ModelScope\'s'),
    pytest.param(lambda: {f'module.{key}': value for key, value in fastinst().state_dict().items()}, 'fastinst',
                 id='of a DataParallel training'),
])
def test_fastinst_is_known_by_its_keys_and_gives_its_backbone(state, kind, tmp_path):
    torch.save(state(), tmp_path / 'weights.bin')
    source = recognise(read_weights(tmp_path / 'weights.bin'))
    assert (source.kind, source.backbone.name) == (kind, 'ResNet-18')
    network = fastinst(5)
    decoder = {key: value.clone() for key, value in network.state_dict().items() if key.startswith('sem_seg_head')}
    conversion = load_backbone(network, tmp_path / 'weights.bin')
    assert_accounted_for(conversion, tmp_path / 'weights.bin', network)
    assert NOT_BACKBONE in conversion.unused.values()
    torch.testing.assert_close(network.backbone.state_dict()['res3.0.conv1.weight'],
                               fastinst().backbone.state_dict()['res3.0.conv1.weight'], rtol=0, atol=0)
    own = network.state_dict()
    assert all(torch.equal(own[key], value) for key, value in decoder.items())


def test_load_weights_takes_a_data_parallel_fastinst(tmp_path):
    source, network = fastinst(1), fastinst(2)
    torch.save({f'module.{key}': value for key, value in source.state_dict().items()}, tmp_path / 'weights.bin')
    load_weights(network, tmp_path / 'weights.bin')
    torch.testing.assert_close(dict(network.state_dict()), dict(source.state_dict()), rtol=0, atol=0)


def test_load_weights_says_that_a_backbone_is_no_whole_network(resnet50, tmp_path):
    torch.save(resnet50.state_dict(), tmp_path / 'resnet50.pth')
    with pytest.raises(CheckpointError, match='not the weights of a whole FastInst.*convert') as error:
        load_weights(fastinst(), tmp_path / 'resnet50.pth')
    assert '\n' not in str(error.value)
