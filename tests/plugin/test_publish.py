"""Publishing a model folder, against a loopback hub that takes uploads."""
from __future__ import annotations

import json
import logging
import os
import re
import shutil
import socket

import pytest
import yaml
from PIL import Image

from modelscope_fastinst.model_card import write_model_card
from tests.plugin.hub_client import files_of
from tests.plugin.loopback_uploads import TOKEN, commits, visibilities
from tests.plugin.model_folders import scene, write_configuration, write_stock_folder
from tests.plugin.publishing_runs import ID, LICENCE, change_weights, error_of, publish, writes


def test_the_loopback_hub_takes_what_modelscope_s_own_upload_sends(hub, model):
    from modelscope.hub.api import HubApi
    HubApi(endpoint=hub.address, token=TOKEN).upload_folder(ID, model, use_cache=False, disable_tqdm=True)
    assert {name: content for name, content in files_of(hub.root / 'me' / 'nuclei').items() if name != 'README.md'} \
        == files_of(model)
    theirs = {re.sub('[0-9a-f]{64}', 'checksum', request) for request in writes(hub)}
    hub.requests.clear()
    change_weights(model)
    assert publish(model, id='me/other') == 0
    assert {re.sub('[0-9a-f]{64}', 'checksum', request).replace('me/other', ID) for request in writes(hub)} == theirs


def test_what_was_published_is_downloaded_by_its_id_bit_by_bit(hub, model, tmp_path, capsys):
    assert publish(model) == 0
    said = capsys.readouterr().out
    assert f'published (private): {hub.address}/models/{ID}' in said.splitlines()[-1]
    from modelscope_fastinst.plugin.build import build_segmenter
    segment = build_segmenter(ID, 'cpu')
    downloaded = files_of(segment.model.model_dir)
    assert downloaded == files_of(model) == files_of(hub.root / 'me' / 'nuclei')
    assert sorted(downloaded) == ['README.md', 'configuration.json', 'model.safetensors']
    mine = build_segmenter(str(model), 'cpu')(scene(), mask_format='rle', score_thr=0.1)
    assert mine == segment(scene(), mask_format='rle', score_thr=0.1) and mine['scores']


def test_the_card_that_is_published_says_how_to_run_it_by_its_id(hub, model):
    assert publish(model) == 0
    card = (hub.root / 'me' / 'nuclei' / 'README.md').read_text('utf-8')
    assert f"pipeline('image-segmentation', model='{ID}')" in card
    front = yaml.safe_load(card.split('---')[1])
    assert front['license'] == LICENCE and front['tasks'] == ['image-segmentation']


@pytest.mark.parametrize(('words', 'expected'), [
    pytest.param([], 1, id='private unless said otherwise'),
    pytest.param(['--visibility', 'public'], 5, id='public'),
])
def test_visibility_of_a_new_model(hub, model, words, expected):
    assert publish(model, *words) == 0
    assert visibilities(hub) == {ID: expected}


def test_everything_goes_in_one_commit(hub, model):
    Image.fromarray(scene()).save(model / 'cells.png')
    assert publish(model, '--example', str(model / 'cells.png'), '--message', 'the first') == 0
    assert [(commit['branch'], commit['message']) for commit in commits(hub)] == [('master', 'the first')]
    assert sorted(commits(hub)[0]['files']) == ['README.md', 'configuration.json', 'example.jpg', 'example_result.jpg',
                                                'model.safetensors']


def test_the_same_folder_again_uploads_nothing(hub, model, capsys):
    assert publish(model) == 0
    before = writes(hub)
    assert publish(model) == 0
    assert writes(hub) == before
    assert 'the hub has all of this already (private)' in capsys.readouterr().out


def test_of_a_changed_folder_only_what_changed_is_uploaded(hub, model):
    assert publish(model) == 0
    change_weights(model)
    assert publish(model) == 0
    assert commits(hub)[-1]['files'] == ['model.safetensors']
    assert files_of(hub.root / 'me' / 'nuclei') == files_of(model)


