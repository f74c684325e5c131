"""Same seed, same samples: whatever the number of workers, and wherever a training was taken up again."""
from __future__ import annotations

import random
from dataclasses import replace
from zlib import crc32

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import WeightedRandomSampler
from torchvision.transforms import v2

from modelscope_fastinst.data.augment import TrainTransform
from modelscope_fastinst.data.coco import CocoInstances
from modelscope_fastinst.data.copy_paste import with_copy_paste
from modelscope_fastinst.data.tv_transforms import V2Transform
from modelscope_fastinst.plugin.sampling import begin_epoch, build_loader
from tests.plugin.trainer_runs import shapes, trainer_for

EVERYTHING = {'min_sizes': [40, 48, 56], 'max_size': 80, 'crop': {'min_sizes': [48, 64], 'size_range': [24, 40]},
              'flip': 0.5, 'vertical_flip': 0.5, 'rotate': 0.5, 'color': {'preset': 'ssd', 'extra': [
                  {'type': 'RandomPosterize', 'bits': 3}]},
              'copy_paste': {'probability': 0.7, 'scale': [0.5, 1.0]}}
JITTER = {'large_scale_jitter': {'size': 64}, 'color': 'strong', 'copy_paste': {'probability': 0.7}}


def all_generators(sample):
    """A user's own transform, with random numbers from wherever there are some."""
    noise = np.zeros((sample.image.shape[0], sample.image[0].numel()), np.int16)
    cv2.randn(noise, (0,), (8,))
    shift = torch.randint(-4, 4, ()).item(), np.random.randint(-4, 4), random.randint(-4, 4)
    image = sample.image + torch.from_numpy(noise).view_as(sample.image) + torch.tensor(shift)[:, None, None]
    return replace(sample, image=image.clamp(0, 255).byte())


def transform_of(name):
    if name == 'generators':
        return all_generators
    if name == 'v2':
        return V2Transform(v2.Compose([v2.RandomPhotometricDistort(), v2.RandomResizedCrop(48), v2.RandomRotation(30)]))
    return TrainTransform(**{'everything': EVERYTHING, 'jitter': JITTER}[name])


@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
    """A function that opens the data set from files, polygons and run lengths, with a transform."""
    file, images = shapes(7).write_coco(tmp_path_factory.mktemp('seeds'))

    def open_with(name):
        transform = transform_of(name)
        return with_copy_paste(CocoInstances(file, images, transform=transform, with_annotations=False), transform)
    return open_with


def samples_of(dataset, workers=0, epochs=(0, 1), done=0, seed=5, sampler=None, **options):
    loader = build_loader(dataset, {'batch_size_per_gpu': 2, 'workers_per_gpu': workers, **options}, list,
                          training=True, seed=seed, sampler=sampler)
    found = []
    for number, epoch in enumerate(epochs):
        left_out = begin_epoch(loader, epoch, done if number == 0 else 0)
        batches = list(loader)[done - left_out if number == 0 else 0:]
        found.append([digest(sample) for batch in batches for sample in batch])
    return found


def digest(sample):
    """All of a sample that a training sees, comparable."""
    return (sample.image_id, tuple(sample.image.shape), crc32(sample.image.numpy()), sample.target.labels.tolist(),
            crc32(sample.target.masks.numpy()))


KINDS = pytest.mark.parametrize('kind', [
    pytest.param('everything', id='recipe, colours and copy-paste'),
    pytest.param('jitter', id='large-scale jitter, colours and copy-paste'),
    pytest.param('v2', id='torchvision v2'),
    pytest.param('generators', id="all the generators of a user's transform"),
])


@KINDS
def test_samples_do_not_depend_on_the_number_of_workers(kind, drawn):
    alone = samples_of(drawn(kind))
    assert samples_of(drawn(kind), workers=1) == alone
    assert samples_of(drawn(kind), workers=3) == alone


@KINDS
def test_every_epoch_and_every_seed_augments_differently(kind, drawn):
    first, second = samples_of(drawn(kind))
    assert sorted(sample[0] for sample in first) == sorted(sample[0] for sample in second) == list(range(1, 8))
    other_seed, _ = samples_of(drawn(kind), seed=6)
    for other in (second, other_seed):
        images = {sample[0]: sample[1:] for sample in other}
        assert not [sample[0] for sample in first if images[sample[0]] == sample[1:]]


@pytest.mark.parametrize('options', [pytest.param({}, id='shuffled'),
                                     pytest.param({'aspect_ratio_grouping': True}, id='grouped')])
@pytest.mark.parametrize('workers', [0, 1, 3])
def test_resumed_in_the_middle_of_an_epoch_the_samples_are_those_of_the_uninterrupted_training(workers, options, drawn):
    whole = samples_of(drawn('everything'), epochs=(1, 2), **options)
    resumed = samples_of(drawn('everything'), workers=workers, epochs=(1, 2), done=2, **options)
    assert resumed == [whole[0][4:], whole[1]]


@pytest.mark.parametrize('workers', [1, 3])
def test_the_order_of_a_user_has_seeded_samples_as_well(workers, drawn):
    def run(workers):
        sampler = WeightedRandomSampler([1.0] * 6 + [9.0], 10, generator=torch.Generator().manual_seed(1))
        return samples_of(drawn('everything'), workers=workers, sampler=sampler)
    alone = run(0)
    assert run(workers) == alone
    again = [sample for sample in alone[0] if sample[0] == 7]
    assert len(again) > 2 and len(set(map(repr, again))) == len(again)   # drawn again, augmented anew


def test_the_other_image_of_a_copy_paste_follows_from_the_seed(drawn):
    """Not only its place: other objects are pasted in another epoch."""
    first, second = ({sample[0]: sample[3] for sample in epoch} for epoch in samples_of(drawn('everything')))
    plain = {sample.image_id: len(sample.target) for sample in shapes(7)}
    assert any(len(labels) > plain[image] for image, labels in first.items())
    assert first != second


def test_a_training_with_copy_paste(tmp_path, drawn):
    """From the configuration: the trainer puts it around its training set, and around nothing else."""
    trainer = trainer_for(tmp_path, {'train.max_epochs': 1, 'preprocessor.train.copy_paste': {'probability': 1.0},
                                     'preprocessor.train.crop': None}, eval_dataset=shapes(2))
    assert type(trainer.train_dataset).__name__ == 'CopyPaste'
    assert type(trainer.eval_dataset).__name__ == 'FastInstDataset'
    trainer.train()
    assert trainer.iter == 2


@pytest.mark.parametrize('whole', [pytest.param(True, id='alone'), pytest.param(False, id='for training')])
def test_a_training_with_transforms_of_torchvision(whole, tmp_path):
    compose = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomResizedCrop(48), v2.SanitizeBoundingBoxes()])
    trainer = trainer_for(tmp_path, {'train.max_epochs': 1}, eval_dataset=shapes(1, size=96),
                          preprocessor=compose if whole else {'train': compose})
    assert trainer.train_dataset[0].image.shape == (3, 48, 48)
    assert trainer.eval_dataset[0].image.shape == (3, 64, 64)   # as configured
    trainer.train()
    assert trainer.iter == 2
