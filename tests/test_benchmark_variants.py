"""The table of variants: the named are the networks that they say, and the script makes the table."""
from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from modelscope_fastinst import zoo
from modelscope_fastinst.models.build import build_network

SCRIPT = Path(__file__).resolve().parents[1] / 'benchmarks' / 'variants.py'
TINY = ['--size', '64', '64', '--depth', '18', '--width', '32', '--queries', '5', '--classes', '3', '--objects', '2',
        '--points', '16', '--rounds', '1', '--train-rounds', '1']


@pytest.fixture(scope='module')
def script():
    spec = importlib.util.spec_from_file_location('benchmark_variants', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_script_measures_what_it_is_asked_for(script, capsys):
    threads = torch.get_num_threads()
    try:
        script.main([*TINY, '--decoders', 'masked attention', '--pixel-decoders', 'PPM-FPN', '--format', 'json'])
    finally:
        torch.set_num_threads(threads)
    rows = json.loads(capsys.readouterr().out)['variants']
    assert [(row['pixel_decoder'], row['decoder'], row['queries']) for row in rows] == [
        ('PPM-FPN', 'masked attention', 'activation-guided'), ('PPM-FPN', 'masked attention', 'static')]
    assert rows[0]['parameters_m'] > rows[1]['parameters_m'] > 0
    for row in rows:
        assert row['gflops'] > 0
        assert all(row[kind]['ms'] > 0 and row[kind]['ratio'] > 0
                   for kind in ('inference', 'training', 'training_guided'))
    table = script.markdown(rows).splitlines()
    assert 'training step, ms | with guidance, ms' in table[0]
    assert len(table) == 2 + len(rows)
    assert {line.count('|') for line in table} == {10}


def test_every_combination_is_a_variant(script):
    assert len(set(script.VARIANTS)) == 12
    assert set(script.NAMES) < set(script.VARIANTS)


@pytest.mark.parametrize('variant, config', [
    pytest.param(('PPM-FPN', 'dual path', 'activation-guided'), 'fastinst_d3_r50', id='FastInst-D3'),
    pytest.param(('MSDeformAttn', 'masked attention', 'static'), 'mask2former_coco_instance_r50', id='Mask2Former'),
])
def test_the_variants_with_a_name_are_the_published_networks(script, monkeypatch, variant, config):
    monkeypatch.setattr(script, 'measure', lambda options: [options])
    monkeypatch.setattr(script, 'markdown', lambda rows: options.extend(rows))
    options = []
    script.main([])
    with torch.device('meta'):
        own = build_network(script.model_section(variant, options[0]))
        published = build_network(zoo.configuration(config)['model'])
    assert {key: value.shape for key, value in own.state_dict().items()} == \
        {key: value.shape for key, value in published.state_dict().items()}
    assert script.NAMES[variant]
