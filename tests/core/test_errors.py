"""The error classes: the text for clients, and the text for operators."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopeguard.errors import (
    AccessDenied,
    AuthorityUnavailable,
    ConfigurationError,
    Forbidden,
    InsufficientScope,
    InvalidRequest,
    InvalidToken,
    MissingCredentials,
    RequestTimedOut,
    RequestTooLarge,
)
from scopeguard.reasons import Reason

REASONED = (AccessDenied, MissingCredentials, InvalidRequest, RequestTooLarge, RequestTimedOut, InvalidToken, Forbidden)

# RFC 6750 section 3: error and error_description
DESCRIPTION = re.compile(r"[\x20-\x21\x23-\x5B\x5D-\x7E]+")
OF_THE_REQUEST = [
    Reason.MALFORMED_CREDENTIALS,
    Reason.EMPTY_CREDENTIALS,
    Reason.REPEATED_AUTHORIZATION,
    Reason.SEVERAL_METHODS,
    Reason.REPEATED_PARAMETER,
    Reason.TOO_MANY_PARAMETERS,
    Reason.NON_ASCII_FORM,
    Reason.FORM_TOO_LARGE,
    Reason.FORM_INCOMPLETE,
    Reason.FORM_TOO_SLOW,
    Reason.TOKEN_TOO_LARGE,
    Reason.QUERY_TOKEN_REFUSED,
    Reason.HTTPS_REQUIRED,
]
OF_THE_TOKEN = [
    Reason.MALFORMED_TOKEN,
    Reason.ENCRYPTED_TOKEN,
    Reason.NESTED_TOKEN,
    Reason.CRITICAL_HEADER,
    Reason.UNENCODED_PAYLOAD,
    Reason.ALGORITHM_REFUSED,
    Reason.TYPE_REFUSED,
    Reason.HEADER_REFUSED,
    Reason.UNKNOWN_ISSUER,
    Reason.UNKNOWN_KEY,
    Reason.BAD_SIGNATURE,
    Reason.MISSING_CLAIM,
    Reason.MALFORMED_CLAIM,
    Reason.FORBIDDEN_CLAIM,
    Reason.UNEXPECTED_CLAIM,
    Reason.REPLICATED_CLAIM,
    Reason.NOT_AN_ACCESS_TOKEN,
    Reason.WRONG_AUDIENCE,
    Reason.TOKEN_NOT_YET_VALID,
    Reason.TOKEN_ISSUED_IN_FUTURE,
    Reason.TOKEN_LIFETIME_TOO_LONG,
    Reason.MALFORMED_SCOPE,
    Reason.SENDER_CONSTRAINT_UNPROVEN,
]


@pytest.mark.rule("H-19")
def test_a_denial_an_outage_and_a_bad_setting_share_no_base_but_exception():
    for one, other in [
        (AccessDenied, AuthorityUnavailable),
        (AccessDenied, ConfigurationError),
        (AuthorityUnavailable, ConfigurationError),
    ]:
        assert set(one.__mro__) & set(other.__mro__) == {Exception, BaseException, object}


@pytest.mark.rule("B-42", "H-19")
@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (MissingCredentials(Reason.NO_CREDENTIALS), 401, None),
        (InvalidRequest(Reason.SEVERAL_METHODS), 400, "invalid_request"),
        (RequestTooLarge(Reason.FORM_TOO_LARGE), 413, "invalid_request"),
        (RequestTimedOut(Reason.FORM_TOO_SLOW), 408, "invalid_request"),
        (InvalidToken(Reason.TOKEN_EXPIRED), 401, "invalid_token"),
        (InsufficientScope(("read", "write")), 403, "insufficient_scope"),
        (Forbidden(Reason.NO_RULE), 403, None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, AccessDenied) else None,
)
def test_each_denial_has_its_status_and_error_code(error, status, code):
    assert isinstance(error, AccessDenied)
    assert (error.status, error.error) == (status, code)


def test_an_outage_is_a_503():
    assert AuthorityUnavailable(Reason.AUTHORITY_TIMED_OUT, "https://as.example").status == 503


@pytest.mark.rule("B-39")
@pytest.mark.parametrize("reason", Reason, ids=str)
def test_client_texts_use_only_characters_of_error_description(reason):
    for kind in REASONED:
        assert DESCRIPTION.fullmatch(kind(reason).description)


@pytest.mark.rule("B-49")
def test_client_text_tells_only_whether_a_token_expired():
    texts = {InvalidToken(reason).description for reason in OF_THE_TOKEN}
    assert len(texts) == 1
    assert InvalidToken(Reason.TOKEN_EXPIRED).description not in texts


def test_each_reason_for_an_invalid_request_has_a_distinct_text():
    (of_tokens,) = {InvalidToken(reason).description for reason in OF_THE_TOKEN}
    texts = [InvalidRequest(reason).description for reason in OF_THE_REQUEST]
    assert len(set(texts)) == len(texts)
    assert of_tokens not in texts


@pytest.mark.rule("B-39", "B-50")
def test_client_text_does_not_depend_on_the_details():
    plain, telling = InvalidToken(Reason.UNKNOWN_KEY), InvalidToken(Reason.UNKNOWN_KEY, kid='kid "x"\\n\u00e9')
    assert plain.description == telling.description
    assert "kid" not in telling.description


def test_operator_text_has_the_reason_and_the_details():
    assert str(InvalidToken(Reason.UNKNOWN_KEY)) == "unknown_key"
    assert str(InvalidToken(Reason.UNKNOWN_KEY, kid="k1", alg="RS256")) == "unknown_key (kid=k1, alg=RS256)"
    assert str(InvalidToken(Reason.TOKEN_EXPIRED, exp=1.5, now=7)) == "token_expired (exp=1.5, now=7)"


def test_insufficient_scope_lists_all_scopes_of_the_operation_in_order():
    error = InsufficientScope(("write", "read"), client_id="c1")
    assert error.scopes == ("write", "read")
    assert str(error) == "insufficient_scope (needed=write read, client_id=c1)"


def test_outage_names_the_authority_and_the_time_to_wait():
    error = AuthorityUnavailable(Reason.AUTHORITY_TIMED_OUT, "https://as.example", retry_after=7.5, status=503)
    assert (error.authority, error.retry_after) == ("https://as.example", 7.5)
    assert str(error) == "authority_timed_out (authority=https://as.example, status=503)"
    assert AuthorityUnavailable(Reason.AUTHORITY_TIMED_OUT, "a\r\nb").retry_after is None
    assert "\n" not in str(AuthorityUnavailable(Reason.AUTHORITY_TIMED_OUT, "a\r\nb", url="c\nd"))


HOSTILE = {
    "path": "../../../dev/null",
    "sql": "' OR 1=1--",
    "ldap": "*)(uid=*",
    "nul": "key\x00",
    "crlf": "a\r\nb",
    "ansi": "a\x1b[31mb",
    "right-to-left override": "a\u202eb",
    "line separator": "a\u2028b",
    "c1 control": "a\x85b\x9b31m",
    "delete": "a\x7fb",
    "lone surrogate": "a\ud800b",
    "astral": "a\U0001f600b",
    "list": ["a\r\nb", {"c\x1b": "\u202e"}],
    "backslash": "a\\nb",
}


@pytest.mark.rule("X-13", "X-78")
@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE.keys())
def test_text_of_a_token_is_logged_escaped_on_one_line(value):
    for error in (
        InvalidToken(Reason.UNKNOWN_KEY, kid=value),
        AuthorityUnavailable(Reason.AUTHORITY_TIMED_OUT, "https://as.example", problem=value),
    ):
        assert re.fullmatch(r"[\x20-\x7E]+", str(error))


@pytest.mark.rule("X-78")
def test_sent_backslash_escapes_are_distinct_from_logged_escapes():
    assert InvalidToken(Reason.UNKNOWN_KEY, kid="a\nb").detail["kid"] == r"a\nb"
    assert InvalidToken(Reason.UNKNOWN_KEY, kid="a\\nb").detail["kid"] == r"a\\nb"


@pytest.mark.rule("X-13")
def test_long_text_of_a_token_is_logged_truncated():
    error = InvalidToken(Reason.UNKNOWN_KEY, kid="\u00e9" * 10_000, alg=["x"] * 10_000)
    assert all(len(value) <= 203 and value.endswith("...") for value in error.detail.values())
    assert InvalidToken(Reason.UNKNOWN_KEY, kid="k" * 200).detail["kid"] == "k" * 200


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=300),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(), max_size=9), inner, max_size=4)
    ),
    max_leaves=8,
)


@pytest.mark.rule("X-13", "X-78")
@given(JSON)
def test_any_detail_is_logged_on_one_line_without_an_exception(value):
    assert re.fullmatch(r"[\x20-\x7E]{1,260}", str(InvalidToken(Reason.MALFORMED_CLAIM, claim=value)))
