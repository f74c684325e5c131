"""``pipeline('image-segmentation')`` for semantic and panoptic models: tasks, results, options."""
from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from modelscope.outputs import TASK_OUTPUTS
from modelscope.pipelines import pipeline

import modelscope_fastinst  # noqa: F401
from modelscope_fastinst.plugin.postprocessor import FastInstPostprocessor
from modelscope_fastinst.results.rle import decode
from modelscope_fastinst.structures import Instances, SemanticMap
from tests.golden_cases import cases, load
from tests.plugin.model_folders import MAP_CASES, scene, write_map_folder, write_stock_folder
from tests.plugin.test_pipeline_golden import AsItIs, check

KEYS = {'instance': ['scores', 'labels', 'masks', 'boxes'],
        'panoptic': ['scores', 'labels', 'masks', 'boxes', 'segments', 'id_map'],
        'semantic': ['scores', 'labels', 'masks', 'boxes', 'label_map']}
TASKS = pytest.mark.parametrize('task', list(KEYS))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return str(write_map_folder(tmp_path_factory.mktemp('panoptic'), 'panoptic', overlap_threshold=0.0))


@pytest.fixture(scope='module')
def semantic_folder(tmp_path_factory):
    return str(write_map_folder(tmp_path_factory.mktemp('semantic'), 'semantic'))


@pytest.fixture(scope='module')
def segment(folder):
    return pipeline('image-segmentation', model=folder, device='cpu')


@pytest.fixture(scope='module')
def segment_semantic(semantic_folder):
    return pipeline('image-segmentation', model=semantic_folder, device='cpu')


def picture(index=1):
    return scene(MAP_CASES['panoptic'], index)


# ----------------------------------------------------------------------------- the authors' numbers

@pytest.mark.parametrize('optimize', [pytest.param(False, id='reference'), pytest.param(True, id='optimized')])
@pytest.mark.parametrize('name', cases('eval', ('semantic', 'panoptic')))
def test_maps_equal_the_authors(tmp_path, name, optimize):
    case = load(name)
    found = pipeline('image-segmentation', model=str(write_map_folder(tmp_path, case.task)), device='cpu',
                     optimize=optimize, preprocessor=AsItIs(case), postprocessor={'candidates': case.candidates})
    samples = [found.preprocess(np.ascontiguousarray(image.permute(1, 2, 0).numpy()[:, :, ::-1]))
               for image in case.scenes()[0]]
    with torch.no_grad():   # together, as the authors had them
        output = found.forward(samples)
    sizes = [sample.original_size for sample in samples]
    for index, result in enumerate(found.postprocess(output, sizes, task='semantic')):
        assert np.count_nonzero(result['label_map'] != case[f'image{index}/sem_seg/argmax']) <= 10
    if case.task == 'panoptic':
        for index, result in enumerate(found.postprocess(output, sizes, task='panoptic')):
            assert np.count_nonzero(result['id_map'] != case[f'image{index}/panoptic/map']) <= 10
            assert [(one['id'], one['isthing'], one['label']) for one in result['segments']] == [
                (one['id'], one['isthing'], f'class {one["category_id"]}')
                for one in case.json(f'image{index}/panoptic/segments')]
        for index, result in enumerate(found.postprocess(output, sizes, score_thr=0)):
            check(case, index, result)


# ----------------------------------------------------------------------------- results

@TASKS
def test_every_task_has_the_keys_that_modelscope_documents(segment, task):
    result = segment(picture(), task=task)
    assert list(result) == KEYS[task] and set(TASK_OUTPUTS['image-segmentation']) <= set(result)
    number = len(result['scores'])
    assert number > 0 and all(len(result[key]) == number for key in KEYS['instance'])
    for score, label, mask, box in zip(*(result[key] for key in KEYS['instance']), strict=True):
        assert type(score) is float and 0 < score <= 10 and label in segment.model.classes
        assert mask.dtype == np.uint8 and mask.shape == picture().shape[:2] and mask.max() == 1
        rows, columns = np.nonzero(mask)
        assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_a_panoptic_model_answers_panoptic_unless_it_is_asked_otherwise(folder, segment):
    assert list(segment(picture())) == KEYS['panoptic']
    other = pipeline('image-segmentation', model=folder, device='cpu', default_task='semantic')
    assert list(other(picture())) == KEYS['semantic']
    assert list(other(picture(), task='instance')) == KEYS['instance']
    assert list(other(picture(), task=None)) == KEYS['semantic']


