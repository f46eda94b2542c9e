"""Failures at single tokens: when introspection goes on, and when they are an outage. Times are seconds."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopeguard.state.suspicion import Suspicion


def digest(number: int) -> bytes:
    return number.to_bytes(32, "big")


def ask(suspicion: Suspicion, number: int, now: float, *, accepted: bool = False, timed_out: bool = False) -> bool:
    """Ask about a token at which the authority fails; return whether asking was allowed."""
    if suspicion.pause(now, accepted=accepted) > 0:
        return False
    suspicion.fail(digest(number), now, accepted=accepted, timed_out=timed_out)
    return True


def start_outage(now: float = 100.0) -> Suspicion:
    suspicion = Suspicion()
    suspicion.succeed(now)
    for number in range(3):
        assert ask(suspicion, number, now, accepted=True)
    return suspicion


def test_failures_at_forged_tokens_stop_nothing_while_other_tokens_are_answered():
    suspicion = Suspicion()
    for second in range(30):
        for number in range(500 if second else 100):
            assert ask(suspicion, 1000 * second + number, second)
        assert suspicion.pause(second, accepted=False) == 0
        suspicion.succeed(second)


def test_request_rate_is_limited_without_any_answer():
    suspicion = Suspicion()
    assert sum(ask(suspicion, number, 100.0) for number in range(1000)) == 200
    assert suspicion.pause(100.0, accepted=False) == pytest.approx(0.05)
    assert sum(ask(suspicion, number, 100.0 + number / 100) for number in range(1000)) == pytest.approx(200, abs=2)


def test_accepted_token_does_not_wait_for_unknown_tokens():
    suspicion = Suspicion()
    assert sum(ask(suspicion, number, 100.0) for number in range(1000)) == 200
    assert suspicion.pause(100.0, accepted=True) == 0


def test_request_that_times_out_costs_as_much_as_five():
    suspicion = Suspicion()
    assert sum(ask(suspicion, number, 100.0, timed_out=True) for number in range(1000)) == 40
    suspicion.succeed(100.0)
    assert sum(ask(suspicion, number, 100.0, timed_out=True) for number in range(1000)) == 1000


def test_an_answer_counts_for_a_minute():
    suspicion = Suspicion()
    assert not suspicion.has_answered_recently(0.0)
    suspicion.succeed(100.0)
    suspicion.succeed(90.0)  # Of a thread that was overtaken.
    assert suspicion.has_answered_recently(159.9)
    assert not suspicion.has_answered_recently(160.0)


def test_three_accepted_tokens_that_fail_are_an_outage_for_all():
    suspicion = start_outage()
    assert suspicion.pause(100.0, accepted=True) == 0.5
    assert suspicion.fail(digest(9), 100.0, accepted=False, timed_out=False) == 1.0
    suspicion = start_outage()
    assert suspicion.pause(100.4, accepted=False) == pytest.approx(0.1)


def test_failures_of_one_accepted_token_are_not_an_outage():
    suspicion = Suspicion()
    suspicion.succeed(100.0)
    for _ in range(50):
        assert ask(suspicion, 1, 100.0, accepted=True)
        assert ask(suspicion, 2, 100.0, accepted=True)
    assert suspicion.pause(100.0, accepted=False) == 0


def test_an_answer_ends_an_outage_at_once():
    suspicion = start_outage()
    suspicion.succeed(100.1)
    assert [suspicion.pause(100.1, accepted=accepted) for accepted in (True, False)] == [0, 0]
    for number in range(2):
        assert ask(suspicion, number, 100.1, accepted=True)
    assert suspicion.pause(100.1, accepted=False) == 0


def test_accepted_and_other_tokens_have_separate_probes_in_an_outage():
    suspicion = start_outage()
    assert suspicion.pause(100.5, accepted=False) == 0
    assert suspicion.pause(100.5, accepted=False) == 0.5
    assert suspicion.pause(100.5, accepted=True) == 0
    assert suspicion.pause(100.5, accepted=True) == 0.5


@pytest.mark.parametrize("accepted", [True, False])
def test_outage_of_an_hour_costs_one_request_per_five_seconds(*, accepted: bool):
    suspicion, requests = start_outage(0.0), 0
    for tenth in range(36_000):
        requests += ask(suspicion, tenth, tenth / 10, accepted=accepted)
    assert 3600 / 5.1 - 5 <= requests <= 3600 / 5 + 5


def test_child_process_gets_a_fresh_lock():
    suspicion = Suspicion()
    suspicion._lock.acquire()
    suspicion.after_fork()
    assert suspicion.pause(0.0, accepted=False) == 0


def test_threads_can_share_the_suspicion():
    suspicion, asked_by = Suspicion(), []

    def work() -> None:
        asked_by.append(sum(ask(suspicion, number, 100.0) for number in range(200)))

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
    suspicion, now = Suspicion(), 0.0
    for seconds, number, accepted, timed_out, answered in steps:
        now += seconds
        pause = suspicion.pause(now, accepted=accepted)
        assert 0 <= pause <= 5
        if pause == 0 and answered:
            suspicion.succeed(now)
            assert suspicion.pause(now, accepted=False) == 0
        elif pause == 0:
            suspicion.fail(digest(number), now, accepted=accepted, timed_out=timed_out)
