"""Pauses that double, within their bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopeguard.state.backoff import Backoff

BACKOFF = Backoff(first=0.5, longest=30.0)


def test_pauses_double_up_to_the_longest_one():
    assert [BACKOFF.pause(failures) for failures in (1, 2, 3, 6, 7, 8)] == [0.5, 1.0, 2.0, 16.0, 30.0, 30.0]


@pytest.mark.parametrize(
    ("retry_after", "pause"), [(None, 1.0), (0.0, 1.0), (0.9, 1.0), (5.0, 5.0), (30.0, 30.0), (1e9, 30.0)]
)
def test_retry_after_lengthens_a_pause_within_bounds(retry_after: float | None, pause: float):
    assert BACKOFF.pause(2, retry_after) == pause


def test_years_of_failures_cause_no_overflow():
    assert BACKOFF.pause(10**9) == 30.0


def test_pause_after_another_is_longer():
    assert [BACKOFF.next_pause(pause) for pause in (0.0, 0.5, 1.0, 20.0, 30.0)] == [0.5, 1.0, 2.0, 30.0, 30.0]


@given(first=st.floats(0.001, 100), longest=st.floats(0.001, 1000), failures=st.integers(1, 100))
def test_pauses_follow_the_sequence(first: float, longest: float, failures: int):
    backoff = Backoff(first, longest)
    assert backoff.pause(failures + 1) == backoff.next_pause(backoff.pause(failures)) <= longest
