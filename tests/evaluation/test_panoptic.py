"""Panoptic quality against its definition, case by case and at random."""
from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelscope_fastinst.evaluation.panoptic import PanopticEvaluator, panoptic_metric_names
from modelscope_fastinst.structures import PanopticMap, Segment
from tests.evaluation.literal_maps import panoptic_counts, panoptic_quality

CLASSES, THINGS = ['cat', 'dog', 'sky', 'grass'], {0, 1}


def panoptic_map(ids, labels, crowds=()):
    """A map out of ids ``[H, W]`` and the class of each id."""
    ids = np.asarray(ids, np.int32)
    return PanopticMap(ids, [Segment(number, label, 1.0, label in THINGS, int((ids == number).sum()), (0, 0, 1, 1),
                                     iscrowd=number in crowds) for number, label in sorted(labels.items())])


def row(text):
    """One row of pixels: a digit each."""
    return np.array([[int(character) for character in text]], np.int32)


def evaluated(images, classes=CLASSES, things=THINGS):
    evaluator = PanopticEvaluator(classes, things)
    for number, (truth, found) in enumerate(images):
        evaluator.add(number, truth, found)
    return evaluator.evaluate()


def assert_as_defined(images, classes=CLASSES, things=THINGS):
    """All values against the literal implementation, to 1e-9."""
    values, counts = evaluated(images, classes, things), panoptic_counts(images, len(classes))
    every = range(len(classes))
    groups = {'': every, '_th': sorted(things), '_st': [label for label in every if label not in things],
              **{f'/{name}': [label] for label, name in enumerate(classes)}}
    expected = {}
    for suffix, members in groups.items():
        means = panoptic_quality(counts, members) or (-1.0, -1.0, -1.0)
        expected |= {f'{name}{suffix}': mean for name, mean in zip(('PQ', 'SQ', 'RQ'), means, strict=True)}
    assert values == pytest.approx(expected, abs=1e-9)
    return values


@pytest.mark.parametrize(('truth', 'found', 'expected'), [
    pytest.param(panoptic_map(row('11112222'), {1: 0, 2: 2}), panoptic_map(row('55557777'), {5: 0, 7: 2}),
                 {'PQ': 1, 'PQ_th': 1, 'PQ_st': 1, 'PQ/dog': -1}, id='all right'),
    pytest.param(panoptic_map(row('11112222'), {1: 0, 2: 2}), panoptic_map(row('11122222'), {1: 0, 2: 2}),
                 {'PQ/cat': 3 / 4, 'PQ/sky': 4 / 5, 'RQ': 1, 'SQ': (3 / 4 + 4 / 5) / 2}, id='a border moved'),
    pytest.param(panoptic_map(row('1100'), {1: 0}), panoptic_map(row('1111'), {1: 0}), {'PQ': 1, 'SQ': 1},
                 id='void is not in the union'),
    pytest.param(panoptic_map(row('1122'), {1: 0, 2: 2}), panoptic_map(row('1111'), {1: 0}),
                 {'PQ/cat': 0, 'RQ/cat': 0, 'SQ/cat': 0, 'PQ_st': 0}, id='an IoU of one half is no match'),
    pytest.param(panoptic_map(row('1111'), {1: 0}), panoptic_map(row('1111'), {1: 1}),
                 {'PQ': 0, 'PQ/cat': 0, 'PQ/dog': 0, 'PQ_st': -1}, id='of another class'),
    pytest.param(panoptic_map(row('11110000'), {1: 0}), panoptic_map(row('11112220'), {1: 0, 2: 1}),
                 {'PQ': 1, 'PQ/dog': -1}, id='what lies on void does not count'),
    pytest.param(panoptic_map(row('11113300'), {1: 0, 3: 2}), panoptic_map(row('11112222'), {1: 0, 2: 1}),
                 {'PQ/dog': 0, 'PQ/sky': 0, 'PQ/cat': 1}, id='half on void counts as false'),
    pytest.param(panoptic_map(row('11112222'), {1: 0, 2: 0}, crowds=[2]),
                 panoptic_map(row('11112333'), {1: 0, 2: 0, 3: 0}), {'PQ': 1}, id='a crowd of its class'),
    pytest.param(panoptic_map(row('11112222'), {1: 0, 2: 0}, crowds=[2]), panoptic_map(row('11112222'), {1: 0, 2: 1}),
                 {'PQ/cat': 1, 'PQ/dog': 0}, id='a crowd of another class does'),
    pytest.param(panoptic_map(row('22220000'), {2: 0}, crowds=[2]), panoptic_map(row('11110000'), {1: 0}),
                 {'PQ': -1, 'PQ/cat': -1}, id='a crowd alone is neither found nor missed'),
    pytest.param(panoptic_map(row('122200'), {1: 1, 2: 0}, crowds=[2]), panoptic_map(row('111111'), {1: 0}),
                 {'PQ/dog': 0, 'PQ/cat': -1}, id='void and crowd together make more than half'),
    pytest.param(panoptic_map(row('1122'), {1: 0, 2: 2}), panoptic_map(row('0000'), {}), {'PQ': 0, 'PQ/cat': 0},
                 id='nothing found'),
    pytest.param(panoptic_map(row('0000'), {}), panoptic_map(row('1111'), {1: 0}), {'PQ': -1}, id='nothing there'),
])
def test_the_rules_one_by_one(truth, found, expected):
    values = assert_as_defined([(truth, found)])
    assert {name: values[name] for name in expected} == pytest.approx(expected)


