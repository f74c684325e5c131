"""Training and validation images where nobody has told them apart."""
from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelscope_fastinst.data.formats import find_splits, read_source
from modelscope_fastinst.data.formats.partition import partition, split_of_name, split_of_path
from modelscope_fastinst.data.records import DatasetError
from tests.data.formats.tool_files import (
    mask_pictures,
    polygon_pictures,
    write_coco_file,
    write_labelme,
    write_object_masks,
    write_voc,
    write_yolo,
)

EVERY_FORMAT = [
    pytest.param(write_coco_file, polygon_pictures, id='coco'),
    pytest.param(write_yolo, polygon_pictures, id='yolo'),
    pytest.param(write_labelme, polygon_pictures, id='labelme'),
    pytest.param(write_voc, mask_pictures, id='voc'),
    pytest.param(write_object_masks, mask_pictures, id='object-masks'),
]


def names(source):
    return [image['file_name'] for image in source.content['images']]


def sides(root, seed=0, fraction=0.3):
    return [names(read_source(root, split, val_fraction=fraction, seed=seed)) for split in ('train', 'val')]


@pytest.mark.parametrize('write, draw', EVERY_FORMAT)
def test_every_image_is_on_one_side_and_stays_there(tmp_path, write, draw):
    write(tmp_path / 'a', draw(10))
    write(tmp_path / 'elsewhere' / 'b', draw(10)[::-1])     # another place and order
    train, val = sides(tmp_path / 'a')
    assert len(train) == 7 and len(val) == 3 and sorted(train + val) == sorted(names(read_source(tmp_path / 'a')))
    assert [sorted(one) for one in sides(tmp_path / 'elsewhere' / 'b')] == [sorted(train), sorted(val)]
    assert any(sorted(sides(tmp_path / 'a', seed)[1]) != sorted(val) for seed in range(1, 4))


@pytest.mark.parametrize('write, draw', EVERY_FORMAT)
def test_identical_images_are_on_the_same_side(tmp_path, write, draw):
    pictures = draw(8)
    for copy, original in ((1, 0), (6, 0), (7, 3)):
        pictures[copy].pixels = pictures[original].pixels
    write(tmp_path, pictures)
    for seed in range(8):
        train, val = ({name.split('IMG_')[-1][0] for name in side} for side in sides(tmp_path, seed))
        assert len(train | val) == 8 and val
        for twins in ({'0', '1', '6'}, {'3', '7'}):
            assert twins <= train or twins <= val


@given(st.lists(st.tuples(st.text(min_size=1), st.sampled_from([0, 1, 2, None]), st.integers(0, 3)), min_size=1,
                max_size=30, unique_by=lambda one: one[0]), st.floats(0.01, 0.99), st.integers())
def test_any_partition(images, fraction, seed):
    """Sizes and contents at random: contents differ where sizes do."""
    def chosen(part):
        found = partition([name for name, _, _ in part], fraction, seed, lambda index: part[index][1],
                          lambda index: f'{part[index][1]} {part[index][2]}')
        return {part[index][0] for index in found}

    val = chosen(images)
    same = {(size, content) if size is not None else name for name, size, content in images}
    unlike = len({name if size is None else (size, content) for name, size, content in images}) > 1
    assert bool(val) == unlike and len(val) < len(images)
    for key in same:
        members = {name for name, size, content in images if (size, content) == key}
        assert not members or members <= val or not members & val
    assert chosen(images[::-1]) == val
    if unlike and all(size is None for _, size, _ in images):
        assert len(val) == min(max(1, round(fraction * len(images))), len(images) - 1)


def test_one_more_image_moves_few_others():
    def val(count):
        return {f'{index}.png' for index in partition([f'{index}.png' for index in range(count)], 0.2, 0,
                                                      lambda index: None, str)}
    before, after = val(100), val(101)
    changed = {int(name[:-4]) for name in before ^ after}
    assert len(changed) <= 2


def test_only_files_of_equal_size_are_read():
    read = []
    partition(['a', 'b', 'c', 'd'], 0.5, 0, lambda index: [10, 20, 10, 30][index],
              lambda index: read.append(index) or str(index))
    assert read == [0, 2]


def test_a_training_split_alone_is_divided(tmp_path):
    write_coco_file(tmp_path, polygon_pictures(5), 'train')
    assert find_splits(tmp_path) == ('train',)
    train, val = sides(tmp_path, fraction=0.4)
    assert len(train) == 3 and len(val) == 2
    assert len(names(read_source(tmp_path, 'train'))) == 5


def test_lists_of_voc_are_the_splits(tmp_path):
    write_voc(tmp_path, mask_pictures(4), {'train': ['IMG_2', 'IMG_0'], 'val': ['IMG_3'], 'trainval': ['IMG_0', 'IMG_2',
                                                                                                    'IMG_3']})
    assert find_splits(tmp_path) == ('train', 'val')
    assert names(read_source(tmp_path, 'train')) == ['JPEGImages/IMG_0.png', 'JPEGImages/IMG_2.png']
    assert names(read_source(tmp_path, 'val')) == ['JPEGImages/IMG_3.png']


@pytest.mark.parametrize('count, identical, message', [
    pytest.param(1, False, '1 image cannot be divided', id='one image'),
    pytest.param(3, True, '3 images cannot be divided into training and validation: all have the same content',
                 id='one picture three times'),
])
def test_what_cannot_be_divided(tmp_path, count, identical, message):
    pictures = polygon_pictures(count)
    for picture in pictures if identical else ():
        picture.pixels = pictures[0].pixels
    write_labelme(tmp_path, pictures)
    with pytest.raises(DatasetError, match=message):
        read_source(tmp_path, 'val', val_fraction=0.2)


@pytest.mark.parametrize('fraction', [0, 1, 1.5, -0.1, float('nan'), True, 'half'])
def test_a_fraction_that_is_none(tmp_path, fraction):
    write_labelme(tmp_path, polygon_pictures(3))
    message = f'val_fraction is {fraction!r}; it must be a number between 0 and 1'
    with pytest.raises(ValueError, match=re.escape(message)):
        read_source(tmp_path, 'train', val_fraction=fraction)


@pytest.mark.parametrize('name, split', [
    ('train', 'train'), ('Training', 'train'), ('train2017', 'train'), ('stage1_train', 'train'), ('my-val', 'val'),
    ('valid', 'val'), ('VALIDATION', 'val'), ('dev', 'val'), ('test', 'test'), ('train_images', 'train'),
    ('trainval', None), ('strain', None), ('training day', None), ('images', None), ('', None)])
def test_names_of_splits(name, split):
    assert split_of_name(name) == split


def test_the_outermost_folder_of_a_split_counts():
    assert split_of_path('a/val/train/x.png') == 'val' and split_of_path('val.png') is None
