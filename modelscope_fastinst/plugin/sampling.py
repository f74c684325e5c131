"""Which sample comes when, and with which random numbers: the same whatever the number of workers.

A sample is asked for as ``(epoch, index)``. Its augmentation draws from generators seeded with (seed, epoch, index), so
every epoch augments differently and a resumed training sees what the uninterrupted one would have seen.
"""
from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler


class EpochSampler(Sampler):
    """Yields ``(epoch, index)`` over a data set, shuffled by (seed, epoch), this process's share only.

    Args:
        length: number of samples.
        shuffle: in random order; else ascending.
        seed: of the order.
        rank, world_size: this process and how many there are.
        pad: give every process equally many by repeating the first samples (training, where processes step together);
            without it each sample comes exactly once (evaluation).
    """

    def __init__(self, length: int, *, shuffle: bool, seed: int = 0, rank: int = 0, world_size: int = 1,
                 pad: bool = False):
        self.length = length
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.pad = pad
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Says which epoch the next iteration is."""
        self.epoch = epoch

    def _order(self) -> list[int]:
        if self.shuffle:
            generator = torch.Generator().manual_seed(_mix(self.seed, self.epoch))
            order = torch.randperm(self.length, generator=generator).tolist()
        else:
            order = list(range(self.length))
        if self.pad and order and len(order) % self.world_size:
            missing = -len(order) % self.world_size
            order += (order * (missing // len(order) + 1))[:missing]
        return order[self.rank::self.world_size]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter([(self.epoch, index) for index in self._order()])

    def __len__(self) -> int:
        if self.pad:
            return -(-self.length // self.world_size)
        return len(range(self.rank, self.length, self.world_size))


class SeededSamples(Dataset):
    """A data set that is asked for ``(epoch, index)`` and draws every sample from its own seed."""

    def __init__(self, dataset: Any, seed: int):
        self.dataset = dataset
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> Any:
        epoch, index = key
        with seeded(_mix(self.seed, epoch, index)):
            return self.dataset[index]


def build_loader(dataset: Any, section: Mapping[str, Any], collate_fn: Callable, *, training: bool, seed: int,
                 rank: int = 0, world_size: int = 1, sampler: Sampler | None = None) -> DataLoader:
    """The batches of a ``dataloader`` section of the configuration.

    Args:
        dataset: gives samples by index.
        section: ``batch_size_per_gpu``, ``workers_per_gpu``, ``shuffle`` (default: in training),
            ``persistent_workers``; the rest goes to ``torch.utils.data.DataLoader``.
        training: shuffled and padded to the same number of batches in every process, or each sample exactly once.
        sampler: the user's own; samples are then drawn without seeds of their own.
    """
    options = dict(section)
    batch_size, workers = options.pop('batch_size_per_gpu', 1), options.pop('workers_per_gpu', 0)
    shuffle, persistent = options.pop('shuffle', training), options.pop('persistent_workers', True)
    if sampler is None:
        sampler = EpochSampler(len(dataset), shuffle=shuffle, seed=seed, rank=rank, world_size=world_size, pad=training)
        dataset = SeededSamples(dataset, seed)
    # A generator of its own leaves the training's random numbers alone.
    return DataLoader(dataset, batch_size=batch_size, sampler=sampler, num_workers=workers, collate_fn=collate_fn,
                      persistent_workers=persistent and workers > 0, generator=torch.Generator().manual_seed(seed),
                      **options)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within it the CPU generators of torch, numpy and random start from ``seed``; after it they go on as before."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2 ** 32)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


def rng_state() -> dict:
    """The state of all random generators of this process, as tensors and plain numbers (``weights_only`` loads it)."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    return {'torch': torch.get_rng_state(),
            'numpy': [kind, torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(gauss)],
            'random': random.getstate(),
            'cuda': torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def set_rng_state(state: dict) -> None:
    """Puts back what ``rng_state`` gave."""
    torch.set_rng_state(state['torch'])
    kind, keys, position, has_gauss, gauss = state['numpy']
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    version, internal, gauss_next = state['random']
    random.setstate((version, tuple(internal), gauss_next))
    if state['cuda'] and torch.cuda.device_count() == len(state['cuda']):
        torch.cuda.set_rng_state_all(state['cuda'])


def _mix(*numbers: int) -> int:
    """One 63-bit seed out of several numbers."""
    return int(np.random.SeedSequence([int(n) % 2 ** 63 for n in numbers]).generate_state(1, np.uint64)[0] >> 1)
