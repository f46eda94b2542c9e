"""A bound for log lines of one kind, which a stranger could otherwise make endless."""

from __future__ import annotations

import threading


class LineBudget:
    """For each kind, *burst* lines at once, then one per *interval* seconds. Kinds are never dropped: use few."""

    def __init__(self, burst: int, interval: float) -> None:
        self._burst = burst
        self._interval = interval
        self._lock = threading.Lock()
        self._spent: dict[str, float] = {}  # by kind: when the whole burst is available again, in monotonic seconds
        self._left_out: dict[str, int] = {}

    def spend(self, kind: str, now: float) -> int | None:
        """Return ``None`` to suppress this line, otherwise the number of lines suppressed since the last one."""
        if not self._interval:
            return 0
        with self._lock:
            free_at = max(self._spent.get(kind, now), now)
            if free_at > now + (self._burst - 1) * self._interval:
                self._left_out[kind] = self._left_out.get(kind, 0) + 1
                return None
            self._spent[kind] = free_at + self._interval
            return self._left_out.pop(kind, 0)

    def after_fork(self) -> None:
        """Replace the lock in a child process, where the thread that held it does not exist."""
        self._lock = threading.Lock()
