"""Backbones as torchvision and timm build them, with the statistics of a training."""
from __future__ import annotations

import pytest

from tests.checkpoints.backbone_networks import trained


@pytest.fixture(scope='module')
def resnet50():
    import torchvision
    return trained(torchvision.models.resnet50())


@pytest.fixture(scope='module')
def resnet101():
    import torchvision
    return trained(torchvision.models.resnet101())


@pytest.fixture(scope='module')
def resnet50d():
    import timm
    return trained(timm.create_model('resnet50d'))
