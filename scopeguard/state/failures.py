"""Failed introspection requests and evaluation requests, and the pauses before they are repeated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from scopeguard.state.backoff import Backoff
from scopeguard.state.bounded import BoundedMap
from scopeguard.state.fork import Locked

# The first and the longest pause in seconds after a failed request. Each further failure doubles it.
_BACKOFF: Final = Backoff(first=1.0, longest=30.0)
_MOST_FAILED: Final = 1000


@dataclass(frozen=True, slots=True)
class _Failure:
    """The time of a failure, the end of the pause, and its length."""

    at: float
    until: float
    pause: float


class Failures(Locked):
    """The failed requests under each key. Safe to use from any thread. Seconds are monotonic.

    The request itself may be the cause of its failure, so only requests with the same key pause.
    """

    def __init__(self) -> None:
        super().__init__()
        self._failed: BoundedMap[bytes, _Failure] = BoundedMap(_MOST_FAILED)

    def pause(self, key: bytes, now: float) -> float:
        """Return the seconds to wait before the next request under *key*."""
        failed = self._failed.peek(key)
        return 0.0 if failed is None else max(0.0, failed.until - now)

    def failed_since(self, key: bytes, since: float) -> bool:
        """Return whether a request under *key* failed at *since* or later."""
        failed = self._failed.peek(key)
        return failed is not None and failed.at >= since

    def fail(self, key: bytes, now: float, *, pauses: bool = True) -> float:
        """Record that a request under *key* failed at *now*, so that the waiting callers do not repeat it in turn.

        *pauses*: whether later requests under *key* pause as well. Returns the pause in seconds, which grows with each
        failure.
        """
        with self._lock:
            before = self._failed.peek(key)
            pause = 0.0
            if pauses:
                is_recent = before is not None and now < before.until + _BACKOFF.longest
                pause = _BACKOFF.next_pause(before.pause) if before is not None and is_recent else _BACKOFF.first
            self._failed.put(key, _Failure(now, now + pause, pause))
            return pause

    def succeed(self, key: bytes) -> None:
        """Record that a request under *key* was answered."""
        if key in self._failed:
            with self._lock:
                self._failed.pop(key)
