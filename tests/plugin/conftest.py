"""Fixtures: pytest's log; and for the tests that publish a model folder, and a hub that takes it."""
from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import modelscope_hub._download as client_downloads
import pytest

from modelscope_fastinst.checkpoints import read_state_dict, save_weights
from modelscope_fastinst.plugin import hub_writing
from tests.plugin.hub_client import client_of
from tests.plugin.loopback_hub import Hub, serve
from tests.plugin.loopback_uploads import UploadHandler
from tests.plugin.model_folders import write_configuration, write_stock_folder


@pytest.fixture(autouse=True)
def everything_is_heard(caplog) -> None:
    """The command line quiets all handlers of ModelScope's log; pytest's own, one for all tests, may be among them."""
    caplog.handler.setLevel(0)


@pytest.fixture(scope='module')
def prepared(tmp_path_factory) -> Path:
    """A folder of a small model as a training here leaves it: configuration and safetensors."""
    folder = write_stock_folder(tmp_path_factory.mktemp('published') / 'model')
    configuration = json.loads((folder / 'configuration.json').read_text('utf-8'))
    configuration['preprocessor'] = {'type': 'fastinst-preprocessor', 'min_size': 64, 'max_size': 96}
    write_configuration(folder, configuration)
    save_weights(read_state_dict(folder / 'pytorch_model.pt'), folder / 'model.safetensors')
    (folder / 'pytorch_model.pt').unlink()
    return folder


@pytest.fixture
def model(prepared, tmp_path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / 'model'))


@pytest.fixture
def hub(tmp_path) -> Iterator[Hub]:
    (tmp_path / 'hub').mkdir()
    with serve(tmp_path / 'hub', UploadHandler) as hub, client_of(hub, tmp_path / 'cache'):
        yield hub


@pytest.fixture
def impatient_client(monkeypatch) -> None:
    """The client's retries of a download without its pauses, which add up to half a minute."""
    monkeypatch.setattr(client_downloads, 'DOWNLOAD_RETRY_TIMES', 0)
    monkeypatch.setattr(client_downloads, 'DOWNLOAD_INTEGRITY_RETRY_BACKOFF', 0)


@pytest.fixture
def impatient(monkeypatch) -> None:
    """As many attempts as ever, without the seconds between them."""
    monkeypatch.setattr(hub_writing, 'RETRY_SECONDS', tuple(0 for _ in hub_writing.RETRY_SECONDS))
