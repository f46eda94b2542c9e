"""The state of a policy decision point: decisions that are kept, requests that pause, the endpoint."""

from __future__ import annotations

import pytest

from scopeguard.spec.authzen import Outcome
from scopeguard.spec.discovery import METADATA_LIFETIME
from scopeguard.state.authzen import Decisions, Endpoint

PERMIT, DENY = Outcome(permits=True), Outcome(permits=False)


@pytest.mark.rule("Z-11")
def test_decisions_are_kept_for_the_shorter_of_ttl_and_lifetime():
    decisions = Decisions(ttl=10, max_entries=2)
    decisions.keep(b"a", PERMIT, 100.0, lifetime=60)
    decisions.keep(b"b", DENY, 100.0, lifetime=5)
    assert (decisions.lookup(b"a", 104.9), decisions.lookup(b"b", 104.9)) == (PERMIT, DENY)
    assert (decisions.lookup(b"a", 109.9), decisions.lookup(b"b", 105.0)) == (PERMIT, None)
    assert (decisions.lookup(b"a", 110.0), decisions.lookup(b"c", 110.0)) == (None, None)


@pytest.mark.rule("Z-11")
@pytest.mark.parametrize(("ttl", "lifetime"), [(0.0, 60.0), (60.0, 0.0), (60.0, -5.0)])
def test_decisions_without_a_lifetime_are_not_kept(ttl: float, lifetime: float):
    decisions = Decisions(ttl=ttl, max_entries=2)
    decisions.keep(b"a", PERMIT, 100.0, lifetime=lifetime)
    assert decisions.lookup(b"a", 100.0) is None


def test_number_of_decisions_is_bounded():
    decisions = Decisions(ttl=10, max_entries=2)
    for key in (b"a", b"b", b"c"):
        decisions.keep(key, PERMIT, 100.0, lifetime=60)
    assert decisions.lookup(b"a", 100.0) is None
    assert decisions.lookup(b"c", 100.0) is PERMIT


def test_endpoint_is_used_until_it_is_old_or_forgotten():
    endpoint = Endpoint()
    assert endpoint.current(0.0) is None
    endpoint.keep("https://pdp.test/e", 10.0)
    assert endpoint.current(9.0 + METADATA_LIFETIME) == "https://pdp.test/e"
    assert endpoint.current(10.0 + METADATA_LIFETIME) is None
    endpoint.keep("https://pdp.test/e", 10.0)
    endpoint.forget()
    assert endpoint.current(11.0) is None
