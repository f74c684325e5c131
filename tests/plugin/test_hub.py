"""From a model id to a folder: downloads that are complete or do not count, and no network call when they are."""
from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import modelscope_hub._download as client_downloads
import pytest
import torch
from modelscope.hub.snapshot_download import snapshot_download
from modelscope_hub.config import get_default_config
from modelscope_hub.errors import FileDownloadError
from safetensors.torch import save_file

from modelscope_fastinst.plugin import hub as plugin_hub
from modelscope_fastinst.plugin.hub import HubError, cached_directory, is_model_id, model_directory
from tests.plugin.hub_client import client_of, files_of, write_model
from tests.plugin.loopback_hub import Handler, serve

ID = 'owner/model'
PROGRAM = f'from modelscope_fastinst.plugin.hub import model_directory; print(model_directory({ID!r}))'


@pytest.fixture(autouse=True)
def impatient_client(monkeypatch):
    """The client's retries without its pauses, which add up to half a minute."""
    monkeypatch.setattr(client_downloads, 'DOWNLOAD_RETRY_TIMES', 0)
    monkeypatch.setattr(client_downloads, 'DOWNLOAD_INTEGRITY_RETRY_BACKOFF', 0)


@pytest.fixture
def hub(tmp_path):
    """A hub with one model of two files, and a client of it with an empty cache."""
    write_model(tmp_path / 'hub' / ID)
    with serve(tmp_path / 'hub') as hub, client_of(hub, tmp_path / 'cache'):
        yield hub


@pytest.fixture
def hub_switched_off(hub):
    """The same after it was switched off; ``root`` is still where its models lie."""
    with serve(hub.root) as other:
        address = other.address
    get_default_config().endpoint = address
    return hub


def test_what_the_hub_has_is_downloaded_and_taken_from_the_cache_ever_after(hub):
    folder = model_directory(ID)
    assert files_of(folder) == files_of(hub.root / ID)
    assert folder.endswith('cache/models/owner--model/snapshots/master')   # where ModelScope looks for it, too
    assert snapshot_download(ID, local_files_only=True) == folder
    hub.requests.clear()
    assert model_directory(ID) == model_directory(Path(ID), 'master') == folder
    assert hub.requests == []


def test_what_is_in_the_cache_needs_no_hub(hub, tmp_path):
    folder = model_directory(ID)
    get_default_config().endpoint = 'http://127.0.0.1:1'
    assert model_directory(ID) == folder


def test_a_cache_folder_may_be_named(hub, tmp_path):
    folder = model_directory(ID, cache_dir=tmp_path / 'other')
    assert folder == str(tmp_path / 'other' / 'models' / 'owner--model' / 'snapshots' / 'master')
    assert cached_directory(ID) is None and cached_directory(ID, cache_dir=tmp_path / 'other') == folder


def test_a_folder_is_taken_as_it_is(tmp_path):
    assert model_directory(tmp_path, 'master') == str(tmp_path)


@pytest.mark.parametrize('text, expected', [
    pytest.param('damo/cv_resnet50_fast-instance-segmentation_coco', True, id='published model'),
    pytest.param('a.b/c-1.0', True, id='dots and hyphens'),
    pytest.param('model', False, id='no owner'),
    pytest.param('a/b/c', False, id='three parts'),
    pytest.param('./model', False, id='folder written with a dot'),
    pytest.param('../model', False, id='folder above'),
    pytest.param('/model', False, id='folder at the top'),
    pytest.param('~/model', False, id='folder of a user'),
])
def test_what_is_an_id(text, expected):
    assert is_model_id(text) is expected
    if not expected:
        with pytest.raises(FileNotFoundError, match=f'{text}: is no model folder, nor a model id of the form owner/'):
            model_directory(text)


def test_an_existing_folder_is_no_id(tmp_path, monkeypatch):
    (tmp_path / ID).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert not is_model_id(ID)
    assert model_directory(ID) == ID


def test_not_in_the_cache_and_no_network_says_what_to_do(hub_switched_off):
    with pytest.raises(HubError, match=(
            rf'^owner/model \(revision master\) is not complete in the cache, and the hub http://127.0.0.1:\d+ cannot '
            rf'be reached \(.*refused\); run "modelscope download --model {ID} --local_dir model" where there is a '
            rf'network, copy the folder model here, and give that folder instead of the id$')):
        model_directory(ID)
    assert not (Path(get_default_config().cache_dir) / 'models').exists()


