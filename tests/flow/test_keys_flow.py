"""Keys that are one to a URL, as a script."""

from __future__ import annotations

import pytest

from scopeguard import Issuer, presets
from scopeguard.access_token import AccessToken
from scopeguard.errors import AuthorityUnavailable
from scopeguard.flow.effects import SingleFlight
from scopeguard.flow.keys import key_by_id
from scopeguard.flow.status_list import check_token_status
from scopeguard.state.issuers import IssuerRecord
from scopeguard.state.keyring import KeyRing
from scopeguard.testing import FakeClock

KID = "12345678-1234-1234-1234-1234567890ab"


def trust_in(issuer: Issuer) -> IssuerRecord:
    return IssuerRecord(issuer=issuer, vocabulary=issuer.vocabulary, ring=KeyRing(issuer.key_set))


def test_a_flight_that_finds_the_budget_spent_asks_nobody_and_says_that_nobody_knows():
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


def test_the_status_of_a_token_is_nobodys_business_without_a_policy_for_it():
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
