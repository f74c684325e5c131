"""Which sample comes when, and with which random numbers: the same whatever the number of workers.

A sample is asked for as ``(epoch, index)``. Its augmentation draws from generators seeded with (seed, epoch, index), so
every epoch augments differently and a resumed training sees what the uninterrupted one would have seen.
"""
from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
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
        self.epoch = self.first = 0

    def set_epoch(self, epoch: int, first: int = 0) -> None:
        """Says which epoch the next iteration is, and how many of its samples it leaves out."""
        self.epoch, self.first = epoch, first

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
        return iter([(self.epoch, index) for index in self._order()[self.first:]])

    def __len__(self) -> int:
        if self.pad:
            return -(-self.length // self.world_size)
        return len(range(self.rank, self.length, self.world_size))


class KeyedSampler(Sampler):
    """Yields the indices of a user's sampler as ``(epoch, index)``, so that their samples have seeds as well.

    An index that comes again within an epoch gets a third number, which counts: it is to be augmented differently.

    What it draws from the generators that all share (torch's, numpy's, ``random``'s) follows from the seed and the
    epoch, so that a training that is resumed within an epoch goes on with the samples of that epoch. A generator of the
    sampler's own starts anew in a resumed training.

    Args:
        sampler: yields indices; it is told the epoch if it has ``set_epoch``.
        seed: of this process's order.
    """

    def __init__(self, sampler: Sampler, seed: int = 0):
        self.sampler = sampler
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Says which epoch the next iteration is."""
        self.epoch = epoch
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        seen: Counter[int] = Counter()
        with seeded(_mix(self.seed, self.epoch)):
            indices = list(itertools.islice(self.sampler, len(self.sampler)))
        for index in indices:
            key = int(index)
            yield (self.epoch, key, seen[key]) if seen[key] else (self.epoch, key)
            seen[key] += 1

    def __len__(self) -> int:
        return len(self.sampler)


class GroupedBatches(Sampler):
    """Yields batches of ``(pass, index)`` whose images are all wider than high, or all not (aspect-ratio grouping).

    As detectron2's ``AspectRatioGroupedDataset`` behind its ``TrainingSampler``: the samples come in one endless
    stream, pass after pass over the data set, each pass shuffled by (seed, pass); every process takes its share of it
    and sorts that into two buckets, by the images' own sizes, before augmentation. A full bucket is a batch. What does
    not fill one waits for the next pass, so every batch is full and no sample is left out. An epoch is as many batches
    as without grouping, and its batches follow from the seed and the epoch alone.

    Args:
        sizes: (height, width) of each image.
        batch_size: of one process.
        shuffle, seed, rank, world_size: as in ``EpochSampler``.
        drop_last: an epoch has no batch for a remainder of the data set.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], batch_size: int, *, shuffle: bool = True, seed: int = 0,
                 rank: int = 0, world_size: int = 1, drop_last: bool = False):
        self._wide = [width > height for height, width in sizes]
        self.batch_size = batch_size
        self._order = EpochSampler(len(self._wide), shuffle=shuffle, seed=seed)
        self._share = rank, world_size
        share = -(-len(self._wide) // world_size)
        self._batches = share // batch_size if drop_last else -(-share // batch_size)
        self.epoch = self.first = 0
        self._number = -1   # of the batch that the stream gave last
        self._stream: Iterator[list[tuple[int, int]]] = iter(())
        self._batch: list[tuple[int, int]] = []

    def set_epoch(self, epoch: int, first: int = 0) -> None:
        """Says which epoch the next iteration is, and how many of its batches it leaves out."""
        self.epoch, self.first = epoch, first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        start = self.epoch * len(self)
        for number in range(start + self.first, start + len(self)):
            yield self._batch_at(number)

    def __len__(self) -> int:
        return self._batches

    def _batch_at(self, number: int) -> list[tuple[int, int]]:
        """Batch ``number`` of the stream, which runs on from where it is, or from its beginning."""
        if number < self._number or self._number < 0:
            self._stream, self._number = self._run(), -1
        while self._number < number:
            self._batch = next(self._stream)
            self._number += 1
        return self._batch

    def _run(self) -> Iterator[list[tuple[int, int]]]:
        rank, world_size = self._share
        buckets: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
        samples = (key for number in itertools.count() for key in self._pass(number))
        for key in itertools.islice(samples, rank, None, world_size):
            bucket = buckets[self._wide[key[1]]]
            bucket.append(key)
            if len(bucket) == self.batch_size:
                yield bucket[:]
                bucket.clear()

    def _pass(self, number: int) -> Iterator[tuple[int, int]]:
        self._order.set_epoch(number)
        return iter(self._order)


def begin_epoch(loader: DataLoader, epoch: int, done: int = 0) -> int:
    """Tells a loader's sampler which epoch comes next, so that each has an order and an augmentation of its own.

    Args:
        loader: its sampler is one of this module's, or another with or without ``set_epoch``.
        epoch: counted from 0.
        done: how many of the epoch's batches a resumed training has had.

    Returns:
        How many of these the loader leaves out; the others it gives, and the caller skips them.
    """
    if isinstance(loader.batch_sampler, GroupedBatches):
        loader.batch_sampler.set_epoch(epoch, done)
        return done
    if isinstance(loader.sampler, EpochSampler):
        loader.sampler.set_epoch(epoch, done * loader.batch_size)
        return done
    if hasattr(loader.sampler, 'set_epoch'):
        loader.sampler.set_epoch(epoch)
    return 0


class SeededSamples(Dataset):
    """A data set that is asked for ``(epoch, index)`` and draws every sample from its own seed.

    The seed holds for the generators that a data set shares with others: torch's on the CPU, numpy's, ``random``'s and
    OpenCV's. One that a data set or a transform makes for itself is its own affair (and so is the one inside of
    ``PIL.Image.effect_noise``, which nobody can seed).
    """

    def __init__(self, dataset: Any, seed: int):
        self.dataset = dataset
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, ...]) -> Any:
        with seeded(_mix(self.seed, *key)):
            return self.dataset[key[1]]


