"""The request to a token endpoint and the check of its response, by the grammar of RFC 6749."""

from __future__ import annotations

import base64
import json
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopeguard.spec.outage_statuses import is_outage
from scopeguard.spec.token_endpoint import (
    LONGEST_LIFETIME,
    TokenRefusal,
    TokenResponse,
    Tolerance,
    basic_authorization,
    client_credentials_form,
    parse_token_response,
)

BEST = {"access_token": "tok-1", "token_type": "Bearer"}


def judge(status=200, /, **members):
    return parse_token_response(status, json.dumps(members).encode())


def expect_refusal(status=200, /, **members) -> TokenRefusal:
    outcome = judge(status, **members)
    assert isinstance(outcome, TokenRefusal)
    return outcome


def token(**members) -> TokenResponse:
    outcome = judge(**{**BEST, **members})
    assert isinstance(outcome, TokenResponse), outcome
    return outcome


# -- the request


@pytest.mark.rule("C-02")
@pytest.mark.parametrize(
    "client_id, client_secret, pair",
    [
        ("a:b", "p%+ü", "a%3Ab:p%25%2B%C3%BC"),  # I-04
        ("a:b", "ä+%", "a%3Ab:%C3%A4%2B%25"),
        ("cc-secret.v1_x*~", "two words", "cc-secret.v1_x*~:two+words"),
        ("client", "a/b=c&d?", "client:a%2Fb%3Dc%26d%3F"),
    ],
)
def test_basic_credentials_are_form_encoded_except_unreserved_characters(client_id, client_secret, pair):
    scheme, _, encoded = basic_authorization(client_id, client_secret).partition(" ")
    assert (scheme, base64.b64decode(encoded).decode("ascii")) == ("Basic", pair)


TEXT = st.text(st.characters(codec="utf-8"), min_size=1)


@pytest.mark.rule("C-02")
@given(TEXT, TEXT)
def test_any_id_and_secret_can_be_decoded(client_id, client_secret):
    pair = base64.b64decode(basic_authorization(client_id, client_secret).removeprefix("Basic ")).decode("ascii")
    encoded_id, encoded_secret = pair.split(":")
    assert parse_qsl(f"id={encoded_id}&secret={encoded_secret}", strict_parsing=True) == [
        ("id", client_id),
        ("secret", client_secret),
    ]


@pytest.mark.rule("C-01", "C-06", "C-07")
def test_form_repeats_only_resource_and_audience_and_has_no_empty_parameter():
    assert client_credentials_form() == (("grant_type", "client_credentials"),)
    assert client_credentials_form(
        scopes=["a", "b"], resources=["urn:1", "urn:2", ""], audiences=["x"], parameters={"p": "1", "q": ""}
    ) == (
        ("grant_type", "client_credentials"),
        ("scope", "a b"),
        ("resource", "urn:1"),
        ("resource", "urn:2"),
        ("audience", "x"),
        ("p", "1"),
    )


# -- the response


@pytest.mark.rule("C-20")
@pytest.mark.parametrize(
    "status, outage",
    [(200, False), (400, False), (401, False), (404, False), (408, True), (429, True), (500, True), (503, True)],
)
def test_statuses_that_may_be_temporary_are_retryable(status, outage):
    assert is_outage(status) is outage


@pytest.mark.rule("C-09", "C-15", "C-17")
def test_full_and_minimal_responses_are_accepted():
    assert token() == TokenResponse(access_token="tok-1", token_type="Bearer", expires_in=None, scope=None)
    assert token(expires_in=60, scope="a b", refresh_token="r", more=[{"deep": 1}]) == TokenResponse(
        access_token="tok-1", token_type="Bearer", expires_in=60.0, scope=("a", "b")
    )


@pytest.mark.rule("C-09")
@pytest.mark.parametrize("name", ["access_token", "token_type"])
@pytest.mark.parametrize("value", [None, 1, "", ["x"], {}, True])
def test_token_and_type_must_be_non_empty_strings(name, value):
    assert expect_refusal(**{**BEST, name: value}).status == 200


@pytest.mark.rule("C-09")
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"tok-1"',
        b"access_token=tok-1&token_type=Bearer",
        b'{"access_token":"tok-1","token_type":"Bearer"',
        b'{"access_token":"tok-1","access_token":"tok-2","token_type":"Bearer"}',
        b'\xef\xbb\xbf{"access_token":"tok-1","token_type":"Bearer"}',
        b'{"access_token":"tok-1","token_type":"Bearer","expires_in":NaN}',
        b'{"access_token":"tok-1","token_type":"Bearer","expires_in":1e400}',
    ],
)
def test_response_must_be_one_strict_json_object(body):
    outcome = parse_token_response(200, body)
    assert isinstance(outcome, TokenRefusal)
    assert "the response is" in outcome.problem


