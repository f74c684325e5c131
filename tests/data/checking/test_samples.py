"""Which images are shown."""
from __future__ import annotations

from modelscope_fastinst.data.checking.samples import choose_samples
from modelscope_fastinst.data.records import Records, read_records


def records(*images: str) -> Records:
    """An image a string, an object a letter; the letter is its class, '-' a crowd of a."""
    names = sorted(set(''.join(images)) - {'-'}) or ['a']
    content = {'images': [{'id': number, 'file_name': f'{number}.png', 'height': 9, 'width': 9}
                          for number in range(len(images))], 'annotations': [],
               'categories': [{'id': number, 'name': name} for number, name in enumerate(names)]}
    for number, letters in enumerate(images):
        for letter in letters:
            content['annotations'].append({
                'id': len(content['annotations']), 'image_id': number, 'iscrowd': int(letter == '-'),
                'category_id': names.index(letter.replace('-', 'a')), 'segmentation': [[1, 1, 8, 1, 8, 8]]})
    return read_records(content)


def test_every_class_is_shown_where_that_is_possible():
    images = ['a'] * 50 + ['b', 'c', 'de']
    assert {50, 51, 52} < set(choose_samples(records(*images), number=5))


def test_more_images_than_asked_for_where_it_takes_them_to_show_every_class():
    assert choose_samples(records(*'abcdef'), number=2, most=6) == [0, 1, 2, 3, 4, 5]
    assert len(choose_samples(records(*'abcdef'), number=2, most=4)) == 4


def test_classes_are_shown_about_equally_often():
    chosen = choose_samples(records(*['a'] * 90, *['b'] * 10), number=10)
    assert sum(image >= 90 for image in chosen) == 5


def test_images_without_objects_come_last():
    assert choose_samples(records('a', '', '-', 'a'), number=2) == [0, 3]
    assert choose_samples(records('a', '', '-', 'a'), number=9) == [0, 1, 2, 3]


def test_the_seed_decides():
    many = records(*['ab'] * 100)
    assert choose_samples(many, 5, seed=1) == choose_samples(many, 5, seed=1) != choose_samples(many, 5, seed=2)


def test_only_usable_images_are_shown():
    assert choose_samples(records('a', 'a', 'a'), 3, usable=[True, False, True]) == [0, 2]
    assert choose_samples(records('a'), 3, usable=[False]) == []
