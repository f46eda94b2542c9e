"""What introspection said about tokens, for as long as that may be believed.

Kept is what the authority answered, never a decision: expiry, audience, scopes and revocation are judged on every
request anew (X-63, X-65). Keys are digests, so no token is here (I-24). Answers of "not active" live in a place of
their own, small and short-lived: a flood of made-up tokens does not push out the good ones (I-23).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from scopeguard.config.introspection import Introspection
from scopeguard.spec.client_authentication import AssertionKey
from scopeguard.state.accepted import AcceptedTokens
from scopeguard.state.breaker import Breaker
from scopeguard.state.suspicion import Suspicion

# Seconds for which a token is left alone at which the authority failed: at first, doubled each time, and at most.
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 30.0
_MOST_FAILED: Final = 1000
# Seconds between two calls of the function that returns the token for introspection.
RENEWAL_INTERVAL: Final = 5.0


@dataclass(frozen=True, slots=True)
class _Failed:
    """When asking about a token failed, until when not to ask again, and how long a pause that was."""

    at: float
    until: float
    pause: float


@dataclass(frozen=True, slots=True)
class IntrospectionAnswer:
    """An answer that may still be used; ``members`` is ``None`` for a token that is not active. Not to be changed.

    ``asked_at``: when the question was put, in seconds since the epoch; what happened later is not in the answer.
    """

    members: Mapping[str, Any] | None
    asked_at: float = float("-inf")


class IntrospectionCache:
    """Bounded by entries and by age; safe to use from any thread. Seconds are monotonic.

    *ttl* and *negative_ttl*: how long an active and an inactive answer is used at most; 0 keeps none. *max_entries*:
    of each kind; the one used longest ago goes first.
    """

    def __init__(self, *, ttl: float, negative_ttl: float, max_entries: int) -> None:
        self._ttl = ttl
        self._negative_ttl = negative_ttl
        self._max_entries = max_entries
        self._lock = threading.Lock()
        self._active: OrderedDict[bytes, tuple[float, IntrospectionAnswer]] = OrderedDict()
        self._inactive: OrderedDict[bytes, tuple[float, IntrospectionAnswer]] = OrderedDict()
        self._failed: OrderedDict[bytes, _Failed] = OrderedDict()

    def after_fork(self) -> None:
        """In a child process: whoever held the lock stayed with the parent."""
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._active) + len(self._inactive)

    def lookup(self, key: bytes, now: float) -> IntrospectionAnswer | None:
        """The answer kept under *key*, if it may still be used."""
        with self._lock:
            for kept in (self._active, self._inactive):
                entry = kept.get(key)
                if entry is not None:
                    if now < entry[0]:
                        kept.move_to_end(key)
                        return entry[1]
                    del kept[key]
        return None

    def absorb(self, key: bytes, known: IntrospectionAnswer, now: float, *, lifetime: float) -> None:
        """Keep *known* under *key*: as long as the policy allows and no longer than *lifetime* (I-21, X-62)."""
        self._failed.pop(key, None)
        members = known.members
        seconds = min(self._negative_ttl if members is None else self._ttl, lifetime)
        if seconds <= 0:
            return
        with self._lock:
            self._active.pop(key, None)
            self._inactive.pop(key, None)
            kept = self._inactive if members is None else self._active
            kept[key] = (now + seconds, known)
            while len(kept) > self._max_entries:
                kept.popitem(last=False)

    def fail(self, key: bytes, now: float, *, alone: bool = False) -> float:
        """Asking about *key* failed at *now*: callers that waited for the answer need not try one after the other.

        *alone*: the authority may answer questions about other tokens, so this one is left alone for a while. Returns
        the seconds of that pause.
        """
        with self._lock:
            before = self._failed.pop(key, None)
            pause = 0.0
            if alone:
                pause = _FIRST_PAUSE
                if before is not None and now < before.until + _LONGEST_PAUSE:
                    pause = max(pause, min(2 * before.pause, _LONGEST_PAUSE))
            self._failed[key] = _Failed(now, now + pause, pause)
            while len(self._failed) > _MOST_FAILED:
                self._failed.popitem(last=False)
            return pause

    def pause(self, key: bytes, now: float) -> float:
        """The seconds for which *key* is left alone, because the authority failed at it."""
        failed = self._failed.get(key)
        return 0.0 if failed is None else max(0.0, failed.until - now)

    def failed_since(self, key: bytes, since: float) -> bool:
        """Whether asking about *key* has failed at *since* or later."""
        failed = self._failed.get(key)
        return failed is not None and failed.at >= since


class IntrospectionBearer:
    """The access token that authenticates this API to the introspection endpoint, where a function of the operator
    returns it. Safe to use from any thread. Seconds are monotonic.

    The token is used until the authorization server refuses it. A refusal may be wrong: some authorization servers
    answer 401 to a question about a bad token, and anyone may send a bad token. The function is therefore called at
    most once in :data:`RENEWAL_INTERVAL` seconds, and if it fails, the refused token is used again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._token: str | None = None
        self._refused: str | None = None
        self._renewed_at = float("-inf")
        self._generation = 0

    def after_fork(self) -> None:
        """In a child process: whoever held the lock stayed with the parent."""
        self._lock = threading.Lock()

    @property
    def generation(self) -> int:
        """Counts every call of the function that ended, well or badly."""
        return self._generation

    @property
    def token(self) -> str | None:
        """The token that is held."""
        return self._token

    def refuse(self, token: str, now: float) -> bool:
        """The authority did not take *token*: whether to ask again with another one.

        That is then there already, or is to be fetched; not if the last renewal was a moment ago.
        """
        with self._lock:
            if self._token != token:
                return True
            if now < self._renewed_at + RENEWAL_INTERVAL:
                return False
            self._token, self._refused = None, token
            self._renewed_at = now
            return True

    def keep(self, token: str) -> None:
        """The function returned *token*."""
        with self._lock:
            self._token, self._refused = token, None
            self._generation += 1

    def fail(self) -> None:
        """The function did not return a token. One that was refused comes back: it may be as good as before."""
        with self._lock:
            if self._token is None:
                self._token, self._refused = self._refused, None
            self._generation += 1


@dataclass(slots=True, kw_only=True, eq=False)
class IntrospectionState:
    """What introspection needs at run time. ``context`` sets this configuration apart in a cache that others share
    (I-26); ``new_id`` makes identifiers that are used once."""

    settings: Introspection
    cache: IntrospectionCache
    accepted: AcceptedTokens
    breaker: Breaker
    context: str
    key: AssertionKey | None = field(repr=False)
    new_id: Callable[[], str] = field(repr=False)
    bearer: IntrospectionBearer = field(default_factory=IntrospectionBearer)
    suspicion: Suspicion = field(default_factory=Suspicion)

    def after_fork(self) -> None:
        """In a child process, which has none of the threads."""
        self.cache.after_fork()
        self.breaker.after_fork()
        self.suspicion.after_fork()
        self.bearer.after_fork()
