"""When to stop asking an authority that does not answer, and when to try again.

A dead endpoint costs every caller a timeout. After a few failures in a row the breaker opens: callers are told at
once to come back later, and one of them, after a pause that doubles with each failure, tries.
"""

from __future__ import annotations

import threading


class Breaker:
    """Open after *threshold* failures in a row; one probe after *first_pause* seconds, doubled up to *max_pause*.

    A probe that never reports back is offered to another caller after *probe_lasts* seconds.
    """

    def __init__(
        self,
        *,
        threshold: int = 3,
        first_pause: float = 0.5,
        max_pause: float = 30.0,
        probe_lasts: float = 20.0,
    ) -> None:
        self._threshold = threshold
        self._first_pause = first_pause
        self._max_pause = max_pause
        self._probe_lasts = probe_lasts
        self._lock = threading.Lock()
        self._failures = 0
        self._probing = False
        self._closed_at = float("-inf")  # no attempt before this time (monotonic seconds)

    def after_fork(self) -> None:
        """In a child process: whoever held the lock stayed with the parent."""
        self._lock = threading.Lock()

    def pause(self, now: float) -> float:
        """0: ask, and report how it went. Otherwise the seconds after which it is worth coming back."""
        with self._lock:
            if self._failures < self._threshold and now >= self._closed_at:
                return 0.0
            if now < self._closed_at:
                return self._closed_at - now
            self._probing = True  # the probe is this caller's
            self._closed_at = now + self._probe_lasts
            return 0.0

    def succeed(self) -> None:
        """The authority answered, whatever it said."""
        with self._lock:
            self._failures = 0
            self._probing = False
            self._closed_at = float("-inf")

    def fail(self, now: float, *, retry_after: float | None = None) -> None:
        """It did not. *retry_after*: the seconds it asked for itself, heeded up to the longest pause.

        Of many who were asking when the breaker opened, each reports the same failure: those do not lengthen it.
        """
        with self._lock:
            wait = min(retry_after or 0.0, self._max_pause)
            if self._failures >= self._threshold and now < self._closed_at and not self._probing:
                self._closed_at = max(self._closed_at, now + wait)
                return
            self._failures += 1
            self._probing = False
            if self._failures >= self._threshold:
                doubled = self._first_pause * 2.0 ** min(self._failures - self._threshold, 30)
                self._closed_at = now + max(wait, min(doubled, self._max_pause))
            else:
                self._closed_at = max(self._closed_at, now + wait)
