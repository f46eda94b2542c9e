"""Tokens of other kinds as bearer tokens: refused by every adapter, for any accepted types of the issuer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from doors import DOORS, Door
from framework_doors import FRAMEWORK_DOORS
from scenarios import REALM, Exchange
from scopeguard import ChallengeStyle, Guard
from scopeguard.testing import BadToken, FakeAuthority, bad_tokens
from scopeguard.testing.forgeries.token_parts import Forge

# Signed by the issuer, for this API, with all claims of an access token: only the type differs.
TYPES = [
    "oauth-id-jag+jwt",
    "txntoken+jwt",
    "txn_token",
    "N_A",
    "wit+jwt",
    "wpt+jwt",
    "oauth-client-attestation+jwt",
    "oauth-client-attestation-pop+jwt",
    "logout+jwt",
    "token-introspection+jwt",
    "statuslist+jwt",
    "secevent+jwt",
    "dpop+jwt",
    "entity-statement+jwt",
    "vc+jwt",
    "vc+sd-jwt",
    "dc+sd-jwt",
    "kb+jwt",
    "client-authentication+jwt",
    "authorization-grant+jwt",
    "oauth-authz-req+jwt",
    "oauth-protected-resource+jwt",
    "key-attestation+jwt",
    "trust-mark+jwt",
    "rt+jwt",
]
DOORS_BY_NAME = {door.name: door for door in (*DOORS, *FRAMEWORK_DOORS)}


def guard_of(authority: FakeAuthority, **settings: Any) -> Guard:
    return Guard(
        replace(authority.issuer, **settings),
        challenge=ChallengeStyle(realm=REALM),
        transport=authority.transport,
        clock=authority.clock,
    )


@pytest.fixture(scope="module")
def authority() -> FakeAuthority:
    return FakeAuthority()


@pytest.fixture(scope="module")
def forge(authority: FakeAuthority) -> Forge:
    """It has generated the keys of the authority, which takes longer than a test."""
    return Forge(authority)


@pytest.fixture(scope="module")
def hostile(authority: FakeAuthority) -> Mapping[str, BadToken]:
    return bad_tokens(authority)


def bearer(token: str) -> Exchange:
    return Exchange(target="/none", headers=((b"authorization", b"Bearer " + token.encode()),))


def challenges(answer: Any) -> list[str]:
    return [value for value in answer.all("www-authenticate") if 'error="invalid_token"' in value]


@pytest.mark.rule("IJ-01", "X-47", "X-41", "X-42", "X-43", "X-44", "X-45", "X-46")
@pytest.mark.parametrize("door", DOORS_BY_NAME.values(), ids=list(DOORS_BY_NAME))
def test_token_of_another_kind_is_refused_even_if_its_type_is_accepted(
    authority: FakeAuthority, forge: Forge, door: Door
):
    spelled = [spelling for typ in TYPES for spelling in (typ, f"application/{typ}", typ.upper())]
    send = door.opened(guard_of(authority, typ=("at+jwt", *spelled)))
    assert send(bearer(forge.sign())).status == 200
    accepted = []
    for typ in spelled:
        answer = send(bearer(forge.sign(forge.header(typ=typ))))
        if answer.status != 401 or len(challenges(answer)) != 1:
            accepted.append(typ)
    assert accepted == []


@pytest.mark.rule("IJ-01")
@pytest.mark.parametrize("door", DOORS_BY_NAME.values(), ids=list(DOORS_BY_NAME))
def test_hostile_tokens_of_other_kinds_are_refused_by_a_default_issuer(
    authority: FakeAuthority, hostile: Mapping[str, BadToken], door: Door
):
    tokens = [bad for name, bad in hostile.items() if name.startswith("kind-")]
    send = door.opened(guard_of(authority))
    assert len(tokens) > 60
    answers = {bad.name: send(bearer(bad.token)) for bad in tokens}
    assert [name for name, answer in answers.items() if answer.status != 401 or not challenges(answer)] == []


@pytest.mark.parametrize("typ", TYPES)
def test_type_that_the_operator_expects_exactly_is_accepted(authority: FakeAuthority, forge: Forge, typ: str):
    send = DOORS_BY_NAME["blocking"].opened(guard_of(authority, typ=typ, expected_headers={"typ": [typ]}))
    assert send(bearer(forge.sign(forge.header(typ=typ)))).status == 200
    assert send(bearer(forge.sign(forge.header(typ=f"application/{typ}")))).status == 401
    assert send(bearer(forge.sign())).status == 401


def test_transaction_token_as_bearer_token_is_refused():
    """A Txn-Token has a header field of its own, which is not a token source."""
    authority = FakeAuthority()
    forge = Forge(authority)
    claims = forge.claims("client_id", txn="97053963", req_wl="https://gateway.test", rctx={"req_ip": "192.0.2.1"})
    send = DOORS_BY_NAME["blocking"].opened(guard_of(authority))
    for typ in ("txntoken+jwt", "txn_token", "N_A", "JWT"):
        token = forge.sign(forge.header(typ=typ), claims)
        assert send(bearer(token)).status == 401
        beside = Exchange(target="/none", headers=((b"txn-token", token.encode()),))
        assert send(beside).status == 401
    good = Exchange(target="/none", headers=((b"txn-token", forge.sign().encode()),))
    assert not challenges(send(good))
    assert send(good).status == 401


def test_workload_identity_token_alone_is_not_a_bearer_token():
    authority = FakeAuthority()
    forge = Forge(authority)
    key = forge.ec.public_jwk()
    send = DOORS_BY_NAME["blocking"].opened(guard_of(authority, typ=("at+jwt", "wit+jwt", "JWT")))
    for typ in ("wit+jwt", "JWT", "at+jwt"):
        claims = forge.claims(sub="wimse://as.test/svc", cnf={"jwk": {**key, "alg": "ES256"}})
        token = forge.sign(forge.header(typ=typ), claims)
        assert send(bearer(token)).status == 401
        beside = Exchange(target="/none", headers=((b"workload-identity-token", token.encode()),))
        answer = send(beside)
        assert answer.status == 401
        assert not challenges(answer)
