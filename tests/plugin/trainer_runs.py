"""Small trainings for tests: a thin network on procedural shapes."""
from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from modelscope.trainers import build_trainer

from modelscope_fastinst.data.shapes import ShapesDataset

CONFIGURATION: dict[str, Any] = {
    'framework': 'pytorch', 'task': 'image-segmentation', 'pipeline': {'type': 'fast-instance-segmentation'},
    'model': {
        'type': 'fastinst', 'pretrained': False,
        'backbone': {'depth': 18, 'norm': 'BN', 'out_features': ['res3', 'res4', 'res5'], 'stem_out_channels': 16,
                     'res2_out_channels': 16},
        'encoder': {'in_features': ['res3', 'res4', 'res5'], 'convs_dim': 32, 'mask_dim': 32, 'norm': 'GN'},
        'decoder': {'hidden_dim': 32, 'num_queries': 8, 'num_aux_queries': 2, 'nheads': 4, 'dim_feedforward': 64,
                    'dec_layers': 1, 'mask_dim': 32},
        'criterion': {'num_points': 128}},
    'preprocessor': {'type': 'fastinst-preprocessor', 'min_size': 64, 'max_size': 64,
                     'train': {'min_sizes': [64], 'max_size': 64, 'crop': None, 'flip': 0.5}},
    'train': {'max_epochs': 2, 'dataloader': {'batch_size_per_gpu': 2, 'workers_per_gpu': 0},
              'optimizer': {'type': 'AdamW', 'lr': 2e-3, 'weight_decay': 0.01, 'backbone_multiplier': 1.0},
              'lr_scheduler': {'type': 'CosineAnnealingLR', 'options': {'warmup': {'warmup_iters': 2}}},
              'logging': {'interval': 1, 'curves': False}},
    'evaluation': {'report': False}}


def configuration(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """The configuration above with changes by dotted key; None removes a key."""
    cfg = copy.deepcopy(CONFIGURATION)
    for path, value in (changes or {}).items():
        *sections, key = path.split('.')
        section = cfg
        for name in sections:
            section = section.setdefault(name, {})
        if value is None:
            section.pop(key, None)
        else:
            section[key] = copy.deepcopy(value)
    return cfg


def write_configuration(folder: Path, changes: dict[str, Any] | None = None) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / 'configuration.json'
    file.write_text(json.dumps(configuration(changes)), encoding='utf-8')
    return str(file)


def shapes(count: int = 4, **options: Any) -> ShapesDataset:
    return ShapesDataset(count, **{'size': 64, 'num_classes': 2, 'seed': 1, 'objects': (2, 3), 'radius': (0.2, 0.3),
                                   **options})


def trainer_for(folder: Path, changes: dict[str, Any] | None = None, **arguments: Any) -> Any:
    """A trainer that starts from random weights and writes into ``folder/work``."""
    arguments.setdefault('train_dataset', shapes())
    return build_trainer('fastinst-trainer', default_args={
        'cfg_file': write_configuration(folder, changes), 'work_dir': str(folder / 'work'), 'device': 'cpu',
        **arguments})


def weights(trainer: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}


def assert_equal_weights(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert list(actual) == list(expected)
    different = [name for name in expected if not torch.equal(actual[name], expected[name])]
    assert not different


def log_lines(folder: Path, mode: str = 'train') -> list[dict]:
    with open(folder / 'work' / 'log.jsonl', encoding='utf-8') as lines:
        return [record for record in map(json.loads, lines) if record['mode'] == mode]
