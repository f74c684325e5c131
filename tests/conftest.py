"""Fixtures shared by all tests."""
from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples at every run, so that a failure means a change.
settings.register_profile('fixed', derandomize=True)
settings.load_profile('fixed')


@pytest.fixture(scope='session')
def shared_data() -> Path:
    """The folder of real images that lies beside a developer's checkout (or ``FASTINST_DATA``); tests that can use real
    images use them where they are, and every such test has a self-contained sibling."""
    folder = Path(os.environ.get('FASTINST_DATA', Path(__file__).resolve().parents[2] / 'shared' / 'data'))
    if not folder.is_dir():
        pytest.skip('no folder of real images beside the checkout (set FASTINST_DATA)')
    return folder
