"""What is not published, and what is left when publishing fails: the folder, and the model on the hub, as before."""
from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path

import pytest

from modelscope_fastinst.checksum import file_sha256
from modelscope_fastinst.cli import main
from tests.plugin.hub_client import files_of
from tests.plugin.loopback_hub import serve
from tests.plugin.loopback_uploads import TOKEN, UploadHandler, commits
from tests.plugin.model_folders import write_configuration, write_stock_folder
from tests.plugin.publishing_runs import ID, LICENCE, change_weights, error_of, publish

# refused before the hub is asked

def _without_weights(folder: Path) -> None:
    (folder / 'model.safetensors').unlink()


def _cut_off(folder: Path) -> None:
    os.truncate(folder / 'model.safetensors', 5000)


def _other_network(folder: Path) -> None:
    configuration = json.loads((folder / 'configuration.json').read_text('utf-8'))
    configuration['model']['decoder']['dec_layers'] += 1
    write_configuration(folder, configuration)


def _no_task(folder: Path) -> None:
    configuration = json.loads((folder / 'configuration.json').read_text('utf-8'))
    del configuration['task']
    write_configuration(folder, configuration)


def _random_weights(folder: Path) -> None:
    configuration = json.loads((folder / 'configuration.json').read_text('utf-8'))
    configuration['model']['pretrained'] = False
    write_configuration(folder, configuration)


def _broken_card(folder: Path) -> None:
    (folder / 'README.md').write_text('---\ntags: [\n---\n', 'utf-8')


@pytest.mark.parametrize(('spoil', 'message'), [
    pytest.param(_without_weights, 'holds no weights', id='no weights'),
    pytest.param(_cut_off, 'does not load and run', id='weights cut off'),
    pytest.param(_other_network, 'does not load and run', id='weights of another network'),
    pytest.param(_no_task, 'task missing', id='configuration incomplete'),
    pytest.param(_random_weights, 'random weights', id='pretrained is false'),
    pytest.param(_broken_card, 'the front matter is no YAML', id='broken card'),
    pytest.param(shutil.rmtree, 'no such folder', id='no folder'),
])
def test_a_folder_that_does_not_load_is_refused(hub, model, spoil, message, capsys):
    spoil(model)
    before = files_of(model) if model.is_dir() else None
    assert publish(model, '--license', LICENCE) == 1
    assert message in error_of(capsys)
    assert hub.requests == [] and (before is None or files_of(model) == before)


@pytest.mark.parametrize(('words', 'message'), [
    pytest.param({'id': 'nuclei'}, 'owner/name', id='no owner'),
    pytest.param({'id': 'me/a/b'}, 'owner/name', id='two slashes'),
    pytest.param({'id': '../nuclei'}, 'owner/name', id='a path'),
    pytest.param({'id': 'me/nuclei.pth'}, 'not end as a file of weights', id='a file'),
    pytest.param({'id': 'me/nuclei?x=1'}, 'owner/name', id='characters of an address'),
    pytest.param({'token': ''}, 'there is no token', id='no token'),
])
def test_a_request_that_makes_no_sense_is_refused(hub, model, words, message, capsys):
    assert publish(model, **words) == 1
    assert message in error_of(capsys)
    assert hub.requests == []


def test_without_a_licence_nothing_is_published(hub, model, capsys):
    assert main(['publish', str(model), '--id', ID, '--token', TOKEN]) == 1
    assert '--license' in error_of(capsys)
    assert hub.requests == [] and not (model / 'README.md').exists()


def test_a_measurement_of_other_weights_is_refused(hub, model, capsys):
    record = {'command': 'modelscope-fastinst evaluate', 'date': '2026-01-31', 'data': 'val.json', 'images': 1,
              'measures': {'segm_mAP': 0.5}, 'weights': {'file': 'model.safetensors', 'sha256': '0' * 64}}
    (model / 'evaluation.json').write_text(json.dumps(record), 'utf-8')
    assert publish(model) == 1
    assert 'measured other weights' in error_of(capsys)


def test_a_measurement_from_elsewhere_is_shown_and_kept(hub, model, tmp_path):
    record = {'command': 'modelscope-fastinst evaluate', 'date': '2026-01-31', 'data': 'val.json', 'images': 7,
              'measures': {'segm_mAP': 0.437}, 'weights': {'sha256': file_sha256(model / 'model.safetensors')}}
    (tmp_path / 'elsewhere.json').write_text(json.dumps(record), 'utf-8')
    assert publish(model, '--metrics', str(tmp_path / 'elsewhere.json')) == 0
    assert '| 0.437 |' in (hub.root / 'me' / 'nuclei' / 'README.md').read_text('utf-8')
    assert (model / 'evaluation.json').read_bytes() == (tmp_path / 'elsewhere.json').read_bytes()
    assert publish(model) == 0 and len(commits(hub)) == 1


