"""JWTs without ``iss``: refused unless the only issuer is configured to issue such tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from scopeguard import ConfigurationError, Denied, Granted, Guard, HeaderList, IssuerResolver, Reason, RequestView
from scopeguard.testing import FakeAuthority


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


def guard_of(authority: FakeAuthority, *more: Any, **settings: Any) -> Guard:
    issuer = replace(authority.issuer, **settings)
    return Guard(issuer, *more, transport=authority.transport, clock=authority.clock)


def outcome(guard: Guard, authority: FakeAuthority, claims: dict[str, Any], typ: str = "JWT", **options: Any) -> Any:
    token = authority.mint("read", claims=claims, headers={"typ": typ}, **options)
    headers = HeaderList([(b"authorization", b"Bearer " + token.encode())])
    for _ in range(2):  # The second time it is cached.
        decision = guard.check(RequestView(method="GET", path="/", headers=headers))
    match decision:
        case Granted(access_token=token_):
            return token_.issuer
        case Denied(error=error):
            return error.reason
    raise AssertionError(decision)


def test_token_without_iss_is_accepted_if_configured(authority: FakeAuthority):
    guard = guard_of(authority, issuer_claim_optional_dangerously=True)
    assert outcome(guard, authority, {"iss": None}) == "https://as.test"
    assert outcome(guard, authority, {}) == "https://as.test"
    assert outcome(guard_of(authority), authority, {"iss": None}) is Reason.MISSING_CLAIM


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"iss": "https://other.test"}, Reason.UNKNOWN_ISSUER),
        ({"iss": ""}, Reason.UNKNOWN_ISSUER),
        ({"iss": 7}, Reason.MALFORMED_CLAIM),
        ({"iss": ["https://as.test"]}, Reason.MALFORMED_CLAIM),
        ({"iss": None, "aud": "https://other.test"}, Reason.WRONG_AUDIENCE),
        ({"iss": None, "exp": 1}, Reason.TOKEN_EXPIRED),
        ({"iss": None, "nonce": "n"}, Reason.NOT_AN_ACCESS_TOKEN),
    ],
)
def test_all_other_checks_apply_to_a_token_without_iss(
    authority: FakeAuthority, claims: dict[str, Any], reason: Reason
):
    assert outcome(guard_of(authority, issuer_claim_optional_dangerously=True), authority, claims) is reason


def test_at_jwt_without_iss_is_refused(authority: FakeAuthority):
    guard = guard_of(authority, issuer_claim_optional_dangerously=True)
    assert outcome(guard, authority, {"iss": None}, typ="at+jwt") is Reason.MISSING_CLAIM


def test_signature_of_a_token_without_iss_is_verified(authority: FakeAuthority):
    stranger = FakeAuthority(clock=authority.clock)
    guard = guard_of(authority, issuer_claim_optional_dangerously=True)
    assert outcome(guard, stranger, {"iss": None}) in (Reason.UNKNOWN_KEY, Reason.BAD_SIGNATURE)


def test_second_issuer_is_a_configuration_error(authority: FakeAuthority):
    other = FakeAuthority("https://other.test").issuer
    with pytest.raises(ConfigurationError, match=r"issuer_claim_optional_dangerously: .*the only one"):
        guard_of(authority, other, issuer_claim_optional_dangerously=True)
    resolver = IssuerResolver(accepts=lambda name: True, resolve=lambda name: None)
    with pytest.raises(ConfigurationError, match=r"issuer_claim_optional_dangerously: .*the only one"):
        Guard(replace(authority.issuer, issuer_claim_optional_dangerously=True), resolver=resolver)


def test_resolver_must_not_return_a_nameless_issuer(authority: FakeAuthority):
    found = replace(authority.issuer, issuer_claim_optional_dangerously=True)
    guard = Guard(
        resolver=IssuerResolver(accepts=lambda name: True, resolve=lambda name: found),
        transport=authority.transport,
        clock=authority.clock,
    )
    assert outcome(guard, authority, {}) == "https://as.test"
    assert outcome(guard, authority, {"iss": None}) is Reason.MISSING_CLAIM
    guard.close()
