"""Frozen parts, synchronised batch norms, compiled parts."""
from __future__ import annotations

import logging
import re

import pytest
import torch
from torch import nn

from modelscope_fastinst.models.fastinst import build_fastinst
from modelscope_fastinst.plugin import network_setup
from modelscope_fastinst.plugin.network_setup import (
    check_batch_norms,
    compile_parts,
    freeze,
    set_up,
    synchronise_batch_norms,
)
from modelscope_fastinst.plugin.trainer_keys import ConfigurationError

from .trainer_runs import configuration, shapes, trainer_for, weights

DEEP_STEM = {'type': 'resnet_d', 'depth': 50, 'norm': 'BN', 'out_features': ['res3', 'res4', 'res5']}


def network(backbone=None):
    model = configuration()['model']
    return build_fastinst({'backbone': {**model['backbone'], **(backbone or {})}, 'encoder': model['encoder'],
                           'decoder': {**model['decoder'], 'num_classes': 2}})


def prefixes(net):
    """First two parts of the names of what needs no gradient."""
    return {'.'.join(name.split('.')[:2]) for name, p in net.named_parameters() if not p.requires_grad}


@pytest.mark.parametrize(('setting', 'frozen'), [
    pytest.param(None, set(), id='nothing'),
    pytest.param(0, set(), id='none of the parts'),
    pytest.param(1, {'backbone.stem'}, id='the stem'),
    pytest.param(2, {'backbone.stem', 'backbone.res2'}, id='stem and res2'),
    pytest.param(5, {'backbone.stem', 'backbone.res2', 'backbone.res3', 'backbone.res4', 'backbone.res5'}, id='all'),
    pytest.param(['res2'], {'backbone.res2'}, id='by name'),
    pytest.param(['stem', 'sem_seg_head.pixel_decoder'], {'backbone.stem', 'sem_seg_head.pixel_decoder'},
                 id='a module of another part'),
])
def test_what_is_frozen(setting, frozen):
    net = network()
    modules = freeze(net, setting)
    assert prefixes(net) == frozen
    assert not any(module.training for part in modules for module in part.modules())


def test_stages_have_the_same_names_in_timms_layout():
    net = build_fastinst({**{key: value for key, value in configuration()['model'].items()
                             if key in ('encoder', 'decoder')}, 'backbone': DEEP_STEM,
                          'decoder': {**configuration()['model']['decoder'], 'num_classes': 2}})
    freeze(net, 2)
    assert prefixes(net) == {'backbone.conv1', 'backbone.bn1', 'backbone.layer1'}


SWIN = {'type': 'swin', 'embed_dim': 8, 'depths': [1, 1, 1, 1], 'num_heads': [1, 1, 2, 2],
        'out_features': ['res3', 'res4', 'res5']}


@pytest.mark.parametrize(('setting', 'frozen'), [
    pytest.param(1, {'patch_embed'}, id='the embedding of patches'),
    pytest.param(3, {'patch_embed', 'layers.0', 'layers.1'}, id='and two stages, without the norm of the second'),
    pytest.param(['res5'], {'layers.3'}, id='by name'),
])
def test_stages_have_the_same_names_in_swin(setting, frozen):
    model = configuration()['model']
    net = build_fastinst({'backbone': SWIN, 'encoder': model['encoder'],
                          'decoder': {**model['decoder'], 'num_classes': 2}})
    modules = freeze(net, setting)
    found = {re.sub(r'^backbone\.(layers\.\d|\w+).*', r'\1', name)
             for name, p in net.named_parameters() if not p.requires_grad}
    assert found == frozen
    assert not any(module.training for part in modules for module in part.modules())


@pytest.mark.parametrize(('setting', 'message'), [
    pytest.param(['res9'], "names 'res9', which is no stage of the backbone .* did you mean 'res", id='no such stage'),
    pytest.param(['backbone', 'sem_seg_head'], 'leaves nothing to train', id='everything'),
])
def test_what_cannot_be_frozen(setting, message):
    with pytest.raises(ConfigurationError, match=message):
        freeze(network(), setting)


def test_frozen_parts_stay_as_they_are_in_a_training(tmp_path):
    """Weights and the statistics of their batch norms, also after an evaluation; the rest learns."""
    trainer = trainer_for(tmp_path, {'train.freeze': 3, 'evaluation.period': {'interval': 1}}, eval_dataset=shapes(1))
    before = weights(trainer)
    trainer.train()
    changed = {'.'.join(name.split('.')[:2]) for name, tensor in weights(trainer).items()
               if not torch.equal(tensor, before[name])}
    assert {'backbone.res4', 'backbone.res5', 'sem_seg_head.pixel_decoder', 'sem_seg_head.predictor'} == changed
    stepped = {id(p) for group in trainer.optimizer.param_groups for p in group['params']}
    assert not stepped & {id(p) for p in trainer.network.backbone.res3.parameters()}


