"""Evaluation requests to a policy decision point and its answers: only a decision is a decision."""

from __future__ import annotations

import json
from functools import partial
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scopeguard import AccessToken, AuthZen, InsufficientUserAuthentication, PolicyDenied, PolicyRequest
from scopeguard.errors import AccessDenied
from scopeguard.refusal_texts import is_plain_line
from scopeguard.spec.authzen import (
    EvaluationRequest,
    MalformedDecision,
    Outcome,
    build_evaluation_request,
    denial_of,
    endpoint_of,
    metadata_url,
    parse_answer,
    parse_metadata,
)

URL = "https://pdp.test"
SETTINGS = AuthZen(URL)
ONE = EvaluationRequest(body=b"{}")
REQUEST = PolicyRequest(method="GET", path="/x", route="/x")


def token(**values: Any) -> AccessToken:
    given: dict[str, Any] = {
        "issuer": "https://as.test",
        "subject": "alice",
        "client_id": "app",
        "audience": ("api",),
        "scopes": frozenset(),
        "granted_scopes": ("b", "a"),
        "expires_at": None,
        "claims": {},
    }
    return AccessToken(**given | values)


def build_document(settings: AuthZen, access: AccessToken | None = None) -> Any:
    return json.loads(build_evaluation_request(settings, access or token(), REQUEST).body)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
MEMBERS = st.fixed_dictionaries(
    {}, optional={"decision": JSON_VALUES, "context": JSON_VALUES, "evaluations": JSON_VALUES, "x": JSON_VALUES}
)


@pytest.mark.rule("Z-02")
@given(MEMBERS | JSON_VALUES)
@example({"decision": 1})
@example({"decision": "true"})
@example({"decision": True, "context": None})
def test_only_an_object_with_true_permits(value: Any):
    document = json.dumps(value).encode()
    members = value if isinstance(value, dict) else {}
    context = members.get("context")
    if isinstance(members.get("decision"), bool) and (context is None or isinstance(context, dict)):
        outcome = parse_answer(document, ONE, SETTINGS)
        assert outcome.permits is members["decision"]
        assert outcome.context == (context or {})
    else:
        with pytest.raises(MalformedDecision):
            parse_answer(document, ONE, SETTINGS)


@pytest.mark.rule("Z-09")
@given(st.binary(max_size=200))
def test_bytes_that_are_not_json_are_malformed(document: bytes):
    with pytest.raises(MalformedDecision):
        parse_answer(document, ONE, SETTINGS)


@given(MEMBERS.map(lambda members: {**members, "decision": False}))
def test_every_denial_becomes_a_refusal_with_a_harmless_text(members: Any):
    if not isinstance(members.get("context"), dict):
        members["context"] = {"reason_user": members.get("x"), "reason_admin": members.get("x"), "acr_values": None}
    denial = denial_of(parse_answer(json.dumps(members).encode(), ONE, SETTINGS), SETTINGS)
    assert isinstance(denial, AccessDenied)
    assert is_plain_line(denial.description)
    assert denial.status in (401, 403)
    str(denial).encode("ascii")


# -- several evaluations

ALL, DENY, PERMIT = "execute_all", "deny_on_first_deny", "permit_on_first_permit"
T, F = True, False
EVALUATIONS: list[tuple[str, list[Any], bool | None]] = [
    (ALL, [T, T, T], True),
    (ALL, [T, F, T], False),
    (ALL, [T, T], None),
    (ALL, [F], None),
    (ALL, [T, T, T, T], None),
    (ALL, [], None),
    (ALL, [T, T, 1], None),
    (DENY, [T, T, T], True),
    (DENY, [T, F], False),
    (DENY, [F], False),
    (DENY, [T, F, T], False),
    (DENY, [T, T], None),
    (DENY, [], None),
    (PERMIT, [T], True),
    (PERMIT, [F, T], True),
    (PERMIT, [F, F, F], False),
    (PERMIT, [F, F], None),
    (PERMIT, [F, F, F, T], None),
]


@pytest.mark.rule("Z-10")
@pytest.mark.parametrize(("semantics", "decisions", "permits"), EVALUATIONS, ids=repr)
def test_decisions_of_one_exchange_are_combined(semantics: str, decisions: list[Any], permits: bool | None):
    settings = AuthZen(URL, evaluations=lambda token, request: [], semantics=semantics)
    answer = json.dumps({"decision": True, "evaluations": [{"decision": item} for item in decisions]}).encode()
    evaluation = EvaluationRequest(body=b"{}", count=3)
    if permits is None:
        with pytest.raises(MalformedDecision):
            parse_answer(answer, evaluation, settings)
    else:
        assert parse_answer(answer, evaluation, settings).permits is permits


@pytest.mark.rule("Z-10")
@pytest.mark.parametrize("evaluations", [None, {}, "x", [1, 2, 3], [None, None, None]], ids=repr)
def test_evaluations_of_another_form_are_malformed(evaluations: Any):
    settings = AuthZen(URL, evaluations=lambda token, request: [])
    with pytest.raises(MalformedDecision):
        parse_answer(json.dumps({"evaluations": evaluations}).encode(), EvaluationRequest(body=b"", count=3), settings)


