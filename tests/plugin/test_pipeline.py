"""``pipeline('image-segmentation', model=folder)``: results, options, batches, parts of one's own."""
from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from modelscope.models import Model
from modelscope.models.builder import MODELS
from modelscope.outputs import OutputKeys
from modelscope.pipelines import pipeline
from PIL import Image

import modelscope_fastinst  # noqa: F401
from modelscope_fastinst.plugin.pipeline import FastInstPipeline
from modelscope_fastinst.plugin.postprocessor import POSTPROCESSORS
from modelscope_fastinst.plugin.preprocessor import FastInstPreprocessor
from modelscope_fastinst.results.rle import decode
from modelscope_fastinst.structures import Instances
from tests.golden_cases import fill, load
from tests.plugin.model_folders import (
    SINGLE_IMAGE_CASE,
    assert_same,
    scene,
    stock_configuration,
    write_configuration,
    write_stock_folder,
)

SIZES = {'min_size': 128, 'max_size': 160}   # of the network's input: the scene's own


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return write_stock_folder(tmp_path_factory.mktemp('stock'))


@pytest.fixture(scope='module')
def segment(folder):
    return pipeline('image-segmentation', model=str(folder), device='cpu', **SIZES)


def pictures(*sizes):
    return [np.ascontiguousarray(fill.make_scene(height, width, seed)[0][:, :, ::-1])
            for seed, (height, width) in enumerate(sizes)]


# ----------------------------------------------------------------------------- results

def test_result_is_four_lists_best_first(segment):
    image = scene()
    result = segment(image, score_thr=0.1)
    assert list(result) == [OutputKeys.SCORES, OutputKeys.LABELS, OutputKeys.MASKS, OutputKeys.BOXES]
    number = len(result['scores'])
    assert number > 5 and {len(values) for values in result.values()} == {number}
    assert all(type(score) is float and 0.1 <= score <= 1 for score in result['scores'])
    assert result['scores'] == sorted(result['scores'], reverse=True)
    assert set(result['labels']) <= {f'class {index}' for index in range(10)}
    for mask, box in zip(result['masks'], result['boxes']):
        assert mask.dtype == np.uint8 and mask.shape == image.shape[:2] and set(np.unique(mask)) <= {0, 1}
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert box == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def test_nothing_found_gives_empty_lists(segment):
    assert segment(scene(), score_thr=1.0) == {'scores': [], 'labels': [], 'masks': [], 'boxes': []}


def test_masks_have_the_size_of_the_image(segment):
    image = pictures((37, 211))[0]
    assert {mask.shape for mask in segment(image, score_thr=0)['masks']} == {(37, 211)}


@pytest.mark.parametrize('size', [pytest.param((1, 1), id='one pixel'), pytest.param((1, 4000), id='a line')])
def test_extreme_sizes_work(folder, size):
    result = pipeline('image-segmentation', model=str(folder), device='cpu')(np.zeros(size, np.uint8), score_thr=0)
    assert result['scores'] and {mask.shape for mask in result['masks']} == {size}


def test_device_names(folder):
    expected = None
    for device in ('cpu', 'gpu', 'cuda:0'):
        if device != 'cpu' and torch.cuda.is_available():
            continue   # another device rounds in another way
        result = pipeline('image-segmentation', model=str(folder), device=device)(scene())
        assert_same(result, expected or result)
        expected = result


def test_optimized_and_plain_networks_agree(folder, segment):
    plain = pipeline('image-segmentation', model=str(folder), device='cpu', optimize=False, **SIZES)
    sample = plain.preprocess(scene())
    with torch.no_grad():
        fast, slow = segment.forward([sample]).final, plain.forward([sample]).final
    assert not torch.equal(fast.logits, slow.logits)
    assert torch.allclose(fast.logits, slow.logits, atol=1e-2) and torch.allclose(fast.masks, slow.masks, atol=1e-2)


# ----------------------------------------------------------------------------- options

def test_score_thr(segment):
    everything = segment(scene(), score_thr=0)
    threshold = everything['scores'][3]
    assert segment(scene(), score_thr=threshold)['scores'] == everything['scores'][:4]


