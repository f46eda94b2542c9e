"""The bodies of refusals. No function that writes a body can turn a refusal into anything else."""

from __future__ import annotations

import json
from typing import Any

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
    RequestTooLarge,
)
from scopeguard.reasons import Reason
from scopeguard.spec.challenge import ChallengeStyle, Response, write_denial, write_outage
from scopeguard.spec.error_body import ErrorBody, Problem, check_writer, write_body

NEEDED = ("read", "write")
OUTAGE = AuthorityUnavailable(Reason.AUTHORITY_UNREACHABLE, "https://as.example", retry_after=7)
GOOGLE = ChallengeStyle(realm="r", body=ErrorBody.GOOGLE)

DENIALS: dict[str, tuple[AccessDenied, str, str]] = {
    "nothing sent": (MissingCredentials(Reason.NO_CREDENTIALS), "UNAUTHENTICATED", "required"),
    "bad token": (InvalidToken(Reason.BAD_SIGNATURE), "UNAUTHENTICATED", "authError"),
    "expired": (InvalidToken(Reason.TOKEN_EXPIRED, exp=1), "UNAUTHENTICATED", "authError"),
    "scope missing": (InsufficientScope(NEEDED), "PERMISSION_DENIED", "insufficientPermissions"),
    "no rule": (Forbidden(Reason.NO_RULE), "PERMISSION_DENIED", "forbidden"),
    "two tokens": (InvalidRequest(Reason.SEVERAL_METHODS), "INVALID_ARGUMENT", "badRequest"),
    "too large": (RequestTooLarge(Reason.FORM_TOO_LARGE), "INVALID_ARGUMENT", "badRequest"),
}
ANY_DENIAL = pytest.mark.parametrize("denial, status, reason", DENIALS.values(), ids=DENIALS.keys())


def error_of(response: Response) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(response.body)
    assert set(found) == {"error"}
    error: dict[str, Any] = found["error"]
    return error


def headers(response: Response, *without: str) -> list[tuple[str, str]]:
    return [(name, value) for name, value in response.headers if name not in without]


# -- Google's shape


@ANY_DENIAL
def test_google_error_body_has_code_status_and_reason(denial, status, reason):
    response = write_denial(denial, GOOGLE, scopes=NEEDED)
    error = error_of(response)
    assert (response.status, error["code"], error["status"]) == (denial.status, denial.status, status)
    assert error["message"] == denial.description
    (item,) = error["errors"]
    assert (item["message"], item["domain"], item["reason"]) == (denial.description, "global", reason)
    assert dict(response.headers)["content-type"] == "application/json; charset=UTF-8"


@ANY_DENIAL
def test_google_error_body_names_the_missing_or_wrong_credential(denial, status, reason):
    del reason
    (item,) = error_of(write_denial(denial, GOOGLE))["errors"]
    place = (item.get("location"), item.get("locationType"))
    assert place == (("Authorization", "header") if status == "UNAUTHENTICATED" else (None, None))


def test_google_error_body_of_an_outage_is_retryable():
    response = write_outage(OUTAGE, GOOGLE)
    error = error_of(response)
    assert (response.status, error["code"], error["status"]) == (503, 503, "UNAVAILABLE")
    assert error["errors"][0]["reason"] == "backendError"
    assert dict(response.headers)["retry-after"] == "7"


def test_hidden_403_is_not_found_in_a_google_error_body():
    style = ChallengeStyle(realm="r", hide_forbidden=True, body="google")
    hidden = {write_denial(DENIALS[name][0], style, scopes=NEEDED) for name in ("scope missing", "no rule")}
    (response,) = hidden
    error = error_of(response)
    assert (error["code"], error["status"], error["errors"][0]["reason"]) == (404, "NOT_FOUND", "notFound")
    assert "read" not in response.body.decode()


@ANY_DENIAL
@pytest.mark.parametrize("body", ["google", lambda problem: ("text/plain", b"no")], ids=["google", "own"])
def test_the_challenge_does_not_depend_on_the_body(body, denial, status, reason):
    del status, reason
    style = ChallengeStyle(realm="r", body=body)
    usual, other = (write_denial(denial, s, scopes=NEEDED) for s in (ChallengeStyle(realm="r"), style))
    differing = ("content-type", "content-length")
    assert headers(usual, *differing) == headers(other, *differing)
    assert usual.status == other.status


@ANY_DENIAL
def test_response_to_head_has_the_length_and_type_of_the_omitted_body(denial, status, reason):
    del status, reason
    get, head = write_denial(denial, GOOGLE), write_denial(denial, GOOGLE, head=True)
    assert (head.body, head.headers) == (b"", get.headers)
    assert dict(head.headers)["content-length"] == str(len(get.body))


# -- a writer of the operator's


def own_body(problem: Problem) -> tuple[str, bytes]:
    return "text/plain; charset=utf-8", f"{problem.status} {problem.error} {' '.join(problem.scopes)}".encode()


