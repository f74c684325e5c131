"""What the tests of ``modelscope-fastinst convert`` begin with, and how they look at what it leaves behind."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from tests.golden_cases import load
from tests.plugin.model_folders import SINGLE_IMAGE_CASE
from tests.tiny import model_config


def error_of(capsys) -> str:
    """What a failed command says: one line."""
    captured = capsys.readouterr().err
    lines = [line for line in captured.splitlines() if line.startswith('error: ')]
    assert 'Traceback' not in captured
    assert len(lines) == 1, captured
    return lines[0]


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*'))


def write_configuration(file: Path, **model) -> Path:
    """A configuration of the tiny test network."""
    file.write_text(json.dumps({'framework': 'pytorch', 'task': 'image-segmentation',
                                'pipeline': {'type': 'fast-instance-segmentation'}, 'model': model_config(**model),
                                'preprocessor': {'type': 'fastinst-preprocessor', 'min_size': 64, 'max_size': 96}}),
                    'utf-8')
    return file


def write_golden(folder: Path) -> Path:
    """The weights of a small golden model as the authors' code writes them, and the configuration beside them."""
    case = load(SINGLE_IMAGE_CASE)
    weights = torch.ones(11)
    torch.save({'model': {**case.weights(), 'criterion.empty_weight': weights,
                          'sem_seg_head.predictor.criterion.empty_weight': weights},
                'optimizer': {'state': {0: torch.ones(3)}}, 'iteration': np.int64(368750), '__author__': 'x'},
               folder / 'model_final.pth')
    (folder / 'configuration.json').write_text(json.dumps({
        'framework': 'pytorch', 'task': 'image-segmentation', 'pipeline': {'type': 'fast-instance-segmentation'},
        'model': case.model_config}), 'utf-8')
    return folder


def write_resnet18(folder: Path) -> Path:
    """Weights of torchvision's smallest ResNet, untrained."""
    import torchvision
    torch.manual_seed(0)
    torch.save(torchvision.models.resnet18().state_dict(), folder / 'resnet18.pth')
    return folder / 'resnet18.pth'
