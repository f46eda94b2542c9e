"""A circuit breaker: when to stop sending requests to a failing server, and when to try again.

A dead endpoint costs every caller a timeout. After a few failures in a row the breaker opens: callers fail at once, and
after a pause, which doubles with each failure, one caller tries again.
"""

from __future__ import annotations

from typing import Final

from scopeguard.state.backoff import Backoff
from scopeguard.state.fork import Locked

PROBE_TIMEOUTS: Final = 4
"""The longest probe, as a multiple of the time limit of an exchange. Afterwards another caller becomes the probe."""


class Breaker(Locked):
    """Opens after *threshold* failures in a row, and allows a probe after *first_pause* seconds, doubled up to
    *max_pause*.

    If a probe does not report its result within *probe_lasts* seconds, another caller becomes the probe.
    """

    def __init__(
        self,
        *,
        threshold: int = 3,
        first_pause: float = 0.5,
        max_pause: float = 30.0,
        probe_lasts: float = 20.0,
    ) -> None:
        super().__init__()
        self._threshold = threshold
        self._backoff = Backoff(first_pause, max_pause)
        self._probe_lasts = probe_lasts
        self._failures = 0
        self._probing = False
        self._closed_at = float("-inf")  # no attempt before this time, in monotonic seconds

    def pause(self, now: float) -> float:
        """Return 0 if the caller may send a request, else the seconds to wait. The caller must report the result."""
        with self._lock:
            if self._failures < self._threshold and now >= self._closed_at:
                return 0.0
            if now < self._closed_at:
                return self._closed_at - now
            self._probing = True  # this caller is the probe
            self._closed_at = now + self._probe_lasts
            return 0.0

    def remaining(self, now: float) -> float:
        """Return the seconds for which no request may be sent, like :meth:`pause`, but do not become the probe."""
        return max(0.0, self._closed_at - now)

    def succeed(self) -> None:
        """Record that the server responded in any way."""
        with self._lock:
            self._failures = 0
            self._probing = False
            self._closed_at = float("-inf")

    def fail(self, now: float, *, retry_after: float | None = None) -> None:
        """Record a failure. *retry_after*: the pause that the server asked for in seconds, up to the longest pause.

        Requests that were under way when the breaker opened report the same outage; they do not lengthen the pause.
        """
        with self._lock:
            wait = min(retry_after or 0.0, self._backoff.longest)
            if self._failures >= self._threshold and now < self._closed_at and not self._probing:
                self._closed_at = max(self._closed_at, now + wait)
                return
            self._failures += 1
            self._probing = False
            if self._failures >= self._threshold:
                self._closed_at = now + self._backoff.pause(self._failures - self._threshold + 1, retry_after)
            else:
                self._closed_at = max(self._closed_at, now + wait)