# the hub refuses, or is not there: one line, and the folder is as it was

@pytest.mark.parametrize(('words', 'message'), [
    pytest.param({'token': 'ms-wrong'}, 'does not accept the token', id='wrong token'),
    pytest.param({'id': 'somebody/nuclei'}, 'the owner must be you', id='not the owner of a new model'),
])
def test_the_hub_refuses(hub, model, words, message, capsys):
    before = files_of(model)
    assert publish(model, **words) == 1
    assert message in (said := error_of(capsys)) and 'ms-wrong' not in said
    assert files_of(model) == before and commits(hub) == []


def test_a_model_of_somebody_else_is_not_written_to(hub, model, capsys):
    write_stock_folder(hub.root / 'somebody' / 'nuclei')
    (hub.root / 'somebody' / 'nuclei' / 'pytorch_model.pt').unlink()
    before = files_of(hub.root / 'somebody' / 'nuclei')
    assert publish(model, id='somebody/nuclei') == 1
    assert 'the owner must be you' in error_of(capsys)
    assert files_of(hub.root / 'somebody' / 'nuclei') == before


@pytest.mark.parametrize('where', ['upload', 'commit'])
def test_a_connection_that_is_cut_once_is_tried_again(hub, model, where, impatient):
    hub.faults[where] = 'cut once'
    assert publish(model) == 0
    assert hub.faults == {} and files_of(hub.root / 'me' / 'nuclei') == files_of(model)


@pytest.mark.parametrize(('fault', 'message'), [
    pytest.param({'upload': 'cut'}, 'model.safetensors: cannot be written to: the connection', id='cut in mid-upload'),
    pytest.param({'commit': 'cut'}, 'nuclei: cannot be written to: the connection', id='cut in the commit'),
    pytest.param({'commit': 'refused'}, 'the model is frozen', id='commit refused'),
])
def test_after_a_failed_upload_hub_and_folder_have_what_they_had(hub, model, fault, message, capsys, impatient):
    assert publish(model) == 0
    before = files_of(hub.root / 'me' / 'nuclei')
    change_weights(model)
    (model / 'LICENSE').write_text('new', 'utf-8')
    mine = files_of(model)
    hub.faults.update(fault)
    capsys.readouterr()
    assert publish(model, '--base-model', 'damo/another') == 1
    assert message in (said := error_of(capsys)) and 'empty repository' not in said
    assert files_of(hub.root / 'me' / 'nuclei') == before and files_of(model) == mine
    hub.faults.clear()
    assert publish(model, '--base-model', 'damo/another') == 0
    assert files_of(hub.root / 'me' / 'nuclei') == files_of(model) != mine


@pytest.mark.parametrize('fault', [pytest.param({'upload': 'cut'}, id='cut in mid-upload'),
                                   pytest.param({'commit': 'refused'}, id='commit refused')])
def test_after_the_failed_upload_of_a_new_model_its_empty_repository_is_told_and_filled(hub, model, fault, capsys,
                                                                                        impatient):
    hub.faults.update(fault)
    assert publish(model) == 1
    assert error_of(capsys).endswith(f'; the new, empty repository {ID} stays, and publishing again fills it')
    assert list(files_of(hub.root / 'me' / 'nuclei')) == ['README.md'] and commits(hub) == []   # the hub's own card
    hub.faults.clear()
    assert publish(model) == 0
    assert files_of(hub.root / 'me' / 'nuclei') == files_of(model)


def test_a_hub_that_lists_something_else_is_an_error(hub, model, capsys, impatient):
    hub.faults['model.safetensors'] = 'wrong checksum'
    assert publish(model) == 1
    assert 'model.safetensors has another SHA-256' in error_of(capsys)
    assert not (model / 'README.md').exists()


def test_a_hub_that_is_not_there(model, tmp_path, capsys):
    with socket.create_server(('127.0.0.1', 0)) as server:
        address = f'http://127.0.0.1:{server.getsockname()[1]}'
    before = files_of(model)
    assert publish(model, '--endpoint', address) == 1
    assert f'the connection to the hub {address} failed' in error_of(capsys)
    assert files_of(model) == before


def test_an_address_that_is_no_hub(model, tmp_path, capsys):
    class Other(UploadHandler):
        def route(self, method, parts, query):
            self.answer(200, b'<html>hello</html>', 'text/html')

    with serve(tmp_path, Other) as other:
        assert publish(model, '--endpoint', other.address) == 1
    assert 'is no hub' in error_of(capsys)


@pytest.mark.parametrize('address', ['http://[', 'http://', 'not an address'])
def test_an_address_that_is_none(model, address, capsys):
    assert publish(model, '--endpoint', address) == 1
    assert 'is no address of a hub' in error_of(capsys)