def test_segments_are_the_maps(segment):
    result = segment(picture())
    ids, segments = result['id_map'], result['segments']
    assert ids.dtype == np.int32 and ids.shape == picture().shape[:2]
    assert set(np.unique(ids)) - {0} == {one['id'] for one in segments} and len(segments) > 1
    for number, one in enumerate(segments):
        assert list(one) == ['id', 'label', 'score', 'isthing', 'area', 'bbox']
        assert one['label'] == result['labels'][number] and one['score'] == result['scores'][number]
        np.testing.assert_array_equal(result['masks'][number], ids == one['id'])
        assert one['area'] == result['masks'][number].sum()
        left, top, right, bottom = result['boxes'][number]
        assert one['bbox'] == [left, top, right - left, bottom - top]
        assert one['isthing'] == (one['label'] in {'class 0', 'class 1', 'class 2', 'class 3'})
    assert {one['isthing'] for one in segments} == {True, False}


def test_classes_are_the_maps(segment_semantic):
    result = segment_semantic(picture())
    labels = result['label_map']
    assert labels.dtype == np.int16 and list(result) == KEYS['semantic']
    present = np.unique(labels).tolist()
    assert result['labels'] == [f'class {index}' for index in present] and len(present) > 1
    for index, mask in zip(present, result['masks'], strict=True):
        np.testing.assert_array_equal(mask, labels == index)


def test_instances_of_a_panoptic_model_are_things(segment):
    labels = set(segment(picture(), task='instance', score_thr=0)['labels'])
    assert labels and labels <= {'class 0', 'class 1', 'class 2', 'class 3'}


@TASKS
def test_rle_masks_are_the_array_masks(segment, task):
    arrays, runs = (segment(picture(), task=task, mask_format=form) for form in ('array', 'rle'))
    np.testing.assert_array_equal(decode(runs['masks']), np.stack(arrays['masks']))
    assert json.dumps({key: value for key, value in runs.items() if key not in ('id_map', 'label_map')})
    np.testing.assert_allclose(runs['scores'], arrays['scores'], atol=1e-5)
    assert runs['boxes'] == arrays['boxes']


def test_nothing_found_gives_an_empty_map(segment):
    result = segment(picture(), object_mask_threshold=1)
    assert not result.pop('id_map').any()
    assert result == {'scores': [], 'labels': [], 'masks': [], 'boxes': [], 'segments': []}


@pytest.mark.parametrize('size', [pytest.param((1, 1), id='one pixel'), pytest.param((1, 900), id='a line')])
@TASKS
def test_extreme_sizes_work(segment, size, task):
    result = segment(np.zeros(size, np.uint8), task=task)
    assert {mask.shape for mask in result['masks']} <= {size}
    assert result.get('id_map', result.get('label_map', np.zeros(size))).shape == size


# ----------------------------------------------------------------------------- tasks that cannot be

@pytest.mark.parametrize('task', ['instance', 'panoptic'])
def test_a_semantic_model_finds_no_segments(semantic_folder, segment_semantic, task):
    message = f"task is '{task}'; the weights .* trained for semantic segmentation, allow semantic$"
    with pytest.raises(ValueError, match=message):
        segment_semantic(picture(), task=task)
    with pytest.raises(ValueError, match=message):
        pipeline('image-segmentation', model=semantic_folder, device='cpu', default_task=task)


def test_a_default_task_that_cannot_be_is_named_by_its_own_option(semantic_folder):
    with pytest.raises(ValueError, match="default_task is 'panoptic'; the weights"):
        pipeline('image-segmentation', model=semantic_folder, device='cpu', default_task='panoptic')


