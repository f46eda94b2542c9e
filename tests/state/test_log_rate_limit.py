"""The limit on log lines of each kind."""

from __future__ import annotations

from scopeguard.state.log_rate_limit import LogRateLimit

NOW = 1000.0


def test_burst_is_logged_then_one_line_per_interval_with_the_number_omitted():
    limit = LogRateLimit(burst=3, interval=10.0)
    assert [limit.spend("a", NOW) for _ in range(6)] == [0, 0, 0, None, None, None]
    assert limit.spend("a", NOW + 9.9) is None
    assert limit.spend("a", NOW + 10) == 4
    assert limit.spend("a", NOW + 10.1) is None
    assert limit.spend("a", NOW + 1000) == 1
    assert [limit.spend("a", NOW + 1000) for _ in range(3)] == [0, 0, None]


def test_each_kind_has_a_separate_budget():
    limit = LogRateLimit(burst=1, interval=10.0)
    assert [limit.spend(kind, NOW) for kind in ("a", "b", "a", "b")] == [0, 0, None, None]


def test_interval_of_zero_logs_every_line():
    limit = LogRateLimit(burst=1, interval=0.0)
    assert [limit.spend("a", NOW) for _ in range(100)] == [0] * 100


def test_child_process_gets_a_fresh_lock():
    limit = LogRateLimit(burst=1, interval=10.0)
    held = limit._lock
    with held:
        limit.after_fork()
        assert limit.spend("a", NOW) == 0
