"""How many lines of a kind may be logged."""

from __future__ import annotations

from scopeguard.state.line_budget import LineBudget

NOW = 1000.0


def test_a_burst_is_written_then_one_line_each_interval_which_says_how_many_were_left_out():
    budget = LineBudget(burst=3, interval=10.0)
    assert [budget.spend("a", NOW) for _ in range(6)] == [0, 0, 0, None, None, None]
    assert budget.spend("a", NOW + 9.9) is None
    assert budget.spend("a", NOW + 10) == 4
    assert budget.spend("a", NOW + 10.1) is None
    assert budget.spend("a", NOW + 1000) == 1
    assert [budget.spend("a", NOW + 1000) for _ in range(3)] == [0, 0, None]


def test_each_kind_has_a_budget_of_its_own():
    budget = LineBudget(burst=1, interval=10.0)
    assert [budget.spend(kind, NOW) for kind in ("a", "b", "a", "b")] == [0, 0, None, None]


def test_without_an_interval_every_line_is_written():
    budget = LineBudget(burst=1, interval=0.0)
    assert [budget.spend("a", NOW) for _ in range(100)] == [0] * 100


def test_a_child_process_has_a_lock_of_its_own():
    budget = LineBudget(burst=1, interval=10.0)
    held = budget._lock
    with held:
        budget.after_fork()
        assert budget.spend("a", NOW) == 0
