"""The limit on log lines of each kind."""

from __future__ import annotations

from scopeguard.state.line_budget import LineBudget

NOW = 1000.0


def test_burst_is_logged_then_one_line_per_interval_with_the_number_omitted():
    budget = LineBudget(burst=3, interval=10.0)
    assert [budget.spend("a", NOW) for _ in range(6)] == [0, 0, 0, None, None, None]
    assert budget.spend("a", NOW + 9.9) is None
    assert budget.spend("a", NOW + 10) == 4
    assert budget.spend("a", NOW + 10.1) is None
    assert budget.spend("a", NOW + 1000) == 1
    assert [budget.spend("a", NOW + 1000) for _ in range(3)] == [0, 0, None]


def test_each_kind_has_a_separate_budget():
    budget = LineBudget(burst=1, interval=10.0)
    assert [budget.spend(kind, NOW) for kind in ("a", "b", "a", "b")] == [0, 0, None, None]


def test_interval_of_zero_logs_every_line():
    budget = LineBudget(burst=1, interval=0.0)
    assert [budget.spend("a", NOW) for _ in range(100)] == [0] * 100


def test_child_process_gets_a_fresh_lock():
    budget = LineBudget(burst=1, interval=10.0)
    held = budget._lock
    with held:
        budget.after_fork()
        assert budget.spend("a", NOW) == 0