def test_a_class_that_is_only_found_counts_as_wrong_and_one_that_is_nowhere_does_not():
    right = panoptic_map(row('1111'), {1: 0}), panoptic_map(row('1111'), {1: 0})
    false = panoptic_map(row('1111'), {1: 0}), panoptic_map(row('1112'), {1: 0, 2: 2})
    values = assert_as_defined([right, false])
    assert values['PQ_st'] == 0 and values['PQ'] == pytest.approx((7 / 8 + 0) / 2) and values['PQ/grass'] == -1


def maps(size, classes, crowds, most):
    """Panoptic maps: blocks of ids below ``most``, of which 0 is void, with classes of their own."""
    cells = size[0] * size[1]

    def build(content):
        block, labels, is_crowd = (np.frombuffer(content, np.uint8)[part] for part in
                                   (slice(cells), slice(cells, cells + most), slice(cells + most, None)))
        pixels = np.kron(block.astype(np.int32).reshape(size) % most, np.ones((2, 3), np.int32))
        there = [number for number in np.unique(pixels).tolist() if number]
        found = {number: int(labels[number]) % classes for number in there}
        # One crowd a class, as published data have it; of more the API regards one.
        chosen = {found[number]: number for number in there if crowds and is_crowd[number] % 2}
        return panoptic_map(pixels, found, chosen.values())
    return st.binary(min_size=cells + 2 * most, max_size=cells + 2 * most).map(build)


SIZES = [(4, 4), (1, 7), (3, 5)]


@settings(deadline=None)
@given(st.data())
def test_random_maps_with_void_crowds_and_classes_that_are_missing(data):
    images = [(data.draw(maps(size, 4, True, 6)), data.draw(maps(size, 4, False, 6)))
              for size in SIZES[:data.draw(st.integers(1, 3))]]
    assert_as_defined(images)


@settings(deadline=None)
@given(st.data())
def test_random_maps_that_look_alike(data):
    """Results drawn apart from the truth seldom match it; these are the truth with some blocks changed."""
    images = []
    for size in SIZES[:2]:
        truth = data.draw(maps(size, 3, True, 4))
        ids = truth.ids.copy()
        for top, left, number in np.frombuffer(data.draw(st.binary(min_size=12, max_size=12)), np.uint8).reshape(4, 3):
            ids[top % len(ids):, left % ids.shape[1]:][:2, :3] = number % 7
        labels = {segment.id: segment.label for segment in truth.segments}
        images.append((truth, panoptic_map(ids, {number: labels.get(number, 0) for number in np.unique(ids).tolist()
                                                 if number})))
    assert_as_defined(images)