@pytest.mark.rule("C-10")
@pytest.mark.parametrize("kind", ["bearer", "BEARER", "bEaReR"])
def test_token_type_is_compared_without_case(kind):
    assert token(token_type=kind).token_type == kind


@pytest.mark.rule("C-10")
@pytest.mark.parametrize("kind", ["mac", "DPoP", "N_A", "Bearer ", "Bearer\n", "bearer,DPoP"])
def test_unknown_token_type_is_refused(kind):
    assert "token_type" in expect_refusal(access_token="tok-1", token_type=kind).problem


@pytest.mark.rule("C-10")
@pytest.mark.parametrize(
    ("kinds", "problem"),
    [(("dpop",), "although a proof was sent"), (("n_a",), "token_type"), (("dpop", "mac"), "token_type")],
)
def test_token_that_is_not_bound_is_refused_where_only_bound_ones_are_used(kinds, problem):
    outcome = with_tolerance(Tolerance(token_types=frozenset(kinds)), **BEST)
    assert isinstance(outcome, TokenRefusal)
    assert problem in outcome.problem
    assert ("proof" in outcome.problem) == (kinds == ("dpop",))


@pytest.mark.rule("C-27")
@pytest.mark.parametrize("bad", ["a b", "a\r\nX: 1", "a\n", "a\x00", "ä", "a,b", '"a"', "a=b", "=", " a"])
def test_token_that_no_header_can_hold_is_refused(bad):
    assert "access_token" in expect_refusal(access_token=bad, token_type="Bearer").problem


@pytest.mark.rule("C-27")
@pytest.mark.parametrize(
    "good", ["a", "tok-._~+/1==", "aaa.bbb.ccc", "00D01!AQc.x_y", "v1|x:y", "{a}#$%&'()*;<>?@[\\\\]^`"]
)
def test_token_that_a_header_can_hold_is_used_unchanged(good):
    assert token(access_token=good).access_token == good


@pytest.mark.rule("C-12")
@pytest.mark.parametrize(
    "value, seconds",
    [
        (None, None),
        (3600, 3600.0),
        (3600.0, 3600.0),
        ("3600", 3600.0),
        (0, 0.0),
        ("0", 0.0),
        (-1, 0.0),
        (-1.0, 0.0),
        (2**63, LONGEST_LIFETIME),
        (10**400, LONGEST_LIFETIME),
        (1e300, LONGEST_LIFETIME),
        ("9" * 30, LONGEST_LIFETIME),
    ],
)
def test_expires_in_gives_the_lifetime(value, seconds):
    assert token(expires_in=value).expires_in == seconds


@pytest.mark.rule("C-12")
@pytest.mark.parametrize("value", [True, False, 1.5, "1.5", "-1", "", " 60", "60s", "٦٠", "9" * 31, [60], {}])
def test_expires_in_that_is_not_whole_seconds_is_refused(value):
    assert "expires_in" in expect_refusal(**BEST, expires_in=value).problem


@pytest.mark.rule("C-16")
@pytest.mark.parametrize(
    "value, scope", [(None, None), ("", ()), ("a", ("a",)), ("b a", ("b", "a")), (" a  b ", ("a", "b"))]
)
def test_scope_gives_the_granted_scopes(value, scope):
    assert token(scope=value).scope == scope


@pytest.mark.rule("C-16")
@pytest.mark.parametrize("value", [["a"], 1, "a\tb", 'a"b', "a\\b", "ä", "a\n"])
def test_malformed_scopes_are_refused(value):
    assert "scope" in expect_refusal(**BEST, scope=value).problem


# -- tolerance deviations


def with_tolerance(tolerance, /, **members):
    return parse_token_response(200, json.dumps(members).encode(), tolerance)


@pytest.mark.rule("C-10")
def test_configured_names_for_bearer_are_compared_without_case():
    tolerance = Tolerance(token_types=frozenset(("bearer", "bearertoken")))
    for kind in ("BearerToken", "bearertoken", "Bearer"):
        outcome = with_tolerance(tolerance, access_token="tok-1", token_type=kind)
        assert isinstance(outcome, TokenResponse)
        assert outcome.token_type == kind
    for wrong in (None, 1, "", "mac"):
        assert isinstance(with_tolerance(tolerance, access_token="tok-1", token_type=wrong), TokenRefusal)


