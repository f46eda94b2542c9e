"""Access tokens are recognised by the same rules in a JWT, in an introspection answer and in the answers
of token-info endpoints."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from scopeguard.config.introspection import Introspection
from scopeguard.config.issuer import Issuer, ScopeClaim
from scopeguard.errors import InvalidToken
from scopeguard.reasons import Reason
from scopeguard.spec import introspection, jwt, tokeninfo
from scopeguard.tokens import Unverified

NOW = 1_800_000_000
URL, API = "https://as.test", "https://api.test"
ASKING = Introspection(client_id="api", client_secret="hush")
CLAIMS: dict[str, Any] = {
    "iss": URL, "aud": API, "sub": "ann", "client_id": "spa", "azp": "spa", "scope": "read", "jti": "1", "iat": NOW,
    "exp": NOW + 60,
}  # fmt: skip
NOT_ACCESS, BOUND = Reason.NOT_AN_ACCESS_TOKEN, Reason.SENDER_CONSTRAINT_UNPROVEN

Ask = Callable[..., Reason | None]


def issuer(**settings: Any) -> Issuer:
    return Issuer(URL, **{"audience": API, "validate": "auto", "introspection": ASKING, **settings})


def reason(call: Callable[[], object]) -> Reason | None:
    try:
        call()
    except InvalidToken as refused:
        return refused.reason
    return None


def judge_jwt(claims: Mapping[str, Any], *, typ: str | None = "JWT", **settings: Any) -> Reason | None:
    header = {"alg": "RS256", **({} if typ is None else {"typ": typ})}
    token = Unverified(header=header, claims=claims, signed=b"", signature=b"", fingerprint="0123456789ab")
    return reason(lambda: jwt.check(token, issuer(**settings), NOW))


def judge_untyped_jwt(claims: Mapping[str, Any], **settings: Any) -> Reason | None:
    return judge_jwt(claims, typ=None, **settings)


def judge_answer(claims: Mapping[str, Any], **settings: Any) -> Reason | None:
    members = introspection.read_answer(json.dumps({"active": True, **claims}).encode())
    assert members is not None
    described = introspection.as_claims(members, "0123456789ab")
    return reason(lambda: introspection.check_answer(described, issuer(**settings), NOW, audience_required=True))


def _judge_members(members: Mapping[str, Any], **settings: Any) -> Reason | None:
    described = introspection.as_claims(members, "0123456789ab")
    return reason(lambda: introspection.check_answer(described, issuer(**settings), NOW, audience_required=False))


def judge_google(claims: Mapping[str, Any], **settings: Any) -> Reason | None:
    return _judge_members(tokeninfo.read(json.dumps(claims).encode(), NOW), **settings)


def judge_gitlab(claims: Mapping[str, Any], **settings: Any) -> Reason | None:
    answer = {**claims, "scope": ["read"], "expires_in": 60}
    scopes = (ScopeClaim("scope", "list"),)
    return _judge_members(tokeninfo.read_gitlab(json.dumps(answer).encode(), NOW), scope_claims=scopes, **settings)


def judge_at_jwt(claims: Mapping[str, Any], **settings: Any) -> Reason | None:
    return judge_jwt(claims, typ="at+jwt", **settings)


EVERY_WAY = [judge_jwt, judge_untyped_jwt, judge_at_jwt, judge_answer, judge_google, judge_gitlab]
ANSWERS = [judge_answer, judge_google, judge_gitlab]

SILENT = {name: value for name, value in CLAIMS.items() if name not in ("client_id", "azp", "scope")}
OTHER_KINDS: list[dict[str, Any]] = [
    *({"typ": name} for name in ("ID", "id", "Refresh", "Offline", "Logout", "Serialized-ID", "id_token")),
    *({"typ": name} for name in ("RegistrationAccessToken", "InitialAccessToken", "logout+jwt", "refresh-token")),
    *({"token_use": name} for name in ("id", "refresh", "refresh_token", "id_token", "logout", "Access", "")),
    {"token_use": {"access": True}}, {"token_use": 7}, {"token_use": True},
    *({"token_type": name} for name in ("refresh_token", "id_token", "refresh", "ID", "logout_token", "N_A", "mac")),
    {"token_type": ""}, {"token_type": {}}, {"token_type": 7},
    {"token_type": "urn:ietf:params:oauth:token-type:refresh_token"},
    *({"tokenName": name} for name in ("id_token", "refresh_token")),
    *({"type": name} for name in ("refresh", "refresh_token", "id_token")),
    *({"purpose": name} for name in ("id", "refresh_token")),
    {"nonce": "n"}, {"at_hash": "h"}, {"c_hash": "h"}, {"s_hash": "h"}, {"nonce": "n", "at_hash": "h"},
    {"events": {}}, {"events": {"http://schemas.openid.net/event/backchannel-logout": {}}},
    *({"typ": name} for name in ("N_A", "txn_token", "txntoken+jwt", "wit+jwt", "wpt+jwt", "vc+jwt", "dc+sd-jwt")),
    *({"type": name} for name in ("txn_token", "oauth-id-jag+jwt")),
    {"htm": "GET"}, {"htu": API}, {"token_introspection": {}}, {"status_list": {}}, {"wth": "x"}, {"req_wl": "x"},
    {"_sd_alg": "sha-256"}, {"sd_hash": "x"}, {"vct": "x"}, {"authority_hints": []},
    {"token_type": "Bearer", "typ": "ID"}, {"token_type": "Bearer", "nonce": "n"},
    {"typ": "Bearer", "at_hash": "h"}, {"token_use": "access", "events": {}},
]  # fmt: skip


@pytest.mark.rule("J-63", "P-14", "I-13", "X-40", "X-41", "X-42", "X-49")
@pytest.mark.parametrize("ask", EVERY_WAY)
@pytest.mark.parametrize("marks", OTHER_KINDS, ids=str)
def test_token_marked_as_another_kind_is_refused_from_each_source(ask: Ask, marks: dict[str, Any]):
    assert ask({**CLAIMS, **marks}) is NOT_ACCESS


# Values that real servers write into access tokens, with the server where it is known.
ACCESS_TOKENS: list[dict[str, Any]] = [
    {},
    {"token_type": "Bearer"}, {"token_type": "bearer"}, {"token_type": "BEARER"},
    {"token_type": "access_token"},  # Salesforce
    {"token_type": "access"},  # Simple JWT
    {"token_type": "BearerToken"},  # Apigee
    {"token_type": "urn:ietf:params:oauth:token-type:access_token"},
    {"token_use": "access"}, {"token_use": "access_token"},  # Cognito; Hydra and Dex
    {"typ": "Bearer"}, {"typ": "JWT"}, {"typ": "at+jwt"},  # Keycloak
    {"typ": "Bearer", "nonce": "n"},  # Keycloak before 24
    {"tokenName": "access_token", "token_type": "Bearer", "nonce": "n"},  # PingAM
    {"type": "access_token"}, {"type": "app"},  # Adobe, Cloudflare
    {"purpose": "access_token"},  # Curity
]  # fmt: skip


@pytest.mark.rule("J-63", "I-13")
@pytest.mark.parametrize("ask", EVERY_WAY)
@pytest.mark.parametrize("marks", ACCESS_TOKENS, ids=str)
def test_values_that_real_servers_write_into_access_tokens_are_accepted(ask: Ask, marks: dict[str, Any]):
    assert ask({**CLAIMS, **marks}) is None


@pytest.mark.rule("I-13", "I-15")
@pytest.mark.parametrize("ask", EVERY_WAY)
@pytest.mark.parametrize(
    "marks", [{"token_type": "DPoP"}, {"token_type": "dpop"}, {"typ": "DPoP"}, {"token_type": "PoP"}]
)
def test_token_marked_as_bound_is_refused_as_bound(ask: Ask, marks: dict[str, Any]):
    assert ask({**CLAIMS, **marks}) is BOUND
    assert ask({**CLAIMS, **marks}, accept_id_tokens_dangerously=True) is BOUND


@pytest.mark.rule("J-63", "X-42")
@pytest.mark.parametrize("ask", EVERY_WAY)
def test_accepting_id_tokens_does_not_accept_refresh_or_logout_tokens(ask: Ask):
    def verdict(**marks: Any) -> Reason | None:
        return ask({**CLAIMS, **marks}, accept_id_tokens_dangerously=True)

    assert verdict(typ="ID") is None
    assert verdict(token_use="id") is None
    assert verdict(token_type="id_token") is None
    assert verdict(nonce="n", at_hash="h") is None
    assert verdict(typ="Refresh") is NOT_ACCESS
    assert verdict(typ="Offline") is NOT_ACCESS
    assert verdict(token_use="refresh") is NOT_ACCESS
    assert verdict(token_type="N_A") is NOT_ACCESS
    assert verdict(events={}) is NOT_ACCESS


@pytest.mark.rule("J-63")
@pytest.mark.parametrize("ask", EVERY_WAY)
@pytest.mark.parametrize("name", ["token_type", "token_use", "typ", "type", "tokenName", "purpose"])
def test_an_operator_may_expect_values_of_another_kind(ask: Ask, name: str):
    expected = {name: ["refresh", "of-our-own"]}
    for value in ("refresh", "of-our-own"):
        assert ask({**CLAIMS, name: value}, expected_claims=expected) is None
    assert ask({**CLAIMS, name: "access_token"}, expected_claims=expected) is Reason.UNEXPECTED_CLAIM


@pytest.mark.rule("P-01", "P-14", "J-63")
def test_header_at_jwt_does_not_excuse_other_marks():
    def verdict(**marks: Any) -> Reason | None:
        return judge_jwt({**SILENT, "client_id": "spa", **marks}, typ="at+jwt")

    assert verdict() is None
    assert verdict(typ="JWT") is None
    assert verdict(typ="Bearer", nonce="n") is None
    assert verdict(nonce="n") is NOT_ACCESS
    assert verdict(token_type="user") is NOT_ACCESS


# The class of input: a mark of another JSON type or in another spelling still counts as a mark.
@pytest.mark.rule("J-63", "P-14", "X-40", "X-41", "X-49")
@pytest.mark.parametrize("ask", EVERY_WAY)
@pytest.mark.parametrize("name", ["token_type", "token_use", "typ", "type", "tokenName", "purpose"])
def test_mark_of_another_kind_counts_in_each_json_type_and_spelling(ask: Ask, name: str):
    for word in ("ID", "id_token", "id token", "Refresh-Token", "application/id+jwt", "application/refresh_token",
                 "Backchannel-Logout", "backchannel_logout+jwt", " id ", "refresh jwt", "APPLICATION/LOGOUT+JWT",
                 "txntoken+jwt", "oauth-authz-req+jwt", "statuslist+jwt", "token-introspection+jwt"):  # fmt: skip
        for value in (word, [word], ["access_token", word], [word, "access_token"]):
            assert ask({**CLAIMS, name: value}) is NOT_ACCESS, value
    others: tuple[Any, ...] = (
        {"a": "ID"},
        {},
        [],
        3,
        0,
        1.5,
        True,
        False,
        [["access_token"]],
        ["access_token", 3],
        [None],
    )
    for other in others:
        assert ask({**CLAIMS, name: other}) is NOT_ACCESS, other
    assert ask({**CLAIMS, name: ["access_token"]}) is None
    assert ask({**CLAIMS, name: ["access_token", "DPoP"]}) is BOUND


@pytest.mark.rule("J-63")
def test_jwt_needs_a_mark_of_an_access_token_and_an_answer_does_not():
    for ask in (judge_jwt, judge_untyped_jwt):
        assert ask(SILENT) is NOT_ACCESS
        assert ask({**SILENT, "token_use": "access"}) is None
        assert ask({**SILENT, "typ": "Bearer"}) is None
        assert ask({**SILENT, "typ": "JWT"}) is NOT_ACCESS
    assert judge_answer(SILENT) is None


@pytest.mark.parametrize("name", ["nonce", "token_use", "token_type", "events", "typ"])
def test_null_counts_as_absent_in_an_answer_but_not_in_a_jwt(name: str):
    for ask in ANSWERS:
        assert ask({**CLAIMS, name: None}) is None
    assert judge_jwt({**CLAIMS, name: None}) is NOT_ACCESS


@pytest.mark.parametrize("ask", [judge_jwt, judge_answer])
@pytest.mark.parametrize("settings", [{"expected_claims": {"req_wl": ["x"]}}, {"expected_headers": {"typ": ["JWT"]}}])
def test_claim_of_another_kind_is_accepted_only_where_the_operator_expects_it(ask: Ask, settings: dict[str, Any]):
    expected = "expected_claims" in settings
    assert ask({**CLAIMS, "req_wl": "x"}, **settings) is (None if expected else NOT_ACCESS)
    assert ask({**CLAIMS, "wth": "x"}, **settings) in (NOT_ACCESS, Reason.UNEXPECTED_CLAIM)


@pytest.mark.parametrize(
    ("marks", "expected"), [({"req_wl": "x"}, None), ({"events": {}}, NOT_ACCESS), ({"nonce": "n"}, NOT_ACCESS)]
)
def test_claims_of_a_kind_that_the_operator_expects_are_accepted(marks: dict[str, Any], expected: Reason | None):
    expecting = issuer(typ="txntoken+jwt", expected_headers={"typ": ["txntoken+jwt"]})
    header = {"alg": "RS256", "typ": "txntoken+jwt"}
    token = Unverified(header=header, claims={**CLAIMS, **marks}, signed=b"", signature=b"", fingerprint="0" * 12)
    assert reason(lambda: jwt.check(token, expecting, NOW)) is expected