def test_max_instances(segment):
    everything, best = segment(scene(), score_thr=0), segment(scene(), score_thr=0, max_instances=3)
    assert_same(best, {key: values[:3] for key, values in everything.items()})


@pytest.mark.parametrize('classes', [
    pytest.param(['class 4'], id='one'),
    pytest.param(['class 4', 'class 1'], id='two'),
    pytest.param('class 4', id='a name that is no list'),
])
def test_classes(segment, classes):
    labels = segment(scene(), score_thr=0, classes=classes)['labels']
    assert labels and set(labels) <= ({classes} if isinstance(classes, str) else set(classes))


def test_no_classes_find_nothing(segment):
    assert segment(scene(), score_thr=0, classes=[])['labels'] == []


def test_rle_masks_are_the_array_masks(segment):
    arrays, runs = segment(scene(), score_thr=0), segment(scene(), score_thr=0, mask_format='rle')
    np.testing.assert_array_equal(decode(runs['masks']), np.stack(arrays['masks']))
    assert arrays['boxes'] == runs['boxes'] and json.dumps(runs)


def test_sizes_of_the_networks_input(segment):
    seen = []
    handle = segment.model.network.register_forward_hook(lambda _, __, output: seen.append(output.sizes[0]))
    segment(scene())
    segment(scene(), min_size=64)
    segment(scene(), max_size=80)
    handle.remove()
    assert seen == [(128, 160), (64, 80), (64, 80)]


@pytest.mark.parametrize('options, error, message', [
    pytest.param({'threshold': 0.5}, TypeError, r"\['threshold'\]; valid are batch_size, min_size", id='name'),
    pytest.param({'classes': ['dog']}, ValueError, r"does not know \['dog'\]; it knows \['class 0'", id='class'),
    pytest.param({'score_thr': 2}, ValueError, 'score_thr is 2', id='score'),
    pytest.param({'mask_format': 'png'}, ValueError, "mask_format is 'png'; it must be one of array, rle", id='format'),
    pytest.param({'max_instances': -1}, ValueError, 'max_instances is -1', id='number'),
    pytest.param({'max_instances': 1.5}, ValueError, 'max_instances is 1.5', id='broken number'),
    pytest.param({'classes': 3}, ValueError, 'classes is 3; it must be a list of class names', id='class a number'),
    pytest.param({'min_size': 0}, ValueError, 'min_size', id='size'),
    pytest.param({'max_size': '640'}, ValueError, "max_size must be a whole number .* got '640'", id='size a string'),
])
def test_wrong_options_are_clear_errors_at_once(folder, segment, options, error, message):
    def forward(*_):
        raise AssertionError('the network ran')

    handle = segment.model.network.register_forward_pre_hook(forward)
    try:
        with pytest.raises(error, match=message):
            segment(scene(), **options)
    finally:
        handle.remove()
    with pytest.raises(error, match=message.partition('; valid')[0]):
        pipeline('image-segmentation', model=str(folder), device='cpu', **options)


def test_none_leaves_the_sizes_as_they_are(segment):
    assert_same(segment(scene(), min_size=None, max_size=None), segment(scene()))


@pytest.mark.parametrize('batch_size', [0, -1, 1.5, True, 'two'])
def test_wrong_batch_sizes_are_clear_errors(segment, batch_size):
    with pytest.raises(ValueError, match='batch_size is .*; it must be a whole number, at least 1'):
        segment([scene()], batch_size=batch_size)


def test_defaults_of_a_call_come_from_the_construction_before_the_configuration(folder, tmp_path):
    configuration = json.loads((folder / 'configuration.json').read_text())
    configuration['preprocessor'] = {'type': 'fastinst-preprocessor', **SIZES}
    configuration['postprocessor'] = {'type': 'fastinst-postprocessor', 'score_thr': 0.0, 'max_instances': 4}
    write_stock_folder(tmp_path, configuration=configuration)
    configured = pipeline('image-segmentation', model=str(tmp_path), device='cpu')
    constructed = pipeline('image-segmentation', model=str(tmp_path), device='cpu', max_instances=2)
    assert len(configured(scene())['scores']) == 4
    assert len(constructed(scene())['scores']) == 2
    assert len(constructed(scene(), max_instances=1)['scores']) == 1
    assert len(constructed(scene())['scores']) == 2
    assert configured.preprocess(scene()).image.shape == (3, 128, 160)


