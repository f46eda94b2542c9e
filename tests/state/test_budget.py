"""The budget for work that any client can cause: a burst, then one unit per interval, with any clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopeguard.state.budget import Budget


def spend_all(budget: Budget, now: float, times: int) -> Budget:
    for _ in range(times):
        assert budget.shortfall(now) == 0
        budget.spend(now)
    return budget


def test_a_burst_and_then_one_per_interval():
    budget = spend_all(Budget(3, 10.0), 100.0, 3)
    assert [budget.shortfall(100.0 + second) for second in (0, 4, 10)] == [10, 6, 0]
    spend_all(budget, 110.0, 1)
    assert budget.shortfall(110.0) == 10


def test_unused_budget_is_saved_up_to_the_burst():
    spend_all(spend_all(Budget(2, 10.0), 0.0, 2), 10_000.0, 2)
    budget = spend_all(Budget(2, 10.0), 0.0, 1)
    assert [budget.shortfall(0.0, units) for units in (1, 2, 3)] == [0, 10, 10]


@pytest.mark.parametrize("tenth", range(100))
def test_remaining_time_does_not_drift_with_the_number_of_reads(tenth: int):
    budget = spend_all(Budget(3, 10.0), 1000.0, 3)
    for step in range(tenth):
        budget.shortfall(1000.0 + step / 10)
    assert budget.shortfall(1000.0 + tenth / 10) == pytest.approx(10 - tenth / 10, abs=1e-9)


@given(st.integers(1, 4), st.lists(st.floats(-5, 20), max_size=60))
def test_no_order_of_times_exceeds_the_budget(burst: int, steps: list[float]):
    budget, now, latest, spend_all = Budget(burst, 10.0), 0.0, 0.0, 0
    for step in steps:
        now += step
        latest = max(latest, now)
        if budget.shortfall(now) == 0:
            budget.spend(now)
            spend_all += 1
    assert spend_all <= burst + (latest - min(0.0, now)) / 10 + len([step for step in steps if step < 0])


def test_refund_gives_one_unit_back_and_never_more_than_the_burst():
    budget = spend_all(Budget(2, 10.0), 0.0, 2)
    budget.refund()
    spend_all(budget, 0.0, 1)
    assert budget.shortfall(0.0) == 10
    for _ in range(5):
        budget.refund()
    assert spend_all(budget, 0.0, 2).shortfall(0.0) == 10
