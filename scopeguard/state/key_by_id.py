"""The keys of an issuer that publishes each under a URL of its own.

Anybody who can send a token can name a key id, so looking for a key that is not held is paid from the budget that a
key ring has for unknown keys, whatever comes of it (law 9). What came of it is remembered for a while: each id costs
one fetch. A held key is looked after beside the requests, and never pushed out by ids that are made up.

Made-up ids must not starve the others either, and one fetch finds one key. So the last fetch of the budget goes to the
id that is asked for most, whichever request comes when it may begin: a key that exists is asked for again and again,
and an id that was made up is forgotten with its token. A stranger who repeats ids as well has to outdo the requests
with the new key for every single fetch.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Final

from scopeguard.config.keys import KeySetPolicy
from scopeguard.spec.jwks import VerificationKey
from scopeguard.state.budget import Budget

# Ids whose requests are counted. Of all that are asked for, one with a larger share than 1 in so many keeps its place.
_MOST_COUNTED: Final = 256
# Intervals between fetches after which an id that nobody asks for any more has no claim to the next one.
_PATIENCE: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Sought:
    """What is known of a key.

    ``key``: it, if it is held. ``fetch``: the id of the key to fetch now, be it another one. ``absent``: it was asked
    for, and there is no such key; without that, and without a key, nobody knows, and the next fetch may begin in
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
    """How often an id was asked for, and how many of those times were of ids that had its place before."""

    asked: int
    inherited: int
    last: float


class KeysById:
    """Keys by their id, for any number of threads and event loops. Times are monotonic seconds."""

    def __init__(self, policy: KeySetPolicy) -> None:
        self._policy = policy
        self._lock = threading.Lock()
        self._held: OrderedDict[str, _Held] = OrderedDict()
        # Until when not to ask again, and whether that is because there is no such key.
        self._others: OrderedDict[str, tuple[float, bool]] = OrderedDict()
        self._counted: dict[str, _Counted] = {}
        self._aloft: set[str] = set()  # of the fetches that were paid for
        self._budget = Budget(policy.refetch_burst, policy.refetch_interval)

    def ask(self, kid: str, now: float) -> Sought:
        """What is known of the key *kid*, for a request that needs it: once for each request."""
        with self._lock:
            sought, (until, absent) = self._lookup(kid, now), self._others.get(kid, (now, False))
            if sought.key is not None or absent or now < until or kid in self._aloft:
                return sought  # it competes for no fetch
            self._count(kid, now)
            if sought.fetch is not None and self._budget.shortfall(now, 2) > 0.0:
                return replace(sought, fetch=self._most_wanted(now))
            return sought

    def lookup(self, kid: str, now: float) -> Sought:
        """What is known of the key *kid*."""
        with self._lock:
            return self._lookup(kid, now)

    def begin(self, kid: str, now: float) -> bool:
        """Whether a fetch of *kid* may begin; it is paid for now, unless the key is held."""
        with self._lock:
            held = self._usable(kid, now)
            if held is not None:
                due = now >= held.refresh_at
                if due:  # and not again for a while if it fails
                    self._held[kid] = replace(held, refresh_at=now + self._policy.refetch_interval)
                return due
            self._aloft.discard(kid)  # a fetch that was in the air is lost
            if self._budget.shortfall(now) > 0.0:
                return False
            self._budget.spend(now)
            self._aloft.add(kid)
            self._counted.pop(kid, None)
            return True

    def absorb(self, kid: str, key: VerificationKey | None, now: float) -> None:
        """The fetch of *kid* brought *key*, or that there is none."""
        policy = self._policy
        with self._lock:
            self._others.pop(kid, None)
            self._aloft.discard(kid)
            if key is None:
                self._held.pop(kid, None)
                self._remember(kid, now + policy.negative_ttl, absent=True)
                return
            self._held[kid] = _Held(key, now + policy.max_ttl, now + policy.max_stale)
            self._held.move_to_end(kid)
            if len(self._held) > policy.max_keys:
                self._held.popitem(last=False)

    def fail(self, kid: str, now: float, *, retry_after: float | None) -> None:
        """The fetch of *kid* failed, which says nothing about the key."""
        policy = self._policy
        with self._lock:
            self._aloft.discard(kid)
            self._remember(
                kid, now + max(policy.refetch_interval, min(retry_after or 0.0, policy.max_backoff)), absent=False
            )

    def after_fork(self) -> None:
        """In a child process: the threads that held the lock and fetch keys stayed with the parent."""
        self._lock = threading.Lock()
        self._aloft.clear()

    def _lookup(self, kid: str, now: float) -> Sought:
        held = self._usable(kid, now)
        if held is not None:
            self._held.move_to_end(kid)
            return Sought(key=held.key, fetch=kid if now >= held.refresh_at else None)
        if kid in self._aloft:
            return Sought(fetch=kid)  # to wait for it costs nothing
        until, absent = self._others.get(kid, (now, False))
        # An absent key is worth another fetch after a while, but not the last one of the budget.
        pause = max(until - now, self._budget.shortfall(now, 2 if absent else 1))
        return Sought(fetch=None if pause > 0.0 else kid, absent=absent and pause > 0.0, pause=pause)

    def _usable(self, kid: str, now: float) -> _Held | None:
        held = self._held.get(kid)
        return held if held is not None and now < held.stale_at else None

    def _remember(self, kid: str, until: float, *, absent: bool) -> None:
        self._others[kid] = until, absent
        self._others.move_to_end(kid)
        if len(self._others) > self._policy.negative_kids:
            self._others.popitem(last=False)

    def _count(self, kid: str, now: float) -> None:
        """Count a request for *kid* ("space saving", Metwally and others 2005).

        When there is no room, the id that was asked for least gives up its place together with its count. An id whose
        own count is larger than what others can have put together there is therefore never pushed out.
        """
        counted = self._counted.get(kid)
        if counted is None:
            inherited = 0
            if len(self._counted) >= _MOST_COUNTED:
                least = min(self._counted, key=lambda name: self._counted[name].asked)
                inherited = self._counted.pop(least).asked
            counted = self._counted[kid] = _Counted(inherited, inherited, now)
        counted.asked += 1
        counted.last = now

    def _most_wanted(self, now: float) -> str:
        """The id that was asked for most, of those that are still asked for; the first to come, of several."""
        since = now - _PATIENCE * self._policy.refetch_interval
        recent = {name: counted for name, counted in self._counted.items() if counted.last >= since}
        return max(recent, key=lambda name: recent[name].asked - recent[name].inherited)
