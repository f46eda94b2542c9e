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


VERDICTS = [
    "[invalid bearer token, [invalid bearer token, square/go-jose: error in cryptographic primitive]]",
    "[invalid bearer token, Token has been invalidated, the server has asked for the client to provide credentials]",
    "[invalid bearer token, Token has expired.]",
    "[invalid bearer token, service account token is not valid yet]",
    "[invalid bearer token, oidc: verify token: oidc: token is expired (Token Expiry: 2026-11-29 09:00:00 +0000 UTC)]",
    "[invalid bearer token, oidc: verify token: failed to verify signature: failed to verify id token signature]",
    '[invalid bearer token, token audiences ["https://a.test"] is invalid for the target audiences ["https://b.test"]]',
    '[invalid bearer token, serviceaccounts "timeouts-eof" not found]',
    "[invalid bearer token, Unauthorized]",
    "[invalid bearer token, ServiceAccount etl/timeout has been deleted]",
    "service account token has been invalidated",
    # The cluster has issued the token and judged it, so the webhook that was asked as well does not matter.
    '[service account token has expired, Post "https://hook.test/": context deadline exceeded]',
]
OUTAGES = [
    'Post "https://hook.test/": context deadline exceeded',
    "Post https://hook.test/: dial tcp 10.0.0.1:443: connect: connection refused",
    'Post "https://hook.test/": dial tcp: lookup hook.test on 10.96.0.10:53: no such host',
    'Post "https://hook.test/": net/http: TLS handshake timeout',
    'Post "https://hook.test/": x509: certificate has expired or is not yet valid',
    "net/http: request canceled (Client.Timeout exceeded while awaiting headers)",
    "context deadline exceeded",
    "the server is currently unable to handle the request",
    "the server was unable to return a response in the time allotted, but may still be processing the request",
    'an error on the server ("") has prevented the request from succeeding',
    "the server has received too many requests and has asked us to try again later",
    "Internal error occurred: failed calling webhook",
    "client rate limiter Wait returned an error: context canceled",
    'forbidden: User "system:serviceaccount:default:default" cannot post path "/"',
    "the server could not find the requested resource",
    "unexpected EOF",
    'Post "https://hook.test/": EOF',
    "http2: client connection lost",
    "read tcp 10.0.0.1:1->10.0.0.2:443: read: connection reset by peer",
    "oidc: authenticator not initialized",
    "oidc: verify token: failed to verify signature: fetching keys oidc: get keys failed: 502 Bad Gateway",
    "etcdserver: request timed out",
]


@pytest.mark.parametrize("problem", OUTAGES)
def test_webhook_or_provider_that_cannot_be_asked_is_an_outage(problem: str):
    """Fault: "invalid bearer token" is read as the result of all authenticators, although another one has failed."""
    for error in (problem, f"[invalid bearer token, {problem}]", f"[{problem}, invalid bearer token]"):
        with pytest.raises(MalformedReview, match="could not be checked"):
            read(review(authenticated=False, error=error))


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
        *({"error": error} for error in VERDICTS),
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
