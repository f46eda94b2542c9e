"""Recognise security event tokens that were already processed, so that a repetition has no effect.

A receiver recognises a repeated token by its "jti" (RFC 8417 section 2.2).
"""

from __future__ import annotations

from enum import Enum

from scopeguard.state.bounded import BoundedMap
from scopeguard.state.fork import Locked


class EventState(Enum):
    """The state of a key when it arrives."""

    NEW = "new"
    BUSY = "being processed now"
    DONE = "processed"


class ProcessedEvents(Locked):
    """Processed keys, bounded by *max_entries* and by age. Safe to use from any thread. Seconds are monotonic.

    The caller that gets ``NEW`` processes the key and reports the result by :meth:`end`.
    """

    def __init__(self, *, seconds: float, max_entries: int) -> None:
        super().__init__()
        self._seconds = seconds
        self._done: BoundedMap[str, float] = BoundedMap(max_entries)  # the time of expiry; the oldest first
        self._busy: set[str] = set()

    def after_fork(self) -> None:
        """Replace the lock and drop the busy keys of threads that do not exist in the child process."""
        super().after_fork()
        self._busy = set()

    def begin(self, key: str, now: float) -> EventState:
        """Return the state of *key*. If it is ``NEW``, the key becomes busy."""
        with self._lock:
            until = self._done.peek(key)
            if until is not None and now < until:
                return EventState.DONE
            if key in self._busy:
                return EventState.BUSY
            self._busy.add(key)
            return EventState.NEW

    def end(self, key: str, now: float, *, done: bool) -> None:
        """End the processing of *key*. Unless *done*, it may be processed again."""
        with self._lock:
            self._busy.discard(key)
            if done:
                self._done.put(key, now + self._seconds)
