"""Recognising security event tokens that were already processed, so that a repetition has no effect.

A receiver recognises a repeated token by its "jti" (RFC 8417 section 2.2).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from enum import Enum


class Before(Enum):
    """The state of a key when it arrives."""

    NOTHING = "nothing"
    BUSY = "being processed now"
    DONE = "processed"


class Seen:
    """Processed keys, bounded by *max_entries* and by age. Safe to use from any thread. Seconds are monotonic.

    The caller that gets ``NOTHING`` processes the key and reports the result by :meth:`end`.
    """

    def __init__(self, *, seconds: float, max_entries: int) -> None:
        self._seconds = seconds
        self._max_entries = max_entries
        self._lock = threading.Lock()
        self._done: OrderedDict[str, float] = OrderedDict()  # the time of expiry; the oldest first
        self._busy: set[str] = set()

    def after_fork(self) -> None:
        """Replace the lock and drop busy keys in a child process, where the threads of the parent do not exist."""
        self._lock = threading.Lock()
        self._busy.clear()

    def begin(self, key: str, now: float) -> Before:
        """Return the state of *key*. If it is ``NOTHING``, the key becomes busy."""
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
        """End the processing of *key*. Unless *done*, it may be processed again."""
        with self._lock:
            self._busy.discard(key)
            if done:
                self._done[key] = now + self._seconds
                self._done.move_to_end(key)
                while len(self._done) > self._max_entries:
                    self._done.popitem(last=False)
