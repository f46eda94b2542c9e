"""Status lists by their URI, for as long as they may be used, and when each is worth fetching again.

Kept are lists whose signature was verified, never a verdict: the index is looked up on every request anew.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from scopeguard.spec.status_list import StatusList

# Seconds between two fetches of a list, whatever its sender says (K-12).
SHORTEST: Final = 30.0
LONGEST: Final = 86400.0
_UNSAID: Final = 300.0
# Seconds of pause after a failure, doubled with each further one.
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What there is under a URI. ``due``: worth a fetch; ``pause``: the seconds after which it will be."""

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
    """Bounded by bytes, entries and age; safe to use from any thread. Seconds are monotonic.

    *max_bytes*: of all lists together; the one used longest ago goes first. *jitter*: the fraction by which the time
    of a list is stretched, so that a fleet does not fetch in step: 0 to 0.1 (K-11).
    """

    def __init__(self, *, max_bytes: int, max_entries: int = 1000, jitter: float = 0.0) -> None:
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._stretch = 1.0 + jitter
        self._lock = threading.Lock()
        self._slots: OrderedDict[str, _Slot] = OrderedDict()
        self._bytes = 0

    def after_fork(self) -> None:
        """In a child process: whoever held the lock stayed with the parent, perhaps between a list and its size."""
        self._lock = threading.Lock()
        self._bytes = sum(map(_size, self._slots.values()))

    def __len__(self) -> int:
        return len(self._slots)

    def lookup(self, uri: str, now: float) -> Held:
        """The list of *uri*, if it may still be used, and whether to fetch it."""
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
        """Keep *status_list*, which was fetched at *now*.

        It is fetched again after *ttl*, else at its end, else after *max_age*: what the list says of itself outranks
        the header of HTTP (K-10). If that fails, the list is used on until its end, and one that does not name an end
        not any longer at all: nobody has said that it may be (K-11).
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
        """The list of *uri* could not be had at *now*; *retry_after* is what its sender asked for, in seconds."""
        with self._lock:
            slot = self._slot(uri)
            doubled = _FIRST_PAUSE * 2.0 ** min(slot.failures, 10)
            slot.fetch_at = now + min(max(doubled, retry_after or 0.0), _LONGEST_PAUSE)
            slot.failures += 1
            self._make_room()

    def generation(self, uri: str) -> int:
        """Grows with every fetch of *uri* that has ended, well or not."""
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