def test_an_instance_model_makes_no_maps(tmp_path):
    segment = pipeline('image-segmentation', model=str(write_stock_folder(tmp_path)), device='cpu')
    with pytest.raises(ValueError, match='trained for instance segmentation, allow instance$'):
        segment(scene(), task='panoptic')
    assert segment(scene(), task='instance', score_thr=0)['scores']


def test_a_task_without_its_name_is_not_swallowed(segment):
    with pytest.raises(TypeError, match="given by name, as in task=; got 'semantic'"):
        segment(picture(), 'semantic')


def test_an_unknown_task_is_named(segment):
    with pytest.raises(ValueError, match="task is 'things'; .* allow panoptic, instance, semantic$"):
        segment(picture(), task='things')


# ----------------------------------------------------------------------------- options

@pytest.mark.parametrize('task, options, message', [
    pytest.param('panoptic', {'max_instances': 3}, "max_instances: of no use for task 'panoptic'", id='limit'),
    pytest.param('semantic', {'score_thr': 0.5}, "score_thr: of no use for task 'semantic'", id='score'),
    pytest.param('semantic', {'overlap_threshold': 0.5}, 'overlap_threshold: of no use', id='overlap'),
    pytest.param('instance', {'object_mask_threshold': 0.5}, 'object_mask_threshold: of no use', id='threshold'),
    pytest.param('panoptic', {'object_mask_threshold': 2}, 'object_mask_threshold is 2; it must be', id='out of range'),
    pytest.param('panoptic', {'overlap_threshold': '1'}, "overlap_threshold is '1'", id='a string'),
    pytest.param('panoptic', {'score_thr': 2}, 'score_thr is 2', id='a score out of range'),
    pytest.param('semantic', {'classes': ['dog']}, r"classes: the model does not know \['dog'\]", id='class'),
    pytest.param('semantic', {'mask_format': 'png'}, "mask_format is 'png'", id='format'),
])
def test_wrong_options_are_clear_errors_before_the_network_runs(segment, task, options, message):
    def forward(*_):
        raise AssertionError('the network ran')

    handle = segment.model.network.register_forward_pre_hook(forward)
    try:
        with pytest.raises(ValueError, match=message):
            segment(picture(), task=task, **options)
    finally:
        handle.remove()


def test_options_of_the_construction_wait_for_the_tasks_that_use_them(folder):
    segment = pipeline('image-segmentation', model=folder, device='cpu', max_instances=1, overlap_threshold=0.1)
    assert len(segment(picture(), task='instance', score_thr=0)['scores']) == 1
    assert len(segment(picture())['scores']) > 1 and segment(picture(), task='semantic')['scores']
    with pytest.raises(ValueError, match='overlap_threshold is 7'):
        pipeline('image-segmentation', model=folder, device='cpu', overlap_threshold=7)


def test_options_of_the_construction_that_no_task_of_the_model_uses_are_an_error(semantic_folder):
    with pytest.raises(ValueError, match='max_instances, score_thr: of no use for a model that was trained for'):
        pipeline('image-segmentation', model=semantic_folder, device='cpu', score_thr=0.5, max_instances=3)


def test_thresholds_come_from_the_call_before_the_construction_before_the_configuration(folder):
    configured = pipeline('image-segmentation', model=folder, device='cpu')
    constructed = pipeline('image-segmentation', model=folder, device='cpu', object_mask_threshold=0.95)
    number = len(configured(picture())['segments'])
    assert number > 1 > 0 == len(constructed(picture(), object_mask_threshold=1)['segments'])
    assert number > len(constructed(picture())['segments'])
    assert len(constructed(picture(), object_mask_threshold=0.4)['segments']) == number


