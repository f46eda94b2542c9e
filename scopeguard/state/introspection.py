"""The run-time state of introspection: cached answers, failures, and the token that authenticates this API.

The cache holds answers of the authorization server and never a decision: expiry, audience, scopes and revocation are
checked for every request. Its keys are digests, so it holds no token. Inactive answers have a map of their own, so that
a flood of made-up tokens does not evict active answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from scopeguard.config.introspection import Introspection
from scopeguard.spec.client_authentication import AssertionKey
from scopeguard.state.accepted_tokens import AcceptedTokens
from scopeguard.state.backoff import Backoff
from scopeguard.state.bounded import BoundedMap
from scopeguard.state.breaker import Breaker
from scopeguard.state.fork import Locked
from scopeguard.state.suspicion import Suspicion

# The first and the longest pause in seconds after a failed question about a token. Each further failure doubles it.
_BACKOFF: Final = Backoff(first=1.0, longest=30.0)
_MOST_FAILED: Final = 1000
# Seconds between two calls of the function that returns the token for introspection.
RENEWAL_INTERVAL: Final = 5.0


@dataclass(frozen=True, slots=True)
class _Failed:
    """A failed question about a token: the time of the failure, the end of the pause, and its length."""

    at: float
    until: float
    pause: float


@dataclass(frozen=True, slots=True)
class IntrospectionAnswer:
    """One answer. ``members`` is ``None`` for an inactive token, and must not be changed.

    ``asked_at``: the time at which the question was sent, in seconds since the epoch. The answer does not reflect later
    events.
    """

    members: Mapping[str, Any] | None
    asked_at: float = float("-inf")


class IntrospectionCache(Locked):
    """A cache of answers, bounded by entries and by age. Safe to use from any thread. Seconds are monotonic.

    *ttl* and *negative_ttl*: the longest use of an active and an inactive answer; 0 caches none. *max_entries*: the
    bound for each kind; the least recently used answer is evicted first.
    """

    def __init__(self, *, ttl: float, negative_ttl: float, max_entries: int) -> None:
        super().__init__()
        self._ttl = ttl
        self._negative_ttl = negative_ttl
        self._active: BoundedMap[bytes, tuple[float, IntrospectionAnswer]] = BoundedMap(max_entries)
        self._inactive: BoundedMap[bytes, tuple[float, IntrospectionAnswer]] = BoundedMap(max_entries)
        self._failed: BoundedMap[bytes, _Failed] = BoundedMap(_MOST_FAILED)

    def __len__(self) -> int:
        return len(self._active) + len(self._inactive)

    def lookup(self, key: bytes, now: float) -> IntrospectionAnswer | None:
        """Return the answer under *key* if it may still be used."""
        with self._lock:
            for kept in (self._active, self._inactive):
                entry = kept.get(key)
                if entry is not None:
                    if now < entry[0]:
                        return entry[1]
                    kept.pop(key)
        return None

    def absorb(self, key: bytes, known: IntrospectionAnswer, now: float, *, lifetime: float) -> None:
        """Cache *known* under *key* for as long as the policy allows, and for at most *lifetime* seconds."""
        self._failed.pop(key)
        members = known.members
        seconds = min(self._negative_ttl if members is None else self._ttl, lifetime)
        if seconds <= 0:
            return
        with self._lock:
            self._active.pop(key)
            self._inactive.pop(key)
            kept = self._inactive if members is None else self._active
            kept.put(key, (now + seconds, known))

    def fail(self, key: bytes, now: float, *, alone: bool = False) -> float:
        """Record that a question about *key* failed at *now*, so that the waiting callers do not repeat it in turn.

        *alone*: the server may answer questions about other tokens, so only this one is paused. Returns the pause in
        seconds.
        """
        with self._lock:
            before = self._failed.peek(key)
            pause = 0.0
            if alone:
                is_recent = before is not None and now < before.until + _BACKOFF.longest
                pause = _BACKOFF.following(before.pause) if before is not None and is_recent else _BACKOFF.first
            self._failed.put(key, _Failed(now, now + pause, pause))
            return pause

    def pause(self, key: bytes, now: float) -> float:
        """Return the seconds for which no question about *key* is sent, because the last one failed."""
        failed = self._failed.peek(key)
        return 0.0 if failed is None else max(0.0, failed.until - now)

    def failed_since(self, key: bytes, since: float) -> bool:
        """Return whether a question about *key* failed at *since* or later."""
        failed = self._failed.peek(key)
        return failed is not None and failed.at >= since


class IntrospectionBearer(Locked):
    """The access token that authenticates this API to the introspection endpoint, if a function of the operator
    returns it. Safe to use from any thread. Seconds are monotonic.

    The token is used until the authorization server refuses it. A refusal may be wrong: some authorization servers
    answer 401 to a question about a bad token, and anyone may send a bad token. The function is therefore called at
    most once in :data:`RENEWAL_INTERVAL` seconds, and if it fails, the refused token is used again.
    """

    def __init__(self) -> None:
        super().__init__()
        self._token: str | None = None
        self._refused: str | None = None
        self._renewed_at = float("-inf")
        self._generation = 0

    @property
    def generation(self) -> int:
        """The number of calls of the function that have ended, successfully or not."""
        return self._generation

    @property
    def token(self) -> str | None:
        """The current token, if there is one."""
        return self._token

    def refuse(self, token: str, now: float) -> bool:
        """Record that the server refused *token*. Return whether to repeat the question with another token.

        The other token is already here or has to be fetched. Returns false within :data:`RENEWAL_INTERVAL` of the last
        renewal.
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
        """Record that the function returned *token*."""
        with self._lock:
            self._token, self._refused = token, None
            self._generation += 1

    def fail(self) -> None:
        """Record that the function returned no token. A refused token is used again: it may be valid after all."""
        with self._lock:
            if self._token is None:
                self._token, self._refused = self._refused, None
            self._generation += 1


@dataclass(slots=True, kw_only=True, eq=False)
class IntrospectionState:
    """The run-time state of introspection at one issuer.

    ``context`` separates this configuration from others in a shared store. ``new_id`` returns a new unique identifier.
    """

    settings: Introspection
    cache: IntrospectionCache
    accepted: AcceptedTokens
    breaker: Breaker
    context: str
    key: AssertionKey | None = field(repr=False)
    new_id: Callable[[], str] = field(repr=False)
    bearer: IntrospectionBearer = field(default_factory=IntrospectionBearer)
    suspicion: Suspicion = field(default_factory=Suspicion)
