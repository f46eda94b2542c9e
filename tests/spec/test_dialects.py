"""Parts of the spec layer that presets need: fields without a scheme, keys with an issuer, prefixes, dates, hints."""

from __future__ import annotations

from typing import Any

import pytest

from scopeguard.config.introspection import Introspection
from scopeguard.config.issuer import ANY_AUDIENCE_DANGEROUSLY, Issuer
from scopeguard.errors import ConfigurationError, InvalidRequest, InvalidToken
from scopeguard.reasons import Reason
from scopeguard.spec import jwt
from scopeguard.spec.credentials import token_from_field
from scopeguard.tokens import Unverified

ISS, API = "https://as.example", "https://api.example"


def issuer(**settings: Any) -> Issuer:
    return Issuer(ISS, **{"audience": API, "keys": {"keys": []}, **settings})


def unverified_token(**claims: Any) -> Unverified:
    base = {"iss": ISS, "aud": API, "exp": 2000, "client_id": "c"}
    return Unverified(header={"alg": "RS256"}, claims={**base, **claims}, signed=b"", signature=b"", fingerprint="")


def refusal(policy: Issuer, **claims: Any) -> Reason | None:
    try:
        jwt.check(unverified_token(**claims), policy, 1000.0)
    except InvalidToken as error:
        return error.reason
    return None


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([], None),
        ([b"abc"], "abc"),
        ([b" abc\t"], "abc"),
        ([b""], Reason.EMPTY_CREDENTIALS),
        ([b" "], Reason.EMPTY_CREDENTIALS),
        ([b"a", b"a"], Reason.MALFORMED_CREDENTIALS),
        ([b"a,a"], Reason.MALFORMED_CREDENTIALS),
        ([b"Bearer abc"], Reason.MALFORMED_CREDENTIALS),
        ([b"a" * 11], Reason.TOKEN_TOO_LARGE),
    ],
)
def test_field_without_a_scheme_holds_one_token_on_one_line(lines: list[bytes], found: str | Reason | None):
    if isinstance(found, Reason):
        with pytest.raises(InvalidRequest) as raised:
            token_from_field(lines, 10)
        assert raised.value.reason is found
    else:
        assert token_from_field(lines, 10) == found


@pytest.mark.parametrize(
    ("key", "tid", "fits"),
    [
        (None, None, True),
        (ISS, None, True),
        ("https://other.example", None, False),
        ("https://{tenantid}.example", "as", True),
        ("https://{tenantid}.example", "other", False),
        ("https://{tenantid}.example", None, False),
        ("https://{tenantid}.example", ["as"], False),
    ],
)
def test_key_with_an_issuer_verifies_only_tokens_of_that_issuer(key: str | None, tid: Any, fits: bool):
    assert jwt.may_sign(key, unverified_token(tid=tid), issuer()) is fits


def test_key_of_the_issuer_verifies_tokens_of_its_aliases():
    policy = issuer(aliases={"old": {}})
    assert jwt.may_sign(ISS, unverified_token(iss="old"), policy)
    assert not jwt.may_sign("older", unverified_token(iss="old"), policy)


def test_aliases_may_include_the_issuer_itself():
    policy = issuer(aliases={ISS: {"ver": "2"}, "old": {"ver": "1"}})
    assert refusal(policy, ver="2") is None
    assert refusal(policy, ver="1") is Reason.UNEXPECTED_CLAIM
    assert refusal(policy, iss="old", ver="1") is None
    assert refusal(policy, iss="older") is Reason.UNKNOWN_ISSUER


def test_required_claim_true_or_false_does_not_match_numbers():
    policy = issuer(expected_claims={"ok": [True, "yes"]})
    assert refusal(policy, ok=True) is None
    assert refusal(policy, ok="yes") is None
    for wrong in (False, 1, 1.0, "true", None, [True]):
        assert refusal(policy, ok=wrong) is Reason.UNEXPECTED_CLAIM
    assert refusal(policy) is Reason.UNEXPECTED_CLAIM


