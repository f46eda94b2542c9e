"""One flight per key for all callers, in threads and in tasks."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

from forked import Child
from scopeguard.edge.single_flight import Flights


def ignore_wake() -> None:
    raise AssertionError("woken without having waited")


def test_first_caller_leads_and_the_others_wait():
    flights = Flights()
    woken: list[str] = []
    assert flights.join("k", ignore_wake)
    assert not flights.join("k", lambda: woken.append("second"))
    assert not flights.join("k", lambda: woken.append("third"))
    assert woken == []
    flights.finish("k")
    assert woken == ["second", "third"]
    assert flights.join("k", ignore_wake)  # No entry is left.
    flights.finish("k")
    assert woken == ["second", "third"]


def test_keys_are_independent():
    flights = Flights()
    assert flights.join("one", ignore_wake)
    assert flights.join("two", ignore_wake)
    flights.finish("one")
    assert not flights.join("two", lambda: None)


def test_key_is_removed_when_its_flight_lands():
    flights = Flights()
    for i in range(100_000):
        flights.join(str(i), ignore_wake)
        flights.finish(str(i))
    assert len(flights) == 0


def test_landing_an_unknown_key_does_nothing():
    Flights().finish("k")


def test_a_waiter_may_board_again_while_it_is_woken():
    """Wake-up callbacks run outside the lock, so that they may call the flights again."""
    flights = Flights()
    joined: list[bool] = []
    flights.join("k", ignore_wake)
    flights.join("k", lambda: joined.append(flights.join("k", ignore_wake)))
    flights.finish("k")
    assert joined == [True]


def test_leaving_reports_whether_a_caller_was_the_last():
    flights = Flights()
    told: list[str] = []
    wakes = {name: lambda failure=None, name=name: told.append(name) for name in ("leader", "second")}
    assert not flights.leave("k", wakes["leader"])  # No flight is running.
    flights.join("k", wakes["leader"])
    flights.join("k", wakes["second"])
    assert not flights.leave("k", ignore_wake)  # An unknown caller.
    assert not flights.leave("k", wakes["leader"])
    assert flights.leave("k", wakes["second"])
    flights.finish("k")
    assert told == []


def test_all_waiters_can_be_dismissed_each_with_a_reason():
    flights = Flights()
    told: list[Exception] = []
    for key in ("one", "two"):
        assert flights.join(key, told.append)
        assert not flights.join(key, told.append)
    flights.leave("two", told.append)  # The leader.
    flights.dismiss(lambda: ValueError("closing"))
    assert len(told) == len(set(map(id, told))) == 3
    assert not flights.join("one", lambda: told.append(KeyError()))  # It is still running.
    flights.finish("one")
    assert len(told) == 4


@pytest.mark.rule("H-20", "A-15")
def test_exactly_one_of_many_threads_leads_and_all_are_woken():
    flights = Flights()
    start = threading.Barrier(20)
    running = runs = 0
    done = []

    def run() -> None:
        nonlocal running, runs
        start.wait()
        for _ in range(50):
            ended = threading.Event()
            if flights.join("k", ended.set):
                running += 1
                assert running == 1
                runs += 1
                running -= 1
                flights.finish("k")
            else:
                assert ended.wait(30)
        done.append(1)

    threads = [threading.Thread(target=run) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 20
    assert 0 < runs <= 1000
    assert len(flights) == 0


def test_registry_of_flights_keeps_no_strong_references():
    gone = weakref.ref(Flights())
    gc.collect()
    assert gone() is None


def test_child_process_is_not_blocked_by_flights_of_its_parent():
    flights = Flights()
    assert flights.join("k", ignore_wake)
    flights._lock.acquire()  # A thread of the parent holds the lock while another forks.

    def check() -> None:
        assert flights.join("k", ignore_wake)
        flights.finish("k")

    child = Child(check)
    flights._lock.release()
    assert child.ok()
    assert not flights.join("k", lambda: None)  # The flight of the parent is still running.