class Unwell(Handler):
    def route(self, *_):
        self.send_json({'Code': 503, 'Success': False, 'Message': 'maintenance'}, 503)


def test_the_first_question_is_asked_once_for_patience_is_what_stalls(tmp_path):
    with serve(tmp_path, Unwell) as hub, client_of(hub, tmp_path / 'cache'):
        with pytest.raises(HubError, match=r'cannot be reached \(.*503.*\); run "modelscope download'):
            model_directory(ID)
        assert hub.requests == [f'GET /api/v1/models/{ID}/revisions']


# A connection that is cut


def test_a_connection_cut_in_mid_file_leaves_nothing_that_looks_complete(hub):
    hub.faults['pytorch_model.pt'] = 'cut'
    with pytest.raises(HubError, match=(
            rf'^owner/model \(revision master\) could not be downloaded from {hub.address}: pytorch_model.pt: .*; '
            r'start again; what arrived is kept, and the download continues there$')) as error:
        model_directory(ID)
    assert '\n' not in str(error.value)
    assert cached_directory(ID) is None
    with pytest.raises(HubError):   # nor at the next start
        model_directory(ID)

    hub.faults.clear()
    hub.requests.clear()
    assert files_of(model_directory(ID)) == files_of(hub.root / ID)
    files = [request for request in hub.requests if 'FilePath' in request]
    assert [request.rpartition('=')[2] for request in files] == ['pytorch_model.pt']   # the rest was there


def test_a_connection_cut_once_is_continued_at_once(hub, monkeypatch):
    monkeypatch.setattr(client_downloads, 'DOWNLOAD_RETRY_TIMES', 1)
    hub.faults['pytorch_model.pt'] = 'cut once'
    assert files_of(model_directory(ID)) == files_of(hub.root / ID)


