"""The keys of an issuer that publishes each key under a URL of its own.

Anyone who can send a token can name a key id. A fetch for an unknown key therefore counts against a budget, even if it
fails. The result is cached for a while, so that each id costs one fetch. A cached key is refreshed in the background,
and made-up ids do not evict it.

One fetch finds one key, and made-up ids must not use up all fetches. The last fetch of the budget therefore goes to the
id that was requested most, even if another request starts it: a key that exists is requested again and again, a made-up
id once. A stranger who repeats ids has to send more requests than the users of the new key, for every fetch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from scopeguard.config.keys import KeySetPolicy
from scopeguard.spec.jwks import VerificationKey
from scopeguard.state.bounded import BoundedMap
from scopeguard.state.budget import Budget
from scopeguard.state.fork import Locked

# The number of ids whose requests are counted. An id with a larger share of the requests than 1/256 keeps its place.
_MOST_COUNTED: Final = 256
# An id without a request for this many fetch intervals does not get the next fetch.
_PATIENCE: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Sought:
    """The result of a look-up.

    ``key``: the cached key. ``fetch``: the id of the key to fetch now, perhaps that of another key. ``absent``: a fetch
    found that the key does not exist. Without ``key`` and ``absent``, this is unknown, and the next fetch may begin in
    ``pause`` seconds.
    """

    key: VerificationKey | None = None
    fetch: str | None = None
    absent: bool = False
    pause: float = 0.0


@dataclass(frozen=True, slots=True)
class _Held:
    key: VerificationKey
    refresh_at: float
    stale_at: float


@dataclass(slots=True)
class _Counted:
    """The requests counted for an id, and how many of them were inherited from ids that had its place before."""

    requests: int
    inherited: int
    last: float


class KeysById(Locked):
    """A cache of keys by their id. Safe to use from any thread. Times are monotonic seconds."""

    def __init__(self, policy: KeySetPolicy) -> None:
        super().__init__()
        self._policy = policy
        self._held: BoundedMap[str, _Held] = BoundedMap(policy.max_keys)
        # The time until which no fetch is repeated, and whether the key is known not to exist.
        self._others: BoundedMap[str, tuple[float, bool]] = BoundedMap(policy.negative_kids)
        self._counted: dict[str, _Counted] = {}
        self._in_flight: set[str] = set()  # ids whose fetch is under way and counted
        self._budget = Budget(policy.refetch_burst, policy.refetch_interval)

    def ask(self, kid: str, now: float) -> Sought:
        """Look up the key *kid* for a request that needs it, and count the request. Call it once for each request."""
        with self._lock:
            sought, (until, absent) = self._lookup(kid, now), self._others.peek(kid) or (now, False)
            if sought.key is not None or absent or now < until or kid in self._in_flight:
                return sought  # no fetch is needed or possible
            self._count(kid, now)
            if sought.fetch is not None and self._budget.shortfall(now, 2) > 0.0:
                return replace(sought, fetch=self._most_wanted(now))
            return sought

    def lookup(self, kid: str, now: float) -> Sought:
        """Look up the key *kid*."""
        with self._lock:
            return self._lookup(kid, now)

    def begin(self, kid: str, now: float) -> bool:
        """Return whether a fetch of *kid* may begin, and take it from the budget unless the key is cached."""
        with self._lock:
            held = self._usable(kid, now)
            if held is not None:
                due = now >= held.refresh_at
                if due:  # a failure is not repeated at once
                    self._held.put(kid, replace(held, refresh_at=now + self._policy.refetch_interval))
                return due
            self._in_flight.discard(kid)  # an earlier fetch did not report its result
            if self._budget.shortfall(now) > 0.0:
                return False
            self._budget.spend(now)
            self._in_flight.add(kid)
            self._counted.pop(kid, None)
            return True

    def absorb(self, kid: str, key: VerificationKey | None, now: float) -> None:
        """Record that the fetch of *kid* returned *key*, or ``None`` because there is no such key."""
        policy = self._policy
        with self._lock:
            self._others.pop(kid)
            self._in_flight.discard(kid)
            if key is None:
                self._held.pop(kid)
                self._others.put(kid, (now + policy.negative_ttl, True))
            else:
                self._held.put(kid, _Held(key, now + policy.max_ttl, now + policy.max_stale))

    def fail(self, kid: str, now: float, *, retry_after: float | None) -> None:
        """Record that the fetch of *kid* failed, which says nothing about the key."""
        policy = self._policy
        with self._lock:
            self._in_flight.discard(kid)
            pause = max(policy.refetch_interval, min(retry_after or 0.0, policy.max_backoff))
            self._others.put(kid, (now + pause, False))

    def after_fork(self) -> None:
        """Replace the lock and drop the fetches of threads that do not exist in the child process."""
        super().after_fork()
        self._in_flight = set()

    def _lookup(self, kid: str, now: float) -> Sought:
        held = self._usable(kid, now)
        if held is not None:
            self._held.get(kid)
            return Sought(key=held.key, fetch=kid if now >= held.refresh_at else None)
        if kid in self._in_flight:
            return Sought(fetch=kid)  # joins the fetch that is under way
        until, absent = self._others.peek(kid) or (now, False)
        # After a pause, an absent key is fetched again, but not with the last fetch of the budget.
        pause = max(until - now, self._budget.shortfall(now, 2 if absent else 1))
        return Sought(fetch=None if pause > 0.0 else kid, absent=absent and pause > 0.0, pause=pause)

    def _usable(self, kid: str, now: float) -> _Held | None:
        held = self._held.peek(kid)
        return held if held is not None and now < held.stale_at else None

    def _count(self, kid: str, now: float) -> None:
        """Count a request for *kid* ("space saving", Metwally and others 2005).

        Without a free place, the least requested id is replaced, and the new id inherits its count. An id whose own
        count exceeds what all others can have contributed is therefore never replaced.
        """
        counted = self._counted.get(kid)
        if counted is None:
            inherited = 0
            if len(self._counted) >= _MOST_COUNTED:
                least = min(self._counted, key=lambda name: self._counted[name].requests)
                inherited = self._counted.pop(least).requests
            counted = self._counted[kid] = _Counted(inherited, inherited, now)
        counted.requests += 1
        counted.last = now

    def _most_wanted(self, now: float) -> str:
        """Return the id with the most recent requests of its own; the first one of several."""
        since = now - _PATIENCE * self._policy.refetch_interval
        recent = {name: counted for name, counted in self._counted.items() if counted.last >= since}
        return max(recent, key=lambda name: recent[name].requests - recent[name].inherited)
