"""How many lines may be logged of one kind: strangers choose how many there would be."""

from __future__ import annotations

import threading


class LineBudget:
    """For each kind *burst* lines at once, then one each *interval* seconds. The kinds must be few: all are kept."""

    def __init__(self, burst: int, interval: float) -> None:
        self._burst = burst
        self._interval = interval
        self._lock = threading.Lock()
        self._spent: dict[str, float] = {}  # by kind, when the whole burst is free again (monotonic seconds)
        self._left_out: dict[str, int] = {}

    def spend(self, kind: str, now: float) -> int | None:
        """``None``: do not write this line. Otherwise how many of its kind were left out since the last one."""
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
        """In a child process: the thread that held the lock stayed with the parent."""
        self._lock = threading.Lock()
