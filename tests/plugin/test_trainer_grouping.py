"""Aspect-ratio grouping: batches of images that are all wider than high, or all not."""
from __future__ import annotations

import itertools

import pytest
from modelscope.trainers.hooks.hook import Hook
from torch.utils.data import Dataset, SequentialSampler

from modelscope_fastinst.plugin.dataset import open_dataset
from modelscope_fastinst.plugin.sampling import EpochSampler, GroupedBatches, begin_epoch, build_loader

from .trainer_runs import assert_equal_weights, shapes, trainer_for, weights

WIDE, HIGH, SQUARE = (30, 40), (40, 30), (30, 30)
SIZES = [WIDE] * 9 + [HIGH] * 3 + [SQUARE] * 2


def epochs(count=6, sizes=SIZES, batch_size=4, **options):
    """The batches of the first epochs."""
    sampler = GroupedBatches(sizes, batch_size, seed=3, **options)
    found = []
    for epoch in range(count):
        sampler.set_epoch(epoch)
        found.append(list(sampler))
        assert len(found[-1]) == len(sampler)
    return found


def passes(count, rank=0, world_size=1):
    """One process's share of the samples, pass after pass over the data set."""
    sampler = EpochSampler(len(SIZES), shuffle=True, seed=3)
    stream = []
    for number in range(count):
        sampler.set_epoch(number)
        stream += sampler
    return stream[rank::world_size]


def is_wide(key):
    height, width = SIZES[key[1]]
    return width > height


def test_a_batch_is_full_and_of_one_orientation():
    for batch in itertools.chain.from_iterable(epochs()):
        assert len(batch) == 4
        assert len({is_wide(key) for key in batch}) == 1


def test_square_images_go_with_the_high_ones():
    found = epochs(count=20)
    mixed = {frozenset(SIZES[index] for _, index in batch) for batch in itertools.chain.from_iterable(found)}
    assert {WIDE, SQUARE} not in mixed and {HIGH, SQUARE} in mixed


@pytest.mark.parametrize('processes', [pytest.param(1, id='one process'), pytest.param(3, id='three processes')])
def test_no_sample_is_left_out_or_comes_early(processes):
    """Each orientation's samples come in the order of the shuffled passes; what does not fill a batch waits."""
    for rank in range(processes):
        drawn = [key for epoch in epochs(rank=rank, world_size=processes) for batch in epoch for key in batch]
        stream = passes(20, rank, processes)
        for wide in (True, False):
            ours = [key for key in drawn if is_wide(key) == wide]
            assert len(ours) > 4
            assert ours == [key for key in stream if is_wide(key) == wide][:len(ours)]


def test_processes_share_each_pass():
    shares = [{key for epoch in epochs(rank=rank, world_size=2) for batch in epoch for key in batch}
              for rank in range(2)]
    assert not shares[0] & shares[1]
    assert {index for number, index in shares[0] | shares[1] if number == 0} == set(range(len(SIZES)))


def test_order_follows_from_seed_and_epoch():
    assert epochs() == epochs()
    first, second, *_ = epochs()
    assert [[index for _, index in batch] for batch in first] != [[index for _, index in batch] for batch in second]


@pytest.mark.parametrize(('epoch', 'first'), [pytest.param(3, 0, id='another epoch'), pytest.param(2, 1, id='within'),
                                              pytest.param(0, 0, id='back to the beginning')])
def test_an_epoch_is_the_same_without_the_ones_before(epoch, first):
    sampler = GroupedBatches(SIZES, 4, seed=3)
    sampler.set_epoch(1)
    next(iter(sampler))
    sampler.set_epoch(epoch, first)
    assert list(sampler) == epochs()[epoch][first:]


def test_two_iterations_at_once_do_not_disturb_each_other():
    sampler = GroupedBatches(SIZES, 4, seed=3)
    pairs = list(zip(iter(sampler), iter(sampler), strict=True))
    assert [one for one, _ in pairs] == [other for _, other in pairs] == epochs()[0]


class Sized(Dataset):
    """Samples that are their own index; says their sizes."""

    def __init__(self, sizes=tuple(SIZES)):
        self.sizes = list(sizes)

    def __len__(self):
        return len(self.sizes)

    def __getitem__(self, index):
        return index


def loader(dataset=None, grouped=True, sampler=None, **section):
    return build_loader(Sized() if dataset is None else dataset, {'batch_size_per_gpu': 4, **section,
                                                                  'aspect_ratio_grouping': grouped},
                        list, training=True, seed=3, sampler=sampler)


@pytest.mark.parametrize('drop_last', [pytest.param(True, id='drop_last'), pytest.param(False, id='all')])
@pytest.mark.parametrize('count', [3, 4, 13, 14, 16])
def test_an_epoch_is_as_long_as_without_grouping(count, drop_last):
    data = Sized(SIZES[:count])
    assert len(loader(data, drop_last=drop_last)) == len(loader(data, grouped=False, drop_last=drop_last))