def test_stock_folder_gets_the_recipes_sizes(folder):
    assert pipeline('image-segmentation', model=str(folder)).preprocess(scene()).image.shape == (3, 640, 800)


def test_unknown_argument_of_the_construction_is_a_clear_error(folder):
    with pytest.raises(TypeError, match=r"\['optimise'\]; valid are model, preprocessor, postprocessor, optimize"):
        pipeline('image-segmentation', model=str(folder), optimise=True)


# ----------------------------------------------------------------------------- lists

def test_list_gives_a_list_in_order(segment):
    images = pictures((128, 160), (160, 128), (100, 160), (128, 130))
    results = segment(images, score_thr=0)
    for image, result in zip(images, results, strict=True):
        assert_same(result, segment(image, score_thr=0))
    assert segment([]) == [] and segment([], batch_size=4) == []


@pytest.mark.parametrize('batch_size', [1, 2, 3, 8])
def test_batching_changes_no_result(segment, batch_size):
    images = pictures((128, 160), (160, 128), (100, 160), (128, 130), (120, 150), (150, 120), (128, 160))
    results = segment(images, batch_size=batch_size, score_thr=0, min_size=4000)
    for image, result in zip(images, results, strict=True):
        assert_same(result, segment(image, score_thr=0, min_size=4000))


def test_only_images_of_equal_canvas_share_a_batch(folder, monkeypatch):
    segment = pipeline('image-segmentation', model=str(folder), device='cpu', min_size=4000, max_size=160)
    batches = []

    def recorded(samples, params, segment_together=segment._segment):
        batches.append([tuple(sample.image.shape[1:]) for sample in samples])
        return segment_together(samples, params)
    monkeypatch.setattr(segment, '_segment', recorded)
    segment(pictures((128, 160), (160, 100), (100, 160), (121, 160), (160, 97)), batch_size=2)
    assert batches == [[(128, 160), (100, 160)], [(160, 100), (160, 97)], [(121, 160)]]


def test_a_data_set_is_iterated(segment, tmp_path):
    from datasets import Dataset
    from modelscope.msdatasets import MsDataset
    paths = []
    for height in (128, 96):
        paths.append(str(tmp_path / f'{height}.png'))
        Image.fromarray(scene()[:height]).save(paths[-1])
    data = MsDataset.to_ms_dataset(Dataset.from_dict({'image': paths}), target='image')
    assert [len(result['masks'][0]) for result in segment(data, score_thr=0)] == [128, 96]


def test_threads_do_not_disturb_each_other(segment):
    images = pictures((128, 160), (160, 128), (90, 160), (160, 160))
    jobs = [(image, {'score_thr': 0, 'max_instances': number, 'max_size': size})
            for image in images for number, size in ((3, 160), (8, 96))]
    expected = [segment(image, **options) for image, options in jobs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda job: segment(job[0], **job[1]), jobs * 3))
    for result, reference in zip(found, expected * 3, strict=True):
        assert_same(result, reference)


# ----------------------------------------------------------------------------- parts of one's own

def test_model_object_stays_as_it_is(folder, segment):
    model = Model.from_pretrained(str(folder), device='cpu')
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    other = pipeline('image-segmentation', model=model, device='cpu', **SIZES)
    assert_same(other(scene()), segment(scene()))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_registered_model_is_used(tmp_path):
    from modelscope_fastinst.plugin.model import FastInstModel

    @MODELS.register_module('image-segmentation', 'test-always-class-7', force=True)
    class Always(FastInstModel):
        def forward(self, images, **_):
            output = super().forward(images)
            output.final.logits[..., 7] = 50
            return output

    write_stock_folder(tmp_path, type='test-always-class-7')
    segment = pipeline('image-segmentation', model=str(tmp_path), device='cpu', **SIZES)
    assert set(segment(scene())['labels']) == {'class 7'}


def test_preprocessor_object_is_used(folder, segment):
    class Upside(FastInstPreprocessor):
        def __call__(self, data, **options):
            return super().__call__(data[::-1], **options)

    other = pipeline('image-segmentation', model=str(folder), device='cpu', preprocessor=Upside(**SIZES))
    assert_same(other(scene()[::-1]), segment(scene()))


