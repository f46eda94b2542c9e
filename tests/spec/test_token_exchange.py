"""Token exchange requests and what their responses must have: RFC 8693, RFC 7523."""

from __future__ import annotations

import pytest

from scopeguard.spec.token_endpoint import TokenRefusal, TokenResponse, parse_token_response
from scopeguard.spec.token_exchange import (
    ACCESS_TOKEN,
    ID_JAG,
    JWT,
    JWT_BEARER,
    TOKEN_EXCHANGE,
    assertion_form,
    check_issued_type,
    exchange_form,
)


@pytest.mark.rule("G-28")
def test_exchange_request_has_the_set_values_and_no_empty_ones():
    assert exchange_form("T", ACCESS_TOKEN) == (
        ("grant_type", TOKEN_EXCHANGE),
        ("subject_token", "T"),
        ("subject_token_type", ACCESS_TOKEN),
    )
    assert exchange_form(
        "T",
        JWT,
        actor=("A", ACCESS_TOKEN),
        requested_token_type=JWT,
        resources=["urn:a", "urn:b"],
        audiences=["c", "d"],
        scopes=["e", "f"],
        parameters={"g": "h", "i": ""},
    ) == (
        ("grant_type", TOKEN_EXCHANGE),
        ("subject_token", "T"),
        ("subject_token_type", JWT),
        ("actor_token", "A"),
        ("actor_token_type", ACCESS_TOKEN),
        ("requested_token_type", JWT),
        ("resource", "urn:a"),
        ("resource", "urn:b"),
        ("audience", "c"),
        ("audience", "d"),
        ("scope", "e f"),
        ("g", "h"),
    )


def test_an_assertion_request_has_the_parameter_of_entra_on_demand():
    assert assertion_form("T") == (("grant_type", JWT_BEARER), ("assertion", "T"))
    assert assertion_form("T", on_behalf_of=True, scopes=["a", "b"], parameters={"c": "d"}) == (
        ("grant_type", JWT_BEARER),
        ("assertion", "T"),
        ("requested_token_use", "on_behalf_of"),
        ("scope", "a b"),
        ("c", "d"),
    )


def response(issued: str | None) -> TokenResponse:
    return TokenResponse(access_token="T", token_type="Bearer", expires_in=None, scope=None, issued_token_type=issued)


@pytest.mark.rule("G-29")
@pytest.mark.parametrize(
    ("issued", "requested", "good"),
    [
        (ACCESS_TOKEN, None, True),
        (JWT, None, True),
        (ACCESS_TOKEN, JWT, True),
        (ID_JAG, ID_JAG, True),
        (ID_JAG, None, False),
        (ACCESS_TOKEN, ID_JAG, False),
        ("", None, False),
    ],
)
def test_the_issued_type_is_that_of_the_request(issued, requested, good):
    refusal = check_issued_type(response(issued), requested)
    assert (refusal is None) is good


@pytest.mark.rule("G-29")
def test_the_issued_type_is_required_unless_it_is_optional():
    refusal = check_issued_type(response(None), None)
    assert isinstance(refusal, TokenRefusal)
    assert "issued_token_type_optional" in refusal.problem
    assert check_issued_type(response(None), None, optional=True) is None


@pytest.mark.parametrize(("member", "found"), [('"x"', "x"), ("1", None), ("null", None), ('["x"]', None)])
def test_issued_type_that_is_not_a_string_counts_as_absent(member, found):
    body = f'{{"access_token": "T", "token_type": "Bearer", "issued_token_type": {member}}}'.encode()
    parsed = parse_token_response(200, body)
    assert isinstance(parsed, TokenResponse)
    assert parsed.issued_token_type == found
