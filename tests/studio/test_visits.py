"""A visitor's folder: nobody guesses its name, and it does not stay."""
from __future__ import annotations

import re
import time

import pytest

from modelscope_fastinst.studio.messages import Refused
from modelscope_fastinst.studio.visits import Visits


def test_names_are_long_and_random(tmp_path):
    visits = Visits(tmp_path, 60, 100, 10 ** 9)
    names = {visits.new() for _ in range(20)}
    assert len(names) == 20
    assert all(re.fullmatch(r'visit-[0-9a-f]{32}', name) and (tmp_path / name).is_dir() for name in names)
    assert (tmp_path / names.pop()).stat().st_mode & 0o077 == 0


def test_a_folder_goes_when_its_time_is_over_and_stays_while_it_is_used(tmp_path):
    visits = Visits(tmp_path, 0.2, 100, 10 ** 9)
    used, unused = visits.new(), visits.new()
    (tmp_path / unused / 'picture.npy').write_bytes(b'secret')
    end = time.monotonic() + 20
    while (tmp_path / unused).exists():
        visits.path(used)
        visits.clean()
        assert time.monotonic() < end
    assert visits.path(used).is_dir()
    with pytest.raises(Refused) as refused:
        visits.path(unused)
    assert refused.value.code == 'expired'


def test_of_too_many_the_longest_unused_go(tmp_path):
    visits = Visits(tmp_path, 60, 3, 10 ** 9)
    names = [visits.new() for _ in range(3)]
    visits.path(names[0])
    names.append(visits.new())
    assert [(tmp_path / name).is_dir() for name in names] == [True, False, True, True]


def test_of_too_much_the_longest_unused_go(tmp_path):
    visits = Visits(tmp_path, 60, 100, 1000)
    names = []
    for _ in range(3):
        names.append(visits.new())
        (tmp_path / names[-1] / 'picture.npy').write_bytes(bytes(600))
    visits.clean()
    assert [(tmp_path / name).is_dir() for name in names] == [False, False, True]


@pytest.mark.parametrize('name', ['..', '../other', 'visit-' + '0' * 32, '', 'visit-x\0'])
def test_what_is_no_visit_has_no_folder(tmp_path, name):
    with pytest.raises(Refused) as refused:
        Visits(tmp_path, 60, 3, 1000).path(name)
    assert refused.value.code == 'expired'


def test_what_a_killed_studio_left_is_removed_in_time_and_nothing_else(tmp_path):
    left = Visits(tmp_path, 60, 9, 1000).new()
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'visit-notes').mkdir()
    again = Visits(tmp_path, 1e-9, 9, 1000)
    time.sleep(0.001)
    assert again.clean() == [left]
    assert sorted(path.name for path in tmp_path.iterdir()) == ['mine', 'visit-notes']


def test_a_folder_that_will_not_go_is_tried_again(tmp_path, monkeypatch):
    import shutil
    visits = Visits(tmp_path, 60, 9, 1000)
    name, original = visits.new(), shutil.rmtree
    monkeypatch.setattr(shutil, 'rmtree', lambda *_, **__: None)   # what ignored errors look like
    visits.remove(name)
    with pytest.raises(Refused):
        visits.path(name)
    monkeypatch.setattr(shutil, 'rmtree', original)
    visits.clean()
    assert not (tmp_path / name).exists()
