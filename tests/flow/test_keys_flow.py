"""Keys published one per URL, step by step."""

from __future__ import annotations

import pytest

from scopeguard import Issuer, presets
from scopeguard.errors import AuthorityUnavailable
from scopeguard.flow.effects import SingleFlight
from scopeguard.flow.key_by_id import key_by_id
from scopeguard.flow.status_list import check_token_status
from scopeguard.state.issuers import IssuerRecord
from scopeguard.state.keys import KeyRing
from scopeguard.testing import FakeClock
from scopeguard.tokens import AccessToken

KID = "12345678-1234-1234-1234-1234567890ab"


def trust_in(issuer: Issuer) -> IssuerRecord:
    return IssuerRecord(issuer=issuer, vocabulary=issuer.vocabulary, ring=KeyRing(issuer.key_set))


def test_flight_without_budget_fetches_nothing_and_is_an_outage():
    clock = FakeClock()
    record = trust_in(
        presets.aws_alb(
            "eu-central-1",
            ["arn:aws:elasticloadbalancing:eu-central-1:123456789012:loadbalancer/app/name/6284be65b827c598"],
            "https://as.test",
            ["client"],
        )
    )
    keys = record.by_id
    assert keys is not None
    flow = key_by_id(KID, record, keys, clock)
    flight = next(flow)
    assert isinstance(flight, SingleFlight)
    while keys.begin("another", clock.monotonic()):
        pass
    with pytest.raises(StopIteration):
        next(flight.flow())
    with pytest.raises(AuthorityUnavailable):
        flow.send(None)


def test_status_claim_is_ignored_without_a_policy():
    record = trust_in(Issuer("https://as.test", audience="https://api.test"))
    access = AccessToken(
        issuer="https://as.test",
        subject=None,
        client_id=None,
        audience=(),
        scopes=frozenset(),
        granted_scopes=None,
        expires_at=None,
        claims={"status": {"status_list": {"idx": 0, "uri": "https://as.test/list"}}},
    )
    with pytest.raises(StopIteration):
        next(check_token_status(access, record, FakeClock()))
