"""Matches as faster-coco-eval gives them."""
from __future__ import annotations

import pytest

from modelscope_fastinst.evaluation.matching import _parts


class Entry:
    def __init__(self, *state):
        self.state = state

    def __getstate__(self):
        return self.state


def test_matches_of_the_known_form_are_taken():
    assert _parts(Entry([1] * 20, [], [0.9, 0.8], [False], [False] * 20, 'more'))[1] == [0.9, 0.8]


@pytest.mark.parametrize('entry', [
    pytest.param(Entry(), id='nothing'),
    pytest.param(Entry([1] * 20, [0.9, 0.8], [], [False] * 20, [False]), id='another order'),
    pytest.param(Entry([1] * 20, [], 2, [False], [False] * 20), id='another kind'),
    pytest.param(object(), id='no state'),
])
def test_another_form_is_refused_with_the_version_and_the_mend(entry):
    with pytest.raises(ImportError, match=r'faster-coco-eval \d.* in a form that is not known here; use .*pycocotools'):
        _parts(entry)