@pytest.mark.parametrize(('changes', 'message'), [
    pytest.param({'train.freeze': 6}, 'train.freeze must be the number of leading parts', id='too many parts'),
    pytest.param({'train.freeze': True}, 'train.freeze must be the number', id='a switch'),
    pytest.param({'train.freeze': ['stm']}, "train.freeze names 'stm'.* did you mean 'stem'", id='misspelt'),
    pytest.param({'train.compile': 'yes'}, 'train.compile must be true or false', id='no switch'),
    pytest.param({'train.ema': {'decay': 1.5}}, r'train.ema.decay must lie in \(0, 1\); got 1.5', id='decay'),
    pytest.param({'train.optimizer.options': {'max_bad_steps': 0}}, 'max_bad_steps must be a whole number',
                 id='no patience with losses'),
    pytest.param({'train.optimizer.options': {'grad_clip': {'max_norm': -1}}}, 'max_norm must be a number above 0',
                 id='clipping'),
    pytest.param({'train.optimizer.options': {'grad_clip': {'norm_type': 1}}}, 'grad_clip needs "max_norm"',
                 id='clipping at nothing'),
    pytest.param({'train.max_epochs': 'ten'}, "train.max_epochs must be a whole number .* got 'ten'", id='a word'),
    pytest.param({'train.hooks': [{'type': 'OptimizerHook'}]}, "train.hooks has 'OptimizerHook'", id='a second step'),
    pytest.param({'train.hooks': [{'type': 'LrSchedulerHook'}]}, "has 'LrSchedulerHook'", id='a second schedule'),
    pytest.param({'train.early_stopping': {'patience': 0}}, 'train.early_stopping.patience must be a whole number',
                 id='patience'),
    pytest.param({'train.early_stopping': {'min_delta': 0.1}}, 'needs "patience"', id='no patience'),
    pytest.param({'train.early_stopping': {'patience': 1, 'min_delta': -1}}, 'min_delta must be', id='delta'),
    pytest.param({'train.early_stopping': {'patience': 1, 'rule': 'up'}}, 'rule must be "max" or "min"', id='rule'),
    pytest.param({'train.early_stopping': {'patience': 1}, 'evaluation.period': None}, 'nothing is evaluated',
                 id='no evaluation'),
    pytest.param({'train.early_stopping': {'patience': 1, 'metric_key': 'segm_AP/elipse'}},
                 "did you mean 'segm_AP/ellipse'", id='metric of a class, misspelt'),
    pytest.param({'train.checkpoint.best': {'metric_key': 'raw/segm_mAP'}}, '"evaluate_raw": true',
                 id='raw weights that are not evaluated'),
    pytest.param({'train.ema': {'evaluate_raw': True}, 'train.checkpoint.best': {'metric_key': 'raw/segm_map'}},
                 "did you mean 'raw/segm_mAP'", id='raw metric, misspelt'),
])
def test_values_that_cannot_be(changes, message, tmp_path):
    with pytest.raises(ConfigurationError, match=message):
        trainer_for(tmp_path, {'evaluation.period': {'interval': 1}, **changes}, eval_dataset=shapes(1))


def test_metrics_of_classes_boxes_and_raw_weights_can_be_the_best(tmp_path):
    for number, key in enumerate(('segm_AP/ellipse', 'bbox_mAP', 'raw/segm_mAP', 'raw/segm_AP/rectangle')):
        trainer_for(tmp_path / str(number), {
            'train.ema': {'evaluate_raw': True}, 'train.checkpoint.best': {'metric_key': key},
            'train.early_stopping': {'patience': 1, 'metric_key': key}, 'evaluation.period': {'interval': 1}},
            eval_dataset=shapes(1))


def kinds(net):
    return {type(module) for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)}


def test_batch_norms_of_several_gpus_share_their_statistics():
    net = network()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    parameters = [id(p) for p in net.parameters()]
    message = synchronise_batch_norms(net, on_gpu=True, processes=2)
    assert kinds(net) == {nn.SyncBatchNorm}
    assert '20 batch norms' in message
    assert list(net.state_dict()) == list(before)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert [id(p) for p in net.parameters()] == parameters   # an optimiser that is there keeps them


