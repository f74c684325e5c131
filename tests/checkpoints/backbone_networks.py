"""Networks of which only the backbone is built, and what must hold of weights that were loaded into one."""
from __future__ import annotations

import torch

from modelscope_fastinst import zoo
from modelscope_fastinst.checkpoints.reading import read_weights
from modelscope_fastinst.models.fastinst import build_fastinst
from tests.tiny import model_config


class Backbone(torch.nn.Module):
    """A network of which only the backbone is built."""

    def __init__(self, **config):
        super().__init__()
        full = model_config(backbone=config)
        full['backbone'] = config
        full['encoder'] = {**full['encoder'], 'in_features': config.get('out_features', ['res3', 'res4', 'res5'])}
        self.backbone = build_fastinst(full).backbone


def published(name: str) -> Backbone:
    return Backbone(**zoo.configuration(name)['model']['backbone'])


def trained(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """With statistics and scales in its batch norms, as after a training: fresh ones hide what is mixed up."""
    random = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.0, generator=random)
            module.bias.data.uniform_(-0.1, 0.1, generator=random)
            module.running_mean.uniform_(-0.1, 0.1, generator=random)
            module.running_var.uniform_(0.8, 1.2, generator=random)
            module.num_batches_tracked.fill_(7)
    return model.eval()


def assert_accounted_for(conversion, file, network):
    """Every key of the file and of the backbone is in one list, and once."""
    assert conversion.mapping.keys() | conversion.unused.keys() == read_weights(file).state.keys()
    assert not conversion.mapping.keys() & conversion.unused.keys()
    targets = [*conversion.mapping.values(), *conversion.new]
    assert sorted(targets) == sorted(f'backbone.{key}' for key in network.backbone.state_dict())