@pytest.mark.parametrize(
    "answer",
    [b"", b"[]", b"{", b'{"decision": true, "decision": false}', b'{"decision": true, "context": []}', b"\xff\xfe{}"],
    ids=repr,
)
def test_an_answer_of_another_form_is_malformed(answer: bytes):
    with pytest.raises(MalformedDecision, match="the answer"):
        parse_answer(answer, ONE, SETTINGS)


@pytest.mark.rule("Z-06")
def test_contexts_of_all_permits_are_understood_in_strict_mode():
    settings = AuthZen(URL, evaluations=lambda token, request: [], strict_context=True)
    items = [{"decision": True, "context": {"obligation": 1}}, {"decision": True}]
    with pytest.raises(MalformedDecision, match="strict_context"):
        parse_answer(json.dumps({"evaluations": items}).encode(), EvaluationRequest(body=b"", count=2), settings)


@pytest.mark.rule("Z-10")
def test_evaluations_are_built_with_their_options():
    found = build_document(
        AuthZen(URL, evaluations=lambda token, request: [{"action": {"name": "read"}}], semantics=ALL)
    )
    assert found["evaluations"] == [{"action": {"name": "read"}}]
    assert found["options"] == {"evaluations_semantic": "execute_all"}
    assert found["resource"] == {"type": "route", "id": "/x"}


@pytest.mark.parametrize(
    ("items", "error"),
    [
        ([], "no evaluation"),
        ([1], "a int among its items"),
        ([{"subjects": {}}], "subject, action, resource and context only"),
        ([{"action": {}}], "authzen.action: the mapping needs 'name'"),
    ],
)
def test_wrong_evaluations_are_errors_of_the_function(items: Any, error: str):
    with pytest.raises((TypeError, ValueError), match=error):
        build_document(AuthZen(URL, evaluations=lambda token, request: items))


# -- the evaluation request


@pytest.mark.rule("Z-01")
def test_subject_is_the_client_if_there_is_no_other():
    found = build_document(
        AuthZen(URL, subject_type="machine", resource_type="endpoint"), token(subject=None, granted_scopes=None)
    )
    properties = {"issuer": "https://as.test", "client_id": "app", "scopes": []}
    assert found["subject"] == {"type": "machine", "id": "app", "properties": properties}
    assert found["resource"] == {"type": "endpoint", "id": "/x"}
    assert "client_id" not in build_document(SETTINGS, token(client_id=None))["subject"]["properties"]


def test_token_without_subject_and_client_is_denied_unless_the_settings_name_a_subject():
    nameless = token(subject=None, client_id=None)
    with pytest.raises(PolicyDenied):
        build_document(SETTINGS, nameless)
    assert (
        build_document(AuthZen(URL, subject=lambda token, request: {"type": "t", "id": "x"}), nameless)["subject"]["id"]
        == "x"
    )


def _return(value: Any, *_: object) -> Any:
    return value


def test_equal_requests_have_equal_digests():
    first, second = (
        build_evaluation_request(AuthZen(URL, context=partial(_return, part)), token(), REQUEST)
        for part in ({"a": 1, "b": 2}, {"b": 2, "a": 1})
    )
    assert first.digest == second.digest
    assert first.digest != build_evaluation_request(SETTINGS, token(), REQUEST).digest


def test_claims_of_a_token_may_be_sent():
    claims = {"org": {"a": [{"b": 1}]}}
    found = build_document(AuthZen(URL, context=lambda token, request: token.claims), token(claims=claims))
    assert found["context"] == claims


@pytest.mark.parametrize(
    ("part", "value", "error"),
    [
        ("subject", "alice", "must return a mapping, not str"),
        ("subject", {"type": "user"}, "needs 'id', a string"),
        ("subject", {"id": 7, "type": "user"}, "needs 'id', a string"),
        ("action", None, "must return a mapping"),
        ("resource", {"id": "x"}, "needs 'type', a string"),
        ("context", [], "must return a mapping, not list"),
        ("context", {"a": {1}}, "not of a set"),
        ("context", {"a": float("nan")}, "Out of range float"),
    ],
)
def test_wrong_parts_are_errors_of_the_function(part: str, value: Any, error: str):
    function: dict[str, Any] = {part: lambda token, request: value}
    with pytest.raises((TypeError, ValueError), match=error):
        build_document(AuthZen(URL, **function))


# -- the denial

TEXTS: list[tuple[Any, str | None]] = [
    ("Ask your administrator", "Ask your administrator"),
    ({"403": "by status", "en": "by language"}, "by status"),
    ({"es-403": "no", "en-403": "by both"}, "by both"),
    ({"de": "nein"}, "nein"),
    ({"de": 7}, None),
    ({}, None),
    (7, None),
    (["x"], None),
    (None, None),
    ("", None),
    ("x" * 301, None),
    ("two\nlines", None),
    ("bell\x07", None),
    ("right\u202eto left", None),
    ("zero\u200bwidth", None),
    ("<b>bold</b>", None),
    ("lone\ud800", None),
]


