"""Fair, bounded waiting."""
from __future__ import annotations

import threading
import time

import pytest

from modelscope_fastinst.studio.messages import Refused
from modelscope_fastinst.studio.turns import Turns


def start(work) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def until(condition) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_whoever_came_first_goes_first_and_hears_how_many_are_before():
    turns, order, told = Turns(1, 10, 60), [], {number: [] for number in range(4)}

    def work(number):
        with turns.turn(told[number].append):
            order.append(number)

    with turns.turn():
        threads = []
        for number in range(4):
            threads.append(start(lambda number=number: work(number)))
            until(lambda number=number: turns.waiting == number + 1 and told[number])
    for thread in threads:
        thread.join(20)
    assert order == [0, 1, 2, 3]
    assert told[0][0] == 0 and told[3][0] == 3
    assert all(heard == sorted(heard, reverse=True) for heard in told.values())
    assert turns.waiting == 0


@pytest.mark.parametrize('parallel', [1, 3])
def test_no_more_than_so_many_work_at_once(parallel):
    turns, lock, now, most = Turns(parallel, 100, 60), threading.Lock(), [0], [0]

    def work():
        with turns.turn():
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            time.sleep(0.01)
            with lock:
                now[0] -= 1

    threads = [start(work) for _ in range(12)]
    for thread in threads:
        thread.join(20)
    assert most[0] == parallel


def test_when_the_queue_is_full_one_is_turned_away_at_once():
    turns, ended = Turns(1, 2, 60), threading.Event()

    def work():
        with turns.turn():
            ended.wait(20)

    threads = [start(work) for _ in range(3)]
    until(lambda: turns.waiting == 2)
    with pytest.raises(Refused) as refused, turns.turn():
        pytest.fail('it had a turn')
    assert (refused.value.code, refused.value.values) == ('busy', {'waiting': 2})
    patient = start(lambda: _go(turns))
    until(lambda: turns.waiting == 3)   # work that is already begun waits all the same
    ended.set()
    for thread in (*threads, patient):
        thread.join(20)
    assert turns.waiting == 0


def _go(turns):
    with turns.turn(patient=True):
        return


def test_one_who_waits_too_long_is_told_and_leaves_the_queue():
    turns = Turns(1, 5, 0.05)
    with turns.turn():
        with pytest.raises(Refused) as refused, turns.turn():
            pytest.fail('it had a turn')
        assert refused.value.code == 'timeout'
        assert turns.waiting == 0
    with turns.turn():
        assert turns.waiting == 0


def test_a_visitor_who_leaves_while_waiting_holds_nobody_up():
    def gone(before):
        raise ConnectionError

    turns = Turns(1, 5, 60)
    with turns.turn(), pytest.raises(ConnectionError), turns.turn(gone):
        pytest.fail('it had a turn')
    with turns.turn():
        assert turns.waiting == 0


def test_an_error_ends_a_turn():
    turns = Turns(1, 5, 60)
    with pytest.raises(KeyError), turns.turn():
        raise KeyError
    with turns.turn():
        assert turns.waiting == 0


def test_long_work_gives_way_to_those_who_wait():
    turns, order = Turns(1, 5, 60), []

    def visitor(name):
        with turns.turn():
            order.append(name)

    with turns.turn():
        order.append('first tile')
        threads = []
        for count, name in enumerate(('one', 'other'), start=1):
            threads.append(start(lambda name=name: visitor(name)))
            until(lambda count=count: turns.waiting == count)
        turns.give_way()
        order.append('second tile')
        turns.give_way()   # nobody there
    for thread in threads:
        thread.join(20)
    assert order == ['first tile', 'one', 'other', 'second tile']