def test_fewer_images_than_a_batch_come_more_than_once():
    assert [sorted(index for _, index in batch) for batch in epochs(1, [WIDE] * 3, 4)[0]] in (
        [[0, 0, 1, 2]], [[0, 1, 1, 2]], [[0, 1, 2, 2]])


@pytest.mark.parametrize('workers', [pytest.param(1, id='one worker'), pytest.param(2, id='two workers')])
def test_batches_do_not_depend_on_the_workers(workers):
    drawn = []
    for batches in (loader(), loader(workers_per_gpu=workers)):
        drawn.append([])
        for epoch in range(3):
            assert begin_epoch(batches, epoch) == 0
            drawn[-1] += batches
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize('grouped', [pytest.param(True, id='grouped'), pytest.param(False, id='not grouped')])
def test_batches_that_are_done_are_not_drawn_again(grouped):
    batches = loader(grouped=grouped)
    begin_epoch(batches, 1)
    whole = list(batches)
    assert begin_epoch(batches, 1, 2) == 2
    assert list(batches) == whole[2:]
    begin_epoch(batches, 1)
    assert list(batches) == whole


def test_a_sampler_of_the_user_leaves_nothing_out():
    batches = loader(grouped=False, sampler=SequentialSampler(Sized()))
    assert begin_epoch(batches, 1, 2) == 0
    assert [key for batch in batches for key in batch] == list(range(len(SIZES)))


@pytest.mark.parametrize(('arguments', 'message'), [
    pytest.param({'dataset': list(range(8))}, 'give the training set an attribute `sizes`', id='sizes not known'),
    pytest.param({'sampler': SequentialSampler(Sized())}, 'leave out samplers=', id='order of the user'),
])
def test_grouping_that_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        loader(**arguments)


def test_value_that_is_no_switch(tmp_path):
    with pytest.raises(ValueError, match="aspect_ratio_grouping must be true or false; got 'yes'"):
        trainer_for(tmp_path, {'train.dataloader.aspect_ratio_grouping': 'yes'})


def test_sizes_are_those_of_the_annotation_file(tmp_path):
    """What the images are before augmentation, known without opening one; data sets in a row put them in a row."""
    folders = []
    for name, size in (('wide', (64, 96)), ('high', (96, 64))):
        shapes(2, size=size).write_coco(tmp_path / name)
        folders.append(str(tmp_path / name))
    data = open_dataset(folders, None, 'train', None, None)
    assert data.sizes == [(64, 96)] * 2 + [(96, 64)] * 2


# Through the trainer

GROUPED = {'train.max_epochs': 3, 'train.dataloader.aspect_ratio_grouping': True,
           'preprocessor.train': {'min_sizes': [64], 'max_size': 96, 'crop': None},
           'train.checkpoint': {'period': {'interval': 2, 'by_epoch': False}}}


def mixed_shapes():
    return [shapes(4, size=(64, 96)), shapes(3, size=(96, 64), seed=4)]


class Orientations(Hook):
    """Notes for each iteration whether its images are wide; ends the training after ``last`` of them."""

    PRIORITY = 100

    def __init__(self, last=None):
        self.seen, self.last = [], last

    def after_train_iter(self, trainer):
        self.seen.append([width > height for height, width in
                          (sample.original_size for sample in trainer.data_batch['samples'])])
        if len(self.seen) == self.last:
            raise InterruptedError


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
    watch = Orientations()
    trainer = trainer_for(tmp_path_factory.mktemp('grouped'), GROUPED, train_dataset=mixed_shapes(), callbacks=[watch])
    trainer.train()
    return trainer, watch.seen


def test_trainer_groups(uninterrupted):
    trainer, seen = uninterrupted
    assert (trainer.iters_per_epoch, len(seen)) == (4, 12)
    assert all(len(batch) == 2 and batch[0] == batch[1] for batch in seen)
    assert {batch[0] for batch in seen} == {True, False}


@pytest.mark.parametrize('cut', [pytest.param(3, id='back to the middle of the first epoch'),
                                 pytest.param(7, id='back to the middle of the second'),
                                 pytest.param(9, id='back to the end of the second')])
def test_resumed_grouped_training_equals_the_uninterrupted_one(uninterrupted, cut, tmp_path):
    expected, _ = uninterrupted
    with pytest.raises(InterruptedError):
        trainer_for(tmp_path, GROUPED, train_dataset=mixed_shapes(), callbacks=[Orientations(cut)]).train()
    trainer = trainer_for(tmp_path, GROUPED, train_dataset=mixed_shapes(), resume_from='latest')
    trainer.train()
    assert trainer.iter == 12
    assert_equal_weights(weights(trainer), weights(expected))
