"""Layer-wise learning rates, factors by name, and warm-ups."""
from __future__ import annotations

import pytest
import torch

from modelscope_fastinst.models.fastinst import build_fastinst
from modelscope_fastinst.plugin.optimizer import build_optimizer, lr_factor, parameter_settings

from .trainer_runs import trainer_for


@pytest.fixture(scope='module')
def net():
    with torch.device('meta'):
        return build_fastinst({'backbone': {'depth': 18, 'norm': 'BN'}, 'encoder': {'convs_dim': 64},
                               'decoder': {'num_classes': 2, 'hidden_dim': 64, 'dec_layers': 1}})


def rates(net, **options):
    return {name: rate for name, (rate, _) in parameter_settings(net, 1.0, 0.05, **options).items()}


STAGES = ['stem', 'res2', 'res3', 'res4', 'res5']


@pytest.mark.parametrize('multiplier', [pytest.param(1.0, id='alone'), pytest.param(0.1, id='times the multiplier')])
def test_the_rate_decays_from_the_last_stage_to_the_stem(multiplier, net):
    found = rates(net, backbone_multiplier=multiplier, layer_decay=0.5)
    for number, stage in enumerate(reversed(STAGES), 1):
        of_stage = {rate for name, rate in found.items() if name.startswith(f'backbone.{stage}.')}
        assert list(of_stage) == pytest.approx([multiplier * 0.5 ** number])
    assert {rate for name, rate in found.items() if not name.startswith('backbone.')} == {1.0}


def test_the_rate_decays_by_the_stages_of_swin_and_of_resnet_d_too():
    """Norms of a Swin's outputs belong to their stages."""
    head = {'encoder': {'convs_dim': 64}, 'decoder': {'num_classes': 2, 'hidden_dim': 64, 'dec_layers': 1}}
    stages = {
        'swin': ['patch_embed', 'layers.0', 'layers.1', 'layers.2', 'layers.3'],
        'resnet_d': ['conv1', 'layer1', 'layer2', 'layer3', 'layer4'],
    }
    for kind, names in stages.items():
        with torch.device('meta'):
            net = build_fastinst({'backbone': {'type': kind, 'out_features': ['res3', 'res4', 'res5']}, **head})
        found = rates(net, backbone_multiplier=1.0, layer_decay=0.5)
        for number, stage in enumerate(reversed(names), 1):
            assert {rate for name, rate in found.items() if name.startswith(f'backbone.{stage}.')} == {0.5 ** number}
        if kind == 'swin':
            assert [found[f'backbone.norm{i}.weight'] for i in (1, 2, 3)] == [1 / 8, 1 / 4, 1 / 2]
        assert 1.0 not in {rate for name, rate in found.items() if name.startswith('backbone.')}


def test_what_decays_in_mask2former_with_swin():
    """As its authors have it: norms, embeddings and Swin's tables of positions do not; bare parameters do."""
    with torch.device('meta'):
        net = build_fastinst({'type': 'mask2former', 'backbone': {'type': 'swin'},
                              'encoder': {'convs_dim': 64, 'enc_layers': 1},
                              'decoder': {'num_classes': 2, 'hidden_dim': 64, 'dec_layers': 1}})
    settings = parameter_settings(net, 1e-4, 0.05)
    undecayed = {name for name, (_, decay) in settings.items() if not decay}
    norms = {f'{name}.{part}' for name, module in net.named_modules() for part in ('weight', 'bias')
             if isinstance(module, (torch.nn.LayerNorm, torch.nn.GroupNorm))}
    tables = {name for name in settings if name.endswith('relative_position_bias_table')}
    embeddings = {f'sem_seg_head.predictor.{name}.weight' for name in ('query_feat', 'query_embed', 'level_embed')}
    assert len(tables) == 12 and undecayed == norms | tables | embeddings
    assert settings['sem_seg_head.pixel_decoder.transformer.level_embed'] == (1e-4, 0.05)
    assert {rate for name, (rate, _) in settings.items() if name.startswith('backbone.')} == {1e-4 * 0.1}


def test_no_decay_is_a_decay_of_one(net):
    assert rates(net, layer_decay=1.0) == rates(net, layer_decay=None) == rates(net)


def test_a_network_without_stages():
    with pytest.raises(ValueError, match='layer_decay is 0.5, but the network has none of the backbone stages stem'):
        parameter_settings(torch.nn.Linear(2, 2), 1.0, 0.0, layer_decay=0.5)


@pytest.mark.parametrize(('factors', 'expected'), [
    pytest.param({'sem_seg_head.predictor': 2.0}, lambda name: 2.0 if '.predictor.' in name else 1.0, id='a module'),
    pytest.param({'sem_seg_head.predict': 2.0, 'sem_seg_head.predictor': 1.0}, None, id='half a name is none'),
    pytest.param({'*.bias': 3.0}, lambda name: 3.0 if name.endswith('.bias') else 1.0, id='a pattern'),
    pytest.param({'backbone': 0.5, 'backbone.res5': 4.0}, lambda name: 4.0 if name.startswith('backbone.res5.') else
                 0.5 if name.startswith('backbone.') else 1.0, id='the longest counts'),
])
def test_factors_by_name(factors, expected, net):
    if expected is None:
        with pytest.raises(ValueError, match=r"names \['sem_seg_head.predict'\], which fit no trainable tensor"):
            rates(net, paramwise=factors)
        return
    assert rates(net, backbone_multiplier=1.0, paramwise=factors) == {name: expected(name) for name in rates(net)}


