"""Wrong values of a data set's section are found before anything is read."""
from __future__ import annotations

import pytest
from modelscope.utils.config import Config

from modelscope_fastinst.plugin.data_values import check_section
from modelscope_fastinst.plugin.dataset import open_data, open_dataset
from modelscope_fastinst.plugin.trainer_keys import ConfigurationError

ROOT = {'root': 'photos'}


@pytest.mark.parametrize('section', [
    pytest.param(None, id='none'),
    pytest.param({}, id='empty'),
    pytest.param({**ROOT, 'type': 'fastinst', 'mode': 'train'}, id="ModelScope's keys"),
    pytest.param({**ROOT, 'val_fraction': 0, 'split': None, 'format': None}, id='nothing chosen'),
    pytest.param({**ROOT, 'split': 'val', 'format': 'voc', 'val_fraction': 0.5, 'split_seed': 3, 'classes': ['a'],
                  'skip_empty': False, 'on_problem': 'skip'}, id='everything'),
    pytest.param({'annotation_file': 'a.json', 'image_dir': 'a'}, id='files'),
])
def test_right_sections_pass(section):
    check_section(section, 'dataset.train')


@pytest.mark.parametrize(('section', 'message'), [
    pytest.param(['photos'], r"dataset.train must be a mapping.*got \['photos'\]", id='a list'),
    pytest.param({**ROOT, 'splt': 'val'}, "unknown key 'splt'; did you mean 'split'", id='unknown key'),
    pytest.param({'root': 5}, 'dataset.train.root is 5; it must be a path', id='root'),
    pytest.param({**ROOT, 'split': 3}, 'dataset.train.split is 3', id='split'),
    pytest.param({**ROOT, 'format': 'cvat'}, "dataset.train.format is 'cvat'; it must be one of coco", id='format'),
    pytest.param({**ROOT, 'val_fraction': 20}, 'dataset.train.val_fraction is 20; .* from 0 to below 1', id='percent'),
    pytest.param({**ROOT, 'val_fraction': '0.2'}, "dataset.train.val_fraction is '0.2'", id='fraction as text'),
    pytest.param({**ROOT, 'split_seed': 'a'}, "dataset.train.split_seed is 'a'; it must be a whole", id='seed'),
    pytest.param({**ROOT, 'skip_empty': 'no'}, "dataset.train.skip_empty is 'no'; it must be true or", id='skip_empty'),
    pytest.param({**ROOT, 'on_problem': 'ignore'}, 'dataset.train.on_problem is .*"raise" or "skip"', id='on_problem'),
    pytest.param({**ROOT, 'classes': 'date'}, "dataset.train.classes is 'date'; it must be a list", id='one class'),
    pytest.param({**ROOT, 'classes': ['date', 'date']}, 'a list of different class names', id='a class twice'),
    pytest.param({**ROOT, 'annotation_file': 'a.json', 'image_dir': 'a'}, 'has annotation_file and root', id='both'),
    pytest.param({'annotation_file': 'a.json'}, 'annotation_file is given without image_dir', id='no images'),
    pytest.param({'image_dir': 'a'}, 'image_dir is given without annotation_file', id='no annotations'),
])
def test_wrong_sections_are_named(section, message):
    with pytest.raises(ConfigurationError, match=message):
        check_section(section, 'dataset.train')


def test_both_sections_are_looked_at_before_either_is_read():
    cfg = Config({'preprocessor': {}, 'model': {}, 'dataset': {
        'train': {'root': 'there-is-no-such-folder'}, 'val': {'root': 'neither', 'val_fraction': 20}}})
    with pytest.raises(ConfigurationError, match='dataset.val.val_fraction is 20'):
        open_data(cfg, None, None, None, None, [], 'x.json')


def test_a_mapping_of_the_caller_is_called_by_its_argument():
    with pytest.raises(ConfigurationError, match="eval_dataset.skip_empty is 'no'"):
        open_dataset({**ROOT, 'skip_empty': 'no'}, None, 'eval', None, None)