def test_a_model_of_the_hub_keeps_its_visibility(hub, model, capsys):
    assert publish(model) == 0
    assert publish(model, '--visibility', 'public') == 0
    assert 'was there already and stays private' in capsys.readouterr().out
    assert visibilities(hub) == {ID: 1}


def test_a_branch_is_written_to_and_master_stays(hub, model):
    assert publish(model) == 0
    shutil.copytree(hub.root / 'me' / 'nuclei', hub.root / 'me' / 'nuclei@next')
    before = files_of(hub.root / 'me' / 'nuclei')
    change_weights(model)
    assert publish(model, '--revision', 'next') == 0
    assert files_of(hub.root / 'me' / 'nuclei@next') == files_of(model)
    assert files_of(hub.root / 'me' / 'nuclei') == before


@pytest.mark.parametrize(('revision', 'message'), [
    pytest.param('nxt', 'is no branch of it; branches are master, next', id='no such branch'),
    pytest.param('v1', 'is a tag, which cannot be written to', id='a tag'),
])
def test_what_is_no_branch_is_refused(hub, model, revision, message, capsys):
    assert publish(model) == 0
    for name in ('next', 'v1'):
        shutil.copytree(hub.root / 'me' / 'nuclei', hub.root / 'me' / f'nuclei@{name}')
    before = writes(hub)
    capsys.readouterr()
    assert publish(model, '--revision', revision) == 1
    assert message in error_of(capsys)
    assert writes(hub) == before


def test_a_new_model_has_no_branches(hub, model, capsys):
    assert publish(model, '--revision', 'next') == 1
    assert 'publish it without --revision first' in error_of(capsys)
    assert writes(hub) == []


STRAYS = {'epoch_3.pth': 'not part of a model', 'epoch_3_trainer_state.pth': 'not part of a model',
          'log.jsonl': 'not part of a model', 'dump/big.bin': 'not part of a model', 'cells.png': 'not part of a model',
          '.secret': 'hidden', '.git/config': 'hidden', 'pytorch_model.pt': 'model.safetensors is loaded instead'}


def test_what_does_not_belong_to_a_model_stays_here(hub, model, capsys):
    for name in STRAYS:
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_bytes(b'mine')
    assert publish(model) == 0
    assert sorted(files_of(hub.root / 'me' / 'nuclei')) == ['README.md', 'configuration.json', 'model.safetensors']
    said = capsys.readouterr().out.splitlines()
    assert {f'  {name}: {reason}' for name, reason in STRAYS.items()} <= set(said)


def test_a_picture_that_the_card_shows_goes_along(hub, model):
    (model / 'pictures').mkdir()
    for name in ('shown.png', 'not shown.png'):
        Image.fromarray(scene()).save(model / 'pictures' / name)
    (model / 'README.md').write_text('---\nlicense: MIT License\n---\n# Mine\n\n![](pictures/shown.png)\n', 'utf-8')
    assert publish(model) == 0
    assert (hub.root / 'me' / 'nuclei' / 'pictures' / 'shown.png').read_bytes() \
        == (model / 'pictures' / 'shown.png').read_bytes()
    assert [path.name for path in (hub.root / 'me' / 'nuclei' / 'pictures').iterdir()] == ['shown.png']


def test_a_stock_folder_with_a_pickle_is_published_as_it_is(hub, tmp_path, capsys):
    folder = write_stock_folder(tmp_path / 'stock')
    assert publish(folder) == 0
    assert 'note: pytorch_model.pt is a pickle' in (said := capsys.readouterr().out) and 'convert' in said
    assert (hub.root / 'me' / 'nuclei' / 'pytorch_model.pt').read_bytes() == (folder / 'pytorch_model.pt').read_bytes()


def test_weights_on_the_hub_that_would_be_loaded_instead_are_an_error(hub, model, tmp_path, capsys):
    assert publish(model) == 0
    before = writes(hub)
    capsys.readouterr()
    assert publish(write_stock_folder(tmp_path / 'stock')) == 1
    assert 'model.safetensors of it, which would be loaded instead' in error_of(capsys)
    assert writes(hub) == before


