"""A cache of status lists by their URI, and when to fetch each of them again.

The cache holds lists whose signature was verified, and never a decision: the index is looked up for every request.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from scopeguard.spec.status_list import StatusList

# The bounds for the seconds between two fetches of a list, whatever the list says.
SHORTEST: Final = 30.0
LONGEST: Final = 86400.0
_UNSAID: Final = 300.0
# The pause after a failure, in seconds, doubled with each further failure.
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The cached list of a URI. ``due``: whether to fetch it; ``pause``: the seconds until it is due."""

    status_list: StatusList | None = None
    due: bool = True
    pause: float = 0.0
    generation: int = 0


@dataclass(slots=True, kw_only=True)
class _Slot:
    status_list: StatusList | None = None
    usable_until: float = float("-inf")
    fetch_at: float = float("-inf")
    failures: int = 0
    generation: int = 0


class StatusLists:
    """Bounded by bytes, entries and age. Safe to use from any thread. Seconds are monotonic.

    *max_bytes*: of all lists together; the least recently used list is evicted first. *jitter*: the fraction, 0 to 0.1,
    by which lifetimes are extended, so that the processes of a fleet do not fetch at the same time.
    """

    def __init__(self, *, max_bytes: int, max_entries: int = 1000, jitter: float = 0.0) -> None:
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._stretch = 1.0 + jitter
        self._lock = threading.Lock()
        self._slots: OrderedDict[str, _Slot] = OrderedDict()
        self._bytes = 0

    def after_fork(self) -> None:
        """Replace the lock in a child process, and count the bytes: a thread of the parent may have been at that."""
        self._lock = threading.Lock()
        self._bytes = sum(map(_size, self._slots.values()))

    def __len__(self) -> int:
        return len(self._slots)

    def lookup(self, uri: str, now: float) -> Held:
        """Return the list of *uri*, if it may still be used, and whether to fetch it."""
        with self._lock:
            slot = self._slots.get(uri)
            if slot is None:
                return Held()
            self._slots.move_to_end(uri)
            return Held(
                status_list=slot.status_list if now < slot.usable_until else None,
                due=now >= slot.fetch_at,
                pause=max(0.0, slot.fetch_at - now),
                generation=slot.generation,
            )

    def absorb(
        self,
        uri: str,
        status_list: StatusList,
        now: float,
        *,
        ttl: float | None,
        expires_in: float | None,
        max_age: float | None,
    ) -> None:
        """Cache *status_list*, which was fetched at *now*.

        It is fetched again after *ttl*, else when it expires, else after *max_age*: the claims of the list have
        precedence over the HTTP header. If the fetch fails, the list is used until it expires. A list without an
        expiry is not used any longer, because nothing allows it.
        """
        wanted = next((seconds for seconds in (ttl, expires_in, max_age) if seconds is not None), _UNSAID)
        fresh = min(max(wanted, SHORTEST) * self._stretch, LONGEST)
        usable = fresh if expires_in is None else min(expires_in, LONGEST)
        with self._lock:
            slot = self._slot(uri)
            self._bytes += len(status_list.data) - _size(slot)
            slot.status_list = status_list
            slot.usable_until = now + usable
            slot.fetch_at = now + min(fresh, usable)
            slot.failures = 0
            self._make_room()

    def fail(self, uri: str, now: float, *, retry_after: float | None = None) -> None:
        """Record that the fetch of *uri* failed at *now*; *retry_after*: the pause its server asked for, in seconds."""
        with self._lock:
            slot = self._slot(uri)
            doubled = _FIRST_PAUSE * 2.0 ** min(slot.failures, 10)
            slot.fetch_at = now + min(max(doubled, retry_after or 0.0), _LONGEST_PAUSE)
            slot.failures += 1
            self._make_room()

    def generation(self, uri: str) -> int:
        """Return the number of fetches of *uri* that have ended, successfully or not."""
        slot = self._slots.get(uri)
        return 0 if slot is None else slot.generation

    def _slot(self, uri: str) -> _Slot:
        slot = self._slots.setdefault(uri, _Slot())
        self._slots.move_to_end(uri)
        slot.generation += 1
        return slot

    def _make_room(self) -> None:
        while len(self._slots) > self._max_entries or self._bytes > self._max_bytes:
            _, oldest = self._slots.popitem(last=False)
            self._bytes -= _size(oldest)


def _size(slot: _Slot) -> int:
    return 0 if slot.status_list is None else len(slot.status_list.data)
