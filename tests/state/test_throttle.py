"""Failures at single tokens: when introspection goes on, and when they are an outage. Times are seconds."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopeguard.state.throttle import Throttle


def digest(number: int) -> bytes:
    return number.to_bytes(32, "big")


def ask(throttle: Throttle, number: int, now: float, *, accepted: bool = False, timed_out: bool = False) -> bool:
    """Ask about a token at which the authority fails; return whether asking was allowed."""
    if throttle.pause(now, accepted=accepted) > 0:
        return False
    throttle.fail(digest(number), now, accepted=accepted, timed_out=timed_out)
    return True


def start_outage(now: float = 100.0) -> Throttle:
    throttle = Throttle()
    throttle.succeed(now)
    for number in range(3):
        assert ask(throttle, number, now, accepted=True)
    return throttle


def test_failures_at_forged_tokens_stop_nothing_while_other_tokens_are_answered():
    throttle = Throttle()
    for second in range(30):
        for number in range(500 if second else 100):
            assert ask(throttle, 1000 * second + number, second)
        assert throttle.pause(second, accepted=False) == 0
        throttle.succeed(second)


def test_request_rate_is_limited_without_any_answer():
    throttle = Throttle()
    assert sum(ask(throttle, number, 100.0) for number in range(1000)) == 200
    assert throttle.pause(100.0, accepted=False) == pytest.approx(0.05)
    assert sum(ask(throttle, number, 100.0 + number / 100) for number in range(1000)) == pytest.approx(200, abs=2)


def test_accepted_token_does_not_wait_for_unknown_tokens():
    throttle = Throttle()
    assert sum(ask(throttle, number, 100.0) for number in range(1000)) == 200
    assert throttle.pause(100.0, accepted=True) == 0


def test_request_that_times_out_costs_as_much_as_five():
    throttle = Throttle()
    assert sum(ask(throttle, number, 100.0, timed_out=True) for number in range(1000)) == 40
    throttle.succeed(100.0)
    assert sum(ask(throttle, number, 100.0, timed_out=True) for number in range(1000)) == 1000


def test_an_answer_counts_for_a_minute():
    throttle = Throttle()
    assert not throttle.has_answered_recently(0.0)
    throttle.succeed(100.0)
    throttle.succeed(90.0)  # Of a thread that was overtaken.
    assert throttle.has_answered_recently(159.9)
    assert not throttle.has_answered_recently(160.0)


def test_three_accepted_tokens_that_fail_are_an_outage_for_all():
    throttle = start_outage()
    assert throttle.pause(100.0, accepted=True) == 0.5
    assert throttle.fail(digest(9), 100.0, accepted=False, timed_out=False) == 1.0
    throttle = start_outage()
    assert throttle.pause(100.4, accepted=False) == pytest.approx(0.1)


def test_failures_of_one_accepted_token_are_not_an_outage():
    throttle = Throttle()
    throttle.succeed(100.0)
    for _ in range(50):
        assert ask(throttle, 1, 100.0, accepted=True)
        assert ask(throttle, 2, 100.0, accepted=True)
    assert throttle.pause(100.0, accepted=False) == 0


def test_an_answer_ends_an_outage_at_once():
    throttle = start_outage()
    throttle.succeed(100.1)
    assert [throttle.pause(100.1, accepted=accepted) for accepted in (True, False)] == [0, 0]
    for number in range(2):
        assert ask(throttle, number, 100.1, accepted=True)
    assert throttle.pause(100.1, accepted=False) == 0


def test_accepted_and_other_tokens_have_separate_probes_in_an_outage():
    throttle = start_outage()
    assert throttle.pause(100.5, accepted=False) == 0
    assert throttle.pause(100.5, accepted=False) == 0.5
    assert throttle.pause(100.5, accepted=True) == 0
    assert throttle.pause(100.5, accepted=True) == 0.5


@pytest.mark.parametrize("accepted", [True, False])
def test_outage_of_an_hour_costs_one_request_per_five_seconds(*, accepted: bool):
    throttle, requests = start_outage(0.0), 0
    for tenth in range(36_000):
        requests += ask(throttle, tenth, tenth / 10, accepted=accepted)
    assert 3600 / 5.1 - 5 <= requests <= 3600 / 5 + 5


def test_child_process_gets_a_fresh_lock():
    throttle = Throttle()
    throttle._lock.acquire()
    throttle.after_fork()
    assert throttle.pause(0.0, accepted=False) == 0


def test_threads_can_share_the_throttle():
    throttle, asked_by = Throttle(), []

    def work() -> None:
        asked_by.append(sum(ask(throttle, number, 100.0) for number in range(200)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(asked_by) == 200


@given(
    st.lists(st.tuples(st.floats(0, 5), st.integers(0, 20), st.booleans(), st.booleans(), st.booleans()), max_size=80)
)
def test_no_pause_exceeds_the_longest_pause(
    steps: list[tuple[float, int, bool, bool, bool]],
):
    throttle, now = Throttle(), 0.0
    for seconds, number, accepted, timed_out, answered in steps:
        now += seconds
        pause = throttle.pause(now, accepted=accepted)
        assert 0 <= pause <= 5
        if pause == 0 and answered:
            throttle.succeed(now)
            assert throttle.pause(now, accepted=False) == 0
        elif pause == 0:
            throttle.fail(digest(number), now, accepted=accepted, timed_out=timed_out)