@pytest.mark.rule("Z-03")
@pytest.mark.parametrize(("reason", "text"), TEXTS, ids=repr)
def test_text_for_the_user_is_shown_if_it_is_plain(reason: Any, text: str | None):
    denial = denial_of(Outcome(permits=False, context={"reason_user": reason, "reason_admin": "secret"}), SETTINGS)
    assert isinstance(denial, PolicyDenied)
    assert denial.text == text
    assert "secret" not in denial.description
    assert denial.detail == {"decided_by": URL, "reason_admin": "secret"}


def test_reasons_for_administrators_may_be_objects():
    denial = denial_of(Outcome(permits=False, context={"reason_admin": {"403": "policy\n7"}}), SETTINGS)
    assert "policy" in denial.detail["reason_admin"]
    assert "\n" not in str(denial)


STEP_UP: list[tuple[dict[str, Any], tuple[tuple[str, ...], int | None] | None]] = [
    ({"acr_values": "a b a"}, (("a", "b"), None)),
    ({"acr_values": ["a", "b"]}, (("a", "b"), None)),
    ({"max_age": 0}, ((), 0)),
    ({"acr_values": "a", "max_age": 60}, (("a",), 60)),
    ({"acr_values": 'a"b'}, None),
    ({"acr_values": ["a b"]}, None),
    ({"acr_values": ["a", 7]}, None),
    ({"acr_values": []}, None),
    ({"acr_values": ""}, None),
    ({"acr_values": {"a": 1}}, None),
    ({"acr_values": " ".join(map(str, range(11)))}, None),
    ({"acr_values": "x" * 201}, None),
    ({"max_age": -1}, None),
    ({"max_age": True}, None),
    ({"max_age": "60"}, None),
    ({"max_age": 60.5}, None),
    ({"max_age": 2**40}, None),
    ({}, None),
]


@pytest.mark.rule("Z-05")
@pytest.mark.parametrize(("context", "needed"), STEP_UP, ids=repr)
def test_denial_that_names_a_stronger_sign_in_is_a_step_up(context: Any, needed: Any):
    denial = denial_of(Outcome(permits=False, context=MappingProxyType(context)), SETTINGS)
    if needed is None:
        assert isinstance(denial, PolicyDenied)
    else:
        assert isinstance(denial, InsufficientUserAuthentication)
        assert (denial.acr_values, denial.max_age) == needed
    off = denial_of(Outcome(permits=False, context=context), AuthZen(URL, step_up=False))
    assert isinstance(off, PolicyDenied)


# -- endpoints and metadata


@pytest.mark.rule("Z-01")
def test_endpoint_is_below_the_url():
    assert endpoint_of(AuthZen("https://pdp.test/")) == "https://pdp.test/access/v1/evaluation"
    several = AuthZen("https://pdp.test/a", evaluations=lambda token, request: [])
    assert endpoint_of(several) == "https://pdp.test/a/access/v1/evaluations"


@pytest.mark.rule("Z-08")
def test_metadata_is_between_host_and_path():
    well_known = "https://pdp.test:8443/.well-known/authzen-configuration"
    assert metadata_url("https://pdp.test:8443") == metadata_url("https://pdp.test:8443/") == well_known
    assert metadata_url("https://pdp.test:8443/a/b/") == well_known + "/a/b"


@pytest.mark.rule("Z-08")
@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"policy_decision_point": "https://pdp.test/"}, "must be equal"),
        ({"policy_decision_point": None}, "must be equal"),
        ({"access_evaluation_endpoint": None}, "names no access_evaluation_endpoint"),
        ({"access_evaluation_endpoint": "http://pdp.test/e"}, "cleartext"),
        ({"access_evaluation_endpoint": "https://169.254.169.254/e"}, "internal address"),
        ({"access_evaluation_endpoint": 7}, "must be a URL"),
    ],
)
def test_metadata_of_another_decision_point_is_malformed(changes: Any, error: str):
    document: dict[str, Any] = {"policy_decision_point": URL, "access_evaluation_endpoint": f"{URL}/e", **changes}
    with pytest.raises(MalformedDecision, match=error):
        parse_metadata(json.dumps(document).encode(), SETTINGS)


@pytest.mark.rule("Z-08")
def test_metadata_names_both_endpoints():
    document = json.dumps(
        {
            "policy_decision_point": URL,
            "access_evaluation_endpoint": f"{URL}/e",
            "access_evaluations_endpoint": f"{URL}/es",
        }
    ).encode()
    assert parse_metadata(document, SETTINGS) == f"{URL}/e"
    assert parse_metadata(document, AuthZen(URL, evaluations=lambda token, request: [])) == f"{URL}/es"
    with pytest.raises(MalformedDecision, match="not JSON"):
        parse_metadata(b"x", SETTINGS)