def test_frozen_norms_are_not_synchronised():
    """A norm that is frozen by its own name would otherwise be replaced by one that learns."""
    net = network()
    name = next(name for name, module in net.named_modules() if isinstance(module, nn.BatchNorm2d))
    norm, = freeze(net, [name])
    assert '19 batch norms' in synchronise_batch_norms(net, on_gpu=True, processes=2)
    assert net.get_submodule(name) is norm


@pytest.mark.parametrize(('on_gpu', 'processes', 'reason'), [
    pytest.param(True, 1, 'one process', id='one process'), pytest.param(False, 2, 'GPUs only', id='CPUs')])
def test_elsewhere_they_stay_and_the_log_says_why(on_gpu, processes, reason):
    net = network()
    assert reason in synchronise_batch_norms(net, on_gpu=on_gpu, processes=processes)
    assert kinds(net) == {nn.BatchNorm2d}


def test_synchronised_norms_on_several_cpus_are_refused_before_the_first_step():
    with pytest.raises(ConfigurationError, match='on GPUs only: train with "BN"'):
        check_batch_norms(network({'norm': 'SyncBN'}), on_gpu=False, processes=2)
    check_batch_norms(network({'norm': 'SyncBN'}), on_gpu=False, processes=1)


def test_a_switch_that_changes_nothing_here_is_told_of(tmp_path, caplog):
    trainer = trainer_for(tmp_path, {'train.sync_batchnorm': True, 'train.max_epochs': 1})
    trainer.logger.addHandler(caplog.handler)
    try:
        trainer.train()
    finally:
        trainer.logger.removeHandler(caplog.handler)
    assert 'train.sync_batchnorm changes nothing here: there is one process' in caplog.text


def test_a_missing_compiler_is_known_before_the_training(tmp_path):
    from torch._inductor import config
    torch._dynamo.reset()
    trainer = trainer_for(tmp_path, {'train.compile': True})
    with config.patch({'cpp.cxx': (str(tmp_path / 'no-compiler'),), 'force_disable_caches': True}), \
            pytest.raises(ConfigurationError, match='torch.compile does not work here.*set train.compile to false'):
        trainer.train()
    assert not (tmp_path / 'work' / 'log.jsonl').exists()


@pytest.fixture
def without_inductor(monkeypatch):
    """Graphs are captured as ever and run as they are, which takes seconds instead of minutes."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    original = nn.Module.compile
    monkeypatch.setattr(nn.Module, 'compile', lambda module, **options: original(module, backend=backend, **options))
    monkeypatch.setattr(network_setup, '_probe_compiler', lambda device: None)
    torch._dynamo.reset()
    yield graphs
    torch._dynamo.reset()


def test_compiled_parts_keep_their_keys_and_compile_once_for_all_sizes(without_inductor):
    net = network()
    keys, graphs = list(net.state_dict()), without_inductor
    set_up(net, {'compile': True}, torch.device('cpu'), 1, logging.getLogger(__name__))
    assert list(net.state_dict()) == keys
    net.train()
    net.backbone(torch.rand(2, 3, 64, 96))
    first = len(graphs)
    assert first >= 1
    for height, width in ((96, 64), (64, 128), (160, 96), (96, 192)):
        net.backbone(torch.rand(2, 3, height, width))
    assert len(graphs) <= first + 1
    net.eval()
    with torch.no_grad():
        for height, width in ((64, 96), (96, 64), (64, 128), (160, 96)):
            net.backbone(torch.rand(2, 3, height, width))
    assert len(graphs) <= 2 * first + 2


def test_a_second_training_compiles_nothing_anew(without_inductor):
    net = network()
    for _ in range(2):
        set_up(net, {'compile': True}, torch.device('cpu'), 1, logging.getLogger(__name__))
    first = net.backbone._compiled_call_impl
    set_up(net, {'compile': True}, torch.device('cpu'), 1, logging.getLogger(__name__))
    assert net.backbone._compiled_call_impl is first


@pytest.mark.slow
def test_a_compiled_training_is_the_same_training(tmp_path):
    results = []
    for compiled in (False, True):
        trainer = trainer_for(tmp_path / str(compiled), {
            'train.compile': compiled, 'train.max_epochs': 1, 'model.backbone.norm': 'FrozenBN',
            'train.optimizer': {'type': 'SGD', 'lr': 1e-4}}, eval_dataset=shapes(1, size=96))
        trainer.train()
        trainer.evaluate()
        results.append((weights(trainer), log_lines_of(tmp_path / str(compiled))))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-3, atol=1e-4)
    assert results[0][1] == pytest.approx(results[1][1], rel=1e-3)
    compile_parts(trainer.network, torch.device('cpu'))


def log_lines_of(folder):
    from .trainer_runs import log_lines
    return [line['loss'] for line in log_lines(folder)]
