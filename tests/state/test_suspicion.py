"""When an authority is asked on although tokens make it fail, and when that is an outage. Times are seconds."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopeguard.state.suspicion import Suspicion


def digest(number: int) -> bytes:
    return number.to_bytes(32, "big")


def asked(suspicion: Suspicion, number: int, now: float, *, accepted: bool = False, timed_out: bool = False) -> bool:
    """Ask about a token at which the authority fails; whether that was allowed."""
    if suspicion.pause(now, accepted=accepted) > 0:
        return False
    suspicion.fail(digest(number), now, accepted=accepted, timed_out=timed_out)
    return True


def in_an_outage(now: float = 100.0) -> Suspicion:
    suspicion = Suspicion()
    suspicion.succeed(now)
    for number in range(3):
        assert asked(suspicion, number, now, accepted=True)
    return suspicion


def test_tokens_that_are_made_up_stop_nobody_while_others_are_answered():
    suspicion = Suspicion()
    for second in range(30):
        for number in range(500 if second else 100):
            assert asked(suspicion, 1000 * second + number, second)
        assert suspicion.pause(second, accepted=False) == 0
        suspicion.succeed(second)


def test_without_any_answer_questions_are_bounded_by_a_rate():
    suspicion = Suspicion()
    assert sum(asked(suspicion, number, 100.0) for number in range(1000)) == 200
    assert suspicion.pause(100.0, accepted=False) == pytest.approx(0.05)
    assert sum(asked(suspicion, number, 100.0 + number / 100) for number in range(1000)) == pytest.approx(200, abs=2)


def test_a_token_that_was_accepted_waits_for_no_stranger():
    suspicion = Suspicion()
    assert sum(asked(suspicion, number, 100.0) for number in range(1000)) == 200
    assert suspicion.pause(100.0, accepted=True) == 0


def test_a_question_that_times_out_costs_as_much_as_five():
    suspicion = Suspicion()
    assert sum(asked(suspicion, number, 100.0, timed_out=True) for number in range(1000)) == 40
    suspicion.succeed(100.0)
    assert sum(asked(suspicion, number, 100.0, timed_out=True) for number in range(1000)) == 1000


def test_an_answer_counts_for_a_minute():
    suspicion = Suspicion()
    assert not suspicion.answered_recently(0.0)
    suspicion.succeed(100.0)
    suspicion.succeed(90.0)  # of a thread that was overtaken
    assert suspicion.answered_recently(159.9)
    assert not suspicion.answered_recently(160.0)


def test_three_accepted_tokens_that_fail_are_an_outage_for_everybody():
    suspicion = in_an_outage()
    assert suspicion.pause(100.0, accepted=True) == 0.5
    assert suspicion.fail(digest(9), 100.0, accepted=False, timed_out=False) == 1.0
    suspicion = in_an_outage()
    assert suspicion.pause(100.4, accepted=False) == pytest.approx(0.1)


def test_one_accepted_token_is_not_an_outage_however_often_it_fails():
    suspicion = Suspicion()
    suspicion.succeed(100.0)
    for _ in range(50):
        assert asked(suspicion, 1, 100.0, accepted=True)
        assert asked(suspicion, 2, 100.0, accepted=True)
    assert suspicion.pause(100.0, accepted=False) == 0


def test_an_answer_ends_an_outage_at_once():
    suspicion = in_an_outage()
    suspicion.succeed(100.1)
    assert [suspicion.pause(100.1, accepted=accepted) for accepted in (True, False)] == [0, 0]
    for number in range(2):
        assert asked(suspicion, number, 100.1, accepted=True)
    assert suspicion.pause(100.1, accepted=False) == 0


def test_in_an_outage_accepted_tokens_and_others_take_turns_of_their_own():
    suspicion = in_an_outage()
    assert suspicion.pause(100.5, accepted=False) == 0
    assert suspicion.pause(100.5, accepted=False) == 0.5
    assert suspicion.pause(100.5, accepted=True) == 0
    assert suspicion.pause(100.5, accepted=True) == 0.5


@pytest.mark.parametrize("accepted", [True, False])
def test_an_outage_of_an_hour_costs_a_question_each_five_seconds(*, accepted: bool):
    suspicion, questions = in_an_outage(0.0), 0
    for tenth in range(36_000):
        questions += asked(suspicion, tenth, tenth / 10, accepted=accepted)
    assert 3600 / 5.1 - 5 <= questions <= 3600 / 5 + 5


def test_a_child_process_finds_no_lock_that_its_parent_held():
    suspicion = Suspicion()
    suspicion._lock.acquire()
    suspicion.after_fork()
    assert suspicion.pause(0.0, accepted=False) == 0


def test_threads_share_it():
    suspicion, asked_by = Suspicion(), []

    def work() -> None:
        asked_by.append(sum(asked(suspicion, number, 100.0) for number in range(200)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(asked_by) == 200


@given(
    st.lists(st.tuples(st.floats(0, 5), st.integers(0, 20), st.booleans(), st.booleans(), st.booleans()), max_size=80)
)
def test_nobody_is_told_to_wait_for_longer_than_the_longest_pause(
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
