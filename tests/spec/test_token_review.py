"""Answers of the TokenReview API. The kind of fault: an outage counts as a denial, or the audience is not checked."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopeguard.spec.token_review import MalformedReview, content, read

USER = {
    "username": "system:serviceaccount:etl:ingest",
    "uid": "c0c98eab",
    "groups": ["system:serviceaccounts", "system:serviceaccounts:etl"],
    "extra": {"authentication.kubernetes.io/pod-name": ["ingest-0"]},
}


def review(kind: str = "TokenReview", **status: Any) -> bytes:
    return json.dumps({"kind": kind, "apiVersion": "authentication.k8s.io/v1", "status": status}).encode()


def test_content_has_the_token_and_the_audiences():
    assert json.loads(content("a.b.c", {"https://b.test", "https://a.test"})) == {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": "a.b.c", "audiences": ["https://a.test", "https://b.test"]},
    }


def test_answer_about_a_valid_token_is_translated():
    assert read(review(authenticated=True, user=USER, audiences=["https://a.test"])) == {
        "active": True,
        "sub": USER["username"],
        "uid": USER["uid"],
        "groups": USER["groups"],
        "extra": USER["extra"],
        "aud": ["https://a.test"],
    }


@pytest.mark.parametrize("status", [{}, {"audiences": []}])
def test_answer_without_audiences_is_about_the_api_server(status: dict[str, Any]):
    assert "aud" not in (read(review(authenticated=True, user=USER, **status)) or {})


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"authenticated": False},
        {"authenticated": False, "user": {}},
        {"authenticated": False, "error": ""},
        {"error": "invalid bearer token"},
        {"authenticated": False, "error": "[invalid bearer token, Token has been invalidated]"},
        {"authenticated": False, "error": "[invalid bearer token, service account token has expired]"},
    ],
)
def test_token_that_is_not_valid_is_not_active(status: dict[str, Any]):
    assert read(review(**status)) is None


@pytest.mark.parametrize(
    "body",
    [
        review(error="etcdserver: request timed out"),
        review(authenticated=False, error="webhook: connection refused"),
        review(authenticated=True, user=USER, error="partly"),
        review(authenticated=True, user=USER, error="invalid bearer token"),
        review(authenticated="true", user=USER),
        review(authenticated=1, user=USER),
        review(authenticated=None, user=USER),
        review(authenticated=True),
        review(authenticated=True, user={}),
        review(authenticated=True, user={"username": ""}),
        review(authenticated=True, user={"username": 7}),
        review(authenticated=True, user=USER, audiences="https://a.test"),
        review(authenticated=True, user=USER, audiences=[7]),
        review(authenticated=False, error=["invalid bearer token"]),
        review("Status", authenticated=True, user=USER),
        b'{"kind": "TokenReview", "status": []}',
        b'{"kind": "TokenReview"}',
        b'{"kind": "TokenReview", "status": {"authenticated": false, "authenticated": true}}',
        b"[]",
        b"",
        b"\xff",
    ],
)
def test_other_answers_say_nothing_about_the_token(body: bytes):
    with pytest.raises(MalformedReview) as caught:
        read(body)
    assert "etcd" not in str(caught.value)


ANYTHING = st.sampled_from([None, True, False, 0, 1, "", "a", "invalid bearer token", [], ["a"], [None], {}, {"a": 1}])
STATUS = st.dictionaries(st.sampled_from(["authenticated", "error", "audiences", "user"]), ANYTHING) | ANYTHING
USERS = st.dictionaries(st.sampled_from(["username", "uid", "groups", "extra"]), ANYTHING)


@given(STATUS, USERS)
def test_any_status_is_a_verdict_or_malformed(status: Any, user: Any):
    if isinstance(status, dict) and "user" in status:
        status = {**status, "user": user}
    try:
        found = read(json.dumps({"kind": "TokenReview", "status": status}).encode())
    except MalformedReview:
        return
    assert found is None or (found["active"] is True and found["sub"])