class Fixed:
    """A postprocessor that finds the whole image, once for each option that it is given."""

    def __init__(self, class_names, label=0):
        self.class_names, self.label = class_names, label

    def __call__(self, output, original_sizes, **options):
        number = len(options)
        return [Instances(np.ones(number, np.float32), np.full(number, self.label), np.ones((number, *size), np.uint8),
                          np.tile([0, 0, size[1], size[0]], (number, 1))) for size in original_sizes]


@pytest.fixture
def registered():
    POSTPROCESSORS.register_module('image-segmentation', 'test-fixed', Fixed)
    yield
    del POSTPROCESSORS.modules['image-segmentation']['test-fixed']


@pytest.mark.parametrize('given, label', [
    pytest.param(Fixed(None, 2), 'class 2', id='object'),
    pytest.param('test-fixed', 'class 0', id='name'),
    pytest.param({'type': 'test-fixed', 'label': 3}, 'class 3', id='section'),
])
def test_postprocessor_is_used(folder, registered, given, label):
    segment = pipeline('image-segmentation', model=str(folder), device='cpu', postprocessor=given, **SIZES)
    result = segment(scene(), score_thr=0.3)
    assert result['labels'] == [label] and result['boxes'] == [[0, 0, 160, 128]]


def test_postprocessor_of_the_configuration_is_used(tmp_path, registered):
    configuration = stock_configuration(load(SINGLE_IMAGE_CASE))
    configuration['postprocessor'] = {'type': 'test-fixed', 'label': 5}
    write_stock_folder(tmp_path, configuration=configuration)
    segment = pipeline('image-segmentation', model=str(tmp_path), device='cpu', **SIZES)
    assert segment(scene(), score_thr=0.3)['labels'] == ['class 5']


@pytest.mark.parametrize('section, message', [
    pytest.param({'type': 'os.system'}, r"'os.system' is not registered; known are \['fastinst-postprocessor'\]",
                 id='a name that could be imported'),
    pytest.param({'score_threshold': 0.5}, r"postprocessor: unknown settings \['score_threshold'\]; known are type, "
                 'score_thr, max_instances, classes, mask_format, candidates', id='unknown setting'),
    pytest.param({'score_thr': 3}, 'score_thr is 3', id='out of range'),
    pytest.param({'classes': ['dog']}, r"does not know \['dog'\]", id='unknown class'),
])
def test_wrong_postprocessor_sections_are_clear_errors(folder, section, message):
    with pytest.raises(ValueError, match=message):
        pipeline('image-segmentation', model=str(folder), postprocessor=section)


# ----------------------------------------------------------------------------- configurations that cannot work

@pytest.mark.parametrize('missing, message', [
    pytest.param('framework', 'configuration.json: framework missing; a FastInst model needs', id='framework'),
    pytest.param('task', 'configuration.json: task missing', id='task'),
    pytest.param('model', 'configuration.json: model.type missing', id='model'),
])
def test_incomplete_configurations_are_clear_errors(tmp_path, missing, message):
    write_stock_folder(tmp_path)
    configuration = stock_configuration(load(SINGLE_IMAGE_CASE))
    del configuration[missing]
    write_configuration(tmp_path, configuration)
    with pytest.raises(ValueError, match=message):
        pipeline('image-segmentation', model=str(tmp_path))


def test_preprocessor_section_without_a_type_is_an_error(tmp_path):
    configuration = stock_configuration(load(SINGLE_IMAGE_CASE))
    configuration['preprocessor'] = {'min_size': 640}
    write_stock_folder(tmp_path, configuration=configuration)
    with pytest.raises(ValueError, match='configuration.json: preprocessor.type is missing'):
        pipeline('image-segmentation', model=str(tmp_path))


def test_pipeline_without_weights_is_an_error(tmp_path):
    write_stock_folder(tmp_path, weights=False)
    with pytest.raises(ValueError, match=f'{tmp_path}: the model folder holds no weights'):
        pipeline('image-segmentation', model=str(tmp_path))


def test_several_models_are_an_error(folder):
    with pytest.raises(TypeError, match='takes one model'):
        FastInstPipeline(model=[str(folder)])
