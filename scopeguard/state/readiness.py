"""Readiness: whether a guard can check tokens now, and why not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from scopeguard.config.validation import Validation
from scopeguard.state.issuers import IssuerRecord, Issuers
from scopeguard.state.keys import KeyRing


class Obstacle(StrEnum):
    """A reason why a guard cannot check tokens, or soon will not be able to."""

    NO_KEYS = "no_keys"
    """No key set has been fetched yet."""
    KEYS_TOO_OLD = "keys_too_old"
    """The key set is older than ``KeySetPolicy.max_stale`` and could not be fetched again."""
    KEYS_OVERDUE = "keys_overdue"
    """The key set is past its lifetime and could not be fetched again. It is still used."""
    INTROSPECTION_PAUSED = "introspection_paused"
    """The introspection endpoint has failed, so no token is sent to it for a moment. Cached answers are used."""
    STORE_UNAVAILABLE = "store_unavailable"
    """The shared store has failed, so revocations may be missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerReadiness:
    """Whether tokens of one issuer can be checked.

    ``ready``: new tokens of the issuer can be checked. ``obstacle``: why not, or why soon not; ``None`` if there is
    nothing to report.
    """

    issuer: str
    ready: bool
    obstacle: Obstacle | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Whether a guard can check tokens.

    ``ready``: new tokens of at least one issuer can be checked. An outage of one authorization server does not take an
    API with others out of service. For all issuers, use ``all(each.ready for each in readiness.issuers)``.
    ``obstacle``: a problem that concerns all issuers, ``None`` without one. ``issuers``: the configured issuers, in
    their order. The issuers that a resolver finds are not listed; with a resolver, a guard is ready without them.
    """

    ready: bool
    obstacle: Obstacle | None = None
    issuers: tuple[IssuerReadiness, ...] = ()

    @property
    def obstacles(self) -> tuple[Obstacle, ...]:
        """All obstacles, each once."""
        found = (self.obstacle, *(each.obstacle for each in self.issuers))
        return tuple(dict.fromkeys(obstacle for obstacle in found if obstacle is not None))


def assess(issuers: Issuers, now: float) -> Readiness:
    """Return the readiness of *issuers* at *now* (monotonic seconds). Does no I/O and changes nothing."""
    each = tuple(_assess_issuer(record, now) for record in issuers.all)
    revocations = issuers.revocations
    stops = issuers.shared and not revocations.fail_open_dangerously
    late = now - revocations.synced_at > revocations.max_lag
    store_is_away = stops and late and revocations.breaker.remaining(now) > 0
    ready = issuers.resolved is not None or any(issuer.ready for issuer in each)
    return Readiness(
        ready=ready and not store_is_away,
        obstacle=Obstacle.STORE_UNAVAILABLE if store_is_away else None,
        issuers=each,
    )


def _assess_issuer(record: IssuerRecord, now: float) -> IssuerReadiness:
    url, validation, state = record.issuer.url, record.issuer.validate, record.introspection
    needs_keys = validation is not Validation.INTROSPECTION or (state is not None and state.settings.signed)
    missing = _missing_keys((record, *record.others), now) if needs_keys and record.by_id is None else None
    if missing in (Obstacle.NO_KEYS, Obstacle.KEYS_TOO_OLD):
        return IssuerReadiness(issuer=url, ready=False, obstacle=missing)
    if state is not None and state.breaker.remaining(now) > 0:
        ready = validation is not Validation.INTROSPECTION  # JWTs can be checked
        return IssuerReadiness(issuer=url, ready=ready, obstacle=Obstacle.INTROSPECTION_PAUSED)
    return IssuerReadiness(issuer=url, ready=True, obstacle=missing)


def _missing_keys(records: Iterable[IssuerRecord], now: float) -> Obstacle | None:
    """Return what is wrong with the key sets of an issuer, of which it needs one."""
    found = [_missing_set(record.ring, now) for record in records]
    # Of several sets of an issuer, the best one decides: a key may be in any of them.
    return min(found, key=_SEVERITY.index)


def _missing_set(ring: KeyRing, now: float) -> Obstacle | None:
    held = ring.current
    if held is None:
        return Obstacle.NO_KEYS
    # Without a failure, there was no request for a while, and the next one fetches the set.
    if not ring.is_failing or now < held.overdue_at:
        return None
    return Obstacle.KEYS_OVERDUE if ring.is_usable(now) else Obstacle.KEYS_TOO_OLD


_SEVERITY: Final = (None, Obstacle.KEYS_OVERDUE, Obstacle.KEYS_TOO_OLD, Obstacle.NO_KEYS)