# tokens and dry runs

def test_the_token_is_found_in_the_environment_and_written_nowhere(hub, model, tmp_path, capfd, monkeypatch):
    from modelscope_hub.config import HubConfig, set_default_config
    monkeypatch.setenv('MODELSCOPE_API_TOKEN', TOKEN)
    set_default_config(HubConfig())   # the client reads the environment once
    assert publish(model, '--debug', token=None) == 0
    captured = capfd.readouterr()
    assert TOKEN not in captured.out + captured.err
    written = [file for folder in (model, tmp_path / 'cache', hub.root) for file in folder.rglob('*') if file.is_file()]
    assert len(written) > 5 and not [file for file in written if TOKEN.encode() in file.read_bytes()]


def test_the_stored_login_serves(hub, model):
    from modelscope_hub.config import HubConfig, set_default_config
    HubConfig(token='').save_token(TOKEN)
    del os.environ['MODELSCOPE_API_TOKEN']
    set_default_config(HubConfig())
    assert publish(model, token=None) == 0


def test_a_dry_run_asks_no_hub_and_writes_nothing(hub, model, capsys, monkeypatch):
    def no_network(*_):
        raise AssertionError('a connection was opened')

    monkeypatch.setattr(socket.socket, 'connect', no_network)
    before = files_of(model)
    assert publish(model, '--dry-run', token=None) == 0
    said = capsys.readouterr().out
    assert hub.requests == [] and files_of(model) == before
    assert 'model.safetensors' in said and 'nothing was sent' in said
    front = yaml.safe_load(said.split('---\n')[1])
    assert front['license'] == LICENCE


def test_a_place_on_the_machine_in_the_configuration_is_told(hub, model, capsys):
    configuration = json.loads((model / 'configuration.json').read_text('utf-8'))
    configuration['dataset'] = {'train': {'root': '/data/nuclei'}}
    write_configuration(model, configuration)
    assert publish(model, '--dry-run') == 0
    assert 'dataset.train.root names a place on this machine' in capsys.readouterr().out


def test_what_a_model_lacks_is_told(hub, model, capsys):
    write_model_card(model, licence=LICENCE, trained=False)
    notes = ['not trained yet', 'not measured: run "modelscope-fastinst evaluate', 'no example picture: --example']
    assert publish(model, '--dry-run') == 0
    said = capsys.readouterr().out
    assert [note for note in notes if f'note: {note}' in said] == notes
    (model / 'README.md').unlink()
    Image.fromarray(scene()).save(model / 'example.jpg')
    record = {'command': 'modelscope-fastinst evaluate', 'date': '2026-01-31', 'data': 'val.json', 'images': 1,
              'measures': {'segm_mAP': 0.5}}
    (model / 'evaluation.json').write_text(json.dumps(record), 'utf-8')
    assert publish(model, '--dry-run') == 0
    assert 'note: ' not in capsys.readouterr().out


def test_publishing_leaves_modelscope_s_log_to_the_caller(hub, model, monkeypatch):
    from modelscope.utils.logger import get_logger

    from modelscope_fastinst.plugin.publishing import publish as publish_folder
    for handler in get_logger().handlers:
        monkeypatch.setattr(handler, 'level', logging.INFO)
    publish_folder(model, ID, licence=LICENCE, dry_run=True, device='cpu')
    assert {handler.level for handler in get_logger().handlers} == {logging.INFO}


def test_a_card_that_exists_is_published_with_what_somebody_wrote(hub, model):
    write_model_card(model, licence=LICENCE)
    card = model / 'README.md'
    card.write_text(card.read_text('utf-8') + '\n## Thanks\n\nTo everybody.\n', 'utf-8')
    assert publish(model) == 0
    assert 'To everybody.' in (hub.root / 'me' / 'nuclei' / 'README.md').read_text('utf-8')
