"""Which snapshots of the cache count as complete: with a record, without one, damaged, or fetched anew since."""
from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from modelscope.hub.snapshot_download import snapshot_download
from modelscope.utils.logger import get_logger
from modelscope_hub.config import get_default_config
from safetensors.torch import save_file

from modelscope_fastinst.plugin import hub as plugin_hub
from modelscope_fastinst.plugin.hub import HubError, cached_directory, model_directory
from tests.plugin.hub_client import client_of, files_of, write_model
from tests.plugin.loopback_hub import serve

ID = 'owner/model'
PROGRAM = f'from modelscope_fastinst.plugin.hub import model_directory; print(model_directory({ID!r}))'
pytestmark = pytest.mark.usefixtures('impatient_client')


@pytest.fixture
def hub(tmp_path):
    """A hub with one model of two files, and a client of it with an empty cache."""
    write_model(tmp_path / 'hub' / ID)
    with serve(tmp_path / 'hub') as hub, client_of(hub, tmp_path / 'cache'):
        yield hub


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


def test_a_process_that_waits_for_another_one_says_so(hub, monkeypatch, caplog):
    monkeypatch.setattr(plugin_hub, 'SILENT_SECONDS', 0)
    snapshots = plugin_hub.snapshot_folder(ID).parent
    snapshots.mkdir(parents=True)
    get_logger().addHandler(caplog.handler)
    try:
        with FileLock(snapshots / '.master.lock'):
            waiting = threading.Thread(target=model_directory, args=(ID,))
            waiting.start()
            while waiting.is_alive() and not caplog.records:
                time.sleep(0.01)
            assert cached_directory(ID) is None
        waiting.join(30)
    finally:
        get_logger().removeHandler(caplog.handler)
    assert (caplog.records[0].levelno, caplog.records[0].getMessage()) == (
        logging.WARNING, f'waiting for another process that downloads {ID} (revision master)')
    assert cached_directory(ID) is not None


# A branch that moved, and was fetched anew by ModelScope


def moved(hub):
    """Downloads the model here, and moves the branch on the hub."""
    (hub.root / ID / 'README.md').write_text('# A model', 'utf-8')
    torch.save({'model': {'a': torch.zeros(2)}}, hub.root / ID / 'pytorch_model.pt')
    folder = Path(model_directory(ID))
    torch.save({'model': {'a': torch.zeros(900)}}, hub.root / ID / 'pytorch_model.pt')
    return folder


def test_what_modelscope_fetched_anew_is_taken(hub):
    folder = moved(hub)
    assert files_of(folder) != files_of(hub.root / ID)
    assert model_directory(ID) == str(folder)   # the branch moved, the cache did not
    snapshot_download(ID)
    assert files_of(folder) == files_of(hub.root / ID)
    get_default_config().endpoint = 'http://127.0.0.1:1'
    assert model_directory(ID) == str(folder)


def test_what_modelscope_fetched_anew_into_a_folder_that_was_deleted_is_taken(hub):
    folder = moved(hub)
    shutil.rmtree(folder)
    assert cached_directory(ID) is None
    (hub.root / ID / 'README.md').unlink()
    snapshot_download(ID)
    get_default_config().endpoint = 'http://127.0.0.1:1'
    assert model_directory(ID) == str(folder)


def test_a_deleted_folder_is_downloaded_and_verified_again(hub):
    folder = moved(hub)
    shutil.rmtree(folder)
    assert model_directory(ID) == str(folder)
    assert files_of(folder) == files_of(hub.root / ID)


def without_card(folder):
    (folder / 'README.md').unlink()


def older_weights(folder):
    torch.save({}, folder / 'pytorch_model.pt')
    os.utime(folder / 'pytorch_model.pt', (0, 0))


@pytest.mark.parametrize('change', [
    pytest.param(cut_archive, id='weights cut off'),
    pytest.param(broken_configuration, id='broken configuration'),
    pytest.param(partial_file, id='weights unfinished'),
    pytest.param(without_card, id='a file is gone, the others are as they were'),
    pytest.param(older_weights, id='weights from before the record'),
])
def test_what_does_not_fit_the_record_and_was_not_fetched_anew_is_not_complete(hub, change):
    folder = moved(hub)
    change(folder)
    get_default_config().endpoint = 'http://127.0.0.1:1'
    with pytest.raises(HubError, match='not complete in the cache'):
        model_directory(ID)
