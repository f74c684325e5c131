"""How often a training step waits for the device: on a GPU each time costs the host its lead over the device.

A CPU has no device to wait for, so what is counted is what would wait on a GPU: operations whose result's size or value
the host must know, and calls that bring a tensor's values to the host.
"""
from __future__ import annotations

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from modelscope_fastinst.objective import objects
from modelscope_fastinst.plugin.model import FastInstModel
from modelscope_fastinst.structures import Target
from tests.variants import variant_config

_VALUE_ASKED = {'_local_scalar_dense', 'nonzero', 'masked_select', 'is_nonzero', 'equal', 'repeat_interleave',
                'unique_consecutive', '_unique2', 'item'}
_TO_HOST = {'cpu', 'tolist', 'item', '__bool__', '__float__', '__int__', '__index__', '__contains__', 'nonzero'}


class Operations(TorchDispatchMode):
    """Collects the operations that a GPU would be waited for."""

    def __init__(self):
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        indices = args[1] if name in ('index', 'index_put_', 'index_put', '_index_put_impl_') else ()
        by_mask = any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)
        if name in _VALUE_ASKED or by_mask:
            self.waits.append(name)
        return func(*args, **(kwargs or {}))


class Calls(TorchFunctionMode):
    """Collects the calls that bring values to the host; on a CPU they never become operations."""

    def __init__(self):
        super().__init__()
        self.waits: list[str] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, '__name__', '')
        asked = (*args[1:], *(kwargs or {}).values()) if name == 'to' else ()
        if name in _TO_HOST or any(isinstance(value, str) and value == 'cpu' for value in asked):
            self.waits.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize('variant, waits_per_step', [
    # Matching costs of the guided pass, matching costs of everything else, losses for the log.
    pytest.param(('ppm-fpn', 'dual', 'activation-guided', True), 3, id='FastInst'),
    pytest.param(('msdeformattn', 'masked-attention', 'static', False), 2, id='Mask2Former, without a guided pass'),
    pytest.param(('msdeformattn', 'masked-attention', 'activation-guided', True), 3, id='Mask2Former with all of it'),
])
def test_a_training_step_waits_for_the_device_as_often_as_it_matches_and_logs(variant, waits_per_step, monkeypatch):
    torch.manual_seed(0)
    config = variant_config(*variant)
    model = FastInstModel(**{key: value for key, value in config.items() if key != 'type'}).train()
    masks = torch.zeros(3, 64, 64, dtype=torch.bool)
    masks[:, 8:40, 8:40] = True
    targets = [Target(torch.tensor([0, 1, 2]), masks), Target(torch.zeros(0, dtype=torch.int64), masks[:0, :60, :40]),
               Target(torch.tensor([1]), masks[:1, :33])]
    images = [torch.randint(0, 256, (3, *target.masks.shape[1:]), dtype=torch.uint8) for target in targets]
    # On a CPU costs are on the host already; here they are fetched all the same, as they would be from a GPU.
    transfers = []
    original = objects.to_host

    def counted(tensors):
        transfers.append('to_host')
        return original(tensors)
    monkeypatch.setattr('modelscope_fastinst.objective.criterion.to_host', counted)
    monkeypatch.setattr('modelscope_fastinst.objective.matcher.to_host', counted)

    with Calls() as calls, Operations() as operations:
        model(images, targets)['loss'].backward()
    waits = transfers + calls.waits + operations.waits
    assert len(waits) == waits_per_step, waits
