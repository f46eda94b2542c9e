"""A rate limit for log lines of one kind, which a stranger could otherwise make endless."""

from __future__ import annotations

from scopeguard.state.budget import Budget
from scopeguard.state.fork import Locked


class LogRateLimit(Locked):
    """For each kind, *burst* lines at once, then one per *interval* seconds. Kinds are never dropped: use few."""

    def __init__(self, burst: int, interval: float) -> None:
        super().__init__()
        self._burst = burst
        self._interval = interval
        self._budgets: dict[str, Budget] = {}
        self._left_out: dict[str, int] = {}

    def spend(self, kind: str, now: float) -> int | None:
        """Return ``None`` to suppress this line, otherwise the number of lines suppressed since the last one."""
        if not self._interval:
            return 0
        with self._lock:
            budget = self._budgets.setdefault(kind, Budget(self._burst, self._interval))
            if budget.shortfall(now) > 0.0:
                self._left_out[kind] = self._left_out.get(kind, 0) + 1
                return None
            budget.spend(now)
            return self._left_out.pop(kind, 0)
