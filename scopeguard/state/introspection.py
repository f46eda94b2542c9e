"""The run-time state of introspection: cached answers, failures, and the token that authenticates this API.

The cache holds answers of the authorization server and never a decision: expiry, audience, scopes and revocation are
checked for every request. Its keys are digests, so it holds no token. Inactive answers have a map of their own, so that
a flood of made-up tokens does not evict active answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from scopeguard.config.introspection import Introspection
from scopeguard.spec.client_authentication import AssertionKey
from scopeguard.state.accepted_tokens import AcceptedTokens
from scopeguard.state.bounded import BoundedMap
from scopeguard.state.breaker import Breaker
from scopeguard.state.failures import Failures
from scopeguard.state.fork import Locked
from scopeguard.state.own_bearer import OwnBearer
from scopeguard.state.throttle import Throttle


@dataclass(frozen=True, slots=True)
class IntrospectionAnswer:
    """One answer. ``members`` is ``None`` for an inactive token, and must not be changed.

    ``asked_at``: the time at which the introspection request was sent, in seconds since the epoch. The answer does not
    reflect later events.
    """

    members: Mapping[str, Any] | None
    asked_at: float = float("-inf")


class IntrospectionCache(Locked):
    """A cache of answers, bounded by entries and by age. Safe to use from any thread. Seconds are monotonic.

    *ttl* and *negative_ttl*: the longest use of an active and an inactive answer; 0 caches none. *max_entries*: the
    bound for each kind; the least recently used answer is evicted first. ``failures`` has the failed introspection
    requests.
    """

    def __init__(self, *, ttl: float, negative_ttl: float, max_entries: int) -> None:
        super().__init__()
        self._ttl = ttl
        self._negative_ttl = negative_ttl
        self._active: BoundedMap[bytes, tuple[float, IntrospectionAnswer]] = BoundedMap(max_entries)
        self._inactive: BoundedMap[bytes, tuple[float, IntrospectionAnswer]] = BoundedMap(max_entries)
        self.failures: Failures = Failures()

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
        self.failures.succeed(key)
        members = known.members
        seconds = min(self._negative_ttl if members is None else self._ttl, lifetime)
        if seconds <= 0:
            return
        with self._lock:
            self._active.pop(key)
            self._inactive.pop(key)
            kept = self._inactive if members is None else self._active
            kept.put(key, (now + seconds, known))


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
    bearer: OwnBearer = field(default_factory=OwnBearer)
    throttle: Throttle = field(default_factory=Throttle)
