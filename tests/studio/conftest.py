"""A studio's service with the embedded model, loaded once for all tests of a process, and small other models."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from modelscope_fastinst.studio.limits import Limits
from modelscope_fastinst.studio.models import ModelStore
from modelscope_fastinst.studio.service import Service
from tests.plugin.model_folders import stock_configuration, write_map_folder, write_stock_folder


@pytest.fixture(scope='session')
def store() -> ModelStore:
    """The embedded model, warm."""
    store = ModelStore(device='cpu')
    store.warm()
    return store


@pytest.fixture
def service(store, tmp_path):
    """A service with a folder of its own."""
    with Service(store, folder=tmp_path / 'results') as service:
        yield service


@pytest.fixture(scope='session')
def nuclei() -> np.ndarray:
    """A drawn picture, RGB, in which the embedded model finds a few dozen nuclei."""
    from modelscope_fastinst.data.microscope import draw_nuclei
    return draw_nuclei(240, 320, 24, seed=5).image


@pytest.fixture(scope='session')
def many_classes(tmp_path_factory) -> Path:
    """A folder of a random model of ten classes, of whose pairs of query and class only twelve are candidates."""
    from tests.golden_cases import load
    from tests.plugin.model_folders import SINGLE_IMAGE_CASE
    configuration = stock_configuration(load(SINGLE_IMAGE_CASE))
    configuration['preprocessor'] = {'type': 'fastinst-preprocessor', 'min_size': 128, 'max_size': 160}
    configuration['postprocessor'] = {'candidates': 12, 'score_thr': 0.05}
    return write_stock_folder(tmp_path_factory.mktemp('many') / 'many', configuration=configuration)


@pytest.fixture(scope='session')
def panoptic(tmp_path_factory) -> Path:
    """A folder of a random panoptic model, which can be asked for all three tasks."""
    return write_map_folder(tmp_path_factory.mktemp('maps') / 'panoptic', 'panoptic')


@pytest.fixture(scope='session')
def many_store(many_classes, panoptic) -> ModelStore:
    """Both of them."""
    return ModelStore(str(many_classes), 'cpu', [str(panoptic)], limits=Limits(models=2))