@pytest.mark.rule("C-09")
def test_optional_token_type_may_only_be_absent():
    tolerance = Tolerance(token_type_optional=True)
    for body in (b'{"access_token":"tok-1"}', b'{"access_token":"tok-1","token_type":null}'):
        outcome = parse_token_response(200, body, tolerance)
        assert isinstance(outcome, TokenResponse)
        assert outcome.token_type == "Bearer"
    for kind in ["", "mac", 1, False, ["Bearer"]]:
        assert isinstance(with_tolerance(tolerance, access_token="tok-1", token_type=kind), TokenRefusal)


@pytest.mark.rule("C-16")
def test_scopes_may_be_an_array_if_configured():
    tolerance = Tolerance(scope_list=True)
    for value, scope in [([], ()), (["a", "b"], ("a", "b")), ("a b", ("a", "b")), (None, None)]:
        outcome = with_tolerance(tolerance, **BEST, scope=value)
        assert isinstance(outcome, TokenResponse)
        assert outcome.scope == scope
    for wrong in ([1], ["a b"], [""], [["a"]], [None], {"a": 1}, 1):
        assert isinstance(with_tolerance(tolerance, **BEST, scope=wrong), TokenRefusal)


# -- refusals


@pytest.mark.rule("C-18")
def test_oauth_error_code_and_description_are_kept():
    assert expect_refusal(
        400, error="invalid_scope", error_description="No such scope: a", error_uri="https://as.example/e"
    ) == TokenRefusal(
        status=400,
        problem="no token was issued",
        error="invalid_scope",
        description="No such scope: a",
        uri="https://as.example/e",
    )


@pytest.mark.rule("C-18")
@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error": 1, "error_description": [], "error_uri": {}}'])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 201, 204])
def test_error_status_without_an_oauth_error_is_a_refusal(status, body):
    assert parse_token_response(status, body) == TokenRefusal(status=status, problem="no token was issued")


@pytest.mark.rule("C-18")
def test_oauth_error_in_a_200_is_a_refusal():
    assert expect_refusal(200, error="bad_verification").error == "bad_verification"


@pytest.mark.rule("C-26")
@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308, 399])
def test_a_redirect_is_a_refusal(status):
    assert "redirect" in expect_refusal(status, **BEST).problem


@pytest.mark.rule("C-18")
def test_texts_are_bounded_and_cannot_forge_log_lines():
    refusal = expect_refusal(
        400, error="a\nb", error_uri="java script:", error_description="x\r\n\x1b[31m\u202eevil \u00e9" + "y" * 1000
    )
    assert (refusal.error, refusal.uri) == (None, None)
    assert refusal.description is not None
    assert refusal.description.startswith(r"x\r\n\x1b[31m\u202eevil é")
    assert refusal.description.endswith("y...")
    assert len(refusal.description) == 303
    assert expect_refusal(400, error="e" * 301).error is None
    assert expect_refusal(400, error_description="\x00" * 300).description == r"\x00" * 75 + "..."
    assert expect_refusal(400, error_description="y" * 300).description == "y" * 300


@pytest.mark.rule("C-28")
def test_errors_contain_no_token_and_no_part_of_a_response():
    assert "tok-1" not in repr(token())
    for members in ({"token_type": "mac"}, {"expires_in": "tok-1"}, {"scope": "tok-1\n"}):
        assert "tok-1" not in repr(expect_refusal(**{**BEST, **members}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
NAMES = ("access_token", "token_type", "expires_in", "scope", "error", "error_description", "error_uri", "other")
LIKELY = JSON | st.sampled_from(["tok-1", "Bearer", "3600", "a b", 3600, 0])


@pytest.mark.rule("C-09", "C-12", "C-27")
@given(st.sampled_from([200, 400, 302]), st.dictionaries(st.sampled_from(NAMES), LIKELY) | JSON)
def test_any_response_gives_a_sendable_token_or_a_refusal(status, members):
    outcome = parse_token_response(status, json.dumps(members).encode())
    if isinstance(outcome, TokenResponse):
        assert status == 200
        f"Bearer {outcome.access_token}".encode("ascii")
        assert not set(outcome.access_token) & set(' \r\n\t,"')
        assert outcome.expires_in is None or 0 <= outcome.expires_in <= LONGEST_LIFETIME


@given(st.integers(100, 599), st.binary(max_size=200))
def test_any_bytes_are_handled_without_an_exception(status, body):
    parse_token_response(status, body)
