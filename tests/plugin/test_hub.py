"""From a model id to a folder: downloads that are complete or do not count, and no network call when they are."""
from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import modelscope_hub._download as client_downloads
import pytest
from modelscope.hub.snapshot_download import snapshot_download
from modelscope_hub.config import get_default_config
from modelscope_hub.errors import FileDownloadError

from modelscope_fastinst.plugin import hub as plugin_hub
from modelscope_fastinst.plugin.hub import HubError, cached_directory, is_model_id, model_directory
from tests.plugin.hub_client import client_of, files_of, write_model
from tests.plugin.loopback_hub import Handler, serve

ID = 'owner/model'
PROGRAM = f'from modelscope_fastinst.plugin.hub import model_directory; print(model_directory({ID!r}))'


pytestmark = pytest.mark.usefixtures('impatient_client')


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
    pytest.param('weights/typo.pth', False, id='weight file'),
    pytest.param('weights/typo.SafeTensors', False, id='weight file in mixed case'),
    pytest.param('configs/typo.json', False, id='configuration'),
    pytest.param('owner/model-v1.0.json-like', True, id='an ending in the middle'),
])
def test_what_is_an_id(text, expected):
    assert is_model_id(text) is expected
    if not expected:
        with pytest.raises(FileNotFoundError, match=re.escape(
                f'{text}: is no model folder (no such file or folder), nor a model id of the form owner/name')):
            model_directory(text)


def test_an_existing_folder_is_no_id(tmp_path, monkeypatch):
    (tmp_path / ID).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert not is_model_id(ID)
    assert model_directory(ID) == ID


def test_not_in_the_cache_and_no_network_says_what_to_do(hub_switched_off):
    with pytest.raises(HubError, match=(
            rf'^owner/model \(revision master\) is no folder here and not complete in the cache, and the hub '
            rf'http://127.0.0.1:\d+ cannot be reached \(.*refused\); run "modelscope download --model {ID} --local_dir '
            rf'model" where there is a network, copy the folder model here, and give that folder instead of the id$')):
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
    with pytest.raises(HubError, match=f'^owner/nothing: is no folder here, and the hub {hub.address} has no such '
                                       'model, or it is private and MODELSCOPE_API_TOKEN is not set; check the spell'):
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
        with pytest.raises(HubError, match=rf'revision {revision or "master"}\) is no folder here and not complete in '
                                           r'the cache \(which holds the revision v1.0\)'):
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