def test_the_optimiser_takes_both(net):
    optimizer = build_optimizer(net, {'lr': 1e-3, 'layer_decay': 0.5, 'paramwise': {'backbone.stem': 0.0}})
    expected = rates(net, layer_decay=0.5, paramwise={'backbone.stem': 0.0})
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    assert {names[id(p)]: group['lr'] for group in optimizer.param_groups for p in group['params']} == \
        {name: pytest.approx(1e-3 * rate) for name, rate in expected.items()}


def test_a_training_with_them(tmp_path):
    """Also through the configuration, whose keys may hold dots here."""
    trainer = trainer_for(tmp_path, {'train.max_epochs': 1, 'train.optimizer': {
        'type': 'AdamW', 'lr': 1e-3, 'backbone_multiplier': 1.0, 'layer_decay': 0.5}},
        cfg_options={'train.optimizer.paramwise': {'sem_seg_head.predictor': 2.0}})
    trainer.train()
    assert sorted({group['initial_lr'] for group in trainer.optimizer.param_groups}) == pytest.approx(
        [1e-3 * rate for rate in (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2)])


@pytest.mark.parametrize(('section', 'message'), [
    pytest.param({'layer_decay': 0}, 'layer_decay must be a number above 0 and at most 1; got 0', id='no rate left'),
    pytest.param({'layer_decay': 1.5}, 'layer_decay must be a number', id='rates that grow'),
    pytest.param({'layer_decay': '0.9'}, 'layer_decay must be a number', id='text'),
    pytest.param({'paramwise': ['backbone']}, 'paramwise must be a mapping', id='a list'),
    pytest.param({'paramwise': {'backbone': -1}}, r"paramwise\['backbone'\] must be a factor", id='negative factor'),
    pytest.param({'paramwse': {}}, "unknown key 'paramwse'; did you mean 'paramwise'", id='misspelt'),
])
def test_wrong_values_are_found_before_anything_starts(section, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        trainer_for(tmp_path, {'train.optimizer': {'type': 'AdamW', 'lr': 1e-3, **section}})


WARMUP = {'warmup_iters': 20, 'warmup_ratio': 0.2}


@pytest.mark.parametrize(('schedule', 'after'), [
    pytest.param({'type': 'MultiStepLR', 'milestones': [30, 80], 'gamma': 0.1},
                 {20: 1, 29: 1, 30: 0.1, 79: 0.1, 80: 0.01}, id='multistep'),
    pytest.param({'type': 'PolynomialLR', 'power': 2.0}, {20: 1, 60: 0.25, 100: 0}, id='polynomial'),
    pytest.param({'type': 'PolynomialLR', 'power': 2.0, 'min_factor': 0.2}, {20: 1, 60: 0.4, 100: 0.2},
                 id='polynomial with a least factor'),
    pytest.param({'type': 'CosineAnnealingLR'}, {20: 1, 60: 0.5, 100: 0}, id='cosine'),
    pytest.param({'type': 'CosineAnnealingLR', 'min_factor': 0.01}, {20: 1, 60: 0.505, 100: 0.01},
                 id='cosine with a least factor'),
])
@pytest.mark.parametrize(('warmup', 'before'), [
    pytest.param({}, {0: 0.2, 5: 0.4, 10: 0.6, 19: 0.96}, id='linear by default'),
    pytest.param({'type': 'LinearWarmup'}, {0: 0.2, 5: 0.4, 10: 0.6, 19: 0.96}, id='linear'),
    pytest.param({'type': 'ConstantWarmup'}, {0: 0.2, 10: 0.2, 19: 0.2}, id='constant'),
    pytest.param({'type': 'ExponentialWarmup'}, {0: 0.2, 10: 0.2 ** 0.5, 19: 0.2 ** 0.05}, id='exponential'),
])
def test_warm_up_and_schedule(schedule, after, warmup, before):
    factor = lr_factor({**schedule, 'options': {'by_epoch': False, 'warmup': {**WARMUP, **warmup}}}, 100)
    expected = {**before, **after}
    assert {iteration: factor(iteration) for iteration in expected} == pytest.approx(expected)


def test_a_warm_up_below_one_is_a_share_of_the_training():
    factor = lr_factor({'type': 'ConstantLR', 'options': {'warmup': {'warmup_iters': 0.1, 'warmup_ratio': 0.5}}}, 200)
    assert [factor(done) for done in (0, 10, 19, 20)] == pytest.approx([0.5, 0.75, 0.975, 1])


@pytest.mark.parametrize(('warmup', 'message'), [
    pytest.param({'type': 'SlowWarmup'}, 'known are LinearWarmup, ConstantWarmup, Exponential', id='no such kind'),
    pytest.param({'warmup_iters': 2.5}, 'warmup_iters must be a whole number of iterations', id='broken number'),
    pytest.param({'warmup_iters': -1}, 'warmup_iters must be a whole number of iterations', id='negative'),
    pytest.param({'warmup_iters': 2, 'warmup_ratio': 2}, r'warmup_ratio must lie in \[0, 1\]', id='ratio above one'),
    pytest.param({'type': 'ExponentialWarmup', 'warmup_iters': 2, 'warmup_ratio': 0}, 'above 0 for ExponentialWarmup',
                 id='from nothing, exponentially'),
])
def test_wrong_warm_up(warmup, message):
    with pytest.raises(ValueError, match=message):
        lr_factor({'type': 'ConstantLR', 'options': {'warmup': warmup}}, 100)
