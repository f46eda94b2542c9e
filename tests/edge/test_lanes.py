"""Limits on outbound work: places, queues, priority, and refusals with ``Retry-After``."""

from __future__ import annotations

import pytest

from forked import Child
from scopeguard.edge.lanes import BOUNDS, Bounds, Full, Ticket, WorkLane
from scopeguard.flow.effects import Lane
from scopeguard.testing import FakeClock

SMALL = Bounds(places=4, places_of_one=3, reserved=1, waiting=2, waiting_first=3)


class Bench:
    """A lane, and the work that was started and refused in it."""

    def __init__(self, bounds: Bounds = SMALL) -> None:
        self.clock = FakeClock()
        self.lane = WorkLane(bounds, self.clock.monotonic)
        self.started: list[str] = []
        self.refused: list[str] = []
        self.tickets: dict[str, Ticket] = {}
        self.failing: set[str] = set()

    def enter(self, name: str, account: str = "a", *, priority: bool = False) -> None:
        def start() -> bool:
            self.started.append(name)
            return name not in self.failing

        self.tickets[name] = Ticket(account, priority=priority, start=start, refuse=lambda: self.refused.append(name))
        self.lane.enter(self.tickets[name])

    def leave(self, name: str) -> None:
        self.lane.leave(self.tickets[name])

    def withdraw(self, name: str) -> bool:
        return self.lane.withdraw(self.tickets[name])


def test_work_starts_at_once_while_places_are_free_and_then_in_order_of_arrival():
    bench = Bench()
    for name in "1234":
        bench.enter(name)
    assert bench.started == ["1", "2"]  # The third place of an account is reserved for work with priority.
    bench.leave("2")
    assert bench.started == ["1", "2", "3"]
    bench.leave("1")
    bench.leave("3")
    bench.leave("4")
    assert bench.started == ["1", "2", "3", "4"]
    assert not bench.lane._accounts  # An idle account is dropped.
    assert bench.lane.wait_until_idle(0)


def test_work_with_priority_goes_first_and_has_a_reserved_place():
    bench = Bench()
    for name in "1234":
        bench.enter(name)
    bench.enter("first", priority=True)
    assert bench.started == ["1", "2", "first"]
    bench.enter("second", priority=True)
    bench.leave("1")
    assert bench.started == ["1", "2", "first", "second"]


def test_no_account_takes_all_places_and_accounts_take_turns():
    bench = Bench()
    for account in "ab":
        for number in range(3):
            bench.enter(f"{account}{number}", account)
    assert bench.started == ["a0", "a1", "b0"]  # One of four places is reserved for work with priority.
    bench.leave("a0")
    bench.leave("b0")
    bench.leave("a1")
    assert bench.started == ["a0", "a1", "b0", "a2", "b1", "b2"]


def test_only_an_account_with_too_much_waiting_work_is_refused():
    bench = Bench()
    for number in range(4):
        bench.enter(str(number))
    with pytest.raises(Full):
        bench.enter("too much")
    bench.enter("other", "b")
    for number in range(4):
        bench.enter(f"first{number}", priority=True)
    with pytest.raises(Full):
        bench.enter("too much with priority", priority=True)
    bench.leave("0")
    assert "too much" not in bench.started


def test_retry_after_follows_the_recent_pace_of_the_queue():
    bench = Bench(Bounds(places=10, places_of_one=2, reserved=0, waiting=8, waiting_first=8))
    for number in range(10):
        bench.enter(str(number))
    with pytest.raises(Full) as full:
        bench.enter("x")
    assert full.value.seconds == 1.0  # Nothing has ended yet: the shortest pause.
    bench.clock.advance(3)
    with pytest.raises(Full) as full:
        bench.enter("x")
    assert full.value.seconds == 8 * 3 / 2  # The oldest work has taken 3 s already.
    bench.leave("0")
    bench.leave("1")
    bench.enter("10")
    bench.enter("11")
    with pytest.raises(Full) as full:
        bench.enter("x")
    assert full.value.seconds == 8 * 3 / 2  # The others took 3 s.
    bench.clock.advance(1000)
    with pytest.raises(Full) as full:
        bench.enter("x")
    assert full.value.seconds == 60.0  # The longest pause.


def test_only_waiting_work_can_be_withdrawn():
    bench = Bench()
    for name in "1234":
        bench.enter(name)
    assert not bench.withdraw("1")
    assert [bench.lane.is_waiting(ticket) for ticket in bench.tickets.values()] == [False, False, True, True]
    assert bench.withdraw("3")
    assert not bench.withdraw("3")
    bench.leave("1")
    bench.leave("2")
    bench.leave("4")
    assert bench.started == ["1", "2", "4"]
    assert not bench.withdraw("4")
    bench.leave("4")  # Withdrawing twice is harmless.
    assert not bench.lane._accounts


def test_withdrawal_of_the_last_work_drops_the_account():
    bench = Bench(Bounds(places=1, places_of_one=1, reserved=0, waiting=2, waiting_first=2))
    bench.enter("1", "a")
    bench.enter("2", "b")
    assert bench.withdraw("2")
    assert list(bench.lane._accounts) == ["a"]


def test_withdrawn_work_frees_its_place_in_the_queue():
    bench = Bench()
    for name in "1234":
        bench.enter(name)
    bench.leave("3")
    bench.enter("5")
    bench.leave("1")
    bench.leave("2")
    assert bench.started == ["1", "2", "4", "5"]


def test_failed_start_frees_its_place():
    bench = Bench()
    bench.failing = {"3", "4"}
    for name in ("1", "2", "3", "4"):
        bench.enter(name)
    bench.leave("1")
    assert bench.started == ["1", "2", "3", "4"]
    bench.enter("5")
    assert bench.started[-1] == "5"


def test_refusing_waiting_work_does_not_stop_running_work():
    bench = Bench()
    for name in "1234":
        bench.enter(name)
    bench.enter("5", "b")
    bench.enter("6", "b")
    bench.lane.refuse_waiting()
    assert bench.refused == ["3", "4", "6"]
    assert not bench.lane.wait_until_idle(0)
    for name in ("1", "2", "5"):
        bench.leave(name)
    assert bench.lane.wait_until_idle(0)
    bench.enter("again")
    assert bench.started[-1] == "again"


def test_a_child_process_has_an_empty_lane():
    bench = Bench()
    for name in "1234":
        bench.enter(name)

    def check() -> None:
        bench.enter("5")
        bench.enter("6")
        assert bench.started[-2:] == ["5", "6"]

    assert Child(check).ok()


def test_each_lane_has_places_for_work_without_priority():
    assert set(BOUNDS) == set(Lane)
    for bounds in BOUNDS.values():
        assert 0 <= bounds.reserved < bounds.places_of_one <= bounds.places
        assert bounds.waiting_first >= bounds.waiting > 0
