"""One flight for everybody under a key, whoever they are and wherever they wait."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

from forked import Child
from scopeguard.edge.single_flight import Flights


def nobody() -> None:
    raise AssertionError("woken without having waited")


def test_the_first_flies_and_the_others_wait_until_it_lands():
    flights = Flights()
    woken: list[str] = []
    assert flights.board("k", nobody)
    assert not flights.board("k", lambda: woken.append("second"))
    assert not flights.board("k", lambda: woken.append("third"))
    assert woken == []
    flights.land("k")
    assert woken == ["second", "third"]
    assert flights.board("k", nobody)  # nothing is left of it
    flights.land("k")
    assert woken == ["second", "third"]


def test_keys_do_not_know_each_other():
    flights = Flights()
    assert flights.board("one", nobody)
    assert flights.board("two", nobody)
    flights.land("one")
    assert not flights.board("two", lambda: None)


def test_a_key_is_forgotten_when_its_flight_lands():
    flights = Flights()
    for i in range(100_000):
        flights.board(str(i), nobody)
        flights.land(str(i))
    assert len(flights) == 0


def test_landing_what_is_not_in_the_air_does_nothing():
    Flights().land("k")


def test_a_waiter_may_board_again_while_it_is_woken():
    """Wake-ups run outside the lock: what they call may come back here."""
    flights = Flights()
    boarded: list[bool] = []
    flights.board("k", nobody)
    flights.board("k", lambda: boarded.append(flights.board("k", nobody)))
    flights.land("k")
    assert boarded == [True]


def test_the_last_caller_that_leaves_is_told_so():
    flights = Flights()
    told: list[str] = []
    wakes = {name: lambda failure=None, name=name: told.append(name) for name in ("leader", "second")}
    assert not flights.leave("k", wakes["leader"])  # nothing is in the air
    flights.board("k", wakes["leader"])
    flights.board("k", wakes["second"])
    assert not flights.leave("k", nobody)  # a caller that never came
    assert not flights.leave("k", wakes["leader"])
    assert flights.leave("k", wakes["second"])
    flights.land("k")
    assert told == []


def test_all_who_wait_can_be_dismissed_each_with_a_reason_of_its_own():
    flights = Flights()
    told: list[Exception] = []
    for key in ("one", "two"):
        assert flights.board(key, told.append)
        assert not flights.board(key, told.append)
    flights.leave("two", told.append)  # the leader
    flights.dismiss(lambda: ValueError("closing"))
    assert len(told) == len(set(map(id, told))) == 3
    assert not flights.board("one", lambda: told.append(KeyError()))  # it is still in the air
    flights.land("one")
    assert len(told) == 4


@pytest.mark.rule("H-20", "A-15")
def test_of_many_threads_exactly_one_flies_and_nobody_is_forgotten():
    flights = Flights()
    start = threading.Barrier(20)
    aloft = flown = 0
    done = []

    def run() -> None:
        nonlocal aloft, flown
        start.wait()
        for _ in range(50):
            landed = threading.Event()
            if flights.board("k", landed.set):
                aloft += 1
                assert aloft == 1
                flown += 1
                aloft -= 1
                flights.land("k")
            else:
                assert landed.wait(30)
        done.append(1)

    threads = [threading.Thread(target=run) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 20
    assert 0 < flown <= 1000
    assert len(flights) == 0


def test_flights_are_not_kept_alive_by_their_list():
    gone = weakref.ref(Flights())
    gc.collect()
    assert gone() is None


def test_a_child_process_is_not_held_up_by_the_parents_flights():
    flights = Flights()
    assert flights.board("k", nobody)
    flights._lock.acquire()  # a thread of the parent is in there while another one forks

    def check() -> None:
        assert flights.board("k", nobody)
        flights.land("k")

    child = Child(check)
    flights._lock.release()
    assert child.ok()
    assert not flights.board("k", lambda: None)  # the parent's is still in the air
