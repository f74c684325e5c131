"""Batches on their way to a device."""
from __future__ import annotations

import pytest
import torch

from modelscope_fastinst.data.collate import collate, to_device
from modelscope_fastinst.structures import Sample, Target


def batch():
    target = Target(torch.tensor([0]), torch.ones(1, 4, 4, dtype=torch.bool))
    return collate([Sample(torch.zeros(3, 4, 4, dtype=torch.uint8), target, image_id=7)])


def test_images_and_targets_move_and_samples_stay():
    before = batch()
    moved = to_device(before, torch.device('meta'))
    assert moved['images'][0].is_meta and moved['targets'][0].masks.is_meta and moved['targets'][0].labels.is_meta
    assert moved['samples'][0] is before['samples'][0]
    assert not before['images'][0].is_meta, 'the loader\'s own batch stays as it is'


def test_what_a_collator_of_the_users_makes_moves_as_well():
    moved = to_device({'images': torch.zeros(2), 'more': (torch.zeros(1), 'name', {'deep': [torch.zeros(1)]})},
                      torch.device('meta'))
    assert moved['images'].is_meta and moved['more'][0].is_meta and moved['more'][2]['deep'][0].is_meta
    assert moved['more'][1] == 'name'


@pytest.mark.skipif(not torch.cuda.is_available(), reason='memory is pinned for CUDA devices only')
def test_a_loader_pins_images_and_targets():
    from torch.utils.data._utils.pin_memory import pin_memory
    pinned = pin_memory(batch())
    assert pinned['images'][0].is_pinned() and pinned['targets'][0].masks.is_pinned()
