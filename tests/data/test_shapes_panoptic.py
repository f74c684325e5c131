"""Drawn shapes over patterns: maps, targets and files agree."""
import json

import numpy as np
import pytest
from PIL import Image

from modelscope_fastinst.data.shapes_panoptic import PATTERNS, PanopticShapes, semantic_map
from modelscope_fastinst.structures import VOID


def test_a_sample_depends_on_seed_and_index_alone():
    one, other = PanopticShapes(5, 64, seed=3)[2], PanopticShapes(3, 64, seed=3)[2]
    assert (one.image == other.image).all() and (one.truth.ids == other.truth.ids).all()
    assert not (one.image == PanopticShapes(3, 64, seed=4)[2].image).all()


@pytest.mark.parametrize('void', [pytest.param(False, id='every pixel'), pytest.param(True, id='with void')])
def test_segments_say_what_the_map_holds(void):
    data = PanopticShapes(4, (72, 96), seed=1, void=void)
    for index in range(len(data)):
        sample = data[index]
        ids, segments = sample.truth.ids, sample.truth.segments
        assert sorted(set(np.unique(ids)) - {0}) == [segment.id for segment in segments]
        for segment, mask, label in zip(segments, sample.target.masks.numpy(), sample.target.labels, strict=True):
            assert segment.area == (ids == segment.id).sum() and (mask == (ids == segment.id)).all()
            assert segment.label == label and segment.isthing == (data.classes[label] in data.things)
            x, y, width, height = segment.bbox
            assert mask[y:y + height, x:x + width].sum() == segment.area
            assert mask[y].any() and mask[y + height - 1].any() and mask[:, x].any() and mask[:, x + width - 1].any()
    assert set(data.classes) - set(data.things) == set(PATTERNS)


def test_only_images_with_void_have_unlabelled_borders():
    with_void, without = (PanopticShapes(6, 96, seed=2, void=void) for void in (True, False))
    share = [np.mean([(data.draw_map(index)[1].ids == 0).mean() for index in range(6)])
             for data in (with_void, without)]
    assert share[1] < share[0] < 0.1


def test_semantic_samples_have_one_mask_a_class():
    panoptic, semantic = (PanopticShapes(3, 96, seed=5, task=task, void=True) for task in ('panoptic', 'semantic'))
    for index in range(3):
        truth, sample = panoptic[index].truth, semantic[index]
        assert (sample.truth.labels == semantic_map(truth).labels).all()
        assert sample.target.labels.tolist() == sorted({segment.label for segment in truth.segments})
        assert (sample.target.masks.sum(0).numpy() == (sample.truth.labels != VOID)).all()


def test_an_unknown_task_is_named():
    with pytest.raises(ValueError, match="task is 'instances'; it must be one of panoptic, semantic"):
        PanopticShapes(1, task='instances')


def test_written_files_hold_what_was_drawn(tmp_path):
    data = PanopticShapes(2, (64, 80), seed=7, void=True)
    annotation_file, panoptic_dir, image_dir = data.write_coco_panoptic(tmp_path, 'val')
    content = json.loads((tmp_path / 'annotations' / 'panoptic_val.json').read_text())
    assert str(tmp_path / 'annotations' / 'panoptic_val.json') == annotation_file
    assert [(one['name'], one['isthing']) for one in content['categories']] == [
        (name, int(name in data.things)) for name in data.classes]
    for index, annotation in enumerate(content['annotations']):
        image, truth = data.draw_map(index)
        assert (np.asarray(Image.open(f'{image_dir}/{annotation["file_name"]}')) == image).all()
        coded = np.asarray(Image.open(f'{panoptic_dir}/{annotation["file_name"]}')).astype(int)
        assert (coded @ (1, 256, 65536) == truth.ids).all()
        assert [(one['id'], one['category_id'] - 1, one['area']) for one in annotation['segments_info']] == [
            (segment.id, segment.label, segment.area) for segment in truth.segments]
