"""Publishing models of other tasks and architectures."""
from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from modelscope_fastinst.card_file import front_matter
from modelscope_fastinst.checkpoints import read_state_dict
from modelscope_fastinst.checksum import file_sha256
from modelscope_fastinst.plugin.conversion import convert
from modelscope_fastinst.plugin.model import Mask2FormerModel
from modelscope_fastinst.plugin.publishing import PublishError, publish

CLASSES, THINGS = ['ant', 'bee', 'leaf'], ['ant', 'bee']


def write_model(folder, task: str) -> None:
    """A Mask2Former with random weights."""
    model: dict[str, Any] = {
        'task': task, 'classes': CLASSES,
        'backbone': {'depth': 18, 'stem_out_channels': 8, 'res2_out_channels': 8,
                     'out_features': ['res2', 'res3', 'res4', 'res5']},
        'encoder': {'convs_dim': 32, 'nheads': 2, 'enc_layers': 1, 'dim_feedforward': 32},
        'decoder': {'num_classes': 3, 'hidden_dim': 32, 'num_queries': 9, 'nheads': 2, 'dim_feedforward': 32,
                    'dec_layers': 3, 'mask_dim': 32},
        **({'things': THINGS} if task == 'panoptic' else {})}
    configuration = {'framework': 'pytorch', 'task': 'image-segmentation',
                     'pipeline': {'type': 'mask2former-image-segmentation'}, 'model': {'type': 'mask2former', **model},
                     'preprocessor': {'type': 'fastinst-preprocessor', 'min_size': 64, 'max_size': 96}}
    Mask2FormerModel(pretrained=False, **model).save_pretrained(folder, config=configuration)


@pytest.mark.parametrize(('task', 'measures', 'titles'), [
    pytest.param('panoptic', {'PQ': 0.5, 'mIoU': 0.25}, ['PQ', 'mIoU'], id='panoptic'),
    pytest.param('semantic', {'mIoU': 0.25}, ['mIoU'], id='semantic'),
])
def test_a_model_that_runs_is_described_and_would_be_published(task, measures, titles, tmp_path):
    write_model(tmp_path / 'm', task)
    record = {'command': 'modelscope-fastinst evaluate', 'date': '2026-01-31', 'data': 'val', 'images': 7,
              'measures': measures, 'weights': {'sha256': file_sha256(tmp_path / 'm' / 'model.safetensors')}}
    (tmp_path / 'm' / 'evaluation.json').write_text(json.dumps(record), 'utf-8')
    publication = publish(tmp_path / 'm', 'me/ants', licence='MIT License', dry_run=True)
    assert set(publication.files) == {'README.md', 'configuration.json', 'model.safetensors', 'evaluation.json'}
    front = front_matter(publication.card, 'README.md')
    assert front['metrics'] == titles and front['tags'][0] == f'{task} segmentation'
    assert front['tags'][-1] == 'Mask2Former' and front['license'] == 'MIT License'
    assert not any('not measured' in note for note in publication.notes)


def test_a_folder_of_hugging_face_s_is_to_be_converted_first(tmp_path):
    (tmp_path / 'config.json').write_text('{"model_type": "mask2former"}', 'utf-8')
    with pytest.raises(PublishError, match=r'Hugging Face\'s; publish what "modelscope-fastinst convert .* TARGET"'):
        publish(tmp_path, 'me/ants', licence='MIT License', dry_run=True)


@pytest.mark.parametrize(('name', 'licence'), [
    pytest.param('model_final_9fd0ae.pkl', 'CC BY-NC 4.0', id='one of the authors'),
    pytest.param('model_final.pkl', None, id='of nobody known'),
])
def test_a_converted_file_of_the_authors_keeps_their_licence(name, licence, tmp_path):
    write_model(tmp_path / 'm', 'panoptic')
    torch.save({'model': read_state_dict(tmp_path / 'm')}, tmp_path / name)
    convert(tmp_path / name, tmp_path / 'made', config=str(tmp_path / 'm' / 'configuration.json'), device='cpu')
    card = (tmp_path / 'made' / 'README.md').read_text('utf-8')
    assert front_matter(card, 'README.md').get('license') == licence
    assert name in card and str(tmp_path) not in card