def test_custom_writer_gets_status_error_and_scopes():
    style = ChallengeStyle(realm="r", body=own_body)
    response = write_denial(InsufficientScope(NEEDED, client_id="c1"), style)
    assert response.body == b"403 insufficient_scope read write"
    assert dict(response.headers)["content-type"] == "text/plain; charset=utf-8"
    assert response.body_failure is None
    assert write_outage(OUTAGE, style).body == b"503 None "


def test_custom_writer_gets_no_details_of_the_refusal():
    """Refusals that differ only in details for the operator's log look the same to a writer."""
    seen: list[Problem] = []

    def writer(problem: Problem) -> tuple[str, bytes]:
        seen.append(problem)
        return "text/plain", b"no"

    style = ChallengeStyle(realm="r", body=writer)
    seen.clear()
    for reason in (Reason.BAD_SIGNATURE, Reason.WRONG_AUDIENCE, Reason.TOKEN_REVOKED):
        write_denial(InvalidToken(reason, client_id="c1", token="fingerprint"), style)
    assert len(set(seen)) == 1


FAILURES: dict[str, Any] = {
    "raises": lambda problem: 1 / 0,
    "raises with the description": lambda problem: {}[problem.description],
    "nothing": lambda problem: None,
    "bytes alone": lambda problem: b"no",
    "three things": lambda problem: ("text/plain", b"no", 403),
    "a string for a body": lambda problem: ("text/plain", "no"),
    "no media type": lambda problem: ("", b"no"),
    "a media type of bytes": lambda problem: (b"text/plain", b"no"),
    "another header": lambda problem: ("text/plain\r\nset-cookie: a=b", b"no"),
    "a header with a line feed at its end": lambda problem: ("text/plain\n", b"no"),
    "beyond ASCII": lambda problem: ("text/plain; charset=\u00fc", b"no"),
}


async def own_body_async(problem: Problem) -> tuple[str, bytes]:
    return own_body(problem)


FAILURES["asynchronous"] = own_body_async


@pytest.mark.parametrize("writer", FAILURES.values(), ids=FAILURES.keys())
def test_writer_that_cannot_work_is_refused_at_construction(writer):
    with pytest.raises(ConfigurationError, match="body: the body writer"):
        ChallengeStyle(realm="r", body=writer)


@pytest.mark.parametrize("name", FAILURES)
@ANY_DENIAL
def test_writer_that_fails_later_does_not_change_the_refusal(name, denial, status, reason):
    del status, reason
    works = True
    style = ChallengeStyle(realm="r", body=lambda problem: own_body(problem) if works else FAILURES[name](problem))
    works = False
    plain = write_denial(denial, ChallengeStyle(realm="r"), scopes=NEEDED)
    response = write_denial(denial, style, scopes=NEEDED)
    assert (response.status, response.headers, response.body) == (plain.status, plain.headers, plain.body)
    assert response.body_failure is not None
    assert denial.description not in response.body_failure
    assert write_outage(OUTAGE, style).body == write_outage(OUTAGE, ChallengeStyle(realm="r")).body


@pytest.mark.parametrize("body", ["html", "", 7, None, b"google"])
def test_a_body_that_is_neither_a_name_nor_a_function_is_refused(body):
    with pytest.raises(ConfigurationError, match=r"body: .*problem, google"):
        ChallengeStyle(realm="r", body=body)


def test_style_states_the_media_type_of_its_bodies():
    styles = [ChallengeStyle(realm="r", body=body) for body in (ErrorBody.PROBLEM, ErrorBody.GOOGLE, own_body)]
    assert [style.media_type for style in styles] == ["application/problem+json", "application/json", "text/plain"]


def test_a_style_is_compared_by_its_settings():
    assert ChallengeStyle(realm="r", body="google") == ChallengeStyle(realm="r", body=ErrorBody.GOOGLE)
    assert ChallengeStyle(realm="r", body="google") != ChallengeStyle(realm="r")


PROBLEMS = st.builds(
    Problem,
    status=st.sampled_from([400, 401, 403, 404, 408, 413, 503]),
    title=st.text(),
    description=st.text(),
    error=st.none() | st.sampled_from(["invalid_request", "invalid_token", "insufficient_scope"]),
    scopes=st.lists(st.text()).map(tuple),
)


@given(PROBLEMS, st.sampled_from(ErrorBody))
def test_built_in_writers_write_ascii_json_for_any_input(problem, body):
    (kind, content), failure = write_body(check_writer(body), problem)
    assert failure is None
    assert kind.startswith("application/")
    assert content.isascii()
    assert str(problem.status) in json.dumps(json.loads(content))


@given(st.text(max_size=40))
def test_media_type_of_a_writer_cannot_inject_a_header(text):
    (kind, _), _ = write_body(lambda problem: (text, b""), Problem(status=403, title="", description=""))
    assert kind.isascii()
    assert kind.isprintable()