def test_a_process_that_was_killed_leaves_nothing_that_looks_complete(hub, tmp_path):
    asked = threading.Event()

    class Slow(Handler):
        def send_file(self, folder, name):
            if name == 'pytorch_model.pt':
                asked.set()
                threading.Event().wait(30)
            super().send_file(folder, name)

    with serve(hub.root, Slow) as slow:
        process = subprocess.Popen([sys.executable, '-c', PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   env={**os.environ, **slow.environment(tmp_path / 'cache')})
        reached = asked.wait(30)
        process.kill()
        assert reached, process.communicate()[0]
        process.communicate()
    assert cached_directory(ID) is None
    assert files_of(model_directory(ID)) == files_of(hub.root / ID)


# What the hub says is wrong


def test_a_wrong_checksum_is_refused_and_the_file_does_not_stay(hub):
    hub.faults['pytorch_model.pt'] = 'wrong checksum'
    with pytest.raises(HubError, match=r'owner/model \(revision master\) could not be downloaded from .*: '
                                       r'pytorch_model.pt: Hash mismatch .*; the file is not the one that the hub '
                                       r'lists: try again later, and tell the owner of the model$'):
        model_directory(ID)
    assert cached_directory(ID) is None
    assert not [file for file in get_default_config().cache_dir.rglob('pytorch_model.pt*')]
    hub.faults.clear()
    assert files_of(model_directory(ID)) == files_of(hub.root / ID)


@pytest.mark.parametrize('changed, message', [
    pytest.param(b'?' * 3000, 'pytorch_model.pt is damaged: SHA-256 [0-9a-f]{64}, but the hub lists', id='content'),
    pytest.param(bytes(2999), 'pytorch_model.pt is damaged: bytes 2999, but the hub lists 3000', id='size'),
    pytest.param(None, 'the hub lists pytorch_model.pt, but it was not downloaded', id='missing'),
])
def test_what_the_client_delivers_is_checked_again(hub, tmp_path, changed, message):
    folder = write_model(tmp_path / 'delivered')
    endpoint, listed = plugin_hub._list_files(ID, 'master', folder)
    plugin_hub._verify(folder, listed, ID)
    file = folder / 'pytorch_model.pt'
    file.unlink() if changed is None else file.write_bytes(changed)
    with pytest.raises(HubError, match=message):
        plugin_hub._verify(folder, listed, ID)
    assert not file.exists()


def test_a_model_that_the_hub_has_not(hub):
    with pytest.raises(HubError, match=f'^owner/nothing: the hub {hub.address} has no such model, or it is private and '
                                       'MODELSCOPE_API_TOKEN is not set; check the spelling of owner/name$'):
        model_directory('owner/nothing')


def test_a_revision_that_the_hub_has_not(hub):
    write_model(hub.root / f'{ID}@v1.0')
    with pytest.raises(HubError, match=rf"^owner/model: the hub {hub.address} has no revision 'v2' of it; it has "
                                       r'master, v1.0$'):
        model_directory(ID, 'v2')
    assert cached_directory(ID, 'v2') is None


class Private(Handler):
    def _api(self, *_):
        self.send_json({'Code': 403, 'Success': False, 'Message': 'access denied'}, 403)


class Portal(Handler):
    """What answers in an hotel before one has paid."""
    def route(self, *_):
        self.answer(200, b'<html>Welcome!</html>', 'text/html')


class Malicious(Handler):
    def _record(self, folder, path):
        return {**super()._record(folder, path), 'Path': f'../../{path.name}'}


class Empty(Handler):
    def _record(self, folder, path):
        return {**super()._record(folder, path), 'Type': 'tree'}


@pytest.mark.parametrize('handler, message', [
    pytest.param(Private, r'refuses it \(.*access denied.*\); log in with "modelscope login" or set MODELSCOPE_API_',
                 id='private model'),
    pytest.param(Portal, r'cannot be reached \(Expecting value.*\); run "modelscope download', id='answer of no hub'),
    pytest.param(Malicious, "lists a file '../../configuration.json' that lies outside of the model; nothing was",
                 id='path that leads out'),
    pytest.param(Empty, 'lists no files of it; it has the revisions', id='empty model'),
])
def test_an_answer_that_is_no_model(tmp_path, handler, message):
    write_model(tmp_path / 'hub' / ID)
    with serve(tmp_path / 'hub', handler) as hub, client_of(hub, tmp_path / 'cache'):
        with pytest.raises(HubError, match=message):
            model_directory(ID)
        assert not [file for file in (tmp_path / 'cache').rglob('*.json')]


def test_a_cache_that_cannot_be_written(hub, tmp_path):
    (tmp_path / 'file').write_text('no folder')
    with pytest.raises(HubError, match='Not a directory.*; the cache cannot be written: set MODELSCOPE_CACHE to a '):
        model_directory(ID, cache_dir=tmp_path / 'file')


def test_a_full_disc_is_told_from_a_bad_network():
    full = OSError(errno.ENOSPC, 'No space left on device')
    error = FileDownloadError('1 of 2 files failed', failed_files={'pytorch_model.pt': full})
    assert plugin_hub._reason(error) == 'pytorch_model.pt: [Errno 28] No space left on device'
    assert 'make room on the disc' in plugin_hub._mend(error)
    assert plugin_hub._mend(ConnectionError('cut')).startswith('start again')


# Revisions


def test_every_revision_is_a_snapshot_of_its_own_and_offline_none_stands_for_another(hub):
    write_model(hub.root / f'{ID}@v1.0', weights=b'1' * 3000)
    write_model(hub.root / f'{ID}@v2.0', weights=b'2' * 3000)
    old = model_directory(ID, 'v1.0')
    assert files_of(old) == files_of(hub.root / f'{ID}@v1.0')
    hub.requests.clear()
    assert model_directory(ID, 'v1.0') == old and hub.requests == []

    online = get_default_config().endpoint
    get_default_config().endpoint = 'http://127.0.0.1:1'
    assert model_directory(ID, 'v1.0') == old
    for revision in (None, 'v2.0'):
        with pytest.raises(HubError, match=rf'revision {revision or "master"}\) is not complete in the cache \(which '
                                           r'holds the revision v1.0\)'):
            model_directory(ID, revision)
    get_default_config().endpoint = online
    assert files_of(model_directory(ID)) == files_of(hub.root / ID)
    assert files_of(model_directory(ID, 'v2.0')) == files_of(hub.root / f'{ID}@v2.0')
    assert files_of(old) == files_of(hub.root / f'{ID}@v1.0')


def test_a_pinned_revision_is_named_in_the_advice(hub_switched_off):
    with pytest.raises(HubError, match=f'run "modelscope download --model {ID} --revision v1 --local_dir model"'):
        model_directory(ID, 'v1')


@pytest.mark.parametrize('revision', ['../v1', '/v1', 'v1\\..'])
def test_a_revision_that_leads_out_of_the_cache(hub, revision):
    with pytest.raises(HubError, match='is no revision; give a branch, a tag or a commit'):
        model_directory(ID, revision)


# Snapshots that ModelScope made alone, or that somebody damaged


def test_what_modelscope_downloaded_without_us_is_taken(hub):
    torch.save({'model': {}}, hub.root / ID / 'pytorch_model.pt')
    folder = snapshot_download(ID)
    hub.requests.clear()
    assert model_directory(ID) == folder and hub.requests == []


def whole(folder):
    pass


def safetensors(folder):
    (folder / 'pytorch_model.pt').unlink()
    save_file({'a': torch.zeros(2)}, folder / 'model.safetensors')


def cut_safetensors(folder):
    safetensors(folder)
    content = (folder / 'model.safetensors').read_bytes()
    (folder / 'model.safetensors').write_bytes(content[:-1])


def cut_archive(folder):
    content = (folder / 'pytorch_model.pt').read_bytes()
    (folder / 'pytorch_model.pt').write_bytes(content[:-30])


def no_weights(folder):
    (folder / 'pytorch_model.pt').unlink()


def partial_file(folder):
    (folder / 'pytorch_model.pt').rename(folder / 'pytorch_model.pt.incomplete')


def partial_file_of_something_else(folder):
    (folder / 'README.md.incomplete').write_text('# A mod')


def broken_configuration(folder):
    (folder / 'configuration.json').write_text('{"framework": ')


def no_configuration(folder):
    (folder / 'configuration.json').unlink()


@pytest.mark.parametrize('change, complete', [
    pytest.param(whole, True, id='PyTorch file'),
    pytest.param(safetensors, True, id='safetensors'),
    pytest.param(cut_safetensors, False, id='safetensors cut off'),
    pytest.param(cut_archive, False, id='PyTorch file cut off'),
    pytest.param(no_weights, False, id='configuration only'),
    pytest.param(partial_file, False, id='weights unfinished'),
    pytest.param(partial_file_of_something_else, False, id='another file unfinished'),
    pytest.param(broken_configuration, False, id='broken configuration'),
    pytest.param(no_configuration, False, id='weights only'),
])
def test_what_counts_as_complete_without_a_record(tmp_path, change, complete):
    folder = write_model(tmp_path / 'models' / 'owner--model' / 'snapshots' / 'master')
    torch.save({'model': {'a': torch.zeros(2)}}, folder / 'pytorch_model.pt')
    change(folder)
    assert cached_directory(ID, cache_dir=tmp_path) == (str(folder) if complete else None)


def truncated(folder):
    (folder / 'pytorch_model.pt').write_bytes(bytes(100))


def broken_record(folder):
    plugin_hub.record_file(folder).write_text('{')


@pytest.mark.parametrize('change', [truncated, no_weights, no_configuration, broken_record])
def test_what_was_damaged_in_the_cache_is_fetched_again(hub, change):
    folder = model_directory(ID)
    change(Path(folder))
    assert cached_directory(ID) is None
    assert model_directory(ID) == folder
    assert files_of(folder) == files_of(hub.root / ID)


def test_files_of_an_interrupted_download_that_the_branch_no_longer_has_do_not_stay(hub):
    (hub.root / ID / 'model.safetensors').write_bytes(bytes(50))
    hub.faults['pytorch_model.pt'] = 'cut'
    with pytest.raises(HubError):
        model_directory(ID)
    hub.faults.clear()
    (hub.root / ID / 'model.safetensors').unlink()
    assert sorted(files_of(model_directory(ID))) == ['configuration.json', 'pytorch_model.pt']


def test_a_folder_of_an_older_modelscope_stands_for_the_default_revision_only(hub, tmp_path):
    folder = write_model(tmp_path / 'cache' / 'models' / 'owner' / 'model')
    torch.save({}, folder / 'pytorch_model.pt')
    before = files_of(folder)
    write_model(hub.root / f'{ID}@v1.0', weights=b'1' * 3000)
    assert model_directory(ID) == str(folder) and hub.requests == []
    assert files_of(model_directory(ID, 'v1.0')) == files_of(hub.root / f'{ID}@v1.0')
    assert files_of(folder) == before


def test_two_processes_at_once_download_once(hub, tmp_path):
    environment = {**os.environ, **hub.environment(tmp_path / 'cache')}
    processes = [subprocess.Popen([sys.executable, '-c', PROGRAM], env=environment, stdout=subprocess.PIPE, text=True)
                 for _ in range(2)]
    outputs = [process.communicate()[0].splitlines()[-1] for process in processes]
    assert outputs == [model_directory(ID)] * 2
    files = sorted(request.rpartition('=')[2] for request in hub.requests if 'FilePath' in request)
    assert files == ['configuration.json', 'pytorch_model.pt']
