"""What was dealt with already, so that what comes twice has one effect (RFC 8417 section 2.2)."""

from __future__ import annotations

import threading
from collections import OrderedDict
from enum import Enum


class Before(Enum):
    """What is known of something that has come."""

    NOTHING = "nothing"
    BUSY = "being dealt with now, elsewhere"
    DONE = "dealt with"


class Seen:
    """Bounded by *max_entries* and by age; safe to use from any thread. Seconds are monotonic.

    Who is told ``NOTHING`` deals with it, and says how that ended by :meth:`end`.
    """

    def __init__(self, *, seconds: float, max_entries: int) -> None:
        self._seconds = seconds
        self._max_entries = max_entries
        self._lock = threading.Lock()
        self._done: OrderedDict[str, float] = OrderedDict()  # until when; the oldest first
        self._busy: set[str] = set()

    def after_fork(self) -> None:
        """In a child process: whoever held the lock, or was dealing with something, stayed with the parent."""
        self._lock = threading.Lock()
        self._busy.clear()

    def begin(self, key: str, now: float) -> Before:
        """What is known of *key*; if nothing, it is busy from now on."""
        with self._lock:
            while self._done and next(iter(self._done.values())) <= now:
                self._done.popitem(last=False)
            if key in self._done:
                return Before.DONE
            if key in self._busy:
                return Before.BUSY
            self._busy.add(key)
            return Before.NOTHING

    def end(self, key: str, now: float, *, done: bool) -> None:
        """*key* is not busy any more. Without *done* it may come again."""
        with self._lock:
            self._busy.discard(key)
            if done:
                self._done[key] = now + self._seconds
                self._done.move_to_end(key)
                while len(self._done) > self._max_entries:
                    self._done.popitem(last=False)
