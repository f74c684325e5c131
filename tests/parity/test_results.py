"""Results against the post-processing of ``transformers``, where the two have one definition.

They part in five points, and each test keeps to what is common:

- ``transformers`` enlarges all masks to 384 x 384 pixels first, whatever the image was; we, as the authors, to the
  canvas of the network. They are equal for images of this size.
- It chooses instances among as many (query, class) pairs as there are queries, the authors among 100.
- Its instances are cut at 0 at that size and enlarged by their nearest pixel; the authors enlarge logits and cut then.
- Its panoptic maps give every pixel to a segment that was kept, and weigh probabilities by the query's score before
  they are compared with 0.5; the authors leave pixels below 0.5 void, and weigh only to tell segments apart. They are
  equal where scores are 1 and within the masks.
- A stuff class that was fused makes ``transformers`` count on from the fused segment's number, so that two segments can
  share an id; ours have different ones.
"""
from __future__ import annotations

import numpy as np
import pytest
import torch
from modelscope.models import Model
from modelscope.pipelines import pipeline
from transformers.models.mask2former.image_processing_mask2former import Mask2FormerImageProcessor

import modelscope_fastinst  # noqa: F401
from tests.parity.networks import CLASSES, TINY, folder_of, network, picture, varied

SIDE = 384


def run(tmp_path, task, sure=4.0, **options):
    """Their output, and what our pipeline makes of the same picture of 384 x 384 pixels."""
    image = picture(SIDE, SIDE)
    processor = Mask2FormerImageProcessor(size={'height': SIDE, 'width': SIDE})
    inputs = processor(image, return_tensors='pt')
    theirs = varied(network(encoder_layers=1, decoder_layers=3), inputs['pixel_values'], sure)
    folder = folder_of(theirs, tmp_path / f'tiny-{task}', size={'height': SIDE, 'width': SIDE})
    segment = pipeline('image-segmentation', model=str(folder), device='cpu', optimize=False, default_task=task,
                       postprocessor={'candidates': TINY['num_queries']} if task == 'instance' else None)
    with torch.inference_mode():
        output = theirs(**inputs)
    return output, segment(image[:, :, ::-1].copy(), **options)


def test_instances(tmp_path):
    output, found = run(tmp_path, 'instance', score_thr=0.05)
    expected = Mask2FormerImageProcessor().post_process_instance_segmentation(output, threshold=0.05,
                                                                              return_binary_maps=True)[0]
    assert len(found['scores']) == len(expected['segments_info']) > 3
    order = np.argsort([-segment['score'] for segment in expected['segments_info']], kind='stable')
    for place, index in enumerate(order):
        segment = expected['segments_info'][index]
        assert found['labels'][place] == CLASSES[segment['label_id']]
        assert found['scores'][place] == pytest.approx(segment['score'], abs=1e-5)
        assert (found['masks'][place] != expected['segmentation'][index].numpy()).mean() < 1e-5


@pytest.mark.parametrize('size', [pytest.param((SIDE, SIDE), id='size of the network'),
                                  pytest.param((200, 301), id='another size')])
def test_semantic_map(tmp_path, size):
    from modelscope_fastinst.results.semantic import SemanticPostprocessor
    from modelscope_fastinst.structures import NetworkOutput, Prediction
    output, _ = run(tmp_path, 'semantic')
    expected = Mask2FormerImageProcessor().post_process_semantic_segmentation(output, target_sizes=[size])[0]
    own = NetworkOutput(Prediction(output.class_queries_logits, output.masks_queries_logits), [], (SIDE, SIDE),
                        [(SIDE, SIDE)])
    found = SemanticPostprocessor(before_resize=True)(own, [size])[0]
    assert found.labels.shape == size
    assert (found.labels != expected.numpy()).mean() < 1e-4
    assert len(np.unique(found.labels)) > 1


def test_the_pipelines_semantic_map(tmp_path):
    output, found = run(tmp_path, 'semantic')
    expected = Mask2FormerImageProcessor().post_process_semantic_segmentation(output)[0]
    assert (found['label_map'] != expected.numpy()).mean() < 1e-4


def test_panoptic_map(tmp_path):
    output, found = run(tmp_path, 'panoptic', sure=400.0, overlap_threshold=0.05)
    expected = Mask2FormerImageProcessor().post_process_panoptic_segmentation(
        output, threshold=0.8, overlap_mask_area_threshold=0.05, label_ids_to_fuse=set())[0]
    segments, theirs = found['segments'], expected['segmentation'].numpy()
    assert len(segments) == len(expected['segments_info']) > 1
    inside = 0
    for segment in segments:
        mask = found['id_map'] == segment['id']
        ids, counts = np.unique(theirs[mask], return_counts=True)
        assert len(ids) == 1 and ids[0] != 0
        other = next(one for one in expected['segments_info'] if one['id'] == ids[0])
        assert segment['label'] == CLASSES[other['label_id']]
        assert segment['score'] == pytest.approx(other['score'], abs=1e-5)
        inside += int(counts.sum())
    assert inside > 0.05 * SIDE * SIDE


def test_a_folder_with_a_fixed_size_takes_pictures_of_any_shape(tmp_path):
    folder = folder_of(network(encoder_layers=1, decoder_layers=2), tmp_path, size={'height': 96, 'width': 128})
    segment = pipeline('image-segmentation', model=str(folder), device='cpu', score_thr=0.0)
    assert segment.preprocessor(picture(50, 200)).image.shape == (3, 96, 128)
    assert segment.preprocessor(picture(50, 200), min_size=64, max_size=256).image.shape == (3, 64, 256)
    found = segment(picture(50, 200))
    assert found['masks'][0].shape == (50, 200)
    assert Model.from_pretrained(str(folder), device='cpu').task == 'instance'
