"""When an authority that does not answer is left alone, and when it is tried again. Times are seconds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopeguard.state.breaker import Breaker


def opened(now: float = 100.0, **options: Any) -> Breaker:
    breaker = Breaker(**{"threshold": 3, **options})
    for _ in range(3):
        assert breaker.pause(now) == 0
        breaker.fail(now)
    return breaker


def test_a_new_breaker_lets_everybody_ask():
    breaker = Breaker()
    assert [breaker.pause(0.0) for _ in range(100)] == [0.0] * 100


def test_few_failures_stop_nobody():
    breaker = Breaker()
    breaker.fail(1.0)
    breaker.fail(1.0)
    assert breaker.pause(1.0) == 0


def test_three_failures_in_a_row_open_it():
    assert opened().pause(100.0) == 0.5
    assert opened().pause(100.2) == pytest.approx(0.3)


def test_a_success_between_failures_keeps_it_closed():
    breaker = Breaker()
    for _ in range(10):
        breaker.fail(1.0)
        breaker.fail(1.0)
        breaker.succeed()
    assert breaker.pause(1.0) == 0


def test_after_the_pause_one_tries_and_the_others_wait():
    breaker = opened()
    assert breaker.pause(100.5) == 0
    assert breaker.pause(100.5) == 20
    assert breaker.pause(101.5) == 19


def test_a_probe_that_succeeds_closes_it():
    breaker = opened()
    assert breaker.pause(100.5) == 0
    breaker.succeed()
    assert [breaker.pause(100.5) for _ in range(3)] == [0, 0, 0]
    breaker.fail(100.5)
    assert breaker.pause(100.5) == 0  # it counts from nothing again


def test_each_probe_that_fails_doubles_the_pause_up_to_the_longest():
    breaker, now, pauses = opened(), 100.0, []
    for _ in range(9):
        pauses.append(breaker.pause(now))
        now += pauses[-1]
        assert breaker.pause(now) == 0
        breaker.fail(now)
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_a_probe_that_never_comes_back_is_offered_to_another():
    breaker = opened()
    assert breaker.pause(100.5) == 0
    assert breaker.pause(120.4) > 0
    assert breaker.pause(120.5) == 0


def test_those_who_were_asking_when_it_opened_do_not_lengthen_the_pause():
    """Two hundred waited for the same dead endpoint: that is one outage."""
    breaker = opened()
    for _ in range(200):
        breaker.fail(100.1)
    assert breaker.pause(100.1) == pytest.approx(0.4)


def test_one_of_those_may_still_have_heard_how_long_to_wait():
    breaker = opened()
    breaker.fail(100.1, retry_after=7.0)
    assert breaker.pause(100.1) == pytest.approx(7.0)
    breaker.fail(100.2)
    assert breaker.pause(100.2) == pytest.approx(6.9)


@pytest.mark.rule("I-18")
def test_what_the_authority_asks_for_is_heeded_at_once_and_up_to_the_longest_pause():
    breaker = Breaker()
    breaker.fail(100.0, retry_after=5.0)
    assert breaker.pause(100.0) == 5
    assert [breaker.pause(105.0) for _ in range(3)] == [0, 0, 0]
    breaker.fail(105.0, retry_after=86400.0)
    assert breaker.pause(105.0) == 30


def test_a_second_failure_does_not_shorten_what_was_asked_for():
    breaker = Breaker()
    breaker.fail(100.0, retry_after=5.0)
    breaker.fail(100.1)
    assert breaker.pause(100.1) == pytest.approx(4.9)


def test_what_is_asked_for_counts_for_an_open_one_as_well():
    breaker = opened()
    assert breaker.pause(100.5) == 0
    breaker.fail(100.5, retry_after=12.0)
    assert breaker.pause(100.5) == 12


@given(
    st.lists(st.tuples(st.sampled_from(["ask", "fail", "succeed"]), st.floats(0, 40), st.floats(0, 1e6)), max_size=60)
)
def test_it_never_keeps_anybody_out_for_longer_than_the_longest_pause(steps: list[tuple[str, float, float]]):
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
