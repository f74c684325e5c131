"""The five published models: their configurations."""
from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from modelscope_fastinst import zoo
from modelscope_fastinst.cli import main
from modelscope_fastinst.data.geometry import resized_size
from modelscope_fastinst.models.complexity import count_multiply_adds
from modelscope_fastinst.models.fastinst import build_fastinst

# Of the table in the authors' README; GFLOPs there are billions of multiply-adds.
PUBLISHED = [
    pytest.param('fastinst_d1_r50', 1, (576, 777), 30, 49.6, id='D1 R50'),
    pytest.param('fastinst_d3_r50', 3, (640, 853), 34, 75.5, id='D3 R50'),
    pytest.param('fastinst_d3_r101', 3, (640, 853), 53, 112.9, id='D3 R101'),
    pytest.param('fastinst_d1_r50d_dcn', 1, (576, 777), 30, None, id='D1 R50-d-DCN'),
    pytest.param('fastinst_d3_r50d_dcn', 3, (640, 853), 35, None, id='D3 R50-d-DCN'),
]


@pytest.mark.parametrize(('name', 'layers', 'sizes', 'millions', 'gflops'), PUBLISHED)
def test_the_configuration_is_the_published_model(name, layers, sizes, millions, gflops):
    configuration = zoo.configuration(name)
    with torch.device('meta'):
        network = build_fastinst(configuration['model'])
    preprocessor = configuration['preprocessor']
    assert (preprocessor['min_size'], preprocessor['max_size']) == sizes
    assert configuration['model']['decoder']['dec_layers'] == layers
    assert len(set(configuration['model']['classes'])) == network.num_classes == 80
    assert round(sum(p.numel() for p in network.parameters()) / 1e6) == millions


@pytest.mark.parametrize(('name', 'layers', 'sizes', 'millions', 'gflops'),
                         [case for case in PUBLISHED if case.values[-1]])
def test_info_counts_what_was_published(name, layers, sizes, millions, gflops, capsys):
    assert main(['info', name]) == 0
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if ' ' in line)
    assert float(rows['parameters'].split()[0]) == pytest.approx(millions, abs=0.5)
    # The authors' figure is an average over COCO's validation pictures, ours of the two commonest sizes.
    assert float(rows['GFLOPs'].split()[0]) == pytest.approx(gflops, rel=0.04)


@pytest.mark.parametrize(('name', 'counted'), [
    pytest.param('fastinst_d1_r50', 51.72, id='D1 R50'), pytest.param('fastinst_d3_r50', 81.95, id='D3 R50'),
    pytest.param('fastinst_d3_r101', 122.86, id='D3 R101'), pytest.param('fastinst_d1_r50d_dcn', 54.37, id='D1 DCN'),
    pytest.param('fastinst_d3_r50d_dcn', 85.27, id='D3 DCN'),
])
def test_the_count_of_a_picture_of_640x480(name, counted):
    configuration = zoo.configuration(name)
    sizes = configuration['preprocessor']['min_size'], configuration['preprocessor']['max_size']
    with torch.device('meta'):
        network = build_fastinst(configuration['model'])
    assert count_multiply_adds(network, *resized_size(480, 640, *sizes)) / 1e9 == pytest.approx(counted, abs=0.01)


def test_deformable_convolutions_are_counted():
    # Both networks multiply the same numbers but for the 18 offset channels of nine 3x3 convolutions.
    with torch.device('meta'):
        backbone = {**zoo.configuration('fastinst_d1_r50d_dcn')['model'], 'classes': None}
        deformable = build_fastinst(backbone)
        backbone['backbone'] = {**backbone['backbone'], 'deform_stages': []}
        ordinary = build_fastinst(backbone)
    stage_3, stage_4 = 6 * 256 * 16 * 16, 3 * 512 * 8 * 8   # blocks, channels and map size at strides 16 and 32
    offsets = 9 * 18 * (stage_3 + stage_4)
    assert count_multiply_adds(deformable, 256, 256) - count_multiply_adds(ordinary, 256, 256) == offsets


def test_recipes_differ_in_the_backbone_weights_only():
    recipes = []
    for name in zoo.NAMES:
        configuration = zoo.configuration(name)
        weights = configuration['train'].pop('backbone_weights')
        assert ('resnet50d' if 'r50d' in name else f'ResNet{re.search("r([0-9]+)", name)[1]}_') in weights
        recipes.append((configuration['train'], configuration['evaluation'], configuration['preprocessor']['train']))
    assert all(recipe == recipes[0] for recipe in recipes)


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="'fastinst_d2' is none of the published models; these are fastinst_d1_r50, "):
        zoo.configuration_file('fastinst_d2')


def test_a_file_is_found_before_a_published_model_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert zoo.find('fastinst_d1_r50') == zoo.configuration_file('fastinst_d1_r50')
    (tmp_path / 'fastinst_d1_r50').write_text('{}', 'utf-8')
    assert zoo.find('fastinst_d1_r50') == Path('fastinst_d1_r50')


def test_what_is_neither_a_file_nor_a_published_model_is_answered_with_the_known_names():
    with pytest.raises(ValueError, match='^fastinst_d2: no such configuration file, nor one of fastinst_d1_r50, '):
        zoo.find('fastinst_d2')


@pytest.mark.parametrize('name', zoo.NAMES)
def test_the_trainer_knows_every_key(name):
    from modelscope_fastinst.plugin.trainer_keys import check_keys
    check_keys(zoo.configuration(name), name)