def test_required_claim_may_be_a_prefix():
    policy = issuer(claim_prefixes={"sub": ["a:", "b:"]})
    assert refusal(policy, sub="a:1") is None
    assert refusal(policy, sub="b:") is None
    for wrong in ("c:1", "a", None, 7, ["a:"]):
        assert refusal(policy, sub=wrong) is Reason.UNEXPECTED_CLAIM
    for wrong_setting in ([""], [], [True], "", 7):
        with pytest.raises(ConfigurationError, match=r"^claim_prefixes"):
            issuer(claim_prefixes={"sub": wrong_setting})


def test_date_claims_may_be_required_to_be_past():
    policy = issuer(past_claims=("auth_time",))
    assert refusal(policy) is None
    assert refusal(policy, auth_time=1030) is None  # the leeway
    assert refusal(policy, auth_time=1031) is Reason.TOKEN_ISSUED_IN_FUTURE
    assert refusal(policy, auth_time="1000") is Reason.MALFORMED_CLAIM


def test_empty_string_does_not_satisfy_a_required_claim():
    assert refusal(issuer(required_claims=("sub",)), sub="") is Reason.MISSING_CLAIM
    assert refusal(issuer(required_claims=("sub",)), sub="x") is None
    assert refusal(issuer(), sub="") is None


@pytest.mark.rule("G-15")
def test_roles_count_as_scopes_only_if_configured_and_without_a_scope_claim():
    for asked, claims, scopes, granted in (
        (True, {"roles": ["a"]}, ["a"], None),
        (False, {"roles": ["a"]}, [], None),
        (True, {"roles": ["a"], "scope": "b"}, ["b"], ("b",)),
        (True, {"roles": ["a"], "scope": ""}, [], ()),
        (True, {}, [], None),
    ):
        policy = issuer(role_claims=("roles",), roles_as_scopes=asked)
        found = jwt.accept(unverified_token(**claims), policy, policy.vocabulary)
        assert sorted(found.scopes) == scopes
        assert found.granted_scopes == granted
    with pytest.raises(ConfigurationError, match=r"^roles_as_scopes: "):
        issuer(roles_as_scopes="false")


@pytest.mark.parametrize(
    ("hints", "said"),
    [
        ({}, None),
        ({"wrong_audience": "w"}, None),
        ({"missing_claim": "any"}, "any"),
        ({"missing_claim": "any", "missing_claim:sub": "about sub"}, "about sub"),
        ({"missing_claim:aud": "other"}, None),
    ],
)
def test_hint_is_chosen_by_the_details_of_the_refusal(hints: dict[str, str], said: str | None):
    error = InvalidToken(Reason.MISSING_CLAIM, claim="sub")
    error.hints = issuer(hints=hints).hints
    assert error.detail.get("hint") == said
    assert said is None or said not in error.description


@pytest.mark.parametrize("hints", [{"nonsense": "x"}, {"wrong_audience": 7}, ["wrong_audience"]])
def test_hints_are_sentences_by_reason(hints: Any):
    with pytest.raises(ConfigurationError, match=r"^hints"):
        issuer(hints=hints)


@pytest.mark.parametrize(
    "settings",
    [
        {"auth": "none"},
        {"endpoint": "https://as.example/t", "client_id": "c", "client_secret": "s"},
        {"endpoint": "https://as.example/t", "auth": "none", "client_id": "c", "signed": True},
    ],
)
def test_tokeninfo_has_an_endpoint_and_no_credentials(settings: dict[str, Any]):
    with pytest.raises(ConfigurationError, match="google_tokeninfo"):
        Introspection(dialect="google_tokeninfo", **settings)


def test_any_audience_still_needs_another_binding():
    with pytest.raises(ConfigurationError, match="ANY_AUDIENCE_DANGEROUSLY"):
        issuer(audience=ANY_AUDIENCE_DANGEROUSLY)