def build_loader(dataset: Any, section: Mapping[str, Any], collate_fn: Callable, *, training: bool, seed: int,
                 rank: int = 0, world_size: int = 1, sampler: Sampler | None = None) -> DataLoader:
    """The batches of a ``dataloader`` section of the configuration.

    Args:
        dataset: gives samples by index.
        section: ``batch_size_per_gpu``, ``workers_per_gpu``, ``shuffle`` (default: in training),
            ``persistent_workers``, ``aspect_ratio_grouping`` (then the data set has ``sizes``); the rest goes to
            ``torch.utils.data.DataLoader``.
        training: shuffled and padded to the same number of batches in every process, or each sample exactly once.
        sampler: the user's own; its samples have seeds of their own as well.

    Raises:
        ValueError: grouping of a data set that does not say its images' sizes, or with a sampler of the user's.
    """
    options = dict(section)
    batch_size, workers = options.pop('batch_size_per_gpu', 1), options.pop('workers_per_gpu', 0)
    shuffle, persistent = options.pop('shuffle', training), options.pop('persistent_workers', True)
    batches = None
    if options.pop('aspect_ratio_grouping', False):
        batches = GroupedBatches(_sizes(dataset, sampler), batch_size, shuffle=shuffle, seed=seed, rank=rank,
                                 world_size=world_size, drop_last=options.pop('drop_last', False))
        dataset = SeededSamples(dataset, seed)
    else:
        sampler = EpochSampler(len(dataset), shuffle=shuffle, seed=seed, rank=rank, world_size=world_size,
                               pad=training) if sampler is None else KeyedSampler(sampler, _mix(seed, rank))
        dataset = SeededSamples(dataset, seed)
    # From pinned memory a batch goes to the GPU while the host prepares the step.
    options.setdefault('pin_memory', training and torch.cuda.is_available())
    # A generator of its own leaves the training's random numbers alone.
    order = {'batch_sampler': batches} if batches is not None else {'batch_size': batch_size, 'sampler': sampler}
    return DataLoader(dataset, **order, num_workers=workers, collate_fn=collate_fn,
                      persistent_workers=persistent and workers > 0, generator=torch.Generator().manual_seed(seed),
                      **options)


def _sizes(dataset: Any, sampler: Any) -> Sequence[tuple[int, int]]:
    if sampler is not None:
        raise ValueError('train.dataloader.aspect_ratio_grouping makes the batches itself: leave out samplers=, or '
                         'switch the grouping off')
    sizes = getattr(dataset, 'sizes', None)
    if sizes is None or len(sizes) != len(dataset):
        raise ValueError('train.dataloader.aspect_ratio_grouping needs to know which images are wider than high: give '
                         'the training set an attribute `sizes`, a list of (height, width), or switch the grouping off')
    return sizes


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within it the CPU generators of torch, numpy and random start from ``seed``; after it they go on as before.

    OpenCV's starts from it as well; its state cannot be asked for and so is not put back.
    """
    import cv2
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2 ** 32)
    random.seed(seed)
    cv2.setRNGSeed(seed % 2 ** 31)
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