def test_the_score_threshold_of_a_call_drops_segments_and_that_of_the_configuration_does_not(folder, segment):
    everything = segment(picture())
    scores = sorted(everything['scores'])
    found = segment(picture(), score_thr=scores[1])
    assert sorted(found['scores']) == scores[1:]
    lost = everything['segments'][everything['scores'].index(scores[0])]
    assert (found['id_map'][everything['id_map'] == lost['id']] == 0).all()
    assert [one['id'] for one in found['segments']] == list(range(1, len(scores)))
    by_name = segment(picture(), score_thr={lost['label']: 1.0})
    assert by_name['labels'] == [label for label in everything['labels'] if label != lost['label']]
    strict = pipeline('image-segmentation', model=folder, device='cpu', postprocessor={'score_thr': 1.0})
    assert strict(picture())['scores'] == everything['scores']


@pytest.mark.parametrize('task, key, void', [('panoptic', 'id_map', 0), ('semantic', 'label_map', -1)])
def test_classes_leave_the_pixels_of_others_empty(segment, task, key, void):
    everything = segment(picture(), task=task)
    name = everything['labels'][0]
    found = segment(picture(), task=task, classes=[name])
    assert set(found['labels']) == {name}
    np.testing.assert_array_equal(found['masks'][0], everything['masks'][0])
    np.testing.assert_array_equal(found[key] == void, everything['masks'][0] == 0)
    assert segment(picture(), task=task, classes=[])['labels'] == []


# ----------------------------------------------------------------------------- lists and threads

def assert_same(actual, expected):
    assert list(actual) == list(expected)
    for key in actual:
        np.testing.assert_equal(actual[key], expected[key])


@TASKS
def test_batching_changes_no_result(segment, task):
    images = [picture(), picture(0), picture()[:100], picture()]
    expected = [segment(image, task=task) for image in images]
    for result, reference in zip(segment(images, task=task, batch_size=3), expected, strict=True):
        assert_same(result, reference)


def test_threads_do_not_disturb_each_other(segment):
    jobs = [(picture(index), task) for index in (0, 1) for task in KEYS]
    expected = [segment(image, task=task) for image, task in jobs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda job: segment(job[0], task=job[1]), jobs * 2))
    for result, reference in zip(found, expected * 2, strict=True):
        assert_same(result, reference)


# ----------------------------------------------------------------------------- postprocessors of one's own

class Whole:
    """Finds the whole image, once."""

    def __call__(self, output, original_sizes, **options):
        return [Instances(np.ones(1, np.float32), np.zeros(1, np.int64), np.ones((1, *size), np.uint8),
                          np.array([[0, 0, size[1], size[0]]])) for size in original_sizes]


class Both(Whole):
    tasks = ('instance', 'semantic')

    def __call__(self, output, original_sizes, task='instance', **options):
        if task == 'instance':
            return super().__call__(output, original_sizes)
        return [SemanticMap(np.full(size, 3, np.int16), np.full(10, 0.5, np.float32)) for size in original_sizes]


def test_one_that_finds_instances_says_no_to_maps(folder):
    with pytest.raises(ValueError, match="task is 'panoptic'; the postprocessor Whole knows instance only"):
        pipeline('image-segmentation', model=folder, device='cpu', postprocessor=Whole())
    segment = pipeline('image-segmentation', model=folder, device='cpu', postprocessor=Whole(),
                       default_task='instance')
    assert segment(picture())['labels'] == ['class 0']
    with pytest.raises(ValueError, match='say in its attribute `tasks`'):
        segment(picture(), task='semantic')


def test_one_that_makes_maps_is_used(folder):
    segment = pipeline('image-segmentation', model=folder, device='cpu', postprocessor=Both(), default_task='semantic')
    assert segment(picture())['labels'] == ['class 3'] and segment(picture(), task='instance')['labels'] == ['class 0']


def test_ours_as_an_object_learns_what_the_model_was_trained_for(folder, segment):
    own = FastInstPostprocessor(segment.model.classes, object_mask_threshold=0.4, overlap_threshold=0.0)
    other = pipeline('image-segmentation', model=folder, device='cpu', postprocessor=own)
    assert_same(other(picture()), segment(picture()))
