"""Order and random numbers of the samples."""
from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch.utils.data import RandomSampler, WeightedRandomSampler

from modelscope_fastinst.plugin.sampling import (
    EpochSampler,
    begin_epoch,
    build_loader,
    rng_state,
    seeded,
    set_rng_state,
)


class Dice:
    """Samples that are nothing but random numbers of all three generators."""

    def __init__(self, length=8):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return index, torch.rand(()).item(), np.random.rand(), random.random()


def throws(workers, epochs=2, seed=3, **options):
    loader = build_loader(Dice(), {'batch_size_per_gpu': 3, 'workers_per_gpu': workers, **options}, list, training=True,
                          seed=seed)
    found = []
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        found.append([sample for batch in loader for sample in batch])
    return found


@pytest.mark.parametrize('workers', [pytest.param(0, id='no worker'), pytest.param(1, id='one worker'),
                                     pytest.param(2, id='two workers')])
def test_every_epoch_has_an_order_and_random_numbers_of_its_own(workers):
    first, second = throws(workers)
    assert sorted(index for index, *_ in first) == sorted(index for index, *_ in second) == list(range(8))
    assert [index for index, *_ in first] != [index for index, *_ in second]
    numbers = [number for epoch in (first, second) for _, *numbers in epoch for number in numbers]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize('sampler', [
    pytest.param(WeightedRandomSampler([1.0] * 8, 8), id='weighted'),
    pytest.param(RandomSampler(range(8)), id='random')])
def test_a_samplers_order_follows_from_seed_epoch_and_process(sampler):
    """Then an epoch that is begun again, by a resumed training, has the samples that it had."""
    def orders(rank, seed=3):
        loader = build_loader(Dice(), {'batch_size_per_gpu': 2}, list, training=True, seed=seed, rank=rank,
                              world_size=2, sampler=sampler)
        found = []
        for epoch in (0, 1, 0):
            begin_epoch(loader, epoch)
            found.append([index for batch in loader for index, *_ in batch])
        return found

    torch.manual_seed(1)
    first, second, again = orders(0)
    assert torch.equal(torch.rand(2), torch.rand(2, generator=torch.Generator().manual_seed(1)))
    assert first == again != second
    assert orders(0) == [first, second, first]
    assert first not in orders(1) and first not in orders(0, seed=4)


def test_samples_depend_on_the_seed_and_not_on_the_workers():
    assert throws(0) == throws(1) == throws(2) == throws(2, persistent_workers=False)
    assert throws(0) != throws(0, seed=4)


def test_drawing_samples_leaves_the_generators_of_the_training_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    throws(0)
    throws(2)
    assert torch.equal(torch.rand(3), expected)


def test_order_without_shuffling():
    loader = build_loader(Dice(5), {'batch_size_per_gpu': 2}, list, training=False, seed=0)
    assert [index for batch in loader for index, *_ in batch] == [0, 1, 2, 3, 4]
    assert len(loader) == 3


@pytest.mark.parametrize(('length', 'processes'), [
    pytest.param(8, 2, id='even'), pytest.param(7, 2, id='one short'), pytest.param(1, 3, id='fewer than processes')])
def test_evaluation_shares_each_sample_exactly_once(length, processes):
    samplers = [EpochSampler(length, shuffle=False, rank=rank, world_size=processes) for rank in range(processes)]
    assert sorted(index for sampler in samplers for _, index in sampler) == list(range(length))
    assert all(len(list(sampler)) == len(sampler) for sampler in samplers)


def test_training_gives_every_process_equally_many():
    samplers = [EpochSampler(7, shuffle=True, seed=1, rank=rank, world_size=3, pad=True) for rank in range(3)]
    drawn = [[index for _, index in sampler] for sampler in samplers]
    assert [len(indices) for indices in drawn] == [len(sampler) for sampler in samplers] == [3, 3, 3]
    assert set(sum(drawn, [])) == set(range(7))


def test_state_of_the_generators_is_kept_in_plain_data(tmp_path):
    torch.save(rng_state(), tmp_path / 'state.pth')
    expected = torch.rand(()).item(), np.random.randn(), random.gauss(0, 1)
    set_rng_state(torch.load(tmp_path / 'state.pth', weights_only=True))
    assert (torch.rand(()).item(), np.random.randn(), random.gauss(0, 1)) == expected


def test_seeded_puts_the_generators_back_after_an_error():
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    with pytest.raises(KeyError), seeded(1):
        raise KeyError
    assert torch.equal(torch.rand(2), expected)
