"""The run-time state of a policy decision point: cached decisions, failures, the endpoint and the token of this API.

Decisions are kept under digests of their evaluation requests, and only if the settings say so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from scopeguard.config.authzen import AuthZen
from scopeguard.spec.authzen import Outcome
from scopeguard.spec.discovery import METADATA_LIFETIME
from scopeguard.state.bounded import BoundedMap
from scopeguard.state.breaker import Breaker
from scopeguard.state.failures import Failures
from scopeguard.state.fork import Locked
from scopeguard.state.log_rate_limit import LogRateLimit
from scopeguard.state.own_bearer import OwnBearer
from scopeguard.state.throttle import Throttle


class Decisions(Locked):
    """Decisions by the digest of their evaluation request, bounded by entries and by age. Seconds are monotonic."""

    def __init__(self, *, ttl: float, max_entries: int) -> None:
        super().__init__()
        self._ttl = ttl
        self._kept: BoundedMap[bytes, tuple[float, Outcome]] = BoundedMap(max_entries)

    def lookup(self, key: bytes, now: float) -> Outcome | None:
        """Return the decision under *key* if it may still be used."""
        with self._lock:
            entry = self._kept.get(key)
            if entry is None or now < entry[0]:
                return None if entry is None else entry[1]
            self._kept.pop(key)
            return None

    def keep(self, key: bytes, outcome: Outcome, now: float, *, lifetime: float, age: float = 0.0) -> None:
        """Keep *outcome* for as long as the settings allow, and for at most *lifetime* seconds.

        *age*: the seconds since it was requested.
        """
        seconds = min(self._ttl - age, lifetime)
        if seconds > 0:
            with self._lock:
                self._kept.put(key, (now + seconds, outcome))


class Endpoint(Locked):
    """The endpoint that the metadata of a policy decision point names. Seconds are monotonic."""

    def __init__(self) -> None:
        super().__init__()
        self._found: tuple[str, float] | None = None

    def current(self, now: float) -> str | None:
        """Return the endpoint if it is known and not too old."""
        found = self._found
        return None if found is None or now >= found[1] else found[0]

    def keep(self, url: str, now: float) -> None:
        """Record that the metadata names *url*."""
        self._found = (url, now + METADATA_LIFETIME)

    def forget(self) -> None:
        """Forget the endpoint, so that the metadata is read again before the next evaluation: it may have moved."""
        self._found = None


@dataclass(slots=True, kw_only=True, eq=False)
class DecisionPoint:
    """The run-time state of one policy decision point. ``new_id`` returns a new unique identifier."""

    settings: AuthZen
    breaker: Breaker
    decisions: Decisions
    new_id: Callable[[], str] = field(repr=False)
    bearer: OwnBearer = field(default_factory=OwnBearer)
    endpoint: Endpoint = field(default_factory=Endpoint)
    failures: Failures = field(default_factory=Failures)
    throttle: Throttle = field(default_factory=Throttle)
    lines: LogRateLimit = field(default_factory=lambda: LogRateLimit(5, 60.0))