@settings(deadline=None)
@given(maps((3, 3), 1, True, 5), maps((3, 3), 1, False, 5))
def test_random_maps_of_a_single_class(truth, found):
    assert_as_defined([(truth, found)], ['nucleus'], {0})


def test_large_ids_as_files_have_them():
    most = 256 ** 3 - 1
    truth = panoptic_map(np.where(row('1122') == 1, most - 1, most), {most - 1: 0, most: 2})
    assert evaluated([(truth, panoptic_map(row('1122'), {1: 0, 2: 2}))])['PQ'] == 1


def test_order_and_processes_do_not_matter_and_an_image_counts_once():
    rng = np.random.default_rng(0)
    images = []
    for _ in range(6):
        ids = np.kron(rng.integers(0, 6, (4, 4)), np.ones((3, 3), int)).astype(np.int32)
        other = np.where(rng.random(ids.shape) < 0.1, 3, ids)
        images.append(tuple(panoptic_map(one, {number: number % 4 for number in np.unique(one).tolist() if number})
                            for one in (ids, other)))
    whole = evaluated(images)
    parts = [PanopticEvaluator(CLASSES, THINGS, worst=2) for _ in range(2)]
    for part, numbers in zip(parts, ([5, 1, 3, 0], [4, 2, 3]), strict=True):   # 3 comes twice
        for number in numbers:
            part.add(number, *images[number])
            part.add(number, images[0][0], images[1][1])   # ignored
    parts = [pickle.loads(pickle.dumps(part)) for part in parts]
    parts[0].merge(parts[1])
    assert parts[0].evaluate() == whole and len(parts[0]) == 6 and 0 < whole['PQ'] < 1
    together = PanopticEvaluator(CLASSES, THINGS, worst=2)
    for number, (truth, found) in enumerate(images):
        together.add(number, truth, found)
    assert ([(image.image_id, image.quality) for image in parts[0].worst.images()]
            == [(image.image_id, image.quality) for image in together.worst.images()])
    assert len(together.worst) == 2 and list(whole) == panoptic_metric_names(CLASSES)


def test_what_is_kept_of_the_worst_images_is_what_was_added():
    truth, found = panoptic_map(row('11222'), {1: 0, 2: 2}), panoptic_map(row('12222'), {1: 0, 2: 2})
    evaluator = PanopticEvaluator(CLASSES, THINGS, worst=1)
    evaluator.add('good', truth, truth)
    evaluator.add('bad', truth, found, name='some/bad.png')
    (kept,) = evaluator.report().worst
    assert kept.name == 'some/bad.png' and kept.found.segments == found.segments
    np.testing.assert_array_equal(kept.truth.ids, truth.ids)
    np.testing.assert_array_equal(kept.found.ids, found.ids)
    assert evaluator.nbytes < 1000


def test_what_is_taken_for_what():
    truth = panoptic_map(row('111122223333'), {1: 0, 2: 1, 3: 2})
    found = panoptic_map(row('111122220009'), {1: 0, 2: 2, 9: 3})
    report = PanopticEvaluator(CLASSES, THINGS)
    report.add(1, truth, found)
    report = report.report()
    expected = np.zeros((5, 5), int)
    expected[0, 0] = expected[1, 2] = expected[2, 4] = expected[4, 3] = 1
    np.testing.assert_array_equal(report.confusion, expected)
    assert report.numbers()['classes']['dog'] == {'isthing': True, 'PQ': 0.0, 'SQ': 0.0, 'RQ': 0.0, 'tp': 0, 'fp': 0,
                                                  'fn': 1}
    json.dumps(report.numbers())


