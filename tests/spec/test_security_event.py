"""Checks of security event tokens that need no key: RFC 8417, SSF 1.0, CAEP 1.0."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopeguard.config.issuer import Issuer
from scopeguard.errors import InvalidToken
from scopeguard.reasons import Reason
from scopeguard.spec.security_event import (
    CHANGES,
    DESCRIPTIONS,
    SESSION_REVOKED,
    SecurityEvent,
    check,
    error_code,
    event_id,
    events_of,
    is_discarded,
    subject_of,
)
from scopeguard.tokens import Unverified

NOW = 1_800_000_000.0
URL = "https://as.test"
AUDIENCES = ("https://receiver.test",)
ISSUER = Issuer(URL, audience="unused", leeway=30, aliases={"as.test": {"tid": "7"}})
ANN = {"format": "iss_sub", "iss": URL, "sub": "ann"}
CLAIMS: dict[str, Any] = {
    "iss": URL,
    "aud": AUDIENCES[0],
    "jti": "1",
    "iat": NOW,
    "sub_id": ANN,
    "events": {SESSION_REVOKED: {"event_timestamp": NOW - 5}},
}


def token(header: dict[str, Any] | None = None, **claims: Any) -> Unverified:
    """Return a token with *claims* in place of valid ones; ``None`` omits one."""
    kept = {name: value for name, value in {**CLAIMS, **claims}.items() if value is not None}
    header = {"typ": "secevent+jwt", "alg": "ES256"} | (header or {})
    return Unverified(header=header, claims=kept, signed=b"", signature=b"", fingerprint="")


def refusal(set_: Unverified) -> Reason | None:
    try:
        check(set_, ISSUER, AUDIENCES, NOW)
    except InvalidToken as error:
        return error.reason
    return None


@pytest.mark.parametrize(
    ("header", "claims", "reason"),
    [
        ({}, {}, None),
        ({"typ": "application/SecEvent+JWT"}, {}, None),
        ({}, {"aud": ["x", AUDIENCES[0]], "unknown": 1}, None),
        ({}, {"iat": NOW + 30}, None),
        ({"alg": "none"}, {}, Reason.ALGORITHM_REFUSED),
        ({"crit": ["b64"]}, {}, Reason.CRITICAL_HEADER),
        ({}, {"jti": None}, Reason.MISSING_CLAIM),
        ({}, {"jti": ""}, Reason.MISSING_CLAIM),
        ({}, {"jti": 1}, Reason.MISSING_CLAIM),
        ({}, {"iat": None}, Reason.MALFORMED_CLAIM),
        ({}, {"iat": True}, Reason.MALFORMED_CLAIM),
        ({}, {"iat": "1"}, Reason.MALFORMED_CLAIM),
        ({}, {"iat": -(10**400)}, Reason.MALFORMED_CLAIM),
        ({}, {"iat": NOW + 31}, Reason.TOKEN_ISSUED_IN_FUTURE),
        ({}, {"events": None}, Reason.MALFORMED_CLAIM),
        ({}, {"events": {}}, Reason.MALFORMED_CLAIM),
        ({}, {"events": [SESSION_REVOKED]}, Reason.MALFORMED_CLAIM),
        ({}, {"events": {SESSION_REVOKED: 1}}, Reason.MALFORMED_CLAIM),
    ],
    ids=lambda value: str(value)[:40],
)
def test_malformed_token_is_refused(header: dict[str, Any], claims: dict[str, Any], reason: Reason | None):
    assert refusal(token(header, **claims)) is reason


@pytest.mark.rule("E-04")
@pytest.mark.parametrize("typ", ["JWT", "at+jwt", "", None, 1])
def test_typ_must_be_secevent_jwt(typ: object):
    assert refusal(token({"typ": typ})) is Reason.TYPE_REFUSED


@pytest.mark.rule("E-05", "E-06")
@pytest.mark.parametrize("claim", [{"sub": "ann"}, {"exp": NOW + 60}])
def test_token_with_sub_or_exp_is_refused(claim: dict[str, Any]):
    assert refusal(token(**claim)) is Reason.FORBIDDEN_CLAIM


@pytest.mark.rule("E-07")
@pytest.mark.parametrize("iss", [URL + "/", URL.upper(), "https://other.test", [URL], None])
def test_issuer_is_compared_exactly(iss: object):
    assert refusal(token(iss=iss)) is Reason.UNKNOWN_ISSUER


@pytest.mark.rule("E-08")
@pytest.mark.parametrize("aud", ["https://other.test", [], [1], {AUDIENCES[0]: 1}, None])
def test_audience_must_be_this_receiver(aud: object):
    assert refusal(token(aud=aud)) is Reason.WRONG_AUDIENCE


def test_each_error_code_has_a_description():
    assert {error_code(reason) for reason in Reason} <= DESCRIPTIONS.keys()


def test_events_are_identified_by_issuer_and_jti():
    assert event_id(token()) == event_id(token(iat=1))
    assert len({event_id(token(iss=iss, jti=jti)) for iss, jti in (("a", "bc"), ("ab", "c"), ("a", "b"))}) == 3


def events(set_: Unverified, *types: str) -> tuple[SecurityEvent, ...]:
    return events_of(set_, types or (SESSION_REVOKED,), NOW + 30)


@pytest.mark.rule("E-11")
def test_event_without_a_time_has_the_time_of_its_token():
    assert events(token())[0].at == NOW - 5
    assert events(token(events={SESSION_REVOKED: {}}, iat=NOW - 7))[0].at == NOW - 7


@pytest.mark.rule("E-13")
def test_unknown_events_and_members_are_ignored():
    found = events(token(events={"https://x.test/event": {"event_timestamp": "?"}, SESSION_REVOKED: {"x": [{"y": 1}]}}))
    assert [(event.type, event.issuer, event.jti) for event in found] == [(SESSION_REVOKED, URL, "1")]
    members: Any = found[0].members
    with pytest.raises(TypeError):
        members["x"] = 1
    assert "ann" not in repr(found[0])


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"sub_id": None}, Reason.MALFORMED_CLAIM),
        ({"sub_id": "ann"}, Reason.MALFORMED_CLAIM),
        ({"sub_id": {"iss": URL, "sub": "ann"}}, Reason.MALFORMED_CLAIM),
        ({"sub_id": {"format": ["iss_sub"]}}, Reason.MALFORMED_CLAIM),
        ({"events": {SESSION_REVOKED: {"event_timestamp": "1"}}}, Reason.MALFORMED_CLAIM),
        ({"events": {SESSION_REVOKED: {"event_timestamp": None}}}, Reason.MALFORMED_CLAIM),
        ({"events": {SESSION_REVOKED: {"event_timestamp": NOW * 1000}}}, Reason.TOKEN_ISSUED_IN_FUTURE),
    ],
    ids=str,
)
def test_an_event_that_cannot_be_acted_on_is_refused(claims: dict[str, Any], reason: Reason):
    with pytest.raises(InvalidToken) as caught:
        events(token(**claims))
    assert caught.value.reason is reason


@pytest.mark.rule("E-05")
def test_sub_id_of_the_token_precedes_the_subject_of_the_event():
    inside = {SESSION_REVOKED: {"subject": {"format": "opaque", "id": "bob"}}}
    assert subject_of(events(token(events=inside))[0]) == "ann"
    assert subject_of(events(token(events=inside, sub_id=None))[0]) == "bob"


@pytest.mark.rule("E-12", "E-17")
@pytest.mark.parametrize(
    ("sub_id", "critical", "subject", "discarded"),
    [
        (ANN, (), "ann", False),
        (ANN, ("session",), "ann", False),
        ({**ANN, "iss": "https://other.test"}, (), "ann", True),
        ({**ANN, "iss": URL + "/"}, (), "ann", True),
        ({**ANN, "iss": "as.test"}, (), "ann", False),
        ({**ANN, "iss": ["as.test"]}, (), "ann", True),
        ({"format": "iss_sub", "sub": "ann"}, (), "ann", True),
        ({**ANN, "sub": ""}, (), None, False),
        ({**ANN, "sub": 1}, (), None, False),
        ({"format": "opaque", "id": "ann"}, (), "ann", False),
        ({"format": "opaque", "sub": "ann"}, (), None, False),
        ({"format": "email", "email": "ann@x.test"}, (), None, False),
        ({"format": "complex", "user": ANN, "session": {}}, (), "ann", False),
        ({"format": "complex", "user": ANN, "session": {}}, ("user",), "ann", False),
        ({"format": "complex", "user": ANN, "session": {}}, ("session",), "ann", True),
        ({"format": "complex", "user": ANN}, ("session",), "ann", False),
        ({"format": "complex", "user": {**ANN, "iss": "https://other.test"}}, (), "ann", True),
        ({"format": "complex", "user": {"format": "email"}}, ("user",), None, True),
        ({"format": "complex", "user": "ann"}, ("user",), None, True),
        ({"format": "complex", "session": {}}, (), None, False),
    ],
    ids=str,
)
def test_subject_of_an_event_is_resolved(
    sub_id: dict[str, Any], critical: tuple[str, ...], subject: str | None, discarded: bool
):
    (event,) = events(token(sub_id=sub_id))
    assert subject_of(event) == subject
    assert is_discarded(event, ISSUER, critical) is discarded


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["format", "iss", "user"]), inner),
    max_leaves=8,
)


@given(sub_id=JSON, time=JSON, type_=st.sampled_from(sorted((SESSION_REVOKED, *CHANGES))))
def test_event_with_any_content_is_parsed_or_refused(sub_id: Any, time: Any, type_: str):
    try:
        for event in events(token(sub_id=sub_id, events={type_: {"event_timestamp": time}}), type_):
            subject_of(event)
            is_discarded(event, ISSUER, ("session",))
    except InvalidToken:
        pass
