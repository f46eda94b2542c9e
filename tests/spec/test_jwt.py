"""The checks of a token's claims: RFC 7519, RFC 9068, and the checks that replace a missing ``typ``.

Nothing here is signed; the tests of ``jws`` and ``jwks`` cover signatures. Two policies are used throughout: the
strict one (``typ="at+jwt"``) and the default one, which also accepts ``JWT`` and a missing ``typ``.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from enum import Enum
from types import MappingProxyType
from typing import Any, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scopeguard.config.catalog import ScopeCatalog
from scopeguard.config.issuer import ANY_AUDIENCE_DANGEROUSLY, Issuer, ScopeClaim, ScopeForm
from scopeguard.core.wiring import build_issuer_record
from scopeguard.errors import InvalidToken
from scopeguard.reasons import Reason
from scopeguard.scopes import all_of
from scopeguard.spec.audience import check_audience
from scopeguard.spec.jwt import accept, check, peek, replicates_claims, unverified_issuer
from scopeguard.spec.scope_claims import granted_scopes
from scopeguard.tokens import Unverified

NOW: Final = 1_800_000_000
ISS: Final = "https://as.example"
RES: Final = "https://api.example/v1"


class Absence(Enum):
    ABSENT = "no such member"

    def __str__(self) -> str:
        return "absent"


ABSENT: Final = Absence.ABSENT

HEADER: Final[dict[str, Any]] = {"alg": "RS256", "kid": "k1", "typ": "at+jwt"}
CLAIMS: Final[dict[str, Any]] = {
    "iss": ISS,
    "aud": RES,
    "exp": NOW + 300,
    "iat": NOW - 10,
    "sub": "user-1",
    "client_id": "client-1",
    "jti": "jti-1",
    "scope": "read write",
}


def policy(**settings: Any) -> Issuer:
    return Issuer(ISS, **{"audience": RES, "keys": {"keys": []}, "leeway": 0, **settings})


STRICT: Final = policy(typ="at+jwt")
DEFAULT: Final = policy()
POLICIES = pytest.mark.parametrize(
    ("issuer", "header"),
    [
        pytest.param(STRICT, HEADER, id="at+jwt"),
        pytest.param(DEFAULT, {**HEADER, "typ": "JWT"}, id="JWT"),
        pytest.param(DEFAULT, {"alg": "RS256"}, id="no typ"),
    ],
)


def change_claims(members: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**members, **changes}.items() if value is not ABSENT}


def unverified_token(claims: Mapping[str, Any], header: Mapping[str, Any] = HEADER) -> Unverified:
    return Unverified(header=header, claims=claims, signed=b"", signature=b"", fingerprint="abc")


def refusal(
    claims: Mapping[str, Any], issuer: Issuer = STRICT, header: Mapping[str, Any] = HEADER, now: float = NOW
) -> Reason | None:
    """Return the reason for which a token with *claims* is refused, or ``None``. A refused token never becomes an
    access token.
    """
    try:
        check(unverified_token(claims, header), issuer, now)
    except InvalidToken as denied:
        return denied.reason
    accept(unverified_token(claims, header), issuer, issuer.vocabulary)
    return None


def segment(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def compact_token(payload: bytes, header: bytes = b'{"alg":"RS256","typ":"at+jwt"}') -> str:
    return f"{segment(header)}.{segment(payload)}.{segment(b'signature')}"


def nested_json(depth: int) -> bytes:
    return b'{"a":' + b"[" * depth + b"]" * depth + b"}"


# -- parsing


@pytest.mark.rule("J-05", "J-08", "J-42", "X-20", "X-21", "X-26", "X-27")
@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[]", id="an array"),
        pytest.param(b'"x"', id="a string"),
        pytest.param(b"null", id="null"),
        pytest.param(b"7", id="a number"),
        pytest.param(b"{", id="half an object"),
        pytest.param(b"{}{}", id="two objects"),
        pytest.param('{"iss":"a"}'.encode("utf-16"), id="UTF-16"),
        pytest.param('{"iss":"a"}'.encode("utf-16-le"), id="UTF-16 without a mark"),
        pytest.param('{"iss":"a"}'.encode("utf-32"), id="UTF-32"),
        pytest.param(b'\xef\xbb\xbf{"iss":"a"}', id="byte order mark"),
        pytest.param(b'{"iss":"\xe9"}', id="latin-1"),
        pytest.param(b'{"iss":"\xc0\xaf"}', id="overlong"),
        pytest.param(b'{"sub":"\xed\xa0\x80"}', id="a surrogate in UTF-8"),
        pytest.param(b'{"sub":"\\ud800"}', id="a lone surrogate"),
        pytest.param(b'{"\\udfff":1}', id="a lone surrogate in a name"),
        pytest.param(b'{"sub":"a","sub":"b"}', id="a claim twice"),
        pytest.param(b'{"sub":"a","\\u0073ub":"a"}', id="a claim twice, once escaped"),
        pytest.param(b'{"cnf":{"jkt":"a","jkt":"b"}}', id="a member of a claim twice"),
        pytest.param(b'{"a":[{"b":1,"b":1}]}', id="deep inside twice"),
        pytest.param(b'{"exp":NaN}', id="NaN"),
        pytest.param(b'{"exp":Infinity}', id="Infinity"),
        pytest.param(b'{"exp":-Infinity}', id="-Infinity"),
        pytest.param(b'{"exp":1e400}', id="1e400"),
        pytest.param(b'{"exp":' + b"9" * 5000 + b"}", id="5000 digits"),
        pytest.param(nested_json(33), id="33 deep"),
        pytest.param(nested_json(100_000), id="100 000 deep"),
    ],
)
def test_a_payload_that_is_not_one_strict_json_object_is_a_malformed_token(payload):
    with pytest.raises(InvalidToken) as caught:
        peek(compact_token(payload))
    assert caught.value.reason is Reason.MALFORMED_TOKEN
    assert caught.value.detail["part"] == "payload"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.rule("J-05", "J-06", "J-07", "X-20", "X-21")
@pytest.mark.parametrize(
    "header",
    [
        b"[]", b'"x"', b"null", b"", b'{"alg":"RS256","alg":"none"}', b'\xef\xbb\xbf{"alg":"RS256"}',
        '{"alg":"RS256"}'.encode("utf-16"), b'{"alg":"RS256","kid":"\\ud800"}', b'{"alg":"\xff"}',
    ],
    ids=ascii,
)  # fmt: skip
def test_header_that_is_not_one_strict_json_object_is_a_malformed_token(header):
    with pytest.raises(InvalidToken) as caught:
        peek(compact_token(b"{}", header))
    assert caught.value.reason is Reason.MALFORMED_TOKEN


@pytest.mark.rule("J-01", "J-02", "X-29")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(lambda t: t + "~WyJzYWx0Il0~", Reason.MALFORMED_TOKEN, id="SD-JWT"),
        pytest.param(lambda t: t + "~", Reason.MALFORMED_TOKEN, id="SD-JWT without disclosures"),
        pytest.param(lambda t: t + "=", Reason.MALFORMED_TOKEN, id="padded"),
        pytest.param(lambda t: t + "\n", Reason.MALFORMED_TOKEN, id="a line feed behind"),
        pytest.param(lambda t: t.replace(".", "%2E"), Reason.MALFORMED_TOKEN, id="escaped dots"),
        pytest.param(lambda t: t.rpartition(".")[0], Reason.MALFORMED_TOKEN, id="two segments"),
        pytest.param(lambda t: t.rpartition(".")[0] + ".", Reason.MALFORMED_TOKEN, id="no signature"),
        pytest.param(lambda t: t + ".a.b", Reason.ENCRYPTED_TOKEN, id="five segments"),
        pytest.param(lambda t: "0oQ-bytes-of-CWT", Reason.MALFORMED_TOKEN, id="no dots at all"),
        pytest.param(lambda t: "", Reason.MALFORMED_TOKEN, id="empty text"),
    ],
)
def test_text_that_is_not_a_signed_jwt_is_refused(change, reason):
    with pytest.raises(InvalidToken) as caught:
        peek(change(compact_token(b'{"iss":"a"}')))
    assert caught.value.reason is reason


@pytest.mark.rule("J-41", "J-61")
def test_payload_is_parsed_with_any_white_space_and_escapes():
    token = peek(compact_token(b' {\n"iss" : "https:\\/\\/as.example", "\\u0066oo": [1.5e3] }\t'))
    assert dict(token.claims) == {"iss": ISS, "foo": [1500.0]}
    assert unverified_issuer(token) == ISS


@pytest.mark.rule("X-33")
@given(
    st.text(max_size=40)
    | st.binary(max_size=40).map(compact_token)
    | st.binary(max_size=40).map(lambda b: compact_token(b"{}", b))
)
def test_any_text_is_parsed_or_is_an_invalid_token(text):
    try:
        token = peek(text)
    except InvalidToken:
        return
    assert isinstance(token.claims, dict)
    assert isinstance(token.header, dict)


@pytest.mark.rule("X-39", "P-18")
@pytest.mark.parametrize(
    ("issuer", "reason"),
    [
        (ABSENT, Reason.MISSING_CLAIM),
        (None, Reason.MISSING_CLAIM),
        ([ISS], Reason.MALFORMED_CLAIM),
        ({"url": ISS}, Reason.MALFORMED_CLAIM),
        (7, Reason.MALFORMED_CLAIM),
        (True, Reason.MALFORMED_CLAIM),
    ],
    ids=["absent", "null", "array", "object", "number", "boolean"],
)
def test_issuer_of_a_token_must_be_a_string(issuer, reason):
    with pytest.raises(InvalidToken) as caught:
        unverified_issuer(unverified_token(change_claims(CLAIMS, {"iss": issuer})))
    assert caught.value.reason is reason


# -- accepted tokens


@pytest.mark.rule("G-01", "J-59", "P-05", "P-06", "P-08")
@POLICIES
def test_valid_token_is_accepted(issuer, header):
    assert refusal(CLAIMS, issuer, header) is None


@pytest.mark.rule("J-61", "P-15", "P-16", "G-15")
@POLICIES
def test_unknown_claims_are_ignored_and_kept_for_the_app(issuer, header):
    more = {
        "foo": {"bar": [1]},
        "roles": ["read", "admin"],
        "groups": ["g"],
        "entitlements": ["e"],
        "auth_time": NOW - 60,
        "acr": "high",
        "amr": ["pwd"],
    }
    claims = change_claims(CLAIMS, {**more, "scope": ABSENT})
    assert refusal(claims, issuer, header) is None
    token = accept(unverified_token(claims, header), issuer, issuer.vocabulary)
    assert {name: token.claims[name] for name in ("acr", "auth_time")} == {"acr": "high", "auth_time": NOW - 60}
    assert (token.claims["roles"], token.claims["groups"]) == (("read", "admin"), ("g",))
    assert token.claims["foo"] == MappingProxyType({"bar": (1,)})
    assert token.scopes == frozenset()
    assert token.roles == frozenset()


def test_access_token_has_the_values_of_its_claims():
    claims = change_claims(CLAIMS, {"aud": [RES, "other"], "exp": NOW + 1.5})
    token = accept(unverified_token(claims), STRICT, STRICT.vocabulary)
    assert (token.issuer, token.subject, token.client_id) == (ISS, "user-1", "client-1")
    assert (token.audience, token.expires_at, token.issued_at) == ((RES, "other"), NOW + 1.5, NOW - 10.0)
    assert (token.scopes, token.granted_scopes) == (frozenset(("read", "write")), ("read", "write"))
    assert (token.fingerprint, token.sender_constrained, token.roles) == ("abc", False, frozenset())
    bare = accept(unverified_token({"exp": NOW, "aud": RES}), STRICT, STRICT.vocabulary)
    assert (bare.subject, bare.client_id, bare.issued_at, bare.granted_scopes) == (None, None, None, None)


@pytest.mark.rule("G-12")
def test_scopes_are_read_with_the_settings_of_the_issuer():
    issuer = policy(scope_prefix="api.", implies={"write": ["read"]})
    token = accept(unverified_token(change_claims(CLAIMS, {"scope": "api.write"})), issuer, issuer.vocabulary)
    assert token.scopes == {"write", "api.write", "read", "api.read"}
    assert token.granted_scopes == ("api.write",)


# -- times: each type, and each boundary to the second

NO_DATES = {
    "a string": str(NOW + 100),
    "an empty string": "",
    "true": True,
    "false": False,
    "null": None,
    "an array": [NOW + 100],
    "an empty array": [],
    "an object": {},
    "10^30": 10**30,
    "-10^30": -(10**30),
    "1e300": 1e300,
    "2^53 + 1": 2**53 + 1,
    "4000 digits": 10**4000,
}


@pytest.mark.rule("J-56", "J-58", "X-34")
@POLICIES
@pytest.mark.parametrize("claim", ["exp", "iat", "nbf"])
@pytest.mark.parametrize("value", NO_DATES.values(), ids=NO_DATES.keys())
@pytest.mark.parametrize("others", [{"iat": NOW}, {"iat": NOW, "nbf": NOW}], ids=["usual claims", "with nbf"])
def test_value_that_is_not_a_date_is_refused(value, claim, others, issuer, header):
    # Fault: the usual claims are checked by a shorter way, which must not compute with a value before its limits.
    claims = {name: given for name, given in CLAIMS.items() if name not in ("iat", "nbf")}
    usual = policy(typ=issuer.typ, leeway=30.0)  # a float, as by default
    assert refusal(change_claims({**claims, **others}, {claim: value}), usual, header) is Reason.MALFORMED_CLAIM


EXPIRED, EARLY, FUTURE = Reason.TOKEN_EXPIRED, Reason.TOKEN_NOT_YET_VALID, Reason.TOKEN_ISSUED_IN_FUTURE


@pytest.mark.rule("J-52", "J-53", "J-54", "J-55", "J-56", "J-58", "P-08", "X-35")
@POLICIES
@pytest.mark.parametrize(
    ("claim", "leeway", "value", "reason"),
    [
        ("exp", 0, NOW, EXPIRED),
        ("exp", 0, NOW + 1, None),
        ("exp", 0, NOW + 0.001, None),
        ("exp", 0, NOW - 0.001, EXPIRED),
        ("exp", 0, NOW + 1.5, None),
        ("exp", 0, -1, EXPIRED),
        ("exp", 0, 0, EXPIRED),
        ("exp", 0, -0.0, EXPIRED),
        ("exp", 0, -(2**53), EXPIRED),
        ("exp", 0, 2**53, None),
        ("exp", 60, NOW - 59, None),
        ("exp", 60, NOW - 60, EXPIRED),
        ("exp", 60, NOW - 59.999, None),
        ("exp", 300, NOW - 299, None),
        ("exp", 300, NOW - 300, EXPIRED),
        ("nbf", 0, NOW, None),
        ("nbf", 0, NOW + 1, EARLY),
        ("nbf", 0, NOW + 0.001, EARLY),
        ("nbf", 0, NOW - 1, None),
        ("nbf", 0, -1, None),
        ("nbf", 60, NOW + 60, None),
        ("nbf", 60, NOW + 61, EARLY),
        ("nbf", 0, 2**53, EARLY),
        ("iat", 0, NOW, None),
        ("iat", 0, NOW + 1, FUTURE),
        ("iat", 0, NOW + 3600, FUTURE),
        ("iat", 0, 0, None),
        ("iat", 60, NOW + 60, None),
        ("iat", 60, NOW + 61, FUTURE),
    ],
)
def test_date_takes_effect_at_the_exact_second(claim, leeway, value, reason, issuer, header):
    lenient = policy(typ=issuer.typ, leeway=leeway)
    assert refusal(change_claims(CLAIMS, {claim: value}), lenient, header) is reason


@pytest.mark.rule("X-35")
@pytest.mark.parametrize(
    ("now", "reason"), [(NOW - 0.001, None), (NOW + 0.0, EXPIRED), (NOW + 0.001, EXPIRED)], ids=str
)
def test_clock_may_have_fractions_of_a_second(now, reason):
    assert refusal(change_claims(CLAIMS, {"exp": NOW}), now=now) is reason


@pytest.mark.rule("X-36")
@pytest.mark.parametrize("required", [None, (), ("sub",)], ids=str)
@pytest.mark.parametrize("header", [HEADER, {"alg": "RS256"}], ids=["at+jwt", "no typ"])
def test_token_without_exp_is_refused_for_any_required_claims(required, header):
    issuer = policy(required_claims=required)
    assert refusal(change_claims(CLAIMS, {"exp": ABSENT}), issuer, header) is Reason.MISSING_CLAIM


@pytest.mark.rule("X-37")
@pytest.mark.parametrize(
    ("iat", "exp", "reason"),
    [
        (NOW - 10, NOW + 3590, None),
        (NOW - 10, NOW + 3591, Reason.TOKEN_LIFETIME_TOO_LONG),
        (NOW - 3600, NOW + 10 * 365 * 86400, Reason.TOKEN_LIFETIME_TOO_LONG),
        (ABSENT, NOW + 3600, None),
        (ABSENT, NOW + 3601, Reason.TOKEN_LIFETIME_TOO_LONG),
        (-(2**53), NOW + 1, Reason.TOKEN_LIFETIME_TOO_LONG),
    ],
)
def test_the_lifetime_of_a_token_can_be_limited(iat, exp, reason):
    issuer = policy(max_lifetime=3600)
    assert refusal(change_claims(CLAIMS, {"iat": iat, "exp": exp}), issuer, {"alg": "RS256"}) is reason


# -- issuer and audience

NEAR_ISSUERS = [
    ISS + "/", "https://AS.example", "HTTPS://as.example", ISS + ":443", "http://as.example", "https://as.example.",
    "https://as%2Eexample", "https://as.exampl%65", ISS + "?", ISS + "#", ISS + " ", " " + ISS, ISS + "\x00",
    ISS + "\n", ISS + "/../", "https://as.exampl", "https://as.example.evil.example", "as.example",
    "https://evil@as.example", "", "https://\u0430s.example", "https://xn--s-7sb.example", "https://as\u3002example",
    "https://as.example\u200b",
]  # fmt: skip


@pytest.mark.rule("P-05", "X-39", "A-06")
@POLICIES
@pytest.mark.parametrize("issuer_claim", NEAR_ISSUERS, ids=ascii)
def test_issuer_that_differs_in_any_character_is_refused(issuer_claim, issuer, header):
    assert refusal(change_claims(CLAIMS, {"iss": issuer_claim}), issuer, header) is Reason.UNKNOWN_ISSUER


@pytest.mark.rule("P-05", "X-39")
@pytest.mark.parametrize("issuer_claim", [ABSENT, None, [ISS], {ISS: {}}, 7, True], ids=str)
def test_issuer_must_be_a_string(issuer_claim):
    assert refusal(change_claims(CLAIMS, {"iss": issuer_claim})) is Reason.UNKNOWN_ISSUER
    aliased = policy(aliases={ISS + "/": {}})
    assert refusal(change_claims(CLAIMS, {"iss": issuer_claim}), aliased) is Reason.UNKNOWN_ISSUER


ALIASED = policy(aliases={"https://old.example": {"tid": "t1", "ver": "1.0"}, ISS + "/": {}})


@pytest.mark.rule("P-05", "P-18")
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"iss": ISS + "/"}, None),
        ({"iss": "https://old.example", "tid": "t1", "ver": "1.0"}, None),
        ({"iss": "https://old.example", "tid": "t2", "ver": "1.0"}, Reason.UNEXPECTED_CLAIM),
        ({"iss": "https://old.example", "tid": "t1"}, Reason.UNEXPECTED_CLAIM),
        ({"iss": "https://old.example", "tid": ["t1"], "ver": "1.0"}, Reason.UNEXPECTED_CLAIM),
        ({"iss": "https://old.example"}, Reason.UNEXPECTED_CLAIM),
        ({"iss": "https://old.example/", "tid": "t1", "ver": "1.0"}, Reason.UNKNOWN_ISSUER),
    ],
)
def test_alias_is_accepted_only_with_its_required_claims(changes, reason):
    claims = change_claims(CLAIMS, changes)
    assert refusal(claims, ALIASED) is reason
    if reason is None:
        assert accept(unverified_token(claims), ALIASED, ALIASED.vocabulary).issuer == ISS


@pytest.mark.rule("P-19", "X-14")
def test_token_is_not_checked_by_the_policy_of_another_issuer():
    other = Issuer("https://other.example", audience=RES, keys={"keys": []}, leeway=0, algorithms=("ES256",))
    assert refusal(CLAIMS, other, {**HEADER, "alg": "ES256"}) is Reason.UNKNOWN_ISSUER
    assert refusal(change_claims(CLAIMS, {"iss": other.url}), other) is Reason.ALGORITHM_REFUSED
    assert refusal(change_claims(CLAIMS, {"iss": other.url}), other, {**HEADER, "alg": "ES256"}) is None


WRONG, MALFORMED, MISSING = Reason.WRONG_AUDIENCE, Reason.MALFORMED_CLAIM, Reason.MISSING_CLAIM


@pytest.mark.rule("J-59", "J-60", "P-06", "X-38")
@POLICIES
@pytest.mark.parametrize(
    ("audience", "reason"),
    [
        (RES, None),
        ([RES], None),
        (["x", RES], None),
        ([RES, RES], None),
        ("HTTPS://api.example/v1", WRONG),
        ("https://API.example/v1", WRONG),
        ("https://api.example/V1", WRONG),
        ("https://api.example/v1/", WRONG),
        ("https://api.example/v1/../v1", WRONG),
        ("https://api.example/v", WRONG),
        ("https://api.example/v10", WRONG),
        ("https://api.example", WRONG),
        ("https://api.example.evil/v1", WRONG),
        ("https://api.example:443/v1", WRONG),
        ("https://api.example/%761", WRONG),
        ("https://evil.example/?https://api.example/v1", WRONG),
        (RES + " x", WRONG),
        (" " + RES, WRONG),
        (RES + "\x00", WRONG),
        ("*", WRONG),
        ("https://api.example/*", WRONG),
        (["*", "https://api.example/*"], WRONG),
        ("other", WRONG),
        (ABSENT, MISSING),
        ([], MALFORMED),
        ("", MALFORMED),
        (None, MALFORMED),
        ({}, MALFORMED),
        ({RES: True}, MALFORMED),
        (7, MALFORMED),
        (True, MALFORMED),
        ([RES, 7], MALFORMED),
        ([RES, None], MALFORMED),
        ([RES, ""], MALFORMED),
        ([[RES]], MALFORMED),
    ],
    ids=lambda value: ascii(value) if value is not ABSENT else "absent",
)
def test_one_audience_must_equal_this_api_exactly(audience, reason, issuer, header):
    assert refusal(change_claims(CLAIMS, {"aud": audience}), issuer, header) is reason


@pytest.mark.rule("J-59")
def test_an_api_may_have_several_names():
    issuer = policy(audience=[RES, "api"])
    for audience in (RES, "api", ["x", "api"]):
        assert refusal(change_claims(CLAIMS, {"aud": audience}), issuer) is None
    assert refusal(change_claims(CLAIMS, {"aud": "API"}), issuer) is WRONG


@pytest.mark.rule("G-33")
@pytest.mark.parametrize(
    ("audience", "strict"),
    [
        ([RES, "https://other.example"], Reason.SEVERAL_AUDIENCES),
        (["https://other.example", RES, "x"], Reason.SEVERAL_AUDIENCES),
        ([RES, "api"], Reason.SEVERAL_AUDIENCES),  # two names of this API
        ([RES], None),
        ([RES, RES], None),
        (RES, None),
    ],
)
@POLICIES
def test_tokens_with_several_audiences_are_refused_on_request(audience, strict, issuer, header):
    claims = change_claims(CLAIMS, {"aud": audience})
    assert refusal(claims, replace(issuer, audience=[RES, "api"]), header) is None
    assert refusal(claims, replace(issuer, audience=[RES, "api"], single_audience=True), header) is strict


@pytest.mark.rule("N-14")
@pytest.mark.parametrize(
    ("audience", "canonical"),
    [
        ("https://mcp.example.com/mcp", True),
        ("HTTPS://MCP.example.com/mcp", True),
        (["x", "https://MCP.Example.Com/mcp"], True),
        ("https://mcp.example.com/MCP", False),
        ("https://mcp.example.com/mcp/", False),
        ("https://mcp.example.com:443/mcp", False),
        ("https://MCP.example.com", False),
        ("https://MCP.example.com.evil.test/mcp", False),
        ("https://x@MCP.example.com/mcp", False),
        ("http\u017f://mcp.example.com/mcp", False),
        ("https://\u212acp.example.com/mcp", False),
        ("HTTP://mcp.example.com/mcp", False),
        ("MCP.EXAMPLE.COM/mcp", False),
        ("API", False),
    ],
)
def test_the_case_of_scheme_and_host_counts_unless_the_audience_is_canonicalized(audience, canonical):
    exact = policy(audience=["https://mcp.example.com/mcp", "api"])
    claims = change_claims(CLAIMS, {"aud": audience})
    assert (refusal(claims, exact) is None) is (audience == "https://mcp.example.com/mcp")
    assert refusal(claims, replace(exact, canonicalize_audience=True)) is (None if canonical else WRONG)


def test_the_configured_audience_may_have_capitals_too():
    issuer = policy(audience="https://MCP.example.com/mcp", canonicalize_audience=True)
    assert refusal(change_claims(CLAIMS, {"aud": "https://mcp.example.com/mcp"}), issuer) is None


def test_single_audience_holds_where_any_audience_is_accepted():
    issuer = policy(audience=ANY_AUDIENCE_DANGEROUSLY, expected_claims={"client_id": "client-1"}, single_audience=True)
    assert refusal(change_claims(CLAIMS, {"aud": ["a", "b"]}), issuer) is Reason.SEVERAL_AUDIENCES
    assert refusal(change_claims(CLAIMS, {"aud": ["a"]}), issuer) is None


@pytest.mark.parametrize(
    ("settings", "changes", "more_header", "reason"),
    [
        pytest.param({"audience_claims": ("azp",)}, {"aud": ABSENT, "azp": RES}, {}, None, id="another claim"),
        pytest.param({"audience_claims": ("azp",)}, {"azp": ABSENT}, {}, MISSING, id="the other claim is missing"),
        pytest.param({"audience_claims": ("azp",)}, {"aud": RES, "azp": "x"}, {}, WRONG, id="aud does not count"),
        pytest.param({"audience_claims": ("azp",)}, {"azp": 7}, {}, MALFORMED, id="the other claim is a number"),
        pytest.param({"audience_claims": ("aud", "azp")}, {"aud": "x", "azp": RES}, {}, None, id="one of two"),
        pytest.param({"audience_claims": ("aud", "azp")}, {"azp": []}, {}, MALFORMED, id="the second is malformed"),
        pytest.param({"audience_claims": ("header:signer",)}, {"aud": ABSENT}, {"signer": RES}, None, id="header"),
        pytest.param({"audience_claims": ("header:signer",)}, {"aud": RES}, {}, MISSING, id="no such header"),
        pytest.param({"audience_claims": ("header:signer",)}, {"signer": RES}, {}, MISSING, id="a claim of its name"),
        pytest.param({"audience_claims": ("header:signer",)}, {}, {"signer": "x"}, WRONG, id="header of another"),
        pytest.param({"audience_claims": ("header:signer",)}, {}, {"signer": 7}, MALFORMED, id="header with a number"),
    ],
)
def test_audience_may_be_in_another_claim_or_header(settings, changes, more_header, reason):
    for typ in ("at+jwt", "JWT"):
        header = {**HEADER, "typ": typ, **more_header}
        assert refusal(change_claims(CLAIMS, changes), policy(**settings), header) is reason


@pytest.mark.rule("J-60")
def test_any_audience_must_be_well_formed_and_needs_another_binding():
    issuer = policy(audience=ANY_AUDIENCE_DANGEROUSLY, expected_claims={"tid": "t1"})
    header = {"alg": "RS256"}
    well_formed: tuple[Any, ...] = (ABSENT, "other", ["a", "b"])
    for audience in well_formed:
        assert refusal(change_claims(CLAIMS, {"aud": audience, "tid": "t1"}), issuer, header) is None
        assert refusal(change_claims(CLAIMS, {"aud": audience, "tid": "t2"}), issuer, header) is Reason.UNEXPECTED_CLAIM
        assert refusal(change_claims(CLAIMS, {"aud": audience}), issuer, header) is Reason.UNEXPECTED_CLAIM
    malformed: tuple[Any, ...] = ("", [], None, 7, {})
    for audience in malformed:
        assert refusal(change_claims(CLAIMS, {"aud": audience, "tid": "t1"}), issuer, header) is MALFORMED


# -- required and forbidden members

SEVEN = ("iss", "exp", "aud", "sub", "client_id", "iat", "jti")


@pytest.mark.rule("P-09")
@pytest.mark.parametrize("claim", SEVEN)
def test_at_jwt_must_have_all_seven_claims_of_rfc_9068(claim):
    without = change_claims(CLAIMS, {claim: ABSENT})
    expected = Reason.UNKNOWN_ISSUER if claim == "iss" else MISSING
    assert refusal(without, STRICT) is expected
    assert refusal(without, DEFAULT) is expected  # If other types are accepted too, the rules of this type still apply.


@pytest.mark.rule("P-09")
@pytest.mark.parametrize("claim", SEVEN)
def test_app_only_claims_of_an_at_jwt_can_be_made_optional(claim):
    issuer = policy(typ="at+jwt", required_claims=("iss", "exp", "aud"))
    reason = {"iss": Reason.UNKNOWN_ISSUER, "exp": MISSING, "aud": MISSING}.get(claim)
    assert refusal(change_claims(CLAIMS, {claim: ABSENT}), issuer) is reason


@pytest.mark.rule("P-09")
@pytest.mark.parametrize("claim", SEVEN)
@pytest.mark.parametrize("header", [{"alg": "RS256"}, {"alg": "RS256", "typ": "JWT"}], ids=["no typ", "JWT"])
def test_token_of_another_type_must_have_iss_aud_and_exp(claim, header):
    reason = {"iss": Reason.UNKNOWN_ISSUER, "exp": MISSING, "aud": MISSING}.get(claim)
    assert refusal(change_claims(CLAIMS, {claim: ABSENT}), DEFAULT, header) is reason
    demanding = policy(required_claims=SEVEN)
    assert refusal(change_claims(CLAIMS, {claim: ABSENT}), demanding, header) is (reason or MISSING)


@pytest.mark.rule("J-62")
@POLICIES
@pytest.mark.parametrize("claim", ["sub", "jti", "client_id"])
@pytest.mark.parametrize("value", [7, None, True, ["a"], {}, 1.5], ids=str)
def test_name_claims_must_be_strings(claim, value, issuer, header):
    assert refusal(change_claims(CLAIMS, {claim: value}), issuer, header) is MALFORMED


UNEXPECTED, REFUSED = Reason.UNEXPECTED_CLAIM, Reason.HEADER_REFUSED


@pytest.mark.parametrize(
    ("settings", "changes", "more_header", "reason"),
    [
        pytest.param({"expected_claims": {"tid": "t1"}}, {"tid": "t1"}, {}, None, id="expected"),
        pytest.param({"expected_claims": {"tid": ["t1", "t2"]}}, {"tid": "t2"}, {}, None, id="one of the expected"),
        pytest.param({"expected_claims": {"tid": "t1"}}, {}, {}, UNEXPECTED, id="absent"),
        pytest.param({"expected_claims": {"tid": "t1"}}, {"tid": "T1"}, {}, UNEXPECTED, id="another case"),
        pytest.param({"expected_claims": {"tid": "t1"}}, {"tid": "t"}, {}, UNEXPECTED, id="a part"),
        pytest.param({"expected_claims": {"tid": "t1"}}, {"tid": ["t1"]}, {}, UNEXPECTED, id="a list of it"),
        pytest.param({"expected_claims": {"tid": "t1"}}, {"tid": None}, {}, UNEXPECTED, id="null"),
        pytest.param({"expected_claims": {"tid": "1"}}, {"tid": 1}, {}, UNEXPECTED, id="a number for its digits"),
        pytest.param({"expected_claims": {"tid": "t1"}}, {"tid": {"t1": 1}}, {}, UNEXPECTED, id="an object"),
        pytest.param({"expected_headers": {"x": "y"}}, {}, {"x": "y"}, None, id="expected header"),
        pytest.param({"expected_headers": {"x": "y"}}, {"x": "y"}, {}, REFUSED, id="a claim for a header"),
        pytest.param({"expected_headers": {"x": "y"}}, {}, {"x": "Y"}, REFUSED, id="header in another case"),
        pytest.param({"expected_headers": {"x": "y"}}, {}, {"x": ["y"]}, REFUSED, id="header with a list"),
        pytest.param({"forbidden_claims": ("act",)}, {}, {}, None, id="forbidden and absent"),
        pytest.param({"forbidden_claims": ("act",)}, {"act": {}}, {}, Reason.FORBIDDEN_CLAIM, id="forbidden"),
        pytest.param({"forbidden_claims": ("act",)}, {"act": None}, {}, Reason.FORBIDDEN_CLAIM, id="forbidden null"),
        pytest.param({"forbidden_headers": ("nonce",)}, {}, {}, None, id="forbidden header, absent"),
        pytest.param({"forbidden_headers": ("nonce",)}, {}, {"nonce": None}, REFUSED, id="forbidden header"),
        pytest.param({"any_claims": ("scp", "roles")}, {"roles": []}, {}, None, id="one of several"),
        pytest.param({"any_claims": ("scp", "roles")}, {}, {}, MISSING, id="none of several"),
        pytest.param({"required_claims": ("tid",)}, {"tid": 0}, {}, None, id="required"),
        pytest.param({"required_claims": ("tid",)}, {}, {}, MISSING, id="required and absent"),
    ],
)
def test_expected_required_and_forbidden_members_are_checked(settings, changes, more_header, reason):
    for typ in ("at+jwt", "JWT"):
        header = {**HEADER, "typ": typ, **more_header}
        assert refusal(change_claims(CLAIMS, changes), policy(**settings), header) is reason


@pytest.mark.rule("J-45")
@POLICIES
@pytest.mark.parametrize(
    ("replica", "reason"),
    [
        ({"iss": ISS, "sub": "user-1", "aud": RES}, None),
        ({"iss": "https://evil.example"}, Reason.REPLICATED_CLAIM),
        ({"iss": ISS + "/"}, Reason.REPLICATED_CLAIM),
        ({"iss": None}, Reason.REPLICATED_CLAIM),
        ({"sub": "user-2"}, Reason.REPLICATED_CLAIM),
        ({"sub": ["user-1"]}, Reason.REPLICATED_CLAIM),
        ({"aud": "other"}, Reason.REPLICATED_CLAIM),
        ({"aud": [RES]}, Reason.REPLICATED_CLAIM),
        ({"exp": NOW - 1}, None),  # a name that RFC 7519 does not register for headers
    ],
    ids=str,
)
def test_claims_repeated_in_the_header_must_be_equal(replica, reason, issuer, header):
    assert refusal(CLAIMS, issuer, {**header, **replica}) is reason


@pytest.mark.rule("J-45")
def test_a_claim_in_the_header_does_not_stand_in_for_one_in_the_payload():
    assert (
        refusal(change_claims(CLAIMS, {"sub": ABSENT}), DEFAULT, {"alg": "RS256", "sub": "x"})
        is Reason.REPLICATED_CLAIM
    )


@pytest.mark.rule("D-64")
@POLICIES
@pytest.mark.parametrize(
    "cnf",
    [
        {"jkt": "x"},
        {"x5t#S256": "x"},
        {"jkt": "x", "x5t#S256": "y"},
        {"jwk": {}},
        {"kid": "k"},
        {"x": 1},
        {},
        None,
        "x",
        [],
        0,
    ],
    ids=str,
)
def test_token_bound_to_a_key_is_refused_as_a_bearer_token(cnf, issuer, header):
    assert refusal(change_claims(CLAIMS, {"cnf": cnf}), issuer, header) is Reason.SENDER_CONSTRAINT_UNPROVEN


# -- the kind of a token

OTHER_TYPES = [
    "id_token+jwt", "dpop+jwt", "logout+jwt", "secevent+jwt", "token-introspection+jwt", "client-authentication+jwt",
    "statuslist+jwt", "txntoken+jwt", "oauth-id-jag+jwt", "oauth-authz-req+jwt", "oauth-authz-resp+jwt",
    "entity-statement+jwt", "resource-metadata+jwt", "rt+jwt", "vc+sd-jwt", "text/at+jwt", "at+jwt+x", "at+jw", "at",
    "application/x/at+jwt", "application/application/at+jwt", "at+jwt ", " at+jwt", "at+jwt;x=y", "", "JWS", "JOSE",
    "at\u200b+jwt", "at+\u212awt", "application/", "application",
]  # fmt: skip


@pytest.mark.rule("J-43", "J-63", "P-01", "X-41", "X-42", "X-43", "X-45", "X-46", "X-47", "X-48")
@pytest.mark.parametrize("typ", OTHER_TYPES, ids=ascii)
def test_a_token_of_another_type_is_refused_by_either_policy(typ):
    for issuer in (STRICT, DEFAULT, policy(accept_id_tokens_dangerously=True)):
        assert refusal(CLAIMS, issuer, {**HEADER, "typ": typ}) is Reason.TYPE_REFUSED


@pytest.mark.rule("J-43", "P-01", "P-02")
@pytest.mark.parametrize("typ", ["at+jwt", "at+JWT", "AT+JWT", "application/at+jwt", "Application/AT+jwt"])
def test_typ_is_compared_as_a_media_type(typ):
    for issuer in (STRICT, DEFAULT, policy(typ="application/at+JWT")):
        assert refusal(CLAIMS, issuer, {**HEADER, "typ": typ}) is None
        # The rules of RFC 9068 apply in each spelling.
        assert refusal(change_claims(CLAIMS, {"jti": ABSENT}), issuer, {**HEADER, "typ": typ}) is MISSING


@pytest.mark.rule("P-01", "P-03")
@pytest.mark.parametrize("typ", ["JWT", "jwt", "application/jwt", ABSENT], ids=str)
def test_typ_jwt_is_accepted_unless_at_jwt_is_required(typ):
    header = change_claims(HEADER, {"typ": typ})
    assert refusal(CLAIMS, STRICT, header) is Reason.TYPE_REFUSED
    assert refusal(CLAIMS, DEFAULT, header) is None


@pytest.mark.rule("P-01")
@pytest.mark.parametrize("typ", [None, 7, True, ["at+jwt"], {"at+jwt": 1}], ids=str)
def test_typ_must_be_a_string(typ):
    for issuer in (STRICT, DEFAULT, policy(typ=[None])):
        assert refusal(CLAIMS, issuer, {**HEADER, "typ": typ}) is Reason.TYPE_REFUSED


NOT_ACCESS = Reason.NOT_AN_ACCESS_TOKEN


def test_an_operator_may_expect_another_token_use():
    issuer = policy(expected_claims={"token_use": ["id"]})
    assert refusal(change_claims(CLAIMS, {"token_use": "id"}), issuer, {"alg": "RS256"}) is None
    assert refusal(change_claims(CLAIMS, {"token_use": "access"}), issuer, {"alg": "RS256"}) is UNEXPECTED


SILENT = change_claims(CLAIMS, {"client_id": ABSENT, "scope": ABSENT})


@pytest.mark.rule("J-63", "X-40")
@pytest.mark.parametrize(
    ("settings", "claims"),
    [
        *(pytest.param({}, {name: "x"}, id=name) for name in ("client_id", "azp", "cid", "appid", "scope", "scp")),
        *(pytest.param({}, {name: []}, id=name) for name in ("roles", "groups", "entitlements", "permissions")),
        *(pytest.param({}, {name: {}}, id=name) for name in ("realm_access", "resource_access")),
        pytest.param({"client_id_claims": ("app",)}, {"app": "x"}, id="another client claim"),
        pytest.param({"scope_claims": (ScopeClaim("perms"),)}, {"perms": "x"}, id="another scope claim"),
        pytest.param({"role_claims": ("authz.roles",)}, {"authz": {"roles": []}}, id="a path of roles"),
        pytest.param(
            {"role_claims": ("https://api.example/roles",)}, {"https://api.example/roles": ["a"]}, id="a URL of roles"
        ),
    ],
)
def test_untyped_token_with_a_client_scope_or_role_is_accepted(settings, claims):
    for header in ({"alg": "RS256"}, {"alg": "RS256", "typ": "JWT"}):
        assert refusal({**SILENT, **claims}, policy(**settings), header) is None
        assert refusal(SILENT, policy(**settings), header) is NOT_ACCESS
        assert refusal(SILENT, policy(accept_id_tokens_dangerously=True, **settings), header) is None


@pytest.mark.rule("J-63", "X-40", "X-41", "X-42", "X-43", "X-45", "X-47", "X-48")
@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({"sub": "u", "auth_time": NOW, "nonce": "n", "email": "u@x.example"}, id="ID token"),
        pytest.param({"sub": "u", "azp": "c", "at_hash": "h"}, id="ID token with azp"),
        pytest.param({"sub": "u", "name": "U", "sid": "s"}, id="ID token with neither nonce nor at_hash"),
        pytest.param({"sub": "u", "typ": "ID", "azp": "c", "acr": "1"}, id="ID token of Keycloak"),
        pytest.param({"sub": "u", "typ": "Refresh", "azp": "c", "scope": "openid"}, id="refresh token of Keycloak"),
        pytest.param(
            {"sub": "u", "sid": "s", "events": {"http://schemas.openid.net/event/backchannel-logout": {}}}, id="logout"
        ),
        pytest.param({"events": {"https://schemas.openid.net/secevent/caep/x": {}}, "client_id": "c"}, id="SET"),
        pytest.param({"token_introspection": {"active": True, "scope": "read"}}, id="introspection response"),
        pytest.param({"code": "c", "state": "s"}, id="authorization response"),
        pytest.param({"sub": "u", "email": "u@x.example", "picture": "x"}, id="signed UserInfo"),
        pytest.param({"status_list": {"bits": 1, "lst": "x"}, "sub": "s"}, id="status list"),
        pytest.param({"resource": RES, "jwks_uri": ISS}, id="signed metadata"),
    ],
)
def test_jwt_signed_for_another_purpose_is_refused(claims):
    base = {"iss": ISS, "aud": RES, "exp": NOW + 300, "iat": NOW, "jti": "j"}
    for header in ({"alg": "RS256"}, {"alg": "RS256", "typ": "JWT"}):
        assert refusal({**base, **claims}, DEFAULT, header) is NOT_ACCESS
        assert refusal({**base, **claims}, STRICT, header) is Reason.TYPE_REFUSED


# -- scopes and roles

BOTH = ScopeForm.SPACE_OR_LIST
LONE = Reason.MALFORMED_SCOPE


@pytest.mark.rule("G-05", "G-06", "G-07", "G-08", "G-09", "G-10")
@pytest.mark.parametrize(
    ("form", "value", "granted"),
    [
        (ScopeForm.SPACE, "read write", ("read", "write")),
        (ScopeForm.SPACE, "write read", ("write", "read")),
        (ScopeForm.SPACE, " read  write ", ("read", "write")),
        (ScopeForm.SPACE, "read read", ("read",)),
        (ScopeForm.SPACE, "", ()),
        (ScopeForm.SPACE, "   ", ()),
        (ScopeForm.SPACE, "read\twrite", ("read\twrite",)),
        (ScopeForm.SPACE, "read\xa0write", ("read\xa0write",)),
        (ScopeForm.SPACE, "read\u2003write", ("read\u2003write",)),
        (ScopeForm.SPACE, "read\x1cwrite", ("read\x1cwrite",)),
        (ScopeForm.SPACE, "read\nwrite", ("read\nwrite",)),
        (ScopeForm.SPACE, "read,write", ("read,write",)),
        (ScopeForm.SPACE, 'r\u00e9ad a"b a\\b', ("r\u00e9ad", 'a"b', "a\\b")),
        (ScopeForm.SPACE, ["read", "write"], LONE),
        (ScopeForm.SPACE, [], LONE),
        (ScopeForm.LIST, ["read", "write"], ("read", "write")),
        (ScopeForm.LIST, ["read", "", "read"], ("read",)),
        (ScopeForm.LIST, [], ()),
        (ScopeForm.LIST, ["read write"], ("read write",)),
        (ScopeForm.LIST, "read write", LONE),
        (ScopeForm.LIST, ["read", 7], LONE),
        (ScopeForm.LIST, ["read", None], LONE),
        (ScopeForm.LIST, [["read"]], LONE),
        (BOTH, "read write", ("read", "write")),
        (BOTH, ["read", "write"], ("read", "write")),
        (BOTH, ["read", True], LONE),
        (ScopeForm.COMMA, "read,write", ("read", "write")),
        (ScopeForm.COMMA, " read , write ,,", ("read", "write")),
        (ScopeForm.COMMA, "read write", ("read write",)),
        (ScopeForm.COMMA, "", ()),
        (ScopeForm.COMMA, ["read"], LONE),
        *((form, value, LONE) for form in ScopeForm for value in (7, 1.5, True, None, {}, {"read": True})),
    ],
    ids=lambda value: value.value if isinstance(value, ScopeForm) else ascii(value),
)
def test_the_forms_of_a_scope_claim(form, value, granted):
    issuer = policy(scope_claims=(ScopeClaim("scope", form),))
    claims = change_claims(CLAIMS, {"scope": value})
    if granted is LONE:
        assert refusal(claims, issuer) is LONE
        return
    assert refusal(claims, issuer) is None
    assert granted_scopes(claims, issuer) == granted
    token = accept(unverified_token(claims), issuer, issuer.vocabulary)
    assert all_of("read", "write").allows(token.scopes) is (set(granted) >= {"read", "write"})


@pytest.mark.rule("G-09")
def test_missing_and_empty_scope_claims_differ_and_both_grant_nothing():
    absent, empty = change_claims(CLAIMS, {"scope": ABSENT}), change_claims(CLAIMS, {"scope": ""})
    assert (granted_scopes(absent, STRICT), granted_scopes(empty, STRICT)) == (None, ())
    for claims in (absent, empty):
        assert accept(unverified_token(claims), STRICT, STRICT.vocabulary).scopes == frozenset()


@pytest.mark.rule("G-08")
@pytest.mark.parametrize(
    ("claims", "first", "merged"),
    [
        ({"scope": "a b"}, ("a", "b"), ("a", "b")),
        ({"scp": "a b"}, ("a", "b"), ("a", "b")),
        ({"scp": ["a", "b"]}, ("a", "b"), ("a", "b")),
        ({"scope": "a", "scp": ["b", "a"]}, ("a",), ("a", "b")),
        ({"scope": "", "scp": ["b"]}, (), ("b",)),
        ({"scope": ["a"]}, LONE, LONE),
        ({"scope": "a", "scp": 7}, ("a",), LONE),
        ({"scp": 7}, LONE, LONE),
        ({"Scope": "a"}, None, None),
        ({}, None, None),
    ],
    ids=str,
)
def test_first_scope_claim_or_all_of_them_count(claims, first, merged):
    base = change_claims(CLAIMS, {"scope": ABSENT})
    for issuer, expected in ((DEFAULT, first), (policy(merge_scope_claims=True), merged)):
        reason = refusal({**base, **claims}, issuer)
        assert reason is (LONE if expected is LONE else None)
        if reason is None:
            assert granted_scopes({**base, **claims}, issuer) == expected


@pytest.mark.rule("G-15")
@pytest.mark.parametrize(
    ("paths", "claims", "roles"),
    [
        (("roles",), {"roles": ["read", "write"]}, ["read", "write"]),
        (("roles",), {"roles": "read"}, ["read"]),
        (("realm_access.roles",), {"realm_access": {"roles": ["read"]}}, ["read"]),
        (("a.b.c",), {"a": {"b": {"c": ["read", 7, None]}}}, ["read"]),
        (("roles", "groups"), {"roles": ["read"], "groups": ["g"]}, ["read", "g"]),
        (("https://api.example/roles",), {"https://api.example/roles": ["read"]}, ["read"]),
        (("projects",), {"projects": {"read": {"id": 1}, "x": 7}}, ["read", "x"]),
        (("a.b",), {"a": ["b"]}, []),
        (("a.b",), {"a": None}, []),
        (("a.b",), {"a": {"b": 7}}, []),
        (("a.b",), {}, []),
        (("roles",), {"roles": True}, []),
        ((), {"roles": ["read"]}, []),
    ],
    ids=str,
)
def test_roles_are_read_from_configured_claims_and_are_not_scopes(paths, claims, roles):
    issuer = policy(role_claims=paths)
    all_claims = {**change_claims(CLAIMS, {"scope": ABSENT}), **claims}
    token = accept(unverified_token(all_claims), issuer, issuer.vocabulary)
    assert token.roles == set(roles)
    assert token.scopes == frozenset()
    assert refusal(all_claims, issuer) is None


@pytest.mark.parametrize(
    ("claims", "client", "subject"),
    [
        ({"client_id": "a", "azp": "b", "sub": "s"}, "a", "s"),
        ({"azp": "b", "appid": "c"}, "b", None),
        ({"cid": "c"}, "c", None),
        ({"appid": "d", "azp": ""}, "d", None),
        ({"azp": 7, "cid": ["x"]}, None, None),
        ({"oid": "o", "sub": "s"}, None, "o"),
    ],
    ids=str,
)
def test_subject_is_the_first_configured_claim_with_a_name(claims, client, subject):
    issuer = policy(subject_claims=("oid", "sub"))
    token = accept(unverified_token({"exp": NOW, "aud": RES, **claims}), issuer, issuer.vocabulary)
    assert (token.client_id, token.subject) == (client, subject)


# -- several faults

# One fault for each step, in the order of the steps.
STEPS: list[tuple[Reason, dict[str, Any], dict[str, Any]]] = [
    (Reason.ALGORITHM_REFUSED, {"alg": "HS256"}, {}),
    (Reason.CRITICAL_HEADER, {"crit": ["x"]}, {}),
    (Reason.TYPE_REFUSED, {"typ": "dpop+jwt"}, {}),
    (Reason.UNKNOWN_ISSUER, {}, {"iss": "https://evil.example"}),
    (Reason.HEADER_REFUSED, {"x": "z"}, {}),
    (Reason.UNEXPECTED_CLAIM, {}, {"tid": "t2"}),
    (Reason.FORBIDDEN_CLAIM, {}, {"act": {}}),
    (Reason.REPLICATED_CLAIM, {"sub": "other"}, {}),
    (Reason.WRONG_AUDIENCE, {}, {"aud": "other"}),
    (Reason.TOKEN_EXPIRED, {}, {"exp": NOW}),
    (Reason.TOKEN_NOT_YET_VALID, {}, {"nbf": NOW + 1}),
    (Reason.TOKEN_ISSUED_IN_FUTURE, {}, {"iat": NOW + 1}),
    (Reason.TOKEN_LIFETIME_TOO_LONG, {}, {"iat": 0}),
    (Reason.MISSING_CLAIM, {}, {"tenant": ABSENT}),
    (Reason.NOT_AN_ACCESS_TOKEN, {}, {"nonce": "n"}),
    (Reason.MALFORMED_SCOPE, {}, {"scope": 7}),
    (Reason.SENDER_CONSTRAINT_UNPROVEN, {}, {"cnf": {}}),
]
STEPWISE = policy(
    expected_headers={"x": "y"},
    expected_claims={"tid": "t1"},
    forbidden_claims=("act",),
    max_lifetime=3600,
    required_claims=("tenant",),
)
STEPWISE_HEADER = {"alg": "RS256", "typ": "JWT", "x": "y"}
STEPWISE_CLAIMS = {**CLAIMS, "tid": "t1", "tenant": "a"}


@pytest.mark.parametrize("first", range(len(STEPS)), ids=[reason.value for reason, _, _ in STEPS])
def test_first_of_several_faults_is_reported(first):
    assert refusal(STEPWISE_CLAIMS, STEPWISE, STEPWISE_HEADER) is None
    # The dates of two steps are one claim: the earlier step's value wins.
    header: dict[str, Any] = dict(STEPWISE_HEADER)
    claims: dict[str, Any] = dict(STEPWISE_CLAIMS)
    for reason, of_header, of_claims in reversed(STEPS[first:]):
        header |= of_header
        claims |= of_claims
        assert refusal(change_claims(claims, {}), STEPWISE, header) is reason


@pytest.mark.rule("B-50", "X-13", "X-78")
@pytest.mark.parametrize(
    "hostile", ["a\r\nb\x1b[31m", "\u202egnp.exe", "k\x00", "x" * 10_000, "' OR 1=1--"], ids=lambda v: ascii(v)[:12]
)
@pytest.mark.parametrize(
    ("claim", "issuer"),
    [("iss", STRICT), ("aud", STRICT), ("scope", policy(scope_claims=(ScopeClaim("scope", ScopeForm.LIST),)))],
    ids=["iss", "aud", "scope"],
)
def test_details_of_a_refusal_fit_on_one_short_line(claim, issuer, hostile):
    with pytest.raises(InvalidToken) as caught:
        check(unverified_token({**CLAIMS, claim: hostile}), issuer, NOW)
    assert re.fullmatch(r"[\x20-\x7E]{1,500}", str(caught.value))


@pytest.mark.rule("B-50")
@pytest.mark.parametrize("step", STEPS, ids=lambda step: step[0].value)
def test_refusal_does_not_repeat_the_token(step):
    _, of_header, of_claims = step
    header, claims = {**STEPWISE_HEADER, **of_header}, change_claims(STEPWISE_CLAIMS, of_claims)
    token = compact_token(json.dumps(claims).encode(), json.dumps(header).encode())
    with pytest.raises(InvalidToken) as caught:
        check(peek(token), STEPWISE, NOW)
    shown = f"{caught.value} {caught.value!r} {caught.value.detail}"
    assert not [part for part in token.split(".") if part in shown]


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([ISS, RES, "read", "at+jwt", "JWT", "RS256", "access", NOW, NOW + 60, "", "1"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "roles"]), inner, max_size=2),
    max_leaves=3,
)
NAMES = st.sampled_from(
    [*CLAIMS, "nbf", "scp", "azp", "roles", "cnf", "typ", "nonce", "token_use", "realm_access", "x"]
)
MEMBERS = st.sampled_from(["typ", "kid", "cty", "crit", "b64", "iss", "sub", "aud", "x"])


@pytest.mark.rule("X-33", "X-34")
@given(
    st.dictionaries(NAMES, VALUES, max_size=3),
    st.sets(NAMES, max_size=2),
    st.dictionaries(MEMBERS, VALUES, max_size=2),
    st.sampled_from([STRICT, DEFAULT, policy(merge_scope_claims=True, role_claims=("realm_access.roles", "roles"))]),
)
def test_any_claims_give_an_access_token_for_this_api_or_a_refusal(changes, removed, more_header, issuer):
    claims = {name: value for name, value in {**CLAIMS, **changes}.items() if name not in removed}
    header = {**HEADER, **more_header}
    if refusal(claims, issuer, header) is None:
        token = accept(unverified_token(claims, header), issuer, issuer.vocabulary)
        assert claims["iss"] == ISS
        assert RES in token.audience
        assert token.expires_at is not None
        assert token.expires_at > NOW
        assert "cnf" not in claims


# -- the usual token: one audience, integer dates, a scope claim of an accepted token

EDGES: Final = st.sampled_from([0, -1, 1, 2**53, 2**53 + 1, -(2**53), -(2**53) - 1, 10**30])


@given(
    *(st.integers(NOW - 40, NOW + 40) | EDGES | st.floats(allow_nan=False) | st.booleans() | st.none() for _ in "12"),
    st.sampled_from([policy(), policy(leeway=30), policy(max_lifetime=20), policy(past_claims=("iat", "auth_time"))]),
)
@example(2**53 + 1, NOW, policy())
@example(NOW + 300, -(2**53) - 1, policy())
@example(NOW + 300, True, policy())
@example(NOW + 300, NOW + 31, policy(leeway=30))
@example(NOW - 30, NOW - 60, policy(leeway=30))
@example(NOW + 300, NOW, policy(max_lifetime=20))
def test_dates_get_the_same_result_with_a_claim_that_makes_the_token_unusual(exp, iat, issuer):
    # A date long ago in "nbf" changes no result, but the token is then checked claim by claim.
    claims = change_claims(CLAIMS, {"exp": exp, "iat": iat})
    assert refusal(claims, issuer) is refusal({**claims, "nbf": 0}, issuer)


@given(
    st.sampled_from([RES, RES + "/", "", "x", RES.upper()]),
    st.sampled_from(
        [policy(), policy(audience=[RES, "x"]), policy(single_audience=True), policy(canonicalize_audience=True)]
    ),
)
def test_audience_gets_the_same_result_as_a_string_and_in_an_array(audience, issuer):
    results = []
    for value in (audience, [audience]):
        try:
            results.append(check_audience(unverified_token(change_claims(CLAIMS, {"aud": value})), issuer))
        except InvalidToken as denied:
            results.append((denied.reason,))
    assert results[0] == results[1]


BY_COMMA: Final = policy(scope_claims=(ScopeClaim("scope", ScopeForm.COMMA), ScopeClaim("scp")))
SCOPE_VALUES: Final = st.sampled_from(["read write", "write,read", "read", "", " read  write ", ["read"], 7, None])


@given(
    st.lists(
        st.dictionaries(st.sampled_from(["scope", "scp", "", "x"]), SCOPE_VALUES, max_size=3), min_size=1, max_size=6
    ),
    st.sampled_from(
        [
            policy(),
            policy(merge_scope_claims=True),
            policy(scope_claims=()),
            BY_COMMA,
            policy(scope_claims=(ScopeClaim("scope", ScopeForm.LIST),)),
            policy(scope_claims=(ScopeClaim("scp", ScopeForm.SPACE_OR_LIST), ScopeClaim("scope", ScopeForm.COMMA))),
        ]
    ),
)
@example([{"": "read", "scope": "read"}, {"": "read", "scope": "write"}], BY_COMMA)
@example([{"scope": "write,read"}, {"scp": "write,read"}], BY_COMMA)
@example([{"scope": "read"}, {"scope": "read", "scp": "write"}], policy(merge_scope_claims=True))
def test_scopes_are_the_same_after_any_accepted_tokens(tokens, issuer):
    record = build_issuer_record(replace(issuer, keys=None), ScopeCatalog(), ())
    for claims in tokens:
        try:
            granted = granted_scopes(claims, issuer)
        except InvalidToken:
            with pytest.raises(InvalidToken):
                granted_scopes(claims, issuer, record.scope_texts)
        else:
            assert granted_scopes(claims, issuer, record.scope_texts) == granted
            record.remember_scopes(claims, granted)


# -- cached headers

KNOWN: Final = b"a header of a token that was accepted"


def run_check(
    claims: Mapping[str, Any], issuer: Issuer, header: Mapping[str, Any], headers: Mapping[bytes, bool]
) -> object:
    """Return the result of :func:`check`, or the reason and the details of its refusal."""
    token = Unverified(
        header=header, claims=claims, signed=b"", signature=b"", segment=KNOWN, payload=b"", fingerprint="abc"
    )
    try:
        return check(token, issuer, NOW, known=headers.get(KNOWN))
    except InvalidToken as denied:
        return denied.reason, denied.detail


@given(
    st.dictionaries(NAMES | st.just("tid"), VALUES | st.sampled_from(["t1", "t2"]), max_size=3),
    st.sets(NAMES, max_size=2),
    st.sampled_from([HEADER, {**HEADER, "typ": "JWT"}, {"alg": "RS256"}, {"alg": "RS256", "x": "y", "exp": 7}]),
    st.sampled_from(
        [
            DEFAULT,
            policy(expected_claims={"tid": "t1"}),
            policy(claim_prefixes={"tid": "t"}),
            policy(forbidden_claims=("tid",)),
            policy(audience_claims=("aud", "header:x"), any_claims=("tid", "x")),
            policy(merge_scope_claims=True, role_claims=("realm_access.roles", "roles")),
        ]
    ),
)
def test_claims_get_the_same_result_with_and_without_a_cached_header(changes, removed, header, issuer):
    claims = {name: value for name, value in {**CLAIMS, **changes}.items() if name not in removed}
    is_at_jwt = header.get("typ") == "at+jwt"
    assert run_check(claims, issuer, header, {KNOWN: is_at_jwt}) == run_check(claims, issuer, header, {})


@pytest.mark.parametrize("typ", ["at+jwt", "JWT"])
@pytest.mark.parametrize(
    ("settings", "changes", "reason"),
    [
        ({"expected_claims": {"tid": "t1"}}, {"tid": "t2"}, Reason.UNEXPECTED_CLAIM),
        ({"claim_prefixes": {"tid": "t-"}}, {"tid": "t2"}, Reason.UNEXPECTED_CLAIM),
        ({"forbidden_claims": ("act",)}, {"act": {}}, Reason.FORBIDDEN_CLAIM),
        ({}, {"act": "service"}, Reason.MALFORMED_CLAIM),
        ({}, {"act": None}, Reason.MALFORMED_CLAIM),
        *(({}, of_claims, reason) for reason, of_header, of_claims in STEPS if reason is Reason.UNKNOWN_ISSUER),
    ],
    ids=str,
)
def test_policy_of_claims_is_checked_under_a_cached_header_too(settings, changes, reason, typ):
    header = {**HEADER, "typ": typ}
    found = run_check({**CLAIMS, **changes}, policy(**settings), header, {KNOWN: typ == "at+jwt"})
    assert isinstance(found, tuple)
    assert found[0] is reason


def test_cached_header_records_whether_rfc_9068_applies():
    claims = change_claims(CLAIMS, {"jti": ABSENT})
    assert run_check(claims, DEFAULT, HEADER, {KNOWN: True}) == (
        Reason.MISSING_CLAIM,
        {"claim": "jti", "required_by": "typ at+jwt"},
    )
    assert run_check(claims, DEFAULT, {"alg": "RS256"}, {KNOWN: False}) == (False, (RES,), ("read", "write"))


def test_cached_header_is_not_checked_again_but_another_is():
    refused = {"alg": "none"}
    assert run_check(CLAIMS, DEFAULT, refused, {KNOWN: True}) == (True, (RES,), ("read", "write"))
    assert run_check(CLAIMS, DEFAULT, refused, {b"another": True}) == run_check(CLAIMS, DEFAULT, refused, {})


@pytest.mark.rule("J-45")
@pytest.mark.parametrize(
    ("header", "repeats"),
    [
        ({**HEADER, "iss": ISS}, True),
        ({"sub": None}, True),
        ({"aud": []}, True),
        (HEADER, False),
        ({"exp": 7, "client_id": "c", "ISS": ISS}, False),
        ({}, False),
    ],
    ids=str,
)
def test_header_that_repeats_claims_is_not_cached(header, repeats):
    """The repeated claims have to be compared for each token."""
    assert replicates_claims(header) is repeats


# --- header parameters that count as claims --------------------------------------------------------------------------


def with_header(**parameters: object) -> str:
    segments = (json.dumps(part).encode() for part in ({"alg": "ES256", **parameters}, {"sub": "a", "exp": 7}))
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (*segments, b"sig"))


def test_header_parameters_count_as_claims_if_configured():
    text = with_header(client="c", exp=7)
    assert peek(text).claims == {"sub": "a", "exp": 7}
    assert peek(text, header_claims=("client", "exp", "iss")).claims == {"sub": "a", "exp": 7, "client": "c"}


@pytest.mark.rule("J-45")
def test_header_parameter_and_claim_of_one_name_must_be_equal():
    with pytest.raises(InvalidToken) as caught:
        peek(with_header(exp=8), header_claims=("exp",))
    assert caught.value.reason is Reason.REPLICATED_CLAIM


@pytest.mark.parametrize("typ", ["txntoken+jwt", "logout+jwt"])
def test_type_of_another_kind_is_refused_even_if_the_issuer_accepts_it(typ):
    assert refusal(CLAIMS, policy(typ=[typ, "at+jwt"]), {**HEADER, "typ": typ}) is Reason.NOT_AN_ACCESS_TOKEN