@pytest.mark.parametrize(('found', 'message'), [
    pytest.param(panoptic_map(row('112'), {1: 0, 2: 2}), r'image 7: ground truth and result: .*1 x 4 and 1 x 3',
                 id='size'),
    pytest.param(panoptic_map(row('1123'), {1: 0, 2: 2}), 'segment 3 is in the map, but not in the', id='no entry'),
    pytest.param(panoptic_map(row('1122'), {1: 0, 2: 2, 3: 0}), 'segment 3 is in the list .*no pixel', id='no pixel'),
    pytest.param(panoptic_map(row('1122'), {1: 0, 2: 4}), 'result, segment 2: class index 4, but', id='class'),
])
def test_maps_that_cannot_be_compared(found, message):
    with pytest.raises(ValueError, match=message):
        PanopticEvaluator(CLASSES, THINGS).add(7, panoptic_map(row('1122'), {1: 0, 2: 2}), found)


@pytest.mark.parametrize(('classes', 'things', 'message'), [
    pytest.param([], set(), 'at least one class', id='no classes'),
    pytest.param(['a', 'a'], set(), 'must differ', id='twice'),
    pytest.param(['a', 'b'], {2}, 'things: class index 2', id='things'),
])
def test_classes_that_cannot_be(classes, things, message):
    with pytest.raises(ValueError, match=message):
        PanopticEvaluator(classes, things)


def test_nothing_added_and_other_classes():
    evaluator = PanopticEvaluator(CLASSES, THINGS)
    with pytest.raises(ValueError, match='no image was added'):
        evaluator.evaluate()
    with pytest.raises(ValueError, match='same things'):
        evaluator.merge(PanopticEvaluator(CLASSES, {0}))
    with pytest.raises(ValueError, match='same classes'):
        evaluator.merge(PanopticEvaluator([*CLASSES, 'more'], THINGS))


# The API's own sample.


def read_sample(folder):
    """[(ground truth, image id)] of the panoptic API's sample, its classes and things."""
    from PIL import Image
    content = json.loads((folder / 'panoptic_examples.json').read_text('utf-8'))
    categories = {category['id']: index for index, category in enumerate(content['categories'])}
    things = {categories[category['id']] for category in content['categories'] if category['isthing']}
    images = []
    for annotation in content['annotations']:
        colors = np.array(Image.open(folder / 'panoptic_examples' / annotation['file_name']), np.int32)
        ids = colors[..., 0] + 256 * colors[..., 1] + 256 ** 2 * colors[..., 2]
        segments = [Segment(one['id'], categories[one['category_id']], 1.0, categories[one['category_id']] in things,
                            one['area'], tuple(one['bbox']), bool(one['iscrowd']))
                    for one in annotation['segments_info']]
        assert all(segment.area == (ids == segment.id).sum() for segment in segments)
        images.append(PanopticMap(ids, segments))
    return images, [category['name'] for category in content['categories']], things


def moved(truth, by):
    """The truth as a result: all so many pixels to the right, and every fifth segment of another class."""
    ids = np.roll(truth.ids, by, axis=1)
    segments = [Segment(one.id, one.label if number % 5 else (one.label + 1) % 133, 0.9, one.isthing, one.area,
                        one.bbox) for number, one in enumerate(truth.segments)]
    there = set(np.unique(ids).tolist())
    return PanopticMap(ids, [segment for segment in segments if segment.id in there])


@pytest.mark.parametrize('by', [0, 1, 3, 12])
def test_the_panoptic_apis_sample(shared_data, by):
    truths, classes, things = read_sample(shared_data / 'panoptic')
    values = assert_as_defined([(truth, moved(truth, by)) for truth in truths], classes, things)
    assert 0 < values['PQ'] < 1 and values['PQ_th'] > 0 and values['PQ_st'] > 0


def test_the_panoptic_apis_sample_against_itself(shared_data):
    truths, classes, things = read_sample(shared_data / 'panoptic')
    values = evaluated([(truth, truth) for truth in truths], classes, things)
    assert [values[name] for name in ('PQ', 'SQ', 'RQ', 'PQ_th', 'PQ_st')] == [1, 1, 1, 1, 1]
