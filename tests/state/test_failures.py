"""Failed requests under a key, and the pauses before they are repeated."""

from __future__ import annotations

from scopeguard.state.failures import Failures


def test_failure_counts_for_its_own_key_and_from_its_time():
    failures = Failures()
    failures.fail(b"a", 100.0)
    assert failures.failed_since(b"a", 99.0)
    assert failures.failed_since(b"a", 100.0)
    assert not failures.failed_since(b"a", 100.1)
    assert not failures.failed_since(b"b", 0.0)


def test_pauses_grow_with_failures_and_end_after_a_while():
    failures, now, pauses = Failures(), 100.0, []
    assert failures.pause(b"a", now) == 0
    for _ in range(8):
        pauses.append(failures.fail(b"a", now))
        assert failures.pause(b"a", now) == pauses[-1]
        assert failures.pause(b"b", now) == 0
        now += pauses[-1]
        assert failures.pause(b"a", now) == 0
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]
    assert failures.fail(b"a", now + 30) == 1  # That was long ago.


def test_failure_without_a_pause_does_not_lengthen_the_next_one():
    failures = Failures()
    assert failures.fail(b"a", 100.0, pauses=False) == 0
    assert failures.pause(b"a", 100.0) == 0
    assert failures.fail(b"a", 100.0) == 1


def test_answer_ends_the_pause():
    failures = Failures()
    failures.fail(b"a", 100.0)
    failures.succeed(b"a")
    failures.succeed(b"b")
    assert failures.pause(b"a", 100.0) == 0
    assert failures.fail(b"a", 100.0) == 1


def test_number_of_failures_is_bounded():
    failures = Failures()
    for number in range(5000):
        failures.fail(b"%d" % number, 100.0)
    assert len(failures._failed) == 1000
    assert failures.failed_since(b"4999", 100.0)
    assert not failures.failed_since(b"1", 100.0)
