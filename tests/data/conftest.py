"""Fixtures of the data tests."""
from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.data.coco_files import content


@pytest.fixture
def folder(tmp_path):
    """Image files for ``content()``, and ``write(content)`` for its annotation file."""
    for index, record in enumerate(content()['images']):
        Image.fromarray(np.full((20, 30, 3), 50 * index, np.uint8)).save(tmp_path / record['file_name'])
    return tmp_path
