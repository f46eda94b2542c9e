"""A cache of status lists by their URI, and when to fetch each of them again.

The cache holds lists whose signature was verified, but no decision: the index is looked up for every request.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from scopeguard.spec.status_list import StatusList
from scopeguard.state.backoff import Backoff
from scopeguard.state.bounded import BoundedMap
from scopeguard.state.fork import Locked

# The bounds for the seconds between two fetches of a list. They override the times in the list.
MOST_LARGE_LISTS: Final = 4
"""Lists of the largest size that are cached for an issuer, and more of smaller ones."""
SHORTEST: Final = 30.0
LONGEST: Final = 86400.0
_UNSAID: Final = 300.0
# The pause after a failure, in seconds, doubled with each further failure.
_BACKOFF: Final = Backoff(first=0.5, longest=30.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The cached list of a URI. ``due``: whether to fetch it; ``pause``: the seconds until it is due."""

    status_list: StatusList | None = None
    due: bool = True
    pause: float = 0.0
    generation: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slot:
    status_list: StatusList | None = None
    usable_until: float = float("-inf")
    fetch_at: float = float("-inf")
    failures: int = 0
    generation: int = 0


class StatusLists(Locked):
    """A cache of status lists, bounded by bytes, entries and age. Safe to use from any thread. Seconds are monotonic.

    *max_bytes*: of all lists together; the least recently used list is evicted first. *jitter*: the fraction, 0 to 0.1,
    by which lifetimes are extended, so that the processes of a fleet do not fetch at the same time.
    """

    def __init__(self, *, max_bytes: int, max_entries: int = 1000, jitter: float = 0.0) -> None:
        super().__init__()
        self._stretch = 1.0 + jitter
        self._slots: BoundedMap[str, _Slot] = BoundedMap(max_entries, max_weight=max_bytes, weigh=_size)

    def __len__(self) -> int:
        return len(self._slots)

    def lookup(self, uri: str, now: float) -> Held:
        """Return the list of *uri*, if it may still be used, and whether to fetch it."""
        with self._lock:
            slot = self._slots.get(uri)
            if slot is None:
                return Held()
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
        precedence over the HTTP header. If the fetch fails, the list is used until it expires. Without an expiry, it is
        used until the fetch is due.
        """
        wanted = next((seconds for seconds in (ttl, expires_in, max_age) if seconds is not None), _UNSAID)
        fresh = min(max(wanted, SHORTEST) * self._stretch, LONGEST)
        usable = fresh if expires_in is None else min(expires_in, LONGEST)
        with self._lock:
            self._slots.put(
                uri,
                _Slot(
                    status_list=status_list,
                    usable_until=now + usable,
                    fetch_at=now + min(fresh, usable),
                    generation=self.generation(uri) + 1,
                ),
            )

    def fail(self, uri: str, now: float, *, retry_after: float | None = None) -> None:
        """Record that the fetch of *uri* failed at *now*; *retry_after*: the pause its server asked for, in seconds."""
        with self._lock:
            slot = self._slots.peek(uri) or _Slot()
            failures = slot.failures + 1
            fetch_at = now + _BACKOFF.pause(failures, retry_after)
            self._slots.put(uri, replace(slot, fetch_at=fetch_at, failures=failures, generation=slot.generation + 1))

    def generation(self, uri: str) -> int:
        """Return the number of fetches of *uri* that have ended, successfully or not."""
        slot = self._slots.peek(uri)
        return 0 if slot is None else slot.generation


def _size(slot: _Slot) -> int:
    return 0 if slot.status_list is None else len(slot.status_list.data)
