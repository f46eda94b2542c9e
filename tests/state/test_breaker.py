"""The circuit breaker: when it pauses requests to an authority, and when it tries again. Times are seconds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopeguard.state.breaker import Breaker


def open_breaker(now: float = 100.0, **options: Any) -> Breaker:
    breaker = Breaker(**{"threshold": 3, **options})
    for _ in range(3):
        assert breaker.pause(now) == 0
        breaker.fail(now)
    return breaker


def test_new_breaker_allows_all_requests():
    breaker = Breaker()
    assert [breaker.pause(0.0) for _ in range(100)] == [0.0] * 100


def test_fewer_than_three_failures_keep_the_breaker_closed():
    breaker = Breaker()
    breaker.fail(1.0)
    breaker.fail(1.0)
    assert breaker.pause(1.0) == 0


def test_three_failures_in_a_row_open_the_breaker():
    assert open_breaker().pause(100.0) == 0.5
    assert open_breaker().pause(100.2) == pytest.approx(0.3)


def test_success_between_failures_keeps_the_breaker_closed():
    breaker = Breaker()
    for _ in range(10):
        breaker.fail(1.0)
        breaker.fail(1.0)
        breaker.succeed()
    assert breaker.pause(1.0) == 0


def test_after_the_pause_one_request_probes_and_the_others_are_refused():
    breaker = open_breaker()
    assert breaker.pause(100.5) == 0
    assert breaker.pause(100.5) == 20
    assert breaker.pause(101.5) == 19


def test_successful_probe_closes_the_breaker():
    breaker = open_breaker()
    assert breaker.pause(100.5) == 0
    breaker.succeed()
    assert [breaker.pause(100.5) for _ in range(3)] == [0, 0, 0]
    breaker.fail(100.5)
    assert breaker.pause(100.5) == 0  # Failures count from zero again.


def test_each_failed_probe_doubles_the_pause_up_to_the_longest():
    breaker, now, pauses = open_breaker(), 100.0, []
    for _ in range(9):
        pauses.append(breaker.pause(now))
        now += pauses[-1]
        assert breaker.pause(now) == 0
        breaker.fail(now)
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_lost_probe_is_replaced_by_another_request():
    breaker = open_breaker()
    assert breaker.pause(100.5) == 0
    assert breaker.pause(120.4) > 0
    assert breaker.pause(120.5) == 0


def test_requests_running_at_the_opening_do_not_lengthen_the_pause():
    """Two hundred requests that wait for the same dead endpoint are one outage."""
    breaker = open_breaker()
    for _ in range(200):
        breaker.fail(100.1)
    assert breaker.pause(100.1) == pytest.approx(0.4)


def test_retry_after_of_such_a_request_still_counts():
    breaker = open_breaker()
    breaker.fail(100.1, retry_after=7.0)
    assert breaker.pause(100.1) == pytest.approx(7.0)
    breaker.fail(100.2)
    assert breaker.pause(100.2) == pytest.approx(6.9)


@pytest.mark.rule("I-18")
def test_retry_after_opens_the_breaker_at_once_up_to_the_longest_pause():
    breaker = Breaker()
    breaker.fail(100.0, retry_after=5.0)
    assert breaker.pause(100.0) == 5
    assert [breaker.pause(105.0) for _ in range(3)] == [0, 0, 0]
    breaker.fail(105.0, retry_after=86400.0)
    assert breaker.pause(105.0) == 30


def test_second_failure_does_not_shorten_a_retry_after():
    breaker = Breaker()
    breaker.fail(100.0, retry_after=5.0)
    breaker.fail(100.1)
    assert breaker.pause(100.1) == pytest.approx(4.9)


def test_retry_after_counts_for_an_open_breaker_too():
    breaker = open_breaker()
    assert breaker.pause(100.5) == 0
    breaker.fail(100.5, retry_after=12.0)
    assert breaker.pause(100.5) == 12


@given(
    st.lists(st.tuples(st.sampled_from(["ask", "fail", "succeed"]), st.floats(0, 40), st.floats(0, 1e6)), max_size=60)
)
def test_no_pause_exceeds_the_longest_pause(steps: list[tuple[str, float, float]]):
    breaker, now = Breaker(), 0.0
    for what, seconds, retry_after in steps:
        now += seconds
        if what == "ask":
            assert 0 <= breaker.pause(now) <= 30.001
        elif what == "fail":
            breaker.fail(now, retry_after=retry_after)
        else:
            breaker.succeed()
    assert breaker.pause(now + 30.001) == 0
