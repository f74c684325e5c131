"""The authors' learning rate and weight decay of every tensor, and their schedule (golden ``optim.npz``)."""
from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from modelscope_fastinst import zoo
from modelscope_fastinst.models.fastinst import build_fastinst
from modelscope_fastinst.plugin.optimizer import build_optimizer, build_scheduler, lr_factor, parameter_settings
from tests.golden_cases import CONFIGS, vectors

TABLE = np.load(vectors('optim.npz'))
CASES = sorted({key.split('/')[0] for key in TABLE if key.endswith('/names')})


def network_of(case: str) -> torch.nn.Module:
    """The published network whose name the case bears, without memory for its weights."""
    with torch.device('meta'):
        return build_fastinst(zoo.configuration(CONFIGS[case])['model'])


def recipe(case: str) -> dict:
    return json.loads(bytes(TABLE[f'{case}/cfg']))


def group_settings(optimizer: torch.optim.Optimizer, net: torch.nn.Module) -> dict[str, tuple[float, float]]:
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    return {names[id(parameter)]: (group['lr'], group['weight_decay'])
            for group in optimizer.param_groups for parameter in group['params']}


@pytest.mark.parametrize('case', [pytest.param(case, id=f'golden-optim-{case}') for case in CASES])
def test_rate_and_decay_of_every_tensor_are_the_authors(case):
    names = json.loads(bytes(TABLE[f'{case}/names']))
    expected = {name: (rate, decay)
                for name, rate, decay in zip(names, TABLE[f'{case}/lr'], TABLE[f'{case}/wd'], strict=True)}
    net = network_of(case)
    settings = group_settings(build_optimizer(net, zoo.configuration(CONFIGS[case])['train']['optimizer']), net)
    assert sorted(settings) == sorted(expected)
    wrong = {name: (settings[name], expected[name]) for name in expected
             if not np.allclose(settings[name], expected[name], rtol=1e-12, atol=0)}
    assert not wrong


def test_optimiser_gives_each_tensor_its_settings_in_few_groups():
    with torch.device('meta'):
        net = build_fastinst({'backbone': {'depth': 18, 'norm': 'BN'}, 'encoder': {'convs_dim': 64},
                              'decoder': {'num_classes': 2, 'hidden_dim': 64, 'dec_layers': 1}})
    optimizer = build_optimizer(net, {'type': 'AdamW', 'lr': 1e-3, 'weight_decay': 0.1, 'backbone_multiplier': 0.5})
    expected = parameter_settings(net, 1e-3, 0.1, backbone_multiplier=0.5)
    assert group_settings(optimizer, net) == expected
    assert len(optimizer.param_groups) == len(set(expected.values())) == 4
    assert expected['backbone.stem.conv1.norm.weight'] == (5e-4, 0.0)


@pytest.mark.parametrize('name', zoo.NAMES)
def test_golden_optim_schedule_of_the_published_configurations(name):
    train = zoo.configuration(name)['train']
    factor = lr_factor(train['lr_scheduler'], train['max_iters'])
    rates = [train['optimizer']['lr'] * factor(int(iteration)) for iteration in TABLE['schedule/iters']]
    np.testing.assert_allclose(rates, TABLE['schedule/head_lr'], rtol=1e-9)


def test_golden_optim_schedule_is_the_authors():
    case = CASES[0]
    factor = lr_factor({'type': 'MultiStepLR', 'milestones': [327778, 355092], 'gamma': recipe(case)['SOLVER.GAMMA'],
                        'options': {'by_epoch': False,
                                    'warmup': {'warmup_iters': recipe(case)['SOLVER.WARMUP_ITERS'],
                                               'warmup_ratio': recipe(case)['SOLVER.WARMUP_FACTOR']}}}, 368750)
    rates = [1e-4 * factor(int(iteration)) for iteration in TABLE['schedule/iters']]
    np.testing.assert_allclose(rates, TABLE['schedule/head_lr'], rtol=1e-9)


@pytest.mark.parametrize(('schedule', 'iterations', 'expected'), [
    pytest.param({'type': 'ConstantLR', 'options': {'warmup': {'warmup_iters': 4, 'warmup_ratio': 0.2}}},
                 [0, 2, 4, 9], [0.2, 0.6, 1, 1], id='warm-up rises linearly'),
    pytest.param({'type': 'MultiStepLR', 'milestones': [0.5, 0.9]}, [49, 50, 89, 90], [1, .1, .1, .01],
                 id='milestones below one are fractions'),
    pytest.param({'type': 'MultiStepLR', 'milestones': [2, 4], 'options': {'by_epoch': True}}, [19, 20, 40],
                 [1, .1, .01], id='milestones in epochs'),
    pytest.param({'type': 'MultiStepLR', 'milestones': [5], 'options': {'by_epoch': True, 'warmup': {
        'warmup_iters': 4, 'warmup_ratio': 0.2}}}, [2, 4, 49, 50], [0.6, 1, 1, .1], id='warm-up always in iterations'),
    pytest.param({'type': 'CosineAnnealingLR', 'min_factor': 0.2, 'options': {'warmup': {'warmup_iters': 20}}},
                 [20, 60, 100, 120], [1, 0.6, 0.2, 0.2], id='cosine ends at its minimum after the warm-up'),
    pytest.param({'type': 'PolynomialLR', 'power': 1.0}, [0, 25, 100], [1, 0.75, 0], id='polynomial'),
])
def test_schedule(schedule, iterations, expected):
    factor = lr_factor(schedule, max_iters=100, iters_per_epoch=10)
    assert [factor(iteration) for iteration in iterations] == pytest.approx(expected)


def test_schedule_counts_iterations_where_steps_gather_several():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scheduler = build_scheduler(optimizer, {'type': 'MultiStepLR', 'milestones': [0.5]}, 12, 12, cumulative_iters=2)
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([1, 1, 1, 0.1])


@pytest.mark.parametrize(('section', 'message'), [
    pytest.param({'type': 'Wonder'}, "'Wonder'", id='no such optimiser'),
    pytest.param({'type': 'AdamW', 'momentum': 0.9}, 'momentum', id='a setting it does not take'),
])
def test_wrong_optimiser_is_an_error(section, message):
    with pytest.raises(ValueError, match=message):
        build_optimizer(torch.nn.Linear(1, 1), section)


@pytest.mark.parametrize(('section', 'message'), [
    pytest.param({'type': 'OneCycleLR'}, 'known are MultiStepLR', id='no such schedule'),
    pytest.param({'type': 'MultiStepLR', 'milestones': [9, 3], 'options': {'by_epoch': True}}, 'ascend',
                 id='milestones that fall'),
    pytest.param({'type': 'MultiStepLR', 'milestones': [8, 11]}, 'add "options": {"by_epoch": true} for epochs',
                 id='milestones that count nobody knows what'),
    pytest.param({'type': 'MultiStepLR'}, 'needs milestones', id='no milestones'),
])
def test_wrong_schedule_is_an_error(section, message):
    with pytest.raises(ValueError, match=message):
        lr_factor(section, 10)


def test_nothing_to_train_is_an_error():
    with pytest.raises(ValueError, match='nothing to train'):
        build_optimizer(torch.nn.Linear(1, 1).requires_grad_(False), {})
