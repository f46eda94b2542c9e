"""Whether a guard can judge tokens, read from the state of its issuers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from scopeguard.config.catalog import ScopeCatalog
from scopeguard.config.introspection import Introspection
from scopeguard.config.issuer import Issuer
from scopeguard.config.keys import KeySetPolicy
from scopeguard.config.resolver import IssuerResolver
from scopeguard.core.wiring import build_issuer_record
from scopeguard.spec.jwks import KeySet
from scopeguard.state.issuers import IssuerRecord, Issuers, ResolvedIssuers
from scopeguard.state.keys import KeyRing
from scopeguard.state.readiness import Obstacle, assess
from scopeguard.state.revocation import Revocations

URL = "https://as.test"
KEYS = KeySet(keys=())
ASKING = Introspection(client_id="api", client_secret="s3cret")
POLICY = KeySetPolicy(ttl=60, min_ttl=60, max_ttl=60, max_stale=600)


def record_of(url: str = URL, **settings: Any) -> IssuerRecord:
    issuer = Issuer(url, audience="api", key_set=POLICY, **settings)
    return build_issuer_record(issuer, ScopeCatalog(), ())


def fetch(ring: KeyRing, now: float, *, fails: bool = False) -> None:
    number = ring.begin(now, provoked=False)
    assert number is not None
    if fails:
        ring.fail(now, number=number, retry_after=None)
    else:
        ring.absorb(KEYS, now, number=number, lifetime=None)


def issuers_of(*records: IssuerRecord, **options: Any) -> Issuers:
    return Issuers(records, **{"revocations": Revocations(), **options})


def state(issuers: Issuers, now: float) -> list[tuple[bool, Obstacle | None]]:
    return [(each.ready, each.obstacle) for each in assess(issuers, now).issuers]


def test_issuer_is_ready_when_its_keys_have_been_fetched():
    record = record_of()
    issuers = issuers_of(record)
    assert state(issuers, 0.0) == [(False, Obstacle.NO_KEYS)]
    assert assess(issuers, 0.0).ready is False
    fetch(record.ring, 0.0, fails=True)
    assert state(issuers, 0.0) == [(False, Obstacle.NO_KEYS)]
    fetch(record.ring, 1.0)
    found = assess(issuers, 2.0)
    assert (found.ready, found.obstacles, found.issuers[0].issuer) == (True, (), URL)


def test_keys_that_cannot_be_fetched_again_are_overdue_then_too_old():
    record = record_of()
    issuers = issuers_of(record)
    fetch(record.ring, 0.0)
    fetch(record.ring, 59.0, fails=True)
    assert state(issuers, 59.0) == [(True, None)]
    assert state(issuers, 61.0) == [(True, Obstacle.KEYS_OVERDUE)]
    assert state(issuers, 601.0) == [(False, Obstacle.KEYS_TOO_OLD)]
    fetch(record.ring, 602.0)
    assert state(issuers, 602.0) == [(True, None)]


def test_api_without_requests_stays_ready():
    """Its keys become old, because no request fetches them. A probe that fails would keep requests away for ever."""
    record = record_of()
    fetch(record.ring, 0.0)
    assert state(issuers_of(record), 10_000.0) == [(True, None)]


def test_outage_of_one_issuer_leaves_an_api_of_two_ready():
    first, second = record_of(), record_of("https://other.test")
    fetch(first.ring, 0.0)
    issuers = issuers_of(first, second)
    assert state(issuers, 0.0) == [(True, None), (False, Obstacle.NO_KEYS)]
    found = assess(issuers, 0.0)
    assert (found.ready, found.obstacle, found.obstacles) == (True, None, (Obstacle.NO_KEYS,))


def test_one_of_several_key_sets_is_enough():
    record = record_of(jwks_uri=["https://as.test/a", "https://as.test/b"])
    assert len(record.others) == 1
    fetch(record.others[0].ring, 0.0)
    assert state(issuers_of(record), 0.0) == [(True, None)]


def test_configured_keys_and_keys_by_id_are_ready_at_once():
    by_id = record_of("https://other.test", key_url_template="https://other.test/{kid}", algorithms=["ES256"])
    static = record_of()
    static.ring = KeyRing(POLICY, static=KEYS)
    assert state(issuers_of(static, by_id), 0.0) == [(True, None), (True, None)]


@pytest.mark.parametrize(
    ("validate", "signed", "before", "during"),
    [
        ("introspection", False, (True, None), (False, Obstacle.INTROSPECTION_PAUSED)),
        ("introspection", True, (False, Obstacle.NO_KEYS), (False, Obstacle.NO_KEYS)),
        ("auto", False, (False, Obstacle.NO_KEYS), (False, Obstacle.NO_KEYS)),
    ],
)
def test_introspection_needs_keys_only_for_jwts_and_signed_answers(
    validate: str, signed: bool, before: Any, during: Any
):
    record = record_of(validate=validate, introspection=replace(ASKING, signed=signed))
    issuers = issuers_of(record)
    assert state(issuers, 0.0) == [before]
    assert record.introspection is not None
    for _ in range(3):
        record.introspection.breaker.fail(0.0)
    assert state(issuers, 0.0) == [during]
    fetch(record.ring, 0.0)
    assert state(issuers, 0.0) == [(validate == "auto", Obstacle.INTROSPECTION_PAUSED)]
    assert state(issuers, 100.0) == [(True, None)]


def test_reading_the_state_does_not_use_up_the_probe_of_a_breaker():
    record = record_of(validate="introspection", introspection=ASKING)
    assert record.introspection is not None
    breaker = record.introspection.breaker
    for _ in range(3):
        breaker.fail(0.0)
    assert state(issuers_of(record), 100.0) == [(True, None)]
    assert breaker.pause(100.0) == 0.0  # this caller is the probe
    assert breaker.pause(100.0) > 0.0


def test_store_that_fails_stops_all_issuers_unless_it_may_be_missing():
    for fails_open, ready in ((False, False), (True, True)):
        record, revocations = record_of(), Revocations(max_lag=1.0, fail_open_dangerously=fails_open)
        fetch(record.ring, 0.0)
        issuers = issuers_of(record, revocations=revocations, shared=True)
        assert assess(issuers, 0.0).ready is True  # nothing has failed yet
        revocations.record_sync(0.0)
        revocations.breaker.fail(0.5)
        assert assess(issuers, 0.5).ready is True  # what was read is not too old
        revocations.breaker.fail(2.0)
        found = assess(issuers, 2.0)
        assert found.ready is ready
        assert found.obstacles == (() if ready else (Obstacle.STORE_UNAVAILABLE,))
        assert assess(issuers, 100.0).ready is True  # the next request asks the store


def test_guard_with_a_resolver_only_is_ready():
    resolver = IssuerResolver(accepts=lambda name: True, resolve=lambda name: None)
    resolved = ResolvedIssuers(resolver, lambda issuer: record_of(issuer.url))
    found = assess(issuers_of(resolved=resolved), 0.0)
    assert (found.ready, found.issuers) == (True, ())
